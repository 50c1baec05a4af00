"""The backends by name, and the default one: vectors of words of 32 or 64 bits that the aggregator adds in clear to it.

`masking` wraps `crypto.ring` and `crypto.masking` in the shape that all backends have (`crypto.scheme`). What the
others cost and promise: docs/backends.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from crypto.bfv import BfvBackend
from crypto.ckks import CkksBackend
from crypto.errors import ProtocolError
from crypto.keys import Secret
from crypto.manifest import CHUNK_VALUES, Manifest
from crypto.masking import apply_masks, blind
from crypto.paillier import PaillierBackend
from crypto.ring import Codec, Ring, Words
from crypto.scheme import (
    Accumulator,
    Backend,
    Opened,
    RoundKey,
    Scheme,
    Shape,
    Units,
    check_capacity,
    check_no_key,
    check_size,
    key_id,
    no_key,
    only_column,
)
from crypto.shares import SharesBackend

NAME = "masking"


class RingSum:
    """An accumulator of words of the ring: they wrap as they should."""

    __slots__ = ("_added", "_ring", "_shape", "_sums")

    def __init__(self, shape: Shape, ring: Ring) -> None:
        self._shape, self._ring = shape, ring
        self._sums: dict[int, Words] = {}
        self._added = [0] * shape.chunks

    def check(self, index: int, chunk: bytes) -> None:
        check_size(chunk, self._ring.word_bytes * self._shape.values(index), index)

    def add(self, index: int, chunk: bytes) -> None:
        self.check(index, chunk)
        if self._added[index] == self._shape.silos:
            raise ProtocolError(f"more than {self._shape.silos} contributions to chunk {index}")
        words = np.frombuffer(chunk, self._ring.dtype)
        if index in self._sums:
            np.add(self._sums[index], words, out=self._sums[index])
        else:
            self._sums[index] = words.copy()
        self._added[index] += 1

    def chunk(self, index: int) -> bytes:
        return self._ring.to_bytes(self._sums[index])

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
        """Words of 4 bytes where the range allows, else of 8."""
        return Ring(32 if self.shape.span < 2**31 else 64)

    @property
    def modulus(self) -> int:
        return 1 << self.ring.bits

    def chunk_bytes(self, column: int, index: int) -> int:
        return self.sum_bytes(index)

    def sum_bytes(self, index: int) -> int:
        return self.ring.word_bytes * self.shape.values(index)

    def blind(self, units: Units, plus: Sequence[bytes], minus: Sequence[bytes]) -> Iterator[tuple[bytes, ...]]:
        self.shape.cut(units)  # checks before anything is blinded
        words = blind(units, Codec(self.ring, 0, self.shape.silos).to_ring, self.ring, plus, minus)
        return ((self.ring.to_bytes(chunk),) for chunk in _cut(words))

    def accumulator(self, column: int) -> Accumulator:
        return RingSum(self.shape, self.ring)

    def open(
        self,
        sums: Mapping[int, Sequence[bytes]],
        plus: Sequence[bytes],
        minus: Sequence[bytes],
        secret: Secret | None = None,
    ) -> Opened:
        words = np.concatenate([np.frombuffer(chunk, self.ring.dtype) for chunk in only_column(self, sums)])
        apply_masks(words, self.ring, plus, minus)
        return Opened(self.shape.check_sum(self.ring.signed(words).astype(np.int64, copy=False)))


@dataclass(frozen=True, slots=True)
class MaskingBackend:
    """Exact sums of any length and of any values that 64 bits hold."""

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


def backend(name: str) -> Backend:
    """Return the backend of this name; raises ProtocolError if there is none."""
    if name not in BACKENDS:
        raise ProtocolError(f"unknown backend {name!r}, expected one of {', '.join(BACKENDS)}")
    return BACKENDS[name]


def scheme_of(manifest: Manifest, public: bytes) -> Scheme:
    """Return the backend of a manifest, fixed to its round; `public` is the key that its request carries, or nothing.

    Raises ProtocolError on another key than the manifest names, RangeError if the backend cannot carry the round.
    """
    terms = manifest.terms
    if public and key_id(terms.backend, public) != terms.key_id:
        raise ProtocolError("the round's key is not the one that the manifest names")
    shape = Shape(manifest.length, len(manifest.roster), manifest.quorum, terms.limit)
    return BACKENDS[terms.backend].bind(shape, public)


def _cut(words: Words) -> Iterator[Words]:
    return (words[start : start + CHUNK_VALUES] for start in range(0, words.size, CHUNK_VALUES))


_ALL: tuple[Backend, ...] = (MaskingBackend(), SharesBackend(), BfvBackend(), CkksBackend(), PaillierBackend())
BACKENDS: Mapping[str, Backend] = MappingProxyType({one.name: one for one in _ALL})
