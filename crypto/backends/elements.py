"""Sums of vectors whose elements are whole numbers modulo a prime or a product of primes.

Promise: a chunk with a wrong size, a wrong header or a word outside the group is refused before it is added.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from crypto.backends.keystream import Elements
from crypto.backends.scheme import Bytes, check_size
from crypto.errors import ProtocolError, RangeError


class ElementSum:
    """An accumulator of vectors over [0, m) with m below 2^63, in little-endian words of 8 bytes behind a fixed header.

    Words are added without reduction as long as a word of 64 bits can hold the sum, then reduced at once.
    """

    __slots__ = ("_added", "_header", "_lazy", "_lengths", "_modulus", "_pending", "_silos", "_sums")

    def __init__(self, modulus: int, lengths: Sequence[int], silos: int, header: bytes = b"") -> None:
        self._modulus, self._silos, self._header = np.uint64(modulus), silos, header
        self._lazy = (2**64 - 1) // (modulus - 1)  # so many elements fit one word
        self._lengths, self._sums = lengths, dict[int, Elements]()
        self._added, self._pending = [0] * len(lengths), [0] * len(lengths)

    def check(self, index: int, chunk: bytes) -> None:
        self._read(index, chunk)

    def add(self, index: int, chunk: bytes) -> None:
        self.add_blocks(index, [self._read(index, chunk)])

    def add_blocks(self, index: int, blocks: Iterable[Elements]) -> None:
        """Add the chunk of one contribution, given in pieces whose elements were checked before."""
        if self._added[index] == self._silos:
            raise ProtocolError(f"more than {self._silos} contributions to chunk {index}")
        total = self._sums.get(index)
        if total is None:
            total = self._sums[index] = np.zeros(self._lengths[index], np.uint64)
        if self._pending[index] == self._lazy:
            np.remainder(total, self._modulus, out=total)
            self._pending[index] = 1
        start = 0
        for block in blocks:
            part = total[start : start + block.size]
            np.add(part, block, out=part)
            start += block.size
        self._pending[index] += 1
        self._added[index] += 1

    def chunks(self) -> list[bytes]:
        if len(set(self._added)) != 1 or not self._added[0]:
            raise ProtocolError("the sum holds no contribution, or holds one in part")
        return [self.chunk(index) for index in range(len(self._lengths))]

    def chunk(self, index: int) -> bytes:
        total = self._sums[index]
        np.remainder(total, self._modulus, out=total)
        self._pending[index] = 1
        return b"".join([self._header, total.astype("<u8", copy=False).data])

    def _read(self, index: int, chunk: bytes) -> Elements:
        if not 0 <= index < len(self._lengths):
            raise ProtocolError(f"chunk {index} of {len(self._lengths)}")
        return read_elements(chunk, int(self._modulus), self._lengths[index], index, self._header)


def read_elements(chunk: Bytes, modulus: int, count: int, index: int, header: bytes = b"") -> Elements:
    """Return the words of a chunk, as a view of its bytes.

    Raises WireError on a wrong size, ProtocolError on another header, RangeError on a word outside the group.
    """
    check_size(chunk, len(header) + 8 * count, index)
    if chunk[: len(header)] != header:
        raise ProtocolError(f"chunk {index} was encrypted under another key than this round's")
    words: Elements = np.frombuffer(chunk, np.dtype("<u8"), offset=len(header))
    if words.size and int(words.max()) >= modulus:
        raise RangeError(f"chunk {index} holds a word that is no element of the group")
    return words
