"""The running sums of masked inputs.

Promise: a masked input is added whole, once, and only if every chunk has its signed digest. Memory: one vector and one
frame a round, whatever the number of silos. A masked input stays on disk by the digest of its signed header, so that
the sum can be added once more (`crypto.rounds.recount`). `SumShard` is plain Python; `aggregator/ray_actors.py` runs it
as a Ray actor. docs/protocol.md section 5.3; section 8, rows F6 and F7.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from aggregator.keeping import Keeping
from aggregator.store import CONTRIBUTIONS, ContributionStore, Staged
from crypto.backends.scheme import Accumulator, Scheme
from crypto.errors import ProtocolError
from crypto.rounds.manifest import Manifest
from crypto.rounds.payload import digests, frames, piece_sizes, scheme_of, slices

MAX_OPEN_ROUNDS = 64


class Sums(Protocol):
    """The interface of the sums, in this process or in a Ray actor."""

    async def start(self, round_id: bytes, manifest: bytes, round_key: bytes) -> None:
        """Open an empty sum of the round with this encoded manifest and key, with room for all its masked inputs.

        Raises StoreError if there is no room, ProtocolError if too many rounds are open.
        """

    async def stage(self, round_id: bytes, silo: str, number: int, frame: bytes) -> tuple[bytes, ...]:
        """Keep the next frame of a masked input; return the BLAKE3 digests of its pieces.

        Raises ProtocolError on a frame of another number, WireError or RangeError on one of another form.
        """

    async def add(self, round_id: bytes, silo: str, name: bytes) -> None:
        """Add a complete masked input; raises ProtocolError if it is incomplete or the silo's second one."""

    async def close(self, round_id: bytes, silos: tuple[str, ...]) -> tuple[bytes, ...]:
        """Add nothing more, and return the BLAKE3 digests of the sum's chunks.

        Raises ProtocolError unless exactly `silos` were added. There are none in `shares`, where the silos add.
        """

    async def sum_chunk(self, round_id: bytes, index: int) -> bytes:
        """Return a chunk of a closed sum, until `discard`; raises ProtocolError on a round that is not closed."""

    async def total(self, round_id: bytes, silos: tuple[str, ...]) -> list[bytes]:
        """Return the sum's chunks and close the round; raises ProtocolError unless exactly `silos` were added.

        There are no chunks in the backend `shares`, where the silos add.
        """

    async def discard(self, round_id: bytes) -> None:
        """Close the round, and delete masked inputs that were not added."""

    async def chunk(self, name: bytes, start: int, length: int) -> bytes:
        """Return bytes of an added masked input; raises StoreError if it is not kept any more."""


@dataclass(slots=True)
class _Running:
    scheme: Scheme
    sizes: tuple[int, ...]
    frames: list[range]
    sum: Accumulator | None  # None in `shares`, where the silos add
    staged: dict[str, Staged]  # of each silo whose masked input has not been added, also if it has not begun
    added: dict[str, bytes] = field(default_factory=dict)  # the name of each silo's masked input
    is_closed: bool = False


class SumShard:
    """The sums of the open rounds."""

    def __init__(self, path: Path, keeping: Keeping = CONTRIBUTIONS) -> None:
        """Keep masked inputs in the directory `path`."""
        self._rounds: dict[bytes, _Running] = {}
        self._store = ContributionStore(path, keeping)

    def start(self, round_id: bytes, manifest: bytes, round_key: bytes) -> None:
        if len(self._rounds) >= MAX_OPEN_ROUNDS:
            raise ProtocolError(f"{MAX_OPEN_ROUNDS} rounds are open, try again later")
        if round_id in self._rounds:
            raise ProtocolError("the round is open already")
        decoded = Manifest.decode(manifest)
        scheme = scheme_of(decoded, round_key)
        sizes, is_added = piece_sizes(scheme), scheme.columns == 1
        total = scheme.accumulator(0) if is_added else None
        silos = decoded.silos
        room = dict(zip(silos, self._store.stage(sum(sizes), len(silos), self._needed()), strict=True))
        self._rounds[round_id] = _Running(scheme, sizes, frames(sizes), total, room)

    def stage(self, round_id: bytes, silo: str, number: int, frame: bytes) -> tuple[bytes, ...]:
        running = self._running(round_id, silo)
        staged = running.staged[silo]
        if number != staged.frames or number >= len(running.frames):
            raise ProtocolError(f"frame {number} of the {len(running.frames)} of {silo!r}, expected {staged.frames}")
        sizes = [running.sizes[one] for one in running.frames[number]]
        pieces = list(slices(frame, sizes))
        for one, piece in zip(running.frames[number], pieces, strict=True):
            if running.sum is not None:
                running.sum.check(one, bytes(piece))  # so that adding cannot fail in the middle
        staged.append(frame)
        return digests(pieces)

    def add(self, round_id: bytes, silo: str, name: bytes) -> None:
        running = self._running(round_id, silo)
        staged = running.staged[silo]
        if staged.frames != len(running.frames):
            raise ProtocolError(f"the contribution of {silo!r} is incomplete")
        if running.sum is not None:
            for number, piece in enumerate(staged.parts(running.sizes)):
                running.sum.add(number, piece)
        running.added[silo] = name
        running.staged.pop(silo).keep(name)

    def close(self, round_id: bytes, silos: tuple[str, ...]) -> tuple[bytes, ...]:
        running = self._rounds.get(round_id)
        if running is None:
            raise ProtocolError("the round is not open")
        running.is_closed = True
        while running.staged:
            running.staged.popitem()[1].discard()
        if set(running.added) != set(silos):  # a silo may have been added after the round stopped waiting for it
            raise ProtocolError("the sum does not hold exactly the contributions that were agreed on")
        return digests(running.sum.chunks()) if running.sum is not None else ()

    def sum_chunk(self, round_id: bytes, index: int) -> bytes:
        running = self._rounds.get(round_id)
        if running is None or not running.is_closed or running.sum is None:
            raise ProtocolError("the sum of the round is not closed")
        return running.sum.chunk(index)

    def total(self, round_id: bytes, silos: tuple[str, ...]) -> list[bytes]:
        running = self._rounds.pop(round_id, None)
        if running is None:
            raise ProtocolError("the round is not open")
        for staged in running.staged.values():
            staged.discard()
        if set(running.added) != set(silos):  # a silo may have been added after the round stopped waiting for it
            raise ProtocolError("the sum does not hold exactly the contributions that were agreed on")
        return running.sum.chunks() if running.sum is not None else []

    def discard(self, round_id: bytes) -> None:
        running = self._rounds.pop(round_id, None)
        for staged in running.staged.values() if running is not None else ():
            staged.discard()

    def chunk(self, name: bytes, start: int, length: int) -> bytes:
        return self._store.read(name, start, length)

    def _needed(self) -> set[bytes]:
        return {name for running in self._rounds.values() for name in running.added.values()}

    def _running(self, round_id: bytes, silo: str) -> _Running:
        running = self._rounds.get(round_id)
        if running is None:
            raise ProtocolError("the round is not open")
        if silo in running.added:
            raise ProtocolError(f"a contribution of {silo!r} was added before")
        if running.is_closed:
            raise ProtocolError("the sum of the round is closed")
        if silo not in running.staged:
            raise ProtocolError(f"{silo!r} is not in the round")
        return running
