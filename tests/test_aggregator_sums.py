"""The running sum: a contribution is added once, whole and as signed, and only what was agreed on is released."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.errors import StoreError
from aggregator.store import ContributionStore
from aggregator.sums import MAX_OPEN_ROUNDS
from crypto.errors import CryptoError, ProtocolError, RangeError
from crypto.manifest import CHUNK_VALUES
from crypto.messages import FRAME_CHUNKS, chunk_digests
from tests.simulator import LocalSums

ROUND = b"r"
Run = Callable[[LocalSums], Coroutine[Any, Any, None]]


def run(path: Path, story: Run) -> None:
    asyncio.run(story(LocalSums(path)))


async def add(sums: LocalSums, silo: str, payload: bytes, word_bytes: int = 8) -> None:
    step, digests = FRAME_CHUNKS * CHUNK_VALUES * word_bytes, chunk_digests(payload, word_bytes)
    for start in range(0, len(payload), step):
        await sums.stage(ROUND, silo, digests, payload[start : start + step])
    await sums.add(ROUND, silo, silo.encode())


def test_a_sum_that_holds_another_set_than_agreed_is_never_released(tmp_path: Path) -> None:
    """A contribution may be added just after the round stopped waiting for it."""

    async def story(sums: LocalSums) -> None:
        await sums.start(ROUND, 10, 64)
        for silo in ("a", "b"):
            await add(sums, silo, bytes(80))
        with pytest.raises(ProtocolError, match="exactly the contributions"):
            await sums.total(ROUND, ("a",))

    run(tmp_path, story)


def test_a_contribution_is_added_once_whole_and_as_signed(tmp_path: Path) -> None:
    async def story(sums: LocalSums) -> None:
        payload = bytes(80)
        digests = chunk_digests(payload, 8)
        await sums.start(ROUND, 10, 64)
        await add(sums, "a", payload)
        with pytest.raises(ProtocolError, match="added before"):
            await sums.stage(ROUND, "a", digests, payload)
        for frame in (payload[:-8], payload + bytes(8), b"", bytes(79) + b"\1"):
            with pytest.raises(ProtocolError):
                await sums.stage(ROUND, "b", digests, frame)
        with pytest.raises(ProtocolError, match="incomplete"):
            await sums.add(ROUND, "b", b"b")
        with pytest.raises(ProtocolError, match="not open"):
            await sums.add(b"other", "b", b"b")
        assert await sums.total(ROUND, ("a",)) == payload

    run(tmp_path, story)


@pytest.mark.parametrize("bits", [32, 64])
def test_half_an_upload_is_not_in_the_sum(tmp_path: Path, bits: int) -> None:
    """Two frames and a bit: what stopped in the middle leaves neither a trace in the sum nor a file."""

    async def story(sums: LocalSums) -> None:
        width, length = bits // 8, 2 * FRAME_CHUNKS * CHUNK_VALUES + 17
        vectors = [np.arange(length, dtype=f"<u{width}") * 3, np.full(length, 2**bits - 5, f"<u{width}")]
        await sums.start(ROUND, length, bits)
        for silo, vector in zip("ab", vectors, strict=True):
            await add(sums, silo, vector.tobytes(), width)
        half = vectors[0].tobytes()
        step, digests = FRAME_CHUNKS * CHUNK_VALUES * width, chunk_digests(half, width)
        await sums.stage(ROUND, "c", digests, half[:step])
        with pytest.raises(ProtocolError, match="frame"):
            await sums.stage(ROUND, "c", digests, half[: step // 2])
        with pytest.raises(ProtocolError, match="signed"):
            await sums.stage(ROUND, "c", digests, half[:step])  # the first frame once more, where the second is due
        with pytest.raises(ProtocolError, match="incomplete"):
            await sums.add(ROUND, "c", b"c")
        assert await sums.total(ROUND, ("a", "b")) == (vectors[0] + vectors[1]).tobytes()
        assert sorted(path.suffix for path in tmp_path.iterdir()) == [".contribution"] * 2
        assert await sums.chunk(b"b", width, 2 * width) == vectors[1].tobytes()[width : 3 * width]
        with pytest.raises(StoreError, match="not kept"):
            await sums.chunk(b"c", 0, 8)

    run(tmp_path, story)


def test_an_element_outside_the_ring_leaves_the_sum_as_it_was(tmp_path: Path) -> None:
    async def story(sums: LocalSums) -> None:
        await sums.start(ROUND, 2, 24)
        good = np.array([1, 2], "<u4").tobytes()
        await add(sums, "a", good, 4)
        with pytest.raises(RangeError, match="outside the ring"):
            await add(sums, "b", np.array([3, 2**24], "<u4").tobytes(), 4)
        assert await sums.total(ROUND, ("a",)) == good

    run(tmp_path, story)


def test_rounds_and_rooms_are_bounded(tmp_path: Path) -> None:
    async def story(sums: LocalSums) -> None:
        for number in range(MAX_OPEN_ROUNDS):
            await sums.start(bytes([number]), 1, 64)
        with pytest.raises(CryptoError, match="are open"):
            await sums.start(ROUND, 1, 64)
        await sums.discard(bytes(1))
        await sums.start(ROUND, 1, 64)

    run(tmp_path, story)


def test_the_oldest_contributions_make_room(tmp_path: Path) -> None:
    store = ContributionStore(tmp_path, max_bytes=250)
    for number in range(3):
        staged = store.stage(100)
        staged.append(bytes([number]) * 100)
        staged.keep(bytes([number]))
    assert store.read(b"\2", 98, 5) == b"\2\2"
    with pytest.raises(StoreError, match="not kept"):
        store.read(b"\0", 0, 1)
    with pytest.raises(StoreError, match="no room"):
        store.stage(251)
    assert store.read(b"\2", 0, 1) == b"\2", "nothing is deleted for what cannot be kept anyway"
    left = store.stage(100)
    left.append(b"half")
    left._file.close()
    reopened = ContributionStore(tmp_path, max_bytes=250)  # as after a crash
    assert not list(tmp_path.glob("*.partial"))
    assert reopened.read(b"\2", 0, 1) == b"\2"
