"""The interface of all backends: a group for the masks, sizes known in advance, and three steps.

A silo *blinds* its vector of signed ring units, the aggregator *adds* the blinded vectors chunk by chunk, and a
recipient *opens* the sum. In the backend `shares` a masked input has one column for each silo, sealed to that silo,
and the silos add. In the others it has one column, and the aggregator adds it.

Promise: all parsed bytes have the size that this party computes from the shape of the round. A vector beyond its
declared limit is refused before it is blinded, so no sum wraps. docs/backends.md; docs/protocol.md sections 2.7, 2.8.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import numpy as np
import numpy.typing as npt

from crypto.errors import ProtocolError, RangeError, WireError
from crypto.keys import Secret
from crypto.wire import MAX_SILOS

CHUNK_VALUES = 65_536
MAX_VALUES = 2**30
MAX_CHUNKS = MAX_VALUES // CHUNK_VALUES


Units = npt.NDArray[np.int64]  # signed ring units, one value each
Bytes = bytes | memoryview  # of a report, of which a long sum is read without a copy
KEY_ID_BYTES = 32


@dataclass(frozen=True, slots=True)
class Shape:
    """What all parties of a round know of its vectors before one exists."""

    length: int  # values of a vector
    silos: int  # contributions in a sum, at most
    quorum: int  # silos that are enough to open the sum
    limit: int  # largest magnitude of a value in one contribution, noise included

    def __post_init__(self) -> None:
        if not 1 <= self.length <= MAX_VALUES:
            raise RangeError(f"a vector of {self.length} values, expected 1 to {MAX_VALUES}")
        if not 1 <= self.quorum <= self.silos <= MAX_SILOS:
            raise RangeError(f"a quorum of {self.quorum} among {self.silos} silos")
        if self.limit < 1 or self.span >= 2**63:
            raise RangeError(f"{self.silos} values of up to {self.limit} do not fit signed words of 64 bits")

    @property
    def span(self) -> int:
        """Largest magnitude of a value in a sum."""
        return self.silos * self.limit

    @property
    def chunks(self) -> int:
        return -(-self.length // CHUNK_VALUES)

    @property
    def is_long(self) -> bool:
        """Whether a vector has more than one chunk; `masking` alone looks at it."""
        return self.length > CHUNK_VALUES

    def values(self, index: int) -> int:
        """Return the number of values in chunk `index`; raises ProtocolError if there is no such chunk."""
        if not 0 <= index < self.chunks:
            raise ProtocolError(f"chunk {index} of {self.chunks}")
        return min(CHUNK_VALUES, self.length - index * CHUNK_VALUES)

    def cut(self, units: Units) -> Iterator[Units]:
        """Yield the chunks of a vector; raises RangeError, before the first chunk, if the vector has another shape."""
        if units.dtype != np.int64 or units.shape != (self.length,):
            raise RangeError(f"a vector {units.shape} of {units.dtype}, expected {self.length} values of int64")
        if int(units.max()) > self.limit or int(units.min()) < -self.limit:
            raise RangeError(f"a value beyond ±{self.limit}, the limit of this round")
        return (units[start : start + CHUNK_VALUES] for start in range(0, self.length, CHUNK_VALUES))

    def check_sum(self, units: Units) -> Units:
        """Return `units`; raises RangeError if the sum is beyond what silos within the limit can produce."""
        if units.size and (int(units.max()) > self.span or int(units.min()) < -self.span):
            raise RangeError(
                f"a sum beyond ±{self.span}: it was altered, or a silo did not keep to the round's limit",
                "ask again; if it happens again, ask the operator whose contribution it was",
            )
        return units


@dataclass(frozen=True, slots=True)
class RoundKey:
    """A homomorphic key pair of one round. The secret is 32 bytes from which the private key is derived."""

    public: bytes
    secret: Secret


@dataclass(frozen=True, slots=True)
class Opened:
    """A sum in ring units, and the columns that contradicted the others and were left out."""

    units: Units
    inconsistent_silos: tuple[int, ...] = ()


class Accumulator(Protocol):
    """One running sum of blinded vectors; memory does not grow with the number of contributions."""

    def check(self, index: int, chunk: bytes) -> None:
        """Make the checks of `add` on a chunk, without adding it."""

    def chunk(self, index: int) -> bytes:
        """Return chunk `index` of the sum; raises KeyError if nothing was added to it."""

    def add(self, index: int, chunk: bytes) -> None:
        """Add chunk `index` of one contribution.

        Raises WireError on a wrong size, RangeError on a value outside the group, ProtocolError on another key or on
        more contributions than the round has silos. After an error the sum is as before.
        """

    def chunks(self) -> list[bytes]:
        """Return the sum; raises ProtocolError unless every chunk holds the same number of contributions."""


class Scheme(Protocol):
    """A backend, fixed to the shape and the public key of one round."""

    @property
    def shape(self) -> Shape: ...

    @property
    def modulus(self) -> int:
        """The order of the group that the masks are drawn from."""

    @property
    def columns(self) -> int:
        """1 if the aggregator adds; the number of silos if each silo adds the column that is sealed to it."""

    @property
    def is_masked(self) -> bool:
        """Whether `blind` and `open` use the seeds of pair and self masks."""

    def chunk_bytes(self, column: int, index: int) -> int:
        """Return the exact size of a blinded chunk."""

    def sum_bytes(self, index: int) -> int:
        """Return the exact size of a chunk of a sum."""

    def blind(
        self, units: Units, added_seeds: Sequence[bytes], subtracted_seeds: Sequence[bytes]
    ) -> Iterator[tuple[bytes, ...]]:
        """Yield a vector's blinded chunks in order, one piece for each column; memory is bounded by a few chunks.

        Raises RangeError before anything is yielded if the vector is not of this shape.
        """

    def accumulator(self, column: int) -> Accumulator:
        """Return an empty sum."""

    def open(
        self,
        sums: Mapping[int, Sequence[Bytes]],
        added_seeds: Sequence[bytes],
        subtracted_seeds: Sequence[bytes],
        secret: Secret | None = None,
    ) -> Opened:
        """Remove the remaining masks from a sum: add those of `added_seeds`, subtract those of `subtracted_seeds`.

        `sums` are a sum's chunks by column, `secret` the private half of the round key if the backend has one. Raises
        CryptoError if a size, a key or the result is not valid.
        """


class Backend(Protocol):
    """One way in which blinded vectors travel and are added."""

    @property
    def name(self) -> str: ...

    @property
    def has_key(self) -> bool:
        """Whether the requester makes a key pair for each round."""

    def capacity(self, silos: int) -> int:
        """Return the largest limit that a round of this number of silos can have."""

    def create_key(self) -> RoundKey:
        """Return a fresh key pair; raises ProtocolError if this backend has none."""

    def bind(self, shape: Shape, public: bytes = b"") -> Scheme:
        """Fix the backend to a round.

        Raises RangeError if the shape does not fit and CryptoError if `public` is not a key of this backend.
        """


def key_id(backend: str, public: bytes) -> bytes:
    """Return the id of a round's public key: the first 32 bytes of every chunk that is encrypted under it."""
    return sha256(f"consilo/1 round key {backend}\n".encode() + public).digest()


def check_capacity(backend: Backend, shape: Shape) -> None:
    """Raise RangeError if sums of this shape could leave the backend's range."""
    most = backend.capacity(shape.silos)
    if shape.limit > most:
        raise RangeError(
            f"{backend.name} carries values up to {most} of {shape.silos} silos, the round allows {shape.limit}",
            "take a coarser step or fewer fractional bits, or the backend 'masking'",
        )


def no_key(name: str) -> RoundKey:
    """Raise ProtocolError: this backend has no round key."""
    raise ProtocolError(f"the backend {name!r} has no round key")


def check_no_key(name: str, public: bytes) -> None:
    """Raise ProtocolError if a key was given for a backend without one."""
    if public:
        raise ProtocolError(f"a key for the backend {name!r}, which has none")


def only_column(scheme: Scheme, sums: Mapping[int, Sequence[Bytes]]) -> Sequence[Bytes]:
    """Return the chunks of the only column of a sum; raises WireError if columns, chunks or sizes differ from that."""
    if set(sums) != {0}:
        raise WireError(f"a sum of columns {sorted(sums)[:10]}, expected column 0 only")
    check_sizes(scheme, sums[0])
    return sums[0]


def check_sizes(scheme: Scheme, chunks: Sequence[Bytes]) -> None:
    """Raise WireError unless a sum has the number of chunks of the scheme, each with the right size."""
    if len(chunks) != scheme.shape.chunks:
        raise WireError(f"a sum of {len(chunks)} chunks, expected {scheme.shape.chunks}")
    for index, chunk in enumerate(chunks):
        check_size(chunk, scheme.sum_bytes(index), index)


def check_size(chunk: Bytes, size: int, index: int) -> None:
    """Raise WireError unless a chunk has this size."""
    if len(chunk) != size:
        raise WireError(f"chunk {index} has {len(chunk)} bytes, expected {size}")
