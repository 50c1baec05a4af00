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

from crypto.errors import RangeError
from crypto.keys import Secret, derive
from crypto.ring import Ring, Words
from crypto.sealing import SealingKey

_BLOCK_BYTES = 1 << 17
_ZEROS = memoryview(bytes(_BLOCK_BYTES))
_RANGE_BYTES = 1 << 22  # less is not worth a thread
_AES_BYTES = 16
_Fill = Callable[[Words, int], None]  # writes the values of a block, which begins at a place, before it is masked


def mask_key_of(root: bytes) -> SealingKey:
    """Return the mask key that a silo derives from its root secret `r`."""
    return SealingKey(Secret(derive(root, "mask key")))


def self_commitment(self_secret: bytes) -> bytes:
    """Return the commitment to a self-mask secret `b` that its silo's acceptance carries."""
    return derive(self_secret, "self commitment")


def entry_info(manifest_hash: bytes, purpose: str, sender: str, receiver: str) -> bytes:
    """Return the context that a sealed value of one silo for another is bound to."""
    return derive(manifest_hash, "entry", purpose, sender, receiver)


def opening_info(manifest_hash: bytes, split_hash: bytes, sender: str, recipient: str) -> bytes:
    """Return the context that the opened shares of one silo for one recipient are bound to."""
    return derive(manifest_hash, "opening", split_hash, sender, recipient)


def column_info(manifest_hash: bytes, sender: str, receiver: str) -> bytes:
    """Return the context that one silo's column for another is bound to, in the backend `shares`."""
    return derive(manifest_hash, "entry", "column", sender, receiver)


def sum_info(manifest_hash: bytes, split_hash: bytes, sender: str, recipient: str) -> bytes:
    """Return the context that the sum of one silo's columns is bound to for one recipient, in `shares`."""
    return derive(manifest_hash, "sum", split_hash, sender, recipient)


def self_seed(self_secret: bytes, manifest_hash: bytes) -> bytes:
    """Return the seed of a silo's self mask; `self_secret` is the `b` of docs/protocol.md."""
    return derive(self_secret, "self mask", manifest_hash)


def pair_seed(root: bytes, manifest_hash: bytes, later: str) -> bytes:
    """Return the seed that the holder of `root` shares with `later`, a silo after it in the roster."""
    return derive(root, "pair mask", manifest_hash, later)


def blind(
    values: npt.NDArray[Any],
    encode: Callable[[npt.NDArray[Any]], Words],
    ring: Ring,
    plus: Sequence[bytes],
    minus: Sequence[bytes],
) -> Words:
    """Return the ring elements that `encode` makes of `values`, with the masks that `apply_masks` would give them.

    `encode` is called on blocks of `values`, perhaps in several threads; what it raises is raised here.
    """
    words = np.empty(values.size, ring.dtype)

    def fill(block: Words, start: int) -> None:
        block[:] = encode(values[start : start + block.size])

    _over_ranges(words, ring, plus, minus, fill)
    return words


def apply_masks(words: Words, ring: Ring, plus: Sequence[bytes], minus: Sequence[bytes], skip: int = 0) -> None:
    """Add the masks of the seeds in `plus` to `words` and subtract those in `minus`, in place.

    `skip` is how many words of the vector come before these: a multiple of 4, as a block of AES holds up to 4 words.
    """
    if skip % (_AES_BYTES // 4):
        raise RangeError(f"{skip} words to skip, expected a multiple of {_AES_BYTES // 4}")
    _over_ranges(words, ring, plus, minus, lambda block, start: None, skip)


def _over_ranges(
    words: Words, ring: Ring, plus: Sequence[bytes], minus: Sequence[bytes], fill: _Fill, skip: int = 0
) -> None:
    """Fill and mask all of `words`: long vectors in one range for each processor, as a keystream can begin anywhere."""
    step = _BLOCK_BYTES // ring.word_bytes
    workers = max(1, min(len(os.sched_getaffinity(0)), words.nbytes // _RANGE_BYTES))
    length = -(-words.size // (workers * step)) * step or step
    ranges = [(start, min(start + length, words.size)) for start in range(0, words.size, length)]
    if len(ranges) == 1:
        _over_blocks(words, ring, plus, minus, fill, skip, *ranges[0])
    elif ranges:
        with ThreadPoolExecutor(len(ranges)) as pool:
            for done in [pool.submit(_over_blocks, words, ring, plus, minus, fill, skip, *one) for one in ranges]:
                done.result()


def _over_blocks(
    words: Words,
    ring: Ring,
    plus: Sequence[bytes],
    minus: Sequence[bytes],
    fill: _Fill,
    skip: int,
    start: int,
    end: int,
) -> None:
    """Fill and mask words[start:end]: every keystream passes over a block while it stays in the second-level cache."""
    counter = ((skip + start) * ring.word_bytes // _AES_BYTES).to_bytes(_AES_BYTES, "big")
    streams = [
        (Cipher(algorithms.AES256(seed), modes.CTR(counter)).encryptor(), operation)
        for operation, seeds in ((np.add, plus), (np.subtract, minus))
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
