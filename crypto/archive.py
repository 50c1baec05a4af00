"""A long file under a passphrase, in chunks: nothing of it is let out that was changed, cut off or put elsewhere.

scrypt derives the key, as in `crypto.keys`. Each chunk is sealed with AES-256-GCM under its number, and the last one is
marked: the STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizar, CRYPTO 2015), as in age. Every file has a salt,
and so a key, of its own.
"""

from collections.abc import Callable, Iterator
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crypto.errors import CryptoError
from crypto.keys import MAX_ATTEMPTS, MIN_PASSPHRASE, SCRYPT_N, SCRYPT_P, SCRYPT_R, Passphrase, derive
from crypto.randomness import token

MAGIC = b"consilo-archive/1\n"
SALT_BYTES = 16
CHUNK_BYTES = 1 << 20
_TAG_BYTES = 16
_LAST = 1


class ArchiveWriter:
    """Writes an archive; what was written is complete only after `finish`."""

    def __init__(self, file: BinaryIO, passphrase: Callable[[], str]) -> None:
        """Write the beginning; raises CryptoError if the passphrase is too short."""
        chosen = Passphrase(passphrase)
        if len(chosen.text) < MIN_PASSPHRASE:
            message = f"a passphrase needs at least {MIN_PASSPHRASE} characters"
            raise CryptoError(message, "take several unrelated words; nothing was written")
        salt = token(SALT_BYTES)
        self._file, self._key = file, _key(chosen, salt)
        self._pending, self._number = bytearray(), 0
        file.write(MAGIC + salt)

    def write(self, data: bytes) -> None:
        """Append to the contents."""
        self._pending += data
        while len(self._pending) > CHUNK_BYTES:  # the last chunk is never empty, unless all is
            self._seal(bytes(self._pending[:CHUNK_BYTES]), is_last=False)
            del self._pending[:CHUNK_BYTES]

    def finish(self) -> None:
        """Write the last chunk."""
        self._seal(bytes(self._pending), is_last=True)

    def _seal(self, chunk: bytes, is_last: bool) -> None:
        self._file.write(self._key.encrypt(_nonce(self._number, is_last), chunk, None))
        self._number += 1


def read_archive(file: BinaryIO, passphrase: Callable[[], str]) -> Iterator[bytes]:
    """Yield the contents in order; `passphrase` is called up to three times.

    Raises CryptoError on a wrong passphrase and on a file that was changed or cut off. What was yielded before is
    genuine, but it is not all.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise CryptoError("this is no archive of Consilo", "name a file that `backup` has written")
    salt = file.read(SALT_BYTES)
    chunk, number, key = file.read(CHUNK_BYTES + _TAG_BYTES), 0, None
    while True:
        following = file.read(CHUNK_BYTES + _TAG_BYTES)
        is_last = not following
        if key is None:
            key, opened = _unlocked(salt, chunk, is_last, passphrase)
        else:
            opened = _opened(key, number, chunk, is_last)
        yield opened
        if is_last:
            return
        chunk, number = following, number + 1


def _unlocked(salt: bytes, chunk: bytes, is_last: bool, passphrase: Callable[[], str]) -> tuple[AESGCM, bytes]:
    for _ in range(MAX_ATTEMPTS):
        key = _key(Passphrase(passphrase), salt)
        try:
            return key, key.decrypt(_nonce(0, is_last), chunk, None)
        except InvalidTag:
            continue
    message = "the passphrase does not open the archive, or it was changed or cut off"
    raise CryptoError(message, "check the keyboard layout; otherwise take another backup")


def _opened(key: AESGCM, number: int, chunk: bytes, is_last: bool) -> bytes:
    try:
        return key.decrypt(_nonce(number, is_last), chunk, None)
    except InvalidTag:
        where = number * CHUNK_BYTES
        message = f"the archive was changed or cut off, after {where} bytes of its contents"
        raise CryptoError(message, "take another backup; nothing of this one is used") from None


def _key(passphrase: Passphrase, salt: bytes) -> AESGCM:
    return AESGCM(derive(passphrase.stretch(salt, SCRYPT_N, SCRYPT_R, SCRYPT_P).raw, "archive"))


def _nonce(number: int, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([_LAST if is_last else 0])
