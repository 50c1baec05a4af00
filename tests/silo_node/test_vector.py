"""A silo's vector: its noise and its figures, clamped, added chunk by chunk, and never beyond the round's limit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.backends.masking import MaskingScheme
from crypto.backends.scheme import CHUNK_VALUES, Shape
from crypto.errors import ProtocolError
from crypto.noise import TABLE_SLOTS, discrete_gaussian
from crypto.rounds.committees import quorum_of
from crypto.rounds.manifest import Block, Recipient, Terms
from crypto.rounds.payload import UnitVector
from crypto.sealing import PUBLIC_BYTES
from silo_node.rounds.vector import add_figures, add_noise, is_beyond, parts_of
from tests.cases import every

SILOS = 4


def terms_of(limit: int, *blocks: tuple[int, int, int]) -> Terms:
    """Return the terms of blocks, each a length, a number of scale bits and a variance."""
    return Terms(
        request_hash=bytes(32),
        recipients=(Recipient(name="ana", key=bytes(PUBLIC_BYTES)),),
        backend="masking",
        asked=SILOS,
        key_id=b"",
        limit=limit,
        blocks=tuple(
            Block(name=f"b{place}", length=length, scale_bits=bits, variance=str(variance))
            for place, (length, bits, variance) in enumerate(blocks)
        ),
    )


def scheme_of(terms: Terms) -> MaskingScheme:
    length = sum(block.length for block in terms.blocks)
    return MaskingScheme(Shape(length, SILOS, quorum_of(SILOS), terms.limit))


def signed(terms: Terms, vector: UnitVector) -> list[int]:
    found: list[int] = scheme_of(terms).ring.signed(vector.words).tolist()
    return found


def made(terms: Terms, clamps: Sequence[int], exact: Sequence[Any], noise: Any) -> list[int]:
    vector = UnitVector(scheme_of(terms))
    add_noise(vector, terms, clamps, 2, noise)
    add_figures(vector, terms, clamps, exact)
    return signed(terms, vector)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 6), st.lists(st.tuples(st.integers(), st.integers()), min_size=1)),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 400),
)
def test_figures_and_noise_are_clamped_each_and_never_leave_the_limit(
    blocks: list[tuple[int, int, list[tuple[int, int]]]], room: int
) -> None:
    wide = 2**40
    parts = [np.clip([one for one, _ in pairs], -wide, wide).astype(np.int64) for _, _, pairs in blocks]
    noises = [np.clip([one for _, one in pairs], -wide, wide).astype(np.int64) for _, _, pairs in blocks]
    limit = max(1, *((clamp << bits) + room for clamp, bits, _ in blocks))
    terms = terms_of(limit, *((len(part), bits, 9) for part, (_, bits, _) in zip(parts, blocks, strict=True)))
    drawn = iter(noises)
    found = made(terms, [clamp for clamp, _, _ in blocks], parts, lambda *_: next(drawn))
    expected = list[int]()
    for part, noise, (clamp, bits, _) in zip(parts, noises, blocks, strict=True):
        left = limit - (clamp << bits)
        expected += [
            (max(-clamp, min(clamp, one)) << bits) + max(-left, min(left, other))
            for one, other in zip(part.tolist(), noise.tolist(), strict=True)
        ]
    assert found == expected
    assert max(map(abs, found)) <= limit


@every("dtype", [np.int32, np.int64])
def test_figures_at_the_ends_of_their_words_are_clamped(dtype: Any) -> None:
    ends = np.iinfo(dtype)
    part = np.array([ends.min, ends.min + 1, -6, -5, 0, 5, 6, ends.max], dtype)
    terms = terms_of(2**40, (part.size, 0, 0))
    assert made(terms, [5], [part], None) == [-5, -5, -5, -5, 0, 5, 5, 5]
    found = made(terms, [2**40], [part], None)
    assert found[2:7] == [-6, -5, 0, 5, 6]
    assert abs(found[0]) == found[-1] == min(ends.max, 2**40)
    assert part[0] == ends.min, "what was computed stays as it was"


def test_a_scale_does_not_overflow_words_of_32_bits() -> None:
    terms = terms_of(2**60, (2, 20, 0))
    assert made(terms, [2**31], [np.array([2**31 - 1, -7], np.int32)], None) == [(2**31 - 1) << 20, -7 << 20]


@pytest.mark.parametrize("extra", [0, 1, TABLE_SLOTS - 1, TABLE_SLOTS, 5 * CHUNK_VALUES + 3])
def test_the_noise_of_a_long_block_is_drawn_in_parts_from_the_same_tables(extra: int) -> None:
    length, asked = CHUNK_VALUES + extra, list[int]()

    def noise(count: int, variance: int, shares: int) -> npt.NDArray[np.int64]:
        asked.append(count)
        assert (variance, shares) == (77, 2)
        return np.arange(sum(asked[:-1]), sum(asked), dtype=np.int64) % 50

    terms = terms_of(100, (3, 0, 0), (length, 0, 77))
    found = made(terms, [1, 1], [np.zeros(3, np.int64), np.zeros(length, np.int32)], noise)
    assert found == [0, 0, 0, *(place % 50 for place in range(length))]
    assert sum(asked) == length
    assert all(TABLE_SLOTS <= count < CHUNK_VALUES + TABLE_SLOTS for count in asked)


@every("length", [1, 2, TABLE_SLOTS, CHUNK_VALUES - 1, CHUNK_VALUES, CHUNK_VALUES + TABLE_SLOTS, 10**6])
def test_parts_follow_each_other_and_none_is_drawn_by_another_sampler(length: int) -> None:
    parts = list(parts_of(length))
    assert [first for first, _ in parts] == [0, *(end for _, end in parts[:-1])]
    assert parts[-1][1] == length
    assert len(parts) == 1 or min(end - first for first, end in parts) >= TABLE_SLOTS


def test_noise_of_parts_has_the_variance_of_the_block() -> None:
    """One sample in some thousand deviates is enough to tell 900 from 850, at a level below 1e-6."""
    length, variance, shares = 3 * CHUNK_VALUES, 1800, 2
    terms = terms_of(2**20, (length, 0, variance))
    vector = UnitVector(scheme_of(terms))
    add_noise(vector, terms, [2**10], shares, discrete_gaussian)
    found = np.array(signed(terms, vector))
    each = variance / shares
    assert abs(found.var() - each) < 5 * each * (2 / length) ** 0.5
    assert abs(found.mean()) < 5 * (each / length) ** 0.5
    first, second = found[:CHUNK_VALUES], found[CHUNK_VALUES : 2 * CHUNK_VALUES]
    assert abs(np.mean(first * second)) < 5 * each / CHUNK_VALUES**0.5, "parts are independent"


def test_another_shape_or_type_is_refused() -> None:
    terms = terms_of(100, (3, 0, 0), (2, 0, 0))
    good = [np.zeros(3, np.int64), np.zeros(2, np.int32)]
    made(terms, [1, 1], good, None)
    for wrong in (good[:1], [*good, good[0]], good[::-1], [good[0], np.zeros((2, 1), np.int64)]):
        with pytest.raises(ProtocolError, match="does not have the length"):
            made(terms, [1, 1], wrong, None)
    for dtype in (np.float64, np.uint32, np.int16):
        with pytest.raises(ProtocolError, match="whole numbers of 32 or 64 bits"):
            made(terms, [1, 1], [good[0], np.zeros(2, dtype)], None)


def test_what_is_cut_is_seen_in_any_chunk() -> None:
    for place in (0, CHUNK_VALUES, 2 * CHUNK_VALUES + 4):
        for figure in (-8, 8):
            part = np.zeros(2 * CHUNK_VALUES + 5, np.int32)
            part[place] = figure
            assert is_beyond(part, 7)
            assert not is_beyond(part, 8)
    assert is_beyond(np.array([np.iinfo(np.int64).min]), 2**63 - 1)
