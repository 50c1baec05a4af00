"""Seal a message to one key, so that a later quantum computer cannot open recorded traffic.

HPKE base mode (RFC 9180) with the hybrid KEM ML-KEM-768 + X25519, HKDF-SHA256 and AES-256-GCM, all from
`cryptography`. A sealed message does not prove its sender, so every message that contains one is signed.
docs/protocol.md section 2.5.
"""

from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from crypto.errors import CryptoError, SealError
from crypto.keys import FIELD, Secret, derive

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MLKEM_PUBLIC_BYTES = 1184
PUBLIC_BYTES = _MLKEM_PUBLIC_BYTES + 32
OVERHEAD_BYTES = 1088 + 32 + 16  # ML-KEM ciphertext, X25519 ephemeral key, GCM tag


class SealingKey:
    """A private key, derived from a root secret; `public` is the ML-KEM key followed by the X25519 key."""

    __slots__ = ("_key", "public")

    def __init__(self, root: Secret) -> None:
        mlkem = MLKEM768PrivateKey.from_seed_bytes(derive(root.raw, "sealing key", "ML-KEM-768", length=64))
        x25519 = X25519PrivateKey.from_private_bytes(derive(root.raw, "sealing key", "X25519"))
        self._key = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Return the plaintext; raises SealError if key, info or ciphertext do not belong together."""
        try:
            return _SUITE.decrypt(sealed, self._key, info=info)
        except (InvalidTag, ValueError):
            raise SealError("a sealed message does not open with this key in this context") from None

    def __repr__(self) -> str:
        return "SealingKey()"

    def __reduce__(self) -> NoReturn:
        raise CryptoError("a sealing key cannot be pickled or copied")


def check_public(public: bytes) -> None:
    """Raise SealError unless messages can be sealed to a public key."""
    seal(public, b"", b"")


def seal(public: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Seal `plaintext` to `public` (1,216 bytes) in the context `info`; raises SealError on a bad or weak key."""
    if len(public) != PUBLIC_BYTES:
        raise SealError(f"a public sealing key of {len(public)} bytes, expected {PUBLIC_BYTES}")
    if (
        int.from_bytes(public[_MLKEM_PUBLIC_BYTES:], "little") >= FIELD
    ):  # RFC 7748, section 5, would take it for another
        raise SealError("a public sealing key that is not written in the one canonical way")
    try:
        key = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC_BYTES]),
            X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC_BYTES:]),
        )
        return _SUITE.encrypt(plaintext, key, info=info)
    except ValueError:  # a malformed ML-KEM key, or an X25519 point of small order
        raise SealError("a public sealing key is malformed or weak") from None
