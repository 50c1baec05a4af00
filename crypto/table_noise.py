"""Noise for long answers: the discrete Gaussian from tables of whole numbers, a fixed number of random words a sample.

Promise: the parameter is exactly the variance that is asked for, and the distribution of a sample is within
`2^-TABLE_TV_BITS` of the discrete Gaussian in total variation distance, up to `MAX_VARIANCE`. Words, steps and tables
depend on length and variance, which are public, and never on a sample. docs/noise.md proves this.
Walker, ACM TOMS 1977, for the alias table; Micciancio and Walter, CRYPTO 2017, for the sum of two samples.
"""

import math
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from crypto.errors import RangeError
from crypto.randomness import fresh_bytes

TABLE_TV_BITS = 109  # one sample's distance is at most 2^-109, docs/noise.md section 3
MAX_VARIANCE = 2**104  # of one silo; the deviation is then 2^52
WIDEST = 2**21  # the greatest variance of one table; above it a sample is a sum of two
NARROW = 2**20  # the variance of the first of the two
STEP = 2**8  # the factor of the second
WEIGHT_BITS = 127  # all weights of a table add up to 2^127; the last of the 128 random bits is the sign

_PRECISION = 256  # bits of the probabilities before they are rounded to weights
_DIGITS = Context(prec=100)
_CUT = 178  # above 256 ln 2: less than 2^-128 lies beyond sqrt(_CUT) deviations
CHUNK = 2**13  # samples at a time: 128 KiB of random words under one key; fits the second-level cache

Samples = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AliasTable:
    """The weights of 0, 1, 2, ... in columns of equal weight: a threshold, and the value above it."""

    bits: int  # the table has 2^bits columns
    high: npt.NDArray[np.uint64]  # of the threshold
    low: npt.NDArray[np.uint64]
    alias: Samples

    def __post_init__(self) -> None:
        for column in (self.high, self.low, self.alias):
            column.setflags(write=False)  # a table is kept and used again


def draw(length: int, variance: Fraction) -> Samples:
    """Return `length` samples of the discrete Gaussian with this variance; raises RangeError outside the bound."""
    if not 0 < variance <= MAX_VARIANCE:
        raise RangeError(f"a variance of {float(variance):g}, expected above 0 and at most 2^104")
    tables = [table(part) for part in parts_of(variance)]
    samples = np.zeros(length, np.int64)
    for start in range(0, length, CHUNK):
        chunk = samples[start : start + CHUNK]
        for one in reversed(tables):
            chunk *= STEP
            chunk += _sample(one, chunk.size)
    return samples


def parts_of(variance: Fraction) -> tuple[Fraction, ...]:
    """Return the variances of x0, x1, ... such that x0 + STEP x1 + STEP^2 x2 + ... has the given one."""
    parts = []
    while variance > WIDEST:
        parts.append(Fraction(NARROW))
        variance = (variance - NARROW) / STEP**2
    return (*parts, variance)


@lru_cache(maxsize=16)
def table(variance: Fraction) -> AliasTable:
    """Return the table of one variance of at most `WIDEST`."""
    return alias_table(weights_of(variance))


def weights_of(variance: Fraction) -> list[int]:
    """Return the weights of |x| = 0, 1, 2, ...: whole, adding up to 2^WEIGHT_BITS, all but that of 0 rounded down."""
    if not 0 < variance <= WIDEST:
        raise RangeError(f"a variance of {float(variance):g}, expected above 0 and at most {WIDEST}")
    last = math.isqrt(math.floor(_CUT * variance)) + 1
    ratio, square = _exp(-1 / (2 * variance)), _exp(-1 / variance)  # p(1) / p(0), and the quotient of two such ratios
    probability, found = 1 << _PRECISION, [1 << _PRECISION]
    for _ in range(last):
        probability = probability * ratio >> _PRECISION
        ratio = ratio * square >> _PRECISION
        found.append(2 * probability)
    total = sum(found)
    weights = [(one << WEIGHT_BITS) // total for one in found]
    weights[0] = (1 << WEIGHT_BITS) - sum(weights[1:])
    return weights


def alias_table(weights: list[int]) -> AliasTable:
    """Return the table from which each value is drawn with exactly its weight of 2^WEIGHT_BITS."""
    bits = max(1, (len(weights) - 1).bit_length())
    full = 1 << WEIGHT_BITS - bits
    left = weights + [0] * ((1 << bits) - len(weights))
    thresholds, alias = [full] * len(left), list(range(len(left)))
    small = [column for column, weight in enumerate(left) if weight < full]
    large = [column for column, weight in enumerate(left) if weight > full]
    while small:  # the weights that are left fill the columns that are left, so one of them is too large
        column, other = small.pop(), large[-1]
        thresholds[column], alias[column] = left[column], other
        left[other] -= full - left[column]
        if left[other] <= full:
            large.pop()
            if left[other] < full:
                small.append(other)
    high = np.array([one >> 64 for one in thresholds], np.uint64)
    low = np.array([one & (1 << 64) - 1 for one in thresholds], np.uint64)
    return AliasTable(bits, high, low, np.array(alias, np.int64))


def _sample(one: AliasTable, count: int) -> Samples:
    """Return `count` samples: of each 128 bits the first choose the column, then come the sign and the threshold."""
    words = np.frombuffer(fresh_bytes(16 * count), "<u8")
    high, low = words[:count], words[count:]
    rest = 63 - one.bits
    column = (high >> np.uint64(rest + 1)).astype(np.int64)
    chosen = high & np.uint64((1 << rest) - 1)
    threshold = one.high[column]
    is_below = (chosen < threshold) | ((chosen == threshold) & (low < one.low[column]))
    magnitude = np.where(is_below, column, one.alias[column])
    sign = ((high >> np.uint64(rest)) & np.uint64(1)).astype(np.int64)
    return (magnitude ^ -sign) + sign  # the negative, if the sign is 1


def _exp(exponent: Fraction) -> int:
    """Return 2^_PRECISION times e to the power of `exponent`, within 1."""
    power = _DIGITS.exp(_DIGITS.divide(Decimal(exponent.numerator), Decimal(exponent.denominator)))
    return int(_DIGITS.multiply(power, Decimal(1 << _PRECISION)))
