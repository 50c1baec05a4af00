"""Whole numbers of few bits in bytes without gaps, and back: pure numpy, a few passes whatever the width.

Element i takes the bits `i * bits` to `(i + 1) * bits - 1` of a little-endian number, so 8 elements are exactly `bits`
bytes. Two elements are joined into a pair, as a little-endian word of 64 bits has them; the four pairs of 8 elements
are placed in limbs of 64 bits, each in one or two. docs/protocol.md section 2.7.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

MAX_PACKED_BITS = 32
_ROW = 8  # elements, which are `bits` bytes
_BLOCK = 2**16  # elements at a time, so that they stay in the cache

Elements = npt.NDArray[Any]  # unsigned words


def packed(elements: Elements, bits: int) -> bytes:
    """Return elements below 2^bits, 1 <= bits <= 32, without gaps; what is left of the last byte is zero."""
    blocks = (elements[start : start + _BLOCK] for start in range(0, elements.size, _BLOCK))
    return b"".join(_packed(block, bits) for block in blocks)


def _packed(elements: Elements, bits: int) -> bytes:
    rows = -(-elements.size // _ROW)
    pairs = np.zeros((rows, _ROW // 2), "<u8")
    pairs.view("<u4").reshape(-1)[: elements.size] = elements
    first = pairs & np.uint64((1 << bits) - 1)
    pairs >>= np.uint64(32 - bits)  # the second element comes down beside the first
    pairs &= np.uint64((1 << bits) - 1 << bits)
    pairs |= first
    limbs = np.zeros((rows, _limbs(bits)), "<u8")
    for place in range(_ROW // 2):
        limb, shift = divmod(2 * bits * place, 64)
        limbs[:, limb] |= pairs[:, place] << np.uint64(shift)
        if shift + 2 * bits > 64:
            limbs[:, limb + 1] |= pairs[:, place] >> np.uint64(64 - shift)
    return limbs.view(np.uint8)[:, :bits].tobytes()[: -(-elements.size * bits // 8)]


def unpacked(raw: bytes | memoryview, bits: int, length: int) -> npt.NDArray[np.uint32]:
    """Return the `length` elements in `raw`, which has exactly their size."""
    rows = -(-length // _ROW)
    octets = np.zeros((rows, 8 * _limbs(bits)), np.uint8)
    whole = len(raw) // bits  # rows
    found = np.frombuffer(raw, np.uint8)
    octets[:whole, :bits] = found[: whole * bits].reshape(whole, bits)
    if rest := found[whole * bits :].size:
        octets[whole, :rest] = found[whole * bits :]
    limbs, pairs = octets.view("<u8"), np.empty((rows, _ROW // 2), "<u8")
    for place in range(_ROW // 2):
        limb, shift = divmod(2 * bits * place, 64)
        pairs[:, place] = limbs[:, limb] >> np.uint64(shift)
        if shift + 2 * bits > 64:
            pairs[:, place] |= limbs[:, limb + 1] << np.uint64(64 - shift)
    one = np.uint64((1 << bits) - 1)
    second = (pairs >> np.uint64(bits)) & one
    pairs &= one
    pairs |= second << np.uint64(32)
    return pairs.view("<u4").reshape(-1)[:length]


def _limbs(bits: int) -> int:
    return -(-bits * _ROW // 64)
