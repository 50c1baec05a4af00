"""The public draw of a round that asks a share of its run's silos."""

from collections import Counter
from decimal import Decimal

from policies.requests.share import MOST_DRAWS, count_of, drawn, draws

SILOS = tuple(f"silo-{number:02d}" for number in range(10))
RUN = bytes(range(16))


def test_a_draw_has_the_share_rounded_up_and_the_first_round_asks_all() -> None:
    assert [count_of(Decimal(share), 10) for share in ("0.01", "0.1", "0.25", "0.3", "0.31", "1")] == [
        1,
        1,
        3,
        3,
        4,
        10,
    ]
    assert drawn(RUN, 0, 0, SILOS, Decimal("0.3")) == SILOS
    assert list(draws(RUN, 0, SILOS, Decimal("0.3"))) == [SILOS]
    found = drawn(RUN, 7, 0, SILOS, Decimal("0.3"))
    assert len(found) == 3
    assert found == tuple(sorted(found))
    assert set(found) <= set(SILOS)


def test_everybody_draws_the_same_and_each_run_round_and_draw_another_one() -> None:
    share = Decimal("0.3")
    assert drawn(RUN, 7, 2, SILOS, share) == drawn(bytes(RUN), 7, 2, tuple(reversed(SILOS)), share)
    first = list(draws(RUN, 7, SILOS, share))
    assert 10 < len(first) <= MOST_DRAWS
    assert first != list(draws(RUN, 8, SILOS, share))
    assert first != list(draws(bytes(16), 7, SILOS, share))


def test_every_silo_has_its_turn_as_often_as_another() -> None:
    """Of 3,000 rounds each of ten silos is in 900: within 5 standard deviations, 125."""
    counts = Counter(silo for step in range(1, 3001) for silo in drawn(RUN, step, 0, SILOS, Decimal("0.3")))
    assert set(counts) == set(SILOS)
    assert all(abs(count - 900) < 126 for count in counts.values()), counts
