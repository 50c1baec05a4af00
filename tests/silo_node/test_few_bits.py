"""Numbers of few bits: right in the mean, never beyond their bits, and coordinates that all silos draw alike."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.randomness import MAX_FRESH_BYTES
from crypto.ring import Ring
from policies.requests.hashed import VALUE_BITS, levels, limbs
from silo_node.training.few_bits import (
    WORD_BITS,
    coordinates,
    fresh_words,
    in_limbs,
    joined,
    real,
    round_freshly,
    rounded,
    sweep,
)

LEVELS = [levels(int(bits)) for bits in VALUE_BITS]
MOST_WORD = 2**WORD_BITS - 1
REALS = st.floats(allow_nan=True, allow_infinity=True)


def one(value: float, reach: float, most: int, word: int) -> int:
    return int(rounded(np.array([value]), np.array([reach]), most, np.array([word], np.uint32))[0])


@given(REALS, st.floats(0, allow_infinity=False), st.sampled_from(LEVELS), st.integers(0, MOST_WORD))
def test_no_number_is_beyond_its_bits(value: float, reach: float, most: int, word: int) -> None:
    assert -most <= one(value, reach, most, word) <= most


@given(st.floats(-1, 1), st.floats(1e-9, 1e9), st.sampled_from(LEVELS))
def test_a_number_is_right_in_the_mean_within_a_word(share: float, reach: float, most: int) -> None:
    """The words below one threshold go up, all others down, so the mean over all words is known exactly."""
    value = share * reach
    exact = Fraction(float(np.clip(np.float64(value) / reach, -1, 1) * most))
    low = exact.__floor__()
    middle = int((exact - low) * 2**WORD_BITS)
    counts = (0, middle, middle + 1, 2**WORD_BITS)
    going_up = [count for count in counts if _is_threshold(value, reach, most, low, count)]
    assert going_up
    assert abs(low + Fraction(going_up[0], 2**WORD_BITS) - exact) <= Fraction(1, 2**WORD_BITS) + Fraction(1, 2**52)


def _is_threshold(value: float, reach: float, most: int, low: int, count: int) -> bool:
    below = count == 0 or one(value, reach, most, count - 1) == low + 1
    return below and (count > MOST_WORD or one(value, reach, most, count) == low)


def test_the_mean_of_many_roundings_is_the_number() -> None:
    values = np.linspace(-1, 1, 41)
    total, count = np.zeros(41), 4000
    for _ in range(count):
        total += rounded(values, np.ones(41), 127, fresh_words(41))
    # A rounding has a deviation of half a level at most; six of the mean's are beyond chance.
    assert np.abs(total / count / 127 - values).max() < 6 * 0.5 / 127 / count**0.5


def test_whole_levels_and_nothing_are_never_moved() -> None:
    for most in LEVELS:
        values = np.array([-1.0, 0.0, 1.0, 0.0])
        for word in (0, MOST_WORD):
            words = np.full(4, word, np.uint32)
            assert rounded(values, np.array([1.0, 1.0, 1.0, 0.0]), most, words).tolist() == [-most, 0, most, 0]


@given(st.lists(st.integers(-127, 127), min_size=10, max_size=10))
def test_the_least_ring_of_ten_silos_with_8_bits_has_12_bits_and_is_exact(units: list[int]) -> None:
    most, silos = levels(8), 10
    ring = Ring((2 * silos * most + 1).bit_length())
    assert ring.bits == 12
    total = ring.zeros(1)
    for unit in units:
        total = ring.reduce(total + ring.from_signed(np.array([unit], np.int64)))
    assert ring.signed(total).tolist() == [sum(units)]


def test_a_long_vector_is_rounded_in_its_place() -> None:
    count = MAX_FRESH_BYTES // 4 + 5
    units = np.arange(count) - count // 2
    reach = np.full(count, 2.0)
    exact = np.ldexp(units.astype(np.float64), -17) / 2 * 127
    round_freshly(units, 17, reach, 127)
    assert np.abs(units - exact).max() < 1
    assert abs(float((units - exact).mean())) < 6 * 0.5 / count**0.5


def test_an_opened_sum_of_levels_is_what_it_stands_for() -> None:
    assert real(np.array([-127, 254, 0]), np.array([2.0, 4.0, 0.0]), 127).tolist() == pytest.approx([-2.0, 8.0, 0.0])


@given(
    st.lists(st.integers(0, 2**50 - 1), min_size=1, max_size=9),
    st.sampled_from([None, 2**26 - 1, *LEVELS]),
)
def test_counts_in_limbs_add_up_exactly(counts: list[int], bound: int | None) -> None:
    parts = [in_limbs(count, bound, limbs(bound)) for count in counts]
    assert all(len(part) == limbs(bound) and part.min() >= 0 for part in parts)
    assert bound is None or max(int(part.max()) for part in parts) <= bound
    assert joined(np.sum(parts, axis=0), bound) == sum(counts)


def test_a_count_that_limbs_cannot_hold_is_the_greatest_one() -> None:
    assert in_limbs(2**60, 127, limbs(127)).tolist() == [127] * limbs(127)


@given(st.binary(min_size=16, max_size=16), st.integers(0, 200), st.integers(10, 14), st.floats(0.001, 1))
def test_coordinates_are_as_many_in_order_each_once_and_the_intercept_is_among_them(
    run: bytes, number: int, bits: int, keep: float
) -> None:
    length = 1 << bits
    count = max(1, int(keep * length))
    found = coordinates(run, number, length, count)
    assert len(found) == count
    assert found[0] == 0
    assert (np.diff(found) > 0).all()
    assert found[-1] < length


def test_a_sweep_leaves_no_coordinate_out_and_another_run_draws_others() -> None:
    length, count = 4096, 409
    for run in (bytes(16), bytes([7] * 16)):
        for start in (0, sweep(length, count)):
            rounds = range(start, start + sweep(length, count))
            seen = np.concatenate([coordinates(run, number, length, count) for number in rounds])
            assert set(seen.tolist()) == set(range(length))
    draws = [coordinates(bytes([run] * 16), 0, length, count).tolist() for run in range(50)]
    assert len({tuple(draw) for draw in draws}) == 50
    # Of two runs as many coordinates are common as chance says: the mean of a hypergeometric, within 6 deviations.
    common = np.mean([len(set(draws[0]) & set(other)) - 1 for other in draws[1:]])
    assert abs(common - 408 * 408 / 4095) < 6 * 10
    assert draws[0] == coordinates(bytes(16), 0, length, count).tolist()


def test_words_are_as_many_as_are_asked_for_and_differ() -> None:
    count = MAX_FRESH_BYTES // 4 + 3
    words = fresh_words(count)
    assert (words.dtype, len(words)) == (np.dtype("<u4"), count)
    assert not np.array_equal(words, fresh_words(count))
    assert len(fresh_words(0)) == 0
    assert abs(float(words.mean()) / 2**31 - 1) < 0.01
