"""Tails and quantiles of the distributions that tests and intervals need, in plain doubles to about 1e-12.

The incomplete beta and gamma functions are evaluated by Lentz's continued fractions and series: Press et al., Numerical
Recipes, third edition, sections 6.2 and 6.4.
"""

import math
from statistics import NormalDist

_TINY, _PRECISION, _MOST_TERMS = 1e-300, 1e-16, 10_000


def normal_tails(z: float) -> float:
    """Return the probability that a standard normal is at least as far from 0 as z."""
    return math.erfc(abs(z) / math.sqrt(2))


def normal_quantile(probability: float) -> float:
    """Return the value below which a standard normal lies with this probability."""
    return NormalDist().inv_cdf(probability)


def t_tails(t: float, df: float) -> float:
    """Return the probability that Student's t with `df` degrees of freedom is at least as far from 0 as t."""
    if t * t < 1:  # where the tails are most of all, their complement is the exact one
        return 1 - incomplete_beta(0.5, df / 2, t * t / (df + t * t))
    return incomplete_beta(df / 2, 0.5, df / (df + t * t))


def t_quantile(probability: float, df: float) -> float:
    """Return the value below which Student's t lies with this probability, above 1/2; by bisection."""
    tails, low, high = 2 * (1 - probability), 0.0, 1.0
    while t_tails(high, df) > tails:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_tails(middle, df) > tails else (low, middle)
    return (low + high) / 2


def f_tail(value: float, above: float, below: float) -> float:
    """Return the probability that F with so many degrees of freedom above and below is at least `value`."""
    if value <= 0:
        return 1.0
    whole = below + above * value
    if value < 1:  # where the tail is most of all, its complement is the exact one
        return 1 - incomplete_beta(above / 2, below / 2, above * value / whole)
    return incomplete_beta(below / 2, above / 2, below / whole)


def chi_square_tail(value: float, df: float) -> float:
    """Return the probability that chi-square with `df` degrees of freedom is at least `value`."""
    return 1.0 if value <= 0 else _upper_gamma(df / 2, value / 2)


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function of x in [0, 1]."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, x) / a
    return 1 - front * _beta_fraction(b, a, 1 - x) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    found = d
    for m in range(1, _MOST_TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / _away(1 + term * d), _away(1 + term / c)
            found *= d * c
        if abs(d * c - 1) < _PRECISION:
            break
    return found


def _upper_gamma(a: float, x: float) -> float:
    """Return the regularised upper incomplete gamma function."""
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        for n in range(1, _MOST_TERMS):
            term *= x / (a + n)
            total += term
            if term < total * _PRECISION:
                break
        return 1 - front * total
    b = x + 1 - a
    c, d = 1 / _TINY, 1 / b
    found = d
    for n in range(1, _MOST_TERMS):
        term, b = -n * (n - a), b + 2
        d, c = 1 / _away(term * d + b), _away(b + term / c)
        found *= d * c
        if abs(d * c - 1) < _PRECISION:
            break
    return front * found


def _away(value: float) -> float:
    """Return a value, or a tiny one in the place of 0."""
    return value if abs(value) > _TINY else _TINY
