"""What inner products promise of a long sum: by brute force in small rings, and by the arithmetic of the real one."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from math import comb

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from crypto.backends.masking import MaskingScheme
from crypto.backends.scheme import CHUNK_VALUES, Shape
from crypto.backends.unreduced import BLOCK
from crypto.errors import ProtocolError, RangeError, WireError
from crypto.keys import derive
from crypto.ring import Ring
from crypto.rounds.products import (
    ERROR_LOG2,
    InnerProducts,
    added,
    decode,
    encode,
    fetched_whole,
    most_absent,
    passing_log2,
)
from crypto.wire import MAX_SILOS
from tests.harness.short_chunks import narrow

SEED = derive(bytes(32), "a seed")


def coefficients(seed: bytes, count: int) -> list[int]:
    """Return the first coefficients, by the specification alone."""
    raw = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor().update(bytes(8 * count))
    return [int.from_bytes(raw[start : start + 8], "little") for start in range(0, 8 * count, 8)]


def plainly(seed: bytes, coordinates: list[int]) -> tuple[int, int]:
    found = coefficients(seed, len(coordinates) + 1)
    first, second = (sum(a * b for a, b in zip(found[shift:], coordinates, strict=False)) % 2**64 for shift in (0, 1))
    return first, second


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
@pytest.mark.parametrize("length", [1, 2, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_inner_products_are_those_of_the_specification(dtype: str, length: int) -> None:
    raw = b"".join(value.to_bytes(8, "little") for value in coefficients(bytes(32), length))
    coordinates = np.frombuffer(raw[: length * int(dtype[2])], dtype)
    expected = plainly(SEED, coordinates.tolist())
    whole = InnerProducts(SEED)
    whole.add(coordinates)
    assert whole.values == expected
    parts = InnerProducts(SEED)
    for start in range(0, length, 5 if length < 10 else 5000):
        parts.add(coordinates[start : start + (5 if length < 10 else 5000)])
    assert parts.values == expected
    shifted = InnerProducts(SEED)
    unaligned = memoryview(b"x" + coordinates.tobytes())[1:]
    shifted.add(np.frombuffer(unaligned, dtype))
    assert shifted.values == expected
    assert decode(encode(expected)) == expected
    assert len(encode(expected)) == 16


def test_products_of_vectors_add_up_to_those_of_their_sum() -> None:
    vectors = [np.array(coefficients(derive(bytes(32), name), 1000), np.uint64) for name in ("a", "b", "c")]
    values = []
    for vector in (*vectors, vectors[0] + vectors[1] + vectors[2]):
        found = InnerProducts(SEED)
        found.add(vector)
        values.append(found.values)
    assert added(values[:3]) == values[3]


# The bound


def valuation(value: int) -> int:
    return (value & -value).bit_length() - 1


def errors(length: int, most: int) -> Iterator[tuple[int, ...]]:
    """Yield every error between two sums with coordinates up to `most`, but none at all."""
    yield from (error for error in product(range(-most, most + 1), repeat=length) if any(error))


@pytest.mark.parametrize(("word", "length", "most"), [(1, 3, 1), (2, 2, 3), (3, 2, 7), (2, 3, 3), (3, 3, 3)])
def test_every_error_passes_as_rarely_as_its_valuation_says(word: int, length: int, most: int) -> None:
    """All errors, all coefficients, words of few bits: each product passes with 2^-(word - v), both independently."""
    modulus = 2**word
    rows = np.array(list(product(range(modulus), repeat=length + 1)))
    for error in errors(length, min(most, modulus - 1)):
        first = rows[:, :length] @ np.array(error) % modulus == 0
        second = rows[:, 1:] @ np.array(error) % modulus == 0
        least = min(word, *(valuation(value) for value in error if value))
        chance = Fraction(1, 2 ** (word - least))
        assert Fraction(int(first.sum()), len(rows)) == chance
        assert Fraction(int(second.sum()), len(rows)) == chance
        assert Fraction(int((first & second).sum()), len(rows)) == chance**2


@pytest.mark.parametrize(("silos", "bits"), [(2, 1), (3, 1), (2, 2), (5, 1), (3, 2)])
def test_no_error_has_more_zeros_than_the_bound_takes(silos: int, bits: int) -> None:
    most = silos * (2**bits - 1)
    highest = max(valuation(error) for error in range(1, most + 1))
    assert passing_log2(silos, bits) == 2 * (64 - highest)


def test_both_products_pass_with_2_to_minus_40_up_to_4096_silos_and_no_further_than_8192() -> None:
    # An error of 2^43 needs 4,096 words: below 2^44 = 4,096 * 2^32. So 21 bits of each product are left.
    assert passing_log2(4096, 32) == 42
    assert passing_log2(4097, 32) == 42 - 2
    assert passing_log2(8192, 32) == ERROR_LOG2
    assert passing_log2(8193, 32) == ERROR_LOG2 - 2
    assert passing_log2(MAX_SILOS, 32) == 46
    assert [passing_log2(n, 32) for n in (2, 4, 10, 40, 100)] == [64, 62, 58, 54, 52]
    assert [passing_log2(n, 12) for n in (4, 10, 1000)] == [102, 98, 86]
    for silos in range(1, MAX_SILOS + 1):
        assert passing_log2(silos, 32) >= 46


@pytest.mark.parametrize("bits", [1, 8, 12, 31, 32])
@pytest.mark.parametrize("silos", [1, 3, 4, 10, 33, 100, 333, MAX_SILOS, 4096, 8192])
def test_whoever_chooses_among_challenges_gains_nothing(silos: int, bits: int) -> None:
    absent = most_absent(silos, bits)
    choices = sum(comb(silos, number) for number in range(absent + 1))
    assert choices * Fraction(1, 2 ** passing_log2(silos, bits)) <= Fraction(1, 2**ERROR_LOG2)
    more = choices + (comb(silos, absent + 1) if absent < silos else 0)
    assert absent == silos or more * Fraction(1, 2 ** passing_log2(silos, bits)) > Fraction(1, 2**ERROR_LOG2)


def test_how_many_nonces_may_be_missing() -> None:
    assert [most_absent(silos, 32) for silos in (3, 4, 10, 40, 100, MAX_SILOS, 4096)] == [3, 4, 10, 3, 1, 0, 0]
    assert [most_absent(silos, 12) for silos in (10, 40, 100, MAX_SILOS)] == [10, 40, 12, 5]


def of_shape(length: int, silos: int) -> MaskingScheme:
    return MaskingScheme(Shape(length, silos, silos, (2**31 - 1) // silos))


def test_whose_vectors_are_fetched_whole() -> None:
    names = tuple(f"silo-{number:03}" for number in range(100))
    long, short = of_shape(CHUNK_VALUES + 1, 100), of_shape(CHUNK_VALUES, 100)
    assert fetched_whole(long, names, names, names) == ()
    assert fetched_whole(long, names, names, names[1:]) == names[:1]
    assert fetched_whole(long, names, names[1:], names[1:]) == names[:1]
    assert fetched_whole(long, names, names[2:], names[2:]) == names
    assert fetched_whole(short, names, names, names) == names


# Sums that are not reduced


@pytest.mark.parametrize("bits", [3, 12, 31, 32, 64])
@pytest.mark.parametrize("silos", [1, 2, 5])
def test_a_sum_that_is_not_reduced_holds_the_sum_of_the_words(
    bits: int, silos: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch, bits)
    length = CHUNK_VALUES + 3
    scheme, ring = of_shape(length, 5), Ring(bits)
    words = [
        ring.reduce(np.array(coefficients(derive(bytes(32), str(number)), length), np.uint64).astype(ring.dtype))
        for number in range(silos)
    ]
    chunks = [
        [ring.pack(one[start : start + CHUNK_VALUES]) for start in range(0, length, CHUNK_VALUES)] for one in words
    ]
    total = scheme.accumulator(0)
    for one in chunks:
        for index, chunk in enumerate(one):
            total.add(index, chunk)
    for index, summed in enumerate(total.chunks()):
        assert len(summed) == scheme.sum_bytes(index)
        part = slice(index * CHUNK_VALUES, (index + 1) * CHUNK_VALUES)
        columns = [[int(word) for word in column] for column in zip(*(one[part] for one in words), strict=True)]
        shifts = range(0, bits, 32)
        expected = [sum(word >> shift & 2**32 - 1 for word in column) for shift in shifts for column in columns]
        coordinates = scheme.unreduced.read(index, summed)
        assert coordinates.tolist() == expected
        assert scheme.unreduced.above == (None if 5 * 2 ** min(bits, 32) <= 2**32 else np.dtype("u1"))
        scheme.unreduced.check(index, coordinates, silos)
        reduced = ring.zeros(len(columns))
        scheme.unreduced.reduced(index, summed, reduced)
        assert reduced.tolist() == [sum(column) % 2**bits for column in columns]
        alone = [scheme.unreduced.of_words(scheme.words(index, one[index])) for one in chunks]
        assert np.array_equal(np.sum([one.astype(np.uint64) for one in alone], axis=0), coordinates)


def test_a_sum_that_is_not_reduced_takes_whole_chunks_of_so_many_silos() -> None:
    scheme = of_shape(CHUNK_VALUES + 1, 2)
    total = scheme.accumulator(0)
    chunk = scheme.ring.pack(scheme.ring.zeros(1))
    total.add(1, chunk)
    with pytest.raises(ProtocolError, match="in part"):
        total.chunks()
    for wrong in (b"", chunk[1:], chunk * 2):
        with pytest.raises(WireError, match="expected 4"):
            total.add(1, wrong)
    total.add(1, chunk)
    with pytest.raises(ProtocolError, match="more than 2"):
        total.add(1, chunk)
    assert total.chunk(1) == bytes(5)


@pytest.mark.parametrize(("silos", "above"), [(1, 0), (2, 1), (256, 1), (257, 2), (MAX_SILOS, 2)])
def test_a_coordinate_takes_as_many_bytes_as_it_can_need(
    silos: int, above: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch, 32)
    scheme = of_shape(CHUNK_VALUES + 1, silos)
    assert scheme.sum_bytes(1) == 4 + above
    total = scheme.accumulator(0)
    for _ in range(silos):
        total.add(1, b"\xff" * 4)
    coordinates = scheme.unreduced.read(1, total.chunk(1))
    assert coordinates.tolist() == [silos * (2**32 - 1)]
    scheme.unreduced.check(1, coordinates, silos)


def test_a_coordinate_is_at_most_the_sum_of_the_largest_words() -> None:
    how = of_shape(CHUNK_VALUES + 1, 4).unreduced
    how.check(0, np.array([3 * (2**32 - 1)], np.uint64), 3)
    with pytest.raises(RangeError, match="it was altered"):
        how.check(0, np.array([3 * (2**32 - 1) + 1], np.uint64), 3)


@pytest.mark.parametrize("bits", [32, 64])
def test_a_long_sum_opens_to_what_was_blinded(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch, bits)
    length = CHUNK_VALUES + 9
    scheme = MaskingScheme(Shape(length, 3, 3, 2**20))
    units = [np.arange(length, dtype=np.int64) % 1001 * sign for sign in (1, -2, 3)]
    seeds = [derive(bytes(32), str(number)) for number in range(3)]
    total = scheme.accumulator(0)
    for one, seed in zip(units, seeds, strict=True):
        for index, (chunk,) in enumerate(scheme.blind(one, [seed], [])):
            total.add(index, chunk)
    opened = scheme.open({0: total.chunks()}, [], seeds)
    assert np.array_equal(opened.units, np.sum(units, axis=0))
