"""Integer noise for a release: the discrete Gaussian of Canonne, Kamath and Steinke (NeurIPS 2020).

OpenDP samples it exactly, with the operating system's generator. A block of `TABLE_SLOTS` or more is drawn from tables
(`crypto.table_noise`), whose small error is charged to delta; the length of a block is public. Kairouz, Liu and Steinke
(ICML 2021, theorem 1) bound the sum over silos: with a deviation of at least 3 per silo it behaves like one discrete
Gaussian. docs/noise.md.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from crypto.table_noise import draw

MIN_DEVIATION = 3  # per silo, in ring units, as the theorem requires
TABLE_SLOTS = 4096  # in one block; OpenDP needs longer for them than to build and use a table


def discrete_gaussian(length: int, variance: int, shares: int) -> npt.NDArray[np.int64]:
    """Return `length` samples in ring units, each with at least the variance `variance / shares`."""
    if is_from_table(length) and variance:
        return draw(length, Fraction(variance, shares))
    return exact_gaussian(length, variance, shares)


def is_from_table(length: int) -> bool:
    """Tell whether the noise of a block of this length is drawn from tables."""
    return length >= TABLE_SLOTS


def exact_gaussian(length: int, variance: int, shares: int) -> npt.NDArray[np.int64]:
    """Return the same from OpenDP, for a block of any length."""
    return np.array(_sampler(deviation(variance, shares))([0] * length), np.int64)


def deviation(variance: int, shares: int) -> float:
    """Return the standard deviation of one share: never below that of `variance / shares`."""
    return math.sqrt(variance / shares) * (1 + 2**-50)  # rounded up: two roundings lose less than 2^-51


@lru_cache(maxsize=64)
def _sampler(scale: float) -> Callable[[list[int]], list[int]]:
    import opendp.prelude as dp  # slow to import: only where noise is drawn

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
    measurement: Callable[[list[int]], list[int]] = dp.m.make_gaussian(*space, scale=scale)
    return measurement
