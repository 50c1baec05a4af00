"""The running sums of blinded vectors: a contribution is added whole, once, and only if every chunk is as signed.

`SumShard` is plain Python; `aggregator/__main__.py` runs it as a Ray actor. Memory: one vector a round and one frame,
whatever the number of silos. What was added stays on disk by the digest of its signed head, so that the sum can be
added once more (`crypto.recount`).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from aggregator.store import ContributionStore, Staged
from crypto.errors import ProtocolError
from crypto.manifest import CHUNK_VALUES
from crypto.messages import FRAME_CHUNKS, chunk_digests
from crypto.ring import Ring, Words

MAX_OPEN_ROUNDS = 64


class Sums(Protocol):
    """Where contributions are added: in this process or in a Ray actor."""

    async def start(self, round_id: bytes, length: int, ring_bits: int) -> None:
        """Open a sum of `length` zeros."""

    async def stage(self, round_id: bytes, silo: str, digests: tuple[bytes, ...], frame: bytes) -> None:
        """Keep the next frame of a contribution; raises ProtocolError on chunks that are not as signed."""

    async def add(self, round_id: bytes, silo: str, name: bytes) -> None:
        """Add a contribution of which all frames are there; raises ProtocolError on a part of one, or a second one."""

    async def total(self, round_id: bytes, silos: tuple[str, ...]) -> bytes:
        """Return the sum and close the round; raises ProtocolError unless exactly `silos` were added."""

    async def discard(self, round_id: bytes) -> None:
        """Close the round; what was not added is deleted."""

    async def chunk(self, name: bytes, start: int, length: int) -> bytes:
        """Return bytes of a contribution that was added; raises StoreError if it is kept no longer."""


@dataclass(slots=True)
class _Running:
    ring: Ring
    words: Words
    staged: dict[str, Staged] = field(default_factory=dict)
    added: set[str] = field(default_factory=set)


class SumShard:
    """The sums of the open rounds."""

    def __init__(self, path: Path) -> None:
        """Keep contributions in the directory `path`."""
        self._rounds: dict[bytes, _Running] = {}
        self._store = ContributionStore(path)

    def start(self, round_id: bytes, length: int, ring_bits: int) -> None:
        if len(self._rounds) >= MAX_OPEN_ROUNDS:
            raise ProtocolError(f"{MAX_OPEN_ROUNDS} rounds are open, try again later")
        if round_id in self._rounds:
            raise ProtocolError("the round is open already")
        ring = Ring(ring_bits)
        self._rounds[round_id] = _Running(ring, ring.zeros(length))

    def stage(self, round_id: bytes, silo: str, digests: tuple[bytes, ...], frame: bytes) -> None:
        running, word_bytes = self._running(round_id, silo)
        staged = running.staged.get(silo)
        first = 0 if staged is None else staged.length // (CHUNK_VALUES * word_bytes)
        whole = running.words.size * word_bytes
        rest = whole - first * CHUNK_VALUES * word_bytes
        if len(frame) != min(rest, FRAME_CHUNKS * CHUNK_VALUES * word_bytes) or not frame:
            raise ProtocolError(f"a frame of {silo!r} has {len(frame)} bytes")
        if chunk_digests(frame, word_bytes) != digests[first : first + FRAME_CHUNKS]:
            raise ProtocolError(f"a chunk of {silo!r} is not the one it signed")
        if staged is None:
            staged = running.staged[silo] = self._store.stage(whole)
        staged.append(frame)

    def add(self, round_id: bytes, silo: str, name: bytes) -> None:
        running, word_bytes = self._running(round_id, silo)
        staged = running.staged.get(silo)
        if staged is None or staged.length != running.words.size * word_bytes:
            raise ProtocolError(f"the contribution of {silo!r} is incomplete")
        at = 0
        for block in staged.blocks():
            vector = running.ring.from_bytes(block)
            np.add(running.words[at : at + vector.size], vector, out=running.words[at : at + vector.size])
            at += vector.size
        running.added.add(silo)
        running.staged.pop(silo).keep(name)

    def total(self, round_id: bytes, silos: tuple[str, ...]) -> bytes:
        running = self._rounds.pop(round_id, None)
        if running is None:
            raise ProtocolError("the round is not open")
        if running.added != set(silos):  # one may have been added after the round stopped waiting for it
            raise ProtocolError("the sum does not hold exactly the contributions that were agreed on")
        for staged in running.staged.values():
            staged.discard()
        return running.ring.to_bytes(running.ring.reduce(running.words))

    def discard(self, round_id: bytes) -> None:
        running = self._rounds.pop(round_id, None)
        for staged in running.staged.values() if running is not None else ():
            staged.discard()

    def chunk(self, name: bytes, start: int, length: int) -> bytes:
        return self._store.read(name, start, length)

    def _running(self, round_id: bytes, silo: str) -> tuple[_Running, int]:
        running = self._rounds.get(round_id)
        if running is None:
            raise ProtocolError("the round is not open")
        if silo in running.added:
            raise ProtocolError(f"a contribution of {silo!r} was added before")
        return running, running.ring.word_bytes
