"""Columns are those of Shamir's scheme, any quorum opens, and a wrong sum is found, named and left out."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.backends import shares
from crypto.backends.keystream import integers
from crypto.backends.scheme import CHUNK_VALUES, Shape
from crypto.backends.shares import (
    PRIME,
    SharesBackend,
    SharesScheme,
    combined,
    next_by_differences,
    open_column,
    reconstruct,
    seal_column,
    sealed_bytes,
)
from crypto.errors import ProtocolError, RangeError, SealError, WireError
from crypto.keys import Secret, derive
from crypto.sealing import SealingKey
from tests.cases import every
from tests.vectors import generate

CASES = json.loads((Path(generate.__file__).parent / "shares.json").read_text())["cases"]
INFO = derive(bytes(32), "a column")


def scheme_of(silos: int, quorum: int, length: int, limit: int | None = None) -> SharesScheme:
    bound = SharesBackend().bind(Shape(length, silos, quorum, limit or SharesBackend().capacity(silos)))
    assert isinstance(bound, SharesScheme)
    return bound


def slow_value(values: dict[int, int], at: int) -> int:
    """Return the value at `at` of the polynomial through the given points, by Lagrange's formula in integers."""
    total = 0
    for xi, value in values.items():
        for xj in values:
            if xj != xi:
                value = value * (at - xj) * pow(xi - xj, -1, PRIME) % PRIME
        total += value
    return total % PRIME


def sums_of(scheme: SharesScheme, vectors: list[np.ndarray[Any, np.dtype[np.int64]]]) -> dict[int, list[bytes]]:
    accumulators = [scheme.accumulator(column) for column in range(scheme.columns)]
    for vector in vectors:
        for index, pieces in enumerate(scheme.blind(vector, [], [])):
            for accumulator, piece in zip(accumulators, pieces, strict=True):
                accumulator.add(index, piece)
    return {column: accumulator.chunks() for column, accumulator in enumerate(accumulators)}


def random_vectors(scheme: SharesScheme, count: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    shape, generator = scheme.shape, np.random.default_rng(scheme.shape.silos)
    return [generator.integers(-shape.limit, shape.limit + 1, shape.length) for _ in range(count)]


def altered(chunks: list[bytes], at: int, by: int = 1) -> list[bytes]:
    words = np.frombuffer(chunks[0], np.uint64).copy()
    words[at] = (int(words[at]) + by) % PRIME
    return [words.tobytes(), *chunks[1:]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['quorum']} of {case['silos']}")
def test_vectors(case: dict[str, Any]) -> None:
    secrets = np.array([int(secret) for secret in case["secrets"]], np.int64)
    seeds = [bytes.fromhex(seed) for seed in case["seeds"]]
    scheme = scheme_of(case["silos"], case["quorum"], secrets.size)
    pieces = scheme.deal(case["chunk"], secrets, seeds)
    assert list(pieces[: len(seeds)]) == seeds
    dealt = [[str(word) for word in np.frombuffer(piece, np.uint64).tolist()] for piece in pieces[len(seeds) :]]
    assert dealt == case["columns"]


@pytest.mark.slow
@every("silos", [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 40, 100])
def test_every_column_lies_on_one_polynomial(silos: int) -> None:
    quorum = 2 * silos // 3 + 1
    scheme = scheme_of(silos, quorum, 5)
    (vector,) = random_vectors(scheme, 1)
    ((*pieces,),) = scheme.blind(vector, [], [])
    columns = [integers(piece, PRIME, 0, 5) for piece in pieces[: quorum - 1]]
    columns += [np.frombuffer(piece, np.uint64).tolist() for piece in pieces[quorum - 1 :]]
    for index in range(5):
        points = {place + 1: column[index] for place, column in enumerate(columns)}
        last = {x: points[x] for x in range(silos - quorum + 1, silos + 1)}
        assert slow_value(last, 0) == int(vector[index]) % PRIME
        assert all(slow_value(last, x) == value for x, value in points.items())


@pytest.mark.parametrize(("silos", "quorum"), [(3, 3), (4, 3), (7, 5), (10, 7), (12, 9)])
def test_any_quorum_opens_and_no_fewer(silos: int, quorum: int) -> None:
    scheme = scheme_of(silos, quorum, 9)
    vectors = random_vectors(scheme, silos)
    sums, total = sums_of(scheme, vectors), np.sum(vectors, axis=0).tolist()
    for present in list(combinations(range(silos), quorum))[:40]:
        found = scheme.open({column: sums[column] for column in present}, [], [])
        assert found.units.tolist() == total
        assert found.inconsistent_silos == ()
    for present in list(combinations(range(silos), quorum - 1))[:5]:
        with pytest.raises(ProtocolError, match=f"{quorum - 1} sums of columns, {quorum} are needed"):
            scheme.open({column: sums[column] for column in present}, [], [])


def test_fewer_columns_than_a_quorum_fit_every_secret() -> None:
    """For any value there is one polynomial through t - 1 columns and it, so they tell nothing apart."""
    scheme = scheme_of(10, 7, 1)
    ((*pieces,),) = scheme.blind(np.array([123], np.int64), [], [])
    known = {1 + place: integers(pieces[place], PRIME, 0, 1)[0] for place in range(3)}
    known |= {1 + place: int(np.frombuffer(pieces[place], np.uint64)[0]) for place in (7, 8, 9)}
    fits = set()
    for guess in (0, 123, PRIME - 1):
        fourth = slow_value({0: guess, **known}, 4)
        assert slow_value({4: fourth, **known}, 0) == guess
        fits.add(fourth)
    assert len(fits) == 3


@pytest.mark.parametrize("silos", [10, 13])
def test_wrong_sums_are_named_up_to_half_the_redundancy(silos: int) -> None:
    quorum = 2 * silos // 3 + 1
    scheme = scheme_of(silos, quorum, 5000)
    vectors = random_vectors(scheme, silos)
    sums, total = sums_of(scheme, vectors), np.sum(vectors, axis=0).tolist()
    most = (silos - quorum) // 2
    for wrong in [(place,) for place in range(silos)] + list(combinations(range(silos), most))[:20]:
        false = dict(sums)
        for number, place in enumerate(wrong):
            false[place] = altered(false[place], 4999 - number * 4097, 5 + number)  # each at another value
        found = scheme.open(false, [], [])
        assert found.inconsistent_silos == wrong
        assert found.units.tolist() == total


def test_colluding_wrong_sums_at_one_value_are_named() -> None:
    """Both shift the same value, by a multiple of a polynomial that is 0 at all other places."""
    scheme = scheme_of(13, 9, 3)
    vectors = random_vectors(scheme, 13)
    sums = sums_of(scheme, vectors)
    false = {**sums, 2: altered(sums[2], 1, 77), 11: altered(sums[11], 1, PRIME - 77)}
    found = scheme.open(false, [], [])
    assert found.inconsistent_silos == (2, 11)
    assert found.units.tolist() == np.sum(vectors, axis=0).tolist()


def test_more_wrong_sums_than_can_be_told_are_noticed() -> None:
    scheme = scheme_of(10, 7, 3)
    sums = sums_of(scheme, random_vectors(scheme, 10))
    with pytest.raises(ProtocolError, match="contradict each other"):
        scheme.open({**sums, 2: altered(sums[2], 1), 5: altered(sums[5], 1, 99)}, [], [])
    eight = {column: sums[column] for column in range(8)}
    with pytest.raises(ProtocolError, match="contradict each other"):
        scheme.open({**eight, 2: altered(sums[2], 1)}, [], [])


def test_a_sum_of_another_size_or_outside_the_field_counts_as_wrong() -> None:
    scheme = scheme_of(7, 5, CHUNK_VALUES + 1, 1000)
    vectors = random_vectors(scheme, 7)
    sums = sums_of(scheme, vectors)
    false = {**sums, 1: sums[1][:1], 6: [sums[6][0], b"\xff" * 8]}
    found = scheme.open(false, [], [])
    assert found.inconsistent_silos == (1, 6)
    assert found.units.tolist() == np.sum(vectors, axis=0).tolist()
    with pytest.raises(ProtocolError, match="column 7 of 7"):
        scheme.open({**sums, 7: sums[1]}, [], [])


def test_silos_that_vanish_after_contributing_are_not_missed() -> None:
    scheme = scheme_of(10, 7, 50)
    vectors = random_vectors(scheme, 8)  # two never contributed
    sums = sums_of(scheme, vectors)
    left = {column: sums[column] for column in (0, 2, 3, 5, 6, 8, 9)}
    assert scheme.open(left, [], []).units.tolist() == np.sum(vectors, axis=0).tolist()


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.integers(1, 100), st.data())
def test_weighted_sums_agree_with_integers(count: int, data: st.DataObject) -> None:
    """Small weights and any weights take different routes; both are held against Python's integers."""
    most = data.draw(st.sampled_from([1, 35, 200, PRIME // 2]))
    weights = tuple(data.draw(st.lists(st.integers(-most, most), min_size=count, max_size=count)))
    element = st.sampled_from([0, 1, PRIME - 1]) | st.integers(0, PRIME - 1)
    rows = [data.draw(st.lists(element, min_size=2, max_size=2)) for _ in range(count)]
    expected = [sum(w * row[i] for w, row in zip(weights, rows, strict=True)) % PRIME for i in range(2)]
    assert combined(weights, [np.array(row, np.uint64) for row in rows]).tolist() == expected


@every("quorum", range(1, 13))
def test_the_next_value_of_extreme_values(quorum: int) -> None:
    """All of them 0 or p - 1, in every pattern of parity: where a word could overflow."""
    for pattern in ([0] * quorum, [PRIME - 1] * quorum, [(PRIME - 1) * (k % 2) for k in range(quorum)]):
        for values in (pattern, [PRIME - 1 - value for value in pattern]):
            out = np.empty(3, np.uint64)
            next_by_differences([np.full(3, value, np.uint64) for value in values], out, np.empty(3, np.uint64))
            assert out.tolist() == [slow_value(dict(enumerate(values)), quorum)] * 3


def test_reconstruction_needs_no_neighbouring_points() -> None:
    polynomial = [5, 7, 11]
    sums = {
        place: np.array([sum(c * (place + 1) ** k for k, c in enumerate(polynomial)) % PRIME], np.uint64)
        for place in (0, 17, 50, 77, 99)
    }
    assert reconstruct(sums, 3)[0].tolist() == [5]
    sums[50] = np.array([1], np.uint64)
    words, wrong = reconstruct(sums, 3)
    assert (words.tolist(), wrong) == ([5], (50,))


def test_limits_of_the_backend() -> None:
    with pytest.raises(RangeError, match="at most 100000 values") as caught:
        SharesBackend().bind(Shape(100_001, 3, 3, 1))
    assert "masking" in caught.value.hint
    with pytest.raises(RangeError, match="at most 100 silos"):
        SharesBackend().bind(Shape(1, 101, 68, 1))
    scheme = scheme_of(4, 3, 10)
    for column in (-1, 4):
        with pytest.raises(ProtocolError, match="of 4"):
            scheme.chunk_bytes(column, 0)
        with pytest.raises(ProtocolError, match="of 4"):
            scheme.accumulator(column)


def test_a_column_is_sealed_to_its_silo() -> None:
    scheme, key = scheme_of(4, 3, CHUNK_VALUES + 3, 1000), SealingKey(Secret.generate())
    dealt = list(scheme.blind(random_vectors(scheme, 1)[0], [], []))
    for column in range(4):
        chunks = [pieces[column] for pieces in dealt]
        sealed = seal_column(key.public, chunks, INFO)
        assert len(sealed) == sealed_bytes(scheme, column)
        assert open_column(key, scheme, column, sealed, INFO) == chunks
        assert not any(chunk[:32] in sealed for chunk in chunks)
        with pytest.raises(SealError):
            open_column(SealingKey(Secret.generate()), scheme, column, sealed, INFO)
        with pytest.raises(SealError):
            open_column(key, scheme, column, sealed, derive(INFO, "other"))
        for at in (0, 1200, len(sealed) - 1):
            with pytest.raises(SealError):
                open_column(key, scheme, column, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], INFO)
        with pytest.raises(WireError, match="a sealed column of"):
            open_column(key, scheme, column, sealed[:-1], INFO)
    assert sealed_bytes(scheme, 0) < sealed_bytes(scheme, 3)  # a seed is smaller than a column


def test_sealed_chunks_cannot_change_places() -> None:
    scheme, key = scheme_of(3, 3, CHUNK_VALUES + 1, 10), SealingKey(Secret.generate())
    chunks = [bytes([1]) * 32, bytes([2]) * 32]
    sealed = seal_column(key.public, chunks, INFO)
    head = len(sealed) - 2 * 48
    swapped = sealed[:head] + sealed[head + 48 :] + sealed[head : head + 48]
    assert open_column(key, scheme, 0, sealed, INFO) == chunks
    with pytest.raises(SealError, match="chunk 0"):
        open_column(key, scheme, 0, swapped, INFO)
    assert shares.SEED_BYTES == 32
