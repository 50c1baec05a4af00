"""How a masked input is cut into pieces, each with its own signed digest, and into frames, which travel one by one.

A piece is a blinded chunk; in the backend `shares` it is a whole column, sealed to its silo. In `masking` pieces are
made when they are asked for (`BlindedWords`), so that a silo holds its vector once.
Promise: sizes are computed from the scheme of the round, never read from received bytes. docs/protocol.md section 2.7.
"""

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from crypto.backends.masking import MaskingScheme
from crypto.backends.masks import blind
from crypto.backends.registry import BACKENDS
from crypto.backends.scheme import CHUNK_VALUES, Scheme, Shape, Units, key_id
from crypto.backends.shares import open_column, seal_column, sealed_bytes
from crypto.errors import CryptoError, ProtocolError, RangeError, WireError
from crypto.ring import Words
from crypto.rounds.manifest import Manifest
from crypto.sealing import OVERHEAD_BYTES, SealingKey

CONTRIBUTION_FRAME_BYTES = 4 << 20  # of a frame, unless a single piece is larger
_AT_A_TIME = 4  # pieces that are masked together


def piece_sizes(scheme: Scheme) -> tuple[int, ...]:
    """Return the size of every piece of a masked input, in bytes."""
    if scheme.columns > 1:
        return tuple(sealed_bytes(scheme, column) for column in range(scheme.columns))
    return tuple(scheme.chunk_bytes(0, index) for index in range(scheme.shape.chunks))


def sum_sizes(scheme: Scheme, openings: int, recipients: int) -> tuple[int, ...]:
    """Return the size of every piece of the sum in a report, in bytes.

    The pieces are the chunks of the sum; in `shares`, the sum of each silo that opened, sealed to each recipient.
    """
    sizes = tuple(scheme.sum_bytes(index) for index in range(scheme.shape.chunks))
    return (OVERHEAD_BYTES + sum(sizes),) * (openings * recipients) if scheme.columns > 1 else sizes


def frames(sizes: Sequence[int]) -> list[range]:
    """Return the numbers of the pieces in every frame: as many as fit, at least one."""
    found, start, length = list[range](), 0, 0
    for number, size in enumerate(sizes):
        if number > start and length + size > CONTRIBUTION_FRAME_BYTES:
            found.append(range(start, number))
            start, length = number, 0
        length += size
    return [*found, range(start, len(sizes))]


def frame_at(sizes: Sequence[int], index: int) -> range:
    """Return the numbers of the pieces in a frame; raises ProtocolError if there is none of that number."""
    found = frames(sizes)
    if not 0 <= index < len(found):
        raise ProtocolError(f"the contribution has no frame {index}")
    return found[index]


def _only(number: int, count: int) -> range:
    if not 0 <= number < count:
        raise ProtocolError(f"the contribution has no piece {number}")
    return range(number, number + 1)


class MaskedInput(Protocol):
    """The masked input of one silo in one round: its pieces, with the same bytes whenever they are asked for."""

    def piece(self, number: int) -> bytes:
        """Return a piece; raises ProtocolError if there is none of that number."""

    def frame(self, index: int) -> bytes:
        """Return a frame; raises ProtocolError if there is none of that number."""

    def digests(self) -> tuple[bytes, ...]:
        """Return the BLAKE3 digest of every piece."""


class BlindedPieces:
    """A masked input whose pieces were all made at once."""

    __slots__ = ("_digests", "_pieces")

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces, self._digests = tuple(pieces), digests(pieces)

    def piece(self, number: int) -> bytes:
        return b"".join(self._pieces[one] for one in _only(number, len(self._pieces)))

    def frame(self, index: int) -> bytes:
        return b"".join(self._pieces[number] for number in frame_at([len(one) for one in self._pieces], index))

    def digests(self) -> tuple[bytes, ...]:
        return self._digests


class BlindedWords:
    """A masked input in the backend `masking`: ring elements with their noise, masked part by part when asked for.

    In memory are the elements, the seeds, and what one call returns. Digests are kept as the pieces are first made.
    """

    __slots__ = ("_added", "_digests", "_scheme", "_sizes", "_subtracted", "_words")

    def __init__(
        self, scheme: MaskingScheme, words: Words, added_seeds: Sequence[bytes], subtracted_seeds: Sequence[bytes]
    ) -> None:
        """`words` belong to this object from now on, and nobody changes them. Raises RangeError on another length."""
        if words.dtype != scheme.ring.dtype or words.shape != (scheme.shape.length,):
            raise RangeError(
                f"{words.shape} words of {words.dtype}, expected {scheme.shape.length} of {scheme.ring.dtype}"
            )
        self._scheme, self._words, self._sizes = scheme, words, piece_sizes(scheme)
        self._added, self._subtracted = tuple(added_seeds), tuple(subtracted_seeds)
        self._digests = dict[int, bytes]()

    def __reduce__(self) -> NoReturn:
        raise CryptoError("the seeds of a round cannot be pickled or copied")

    def piece(self, number: int) -> bytes:
        return self._made(_only(number, len(self._sizes)))

    def frame(self, index: int) -> bytes:
        return self._made(frame_at(self._sizes, index))

    def digests(self) -> tuple[bytes, ...]:
        for number in range(len(self._sizes)):
            if number not in self._digests:
                self._made(range(number, number + 1))
        return tuple(self._digests[number] for number in range(len(self._sizes)))

    def _made(self, numbers: range) -> bytes:
        """Return consecutive pieces; few are made at a time, so that what is returned is in memory once."""
        made = BytesIO()
        for first in range(numbers.start, numbers.stop, _AT_A_TIME):
            made.write(self._packed(range(first, min(first + _AT_A_TIME, numbers.stop))))
        return made.getvalue()

    def _packed(self, numbers: range) -> bytes:
        """Return consecutive pieces: chunks may be packed together, as each but the last is a whole number of bytes."""
        first, ring = numbers.start * CHUNK_VALUES, self._scheme.ring
        words = self._words[first : numbers.stop * CHUNK_VALUES]
        data = ring.pack(blind(words, lambda block: block, ring, self._added, self._subtracted, first))
        for number, piece in zip(numbers, slices(data, [self._sizes[one] for one in numbers]), strict=True):
            if number not in self._digests:
                self._digests[number] = blake3(piece).digest()
        return data


class UnitVector:
    """The vector of a contribution before it is blinded, in the words that its backend takes, to which parts are added.

    It begins as zeros. In `masking` the words are elements of the round's ring, else whole numbers of 64 bits.
    """

    __slots__ = ("_ring", "words")

    def __init__(self, scheme: Scheme) -> None:
        self._ring = scheme.ring if isinstance(scheme, MaskingScheme) else None
        self.words: Words = np.zeros(scheme.shape.length, np.int64 if self._ring is None else self._ring.dtype)

    def add(self, start: int, units: npt.NDArray[Any]) -> None:
        """Add whole numbers, of int32 or int64, from a place on."""
        part = self.words[start : start + units.size]
        if self._ring is None:
            np.add(part, units, out=part)
        else:
            dtype = self._ring.dtype
            np.add(part, units.view(dtype) if units.itemsize == dtype.itemsize else units.astype(dtype), out=part)
            self._ring.reduce(part)


def masked_input(
    scheme: Scheme,
    vector: UnitVector,
    added_seeds: Sequence[bytes],
    subtracted_seeds: Sequence[bytes],
    seals: Sequence[tuple[bytes, bytes]],
) -> MaskedInput:
    """Return the masked input of a vector, which belongs to it from now on.

    `seals` are the key and context to seal each silo's column, in `shares`. Raises RangeError on another length, and in
    the backends that blind at once on a value beyond the limit.
    """
    if isinstance(scheme, MaskingScheme):
        return BlindedWords(scheme, vector.words, added_seeds, subtracted_seeds)
    return BlindedPieces(blinded_pieces(scheme, vector.words, added_seeds, subtracted_seeds, seals))


def blinded_pieces(
    scheme: Scheme,
    units: Units,
    added_seeds: Sequence[bytes],
    subtracted_seeds: Sequence[bytes],
    seals: Sequence[tuple[bytes, bytes]],
) -> list[bytes]:
    """Return the pieces of a masked input; `seals` are the key and context to seal each silo's column, in `shares`."""
    chunks = list(scheme.blind(units, added_seeds, subtracted_seeds))
    if scheme.columns == 1:
        return [chunk for (chunk,) in chunks]
    columns = zip(*chunks, strict=True)
    return [seal_column(key, column, info) for (key, info), column in zip(seals, columns, strict=True)]


def slices(data: bytes | memoryview, sizes: Sequence[int]) -> Iterator[memoryview]:
    """Cut `data` into parts of these sizes; raises WireError unless they add up to its length."""
    view = memoryview(data)
    if len(view) != sum(sizes):
        raise WireError(f"{len(view)} bytes, expected {sum(sizes)}")
    start = 0
    for size in sizes:
        yield view[start : start + size]
        start += size


def digests(pieces: Sequence[bytes | memoryview]) -> tuple[bytes, ...]:
    """Return the BLAKE3 digest of every piece."""
    return tuple(blake3(piece).digest() for piece in pieces)


def sum_digest(chunks: Sequence[bytes]) -> bytes:
    """Return what the survivor set of a long round names of a sum whose chunks have these digests."""
    return blake3(b"".join(chunks)).digest()


def added_column(scheme: Scheme, column: int, key: SealingKey, sealed: Mapping[str, tuple[bytes, bytes]]) -> bytes:
    """Open the columns that all survivors sealed to a silo, by survivor with the context, and return their sum.

    Raises ProtocolError, which names who sealed one that does not open.
    """
    total = scheme.accumulator(column)
    for silo, (data, info) in sealed.items():
        try:
            for index, chunk in enumerate(open_column(key, scheme, column, data, info)):
                total.add(index, chunk)
        except CryptoError as err:
            raise ProtocolError(f"the column that {silo!r} sealed to this silo is wrong: {err.message}") from err
    return b"".join(total.chunks())


def scheme_of(manifest: Manifest, public: bytes) -> Scheme:
    """Return the backend of a manifest, fixed to its round; `public` is the round key in its request, or empty.

    Raises ProtocolError if the manifest names another key, RangeError if the backend cannot carry the round.
    """
    terms = manifest.terms
    if public and key_id(terms.backend, public) != terms.key_id:
        raise ProtocolError("the round's key is not the one that the manifest names")
    shape = Shape(manifest.length, len(manifest.silos), manifest.quorum, terms.limit)
    return BACKENDS[terms.backend].bind(shape, public)
