"""Masks cancel over a whole roster and over nothing less, and a masked vector says nothing of what it hides."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.backends import masks as masking
from crypto.backends.masks import apply_masks, blind
from crypto.errors import RangeError
from crypto.keys import derive
from crypto.ring import Codec, Ring, Words
from crypto.rounds.key_schedule import entry_info, mask_key_of, opening_info, pair_seed, self_commitment, self_seed
from tests.cases import every

ALPHA = 1e-6
BLOCK_BYTES = 256 * 1024
MANIFEST = derive(bytes(32), "a manifest")
SEEDS = [derive(bytes(32), "seed", str(number)) for number in range(4)]


def _slow_mask(seed: bytes, ring: Ring, length: int) -> list[int]:
    """Return the mask of `seed` by counting blocks through plain AES, without a counter mode."""
    counters = b"".join(number.to_bytes(16, "big") for number in range(length * ring.word_bytes // 16 + 1))
    keystream = Cipher(algorithms.AES256(seed), modes.ECB()).encryptor().update(counters)  # noqa: S305
    return [
        int.from_bytes(keystream[start : start + ring.word_bytes], "little") % 2**ring.bits
        for start in range(0, length * ring.word_bytes, ring.word_bytes)
    ]


def _slow_apply(values: list[int], ring: Ring, added_seeds: list[bytes], subtracted_seeds: list[bytes]) -> list[int]:
    masks = [(1, _slow_mask(seed, ring, len(values))) for seed in added_seeds]
    masks += [(-1, _slow_mask(seed, ring, len(values))) for seed in subtracted_seeds]
    return [
        (value + sum(sign * mask[index] for sign, mask in masks)) % 2**ring.bits for index, value in enumerate(values)
    ]


def _vector(ring: Ring, length: int, label: str = "vector") -> Words:
    """Return ring elements that look random and are the same in every run."""
    mask = ring.zeros(length)
    apply_masks(mask, ring, [derive(bytes(32), label)], [])
    return mask


def _masked(silos: int, ring: Ring, vectors: list[Words], skip: int | None = None) -> Words:
    """Return the sum of what the silos but `skip` submit, pair masks only."""
    names = [f"silo-{number:02}" for number in range(silos)]
    roots = [derive(bytes(32), "root", name) for name in names]
    total = ring.zeros(vectors[0].size)
    for index, vector in enumerate(vectors):
        if index == skip:
            continue
        words = vector.copy()
        added_seeds = [pair_seed(roots[index], MANIFEST, later) for later in names[index + 1 :]]
        subtracted_seeds = [pair_seed(roots[earlier], MANIFEST, names[index]) for earlier in range(index)]
        apply_masks(words, ring, added_seeds, subtracted_seeds)
        total += words
    return ring.reduce(total)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 10), st.integers(1, 64), st.integers(0, 50))
def test_masks_of_a_whole_roster_cancel(silos: int, bits: int, length: int) -> None:
    ring = Ring(bits)
    vectors = [_vector(ring, length, f"vector {number}") for number in range(silos)]
    plain = ring.zeros(length)
    for vector in vectors:
        plain += vector
    assert _masked(silos, ring, vectors).tolist() == ring.reduce(plain).tolist()


@pytest.mark.parametrize("missing", [0, 1, 3])
def test_masks_of_part_of_a_roster_do_not_cancel(missing: int) -> None:
    ring = Ring(64)
    zeros = [ring.zeros(20)] * 4
    assert not _masked(4, ring, zeros).any()
    assert _masked(4, ring, zeros, skip=missing).all()


@pytest.mark.slow
@every("bits", [1, 7, 31, 32, 33, 48, 63, 64])
@every("beside", [-1, 0, 1])
def test_masks_are_those_of_a_slow_implementation(bits: int, beside: int) -> None:
    ring = Ring(bits)
    length = BLOCK_BYTES // ring.word_bytes + beside
    words = _vector(ring, length)
    expected = _slow_apply(words.tolist(), ring, SEEDS[:1], SEEDS[1:2])
    apply_masks(words, ring, SEEDS[:1], SEEDS[1:2])
    assert words.tolist() == expected


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 64),
    st.integers(0, 40),
    st.lists(st.sampled_from(SEEDS), max_size=4),
    st.lists(st.sampled_from(SEEDS), max_size=4),
)
def test_short_masks_are_those_of_a_slow_implementation(
    bits: int, length: int, added_seeds: list[bytes], subtracted_seeds: list[bytes]
) -> None:
    ring = Ring(bits)
    words = _vector(ring, length)
    expected = _slow_apply(words.tolist(), ring, added_seeds, subtracted_seeds)
    apply_masks(words, ring, added_seeds, subtracted_seeds)
    assert words.tolist() == expected


@pytest.mark.parametrize("bits", [32, 64])
def test_masks_of_several_blocks_are_those_of_a_slow_implementation(bits: int) -> None:
    ring = Ring(bits)
    words = ring.zeros(3 * BLOCK_BYTES // ring.word_bytes + 5)
    apply_masks(words, ring, SEEDS[:2], [])
    assert words.tolist() == _slow_apply([0] * words.size, ring, SEEDS[:2], [])


@pytest.mark.parametrize("bits", [1, 24, 32, 40, 64])
def test_masks_are_taken_off_as_they_were_put_on(bits: int) -> None:
    ring = Ring(bits)
    words = _vector(ring, 100_003)
    before = words.copy()
    apply_masks(words, ring, SEEDS[:2], SEEDS[2:])
    assert not np.array_equal(words, before)
    apply_masks(words, ring, SEEDS[2:], SEEDS[:2])
    assert np.array_equal(words, before)


def test_no_seeds_change_nothing() -> None:
    ring = Ring(64)
    words = _vector(ring, 10)
    before = words.copy()
    apply_masks(words, ring, [], [])
    assert np.array_equal(words, before)


# Blinding, in threads over ranges of a long vector


@cache
def _keystream(seed: bytes) -> bytes:
    """Return the first 16 MiB of a keystream, block by counted block."""
    counters = b"".join(number.to_bytes(16, "big") for number in range(2**20))
    return Cipher(algorithms.AES256(seed), modes.ECB()).encryptor().update(counters)  # noqa: S305


def _slow_blind(
    values: npt.NDArray[np.int64], ring: Ring, added_seeds: list[bytes], subtracted_seeds: list[bytes]
) -> Words:
    """Return the blinded values over the whole vector at once, modulo 2^64 first and then in the ring."""
    total = values.astype(np.uint64)
    for sign, seeds in ((1, added_seeds), (-1, subtracted_seeds)):
        for seed in seeds:
            mask = np.frombuffer(_keystream(seed), ring.dtype, values.size).astype(np.uint64)
            total = total + mask if sign > 0 else total - mask
    return total % np.uint64(2**ring.bits) if ring.bits < 64 else total


def _values(length: int) -> npt.NDArray[np.int64]:
    return np.arange(length, dtype=np.int64) * 7_919 - 2**29


@pytest.mark.slow
@every("processors", [1, 2, 3])
@every(
    ("bits", "around"),
    [
        *product((17, 31, 32), (1, 65_536, 131_072, 2**20, 3 * 2**20)),
        *product((33, 63, 64), (1, 65_536, 131_072, 2**20, 3 * 2**19)),
    ],
)
def test_blinding_is_that_of_a_slow_implementation(
    monkeypatch: pytest.MonkeyPatch, bits: int, around: int, processors: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    ring = Ring(bits)
    for length in (around - 1, around, around + 1):
        values = _values(length) % (2 ** (bits - 1) - 1) if bits < 32 else _values(length)
        found = blind(values, ring.from_signed, ring, SEEDS[:2], SEEDS[2:3])
        assert found.dtype == ring.dtype
        assert np.array_equal(found, _slow_blind(values, ring, SEEDS[:2], SEEDS[2:3]))


@pytest.mark.parametrize(
    ("length", "processors", "ranges"),
    [(2**20 - 1, 2, 1), (2**20, 2, 2), (2**20, 1, 1), (2**20, 3, 2), (3 * 2**19, 3, 3), (2**21, 3, 3), (65_536, 3, 1)],
)
def test_long_vectors_are_blinded_in_a_thread_for_each_processor(
    monkeypatch: pytest.MonkeyPatch, length: int, processors: int, ranges: int
) -> None:
    started = [1]

    class Recorded(ThreadPoolExecutor):
        def __init__(self, workers: int) -> None:
            started.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    monkeypatch.setattr(masking, "ThreadPoolExecutor", Recorded)
    ring, values = Ring(64), _values(length)
    blind(values, ring.from_signed, ring, SEEDS[:1], [])
    assert started[-1] == ranges


@every("processors", [1, 2, 3])
@every("place", [0, 65_536, 2**20, 3 * 2**19 - 1])
def test_value_that_cannot_be_encoded_is_told_from_any_range(
    monkeypatch: pytest.MonkeyPatch, place: int, processors: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    ring, codec, values = Ring(64), Codec(Ring(64), 20, 10), np.zeros(3 * 2**19)
    values[place] = np.nan
    with pytest.raises(RangeError, match="headroom"):
        blind(values, lambda block: ring.from_signed(codec.encode_reals(block)), ring, SEEDS[:1], [])


@every("bits", [1, 8, 12, 16, 20, 32, 64])
def test_a_part_of_a_vector_is_masked_as_the_whole_is(bits: int) -> None:
    ring, length = Ring(bits), 3 * 65_536 + 100
    whole = ring.zeros(length)
    apply_masks(whole, ring, SEEDS[:2], SEEDS[2:3])
    for start, end in ((0, 65_536), (65_536, 3 * 65_536), (2 * 65_536, length), (16, 17), (3 * 65_536, length)):
        part = ring.zeros(end - start)
        apply_masks(part, ring, SEEDS[:2], SEEDS[2:3], start)
        assert np.array_equal(part, whole[start:end])
    with pytest.raises(RangeError, match="multiple of 16"):
        apply_masks(ring.zeros(3), ring, SEEDS[:1], [], 8)


# The self mask


@pytest.mark.parametrize("bits", [1, 17, 32, 64])
@pytest.mark.parametrize("content", ["zeros", "largest"])
def test_self_mask_leaves_a_contribution_uniform(bits: int, content: str) -> None:
    ring = Ring(bits)
    length = 65_536
    words = ring.zeros(length) if content == "zeros" else np.full(length, 2**bits - 1, ring.dtype)
    apply_masks(words, ring, [self_seed(derive(bytes(32), "b"), MANIFEST)], [])
    # 1. Every bit is set in half of the elements.
    quantile = NormalDist().inv_cdf(1 - ALPHA / (2 * bits))
    for bit in range(bits):
        ones = int(np.count_nonzero(words & ring.dtype.type(1 << bit)))
        assert abs(ones - length / 2) <= quantile * math.sqrt(length / 4)
    # 2. The top bits taken together hit every cell equally often.
    cells = min(2**bits, 256)
    counts = np.bincount((words >> ring.dtype.type(bits - cells.bit_length() + 1)).astype(np.int64), minlength=cells)
    assert counts.size == cells
    statistic = float(((counts - length / cells) ** 2).sum() / (length / cells))
    assert statistic <= _chi_square_quantile(cells - 1)


def _chi_square_quantile(degrees: int) -> float:
    """Return the 1 - ALPHA quantile, by Wilson and Hilferty's approximation."""
    ninth = 2 / (9 * degrees)
    return degrees * (1 - ninth + NormalDist().inv_cdf(1 - ALPHA) * math.sqrt(ninth)) ** 3


def test_self_mask_remains_when_all_pair_masks_are_known() -> None:
    ring = Ring(64)
    words = _vector(ring, 1000)
    plain = words.copy()
    own = self_seed(derive(bytes(32), "b"), MANIFEST)
    apply_masks(words, ring, [own, *SEEDS[:2]], SEEDS[2:])
    apply_masks(words, ring, SEEDS[2:], SEEDS[:2])  # what an aggregator with every other silo can do
    assert (words - plain).tolist() == _slow_mask(own, ring, 1000)
    assert (words != plain).all()


# What is derived from r and b


def test_every_derived_value_is_bound_to_its_context() -> None:
    secret, other, manifest = SEEDS[0], SEEDS[1], derive(bytes(32), "another manifest")
    values = [
        self_seed(secret, MANIFEST),
        self_seed(other, MANIFEST),
        self_seed(secret, manifest),
        self_commitment(secret),
        self_commitment(other),
        pair_seed(secret, MANIFEST, "a"),
        pair_seed(secret, MANIFEST, "b"),
        pair_seed(other, MANIFEST, "a"),
        pair_seed(secret, manifest, "a"),
        entry_info(MANIFEST, "shares", "a", "b"),
        entry_info(MANIFEST, "shares", "b", "a"),
        entry_info(MANIFEST, "shares", "a", "c"),
        entry_info(MANIFEST, "shares", "c", "b"),
        entry_info(MANIFEST, "pair seed", "a", "b"),
        entry_info(manifest, "shares", "a", "b"),
        opening_info(MANIFEST, SEEDS[2], "a", "b"),
        opening_info(MANIFEST, SEEDS[2], "b", "a"),
        opening_info(MANIFEST, SEEDS[2], "a", "c"),
        opening_info(MANIFEST, SEEDS[2], "c", "b"),
        opening_info(MANIFEST, SEEDS[3], "a", "b"),
        opening_info(manifest, SEEDS[2], "a", "b"),
        secret,
        other,
    ]
    assert len(set(values)) == len(values)
    assert {len(value) for value in values} == {32}


def test_mask_key_is_derived_from_the_root() -> None:
    assert mask_key_of(SEEDS[0]).public == mask_key_of(SEEDS[0]).public
    assert mask_key_of(SEEDS[0]).public != mask_key_of(SEEDS[1]).public
