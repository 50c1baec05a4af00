"""Lots: random numbers that a secret of one request draws for rows, and for a person's groups.

A lot follows from the secret and from what it is drawn for alone, so every task of a request draws the same one,
whatever part of the rows it works on. AES-256 is the pseudorandom function: in counter mode for rows, whose numbers
follow each other, and block by block for pairs of a person and a group (NIST SP 800-38A, sections 6.5 and 6.1; no two
blocks are equal).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from crypto.randomness import token
from silo_node.data.coded import Integers, Run

SECRET_BYTES = 64
_KEY_BYTES = 32
_WORDS = 2  # of 64 bits in a block
Words = npt.NDArray[np.uint64]


class Lots:
    """The lots of one request."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes | None = None) -> None:
        """`secret` has SECRET_BYTES bytes; None draws a new one."""
        self._secret = token(SECRET_BYTES) if secret is None else secret
        if len(self._secret) != SECRET_BYTES:
            raise ValueError(f"a secret of {len(self._secret)} bytes, expected {SECRET_BYTES}")

    def of_rows(self, runs: Iterable[Run]) -> Words:
        """Return the lot of each row, one after another."""
        found = [self._run(run) for run in runs]
        return np.concatenate(found) if found else np.empty(0, np.uint64)

    def of_pairs(self, persons: Integers, groups: Integers) -> Words:
        """Return the lot of each pair of a person and a group; both are places from 0."""
        blocks = np.empty((len(persons), _WORDS), "<u8")
        blocks[:, 0], blocks[:, 1] = persons, groups
        drawn = self._encrypted(modes.ECB(), self._secret[_KEY_BYTES:], blocks.tobytes())  # noqa: S305 (distinct blocks)
        return np.frombuffer(drawn, "<u8")[::_WORDS].astype(np.uint64)

    def _run(self, run: Run) -> Words:
        before = run.first % _WORDS
        start = run.segment.to_bytes(8, "big") + (run.first // _WORDS).to_bytes(8, "big")
        words = before + run.rows + (before + run.rows) % _WORDS
        drawn = self._encrypted(modes.CTR(start), self._secret[:_KEY_BYTES], bytes(8 * words))
        return np.frombuffer(drawn, "<u8")[before : before + run.rows].astype(np.uint64)

    @staticmethod
    def _encrypted(mode: Any, key: bytes, plain: bytes) -> bytes:
        cipher = Cipher(algorithms.AES(key), mode).encryptor()
        return cipher.update(plain) + cipher.finalize()
