"""The default backend, `masking`: vectors of ring elements that the aggregator sums as they are.

A vector of one chunk travels in words of 32 or 64 bits. A longer one is in the least ring that holds every sum, without
gaps, if that has at most 28 bits: a word of 32 bits is quicker to make than to save an eighth of it. Else it travels in
words of 32 or 64 bits too. docs/protocol.md section 2.7.

It gives `crypto.ring` and `crypto.backends.masks` the interface of all backends (`crypto.backends.scheme`). What each
backend costs and promises: docs/backends.md. Bonawitz et al., CCS 2017, section 4.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crypto.backends.masks import apply_masks, blind
from crypto.backends.scheme import (
    CHUNK_VALUES,
    Accumulator,
    Bytes,
    Opened,
    RoundKey,
    Scheme,
    Shape,
    Units,
    check_capacity,
    check_no_key,
    no_key,
    only_column,
)
from crypto.backends.unreduced import Unreduced, UnreducedSum, check_words, words_of
from crypto.errors import ProtocolError
from crypto.keys import Secret
from crypto.ring import Ring, Words

NAME = "masking"
PACKED_BITS = 28  # of a ring, at most, whose elements are packed
_PART = 16 * CHUNK_VALUES  # values of a long sum that are opened at a time


class RingSum:
    """An accumulator of ring elements; the words wrap modulo a multiple of the ring's order."""

    __slots__ = ("_added", "_ring", "_shape", "_sums")

    def __init__(self, shape: Shape, ring: Ring) -> None:
        self._shape, self._ring = shape, ring
        self._sums: dict[int, Words] = {}
        self._added = [0] * shape.chunks

    def check(self, index: int, chunk: bytes) -> None:
        check_words(self._ring, self._shape.values(index), index, chunk)

    def add(self, index: int, chunk: bytes) -> None:
        self.check(index, chunk)
        if self._added[index] == self._shape.silos:
            raise ProtocolError(f"more than {self._shape.silos} contributions to chunk {index}")
        words = self._ring.unpack(chunk, self._shape.values(index))
        if index in self._sums:
            np.add(self._sums[index], words, out=self._sums[index])
        else:
            self._sums[index] = words.copy()
        self._added[index] += 1

    def chunk(self, index: int) -> bytes:
        return self._ring.pack(self._ring.reduce(self._sums[index]))

    def chunks(self) -> list[bytes]:
        if len(set(self._added)) != 1 or not self._added[0]:
            raise ProtocolError("the sum holds no contribution, or holds one in part")
        return [self.chunk(index) for index in range(self._shape.chunks)]


@dataclass(frozen=True, slots=True)
class MaskingScheme:
    """`masking` in one round."""

    shape: Shape
    columns: int = 1
    is_masked: bool = True

    @property
    def ring(self) -> Ring:
        """The ring of 32 bits if the range fits, else of 64; of a long vector the least, if that is to be packed."""
        bits = (2 * self.shape.span + 1).bit_length()
        return Ring(64 if bits > 32 else bits if self.shape.is_long and bits <= PACKED_BITS else 32)

    @property
    def modulus(self) -> int:
        return 1 << self.ring.bits

    def chunk_bytes(self, column: int, index: int) -> int:
        return self.ring.packed_bytes(self.shape.values(index))

    @property
    def unreduced(self) -> Unreduced:
        """How the sum of a long round lies in its chunks."""
        return Unreduced(self.shape, self.ring)

    def words(self, index: int, chunk: Bytes) -> Words:
        """Return the words of a blinded chunk; raises CryptoError on bytes that are none."""
        return words_of(self.ring, self.shape.values(index), index, chunk)

    def coordinates(self, index: int, chunk: Bytes) -> Words:
        """Return what a blinded chunk adds to the unreduced sum of a long round; raises as `words` does."""
        return self.unreduced.of_words(self.words(index, chunk))

    def sum_bytes(self, index: int) -> int:
        return self.unreduced.chunk_bytes(index) if self.shape.is_long else self.chunk_bytes(0, index)

    def blind(
        self, units: Units, added_seeds: Sequence[bytes], subtracted_seeds: Sequence[bytes]
    ) -> Iterator[tuple[bytes, ...]]:
        self.shape.cut(units)  # checks before anything is blinded
        words = blind(units, self.ring.from_signed, self.ring, added_seeds, subtracted_seeds)
        return ((self.ring.pack(chunk),) for chunk in _cut(words))

    def accumulator(self, column: int) -> Accumulator:
        return UnreducedSum(self.unreduced) if self.shape.is_long else RingSum(self.shape, self.ring)

    def open(
        self,
        sums: Mapping[int, Sequence[Bytes]],
        added_seeds: Sequence[bytes],
        subtracted_seeds: Sequence[bytes],
        secret: Secret | None = None,
    ) -> Opened:
        chunks, units = only_column(self, sums), np.empty(self.shape.length, np.int64)
        for start in range(0, self.shape.length, _PART):  # few words at a time beside the units
            words = self._reduced(chunks, start)
            apply_masks(words, self.ring, added_seeds, subtracted_seeds, start)
            units[start : start + words.size] = self.ring.signed(words)
        return Opened(self.shape.check_sum(units))

    def _reduced(self, chunks: Sequence[Bytes], first: int) -> Words:
        """Return the ring elements of a sum from a value on, at most `_PART` of them."""
        words, how = np.empty(min(_PART, self.shape.length - first), self.ring.dtype), self.unreduced
        for start in range(0, words.size, CHUNK_VALUES):
            index = (first + start) // CHUNK_VALUES
            part = words[start : start + self.shape.values(index)]
            if self.shape.is_long:
                how.reduced(index, chunks[index], part)
            else:
                part[:] = self.ring.unpack(chunks[index], self.shape.values(index))
        return words


@dataclass(frozen=True, slots=True)
class MaskingBackend:
    """Exact sums of vectors of any length, with values of up to 64 bits."""

    name: str = NAME
    has_key: bool = False

    def capacity(self, silos: int) -> int:
        return (2**63 - 1) // silos

    def create_key(self) -> RoundKey:
        return no_key(NAME)

    def bind(self, shape: Shape, public: bytes = b"") -> Scheme:
        check_no_key(NAME, public)
        check_capacity(self, shape)
        return MaskingScheme(shape)


def _cut(words: Words) -> Iterator[Words]:
    return (words[start : start + CHUNK_VALUES] for start in range(0, words.size, CHUNK_VALUES))
