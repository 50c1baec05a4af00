"""Bind many values by one hash, and show some of them: the Merkle tree of RFC 6962, section 2.1.

A leaf and a node are hashed behind different first bytes, so that no node passes for a leaf. The proof of some leaves
is the hashes of the subtrees that hold none of them, from left to right. Promise: for one root and one number of
leaves, which whoever checks a proof must know, whoever cannot find two inputs of one SHA-256 can show one leaf only at
each place.
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256

from crypto.errors import ProtocolError

HASH_BYTES = 32


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over those of its two children."""
    return sha256(b"\1" + left + right).digest()


class MerkleTree:
    """A tree over the hashes of at least one leaf."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        if not leaves:
            raise ProtocolError("a tree without a leaf")
        self._hashes: dict[tuple[int, int], bytes] = {}  # of the subtree over leaves [start, end)
        self._size = len(leaves)
        self._fill(leaves, 0, len(leaves))

    @property
    def root(self) -> bytes:
        return self._hashes[0, self._size]

    def proof(self, places: Collection[int]) -> tuple[bytes, ...]:
        """Return what `shown_root` needs beside the leaves at these places."""
        found: list[bytes] = []
        self._collect(sorted(places), 0, self._size, found)
        return tuple(found)

    def _fill(self, leaves: Sequence[bytes], start: int, end: int) -> bytes:
        if end - start == 1:
            found = leaves[start]
        else:
            middle = _middle(start, end)
            found = node_hash(self._fill(leaves, start, middle), self._fill(leaves, middle, end))
        self._hashes[start, end] = found
        return found

    def _collect(self, places: Sequence[int], start: int, end: int, found: list[bytes]) -> None:
        if not _has_any(places, start, end):
            found.append(self._hashes[start, end])
        elif end - start > 1:
            middle = _middle(start, end)
            self._collect(places, start, middle, found)
            self._collect(places, middle, end, found)


def shown_root(size: int, shown: Mapping[int, bytes], proof: Sequence[bytes]) -> bytes:
    """Return the root of a tree with `size` leaves, from the hashes of the leaves at some places and their proof.

    Raises ProtocolError unless there is a leaf, every place is in the tree and the proof has just the hashes it needs.
    """
    places, nodes = sorted(shown), iter(proof)
    if not places or not 0 <= places[0] <= places[-1] < size:
        raise ProtocolError(f"leaves at {len(places)} places of a tree of {size}")

    def root(start: int, end: int) -> bytes:
        if not _has_any(places, start, end):
            node = next(nodes, b"")
            if len(node) != HASH_BYTES:
                raise ProtocolError("a proof that lacks a hash")
            return node
        if end - start == 1:
            return shown[start]
        middle = _middle(start, end)
        return node_hash(root(start, middle), root(middle, end))

    found = root(0, size)
    if next(nodes, None) is not None:
        raise ProtocolError("a proof with more hashes than it needs")
    return found


def _middle(start: int, end: int) -> int:
    """Return where RFC 6962 parts leaves [start, end): after the greatest power of two below their number."""
    return start + (1 << (end - start - 1).bit_length() - 1)


def _has_any(places: Sequence[int], start: int, end: int) -> bool:
    at = bisect_left(places, start)
    return at < len(places) and places[at] < end
