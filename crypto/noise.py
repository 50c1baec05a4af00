"""Integer noise for a release: the discrete Gaussian of Canonne, Kamath and Steinke (NeurIPS 2020).

Sampled exactly by OpenDP, which draws from the operating system. The sum over silos is accounted for by Kairouz, Liu
and Steinke (ICML 2021, theorem 1): with a deviation of at least 3 per silo it behaves like one discrete Gaussian.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

MIN_DEVIATION = 3  # per silo, in ring units: what the theorem asks for


def discrete_gaussian(length: int, variance: int, shares: int) -> npt.NDArray[np.int64]:
    """Return `length` samples in ring units, each with at least the variance `variance / shares`."""
    deviation = math.sqrt(variance / shares) * (1 + 2**-50)  # rounded up: two roundings lose less than 2^-51
    return np.array(_sampler(deviation)([0] * length), np.int64)


@lru_cache(maxsize=64)
def _sampler(deviation: float) -> Callable[[list[int]], list[int]]:
    import opendp.prelude as dp  # heavy: only where noise is really drawn

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
    measurement: Callable[[list[int]], list[int]] = dp.m.make_gaussian(*space, scale=deviation)
    return measurement
