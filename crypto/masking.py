"""Blind a vector with masks that cancel over the roster, and take the remaining ones off the sum.

Bonawitz et al., "Practical Secure Aggregation", CCS 2017: a pair mask for every two silos, added by the first in
roster order and subtracted by the second, and a self mask of each silo's own. A mask is the AES-256-CTR keystream
of a 32-byte seed that is used for one round and one vector only, hence the zero counter.

All that a round derives from a silo's two secrets is derived here: `r`, the root of its mask key and pair seeds, and
`b`, of its self mask. docs/protocol.md section 2.
"""

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from crypto.errors import RangeError
from crypto.keys import Secret, derive
from crypto.ring import Ring, Words
from crypto.sealing import SealingKey

_BLOCK_BYTES = 1 << 18  # stays in the second-level cache while every keystream passes over it
_ZEROS = bytes(_BLOCK_BYTES)


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


def self_seed(self_secret: bytes, manifest_hash: bytes) -> bytes:
    """Return the seed of a silo's self mask; `self_secret` is the `b` of docs/protocol.md."""
    return derive(self_secret, "self mask", manifest_hash)


def pair_seed(root: bytes, manifest_hash: bytes, later: str) -> bytes:
    """Return the seed that the holder of `root` shares with `later`, a silo after it in the roster."""
    return derive(root, "pair mask", manifest_hash, later)


def apply_masks(words: Words, ring: Ring, plus: Sequence[bytes], minus: Sequence[bytes], skip: int = 0) -> None:
    """Add the masks of the seeds in `plus` to `words` and subtract those in `minus`, in place.

    `skip` is how many words of the vector come before these: a multiple of 4, as a block of AES holds up to 4 words.
    """
    if skip % 4:
        raise RangeError(f"{skip} words to skip, expected a multiple of 4")
    counter = (skip * ring.word_bytes // 16).to_bytes(16, "big")
    streams = [
        (Cipher(algorithms.AES256(seed), modes.CTR(counter)).encryptor(), operation)
        for operation, seeds in ((np.add, plus), (np.subtract, minus))
        for seed in seeds
    ]
    keystream = bytearray(_BLOCK_BYTES)
    step = _BLOCK_BYTES // ring.word_bytes
    for start in range(0, words.size, step):
        block = words[start : start + step]
        length = block.size * ring.word_bytes
        view = memoryview(keystream)[:length]
        mask = np.frombuffer(view, ring.dtype)
        for stream, operation in streams:
            stream.update_into(memoryview(_ZEROS)[:length], view)
            operation(block, mask, out=block)
    ring.reduce(words)
