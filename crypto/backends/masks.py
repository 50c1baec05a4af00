"""Blind a vector with masks that cancel over the roster, and take the remaining ones off the sum.

Bonawitz et al., "Practical Secure Aggregation", CCS 2017: a pair mask for every two silos, added by the first in
roster order and subtracted by the second, and a self mask of each silo's own. A mask is the AES-256-CTR keystream
of a 32-byte seed that is used for one round and one vector only, hence the zero counter.

All that a round derives from a silo's two secrets is derived here: `r`, the root of its mask key and pair seeds, and
`b`, of its self mask. docs/protocol.md section 2.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from crypto.ring import Ring, Words

_BLOCK_BYTES = 1 << 17
_ZEROS = memoryview(bytes(_BLOCK_BYTES))
_RANGE_BYTES = 1 << 22  # less is not worth a thread
_AES_BYTES = 16
_Fill = Callable[[Words, int], None]  # writes the values of a block, which begins at a place, before it is masked


def blind(
    values: npt.NDArray[Any],
    encode: Callable[[npt.NDArray[Any]], Words],
    ring: Ring,
    added_seeds: Sequence[bytes],
    subtracted_seeds: Sequence[bytes],
) -> Words:
    """Return the ring elements that `encode` makes of `values`, with the masks that `apply_masks` would give them.

    `encode` is called on blocks of `values`, perhaps in several threads; what it raises is raised here.
    """
    words = np.empty(values.size, ring.dtype)

    def fill(block: Words, start: int) -> None:
        block[:] = encode(values[start : start + block.size])

    _over_ranges(words, ring, added_seeds, subtracted_seeds, fill)
    return words


def apply_masks(words: Words, ring: Ring, added_seeds: Sequence[bytes], subtracted_seeds: Sequence[bytes]) -> None:
    """Add the masks of the seeds in `added_seeds` to `words` and subtract those in `subtracted_seeds`, in place."""
    _over_ranges(words, ring, added_seeds, subtracted_seeds, lambda block, start: None)


def _over_ranges(
    words: Words, ring: Ring, added_seeds: Sequence[bytes], subtracted_seeds: Sequence[bytes], fill: _Fill
) -> None:
    """Fill and mask all of `words`: long vectors in one range for each processor, as a keystream can begin anywhere."""
    step = _BLOCK_BYTES // ring.word_bytes
    workers = max(1, min(len(os.sched_getaffinity(0)), words.nbytes // _RANGE_BYTES))
    length = -(-words.size // (workers * step)) * step or step
    ranges = [(start, min(start + length, words.size)) for start in range(0, words.size, length)]
    if len(ranges) == 1:
        _over_blocks(words, ring, added_seeds, subtracted_seeds, fill, *ranges[0])
    elif ranges:
        with ThreadPoolExecutor(len(ranges)) as pool:
            for done in [
                pool.submit(_over_blocks, words, ring, added_seeds, subtracted_seeds, fill, *one) for one in ranges
            ]:
                done.result()


def _over_blocks(
    words: Words,
    ring: Ring,
    added_seeds: Sequence[bytes],
    subtracted_seeds: Sequence[bytes],
    fill: _Fill,
    start: int,
    end: int,
) -> None:
    """Fill and mask words[start:end]: every keystream passes over a block while it stays in the second-level cache."""
    counter = (start * ring.word_bytes // _AES_BYTES).to_bytes(_AES_BYTES, "big")
    streams = [
        (Cipher(algorithms.AES256(seed), modes.CTR(counter)).encryptor(), operation)
        for operation, seeds in ((np.add, added_seeds), (np.subtract, subtracted_seeds))
        for seed in seeds
    ]
    keystream = memoryview(bytearray(_BLOCK_BYTES))
    step = _BLOCK_BYTES // ring.word_bytes
    for at in range(start, end, step):
        block = words[at : min(at + step, end)]
        fill(block, at)
        view = keystream[: block.nbytes]
        mask = np.frombuffer(view, ring.dtype)
        for stream, operation in streams:
            stream.update_into(_ZEROS[: block.nbytes], view)
            operation(block, mask, out=block)
        ring.reduce(block)
