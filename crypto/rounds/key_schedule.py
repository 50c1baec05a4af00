"""How each key, seed and commitment of a round is derived from a silo's secrets: docs/protocol.md section 2.4."""

from crypto.keys import Secret, derive
from crypto.sealing import SealingKey


def mask_key_of(root: bytes) -> SealingKey:
    """Return the mask key that a silo derives from its root secret `r`."""
    return SealingKey(Secret(derive(root, "mask key")))


def self_commitment(self_secret: bytes) -> bytes:
    """Return the commitment to a self-mask secret `b`, which the silo's acceptance contains."""
    return derive(self_secret, "self commitment")


def entry_info(manifest_hash: bytes, purpose: str, sender: str, receiver: str) -> bytes:
    """Return the context in which one silo seals a value for another."""
    return derive(manifest_hash, "entry", purpose, sender, receiver)


def opening_info(manifest_hash: bytes, survivors_hash: bytes, sender: str, recipient: str) -> bytes:
    """Return the context in which one silo seals its opened shares for one recipient."""
    return derive(manifest_hash, "opening", survivors_hash, sender, recipient)


def sum_info(manifest_hash: bytes, survivors_hash: bytes, sender: str, recipient: str) -> bytes:
    """Return the context in which one silo seals the sum of its columns for one recipient, in `shares`."""
    return derive(manifest_hash, "sum", survivors_hash, sender, recipient)


def self_seed(self_secret: bytes, manifest_hash: bytes) -> bytes:
    """Return the seed of a silo's self mask; `self_secret` is the `b` of docs/protocol.md."""
    return derive(self_secret, "self mask", manifest_hash)


def pair_seed(root: bytes, manifest_hash: bytes, later: str) -> bytes:
    """Return the seed that the silo with the secret `root` shares with `later`, a silo after it in the roster."""
    return derive(root, "pair mask", manifest_hash, later)
