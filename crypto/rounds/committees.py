"""Which silos share pair masks, and hold shares of each other's secrets: docs/protocol.md section 1.5.

Up to 33 silos, every two. Above that, neighbours in a k-regular graph, as in Bell, Bonawitz, Gascón, Lepoint and
Raykova, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020: Harary's circulant graph over a
shuffled order. The work of a silo then grows with k and not with n.

The paper chooses k so that the graph stays connected with high probability when silos drop out at random. Here the
aggregator names the dropped silos after it has seen the graph, and could try many rosters. So k is chosen for the worst
case: a graph of degree k is k-connected (Harary, PNAS 1962), and k > a + d keeps the honest survivors connected,
whichever a silos collude and whichever d are called dropped. Nothing is left to chance. The shuffled order only spreads
failures beyond the stated a and d.
"""

from collections.abc import Sequence
from functools import lru_cache

from crypto.keys import derive

MIN_DEGREE = 32
MAX_COMMITTEE = 400  # silos; whatever a silo sends and gets of a committee has room for as many


def quorum_of(silos: int) -> int:
    """Return t, the number of shares among `silos` that open a secret: floor(2n/3) + 1."""
    return 2 * silos // 3 + 1


def degree_of(silos: int, max_colluding: int, max_missing: int) -> int:
    """Return k, the number of silos with which each silo shares a pair mask; `silos` - 1 means all others.

    The committee of a silo, itself and its k neighbours, holds the shares of its secrets. k is the least even number
    such that 1. k > a + d; 2. a + 1 shares are fewer than a committee's quorum; 3. a committee without d of its members
    still has a quorum.
    """
    for degree in range(MIN_DEGREE, silos - 1, 2):
        quorum = quorum_of(degree + 1)
        if degree > max_colluding + max_missing and max_colluding + 1 < quorum and degree + 1 - max_missing >= quorum:
            return degree
    return silos - 1


def committee(names: Sequence[str], degree: int, manifest_hash: bytes, place: int) -> tuple[int, ...]:
    """Return the committee of the silo at a place of the roster, itself included, as places in rising order.

    The relation is symmetric: j is in the committee of i exactly if i is in the committee of j.
    """
    silos = len(names)
    if degree >= silos - 1:
        return tuple(range(silos))
    order, positions = _shuffled(tuple(names), manifest_hash)
    reach, at = degree // 2, positions[place]
    return tuple(sorted(order[(at + step) % silos] for step in range(-reach, reach + 1)))


def committees(names: Sequence[str], degree: int, manifest_hash: bytes) -> tuple[tuple[int, ...], ...]:
    """Return the committee of every silo, in roster order."""
    return _committees(tuple(names), degree, manifest_hash)


@lru_cache(maxsize=32)  # the aggregator and a recipient ask for one again and again
def _committees(names: tuple[str, ...], degree: int, manifest_hash: bytes) -> tuple[tuple[int, ...], ...]:
    return tuple(committee(names, degree, manifest_hash, place) for place in range(len(names)))


@lru_cache(maxsize=32)
def _shuffled(names: tuple[str, ...], manifest_hash: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the places of the roster in the order of the graph, and the position of each place in it."""
    order = sorted(range(len(names)), key=lambda place: derive(manifest_hash, "graph", names[place]))
    positions = [0] * len(names)
    for position, place in enumerate(order):
        positions[place] = position
    return tuple(order), tuple(positions)
