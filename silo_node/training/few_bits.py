"""Numbers of few bits: unbiased rounding to a public scale, and which coordinates of a long vector a round sums.

Only sums without noise are rounded so: rounding a silo's sum can move that of a neighbour by a unit in every
coordinate, so no bound on one person stands after it. The words that decide each rounding are arguments, so that this
is pure; the silo draws them from the operating system's generator. Alistarh et al., NeurIPS 2017 (QSGD), section 3.
"""

from collections.abc import Sequence
from hashlib import blake2b
from math import gcd

import numpy as np
import numpy.typing as npt

from crypto.randomness import MAX_FRESH_BYTES, fresh_bytes
from silo_node.training.grid import Integers, Vector, reals

WORD_BITS = 32  # that decide a rounding: its mean is within 2^-32 of a level of the number
_PERSON = b"consilo/1 keep"
_CHUNK = MAX_FRESH_BYTES // 4

Words = npt.NDArray[np.uint32]


def fresh_words(count: int) -> Words:
    """Return so many uniform words of 32 bits, from keys that the operating system draws."""
    parts = [fresh_bytes(4 * min(_CHUNK, count - start)) for start in range(0, count, _CHUNK)]
    return np.frombuffer(b"".join(parts), "<u4")


def rounded(values: Vector, reach: Vector, levels: int, words: Words) -> Integers:
    """Return numbers as whole levels, `levels` of which are the reach: up or down at random, right in the mean.

    A number beyond its reach is cut to it, and is not right in the mean then; of a reach of 0 all is 0. The result is
    never beyond `levels`. The chance of going up is the fraction, rounded up to a multiple of 2^-32.
    """
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        share = np.where(reach > 0, values / reach, 0.0)
    # A number that is not finite is 0: the caller counts its row as outside.
    share = np.clip(np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0) * levels
    low = np.floor(share)
    # The fraction is exact within 2^-53, and of a whole number it is 0, which no word is below.
    goes_up = words < np.ldexp(share - low, WORD_BITS)
    return np.asarray(low.astype(np.int64) + goes_up, np.int64)


def round_freshly(units: Integers, bits: int, reach: Vector, levels: int) -> None:
    """Put levels in the place of whole units of 2^-bits, by fresh words; memory is bounded by a few chunks."""
    for start in range(0, len(units), _CHUNK):
        own = slice(start, start + _CHUNK)
        units[own] = rounded(reals(units[own], bits), reach[own], levels, fresh_words(len(units[own])))


def real(units: Integers, reach: Vector, levels: int) -> Vector:
    """Return opened sums of levels as reals, by the arithmetic that every silo has."""
    return np.asarray(units.astype(np.float64) * (reach / levels))


def in_limbs(count: int, bound: int | None, limbs: int) -> Integers:
    """Return a count as so many numbers of at most `bound`, which is one less than a power of two; the least first.

    Sums of limbs over silos are joined to the sum of the counts. A count that limbs cannot hold is the greatest one.
    """
    if bound is None:
        return np.array([count], np.int64)
    width = bound.bit_length()
    count = min(count, (1 << width * limbs) - 1)
    return np.array([count >> width * place & bound for place in range(limbs)], np.int64)


def joined(limbs: Sequence[int] | Integers, bound: int | None) -> int:
    """Return the count, or the sum of counts, that these limbs, or their sums, are of."""
    width = 0 if bound is None else bound.bit_length()
    return sum(int(one) << width * place for place, one in enumerate(limbs))


def sweep(length: int, count: int) -> int:
    """Return in how many rounds each coordinate is summed at least once, `count` of `length` at a time."""
    return -(-(length - 1) // max(1, count - 1))


def coordinates(run: bytes, number: int, length: int, count: int) -> Integers:
    """Return which coordinates the round with this number, from 0, sums: `count` of them, each once, in order.

    Coordinate 0 is always among them. All others are put into an order that the run and the sweep draw, and a sweep of
    rounds takes them in turn, so that none is left out for long. The order is that of multiples of a number that has no
    divisor in common with `length - 1`: places of features are hashes, so any fixed set of places is a random one of
    features.
    """
    if count >= length:
        return np.arange(length)
    others, own = length - 1, count - 1
    rounds = sweep(length, count)
    seed = blake2b((number // rounds).to_bytes(4, "little") + run, digest_size=16, person=_PERSON).digest()
    step, first = int.from_bytes(seed[:8], "little") % others, int.from_bytes(seed[8:], "little") % others
    while gcd(step, others) != 1:
        step = (step + 1) % others
    begin = min(number % rounds * own, others - own)
    # Products stay below 2^48, as a table has at most 2^24 weights (`policies.requests.hashed.MOST_BITS`).
    taken = (first + np.arange(begin, begin + own, dtype=np.int64) * step) % others
    return np.concatenate([[0], np.sort(taken) + 1])
