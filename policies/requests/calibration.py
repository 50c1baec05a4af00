"""How much noise the sum of each statistic gets, and how finely it is scaled for it.

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
    """One statistic in the whole sum: its sensitivity at one silo, how finely it is scaled, its variance so scaled."""

    of_one_silo: int
    scale_bits: int
    variance: int


def spreads_of(table: Table, computation: Computation, micro_rho: int) -> Mapping[Statistic, Spread]:
    """Return the noise of every statistic; none of one without noise.

    The price is divided by the statistics' shares of it. A variance is that of the whole sum, in ring units, and
    rounded up to the next integer but one; the scale is the least at which that rounding is lost in the noise. With at
    most 400 silos the share of each then deviates by 51 or more, far above the 3 that summing discrete Gaussians asks
    for.
    """
    extents = computation.statistics(table)
    whole = sum(extent.share for extent in extents.values()) * MICRO * table.max_silos**2
    price, found = 2 * micro_rho, dict[Statistic, Spread]()
    for statistic, extent in extents.items():
        if not extent.share:
            found[statistic] = Spread(0, 0, 0)
            continue
        squared, divisor = extent.sensitivity * extent.sensitivity * whole, price * extent.share
        # The least power of four by which the variance becomes fine enough.
        scale_bits = ((-(-_FINE_VARIANCE * divisor // squared) - 1).bit_length() + 1) // 2
        found[statistic] = Spread(extent.sensitivity, scale_bits, (squared << 2 * scale_bits) // divisor + 2)
    return found


def check_price(table: Table, computation: Computation, micro_rho: int) -> None:
    """Raise ValueError unless there is a price where there is noise, and the noise fits the ring."""
    extents = computation.statistics(table)
    shares = sum(extent.share for extent in extents.values())
    if (micro_rho == 0) != (shares == 0):
        raise ValueError("micro_rho must be above 0, and 0 for what has no noise")
    for extent in extents.values():
        squared = (table.max_silos * extent.sensitivity) ** 2 * shares * MICRO
        if squared > 2 * micro_rho * extent.share * MAX_DEVIATION**2:
            raise ValueError("the noise would exceed the ring; narrow the bounds or raise epsilon")


def clip_of(limit: int, scale_bits: int) -> int:
    """Return the magnitude to which a silo clips a figure before noise: half of what the backend carries of a silo."""
    return (limit >> 1) >> scale_bits
