"""The one place where randomness enters: the operating system's generator."""

import os
import secrets


def token(length: int) -> bytes:
    """Return `length` fresh random bytes."""
    return os.urandom(length)


def below(bound: int) -> int:
    """Return a uniform integer in [0, bound)."""
    return secrets.randbelow(bound)
