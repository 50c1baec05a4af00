"""Keys that sign, and secrets that can be neither printed nor pickled.

A key file holds one 32-byte root; the signing key (Ed25519, RFC 8032) and the sealing key (`crypto.sealing`)
are derived from it by HKDF-Expand (RFC 5869) under different labels.
Python cannot wipe memory: erasing a secret means dropping every reference to it.
"""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from crypto.errors import CryptoError, SignatureError
from crypto.randomness import token

SECRET_BYTES = 32
_KEY_FILE_HEADER = "consilo-key/1"


def derive(secret: bytes, *context: bytes | str, length: int = 32) -> bytes:
    """Return `length` bytes that depend on `secret` and on every context field.

    HKDF-Expand with SHA-256; each field is prefixed by its length, so no two lists of fields collide.
    """
    info = b"consilo/1"
    for part in context:
        raw = part.encode() if isinstance(part, str) else part
        info += len(raw).to_bytes(4, "big") + raw
    return HKDFExpand(SHA256(), length, info).derive(secret)


@dataclass(frozen=True, slots=True, eq=False)
class Secret:
    """32 secret bytes. Prints its type only; pickling and copying raise."""

    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.raw) != SECRET_BYTES:
            raise CryptoError(f"a secret of {len(self.raw)} bytes, expected {SECRET_BYTES}")

    @classmethod
    def generate(cls) -> "Secret":
        return cls(token(SECRET_BYTES))

    def __reduce__(self) -> NoReturn:
        raise CryptoError("a secret cannot be pickled or copied", "keep it in the process that drew it")

    def __hash__(self) -> int:
        raise TypeError("unhashable type: 'Secret'")  # and compared by identity: compare public halves instead


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """An Ed25519 public key; its text form is `ed25519:` and 64 hexadecimal digits."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise SignatureError(f"a verification key of {len(self.raw)} bytes, expected 32")

    @classmethod
    def parse(cls, text: str) -> "VerifyKey":
        """Read the text form; raises SignatureError."""
        scheme, _, digits = text.partition(":")
        if scheme != "ed25519" or len(digits) != 64:
            raise SignatureError(f"{text[:80]!r} is not a verification key", "expected ed25519:<64 hex digits>")
        try:
            return cls(bytes.fromhex(digits))
        except ValueError as err:
            raise SignatureError(f"{text[:80]!r} is not hexadecimal", "expected ed25519:<64 hex digits>") from err

    def __str__(self) -> str:
        return f"ed25519:{self.raw.hex()}"

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raise SignatureError unless `signature` over `data` was made with the private half."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except (InvalidSignature, ValueError) as err:
            raise SignatureError("the signature does not hold") from err


class SigningKey:
    """An Ed25519 private key, derived from a root secret."""

    __slots__ = ("_key", "public")

    def __init__(self, root: Secret) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(derive(root.raw, "signing key"))
        self.public = VerifyKey(self._key.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public})"

    def __reduce__(self) -> NoReturn:
        raise CryptoError("a signing key cannot be pickled or copied")


def write_key_file(path: Path, root: Secret) -> None:
    """Write `root` to a new file that only its owner can read (mode 0600), durably.

    Raises CryptoError if the file exists: a key is never overwritten.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as err:
        raise CryptoError(f"{path} exists", "a key is never overwritten; move it away first") from err
    with os.fdopen(handle, "w") as file:
        file.write(f"{_KEY_FILE_HEADER}\n{root.raw.hex()}\n")
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_key_file(path: Path) -> Secret:
    """Read a key file; raises CryptoError if it is absent, malformed or readable by others."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as err:
        raise CryptoError(f"cannot read the key file {path}", "restore it from its backup") from err
    if mode & 0o077:
        raise CryptoError(f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
    header, _, digits = text.strip().partition("\n")
    try:
        if header != _KEY_FILE_HEADER:
            raise ValueError
        return Secret(bytes.fromhex(digits))
    except (ValueError, CryptoError):
        raise CryptoError(f"{path} is not a {_KEY_FILE_HEADER} file", "restore it from its backup") from None
