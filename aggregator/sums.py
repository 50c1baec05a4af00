"""The running sums of blinded vectors: a contribution is added whole, once, and only if every chunk is as signed.

`SumShard` is plain Python; `aggregator/__main__.py` runs it as a Ray actor. Memory: one vector a round, and one
contribution while it is being added.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from crypto.errors import ProtocolError
from crypto.messages import chunk_digests
from crypto.ring import Ring, Words

MAX_OPEN_ROUNDS = 64


class Sums(Protocol):
    """Where contributions are added: in this process or in a Ray actor."""

    async def start(self, round_id: bytes, length: int, ring_bits: int) -> None:
        """Open a sum of `length` zeros."""

    async def add(self, round_id: bytes, silo: str, digests: tuple[bytes, ...], frames: tuple[bytes, ...]) -> None:
        """Add one contribution; raises ProtocolError on frames that are not as signed, or on a second one."""

    async def total(self, round_id: bytes, silos: tuple[str, ...]) -> bytes:
        """Return the sum and close the round; raises ProtocolError unless exactly `silos` were added."""

    async def discard(self, round_id: bytes) -> None:
        """Close the round."""


@dataclass(slots=True)
class _Running:
    ring: Ring
    words: Words
    added: set[str] = field(default_factory=set)


class SumShard:
    """The sums of the open rounds."""

    def __init__(self) -> None:
        self._rounds: dict[bytes, _Running] = {}

    def start(self, round_id: bytes, length: int, ring_bits: int) -> None:
        if len(self._rounds) >= MAX_OPEN_ROUNDS:
            raise ProtocolError(f"{MAX_OPEN_ROUNDS} rounds are open, try again later")
        if round_id in self._rounds:
            raise ProtocolError("the round is open already")
        ring = Ring(ring_bits)
        self._rounds[round_id] = _Running(ring, ring.zeros(length))

    def add(self, round_id: bytes, silo: str, digests: tuple[bytes, ...], frames: tuple[bytes, ...]) -> None:
        running = self._rounds.get(round_id)
        if running is None:
            raise ProtocolError("the round is not open")
        if silo in running.added:
            raise ProtocolError(f"a contribution of {silo!r} was added before")
        if sum(len(frame) for frame in frames) != running.words.size * running.ring.word_bytes:
            raise ProtocolError(f"the contribution of {silo!r} is incomplete")
        payload = frames[0] if len(frames) == 1 else b"".join(frames)
        if chunk_digests(payload, running.ring.word_bytes) != digests:
            raise ProtocolError(f"a chunk of {silo!r} is not the one it signed")
        vector = running.ring.from_bytes(payload)
        np.add(running.words, vector, out=running.words)
        running.ring.reduce(running.words)
        running.added.add(silo)

    def total(self, round_id: bytes, silos: tuple[str, ...]) -> bytes:
        running = self._rounds.pop(round_id, None)
        if running is None:
            raise ProtocolError("the round is not open")
        if running.added != set(silos):  # one may have been added after the round stopped waiting for it
            raise ProtocolError("the sum does not hold exactly the contributions that were agreed on")
        return running.ring.to_bytes(running.words)

    def discard(self, round_id: bytes) -> None:
        self._rounds.pop(round_id, None)
