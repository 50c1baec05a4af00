"""Sums of ring words that are not reduced modulo 2^bits: those of a long round in the backend `masking`.

A coordinate of such a sum is a whole number, the sum of one word of at most 32 bits of each contribution. A word of 64
bits counts as two, its low and its high half: a chunk then has a coordinate for each low half, and after these one for
each high half. So the sum of n contributions is below n * 2^32 in every coordinate, and what is said of whole numbers
can be said of it: `crypto.rounds.products`. A chunk has the low 32 bits of its coordinates, and after these what they
have above, in a byte each for up to 256 contributions, else in two. docs/protocol.md sections 2.7 and 7.8.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from crypto.backends.scheme import Shape, check_size
from crypto.errors import ProtocolError, RangeError
from crypto.ring import Ring, Words

HALF_BITS = 32  # of a word of 64 bits
BLOCK = 16_384  # coordinates: 128 KiB, stays in the second-level cache
_LOW = np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class Unreduced:
    """How the coordinates of a sum of words of `ring` lie in its chunks."""

    shape: Shape
    ring: Ring

    @property
    def bits(self) -> int:
        """The bits of what one contribution adds to a coordinate."""
        return min(self.ring.bits, HALF_BITS)

    @property
    def runs(self) -> int:
        """How many coordinates a value has."""
        return 1 if self.ring.bits <= HALF_BITS else 2

    @property
    def above(self) -> "np.dtype[Any] | None":
        """The words of what a coordinate has above its low 32 bits; None where none can have anything."""
        wide = (self.shape.silos << self.bits) - 1 >> HALF_BITS
        return None if not wide else np.dtype("u1" if wide < 1 << 8 else "<u2")

    def most(self, silos: int) -> int:
        """Return the greatest coordinate of a sum of so many contributions."""
        return silos * ((1 << self.bits) - 1)

    def coordinates(self, index: int) -> int:
        """Return the number of coordinates in a chunk; raises ProtocolError if there is no such chunk."""
        return self.runs * self.shape.values(index)

    def chunk_bytes(self, index: int) -> int:
        above = self.above
        return (_LOW.itemsize + (0 if above is None else above.itemsize)) * self.coordinates(index)

    def of_words(self, words: Words) -> Words:
        """Return the coordinates of a sum of one contribution alone, of a chunk of its words."""
        return np.concatenate(halves(words)) if self.runs == 2 else words

    def read(self, index: int, chunk: bytes | memoryview) -> Words:
        """Return the coordinates of a chunk of a sum, in words of 64 bits; raises WireError on a wrong size."""
        return np.concatenate([block.copy() for block in self.blocks(index, chunk)])

    def blocks(self, index: int, chunk: bytes | memoryview) -> Iterator[Words]:
        """Yield the coordinates of a chunk in blocks, each of which is overwritten by the next; raises WireError."""
        low, above = self._parts(index, chunk)
        coordinates, high = np.empty(min(BLOCK, low.size), np.uint64), np.empty(min(BLOCK, low.size), np.uint64)
        for start in range(0, low.size, BLOCK):
            block = coordinates[: low.size - start]
            np.copyto(block, low[start : start + BLOCK])
            if above is not None:
                np.copyto(high[: block.size], above[start : start + BLOCK])
                np.left_shift(high[: block.size], HALF_BITS, out=high[: block.size])
                np.bitwise_or(block, high[: block.size], out=block)
            yield block

    def check(self, index: int, coordinates: Words, silos: int) -> None:
        """Raise RangeError if a coordinate is larger than that of a sum of so many contributions."""
        if int(coordinates.max()) > self.most(silos):
            raise RangeError(f"chunk {index} of the sum has a coordinate above {self.most(silos)}: it was altered")

    def reduced(self, index: int, chunk: bytes | memoryview, words: Words) -> None:
        """Write the words of the ring that a chunk is the sum of over `words`; raises WireError on a wrong size."""
        low, above = self._parts(index, chunk)
        if self.runs == 1:
            np.copyto(words, low)
            self.ring.reduce(words)
            return
        first, second = np.split(low, 2)
        np.copyto(words, second)
        if above is not None:
            words += np.split(above, 2)[0]  # what the low halves carry
        words <<= np.uint64(HALF_BITS)
        words |= first

    def _parts(self, index: int, chunk: bytes | memoryview) -> tuple[Words, Words | None]:
        check_size(chunk, self.chunk_bytes(index), index)
        count, above = self.coordinates(index), self.above
        low = np.frombuffer(chunk, _LOW, count)
        return low, None if above is None else np.frombuffer(chunk, above, count, count * _LOW.itemsize)


class UnreducedSum:
    """An accumulator of ring words whose sum is not reduced."""

    __slots__ = ("_above", "_added", "_how", "_low")

    def __init__(self, how: Unreduced) -> None:
        self._how, self._low, self._above = how, dict[int, Words](), dict[int, Words]()
        self._added = [0] * how.shape.chunks

    def check(self, index: int, chunk: bytes) -> None:
        check_words(self._how.ring, self._how.shape.values(index), index, chunk)

    def add(self, index: int, chunk: bytes) -> None:
        words, how = self._words(index, chunk), self._how
        if self._added[index] == how.shape.silos:
            raise ProtocolError(f"more than {how.shape.silos} contributions to chunk {index}")
        if index not in self._low:
            self._low[index] = np.zeros(how.coordinates(index), _LOW)
            if how.above is not None:
                self._above[index] = np.zeros(how.coordinates(index), how.above)
        low, above, start = self._low[index], self._above.get(index), 0
        for part in halves(words) if how.runs == 2 else (words,):
            run = low[start : start + part.size]
            np.add(run, part, out=run)
            if above is not None:
                above[start : start + part.size] += run < part  # it has wrapped
            start += part.size
        self._added[index] += 1

    def chunk(self, index: int) -> bytes:
        above = self._above.get(index)
        return self._low[index].tobytes() + (b"" if above is None else above.tobytes())

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
