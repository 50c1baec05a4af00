"""The running sums of blinded vectors: a contribution is added whole, once, and only if every chunk is as signed.

`SumShard` is plain Python; `aggregator/ray_actors.py` runs it as a Ray actor. Memory: one vector a round and one frame,
whatever the number of silos. What was added stays on disk by the digest of its signed head, so that the sum can be
added once more (`crypto.rounds.recount`).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from aggregator.store import ContributionStore, Staged
from crypto.backends.scheme import Accumulator, Scheme
from crypto.errors import ProtocolError
from crypto.rounds.manifest import Manifest
from crypto.rounds.payload import frames, piece_sizes, scheme_of, split

MAX_OPEN_ROUNDS = 64


class Sums(Protocol):
    """Where contributions are added: in this process or in a Ray actor."""

    async def start(self, round_id: bytes, manifest: bytes, round_key: bytes) -> None:
        """Open an empty sum of the round with this encoded manifest and key."""

    async def stage(self, round_id: bytes, silo: str, digests: tuple[bytes, ...], frame: bytes) -> None:
        """Keep the next frame of a contribution; raises ProtocolError on chunks that are not as signed."""

    async def add(self, round_id: bytes, silo: str, name: bytes) -> None:
        """Add a contribution of which all frames are there; raises ProtocolError on a part of one, or a second one."""

    async def total(self, round_id: bytes, silos: tuple[str, ...]) -> list[bytes]:
        """Return the sum's chunks and close the round; raises ProtocolError unless exactly `silos` were added.

        None in the backend `shares`, where the silos add.
        """

    async def discard(self, round_id: bytes) -> None:
        """Close the round; what was not added is deleted."""

    async def chunk(self, name: bytes, start: int, length: int) -> bytes:
        """Return bytes of a contribution that was added; raises StoreError if it is kept no longer."""


@dataclass(slots=True)
class _Running:
    scheme: Scheme
    sizes: tuple[int, ...]
    frames: list[range]
    sum: Accumulator | None  # None where the silos add
    staged: dict[str, Staged] = field(default_factory=dict)
    added: dict[str, bytes] = field(default_factory=dict)  # the name of each silo's contribution


class SumShard:
    """The sums of the open rounds."""

    def __init__(self, path: Path) -> None:
        """Keep contributions in the directory `path`."""
        self._rounds: dict[bytes, _Running] = {}
        self._store = ContributionStore(path)

    def start(self, round_id: bytes, manifest: bytes, round_key: bytes) -> None:
        if len(self._rounds) >= MAX_OPEN_ROUNDS:
            raise ProtocolError(f"{MAX_OPEN_ROUNDS} rounds are open, try again later")
        if round_id in self._rounds:
            raise ProtocolError("the round is open already")
        scheme = scheme_of(Manifest.decode(manifest), round_key)
        sizes, is_added = piece_sizes(scheme), scheme.columns == 1
        total = scheme.accumulator(0) if is_added else None
        self._rounds[round_id] = _Running(scheme, sizes, frames(sizes), total)

    def stage(self, round_id: bytes, silo: str, digests: tuple[bytes, ...], frame: bytes) -> None:
        running = self._running(round_id, silo)
        staged = running.staged.get(silo)
        arrived = 0 if staged is None else staged.frames
        if arrived >= len(running.frames) or len(digests) != len(running.sizes):
            raise ProtocolError(f"the contribution of {silo!r} has {len(running.frames)} frames")
        numbers = running.frames[arrived]
        for number, piece in zip(numbers, split(frame, [running.sizes[number] for number in numbers]), strict=True):
            if blake3(piece).digest() != digests[number]:
                raise ProtocolError(f"a chunk of {silo!r} is not the one it signed")
            if running.sum is not None:
                running.sum.check(number, bytes(piece))  # so that adding cannot fail half-way
        if staged is None:
            staged = running.staged[silo] = self._store.stage(sum(running.sizes), self._needed())
        staged.append(frame)

    def add(self, round_id: bytes, silo: str, name: bytes) -> None:
        running = self._running(round_id, silo)
        staged = running.staged.get(silo)
        if staged is None or staged.frames != len(running.frames):
            raise ProtocolError(f"the contribution of {silo!r} is incomplete")
        if running.sum is not None:
            for number, piece in enumerate(staged.parts(running.sizes)):
                running.sum.add(number, piece)
        running.added[silo] = name
        running.staged.pop(silo).keep(name)

    def total(self, round_id: bytes, silos: tuple[str, ...]) -> list[bytes]:
        running = self._rounds.pop(round_id, None)
        if running is None:
            raise ProtocolError("the round is not open")
        if set(running.added) != set(silos):  # one may have been added after the round stopped waiting for it
            raise ProtocolError("the sum does not hold exactly the contributions that were agreed on")
        for staged in running.staged.values():
            staged.discard()
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
        return running
