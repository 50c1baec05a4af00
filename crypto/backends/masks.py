"""Blind a vector with masks that cancel over the roster, and remove the masks that are left in the sum.

Bonawitz et al., "Practical Secure Aggregation", CCS 2017, section 4: a pair mask for every two silos, added by the
first in roster order and subtracted by the second, and a self mask for each silo alone. A mask is the AES-256-CTR
keystream of a 32-byte seed. A seed is used for one round and one vector only, so the counter starts at zero.
docs/protocol.md section 2.7; the seeds come from `crypto.rounds.key_schedule`.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from crypto.errors import RangeError
from crypto.ring import Ring, Words

_BLOCK_BYTES = 1 << 17
_ZEROS = memoryview(bytes(_BLOCK_BYTES))
_RANGE_BYTES = 1 << 22  # a smaller range is not worth a thread
_AES_BYTES = 16
_Fill = Callable[[Words, int], None]  # writes the values of the block at an offset, before it is masked


def blind(
    values: npt.NDArray[Any],
    encode: Callable[[npt.NDArray[Any]], Words],
    ring: Ring,
    added_seeds: Sequence[bytes],
    subtracted_seeds: Sequence[bytes],
    first: int = 0,
) -> Words:
    """Encode `values` as ring elements with `encode`, and mask them as `apply_masks` does; `first` is that of there.

    `encode` is called on blocks of `values`, perhaps in several threads; its exceptions are raised here.
    """
    _check_first(first)
    words = np.empty(values.size, ring.dtype)

    def fill(block: Words, start: int) -> None:
        block[:] = encode(values[start : start + block.size])

    _over_ranges(words, ring, added_seeds, subtracted_seeds, fill, first)
    return words


def apply_masks(
    words: Words, ring: Ring, added_seeds: Sequence[bytes], subtracted_seeds: Sequence[bytes], first: int = 0
) -> None:
    """Add the masks of the seeds in `added_seeds` to `words` and subtract those in `subtracted_seeds`, in place.

    `first` is the place of the first word in its vector; raises RangeError unless it is a multiple of 16.
    """
    _check_first(first)
    _over_ranges(words, ring, added_seeds, subtracted_seeds, lambda block, start: None, first)


def _check_first(first: int) -> None:
    if first % _AES_BYTES:
        raise RangeError(f"masks from value {first} on, expected a multiple of {_AES_BYTES}")


def _over_ranges(
    words: Words,
    ring: Ring,
    added_seeds: Sequence[bytes],
    subtracted_seeds: Sequence[bytes],
    fill: _Fill,
    first: int,
) -> None:
    """Fill and mask all of `words`; a long vector is split over the processors, as a keystream can start anywhere."""
    step = _BLOCK_BYTES // ring.word_bytes
    workers = max(1, min(len(os.sched_getaffinity(0)), words.nbytes // _RANGE_BYTES))
    length = -(-words.size // (workers * step)) * step or step
    ranges = [(start, min(start + length, words.size)) for start in range(0, words.size, length)]
    if len(ranges) == 1:
        _over_blocks(words, ring, added_seeds, subtracted_seeds, fill, first, *ranges[0])
    elif ranges:
        with ThreadPoolExecutor(len(ranges)) as pool:
            for done in [
                pool.submit(_over_blocks, words, ring, added_seeds, subtracted_seeds, fill, first, *one)
                for one in ranges
            ]:
                done.result()


def _over_blocks(
    words: Words,
    ring: Ring,
    added_seeds: Sequence[bytes],
    subtracted_seeds: Sequence[bytes],
    fill: _Fill,
    first: int,
    start: int,
    end: int,
) -> None:
    """Fill and mask words[start:end], block by block, so that a block stays in the second-level cache."""
    counter = ((first + start) * ring.word_bytes // _AES_BYTES).to_bytes(_AES_BYTES, "big")
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
