"""Which silos take part in a round of a run that asks a share of them: a public draw that everybody repeats.

The run's name, the number of the round and that of the draw decide, so nobody chooses whom a sum is of: silos refuse
any other set. Where too many silos of a draw are away the next draw is asked, at most `MOST_DRAWS`. The first round
asks all silos. All recipients learn the sum of every round, whoever took part. docs/networks.md, "Jobs and runs";
docs/decisions/0066-a-run-of-rounds.md.
"""

from collections.abc import Iterator, Sequence
from decimal import ROUND_CEILING, Decimal
from hashlib import blake2b

MOST_DRAWS = 16  # of one round


def count_of(share: Decimal, silos: int) -> int:
    """Return how many of so many silos a round asks."""
    return min(silos, max(1, int((share * silos).to_integral_value(ROUND_CEILING))))


def drawn(run: bytes, step: int, draw: int, silos: Sequence[str], share: Decimal) -> tuple[str, ...]:
    """Return the silos of a draw of a round, in their order; of the first round all."""
    count = len(silos) if step == 0 else count_of(share, len(silos))
    place = step.to_bytes(8, "big") + draw.to_bytes(8, "big")

    def key(silo: str) -> bytes:
        return blake2b(run + place + silo.encode(), digest_size=16, person=b"consilo/share").digest()

    return tuple(sorted(sorted(silos, key=key)[:count]))


def draws(run: bytes, step: int, silos: Sequence[str], share: Decimal) -> Iterator[tuple[str, ...]]:
    """Yield the silos of each draw of a round, each set once."""
    found = (drawn(run, step, draw, silos, share) for draw in range(MOST_DRAWS))
    yield from dict.fromkeys(found)
