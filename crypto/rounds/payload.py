"""How a masked input is cut into pieces, each with its own signed digest, and into frames, which travel one by one.

A piece is a blinded chunk; in the backend `shares` it is a whole column, sealed to its silo.
Promise: sizes are computed from the scheme of the round, never read from received bytes. docs/protocol.md section 2.7.
"""

from collections.abc import Iterator, Mapping, Sequence

from blake3 import blake3

from crypto.backends.registry import BACKENDS
from crypto.backends.scheme import Scheme, Shape, Units, key_id
from crypto.backends.shares import open_column, seal_column, sealed_bytes
from crypto.errors import CryptoError, ProtocolError, WireError
from crypto.rounds.manifest import Manifest
from crypto.sealing import OVERHEAD_BYTES, SealingKey

CONTRIBUTION_FRAME_BYTES = 4 << 20  # of a frame, unless a single piece is larger


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
