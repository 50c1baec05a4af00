"""No clock and no reservation moves a charge out of the window in which it is spent."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from analyst.demo.hospitals import PURPOSE
from analyst.errors import AnalystError
from policies.budget.ledger import Charge
from policies.units import DAY_S, MICRO
from tests.harness.clock import Clock
from tests.harness.inside import ledger_of
from tests.harness.simulator import Simulation, ask, no_noise, simulate

QUESTION = "SELECT COUNT(*) AS n FROM lung"
MARCH, APRIL, MAY = (int(datetime(2027, month, 1, tzinfo=UTC).timestamp()) for month in (3, 4, 5))


@pytest.fixture
def clock() -> Clock:
    return Clock(MARCH)


@pytest.fixture
def price(home: Path, clock: Clock) -> int:
    """What one question costs; the policies then allow one and a half of them a month."""
    with simulate(home, noise=no_noise, clock=clock) as running:
        ask(running, QUESTION)
        price = running.spent("aspen")
    for policy in home.glob("silos/*/policy.toml"):
        limit = (
            f'[[budget.limits]]\npurpose = "{PURPOSE}"\nwindow = "calendar-month"\nrho = {1.5 * price / MICRO:.6f}\n'
        )
        policy.write_text(f"{policy.read_text()}\n{limit}")
    clock.now = APRIL
    return price


@pytest.fixture
def simulation(home: Path, price: int, clock: Clock) -> Iterator[Simulation]:
    with simulate(home, noise=no_noise, clock=clock) as running:
        yield running


def is_refused(simulation: Simulation) -> bool:
    with pytest.raises(AnalystError, match="for 'health-research' this month does not cover this request"):
        ask(simulation, QUESTION)
    return True


def on(step: str, do: Callable[[], None]) -> Callable[[str, tuple[bytes, ...]], None]:
    def before(asked: str, _: tuple[bytes, ...]) -> None:
        if asked == step:
            do()

    return before


def test_a_reservation_moves_no_charge_over_a_window_s_edge(simulation: Simulation, clock: Clock) -> None:
    """It was made in the last second of April, and the charge begins in May: May's budget pays."""

    def midnight() -> None:
        clock.now = MAY

    clock.now = MAY - 1
    for silo in simulation.silos.values():
        silo.before = on("ready", midnight)
    assert set(ask(simulation, QUESTION).values()) == {"answered"}
    for silo in simulation.silos.values():
        silo.before = on("", midnight)
        (*_, last) = ledger_of(silo).history()
        assert last.at >= MAY
        ledger_of(silo).audit()
    assert is_refused(simulation), "May has paid it, and does not cover another"
    clock.now = MAY - 10 * DAY_S
    assert is_refused(simulation)


def test_a_reservation_that_the_next_window_cannot_pay_is_given_back(
    simulation: Simulation, clock: Clock, price: int
) -> None:
    clock.now = MAY - 1
    aspen = simulation.silos["aspen"]

    def spend() -> None:
        if clock.now < MAY:
            clock.now = MAY
            other = Charge(bytes(16), bytes(32), "eve", PURPOSE, price, bytes(32), MAY)
            assert ledger_of(aspen).reserve(other, 10 * price)
            ledger_of(aspen).begin_charge(other.nonce, bytes(16))

    before = simulation.spent("aspen")
    aspen.before = on("ready", spend)
    outcomes = ask(simulation, QUESTION)
    assert outcomes.pop("aspen") != "answered"
    assert set(outcomes.values()) == {"answered"}
    assert simulation.spent("aspen") == before + price, "of the other one"
    ledger_of(aspen).audit()


def test_a_charge_in_a_window_before_counts_in_the_one_of_the_corrected_time(
    simulation: Simulation, clock: Clock, price: int
) -> None:
    clock.now = MAY + 5 * DAY_S
    for silo in simulation.silos.values():
        silo.actor.close()
        silo.actor = silo.start()  # which the log notes in May
    clock.now = MAY - 5 * DAY_S
    assert set(ask(simulation, QUESTION).values()) == {"answered"}, "April has spent nothing"
    assert is_refused(simulation), "it counts in April, by which it was dated"
    clock.now = MAY + 6 * DAY_S
    assert is_refused(simulation), "and in May, which it was"


def test_a_charge_by_a_clock_that_is_ahead_counts_in_both_windows(simulation: Simulation, clock: Clock) -> None:
    clock.now = MAY + 5 * DAY_S
    assert set(ask(simulation, QUESTION).values()) == {"answered"}
    clock.now = APRIL + 5 * DAY_S
    assert is_refused(simulation), "it counts in April, which it was"
    clock.now = MAY + 6 * DAY_S
    assert is_refused(simulation), "and in May, by which it was dated"
