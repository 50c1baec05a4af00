"""How large a person's influence on each statistic is, and how much noise its sum gets."""

from typing import NamedTuple

from policies.requests.request import Request
from policies.requests.statistic import Statistic, is_exact, price_parts
from policies.requests.training import GRADIENT_UNITS
from policies.units import MICRO

CARRIED_ROWS = 10_000  # at the end of their bounds, or persons: a backend that cuts off less serves nobody
MIN_EXACT = 2**50  # of weights in units of 2^-30, times rows
MAX_DEVIATION = 2**52  # of the noise in a sum, in ring units: far from wrapping in 64 bits
_FINE_VARIANCE = 2**20 - 2  # before it is rounded up by 2


def sensitivity(request: Request, statistic: Statistic, max_silos: int) -> int:
    """Return the L2 sensitivity of a statistic over all groups, for one person known to `max_silos` silos.

    In half steps for a total (a centred value is doubled to stay whole), else in rows: at most `max_rows` rows of a
    person enter, in the worst case all into one group. A gradient is clipped once for the person, however many rows.
    """
    return max_silos * sensitivity_of_one_silo(request, statistic)


def sensitivity_of_one_silo(request: Request, statistic: Statistic) -> int:
    kind, column = statistic
    if kind == "total" and column is not None:
        return request.table.max_rows * request.table.column(column).range_steps
    if kind == "gradients":
        return GRADIENT_UNITS
    return 1 if kind == "persons" else request.table.max_rows


class Spread(NamedTuple):
    """One statistic in the whole sum: its sensitivity at one silo, how finely it is scaled, its variance so scaled."""

    of_one_silo: int
    scale_bits: int
    variance: int


def spreads_of(request: Request) -> dict[Statistic, Spread]:
    """Return the noise of every statistic; none of an exact step.

    The price is divided by `price_parts`. A variance is that of the whole sum, in ring units, and rounded
    up to the next integer but one; the scale is the least at which that rounding is lost in the noise. With at most 400
    silos the share of each then deviates by 51 or more, far above the 3 that summing discrete Gaussians asks for.
    """
    parts = price_parts(request.plan)
    if is_exact(request):
        return dict.fromkeys(parts, Spread(0, 0, 0))
    whole = sum(parts.values()) * MICRO * request.table.max_silos**2
    price, found = 2 * request.micro_rho, {}
    for statistic, part in parts.items():
        of_one_silo = sensitivity_of_one_silo(request, statistic)
        squared, divisor = of_one_silo * of_one_silo * whole, price * part
        # The least power of four by which the variance becomes fine enough.
        scale_bits = ((-(-_FINE_VARIANCE * divisor // squared) - 1).bit_length() + 1) // 2
        found[statistic] = Spread(of_one_silo, scale_bits, (squared << 2 * scale_bits) // divisor + 2)
    return found


def cut_of(limit: int, scale_bits: int) -> int:
    """Return the magnitude at which a silo cuts a figure before noise: half of what the backend carries of one silo."""
    return (limit >> 1) >> scale_bits
