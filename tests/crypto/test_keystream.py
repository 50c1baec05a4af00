"""Masks for any group: those of the vectors, whatever the block, and lanes that survive a sum."""

import json
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.backends import keystream
from crypto.backends.keystream import BLOCK, UniformStream, apply_modular, integers
from crypto.backends.lanes import Lanes
from crypto.backends.lattice_parameters import BATCHING_PRIME, MODULUS
from crypto.backends.scheme import Shape
from crypto.backends.shares import PRIME
from crypto.errors import RangeError
from crypto.keys import derive
from tests.cases import every
from tests.vectors import generate

ALPHA = 1e-6
SEED = derive(bytes(32), "seed")
CASES = json.loads((Path(generate.__file__).parent / "keystream.json").read_text())["cases"]


def filled(seed: bytes, modulus: int, chunk: int, count: int) -> list[int]:
    words = np.empty(count, np.uint64)
    UniformStream(seed, modulus, chunk).fill(words)
    return [int(word) for word in words]


@every("case", CASES)
def test_vectors(case: dict[str, Any]) -> None:
    modulus, seed, chunk = int(case["modulus"]), bytes.fromhex(case["seed"]), case["chunk"]
    expected = [int(value) for value in case["values"]]
    assert integers(seed, modulus, chunk, len(expected)) == expected
    if modulus < 2**63:
        assert filled(seed, modulus, chunk, len(expected)) == expected
        words = np.zeros(len(expected), np.uint64)
        apply_modular(words, modulus, chunk, [seed], [])
        assert words.tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 2**63 - 1), st.integers(0, 2**32 - 1), st.lists(st.integers(0, 40), max_size=6))
def test_values_do_not_depend_on_how_they_are_taken(modulus: int, chunk: int, sizes: list[int]) -> None:
    """Two routes: numpy in pieces, and Python integers one by one."""
    stream, taken = UniformStream(SEED, modulus, chunk), []
    for size in sizes:
        words = np.empty(size, np.uint64)
        stream.fill(words)
        taken += words.tolist()
    assert taken == integers(SEED, modulus, chunk, sum(sizes))


@pytest.mark.parametrize("modulus", [PRIME, BATCHING_PRIME, MODULUS, 2**40 + 1])
def test_a_long_mask_is_the_slow_one(modulus: int) -> None:
    """2^40 + 1 rejects half of the candidates, so gaps are closed across blocks."""
    count = BLOCK + 321
    assert filled(SEED, modulus, 3, count) == integers(SEED, modulus, 3, count)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 2**63 - 1),
    st.lists(st.integers(0, 2**63 - 1), max_size=30),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_masks_are_added_and_subtracted_modulo_m(modulus: int, values: list[int], plus: int, minus: int) -> None:
    values = [value % modulus for value in values]
    added = [derive(SEED, "plus", str(number)) for number in range(plus)]
    taken = [derive(SEED, "minus", str(number)) for number in range(minus)]
    words = np.array(values, np.uint64)
    apply_modular(words, modulus, 7, added, taken)
    expected = values
    for sign, seeds in ((1, added), (-1, taken)):
        for seed in seeds:
            mask = integers(seed, modulus, 7, len(values))
            expected = [(value + sign * one) % modulus for value, one in zip(expected, mask, strict=True)]
    assert words.tolist() == expected
    apply_modular(words, modulus, 7, taken, added)
    assert words.tolist() == values


@pytest.mark.parametrize("modulus", [3, 1000, 2**32 + 1, PRIME, BATCHING_PRIME, MODULUS])
def test_values_are_uniform(modulus: int) -> None:
    """A modulus just above a power of two would show any bias: cutting instead of rejecting doubles its lower half."""
    count, bins = 60_000, min(modulus, 50)
    found = [value * bins // modulus for value in filled(SEED, modulus, 0, count)]
    counts = np.bincount(found, minlength=bins)
    starts = [-(-b * modulus // bins) for b in range(bins + 1)]  # the first value of each bin
    exact = np.diff(starts) / modulus
    deviation = np.sqrt(count * exact * (1 - exact))
    assert np.all(np.abs(counts - count * exact) < deviation * NormalDist().inv_cdf(1 - ALPHA / (2 * bins)))


def test_chunks_never_share_a_block() -> None:
    first, second = (set(filled(SEED, MODULUS, chunk, 5000)) for chunk in (0, 1))
    assert not first & second
    assert filled(SEED, MODULUS, 0, 100) != filled(derive(SEED, "other"), MODULUS, 0, 100)
    assert 16 * 2**keystream.CHUNK_BLOCKS_LOG2 > 2 * 8 * 65_536 * 48  # of a chunk, with room for any rejections


@pytest.mark.parametrize(("modulus", "chunk"), [(1, 0), (2**63, 0), (7, -1), (7, 2**32)])
def test_what_is_out_of_range_is_refused(modulus: int, chunk: int) -> None:
    with pytest.raises(RangeError):
        UniformStream(SEED, modulus, chunk)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([PRIME, BATCHING_PRIME, MODULUS]), st.integers(3, 10), st.integers(1, 40), st.data())
def test_lanes_survive_a_sum(modulus: int, silos: int, length: int, data: st.DataObject) -> None:
    limit = data.draw(st.integers(1, (modulus - 1) // 2 // silos))
    lanes = Lanes.fit(modulus, Shape(length, silos, silos, limit))
    assert lanes.base**lanes.count <= modulus < lanes.base ** (lanes.count + 1)
    value = st.sampled_from([-limit, limit]) | st.integers(-limit, limit)
    vectors = [data.draw(st.lists(value, min_size=length, max_size=length)) for _ in range(silos)]
    total = np.zeros(lanes.slots(length), np.uint64)
    for vector in vectors:
        total = (total + lanes.pack(np.array(vector, np.int64))) % np.uint64(modulus)
    assert lanes.unpack(total, length).tolist() == [sum(column) for column in zip(*vectors, strict=True)]


def test_how_many_lanes_fit() -> None:
    counts = {limit: Lanes.fit(BATCHING_PRIME, Shape(1, 10, 7, limit)).count for limit in (1, 800, 104_857, 104_858)}
    assert counts == {1: 9, 800: 3, 104_857: 2, 104_858: 1}
    with pytest.raises(RangeError, match="do not fit a modulus of 42 bits"):
        Lanes.fit(BATCHING_PRIME, Shape(1, 10, 7, 2**41))


def test_what_is_no_sum_of_lanes_is_refused() -> None:
    lanes = Lanes.fit(BATCHING_PRIME, Shape(1, 10, 7, 800))
    with pytest.raises(RangeError, match="outside its lanes"):
        lanes.unpack(np.array([BATCHING_PRIME // 2], np.uint64), 3)
    packed = lanes.pack(np.array([5, -6, 7]))
    assert lanes.unpack(packed, 3).tolist() == [5, -6, 7]
    with pytest.raises(RangeError, match="outside its lanes"):  # a third value where two are expected
        lanes.unpack(packed, 2)
