"""The coordinator of the shards: each has a range of the chunks, and together they are the sums of all.

Promise: what `keep` has returned for is complete, as signed and durable at every shard, and only such masked inputs are
closed over; all shards close over the same ones, or there is no sum. A shard that is lost is made anew and gets its
range again before it adds: what its directory still holds, if the pieces are as signed, and the rest from the silos,
whose frames stay the same. What cannot be had again ends the round, and the error says what was lost. Memory: the
digests of the pieces, and one frame of each silo that is sending.
docs/protocol.md section 5.3; section 8, rows F6 and F7; docs/decisions/0057-shards-derive-their-sums.md.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import structlog
from blake3 import blake3

from aggregator.errors import AggregatorError, ShardLostError, StoreError
from aggregator.sums import Again
from crypto.errors import CryptoError, ProtocolError
from crypto.rounds.manifest import Manifest
from crypto.rounds.payload import frames, piece_sizes, scheme_of, slices

MAX_SHARDS = 64
ATTEMPTS = 3  # of one call, each at a shard that was made anew
REFETCHED_AT_ONCE = 4  # silos whose frames are fetched again at a time
T = TypeVar("T")
_log = structlog.get_logger("consilo.aggregator")


class Shard(Protocol):
    """A `SumShard`, wherever it runs; every call raises ShardLostError if its process has ended."""

    @property
    def where(self) -> str:
        """The machine that it is on, for people."""

    async def check(self) -> None:
        """Raise ShardLostError if it is known to have ended."""

    async def start(self, round_id: bytes, manifest: bytes, round_key: bytes, first: int, end: int) -> None: ...

    async def stage(self, round_id: bytes, silo: str, first: int, end: int, data: bytes) -> tuple[bytes, ...]: ...

    async def keep(self, round_id: bytes, silo: str, name: bytes) -> tuple[int, ...]: ...

    async def holds(self, round_id: bytes, silo: str, name: bytes, digests: tuple[bytes, ...]) -> bool: ...

    async def close(self, round_id: bytes, names: tuple[bytes, ...]) -> tuple[bytes, ...]: ...

    async def sum_chunk(self, round_id: bytes, index: int) -> bytes: ...

    async def discard(self, round_id: bytes) -> None: ...

    async def chunk(self, name: bytes, start: int, length: int) -> bytes: ...


class Place(Protocol):
    """Where shards are made."""

    async def count(self) -> int:
        """Return how many shards a long sum has."""

    async def make(self, number: int, lost: Shard | None) -> Shard:
        """Start a shard, in the place of one that is lost; raises AggregatorError if it does not start."""


@dataclass(slots=True)
class _Round:
    manifest: bytes
    round_key: bytes
    again: Again | None
    silos: tuple[str, ...]
    sizes: tuple[int, ...]
    frames: list[range]
    ranges: tuple[range, ...]  # the pieces of each shard
    is_added: bool  # False in `shares`, where the silos add
    digests: dict[str, dict[int, bytes]] = field(default_factory=dict)  # of the pieces that arrived, by silo
    kept: dict[str, bytes] = field(default_factory=dict)  # the name of each silo's masked input
    survivors: tuple[str, ...] | None = None  # whose sum it is, from the moment it is closed
    sums: tuple[bytes, ...] = ()  # the digests of the sum's chunks
    held: dict[tuple[int, str], Shard] = field(default_factory=dict)  # which process of a shard holds a silo's part
    closed: dict[int, Shard] = field(default_factory=dict)  # which process of a shard has its sum
    lost: dict[int, str] = field(default_factory=dict)  # what a shard cannot have again, by its number

    def cut(self, numbers: range) -> Iterator[tuple[int, range]]:
        """Yield what each shard has of these pieces, by its number."""
        for shard, own in enumerate(self.ranges):
            if part := range(max(numbers.start, own.start), min(numbers.stop, own.stop)):
                yield shard, part

    def digests_of(self, silo: str, pieces: range) -> tuple[bytes, ...]:
        """Return the digests of a silo's pieces; raises ProtocolError if one has not arrived."""
        known = self.digests.get(silo, {})
        if any(number not in known for number in pieces):
            raise ProtocolError(f"the contribution of {silo!r} is incomplete")
        return tuple(known[number] for number in pieces)

    def shard_of(self, piece: int) -> int:
        return next(shard for shard, own in enumerate(self.ranges) if piece in own)


def ranges_of(pieces: int, shards: int) -> tuple[range, ...]:
    """Divide the pieces of a vector among shards: contiguous ranges of equal length, but for one piece."""
    shards = min(shards, pieces)
    ends = [pieces * number // shards for number in range(shards + 1)]
    return tuple(range(start, end) for start, end in pairwise(ends))


class ShardedSums:
    """The sums of all chunks: a short vector is at the first shard alone, a long one is divided among all."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._shards: dict[int, Shard] = {}
        self._making: dict[int, asyncio.Task[Shard]] = {}
        self._lost: dict[int, Shard] = {}  # and in whose place none is made yet
        self._rounds: dict[bytes, _Round] = {}

    async def check(self) -> None:
        """Make anew what is lost; raises AggregatorError if that fails."""
        for number, shard in [(0, await self._shard(0)), *self._shards.items()]:
            try:
                await shard.check()
            except ShardLostError:
                self._lose(number, shard)
                await self._shard(number)

    async def count(self) -> int:
        return await self._place.count()

    async def start(self, round_id: bytes, manifest: bytes, round_key: bytes, again: Again | None = None) -> None:
        if round_id in self._rounds:
            raise ProtocolError("the round is open already")
        decoded = Manifest.decode(manifest)
        scheme = scheme_of(decoded, round_key)
        sizes = piece_sizes(scheme)
        parts, is_added = frames(sizes), scheme.columns == 1
        shards = await self._place.count() if is_added and len(sizes) > 1 else 1
        ranges = ranges_of(len(sizes), shards)
        opened = _Round(manifest, round_key, again, decoded.silos, sizes, parts, ranges, is_added)
        self._rounds[round_id] = opened
        try:
            await self._each(
                opened,
                lambda number, shard: shard.start(
                    round_id, manifest, round_key, opened.ranges[number].start, opened.ranges[number].stop
                ),
            )
        except BaseException:
            await self.discard(round_id)
            raise

    async def stage(self, round_id: bytes, silo: str, number: int, frame: bytes) -> tuple[bytes, ...]:
        opened = self._open(round_id, silo)
        if not 0 <= number < len(opened.frames):
            raise ProtocolError(
                f"the contribution of {silo!r} has {len(opened.frames)} frames, none of number {number}"
            )
        found = await self._staged(round_id, opened, silo, number, frame)
        opened.digests.setdefault(silo, {}).update(found)
        return tuple(found.values())

    async def keep(self, round_id: bytes, silo: str, name: bytes) -> None:
        opened = self._open(round_id, silo)
        opened.digests_of(silo, range(len(opened.sizes)))
        await self._each(opened, lambda number, shard: self._hold(round_id, opened, silo, name, number, shard))
        self._open(round_id, silo)  # neither closed nor added meanwhile
        opened.kept[silo] = name

    async def close(self, round_id: bytes, silos: tuple[str, ...]) -> tuple[bytes, ...]:
        opened = self._of(round_id)
        if not silos or not set(silos) <= set(opened.kept):
            raise ProtocolError("the sum does not hold exactly the contributions that were agreed on")
        if opened.survivors not in (None, silos):
            raise ProtocolError("the sum is closed over other contributions")
        opened.survivors = silos
        if not opened.sums:
            closed = await self._each(opened, lambda number, shard: self._closed(round_id, opened, number, shard))
            opened.sums = tuple(digest for digests in closed for digest in digests)
        return opened.sums

    async def sum_chunk(self, round_id: bytes, index: int) -> bytes:
        opened = self._of(round_id)
        if not 0 <= index < len(opened.sums):
            raise ProtocolError(f"there is no chunk {index} of a closed sum")
        number = opened.shard_of(index)
        chunk = await self._do(number, lambda shard: self._chunk_of(round_id, opened, number, shard, index), opened)
        if blake3(chunk).digest() != opened.sums[index]:
            raise StoreError(f"{self._named(opened, number)} gave another chunk {index} than that of the sum it closed")
        return chunk

    async def discard(self, round_id: bytes) -> None:
        opened = self._rounds.pop(round_id, None)
        for number in range(len(opened.ranges) if opened is not None else 0):
            if (shard := self._shards.get(number)) is not None:
                with suppress(ShardLostError):  # a process that ended kept nothing that one made anew does not delete
                    await shard.discard(round_id)

    async def chunk(self, name: bytes, start: int, length: int) -> bytes:
        missing = StoreError(f"the contribution {name.hex()[:16]} is not kept here in that length")
        for number in range(max(await self._place.count(), *[one + 1 for one in self._shards], 1)):
            try:
                found = await self._do(number, lambda shard: shard.chunk(name, start, length))
            except StoreError as err:
                missing = err
                continue
            if len(found) == length:
                return found
        raise missing

    async def _hold(self, round_id: bytes, opened: _Round, silo: str, name: bytes, number: int, shard: Shard) -> None:
        """Let a shard keep a masked input whose pieces have all arrived; what a lost one had is fetched again."""
        own = opened.ranges[number]
        if (lacking := await shard.keep(round_id, silo, name)) and not await shard.holds(
            round_id, silo, name, opened.digests_of(silo, own)
        ):
            await self._refill(round_id, opened, silo, number, lacking, shard)
            if await shard.keep(round_id, silo, name):
                raise StoreError(f"{self._named(opened, number)} does not keep the contribution of {silo!r}")
        opened.held[number, silo] = shard

    async def _refill(
        self, round_id: bytes, opened: _Round, silo: str, number: int, pieces: tuple[int, ...], shard: Shard
    ) -> None:
        """Fetch pieces of a silo for one shard again; raises StoreError, which says what was lost."""
        held = f"{len(pieces)} pieces of the contribution of {silo!r}"
        what = f"{self._named(opened, number)} was lost with {held}"
        if opened.again is None:
            raise StoreError(what, "ask again")
        for at, numbers in enumerate(opened.frames):
            if not any(piece in numbers for piece in pieces):
                continue
            try:
                frame = await opened.again(silo, at)
                found = await self._staged(round_id, opened, silo, at, frame, {number: shard})
            except ShardLostError:
                raise
            except Exception as err:  # whatever a silo that is called may raise
                why = str(err)[:200] if isinstance(err, CryptoError | AggregatorError) else type(err).__name__
                raise StoreError(f"{what}, and the silo does not give it again ({why})", "ask again") from err
            if any(opened.digests[silo][piece] != digest for piece, digest in found.items()):
                raise StoreError(f"{what}, and the silo gives another now", "ask again")

    async def _staged(
        self,
        round_id: bytes,
        opened: _Round,
        silo: str,
        number: int,
        frame: bytes,
        only: "dict[int, Shard] | None" = None,
    ) -> dict[int, bytes]:
        """Write a frame, cut where a range ends, at its shards or at one alone; return the digests by piece."""
        numbers, found = opened.frames[number], dict[int, bytes]()
        views = dict(zip(numbers, slices(frame, [opened.sizes[one] for one in numbers]), strict=True))
        for place, pieces in opened.cut(numbers):
            if only is not None and place not in only:
                continue
            data = frame if pieces == numbers else b"".join(views[one] for one in pieces)

            def call(shard: Shard, pieces: range = pieces, data: bytes = data) -> Awaitable[tuple[bytes, ...]]:
                return shard.stage(round_id, silo, pieces.start, pieces.stop, data)

            digests = await (self._do(place, call, opened) if only is None else call(only[place]))
            if len(digests) != len(pieces):
                raise StoreError(f"{self._named(opened, place)} gave {len(digests)} digests of {len(pieces)} pieces")
            found |= dict(zip(pieces, digests, strict=True))
        return found

    async def _each(self, opened: _Round, call: Callable[[int, Shard], Awaitable[T]]) -> list[T]:
        """Call every shard of a round, to the end of all; raises the first of their errors."""

        async def one(number: int) -> T:
            return await self._do(number, lambda shard: call(number, shard), opened)

        if len(opened.ranges) == 1:
            return [await one(0)]
        return await _all(one(number) for number in range(len(opened.ranges)))

    async def _do(self, number: int, call: Callable[[Shard], Awaitable[T]], opened: _Round | None = None) -> T:
        """Call a shard; if it is lost, call the one that is made in its place. Raises what the call raised."""
        for _ in range(ATTEMPTS):
            shard: Shard | None = None
            try:
                shard = await self._shard(number)
                if opened is not None and number in opened.lost:
                    raise StoreError(opened.lost[number], "ask again")
                return await call(shard)
            except ShardLostError:
                self._lose(number, shard)
        raise ShardLostError(f"shard {number + 1} of the sums ends again and again", "see the cluster's logs")

    def _lose(self, number: int, shard: Shard | None) -> None:
        if shard is not None and self._shards.get(number) is shard:
            _log.warning("shard_lost", shard=number + 1, node=shard.where)
            self._lost[number] = self._shards.pop(number)

    async def _shard(self, number: int) -> Shard:
        """Return a shard that has what it should have; whoever leaves meanwhile does not stop its making."""
        if (shard := self._shards.get(number)) is not None:
            return shard
        if number not in self._making:
            self._making[number] = asyncio.create_task(self._made(number))
        return await asyncio.shield(self._making[number])

    async def _made(self, number: int) -> Shard:
        try:
            lost = self._lost.get(number)
            shard = await self._place.make(number, lost)
            if lost is not None:
                self._lost[number] = shard  # until it has what the other had
                for round_id, opened in list(self._rounds.items()):
                    if number < len(opened.ranges):
                        await self._reopened(round_id, opened, number, shard)
                del self._lost[number]
            self._shards[number] = shard
            return shard
        finally:
            self._making.pop(number, None)

    async def _reopened(self, round_id: bytes, opened: _Round, number: int, shard: Shard) -> None:
        """Open a round at a shard that was made anew, or note why that cannot be; it is filled when it adds."""
        own = opened.ranges[number]
        try:
            if round_id in self._rounds:  # else it has ended meanwhile
                await shard.start(round_id, opened.manifest, opened.round_key, own.start, own.stop)
        except ShardLostError:
            raise
        except (AggregatorError, CryptoError) as err:
            opened.lost[number] = err.message
        if round_id not in self._rounds:
            await shard.discard(round_id)

    async def _closed(self, round_id: bytes, opened: _Round, number: int, shard: Shard) -> tuple[bytes, ...]:
        """Close the sum at a shard; one that was made anew gets what the lost one held first."""
        own, survivors = opened.ranges[number], opened.survivors or ()
        lacking = iter([silo for silo in survivors if opened.held.get((number, silo)) is not shard])

        async def some() -> None:
            for silo in lacking:
                await self._hold(round_id, opened, silo, opened.kept[silo], number, shard)

        await _all(some() for _ in range(REFETCHED_AT_ONCE))
        digests = await shard.close(round_id, tuple(opened.kept[silo] for silo in survivors))
        if len(digests) != (len(own) if opened.is_added else 0):
            raise StoreError(f"{self._named(opened, number)} closed a sum of {len(digests)} chunks")
        if opened.sums and digests != opened.sums[own.start : own.stop]:
            raise StoreError(f"{self._named(opened, number)} was made anew, and has another sum")
        opened.closed[number] = shard
        return digests

    async def _chunk_of(self, round_id: bytes, opened: _Round, number: int, shard: Shard, index: int) -> bytes:
        if opened.closed.get(number) is not shard:
            await self._closed(round_id, opened, number, shard)
        return await shard.sum_chunk(round_id, index)

    def _named(self, opened: _Round, number: int) -> str:
        where = self._shards.get(number) or self._lost.get(number)
        on = f" ({where.where})" if where is not None else ""
        return f"shard {number + 1} of {len(opened.ranges)}{on}"

    def _of(self, round_id: bytes) -> _Round:
        if (opened := self._rounds.get(round_id)) is None:
            raise ProtocolError("the round is not open")
        return opened

    def _open(self, round_id: bytes, silo: str) -> _Round:
        opened = self._of(round_id)
        if opened.survivors is not None:
            raise ProtocolError("the sum is closed")
        if silo in opened.kept:
            raise ProtocolError(f"a contribution of {silo!r} was kept before")
        if silo not in opened.silos:
            raise ProtocolError(f"{silo!r} is not in the round")
        return opened


async def _all(calls: Iterator[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all calls to their end; raises the first of their errors."""
    found = list[T]()
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        found.append(result)
    return found
