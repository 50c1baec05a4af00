"""Share a 256-bit secret so that any `quorum` shares rebuild it and fewer say nothing about it.

Shamir, "How to share a secret", CACM 1979, over the field of the largest 256-bit prime.
The share of party i (counted from 0) is the polynomial at x = i + 1.
"""

from collections.abc import Mapping
from functools import lru_cache

from crypto.errors import RangeError
from crypto.randomness import below

PRIME = 2**256 - 189
SHARE_BYTES = 32


def draw() -> bytes:
    """Return a secret that the field can carry, 32 bytes big-endian."""
    return below(PRIME).to_bytes(SHARE_BYTES, "big")


def share_secret(secret: bytes, parties: int, quorum: int) -> list[bytes]:
    """Return `parties` shares of 32 bytes; raises RangeError on a secret outside the field or a bad quorum."""
    value = int.from_bytes(secret, "big")
    if len(secret) != SHARE_BYTES or value >= PRIME:
        raise RangeError("the secret is no element of the 256-bit field")
    if not 1 <= quorum <= parties:
        raise RangeError(f"a quorum of {quorum} among {parties} parties")
    coefficients = [value, *(below(PRIME) for _ in range(quorum - 1))]
    shares = []
    for x in range(1, parties + 1):
        y = 0
        for coefficient in reversed(coefficients):
            y = (y * x + coefficient) % PRIME
        shares.append(y.to_bytes(SHARE_BYTES, "big"))
    return shares


def combine(shares: Mapping[int, bytes], quorum: int) -> bytes:
    """Rebuild the secret from the shares of `quorum` parties (party number to share).

    Raises RangeError if fewer are given or one is no field element. Wrong shares give a wrong secret: callers
    compare the result with a commitment.
    """
    if quorum < 1:
        raise RangeError(f"a quorum of {quorum}")
    if len(shares) < quorum:
        raise RangeError(f"{len(shares)} shares, {quorum} are needed")
    parties = tuple(sorted(shares))[:quorum]
    total = 0
    for weight, party in zip(_lagrange_at_zero(parties), parties, strict=True):
        value = int.from_bytes(shares[party], "big")
        if len(shares[party]) != SHARE_BYTES or value >= PRIME or party < 0:
            raise RangeError(f"the share of party {party} is no element of the 256-bit field")
        total = (total + weight * value) % PRIME
    return total.to_bytes(SHARE_BYTES, "big")


@lru_cache(maxsize=256)
def _lagrange_at_zero(parties: tuple[int, ...]) -> tuple[int, ...]:
    points = [party + 1 for party in parties]
    weights = []
    for i, xi in enumerate(points):
        numerator = denominator = 1
        for j, xj in enumerate(points):
            if i != j:
                numerator = numerator * xj % PRIME
                denominator = denominator * (xj - xi) % PRIME
        weights.append(numerator * pow(denominator, -1, PRIME) % PRIME)
    return tuple(weights)
