"""What a silo computes for a request: whole numbers by statistic, and how the process that computes passes them on.

They are arrays of 32 or 64 bits from there to the ring: of 32 where the statistic states that they fit
(`Extent.word_bytes`). Nothing as long as a vector is made in between but what is received.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, starmap

import numpy as np
import numpy.typing as npt

from crypto.backends.sandbox import Parts
from crypto.backends.scheme import CHUNK_VALUES

Figures = npt.NDArray[np.int64] | npt.NDArray[np.int32]
Vectors = Sequence[Figures]  # of each statistic, exact, before noise


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """What comes of a request at a silo: the vectors that it contributes, and what it keeps for itself."""

    vectors: Vectors
    own: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    # The digest of the rows that what the silo keeps is of, as they are now; None where it keeps nothing.
    rows: bytes | None = None


def sent_as(vectors: Sequence[Figures], word_bytes: Sequence[int]) -> Parts:
    """Return vectors of whole numbers in words of these sizes: as they are, or narrowed a chunk at a time.

    What does not fit a word of 4 bytes becomes the greatest that does, so that it is seen to be cut.
    """
    pairs = list(zip(vectors, word_bytes, strict=True))
    return Parts(sum(size * vector.size for vector, size in pairs), chain.from_iterable(starmap(_narrowed, pairs)))


def read_as(reply: bytes, lengths: Sequence[int], word_bytes: Sequence[int]) -> Vectors:
    """Return what `sent_as` sent, as views of the reply."""
    found, start = list[Figures](), 0
    for length, size in zip(lengths, word_bytes, strict=True):
        found.append(np.frombuffer(reply, f"<i{size}", length, start))
        start += size * length
    return found


def _narrowed(vector: Figures, size: int) -> Iterator[memoryview]:
    dtype = np.dtype(f"<i{size}")
    most = np.iinfo(dtype).max
    for start in range(0, vector.size, CHUNK_VALUES):
        chunk = vector[start : start + CHUNK_VALUES]
        is_wider = chunk.dtype.itemsize > size
        yield np.ascontiguousarray(np.clip(chunk, -most, most) if is_wider else chunk, dtype).data.cast("B")
