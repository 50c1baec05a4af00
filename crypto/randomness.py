"""The operating system's generator, the source of all keys, nonces and choices. OpenDP draws noise from it directly.

`fresh_bytes` is for noise of many slots: AES-256-CTR under a key that the operating system gives for one call.
"""

import os
import secrets

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY_BYTES = 32
MAX_FRESH_BYTES = 2**20  # under one key: 2^16 blocks, counted in docs/noise.md section 3


def token(length: int) -> bytes:
    """Return `length` fresh random bytes."""
    return os.urandom(length)


def below(bound: int) -> int:
    """Return a uniform integer in [0, bound)."""
    return secrets.randbelow(bound)


def fresh_bytes(length: int) -> bytes:
    """Return `length` fresh bytes of a keystream; raises ValueError if one key would give too many.

    The key is drawn for this call and dropped at its end: no object has it, so nothing can print, copy or pickle it.
    """
    if not 0 <= length <= MAX_FRESH_BYTES:
        raise ValueError(f"{length} bytes, one key gives at most {MAX_FRESH_BYTES}")
    stream = Cipher(algorithms.AES256(os.urandom(KEY_BYTES)), modes.CTR(bytes(16))).encryptor()
    return stream.update(bytes(length))
