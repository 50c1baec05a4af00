"""Dense vectors of persons in whole units: each shortened to an L2 norm, rounded, and its norm checked in integers.

Promise: no row of what `bounded` returns is longer than `units` in L2 norm, whatever the numbers are. A vector is
shortened first, to a little less than the clip so that rounding to the nearest unit seldom makes it too long; who is
too long all the same is shrunk in integers until it is not. Who has a number that is not finite has 0 everywhere.
"""

import numpy as np
import numpy.typing as npt

from silo_node.training.grid import Integers, Vector

_ROUNDING = 2.0  # units: what rounding adds to a norm beyond its mean; one in 10^9 vectors gets longer than that
_SHRUNK = 1 - 2.0**-10  # what a vector that is too long is multiplied by, again and again

Bools = npt.NDArray[np.bool_]


def scaled(parts: Vector, clip: float, units: int) -> tuple[Vector, Bools]:
    """Return vectors in units of clip / units before they are rounded, and which were within the clip.

    `parts` has the shape (persons, numbers). No vector is longer than `units`.
    """
    numbers = parts.shape[1]
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", parts, parts))
        target = np.sqrt(max(1.0, units * units - numbers / 12.0)) - _ROUNDING
        factors = np.minimum(units, target * clip / norms) / clip
        found = parts * np.where(norms > 0, factors, units / clip)[:, None]
        # One number of many may be infinite where their norm is not, and the other way round.
        is_finite = np.isfinite(norms) & np.isfinite(found).all(1)
        return np.where(is_finite[:, None], found, 0.0), is_finite & (norms <= clip)


def rounded(shares: Vector, units: int) -> Integers:
    """Return vectors rounded to whole units, none of which is longer than `units` in L2 norm."""
    found = np.rint(shares).astype(np.int64)
    too_long = np.flatnonzero(_squared(found) > units * units)
    while len(too_long):
        # Towards 0: every number gets shorter by a unit or more, so this ends.
        found[too_long] = np.trunc(found[too_long] * _SHRUNK).astype(np.int64)
        too_long = too_long[_squared(found[too_long]) > units * units]
    return found


def bounded(parts: Vector, clip: float, units: int) -> Integers:
    """Return vectors in whole units of clip / units, each at most so many units long."""
    return rounded(scaled(parts, clip, units)[0], units)


def doubtful(shares: Vector, parts: Vector, clip: float, margin: float) -> Bools:
    """Tell which vectors another order of additions could round otherwise: a number is within `margin` of a tie.

    Of shape (persons,). A norm that near to the clip counts too.
    """
    with np.errstate(all="ignore"):
        near = (np.abs(np.abs(shares - np.floor(shares)) - 0.5) < margin).any(1)
        norms = np.sqrt(np.einsum("ij,ij->i", parts, parts))
        return np.asarray(near | (np.abs(norms - clip) < margin * clip) | ~np.isfinite(norms))


def _squared(units: Integers) -> Integers:
    return np.asarray(np.einsum("ij,ij->i", units, units))
