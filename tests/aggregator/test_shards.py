"""A long sum over several shards: whatever one of them does, the right sum comes out, or an error that says why not."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from aggregator.errors import AggregatorError, ShardLostError, StoreError
from aggregator.keeping import Keeping
from aggregator.shards import ATTEMPTS, ranges_of
from aggregator.sums import SumShard
from crypto.backends.scheme import CHUNK_VALUES
from crypto.errors import CryptoError
from crypto.rounds.manifest import Manifest
from crypto.rounds.payload import digests, piece_sizes, scheme_of, slices
from policies.units import DAY_S, HOUR_S
from tests.aggregator.test_sums import NARROW, ROUND, manifest
from tests.cases import every
from tests.harness.shards import LocalSums

LENGTH = 5 * CHUNK_VALUES - 1000  # five chunks in one frame, which every range of three shards cuts
SHARDS = 3
STEPS = ("start", "stage", "keep", "holds", "close", "sum_chunk", "discard")
SCHEME = scheme_of(Manifest.decode(manifest(LENGTH, NARROW)), b"")
SIZES = piece_sizes(SCHEME)
RANDOM = np.random.default_rng(1)
PAYLOADS = {silo: RANDOM.bytes(sum(SIZES)) for silo in "abc"}


def pieces_of(silo: str) -> list[bytes]:
    return [bytes(piece) for piece in slices(PAYLOADS[silo], SIZES)]


def true_sum() -> bytes:
    """What one adder makes of what two silos sent."""
    total = SCHEME.accumulator(0)
    for silo in "ab":
        for number, piece in enumerate(pieces_of(silo)):
            total.add(number, piece)
    return b"".join(total.chunks())


TRUE = true_sum()


async def again(silo: str, number: int) -> bytes:
    """A silo gives the same frames until the round is over."""
    assert not number
    return PAYLOADS[silo]


async def gone(silo: str, number: int) -> bytes:
    raise ConnectionError("it has gone")


async def rounds(sums: LocalSums, fetch: Any = again) -> bytes:
    """Add what two of three silos send, while the third sends half of it and vanishes; return the sum."""
    await sums.start(ROUND, manifest(LENGTH, NARROW), b"", fetch)
    for silo in "abc":
        assert await sums.stage(ROUND, silo, 0, PAYLOADS[silo]) == digests(pieces_of(silo))
        if silo != "c":
            await sums.keep(ROUND, silo, blake3(silo.encode()).digest())
    closed = await sums.close(ROUND, ("a", "b"))
    chunks = [await sums.sum_chunk(ROUND, index) for index in range(len(closed))]
    assert digests(chunks) == closed
    await sums.discard(ROUND)
    return b"".join(chunks)


class Dying:
    """One shard dies at one of its calls of a step, before it or after it, and once or whenever it is made anew."""

    def __init__(self, victim: int, step: str, when: str, at: int = 0, is_for_ever: bool = False) -> None:
        self.victim, self.step, self.when, self.left, self.is_for_ever = victim, step, when, at, is_for_ever
        self.has_died = False

    def __call__(self, number: int, step: str) -> str:
        if (number, step) != (self.victim, self.step) or (self.has_died and not self.is_for_ever):
            return ""
        self.left -= 1
        if self.left >= 0:
            return ""
        self.has_died = True
        return self.when


def deaths() -> Iterator[tuple[str, Dying, bool]]:
    for keeps in (True, False):
        for victim in range(SHARDS):
            for step in STEPS:
                for when in ("before", "after"):
                    for at in range(2 if step in ("stage", "keep", "sum_chunk") else 1):
                        name = f"{step} {when} {at} at {victim}, {'kept' if keeps else 'lost'}"
                        yield name, Dying(victim, step, when, at), keeps


@pytest.mark.slow
def test_a_shard_that_dies_at_any_step_is_made_anew_and_the_right_sum_comes_out(tmp_path: Path) -> None:
    died = set[str]()
    for number, (name, dying, keeps) in enumerate(deaths()):
        sums = LocalSums(tmp_path / str(number) / "contributions", SHARDS, keeps)
        sums.place.before = dying
        assert asyncio.run(rounds(sums)) == TRUE, name
        if dying.has_died:
            died.add(dying.step)
            assert sums.place.made.count(dying.victim) == (1 if dying.step == "discard" else 2), name
    assert died == set(STEPS) - {"holds"}, "which is asked of a shard that was made anew alone"


def test_two_shards_that_die_one_after_the_other_and_one_that_dies_while_it_is_mended(tmp_path: Path) -> None:
    for number, steps in enumerate([("keep", "holds"), ("close", "stage"), ("sum_chunk", "close"), ("keep", "start")]):
        dying = [Dying(number % SHARDS, step, "before") for step in steps]
        sums = LocalSums(tmp_path / str(number) / "contributions", SHARDS, keeps=False)
        sums.place.before = lambda place, step, dying=dying: next(  # type: ignore[misc]
            (found for one in dying if (found := one(place, step))), ""
        )
        assert asyncio.run(rounds(sums)) == TRUE, steps


def test_what_a_lost_shard_held_and_no_silo_gives_again_ends_the_round_and_is_named(tmp_path: Path) -> None:
    async def other(silo: str, number: int) -> bytes:
        return bytes(len(PAYLOADS[silo]))

    async def short(silo: str, number: int) -> bytes:
        return PAYLOADS[silo][:-4]

    for number, (step, fetch, why) in enumerate(
        [
            ("close", gone, r"shard 2 of 3 .* lost with \d pieces of .* '[ab]', .* does not give it again \(Conn"),
            ("close", other, r"shard 2 of 3 .* lost with \d pieces of .* '[ab]', .* gives another now"),
            ("close", short, r"does not give it again \(\d+ bytes, expected"),
            ("close", None, r"shard 2 of 3 .* lost with \d pieces"),
            ("sum_chunk", gone, r"shard 2 of 3 .* lost with"),
        ]
    ):
        place = tmp_path / str(number)
        lost = LocalSums(place / "lost", SHARDS, keeps=False)
        lost.place.before = Dying(1, step, "before")
        with pytest.raises(StoreError, match=why):
            asyncio.run(rounds(lost, fetch))
        asyncio.run(lost.discard(ROUND))
        assert asyncio.run(rounds(lost)) == TRUE, "the next round is not touched by it"
        kept = LocalSums(place / "kept", SHARDS)
        kept.place.before = Dying(1, step, "before")
        assert asyncio.run(rounds(kept, fetch)) == TRUE, "where the directory is still there, no silo is asked"


def test_a_shard_that_ends_again_and_again_ends_the_round(tmp_path: Path) -> None:
    sums = LocalSums(tmp_path / "contributions", SHARDS)
    sums.place.before = Dying(1, "close", "after", is_for_ever=True)
    with pytest.raises(ShardLostError, match="shard 2 of the sums ends again and again"):
        asyncio.run(rounds(sums))
    assert sums.place.made.count(1) == ATTEMPTS


def test_kept_pieces_that_have_changed_on_disk_are_fetched_again(tmp_path: Path) -> None:
    sums = LocalSums(tmp_path / "contributions", SHARDS)
    dying = Dying(1, "close", "before")

    def before(number: int, step: str) -> str:
        if dies := dying(number, step):
            for file in sums.place.directory(1).glob("*.contribution"):
                file.write_bytes(bytes(file.stat().st_size))
        return dies

    sums.place.before = before
    assert asyncio.run(rounds(sums)) == TRUE


@every("what", ["digests of a frame", "a sum of another length", "a chunk of the sum", "digests that are none"])
def test_a_shard_that_lies_is_found(what: str) -> None:
    import tempfile

    def lie(number: int, step: str, reply: Any) -> Any:
        if number != 1:
            return reply
        match what, step:
            case "digests of a frame", "stage":
                return reply[:-1]
            case "digests that are none", "stage":
                return tuple(bytes(32) for _ in reply)
            case "a sum of another length", "close":
                return reply[1:]
            case "a chunk of the sum", "sum_chunk":
                return bytes(len(reply))
        return reply

    with tempfile.TemporaryDirectory() as place:
        sums = LocalSums(Path(place) / "contributions", SHARDS)
        sums.place.reply = lie
        if what == "digests that are none":  # which the driver compares with the signed header
            with pytest.raises(AssertionError):
                asyncio.run(rounds(sums))
            return
        with pytest.raises(StoreError, match=r"shard 2 of 3 \(machine 2\) (gave|closed)"):
            asyncio.run(rounds(sums))


def test_a_full_disk_at_one_shard_refuses_the_round_before_anything_is_sent(tmp_path: Path) -> None:
    sums = LocalSums(tmp_path / "contributions", SHARDS)
    small = Keeping(age_s=DAY_S, max_bytes=1000, fresh_s=HOUR_S)

    async def story() -> None:
        full = await sums.place.make(1, None)
        full.shard = SumShard(sums.place.directory(1), small)
        sums.place.instead[1] = full
        with pytest.raises(StoreError, match="no room"):
            await sums.start(ROUND, manifest(LENGTH, NARROW), b"")
        for number in range(SHARDS):
            assert not list(sums.place.directory(number).glob("*.partial")), "its room is given back everywhere"
        await sums.start(ROUND, manifest(100, NARROW), b"")  # a short one needs the first shard alone

    asyncio.run(story())


def test_a_disk_that_fails_in_mid_round_is_an_error_of_the_aggregator_and_no_shard_adds(tmp_path: Path) -> None:
    sums = LocalSums(tmp_path / "contributions", SHARDS)

    async def story() -> None:
        await sums.start(ROUND, manifest(LENGTH, NARROW), b"", again)
        for partial in sums.place.directory(2).glob("*.partial"):
            partial.unlink()
        with pytest.raises(StoreError, match="cannot be kept"):
            await sums.stage(ROUND, "a", 0, PAYLOADS["a"])
        with pytest.raises(CryptoError, match="exactly"):
            await sums.close(ROUND, ("a",))

    asyncio.run(story())


def test_a_frame_is_cut_where_a_range_ends_and_every_part_is_read_again(tmp_path: Path) -> None:
    async def story() -> None:
        sums = LocalSums(tmp_path / "contributions", SHARDS)
        assert await rounds(sums) == TRUE
        name = blake3(b"a").digest()
        kept = [len(list(sums.place.directory(number).glob("*.contribution"))) for number in range(SHARDS)]
        assert kept == [2, 2, 2], "of each that was added a part, and nothing of the third"
        anew = LocalSums(tmp_path / "contributions", SHARDS)  # as after a restart
        for number, piece in enumerate(pieces_of("a")):
            assert await anew.chunk(name, sum(SIZES[:number]), len(piece)) == piece
        for unknown in (blake3(b"c").digest(), bytes(32)):
            with pytest.raises(StoreError, match="not kept here"):
                await anew.chunk(unknown, 0, 8)
        with pytest.raises(StoreError, match="not kept here"):
            await anew.chunk(name, len(PAYLOADS["a"]), 8)

    asyncio.run(story())


def test_ranges_are_contiguous_and_alike() -> None:
    for pieces in (1, 2, 3, 7, 256, 16_384):
        for shards in (1, 2, 3, 5, 64):
            found = ranges_of(pieces, shards)
            assert [piece for one in found for piece in one] == list(range(pieces))
            assert len(found) == min(pieces, shards)
            assert max(map(len, found)) - min(map(len, found)) <= 1


def test_a_dead_shard_is_noticed_and_made_anew_without_a_round(tmp_path: Path) -> None:
    async def story() -> None:
        sums = LocalSums(tmp_path / "contributions", SHARDS)
        await sums.check()
        sums.place.before = Dying(0, "check", "before")
        await sums.check()
        assert sums.place.made == [0, 0]
        sums.place.fails = True
        sums.place.before = Dying(0, "check", "before")
        with pytest.raises(AggregatorError, match="does not start"):
            await sums.check()

    asyncio.run(story())
