"""Prices: the ledger adds zCDP rho, and people see epsilon at delta.

Bun and Steinke, TCC 2016, for zero-concentrated differential privacy; Canonne, Kamath and Steinke, NeurIPS 2020,
proposition 12, for the conversion. Every order gives a valid bound, so the search below can lose tightness, never
safety.

No computation has a curve yet. `curve_of`, `line_of` and `cover` are for sampled training, which comes later: its price
is a Renyi curve that is not a line of rho.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from policies.requests.calibration import spreads_of
from policies.requests.request import Request
from policies.units import MICRO

# The orders of dp-accounting's RdpAccountant, in tenths. A curve has the Renyi divergence at each of them, in units of
# 1e-7, so that a line of whole micro-rho is exact: at order a it is rho * a.
ORDERS: tuple[int, ...] = (*range(11, 111), *range(120, 640, 10), 1280, 2560, 5120, 10240)
CURVE_UNITS = 10 * MICRO


def curve_of(divergences: Sequence[float]) -> tuple[int, ...]:
    """Return a curve from the Renyi divergences at `ORDERS`, rounded up."""
    if len(divergences) != len(ORDERS):
        raise ValueError(f"{len(divergences)} divergences, expected {len(ORDERS)}")
    return tuple(math.ceil(Fraction(value) * CURVE_UNITS) for value in divergences)


def line_of(micro_rho: int) -> tuple[int, ...]:
    """Return the curve of rho-zCDP."""
    return tuple(micro_rho * order for order in ORDERS)


def cover(curve: Sequence[int]) -> int:
    """Return the least whole micro-rho whose line is nowhere below the curve."""
    return max(int(-(-value // order)) for value, order in zip(curve, ORDERS, strict=True))


def delta_of(rho: float, epsilon: float) -> float:
    """Return a delta such that rho-zCDP implies (epsilon, delta)-DP: the infimum over orders, found by bisection."""
    if epsilon <= rho:
        return 1.0

    # The exponent is convex in the order; its derivative is (2a - 1) rho - epsilon + log1p(-1/a).
    low, high = 1.0 + 1e-12, (epsilon + 1) / (2 * rho) + 2
    for _ in range(200):
        order = (low + high) / 2
        if (2 * order - 1) * rho - epsilon + math.log1p(-1 / order) < 0:
            low = order
        else:
            high = order
    exponent = (high - 1) * (high * rho - epsilon) + (high - 1) * math.log1p(-1 / high) - math.log(high)
    return min(1.0, math.exp(exponent))


@lru_cache(maxsize=1024)
def epsilon_of(rho: float, delta: float) -> float:
    """Return the least epsilon (rounded up in the ninth digit) such that rho-zCDP implies (epsilon, delta)-DP."""
    if not rho:
        return 0.0
    low, high = rho, rho + 2 * math.sqrt(rho * math.log(1 / delta)) + 1e-9
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if delta_of(rho, middle) <= delta else (middle, high)
    return high


@lru_cache(maxsize=1024)
def micro_rho_of(epsilon: float, delta: float) -> int:
    """Return the greatest price in micro-rho within (epsilon, delta)-DP; 0 if one micro-rho is too much."""
    low, high = 0, 100 * MICRO
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if delta_of(middle / MICRO, epsilon) <= delta else (low, middle - 1)
    return low


def charge(request: Request, max_silos: int) -> int:
    """Return the cost of the request for one person at a silo, in micro-rho rounded up, computed from its noise.

    A request without noise has no price: it promises nothing, and only exact sources answer it. Summing discrete
    Gaussians differs from sampling one (Kairouz, Liu and Steinke, ICML 2021, theorem 1: below 1e-36 at a deviation of
    3); `spreads_of` covers this by rounding each variance up by more than one.
    """
    total, divisor = 0, 1  # one exact fraction; `fractions` would reduce it at every step
    for squared_of_one, scale_bits, variance in spreads_of(request.table, request.plan, request.micro_rho).values():
        if variance:
            squared = max_silos**2 * squared_of_one << 2 * scale_bits
            total, divisor = total * 2 * variance + squared * divisor, divisor * 2 * variance
    return -(-total * MICRO // divisor)
