"""Persons as 128-bit codes under a key of the silo, so that a file of codes without its key names nobody.

The code is keyed BLAKE2b: RFC 7693, section 2.9.
"""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint64]  # of shape (persons, 2), the more significant half first
KEY_BYTES = 32
CODE_BYTES = 16


def codes_of(key: bytes, texts: Iterable[str]) -> Codes:
    """Return the code of each text."""
    keyed = blake2b(key=key, digest_size=CODE_BYTES)  # a copy of which costs half of a new one

    def code(text: str) -> bytes:
        one = keyed.copy()
        one.update(text.encode())
        return one.digest()

    joined = b"".join(map(code, texts))
    return np.frombuffer(joined, ">u8").reshape(-1, 2).astype(np.uint64)


def in_order(codes: Codes) -> npt.NDArray[np.int64]:
    """Return the places of codes in their order."""
    return np.lexsort((codes[:, 1], codes[:, 0])).astype(np.int64)


def inverse(order: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Return, for each of `count` items, its place in an order of some of them; -1 for an item that is not in it."""
    place = np.full(count, -1, np.int64)
    place[order] = np.arange(len(order))
    return place


def merged(parts: Iterable[Codes]) -> tuple[Codes, list[npt.NDArray[np.int64]]]:
    """Return the different codes of several lists in order, and for each list the places of its codes there."""
    parts = list(parts)
    together = np.concatenate(parts) if parts else np.empty((0, 2), np.uint64)
    if not len(together):
        return together, [np.empty(0, np.int64) for _ in parts]
    order = in_order(together)
    ordered = together[order]
    is_new = np.ones(len(ordered), np.bool_)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(1)
    place = np.empty(len(ordered), np.int64)
    place[order] = np.cumsum(is_new) - 1
    ends = np.cumsum([len(part) for part in parts])
    return ordered[is_new], np.split(place, ends[:-1])


def places_in(codes: Codes, among: Codes) -> npt.NDArray[np.int64]:
    """Return the place of each code among others, which are different and in order; -1 where it is not there."""
    merged_codes, (ours, theirs) = merged([codes, among])
    return inverse(theirs, len(merged_codes))[ours]
