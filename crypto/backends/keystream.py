"""Masks for groups whose order is not a power of two: values exactly uniform in [0, m), from a 32-byte seed.

The seed is the key of AES-256-CTR. The counter of chunk k starts at block k * 2^32, so a chunk can be made without
those before it, and no two chunks share a block. A chunk's keystream is cut into candidates of 8 bytes (if m is wider
than 64 bits: of as many bytes as m has), read little-endian and cut to the bits of m. Candidates of m or more are
skipped; the rest are the values, in order. An accepted candidate is uniform whatever was rejected before it, so there
is no bias beyond that of AES (docs/protocol.md section 2.8). The lattice and share moduli are just below a power
of two: they reject a value with a chance of 2^-27 (t), 2^-46 (q) and 2^-53 (p); a Paillier modulus rejects at most
half. A seed serves one round and one vector only.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from crypto.errors import RangeError

Elements = npt.NDArray[np.uint64]  # one element of [0, m) each

BLOCK = 16_384  # elements: 128 KiB, stays in the second-level cache while every keystream passes over it
_ZEROS = bytes(8 * BLOCK)
CHUNK_BLOCKS_LOG2 = 32  # AES blocks of a chunk: chunks never share one
_MAX_CHUNK = 2**32
_WORD_BYTES = 8


class UniformStream:
    """The values of one chunk of one seed's mask, for a modulus of at most 63 bits, taken in order."""

    __slots__ = ("_cut", "_modulus", "_stream")

    def __init__(self, seed: bytes, modulus: int, chunk: int) -> None:
        if not 2 <= modulus < 2**63:
            raise RangeError(f"a modulus of {modulus.bit_length()} bits, expected 2 to 63")
        self._modulus, self._cut = np.uint64(modulus), np.uint64((1 << modulus.bit_length()) - 1)
        self._stream = _stream(seed, chunk)

    def fill(self, out: Elements) -> None:
        """Write the next values over `out`, which is contiguous."""
        for start in range(0, out.size, BLOCK):
            block = out[start : start + BLOCK]
            self._candidates(block)
            if block.max() >= self._modulus:
                self._replace(block)

    def _candidates(self, block: Elements) -> None:
        self._stream.update_into(memoryview(_ZEROS)[: block.nbytes], block.data.cast("B"))
        np.bitwise_and(block, self._cut, out=block)

    def _replace(self, block: Elements) -> None:
        """Close the gaps that rejected candidates leave, then draw what is missing at the end."""
        kept = block[block < self._modulus]
        block[: kept.size] = kept
        self.fill(block[kept.size :])


def apply_modular(
    elements: Elements, modulus: int, chunk: int, added_seeds: Sequence[bytes], subtracted_seeds: Sequence[bytes]
) -> None:
    """Add the masks of chunk `chunk` of `added_seeds` to `elements` and subtract those of `subtracted_seeds`."""
    added = [UniformStream(seed, modulus, chunk) for seed in added_seeds]
    subtracted = [UniformStream(seed, modulus, chunk) for seed in subtracted_seeds]
    order = np.uint64(modulus)
    masks = np.empty(min(BLOCK, elements.size), np.uint64)
    scratch = np.empty_like(masks)
    for start in range(0, elements.size, BLOCK):
        block = elements[start : start + BLOCK]
        mask, other = masks[: block.size], scratch[: block.size]
        # One of v and v - m is in [0, m); the other wraps around 2^64 and is the larger word. Likewise v and v + m.
        for stream in added:
            stream.fill(mask)
            np.add(block, mask, out=block)
            np.minimum(block, np.subtract(block, order, out=other), out=block)
        for stream in subtracted:
            stream.fill(mask)
            np.subtract(block, mask, out=block)
            np.minimum(block, np.add(block, order, out=other), out=block)


def integers(seed: bytes, modulus: int, chunk: int, count: int) -> list[int]:
    """Return the first `count` values of a chunk's mask for a modulus of any width."""
    width = _WORD_BYTES if modulus < 2**64 else (modulus.bit_length() + 7) // 8
    cut = (1 << modulus.bit_length()) - 1
    stream, zeros = _stream(seed, chunk), bytes(width)
    values: list[int] = []
    while len(values) < count:
        candidate = int.from_bytes(stream.update(zeros), "little") & cut
        if candidate < modulus:
            values.append(candidate)
    return values


def _stream(seed: bytes, chunk: int) -> CipherContext:
    if not 0 <= chunk < _MAX_CHUNK:
        raise RangeError(f"chunk {chunk}, expected 0 to {_MAX_CHUNK - 1}")
    counter = (chunk << CHUNK_BLOCKS_LOG2).to_bytes(16, "big")
    return Cipher(algorithms.AES256(seed), modes.CTR(counter)).encryptor()
