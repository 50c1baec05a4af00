"""The sums of masked inputs: their interface, and one shard, which has the sums of a range of the chunks.

Promise: a masked input is in a sum whole, once, and only if every chunk has its signed digest. A shard writes the
pieces of each to disk as they arrive and adds nothing before `close`, which names the masked inputs of the sum: so it
has no running sum that it could lose, or into which a repeated call could add twice. In memory it holds as many chunks
as are in a frame, however long the vector is and however many silos there are. A masked input stays on disk by the
digest of its signed header, so that the sum can be added once more (`crypto.rounds.recount`). `SumShard` is plain
Python; `aggregator/shards.py` has the coordinator of several, and `aggregator/ray_actors.py` runs each as a Ray actor.
docs/protocol.md section 5.3; section 8, rows F6 and F7; docs/decisions/0057-shards-derive-their-sums.md.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from aggregator.errors import StoreError
from aggregator.keeping import Keeping
from aggregator.store import CONTRIBUTIONS, ContributionStore, Staged
from crypto.backends.scheme import Accumulator, Scheme
from crypto.errors import ProtocolError
from crypto.rounds.manifest import Manifest
from crypto.rounds.payload import frames, piece_sizes, scheme_of, slices

MAX_OPEN_ROUNDS = 64
Again = Callable[[str, int], Awaitable[bytes]]  # a silo's frame of this number once more; raises if there is none


class Sums(Protocol):
    """The interface of the sums of all chunks, whoever adds them."""

    async def count(self) -> int:
        """Return among how many shards a long sum is divided."""

    async def start(self, round_id: bytes, manifest: bytes, round_key: bytes, again: Again | None = None) -> None:
        """Open the round with this encoded manifest and key, with room for all its masked inputs and their sum.

        What a shard loses is fetched by `again`. Raises StoreError if there is no room, ProtocolError if too many
        rounds are open.
        """

    async def stage(self, round_id: bytes, silo: str, number: int, frame: bytes) -> tuple[bytes, ...]:
        """Write a frame of a masked input, by its number; return the BLAKE3 digests of its pieces.

        Raises WireError on another length, RangeError on a piece outside the group, StoreError if it cannot be written.
        """

    async def keep(self, round_id: bytes, silo: str, name: bytes) -> None:
        """Keep a complete masked input durably, whose digests are as signed, under the digest of its signed header.

        Raises ProtocolError if it is incomplete or the silo's second one, StoreError if it cannot be kept.
        """

    async def close(self, round_id: bytes, silos: tuple[str, ...]) -> tuple[bytes, ...]:
        """Add what these silos sent; return the BLAKE3 digests of the sum's chunks. Nothing is taken afterwards.

        There are none in the backend `shares`, where the silos add. Raises ProtocolError unless each was kept by
        `keep`, StoreError if a part of one is lost: then there is no sum.
        """

    async def sum_chunk(self, round_id: bytes, index: int) -> bytes:
        """Return a chunk of the sum of a closed round; raises StoreError if it is lost."""

    async def discard(self, round_id: bytes) -> None:
        """Close the round, and delete its sum and the masked inputs that were not added."""

    async def chunk(self, name: bytes, start: int, length: int) -> bytes:
        """Return bytes of a kept masked input; raises StoreError if it is not kept any more."""


@dataclass(slots=True)
class _Open:
    """A round that is open: where its pieces begin in the range, and what has arrived."""

    asked: tuple[bytes, int, int | None]  # the digest of manifest and key, the first piece, the one after the last
    scheme: Scheme
    pieces: range
    sizes: tuple[int, ...]  # of all pieces of a masked input
    starts: tuple[int, ...]  # where each begins in a masked input
    sum_starts: tuple[int, ...]  # where each chunk of this range begins in its sum
    checks: Accumulator | None  # checks pieces as adding them does, and has none; None in `shares`
    sum: Staged | None  # None in `shares`, where the silos add
    staged: dict[str, Staged]  # of each silo whose masked input is not kept, also if it has not begun
    arrived: dict[str, set[int]]
    kept: dict[str, bytes] = field(default_factory=dict)  # the name of each silo's masked input
    closed: tuple[bytes, ...] | None = None  # the names of those in the sum
    digests: tuple[bytes, ...] = ()  # of the sum

    def place(self, number: int) -> int:
        """Return where a piece begins in this range."""
        return self.starts[number] - self.starts[self.pieces.start]

    def length(self, pieces: range) -> int:
        return sum(self.sizes[number] for number in pieces)

    @property
    def first(self) -> int:
        """Where this range begins in a masked input, in bytes."""
        return self.starts[self.pieces.start]


class SumShard:
    """The sums of the open rounds, in a range of their pieces: or of all. Every call may be made twice."""

    def __init__(self, path: Path, keeping: Keeping = CONTRIBUTIONS) -> None:
        """Keep masked inputs in the directory `path`."""
        self._rounds: dict[bytes, _Open] = {}
        self._store = ContributionStore(path, keeping)

    def start(self, round_id: bytes, manifest: bytes, round_key: bytes, first: int = 0, end: int | None = None) -> None:
        """Open the round for the pieces from `first` until before `end`; raises StoreError and ProtocolError."""
        asked = sha256(manifest + round_key).digest(), first, end
        if (known := self._rounds.get(round_id)) is not None:
            if known.asked == asked:
                return
            raise ProtocolError("the round is open already")
        if len(self._rounds) >= MAX_OPEN_ROUNDS:
            raise ProtocolError(f"{MAX_OPEN_ROUNDS} rounds are open, try again later")
        decoded = Manifest.decode(manifest)
        scheme, silos = scheme_of(decoded, round_key), decoded.silos
        sizes, is_added = piece_sizes(scheme), scheme.columns == 1
        pieces = range(len(sizes))[first:end]
        sum_starts = tuple(accumulate(map(scheme.sum_bytes, pieces), initial=0)) if is_added else ()
        room = self._store.stage([*sum_starts[-1:], *[sum(sizes[first:end])] * len(silos)], self._needed())
        self._rounds[round_id] = _Open(
            asked,
            scheme,
            pieces,
            sizes,
            starts=tuple(accumulate(sizes, initial=0)),
            sum_starts=sum_starts,
            checks=scheme.accumulator(0) if is_added else None,
            sum=room.pop(0) if is_added else None,
            staged=dict(zip(silos, room, strict=True)),
            arrived={silo: set[int]() for silo in silos},
        )

    def stage(self, round_id: bytes, silo: str, first: int, end: int, data: bytes) -> tuple[bytes, ...]:
        """Write the pieces of a masked input from `first` until before `end`; return their BLAKE3 digests."""
        opened, numbers = self._open(round_id, silo), range(first, end)
        if not opened.pieces.start <= first < end <= opened.pieces.stop:
            raise ProtocolError(f"pieces {first} to {end - 1} of {silo!r} belong to another shard")
        found = list[bytes]()
        for number, piece in zip(numbers, slices(data, [opened.sizes[one] for one in numbers]), strict=True):
            if opened.checks is not None:
                opened.checks.check(number, bytes(piece))  # so that adding cannot fail in the middle
            found.append(blake3(piece).digest())
        if silo not in opened.kept:  # what is kept is never changed
            opened.staged[silo].write(opened.place(first), data)
            opened.arrived[silo].update(numbers)
        return tuple(found)

    def keep(self, round_id: bytes, silo: str, name: bytes) -> tuple[int, ...]:
        """Keep a complete masked input durably under its name; return which pieces are lacking, and then do nothing."""
        opened = self._open(round_id, silo)
        if opened.kept.get(silo, name) != name:
            raise ProtocolError(f"a contribution of {silo!r} was kept before")
        if silo in opened.kept:
            return ()
        if lacking := [number for number in opened.pieces if number not in opened.arrived[silo]]:
            return tuple(lacking)
        opened.staged[silo].keep(self._store.file(name, opened.first))
        self._keep(opened, silo, name)
        return ()

    def holds(self, round_id: bytes, silo: str, name: bytes, digests: tuple[bytes, ...]) -> bool:
        """Tell whether a process that ended before has kept this masked input here, and its pieces are as signed."""
        opened = self._open(round_id, silo)
        if opened.kept.get(silo) == name:
            return True
        try:
            for number, digest in zip(opened.pieces, digests, strict=True):
                piece = self._store.read(name, opened.starts[number], opened.sizes[number])
                if blake3(piece).digest() != digest:
                    return False
        except StoreError:
            return False
        self._keep(opened, silo, name)
        return True

    def close(self, round_id: bytes, names: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Add the masked inputs of these names; return the digests of the sum's chunks in this range."""
        opened = self._of(round_id)
        if opened.closed is None:
            if strange := set(names) - set(opened.kept.values()):
                raise ProtocolError(f"{len(strange)} contributions that were agreed on are not held here")
            opened.digests = self._summed(opened, opened.sum, names) if opened.sum is not None else ()
            opened.closed = names
        elif opened.closed != names:
            raise ProtocolError("the sum is closed over other contributions")
        return opened.digests

    def sum_chunk(self, round_id: bytes, index: int) -> bytes:
        """Return a chunk of the sum of a closed round."""
        opened = self._of(round_id)
        if opened.closed is None or opened.sum is None or index not in opened.pieces:
            raise ProtocolError(f"there is no chunk {index} of a sum here")
        return opened.sum.read(opened.sum_starts[index - opened.pieces.start], opened.scheme.sum_bytes(index))

    def discard(self, round_id: bytes) -> None:
        """Forget the round, and delete its sum and what was not kept."""
        opened = self._rounds.pop(round_id, None)
        for staged in opened.staged.values() if opened is not None else ():
            staged.discard()
        if opened is not None and opened.sum is not None:
            opened.sum.discard()

    def chunk(self, name: bytes, start: int, length: int) -> bytes:
        """Return bytes of a masked input, fewer where the range of this shard ends."""
        return self._store.read(name, start, length)

    def _summed(self, opened: _Open, into: Staged, names: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Add, a frame of every masked input at a time, into the room of the sum; return the digests of its chunks."""
        if not names:
            raise ProtocolError("a sum of nothing")
        found, place = list[bytes](), 0
        sizes = [opened.sizes[number] for number in opened.pieces]
        for part in frames(sizes):
            numbers, total = opened.pieces[part.start : part.stop], opened.scheme.accumulator(0)
            for name in names:
                data = self._store.read(name, opened.starts[numbers.start], length := opened.length(numbers))
                if len(data) != length:
                    raise StoreError(f"the contribution {name.hex()[:16]} is cut short here", "mend the disk")
                for number, piece in zip(numbers, slices(data, [opened.sizes[one] for one in numbers]), strict=True):
                    total.add(number, bytes(piece))
            for number in numbers:
                chunk = total.chunk(number)
                found.append(blake3(chunk).digest())
                into.write(place, chunk)
                place += len(chunk)
        return tuple(found)

    def _keep(self, opened: _Open, silo: str, name: bytes) -> None:
        opened.kept[silo] = name
        opened.staged.pop(silo).discard()  # its room, where the file was kept before

    def _needed(self) -> set[bytes]:
        return {name for opened in self._rounds.values() for name in opened.kept.values()}

    def _of(self, round_id: bytes) -> _Open:
        if (opened := self._rounds.get(round_id)) is None:
            raise ProtocolError("the round is not open")
        return opened

    def _open(self, round_id: bytes, silo: str) -> _Open:
        opened = self._of(round_id)
        if silo not in opened.arrived:
            raise ProtocolError(f"{silo!r} is not in the round")
        return opened
