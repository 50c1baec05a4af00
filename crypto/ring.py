"""Integers modulo 2^bits in numpy words, and the fixed-point codec for reals.

Any 1 <= bits <= 64: elements live in words of 8, 16, 32 or 64 bits. Up to 32 bits they also have a packed form, without
gaps (`crypto.packing`). docs/protocol.md section 2.7.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crypto.errors import RangeError
from crypto.packing import MAX_PACKED_BITS, packed, unpacked

Words = npt.NDArray[Any]  # uint8, uint16, uint32 or uint64, one ring element each
_DTYPES = [np.dtype(f"<u{next(size for size in (1, 2, 4, 8) if bits <= 8 * size)}") for bits in range(65)]


@dataclass(frozen=True, slots=True)
class Ring:
    """Z_2^bits, elements in the narrowest little-endian words that hold them: of 1, 2, 4 or 8 bytes."""

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 64:
            raise RangeError(f"a ring of {self.bits} bits, expected 1 to 64")

    @property
    def dtype(self) -> "np.dtype[Any]":
        return _DTYPES[self.bits]

    @property
    def word_bytes(self) -> int:
        return _DTYPES[self.bits].itemsize

    @property
    def is_packed(self) -> bool:
        """Whether `pack` leaves no gaps between elements; above 32 bits each is a word of 8 bytes."""
        return self.bits <= MAX_PACKED_BITS

    def packed_bytes(self, length: int) -> int:
        """Return the size of so many elements as `pack` writes them."""
        return -(-length * self.bits // 8) if self.is_packed else 8 * length

    def reduce(self, words: Words) -> Words:
        """Reduce `words` modulo 2^bits in place and return them."""
        if self.bits != 8 * self.word_bytes:
            words &= self.dtype.type((1 << self.bits) - 1)
        return words

    def zeros(self, length: int) -> Words:
        return np.zeros(length, self.dtype)

    def to_bytes(self, words: Words) -> bytes:
        return words.astype(self.dtype, copy=False).tobytes()

    def from_bytes(self, raw: bytes | memoryview) -> Words:
        """Return a writable vector; raises RangeError on a partial word or an element outside the ring."""
        if len(raw) % self.word_bytes:
            raise RangeError(f"{len(raw)} bytes are no whole number of {self.word_bytes}-byte ring elements")
        words = np.frombuffer(raw, self.dtype).copy()
        if self.bits != 8 * self.word_bytes and words.size and int(words.max()) >> self.bits:
            raise RangeError(f"an element outside the ring of {self.bits} bits")
        return words

    def pack(self, words: Words) -> bytes:
        """Return elements of the ring as bytes: up to 32 bits without gaps, the lowest bits first.

        Bit j of element i is bit `i * bits + j` of a little-endian number: 8 elements are exactly `bits` bytes. What is
        left of the last byte is zero.
        """
        if not self.is_packed or self.bits == 8 * self.word_bytes:
            return self.to_bytes(words)
        return packed(words, self.bits)

    def unpack(self, raw: bytes | memoryview, length: int) -> Words:
        """Return the `length` elements that `pack` wrote, perhaps as a view; raises RangeError on any other bytes."""
        self.check_packed(raw, length)
        if self.bits == 8 * self.word_bytes:
            return np.frombuffer(raw, self.dtype)
        return unpacked(raw, self.bits, length).astype(self.dtype) if self.is_packed else self.from_bytes(raw)

    def check_packed(self, raw: bytes | memoryview, length: int) -> None:
        """Raise RangeError unless `pack` could have written these bytes, as far as that is seen without unpacking."""
        if len(raw) != self.packed_bytes(length):
            raise RangeError(f"{len(raw)} bytes, expected {self.packed_bytes(length)}: {length} of {self.bits} bits")
        spare = -length * self.bits % 8 if self.is_packed else 0
        if spare and raw[-1] >> (8 - spare):
            raise RangeError(f"the last {spare} bits of {length} elements of {self.bits} bits are set, expected zeros")

    def signed(self, words: Words) -> npt.NDArray[Any]:
        """Return the representatives in [-2^(bits-1), 2^(bits-1)), in signed words; perhaps a view of `words`."""
        dtype = np.dtype(f"<i{self.word_bytes}").type
        shift = 8 * self.word_bytes - self.bits
        return words.view(dtype) if not shift else (words << words.dtype.type(shift)).view(dtype) >> dtype(shift)

    def from_signed(self, units: npt.NDArray[Any]) -> Words:
        """Return whole numbers, of int32 or int64, as ring elements; the reverse of `signed` within its range."""
        return self.reduce(units.astype(self.dtype))


@dataclass(frozen=True, slots=True)
class Codec:
    """Fixed point with `scale_bits` fractional bits, for a sum of at most `terms` vectors.

    Every term must stay within `limit`, so that the sum cannot wrap.
    """

    ring: Ring
    scale_bits: int
    terms: int

    def __post_init__(self) -> None:
        if self.scale_bits < 0 or self.terms < 1 or self.limit < 1:
            raise RangeError(
                f"no headroom for {self.terms} terms with {self.scale_bits} fractional bits in {self.ring.bits} bits"
            )

    @property
    def limit(self) -> int:
        """Largest magnitude of one encoded term, in ring units (2^-scale_bits)."""
        return ((1 << (self.ring.bits - 1)) - 1) // self.terms

    def encode_reals(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Round `values` to the grid of 2^-scale_bits; raises RangeError on NaN or a term above the limit."""
        bound = float(self.limit)
        if bound > self.limit:  # the nearest float lies above: a term equal to it could wrap
            bound = math.nextafter(bound, 0)
        with np.errstate(over="ignore"):
            scaled = np.multiply(values, 2.0**self.scale_bits, dtype=np.float64)
        np.rint(scaled, out=scaled)
        if scaled.size and not -bound <= scaled.min() <= scaled.max() <= bound:  # NaN compares false
            raise RangeError(f"a value beyond ±{self.limit / 2**self.scale_bits:g}, the headroom of this codec")
        return scaled.astype(np.int64)
