"""Signing keys, and secrets that can be neither printed nor pickled.

A key file holds one 32-byte root; the signing key (Ed25519, RFC 8032) and the sealing key (`crypto.sealing`)
are derived from it by HKDF-Expand (RFC 5869) under different labels. The file may be encrypted with a passphrase:
scrypt (RFC 7914) derives an AES-256-GCM key from it. No passphrase is stored or appears in an exception.
Python cannot wipe memory: erasing a secret means dropping every reference to it.
"""

import os
import re
import stat
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from crypto.errors import CryptoError, PassphraseNeededError, SignatureError
from crypto.randomness import token

SECRET_BYTES = 32
FIELD = 2**255 - 19  # of Curve25519: coordinates are below it
_ALL_BUT_SIGN = 2**255 - 1
_EIGHT = 2707385501144840649318225287225658788936804267575313519463743609750303402022  # of a point of order 8
_SMALL_ORDER = frozenset({1, FIELD - 1, 0, _EIGHT, FIELD - _EIGHT})  # the y of points of order 1, 2, 4 and 8
_FORM = "expected ed25519:<64 hexadecimal digits>"
_MADE_HERE = "keys that `consilo key new` makes are neither"
MIN_PASSPHRASE = 12  # characters
MAX_ATTEMPTS = 3
SCRYPT_N = 2**17  # used for new files, and the least accepted in a file; the same holds for r
SCRYPT_R = 8
SCRYPT_P = 1
MAX_SCRYPT_BYTES = 2**28
MAX_SCRYPT_P = 16
_KEY_FILE_HEADER = "consilo-key/1"
_ENCRYPTED_HEADER = f"{_KEY_FILE_HEADER} scrypt"
_MAX_KEY_FILE_BYTES = 4096
_SALT_BYTES = 16
_NONCE_BYTES = 12
# There is one spelling only, so every changed byte is noticed; `associated` is authenticated with the ciphertext.
_ENCRYPTED = re.compile(
    rf"(?P<associated>{_ENCRYPTED_HEADER}\nsalt=(?P<salt>[0-9a-f]{{32}})\n"
    r"n=(?P<n>[1-9][0-9]{0,9}) r=(?P<r>[1-9][0-9]{0,9}) p=(?P<p>[1-9][0-9]{0,9})\n)"
    r"nonce=(?P<nonce>[0-9a-f]{24})\nroot=(?P<root>[0-9a-f]{96})\n"
)


def derive(secret: bytes, *context: bytes | str, length: int = 32) -> bytes:
    """Return `length` bytes that depend on `secret` and on every context field.

    HKDF-Expand with SHA-256; each field is prefixed by its length, so no two lists of fields collide.
    """
    info = b"consilo/1"
    for part in context:
        raw = part.encode() if isinstance(part, str) else part
        info += len(raw).to_bytes(4, "big") + raw
    return HKDFExpand(SHA256(), length, info).derive(secret)


class Secret:
    """32 secret bytes. Prints its type only, and is no dataclass: pickling and copying raise, `asdict` sees nothing."""

    __slots__ = ("raw",)
    raw: bytes

    def __init__(self, raw: bytes) -> None:
        if len(raw) != SECRET_BYTES:
            raise CryptoError(f"a secret of {len(raw)} bytes, expected {SECRET_BYTES}")
        object.__setattr__(self, "raw", raw)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a secret never changes")

    def __repr__(self) -> str:
        return "Secret()"

    def __getstate__(self) -> NoReturn:
        raise CryptoError("a secret cannot be pickled or copied", "keep it in the process that drew it")

    @classmethod
    def generate(cls) -> "Secret":
        return cls(token(SECRET_BYTES))

    def __reduce__(self) -> NoReturn:
        raise CryptoError("a secret cannot be pickled or copied", "keep it in the process that drew it")

    def __hash__(self) -> int:
        raise TypeError("unhashable type: 'Secret'")  # equality is identity too: compare public keys instead


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """An Ed25519 public key; its text form is `ed25519:` and 64 hexadecimal digits.

    Raises SignatureError for an encoding that is not canonical (RFC 8032, 5.1.3) and for a point of small order.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise SignatureError(f"a verification key of {len(self.raw)} bytes, expected 32")
        if (y := int.from_bytes(self.raw, "little") & _ALL_BUT_SIGN) >= FIELD:
            raise SignatureError("a verification key that is not written in the one canonical way", _MADE_HERE)
        if y in _SMALL_ORDER:
            raise SignatureError("a verification key of small order, for which anybody can sign anything", _MADE_HERE)

    @classmethod
    def parse(cls, text: str) -> "VerifyKey":
        """Read the text form; raises SignatureError."""
        scheme, _, digits = text.partition(":")
        if scheme != "ed25519" or len(digits) != 64:
            raise SignatureError(f"{text[:80]!r} is not a verification key", _FORM)
        try:
            return cls(bytes.fromhex(digits))
        except ValueError as err:
            raise SignatureError(f"{text[:80]!r} is not hexadecimal", _FORM) from err

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


class Passphrase:
    """A typed passphrase while it is in use; it has no repr, so no traceback with local variables shows it."""

    __slots__ = ("text",)

    def __init__(self, ask: Callable[[], str]) -> None:
        self.text = unicodedata.normalize("NFC", ask())  # the same whichever keyboard composed its letters

    def stretch(self, salt: bytes, n: int, r: int, p: int) -> Secret:
        # A terminal may deliver lone surrogates; a strict encoder would put them into its exception.
        try:
            return Secret(Scrypt(salt, SECRET_BYTES, n, r, p).derive(self.text.encode("utf-8", "surrogatepass")))
        except MemoryError as err:
            raise CryptoError("not enough memory for a passphrase", f"free {128 * n * r // 2**20} MiB") from err


def write_key_file(path: Path, root: Secret, passphrase: Callable[[], str] | None = None) -> None:
    """Write `root` to a new file that only its owner can read (mode 0600), durably.

    If `passphrase` is given, it is called once, and the root is encrypted. Raises CryptoError if the file exists, as a
    key is never overwritten, or if the passphrase is too short.
    """
    hint = "a key is never overwritten; move it away first"
    if os.path.lexists(path):  # before anybody types a passphrase
        raise CryptoError(f"{path} exists", hint)
    text = f"{_KEY_FILE_HEADER}\n{root.raw.hex()}\n" if passphrase is None else _encrypted(root, passphrase)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as err:
        raise CryptoError(f"{path} exists", hint) from err
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _encrypted(root: Secret, ask: Callable[[], str]) -> str:
    passphrase = Passphrase(ask)
    if len(passphrase.text) < MIN_PASSPHRASE:
        message = f"a passphrase needs at least {MIN_PASSPHRASE} characters"
        raise CryptoError(message, "take several unrelated words; no key was written")
    salt, nonce = token(_SALT_BYTES), token(_NONCE_BYTES)
    associated = f"{_ENCRYPTED_HEADER}\nsalt={salt.hex()}\nn={SCRYPT_N} r={SCRYPT_R} p={SCRYPT_P}\n"
    key = passphrase.stretch(salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)
    ciphertext = AESGCM(key.raw).encrypt(nonce, root.raw, associated.encode())
    return f"{associated}nonce={nonce.hex()}\nroot={ciphertext.hex()}\n"


def read_key_file(path: Path, passphrase: Callable[[], str] | None = None) -> Secret:
    """Read a key file; raises CryptoError if it is absent, malformed or readable by others.

    If the file is encrypted, `passphrase` is called up to three times; raises CryptoError if `passphrase` is None, or
    if no text that it returns opens the file.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(_MAX_KEY_FILE_BYTES).decode()
    except (OSError, UnicodeDecodeError) as err:
        raise CryptoError(f"cannot read the key file {path}", "restore it from its backup") from err
    if mode & 0o077:
        raise CryptoError(f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
    if text.startswith(_ENCRYPTED_HEADER):
        return _decrypted(path, text, passphrase)
    header, _, digits = text.replace("\r\n", "\n").strip().partition("\n")
    try:
        if header != _KEY_FILE_HEADER:
            raise ValueError
        return Secret(bytes.fromhex(digits))
    except (ValueError, CryptoError):
        raise CryptoError(f"{path} is not a {_KEY_FILE_HEADER} file", "restore it from its backup") from None


def _decrypted(path: Path, text: str, ask: Callable[[], str] | None) -> Secret:
    """Return the root of an encrypted key file.

    1. The file is in its only spelling. 2. scrypt's parameters are neither too weak nor too costly. 3. There is a way
    to ask for a passphrase. 4. A passphrase opens the file.
    """
    # 1.
    found = _ENCRYPTED.fullmatch(text)
    if found is None:
        raise CryptoError(f"{path} is not a {_ENCRYPTED_HEADER} file", "restore it from its backup")
    # 2.
    n, r, p = int(found["n"]), int(found["r"]), int(found["p"])
    is_weak = n < SCRYPT_N or n & (n - 1) != 0 or r < SCRYPT_R
    if is_weak or 128 * n * r > MAX_SCRYPT_BYTES or p > MAX_SCRYPT_P:
        message = f"{path} has scrypt parameters out of bounds (n={n} r={r} p={p})"
        least = f"n a power of two, at least n={SCRYPT_N} r={SCRYPT_R}"
        most = f"at most {MAX_SCRYPT_BYTES // 2**20} MiB and p={MAX_SCRYPT_P}"
        raise CryptoError(message, f"expected {least}, {most}; restore the file from its backup")
    # 3.
    if ask is None:
        hint = "`consilo` asks for the passphrase on a terminal; in Python give Federation.open(..., passphrase=...)"
        raise PassphraseNeededError(f"{path} is encrypted with a passphrase", hint)
    # 4.
    for _ in range(MAX_ATTEMPTS):
        key = Passphrase(ask).stretch(bytes.fromhex(found["salt"]), n, r, p)
        try:
            nonce, ciphertext = bytes.fromhex(found["nonce"]), bytes.fromhex(found["root"])
            return Secret(AESGCM(key.raw).decrypt(nonce, ciphertext, found["associated"].encode()))
        except InvalidTag:
            continue
    raise CryptoError(
        f"the passphrase does not open {path}",
        "check the keyboard layout; if the file was damaged, restore it from its backup",
    )
