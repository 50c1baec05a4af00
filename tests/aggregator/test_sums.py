"""The running sum: a contribution is added once, whole and as signed, and only what was agreed on is released."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aggregator.errors import StoreError
from aggregator.keeping import Keeping, sizes
from aggregator.store import ContributionStore
from aggregator.sums import MAX_OPEN_ROUNDS
from crypto.backends.scheme import CHUNK_VALUES
from crypto.errors import CryptoError, ProtocolError
from crypto.rounds.manifest import Block, Manifest, Recipient, Terms
from crypto.rounds.payload import digests, frames
from crypto.sealing import PUBLIC_BYTES
from policies.units import DAY_S, HOUR_S
from tests.harness.shards import LocalSums

ROUND = b"r"
Run = Callable[[LocalSums], Coroutine[Any, Any, None]]


def run(path: Path, story: Run) -> None:
    asyncio.run(story(LocalSums(path)))


def manifest(length: int, limit: int, silos: str = "abc") -> bytes:
    """Return a round of vectors whose values stay within a limit, which chooses words of 4 or of 8 bytes."""
    key = bytes(PUBLIC_BYTES)
    terms = Terms(
        request_hash=bytes(32),
        recipients=(Recipient(name="ana", key=key),),
        backend="masking",
        asked=3,
        key_id=b"",
        limit=limit,
        blocks=(Block(name="rows", length=length, scale_bits=0, variance="0"),),
    )
    fields: dict[str, object] = {"federation": "f", "round_id": bytes(16), "expires_at": 0, "terms": terms}
    fields |= {"silos": tuple(silos), "members": bytes(32)}
    counts = {"quorum": 3, "degree": 2, "min_silos": 3, "max_colluding": 1, "max_missing": 0}
    return Manifest.model_validate(fields | counts).encode()


WIDE, NARROW = 2**60, (2**31 - 1) // 3  # of three silos: words of 64 bits, and of 32


def pieces_of(payload: bytes, word_bytes: int) -> list[bytes]:
    step = CHUNK_VALUES * word_bytes
    return [payload[start : start + step] for start in range(0, len(payload), step)]


def frames_of(payload: bytes, word_bytes: int) -> list[bytes]:
    pieces = pieces_of(payload, word_bytes)
    return [b"".join(pieces[number] for number in numbers) for numbers in frames([len(piece) for piece in pieces])]


async def add(sums: LocalSums, silo: str, payload: bytes, word_bytes: int = 8) -> None:
    staged: tuple[bytes, ...] = ()
    for number, frame in enumerate(frames_of(payload, word_bytes)):
        staged += await sums.stage(ROUND, silo, number, frame)
    assert staged == digests(pieces_of(payload, word_bytes))
    await sums.keep(ROUND, silo, silo.encode())


def added(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> bytes:
    """Return the unreduced sum of two long vectors of whole words."""
    found = list[bytes]()
    for start in range(0, first.size, CHUNK_VALUES):
        parts = [one[start : start + CHUNK_VALUES].astype("<u8") for one in (first, second)]
        halves = [parts] if first.itemsize == 4 else [[one & 0xFFFFFFFF for one in parts], [one >> 32 for one in parts]]
        entries = np.concatenate([a + b for a, b in halves])
        found += [(entries & 0xFFFFFFFF).astype("<u4").tobytes(), (entries >> 32).astype("u1").tobytes()]
    return b"".join(found)


async def total(sums: LocalSums, silos: tuple[str, ...]) -> bytes:
    """Close the sum, and return it."""
    closed = await sums.close(ROUND, silos)
    chunks = [await sums.sum_chunk(ROUND, index) for index in range(len(closed))]
    assert digests(chunks) == closed
    return b"".join(chunks)


def test_a_sum_holds_exactly_what_was_agreed_on(tmp_path: Path) -> None:
    """A contribution may be added just after the round stopped waiting for it."""

    async def story(sums: LocalSums) -> None:
        await sums.start(ROUND, manifest(10, WIDE), b"")
        for silo in ("a", "b"):
            await add(sums, silo, bytes([1]) * 80)
        await sums.stage(ROUND, "c", 0, bytes(80))
        with pytest.raises(ProtocolError, match="exactly the contributions"):
            await sums.close(ROUND, ("a", "c"))
        with pytest.raises(ProtocolError, match="exactly the contributions"):
            await sums.close(ROUND, ())
        assert await total(sums, ("a",)) == bytes([1]) * 80
        with pytest.raises(ProtocolError, match="closed over other"):
            await sums.close(ROUND, ("a", "b"))
        for late in (sums.keep(ROUND, "c", b"c"), sums.stage(ROUND, "c", 0, bytes(80))):
            with pytest.raises(ProtocolError, match="sum is closed"):
                await late

    run(tmp_path, story)


def test_a_contribution_is_added_once_whole_and_as_signed(tmp_path: Path) -> None:
    async def story(sums: LocalSums) -> None:
        payload = bytes(80)
        await sums.start(ROUND, manifest(10, WIDE), b"")
        await add(sums, "a", payload)
        with pytest.raises(ProtocolError, match="kept before"):
            await sums.stage(ROUND, "a", 0, payload)
        for number, frame in ((0, payload[:-8]), (0, payload + bytes(8)), (0, b""), (1, payload), (-1, payload)):
            with pytest.raises(CryptoError):
                await sums.stage(ROUND, "b", number, frame)
        with pytest.raises(ProtocolError, match="not in the round"):
            await sums.stage(ROUND, "d", 0, payload)
        with pytest.raises(ProtocolError, match="incomplete"):
            await sums.keep(ROUND, "b", b"b")
        with pytest.raises(ProtocolError, match="not open"):
            await sums.keep(b"other", "b", b"b")
        assert await total(sums, ("a",)) == payload

    run(tmp_path, story)


@pytest.mark.parametrize("width", [4, 8])
def test_half_an_upload_is_not_in_the_sum(tmp_path: Path, width: int) -> None:
    """Two frames and a bit: what stopped in the middle leaves neither a trace in the sum nor a file."""

    async def story(sums: LocalSums) -> None:
        length = 2 * (4 << 20) // width + 17
        vectors = [np.arange(length, dtype=f"<u{width}") * 3, np.full(length, 2 ** (8 * width) - 5, f"<u{width}")]
        await sums.start(ROUND, manifest(length, WIDE if width == 8 else NARROW), b"")
        for silo, vector in zip("ab", vectors, strict=True):
            await add(sums, silo, vector.tobytes(), width)
        half = vectors[0].tobytes()
        parts = frames_of(half, width)
        assert len(parts) == 3
        await sums.stage(ROUND, "c", 0, parts[0])
        with pytest.raises(CryptoError, match="expected"):
            await sums.stage(ROUND, "c", 1, parts[1][:-width])
        await sums.stage(ROUND, "c", 2, parts[2])
        with pytest.raises(ProtocolError, match="incomplete"):
            await sums.keep(ROUND, "c", b"c")
        assert await total(sums, ("a", "b")) == added(*vectors)
        await sums.discard(ROUND)
        assert sorted(path.suffix for path in sizes(tmp_path)) == [".contribution"] * 2
        assert await sums.chunk(b"b", width, 2 * width) == vectors[1].tobytes()[width : 3 * width]
        with pytest.raises(StoreError, match="not kept"):
            await sums.chunk(b"c", 0, 8)

    run(tmp_path, story)


def test_rounds_and_rooms_are_bounded(tmp_path: Path) -> None:
    async def story(sums: LocalSums) -> None:
        for number in range(MAX_OPEN_ROUNDS):
            await sums.start(bytes([number]), manifest(1, WIDE), b"")
        with pytest.raises(CryptoError, match="are open"):
            await sums.start(ROUND, manifest(1, WIDE), b"")
        await sums.discard(bytes(1))
        await sums.start(ROUND, manifest(1, WIDE), b"")

    run(tmp_path, story)


SMALL = Keeping(age_s=30 * DAY_S, max_bytes=250, fresh_s=HOUR_S)


def keep(store: ContributionStore, name: bytes, at: float, path: Path) -> None:
    """Keep a masked input of 100 bytes under a name, as of a time."""
    (staged,) = store.stage([100])
    staged.write(0, name[:1] * 100)
    staged.keep(store.file(name, 0))
    os.utime(path / f"{name.hex()}.contribution", (at, at))


def test_the_oldest_contributions_make_room(tmp_path: Path) -> None:
    now = [1_800_000_000.0]
    store = ContributionStore(tmp_path, SMALL, lambda: now[0])
    names = [bytes([number]) * 32 for number in range(3)]
    for name in names:
        keep(store, name, now[0], tmp_path)
        now[0] += HOUR_S
    assert store.read(names[2], 98, 5) == b"\2\2"
    with pytest.raises(StoreError, match=r"contribution 0{16} was erased here on 2027-01-15"):
        store.read(names[0], 0, 1)
    with pytest.raises(StoreError, match="is not kept here"):
        store.read(b"\7" * 32, 0, 1)
    with pytest.raises(StoreError, match="no room"):
        store.stage([251])
    assert store.read(names[2], 0, 1) == b"\2", "nothing is deleted for what cannot be kept anyway"
    (left,) = store.stage([60, 40])[:1]
    left.write(0, b"half")
    reopened = ContributionStore(tmp_path, SMALL, lambda: now[0])  # as after a crash
    assert not list(tmp_path.glob("*.partial"))
    assert reopened.read(names[2], 0, 1) == b"\2"
    now[0] += 30 * DAY_S
    reopened.stage([1])
    with pytest.raises(StoreError, match="was erased here on 2027-02-14"):
        reopened.read(names[2], 0, 1)


def test_no_round_erases_what_is_still_counted_again(tmp_path: Path) -> None:
    """The analyst of a round that has just ended, or a silo that learns, fetches them within the hour."""
    now = [1_800_000_000.0]
    store = ContributionStore(tmp_path, SMALL, lambda: now[0])
    name, other = b"\1" * 32, b"\2" * 32
    keep(store, name, now[0], tmp_path)
    keep(store, other, now[0], tmp_path)
    now[0] += HOUR_S - 1
    for _ in range(100):
        with pytest.raises(StoreError, match="those of the last hour"):
            store.stage([100])
    assert store.read(name, 0, 1) + store.read(other, 0, 1) == b"\1\2"
    now[0] += 1
    store.stage([100], needed=(name,))
    assert store.read(name, 0, 1) == b"\1", "a round under way needs it"
    with pytest.raises(StoreError, match="was erased"):
        store.read(other, 0, 1)
