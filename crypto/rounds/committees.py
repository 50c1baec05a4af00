"""Which silos share a pair mask, and hold shares of each other's secrets: every two of them, or neighbours in a graph.

Up to 100 silos, every two. Above, the neighbours in a k-regular graph, as in Bell, Bonawitz, Gascón, Lepoint and
Raykova, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020: Harary's circulant graph over a
shuffled order, which makes the cost of a silo grow with k and not with n.

They choose k so that the graph stays connected with high probability, whoever drops out at random. Here an aggregator
names the dropped after it has seen the graph, and could try many rosters until one suits it. So k is chosen for the
worst case instead: the graph of degree k is k-connected (Harary, PNAS 1962), and k > a + d keeps the honest survivors
connected whichever a silos collude and whichever d are called dropped. Nothing is left to chance; the shuffled order
only spreads what happens beyond the stated a and d. docs/protocol.md section 1.5.
"""

from collections.abc import Sequence
from functools import lru_cache

from crypto.keys import derive

COMPLETE_UP_TO = 100
MIN_DEGREE = 32


def quorum_of(silos: int) -> int:
    """Return t, the number of silos that can open what was shared among `silos`: floor(2n/3) + 1."""
    return 2 * silos // 3 + 1


def degree_of(silos: int, max_colluding: int, max_missing: int) -> int:
    """Return k: with how many others a silo of the round shares a pair mask; `silos` - 1 means with all of them.

    The committee of a silo, itself and its k neighbours, holds the shares of its secrets. The least even k is taken of
    which 1. k > a + d; 2. a + 1 shares are no quorum of a committee; 3. a committee without d members is one.
    """
    if silos > COMPLETE_UP_TO:
        for degree in range(MIN_DEGREE, silos - 1, 2):
            quorum = quorum_of(degree + 1)
            if (
                degree > max_colluding + max_missing
                and max_colluding + 1 < quorum
                and degree + 1 - max_missing >= quorum
            ):
                return degree
    return silos - 1


def committees(names: Sequence[str], degree: int, manifest_hash: bytes) -> tuple[tuple[int, ...], ...]:
    """Return of every silo the places in the roster of itself and its neighbours, in roster order.

    The relation is symmetric: j is in the committee of i exactly if i is in that of j.
    """
    return _committees(tuple(names), degree, manifest_hash)


@lru_cache(maxsize=32)  # asked for once for each silo of a round
def _committees(names: tuple[str, ...], degree: int, manifest_hash: bytes) -> tuple[tuple[int, ...], ...]:
    silos = len(names)
    if degree >= silos - 1:
        return (tuple(range(silos)),) * silos
    order = sorted(range(silos), key=lambda place: derive(manifest_hash, "graph", names[place]))
    reach = degree // 2
    found: list[tuple[int, ...]] = [()] * silos
    for position, place in enumerate(order):
        found[place] = tuple(sorted(order[(position + step) % silos] for step in range(-reach, reach + 1)))
    return tuple(found)
