"""The backends by name, and the default one: vectors over Z_2^64 that the aggregator adds in clear to it.

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
from crypto.manifest import CHUNK_VALUES
from crypto.masking import apply_masks
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
    no_key,
    only_column,
)
from crypto.shares import SharesBackend

NAME = "masking"
RING = Ring(64)


class RingSum:
    """An accumulator of words of the ring: they wrap as they should."""

    __slots__ = ("_added", "_shape", "_sums")

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._sums = [RING.zeros(shape.values(index)) for index in range(shape.chunks)]
        self._added = [0] * shape.chunks

    def add(self, index: int, chunk: bytes) -> None:
        check_size(chunk, RING.word_bytes * self._shape.values(index), index)
        if self._added[index] == self._shape.silos:
            raise ProtocolError(f"more than {self._shape.silos} contributions to chunk {index}")
        np.add(self._sums[index], np.frombuffer(chunk, RING.dtype), out=self._sums[index])
        self._added[index] += 1

    def chunks(self) -> list[bytes]:
        if len(set(self._added)) != 1 or not self._added[0]:
            raise ProtocolError("the sum holds no contribution, or holds one in part")
        return [RING.to_bytes(words) for words in self._sums]


@dataclass(frozen=True, slots=True)
class MaskingScheme:
    """`masking` in one round."""

    shape: Shape
    modulus: int = 2**RING.bits
    columns: int = 1
    is_masked: bool = True

    def chunk_bytes(self, column: int, index: int) -> int:
        return self.sum_bytes(index)

    def sum_bytes(self, index: int) -> int:
        return RING.word_bytes * self.shape.values(index)

    def blind(self, units: Units, plus: Sequence[bytes], minus: Sequence[bytes]) -> Iterator[tuple[bytes, ...]]:
        chunks, codec = self.shape.cut(units), Codec(RING, 0, self.shape.silos)
        return (
            (RING.to_bytes(_masked(codec.to_ring(chunk), index, plus, minus)),) for index, chunk in enumerate(chunks)
        )

    def accumulator(self, column: int) -> Accumulator:
        return RingSum(self.shape)

    def open(
        self,
        sums: Mapping[int, Sequence[bytes]],
        plus: Sequence[bytes],
        minus: Sequence[bytes],
        secret: Secret | None = None,
    ) -> Opened:
        parts = [
            RING.signed(_masked(RING.from_bytes(chunk), index, plus, minus))
            for index, chunk in enumerate(only_column(self, sums))
        ]
        return Opened(self.shape.check_sum(np.concatenate(parts)))


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


def _masked(words: Words, index: int, plus: Sequence[bytes], minus: Sequence[bytes]) -> Words:
    apply_masks(words, RING, plus, minus, skip=index * CHUNK_VALUES)
    return words


_ALL: tuple[Backend, ...] = (MaskingBackend(), SharesBackend(), BfvBackend(), CkksBackend(), PaillierBackend())
BACKENDS: Mapping[str, Backend] = MappingProxyType({one.name: one for one in _ALL})
