"""The operating system's generator: where all keys, nonces and choices come from. OpenDP asks it for noise itself."""

import os
import secrets


def token(length: int) -> bytes:
    """Return `length` fresh random bytes."""
    return os.urandom(length)


def below(bound: int) -> int:
    """Return a uniform integer in [0, bound)."""
    return secrets.randbelow(bound)
