"""Which secret each key, seed and commitment of a round is derived from: docs/protocol.md section 2."""

from crypto.keys import Secret, derive
from crypto.sealing import SealingKey


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


def sum_info(manifest_hash: bytes, split_hash: bytes, sender: str, recipient: str) -> bytes:
    """Return the context that the sum of one silo's columns is bound to for one recipient, in `shares`."""
    return derive(manifest_hash, "sum", split_hash, sender, recipient)


def self_seed(self_secret: bytes, manifest_hash: bytes) -> bytes:
    """Return the seed of a silo's self mask; `self_secret` is the `b` of docs/protocol.md."""
    return derive(self_secret, "self mask", manifest_hash)


def pair_seed(root: bytes, manifest_hash: bytes, later: str) -> bytes:
    """Return the seed that the holder of `root` shares with `later`, a silo after it in the roster."""
    return derive(root, "pair mask", manifest_hash, later)
