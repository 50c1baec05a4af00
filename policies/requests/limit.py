"""The limit of a request's sum: the greatest magnitude that one silo contributes to a slot, in ring units.

If every statistic states the most that a silo's figure can be (`Extent.most`), it is the least limit that holds all of
them with their noise, so that the words on the wire are as narrow as can be. Else it is what the backend carries.
Promise: every party computes the same from the signed request. Noise lies beyond its room with a probability of at most
2^-127 a sample, so at most 2^-87 of a whole sum of 2^30 slots and 1,000 silos: docs/noise.md section 3.5, which charges
it to delta.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from crypto.backends.registry import BACKENDS
from crypto.rounds.bounds import fewest_noise_shares
from policies.requests.calibration import clamp_of, spreads_of
from policies.requests.computations import Computation
from policies.requests.statistic import Statistic
from policies.requests.tables import Table

TAIL = 178  # above 256 ln 2: a sample lies beyond sqrt(TAIL) deviations with a probability below 2^-127


def noise_room(variance: int, silos: int, *, is_own: bool = False) -> int:
    """Return the magnitude that holds one silo's share of noise, or the whole where it `is_own`; 0 without noise.

    `variance` is that of the sum, over the silos whose noise alone must reach it. `silos` are asked.
    """
    shares = 1 if is_own else fewest_noise_shares(silos)
    return math.isqrt(TAIL * variance // shares) + 1 if variance else 0


def limit_of(table: Table, computation: Computation, micro_rho: int, backend: str, silos: int) -> int:
    """Return the limit of a request to so many silos: the least, where it is stated and carried, else the capacity."""
    return _limit(_needs(table, computation, micro_rho, silos).values(), BACKENDS[backend].capacity(silos))


def clamps_of(
    table: Table, computation: Computation, micro_rho: int, backend: str, silos: int
) -> Mapping[Statistic, int]:
    """Return the magnitude to which a silo clamps the figures of each statistic, before it scales them.

    It is what the statistic states, if the limit holds it with its noise; else half of the limit.
    """
    needs = _needs(table, computation, micro_rho, silos)
    limit = _limit(needs.values(), BACKENDS[backend].capacity(silos))
    return {
        statistic: clamp_of(limit, need.scale_bits) if need.whole is None or need.whole > limit else need.most
        for statistic, need in needs.items()
    }


class _Need(NamedTuple):
    most: int
    scale_bits: int
    whole: int | None  # scaled and with noise, in ring units; None where the statistic states nothing


def _needs(table: Table, computation: Computation, micro_rho: int, silos: int) -> Mapping[Statistic, _Need]:
    extents, found = computation.statistics(table), dict[Statistic, _Need]()
    for statistic, (_, scale_bits, variance) in spreads_of(table, computation, micro_rho).items():
        most = extents[statistic].most
        room = noise_room(variance, silos, is_own=computation.has_own_noise)
        whole = None if most is None else (most << scale_bits) + room
        found[statistic] = _Need(most or 0, scale_bits, whole)
    return found


def _limit(needs: Iterable[_Need], capacity: int) -> int:
    wholes = [need.whole for need in needs]
    stated = [whole for whole in wholes if whole is not None]
    return capacity if not stated or len(stated) < len(wholes) else min(capacity, max(1, *stated))
