"""A silo's vector in ring units, made chunk by chunk: its share of the noise first, then what was computed on rows.

Promise: every figure is clamped to what the request says, and the noise to what is left of the round's limit, so no
value leaves the limit and no error depends on data. Each value is touched while its chunk is in the cache: once for the
noise and once for the figure, without a list, and nothing as long as the vector is made but the vector itself.
docs/protocol.md section 5.2.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from crypto.backends.scheme import CHUNK_VALUES
from crypto.errors import ProtocolError
from crypto.noise import TABLE_SLOTS
from crypto.rounds.manifest import Terms
from crypto.rounds.payload import UnitVector
from silo_node.data.figures import Figures, Vectors

Noise = Callable[[int, int, int], npt.NDArray[np.int64]]  # length, variance of the sum, shares


def add_noise(vector: UnitVector, terms: Terms, clamps: Sequence[int], shares: int, noise: Noise) -> None:
    """Add a silo's share of the noise of every block; `clamps` are those of the figures that follow.

    A long block is drawn in parts, from the same tables: none is so short that another sampler draws it.
    """
    start = 0
    for block, clamp in zip(terms.blocks, clamps, strict=True):
        room = terms.limit - (clamp << block.scale_bits)
        for first, end in parts_of(block.length) if (variance := int(block.variance)) else ():
            drawn = noise(end - first, variance, shares)
            vector.add(start + first, np.clip(drawn, -room, room))
        start += block.length


def add_figures(vector: UnitVector, terms: Terms, clamps: Sequence[int], exact: Vectors) -> None:
    """Add what was computed, clamped and scaled; raises ProtocolError if it has another shape."""
    if [part.shape for part in exact] != [(block.length,) for block in terms.blocks]:
        raise ProtocolError("the computation does not have the length that the manifest states")
    if any(part.dtype not in (np.int32, np.int64) for part in exact):
        raise ProtocolError("the computation is not of whole numbers of 32 or 64 bits")
    start, scratch = 0, {part.dtype: np.empty(CHUNK_VALUES, part.dtype) for part in exact}
    for block, clamp, part in zip(terms.blocks, clamps, exact, strict=True):
        most = min(clamp, np.iinfo(part.dtype).max)
        for first in range(0, block.length, CHUNK_VALUES):
            chunk = part[first : first + CHUNK_VALUES]
            units = np.minimum(chunk, most, out=scratch[part.dtype][: chunk.size])
            np.maximum(units, -most, out=units)
            if block.scale_bits:
                units = units.astype(np.int64) << np.int64(block.scale_bits)
            vector.add(start + first, units)
        start += block.length


def is_beyond(part: Figures, clamp: int) -> bool:
    """Tell whether a figure is beyond what it is clamped to; it takes as long for any figures."""
    chunks = (part[first : first + CHUNK_VALUES] for first in range(0, part.size, CHUNK_VALUES))
    most = [max(int(chunk.max()), -int(chunk.min())) for chunk in chunks]
    return max(most, default=0) > clamp


def parts_of(length: int) -> Iterator[tuple[int, int]]:
    """Yield the ends of the parts of a block whose noise is drawn at a time: a chunk, and what is short behind it."""
    first = 0
    while first < length:
        end = first + CHUNK_VALUES
        end = length if length - end < TABLE_SLOTS else end
        yield first, end
        first = end
