"""The noise of each statistic's sum, and the scale at which it is added.

Promise: every party computes the same whole numbers from the signed request. docs/privacy-promise.md.
"""

from collections.abc import Mapping
from typing import NamedTuple

from policies.requests.computations import Computation
from policies.requests.statistic import Statistic
from policies.requests.tables import Table
from policies.units import MICRO

MAX_DEVIATION = 2**52  # of the noise in a sum, in ring units: far from wrapping in 64 bits
_FINE_VARIANCE = 2**20 - 2  # before it is rounded up by 2


class Spread(NamedTuple):
    """One statistic in the whole sum: its squared sensitivity at one silo, its scale, and its variance there."""

    squared_of_one_silo: int
    scale_bits: int
    variance: int


def spreads_of(table: Table, computation: Computation, micro_rho: int) -> Mapping[Statistic, Spread]:
    """Return the noise of every statistic that has noise.

    The price is divided by the statistics' shares of it. A variance is that of the whole sum, in ring units, rounded up
    to the next integer but one; the scale is the least at which that rounding is negligible. With at most 400 silos the
    noise of each silo then deviates by 51 or more, far above the 3 that a sum of discrete Gaussians needs.
    """
    extents = computation.statistics(table)
    whole = sum(extent.share for extent in extents.values()) * MICRO * table.max_silos**2
    price, found = 2 * micro_rho, dict[Statistic, Spread]()
    for statistic, extent in extents.items():
        if not extent.share:
            found[statistic] = Spread(0, 0, 0)
            continue
        squared, divisor = extent.squared * whole, price * extent.share
        # The least power of four that makes the variance large enough.
        scale_bits = ((-(-_FINE_VARIANCE * divisor // squared) - 1).bit_length() + 1) // 2
        found[statistic] = Spread(extent.squared, scale_bits, (squared << 2 * scale_bits) // divisor + 2)
    return found


def check_price(table: Table, computation: Computation, micro_rho: int) -> None:
    """Raise ValueError unless a request with noise has a price, and the noise fits the ring."""
    extents = computation.statistics(table)
    shares = sum(extent.share for extent in extents.values())
    if (micro_rho == 0) != (shares == 0):
        raise ValueError("micro_rho must be above 0, and 0 for what has no noise")
    for extent in extents.values():
        squared = table.max_silos**2 * extent.squared * shares * MICRO
        if squared > 2 * micro_rho * extent.share * MAX_DEVIATION**2:
            raise ValueError("the noise would exceed the ring; narrow the bounds or raise epsilon")


def clamp_of(limit: int, scale_bits: int) -> int:
    """Return the magnitude to which a silo clamps a figure before noise: half of the backend's limit per silo."""
    return (limit >> 1) >> scale_bits
