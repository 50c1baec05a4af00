"""Integers modulo 2^bits in numpy words, and the fixed-point codec for reals.

Any 1 <= bits <= 64: rings up to 32 bits live in uint32 words, wider ones in uint64.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crypto.errors import RangeError

Words = npt.NDArray[Any]  # uint32 or uint64, one ring element each


@dataclass(frozen=True, slots=True)
class Ring:
    """Z_2^bits, elements in little-endian words of 4 bytes (bits <= 32) or 8 bytes."""

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 64:
            raise RangeError(f"a ring of {self.bits} bits, expected 1 to 64")

    @property
    def dtype(self) -> "np.dtype[Any]":
        return np.dtype("<u4" if self.bits <= 32 else "<u8")

    @property
    def word_bytes(self) -> int:
        return int(self.dtype.itemsize)

    def reduce(self, words: Words) -> Words:
        """Reduce `words` modulo 2^bits in place and return them."""
        if self.bits not in (32, 64):
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
        if self.bits not in (32, 64) and words.size and int(words.max()) >> self.bits:
            raise RangeError(f"an element outside the ring of {self.bits} bits")
        return words

    def signed(self, words: Words) -> npt.NDArray[Any]:
        """Return the representatives in [-2^(bits-1), 2^(bits-1)), as int32 or int64; this may be a view of `words`."""
        dtype = np.dtype("<i4" if self.bits <= 32 else "<i8").type
        shift = 8 * self.word_bytes - self.bits
        return words.view(dtype) if not shift else (words << words.dtype.type(shift)).view(dtype) >> dtype(shift)

    def from_signed(self, units: npt.NDArray[np.int64]) -> Words:
        """Return whole numbers as ring elements; the reverse of `signed` for those within its range."""
        return self.reduce(units.view(np.uint64).astype(self.dtype))


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
