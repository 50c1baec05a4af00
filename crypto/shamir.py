"""Share a 256-bit secret so that any `quorum` shares rebuild it and fewer reveal nothing about it.

Shamir, "How to share a secret", CACM 1979, over the field of the largest 256-bit prime.
The share of party i (counted from 0) is the polynomial at x = i + 1. docs/protocol.md section 2.6.
"""

from collections.abc import Mapping, Sequence

from crypto.errors import RangeError
from crypto.randomness import below
from crypto.reed_solomon import lagrange, value_at, wrong_places
from crypto.wire import SHARE_BYTES

PRIME = 2**256 - 189


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


def check_share(share: bytes) -> None:
    """Raise RangeError on what no dealer's polynomial gives: its receiver can tell that alone, and no more."""
    if len(share) != SHARE_BYTES or int.from_bytes(share, "big") >= PRIME:
        raise RangeError("a share that is no element of the 256-bit field")


def combine(shares: Mapping[int, bytes], quorum: int) -> bytes:
    """Rebuild the secret from the shares of `quorum` parties (party number to share).

    Raises RangeError if there are fewer, or if one is outside the field. Wrong shares give a wrong secret, so callers
    compare the result with a commitment.
    """
    if quorum < 1:
        raise RangeError(f"a quorum of {quorum}")
    if len(shares) < quorum:
        raise RangeError(f"{len(shares)} shares, {quorum} are needed")
    parties = tuple(sorted(shares))[:quorum]
    total = 0
    weights = lagrange(tuple(party + 1 for party in parties), 0, PRIME)
    for weight, party in zip(weights, parties, strict=True):
        value = int.from_bytes(shares[party], "big")
        if len(shares[party]) != SHARE_BYTES or value >= PRIME or party < 0:
            raise RangeError(f"the share of party {party} is no element of the 256-bit field")
        total = (total + weight * value) % PRIME
    return total.to_bytes(SHARE_BYTES, "big")


def wrong_shares(shares: Mapping[int, bytes], quorum: int) -> tuple[int, ...] | None:
    """Return the parties whose shares are not on the polynomial of the others, in order.

    None if there are more of them than can be told: up to half of the shares beyond a quorum can.
    """
    values = {party: value for party, share in shares.items() if (value := int.from_bytes(share, "big")) < PRIME}
    wrong = wrong_places(values, quorum, PRIME)
    return None if wrong is None else tuple(sorted((set(shares) - set(values)).union(wrong)))


def strangers(shares: Mapping[int, bytes], parties: Sequence[int]) -> tuple[int, ...]:
    """Return whose shares are not on the polynomial through those of `parties`, a quorum, in order."""
    points = {party + 1: int.from_bytes(shares[party], "big") for party in parties}
    others = [party for party in sorted(shares) if party not in parties]
    return tuple(
        party for party in others if value_at(points, party + 1, PRIME) != int.from_bytes(shares[party], "big")
    )
