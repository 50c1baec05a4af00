"""Sums of ring words that are not reduced modulo 2^bits: those of a long round in the backend `masking`.

An entry of such a sum is a whole number, the sum of one word of at most 32 bits of each contribution. A word of 64 bits
counts as two, its low and its high half: a chunk then has a run of the low halves, and after it one of the high. So the
sum of n contributions is below n * 2^32 in every entry, and what is said of whole numbers can be said of it:
`crypto.rounds.products`. docs/protocol.md sections 2.7 and 7.5.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from crypto.backends.scheme import Shape, check_size
from crypto.errors import ProtocolError, RangeError
from crypto.ring import Ring, Words

HALF_BITS = 32  # of a word of 64 bits


@dataclass(frozen=True, slots=True)
class Unreduced:
    """How the entries of a sum of words of `ring` lie in its chunks."""

    shape: Shape
    ring: Ring

    @property
    def bits(self) -> int:
        """The bits of what one contribution adds to an entry."""
        return min(self.ring.bits, HALF_BITS)

    @property
    def runs(self) -> int:
        """How many entries a value has."""
        return 1 if self.ring.bits <= HALF_BITS else 2

    @property
    def dtype(self) -> "np.dtype[Any]":
        return np.dtype("<u4" if self.shape.silos << self.bits <= 1 << 32 else "<u8")

    def most(self, silos: int) -> int:
        """Return the greatest entry of a sum of so many contributions."""
        return silos * ((1 << self.bits) - 1)

    def entries(self, index: int) -> int:
        """Return the number of entries in a chunk; raises ProtocolError if there is no such chunk."""
        return self.runs * self.shape.values(index)

    def chunk_bytes(self, index: int) -> int:
        return int(self.dtype.itemsize) * self.entries(index)

    def of_words(self, words: Words) -> Words:
        """Return the entries of a sum of one contribution alone, of a chunk of its words."""
        return np.concatenate(halves(words)) if self.runs == 2 else words

    def read(self, index: int, chunk: bytes | memoryview) -> Words:
        """Return the entries of a chunk of a sum; raises WireError on a wrong size."""
        check_size(chunk, self.chunk_bytes(index), index)
        return np.frombuffer(chunk, self.dtype)

    def check(self, index: int, entries: Words, silos: int) -> None:
        """Raise RangeError if an entry is larger than that of a sum of so many contributions."""
        if int(entries.max()) > self.most(silos):
            raise RangeError(f"chunk {index} of the sum has an entry above {self.most(silos)}: it was altered")

    def reduced(self, entries: Words) -> Words:
        """Return the words of the ring that the entries of a chunk are the sums of, in memory of their own."""
        if self.runs == 1:
            return self.ring.reduce(entries.astype(self.ring.dtype))
        low, high = np.split(entries.astype(np.uint64), 2)
        high <<= np.uint64(HALF_BITS)
        high += low
        return high


class UnreducedSum:
    """An accumulator of ring words whose sum is not reduced."""

    __slots__ = ("_added", "_how", "_sums")

    def __init__(self, how: Unreduced) -> None:
        self._how, self._sums = how, dict[int, Words]()
        self._added = [0] * how.shape.chunks

    def check(self, index: int, chunk: bytes) -> None:
        check_words(self._how.ring, self._how.shape.values(index), index, chunk)

    def add(self, index: int, chunk: bytes) -> None:
        words = self._words(index, chunk)
        if self._added[index] == self._how.shape.silos:
            raise ProtocolError(f"more than {self._how.shape.silos} contributions to chunk {index}")
        total = self._sums.setdefault(index, np.zeros(self._how.entries(index), self._how.dtype))
        if self._how.runs == 1:
            np.add(total, words, out=total)
        else:
            for run, half in zip(np.split(total, 2), halves(words), strict=True):
                np.add(run, half, out=run)
        self._added[index] += 1

    def chunk(self, index: int) -> bytes:
        return self._sums[index].tobytes()

    def chunks(self) -> list[bytes]:
        if len(set(self._added)) != 1 or not self._added[0]:
            raise ProtocolError("the sum holds no contribution, or holds one in part")
        return [self.chunk(index) for index in range(self._how.shape.chunks)]

    def _words(self, index: int, chunk: bytes) -> Words:
        return words_of(self._how.ring, self._how.shape.values(index), index, chunk)


def check_words(ring: Ring, values: int, index: int, chunk: bytes | memoryview) -> None:
    """Raise WireError unless a blinded chunk has the size of so many values, RangeError if bits behind them are set."""
    check_size(chunk, ring.packed_bytes(values), index)
    ring.check_packed(chunk, values)


def words_of(ring: Ring, values: int, index: int, chunk: bytes | memoryview) -> Words:
    """Return the words of a blinded chunk of so many values; raises as `check_words` does."""
    check_words(ring, values, index, chunk)
    return ring.unpack(chunk, values)


def halves(words: Words) -> tuple[Words, Words]:
    """Return the low and the high halves of words of 64 bits, which are views."""
    both = np.ascontiguousarray(words, np.dtype("<u8")).view(np.dtype("<u4"))
    return both[0::2], both[1::2]
