"""The protocol's primitives once more, for the vectors alone: docs/protocol.md section 2.

Uses the standard library, `cryptography` and `blake3` only and nothing of the package under test, so that a vector is a
second opinion: canonical JSON, HKDF-Expand (RFC 5869), Shamir's scheme and the envelope are written out here.
"""

import base64
import hmac
import json
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite

PRIME = 2**256 - 189


def encode(value: Any) -> bytes:
    """Return the canonical JSON of a dict in the order of its keys; bytes become URL-safe base64."""

    def plain(inner: Any) -> Any:
        match inner:
            case bytes():
                return base64.urlsafe_b64encode(inner).decode()
            case dict():
                return {key: plain(item) for key, item in inner.items()}
            case list():
                return [plain(item) for item in inner]
        return inner

    return json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False).encode()


def expand(secret: bytes, info: bytes, length: int) -> bytes:
    output, block, counter = b"", b"", 1
    while len(output) < length:
        block = hmac.digest(secret, block + info + bytes([counter]), "sha256")
        output, counter = output + block, counter + 1
    return output[:length]


def derive(secret: bytes, *context: bytes | str, length: int = 32) -> bytes:
    parts = [part.encode() if isinstance(part, str) else part for part in context]
    info = b"".join([b"consilo/1", *(len(part).to_bytes(4, "big") + part for part in parts)])
    return expand(secret, info, length)


def public(root: bytes) -> bytes:
    mlkem = MLKEM768PrivateKey.from_seed_bytes(derive(root, "sealing key", "ML-KEM-768", length=64))
    x25519 = X25519PrivateKey.from_private_bytes(derive(root, "sealing key", "X25519"))
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def signing_key(root: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(derive(root, "signing key"))


def evaluate(coefficients: list[int], x: int) -> str:
    value = sum(coefficient * pow(x, power, PRIME) for power, coefficient in enumerate(coefficients)) % PRIME
    return value.to_bytes(32, "big").hex()


def words(seed: bytes, bits: int, count: int) -> list[str]:
    """Return the first ring elements of a mask, in decimal: JSON has no integers of 64 bits."""
    width = next(size for size in (1, 2, 4, 8) if bits <= 8 * size)
    counters = b"".join(number.to_bytes(16, "big") for number in range(count * width // 16 + 1))
    stream = Cipher(algorithms.AES256(seed), modes.ECB()).encryptor().update(counters)  # noqa: S305
    return [str(int.from_bytes(stream[at : at + width], "little") % 2**bits) for at in range(0, count * width, width)]


def packed(elements: list[int], bits: int) -> str:
    """Return elements without gaps: those of more than 32 bits in words of 8 bytes."""
    width = bits if bits <= 32 else 64
    whole = sum(element << place * width for place, element in enumerate(elements))
    return whole.to_bytes(-(-len(elements) * width // 8), "little").hex()


def envelope(kind: str, signer: str, body: bytes, root: bytes) -> bytes:
    header = b"".join(len(part.encode()).to_bytes(1, "big") + part.encode() for part in (kind, signer))
    return b"CSL1" + header + signing_key(root).sign(b"consilo/1 envelope" + header + body) + body


def merkle_root(leaves: list[bytes]) -> bytes:
    """Return the tree hash of RFC 6962, section 2.1."""
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while 2 * half < len(leaves):
        half *= 2
    return sha256(b"\x01" + merkle_root(leaves[:half]) + merkle_root(leaves[half:])).digest()


def merkle_proof(leaves: list[bytes], shown: set[int]) -> list[bytes]:
    """Return the hashes of the subtrees without a shown leaf, from left to right."""
    if not shown:
        return [merkle_root(leaves)]
    if len(leaves) == 1:
        return []
    half = 1
    while 2 * half < len(leaves):
        half *= 2
    left, right = {place for place in shown if place < half}, {place - half for place in shown if place >= half}
    return merkle_proof(leaves[:half], left) + merkle_proof(leaves[half:], right)


_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def _private(root: bytes) -> MLKEM768X25519PrivateKey:
    mlkem = MLKEM768PrivateKey.from_seed_bytes(derive(root, "sealing key", "ML-KEM-768", length=64))
    return MLKEM768X25519PrivateKey(mlkem, X25519PrivateKey.from_private_bytes(derive(root, "sealing key", "X25519")))


class Seals:
    """Sealed values, which are drawn once and kept: sealing is randomised, and a vector must not change."""

    def __init__(self, kept: dict[str, str]) -> None:
        self._kept = kept
        self.used: dict[str, str] = {}

    def seal(self, label: str, root: bytes, plaintext: bytes, info: bytes) -> bytes:
        """Return what was sealed under `label` to the key of `root` if it still opens to `plaintext`, else seal it."""
        private = _private(root)
        sealed = bytes.fromhex(self._kept.get(label, ""))
        try:
            is_good = _SUITE.decrypt(sealed, private, info=info) == plaintext
        except (InvalidTag, ValueError):
            is_good = False
        if not is_good:
            sealed = _SUITE.encrypt(plaintext, private.public_key(), info=info)
        self.used[label] = sealed.hex()
        return sealed
