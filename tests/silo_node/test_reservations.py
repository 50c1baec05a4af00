"""What training runs reserve ahead: judged as a whole, paid once, given back once, whatever happens in between."""

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policies.budget.ledger import (
    ALL_MONTHS,
    RESERVED_S,
    Charge,
    KeptState,
    Months,
    RunReservation,
    RunStep,
    WindowLimit,
    reserved_until,
    window_start,
)
from policies.errors import AlreadyChargedError, LedgerError
from policies.units import DAY_S
from silo_node.ledger.events import worded
from silo_node.ledger.retention import Due
from silo_node.ledger.schema import COUNTED, VERSION
from silo_node.ledger.store import LedgerStore
from silo_node.ledger.totals import totals_of
from tests.harness.inside import database_of
from tests.harness.owner_home import charged, erased
from tests.silo_node.test_ledger_store import SIGNER, charge, nonce

AT = 1_800_000_000  # 2027-01-15
LIMIT, EACH, STEPS = 1_000, 100, 5
RUN, NEXT_RUN, JOB = b"run-------------", b"next-run--------", b"j" * 32
SILOS = ("east", "north", "south", "west")


def step(number: int, run: bytes = RUN, steps: int = STEPS, each: int = EACH, continues: bytes = b"") -> RunStep:
    return RunStep(run, run.ljust(32, b"."), number, continues, steps, each, SILOS)


def part(number: int, request: int = 0, micro_rho: int = EACH, at: int = AT, **changes: Any) -> Charge:
    """Return the charge of a step; each request has a nonce of its own."""
    names = [name for name in ("run", "steps", "continues", "each") if name in changes]
    of_run = step(number, **{name: changes.pop(name) for name in names})
    return charge(request or number + 1, micro_rho, run=of_run, charged_at=at, **changes)


class Clock:
    now = AT

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[LedgerStore]:
    with closing(LedgerStore(tmp_path / "ledger.sqlite", SIGNER, clock)) as store:
        yield store
        store.audit()


def held(ledger: LedgerStore, run: bytes = RUN) -> RunReservation:
    found = ledger.reservation_of(run)
    assert found is not None
    return found


def spent(ledger: LedgerStore) -> int:
    return ledger.spending().lifetime


def take(ledger: LedgerStore, *parts: Charge, limit: int = LIMIT) -> None:
    """Reserve, begin and commit these charges, one after the other."""
    for one in parts:
        assert ledger.reserve(one, limit)
        charged(ledger, one.nonce, b"r" * 16)


def said(ledger: LedgerStore, kind: str) -> list[str]:
    return [worded(entry.event) for entry in ledger.entries(1000) if entry.event.kind == kind]


def test_the_first_step_reserves_the_whole_run_and_each_step_takes_its_part(ledger: LedgerStore) -> None:
    for number in range(STEPS):
        take(ledger, part(number), limit=STEPS * EACH)
        assert spent(ledger) == STEPS * EACH
        if number < STEPS - 1:
            assert (held(ledger).parts, held(ledger).micro_rho) == (STEPS - number - 1, (STEPS - number - 1) * EACH)
            assert held(ledger).silos == SILOS
    assert ledger.reservation_of(RUN) is None
    assert sum(row.micro_rho for row in ledger.history()) == STEPS * EACH
    assert said(ledger, "run-reservation")[0] == "rho 0.0004 set aside for 4 more steps of run 72756e2d2d2d2d2d"
    assert said(ledger, "run-release")[-1].endswith("it has begun its last step; rho 0 was left")


def test_others_see_what_is_reserved_as_spent_and_the_run_does_not(ledger: LedgerStore) -> None:
    take(ledger, part(0))
    months = Months(100, 200)
    since: list[int | Months] = [AT - AT % DAY_S, AT - 5, AT + 20 * DAY_S, ALL_MONTHS, months]
    seen = ledger.spending(b"", "health-research", "ana", since, analyst_since=0)
    assert [one.everybody for one in seen.windows] == [500, 500, 400, 500, 500], "in every window until it ends"
    assert [one.analyst for one in seen.windows] == [500, 500, 400, 500, 500]
    assert (seen.by_analyst.purpose, seen.next_step) == (500, 0)
    own = ledger.spending(b"", "health-research", "ana", since, step(1), analyst_since=0)
    assert [one.everybody for one in own.windows] == [100, 100, 0, 100, 100]
    assert (own.lifetime, own.by_analyst.purpose, own.by_analyst.all_purposes, own.next_step) == (100, 100, 100, 1)
    other = ledger.spending(b"", "another", "bo", since)
    assert [one.everybody for one in other.windows] == [0] * 5
    assert not ledger.reserve(charge(77, LIMIT - 499), LIMIT)
    assert ledger.reserve(charge(77, LIMIT - 500), LIMIT)
    take(ledger, *(part(number) for number in range(1, STEPS)))
    assert spent(ledger) == LIMIT, "what others have used meanwhile denies no step"


def windows(rho: int, per_analyst: int | None = None) -> tuple[WindowLimit, ...]:
    return (WindowLimit(window_start("calendar-month", AT), rho, per_analyst),)


@pytest.mark.parametrize(
    ("lifetime", "limits", "delta", "fits"),
    [
        (500, (), 50, True),
        (499, (), 50, False),
        (LIMIT, windows(500), 50, True),
        (LIMIT, windows(499), 50, False),
        (LIMIT, windows(LIMIT, 500), 50, True),
        (LIMIT, windows(LIMIT, 499), 50, False),
        (LIMIT, (), 49, False),
    ],
)
def test_the_whole_run_is_held_against_every_limit(
    ledger: LedgerStore, lifetime: int, limits: tuple[WindowLimit, ...], delta: int, fits: bool
) -> None:
    asked = part(0, atto_delta=10)
    assert ledger.reserve(asked, lifetime, limits, None, delta) is fits
    assert spent(ledger) == (500 if fits else 0)
    assert ledger.spending().atto_delta == (50 if fits else 0)
    assert ledger.reserve(replace(asked, run=None), lifetime, limits, None, delta) or fits, "one step alone would fit"


def test_what_has_not_begun_leaves_no_reservation(ledger: LedgerStore) -> None:
    assert ledger.reserve(part(0), LIMIT)
    ledger.release(nonce(1))
    assert (ledger.reservation_of(RUN), spent(ledger)) == (None, 0)
    assert ledger.reserve(part(0), LIMIT), "it is asked again in another round"
    ledger.begin_charge(nonce(1), b"r" * 16)
    ledger.release(nonce(1))
    assert (ledger.reservation_of(RUN), spent(ledger)) == (None, 0)
    assert said(ledger, "run-release")[-1].endswith("nothing of it had begun; rho 0.0004 was left")


def test_a_step_that_is_given_back_returns_to_its_run(ledger: LedgerStore) -> None:
    take(ledger, part(0))
    assert ledger.reserve(part(1), LIMIT)
    assert held(ledger).parts == 3
    ledger.release(nonce(2))
    assert (held(ledger).parts, spent(ledger)) == (4, 500)
    take(ledger, part(1, request=20))
    assert (held(ledger).parts, spent(ledger)) == (3, 500)


def test_a_repeated_step_is_charged_beyond_and_judged(ledger: LedgerStore) -> None:
    take(ledger, part(0), part(1))
    assert not ledger.reserve(part(1, request=20), 599)
    assert spent(ledger) == 500
    take(ledger, part(1, request=20), limit=600)
    assert (held(ledger).parts, spent(ledger)) == (3, 600)
    # Given back, it returns to nobody: the step is charged still.
    assert ledger.reserve(part(1, request=21), LIMIT)
    ledger.release(nonce(21))
    assert (held(ledger).parts, spent(ledger)) == (3, 600)


def test_of_two_requests_for_one_step_at_a_time_the_one_that_stays_is_paid_once(ledger: LedgerStore) -> None:
    take(ledger, part(0))
    assert ledger.reserve(part(1, request=20), LIMIT)
    assert ledger.reserve(part(1, request=21), LIMIT)
    assert (held(ledger).parts, spent(ledger)) == (3, 600)
    ledger.release(nonce(20))
    assert (held(ledger).parts, spent(ledger)) == (3, 500)
    ledger.release(nonce(21))
    assert (held(ledger).parts, spent(ledger)) == (4, 500)


def test_the_last_step_may_be_repeated_too(ledger: LedgerStore) -> None:
    take(ledger, *(part(number) for number in range(STEPS)))
    take(ledger, part(STEPS - 1, request=30))
    assert (spent(ledger), ledger.reservation_of(RUN)) == (600, None)


def test_a_silo_that_missed_steps_reserves_only_those_that_come(ledger: LedgerStore) -> None:
    take(ledger, part(2))
    assert (held(ledger).parts, spent(ledger)) == (2, 300)
    take(ledger, part(4))
    assert (ledger.reservation_of(RUN), spent(ledger)) == (None, 200)


def test_what_a_silo_learns_without_having_taken_part_is_reserved_no_more(ledger: LedgerStore) -> None:
    take(ledger, part(0))
    ledger.save_run(RUN, KeptState(b"state"), 1)
    assert (held(ledger).parts, spent(ledger)) == (4, 500)
    ledger.save_run(RUN, KeptState(b"state"), 3)
    assert (held(ledger).parts, spent(ledger)) == (2, 300)
    assert ledger.reserve(part(4), LIMIT)
    ledger.save_run(RUN, KeptState(b"state"), STEPS)
    assert (ledger.reservation_of(RUN), spent(ledger)) == (None, 200)
    ledger.release(nonce(5))
    assert (ledger.reservation_of(RUN), spent(ledger)) == (None, 100), "the run is complete without it"


def test_a_price_that_changes_reprices_what_is_left(ledger: LedgerStore) -> None:
    """As when a policy says that a person may be known to more silos."""
    take(ledger, part(0))
    assert not ledger.reserve(part(1, micro_rho=400, each=400), 1_699)
    assert held(ledger).micro_rho == 400
    take(ledger, part(1, micro_rho=400, each=400), limit=1_700)
    assert (held(ledger).micro_rho, spent(ledger)) == (1_200, 1_700)
    take(ledger, part(2, micro_rho=50, each=50), limit=1_700)
    assert (held(ledger).micro_rho, spent(ledger)) == (100, 650)


@pytest.mark.parametrize("each", [0])
def test_without_a_price_nothing_is_reserved(ledger: LedgerStore, each: int) -> None:
    take(ledger, part(0, micro_rho=0, each=each))
    assert (ledger.reservation_of(RUN), spent(ledger)) == (None, 0)


def test_a_run_with_fewer_silos_takes_the_rest_along(ledger: LedgerStore) -> None:
    take(ledger, part(0), part(1))
    assert ledger.reserve(part(2, request=20), 500)
    ledger.release(nonce(20))
    before = ledger.spending(b"", run=step(2, NEXT_RUN, continues=RUN))
    assert (before.lifetime, before.next_step) == (200, 2)
    take(ledger, part(2, request=21, run=NEXT_RUN, continues=RUN), limit=500)
    assert (spent(ledger), ledger.reservation_of(RUN), held(ledger, NEXT_RUN).parts) == (500, None, 2)
    assert said(ledger, "run-release") == [
        "run 72756e2d2d2d2d2d sets nothing aside any more: the run that continues it has it; rho 0.0003 was left"
    ]
    with pytest.raises(AlreadyChargedError):
        ledger.reserve(part(2, request=22), LIMIT)
    ledger.reserve(part(3, request=23, run=NEXT_RUN, continues=RUN), 500)
    ledger.release(nonce(23))
    assert (spent(ledger), held(ledger, NEXT_RUN).parts) == (500, 2), "the run that it continues has begun"


def test_a_run_that_goes_on_twice_keeps_what_the_first_one_began(ledger: LedgerStore) -> None:
    """Of the second nothing has begun: neither of the two that it stands for leaves the rest to others."""
    take(ledger, part(0), part(1))
    third = b"third-run-------"
    ledger.reserve(part(2, request=21, run=NEXT_RUN, continues=RUN), 500)
    ledger.release(nonce(21))
    ledger.reserve(part(2, request=22, run=third, continues=NEXT_RUN), 500)
    ledger.release(nonce(22))
    assert (spent(ledger), held(ledger, third).parts) == (500, 3)
    take(ledger, *(part(number, request=30 + number, run=third, continues=NEXT_RUN) for number in (2, 3, 4)), limit=500)
    assert (spent(ledger), ledger.reservation_of(third)) == (500, None)


def test_the_step_that_failed_in_the_run_before_is_charged_anew(ledger: LedgerStore) -> None:
    take(ledger, part(0), part(1), part(2))
    take(ledger, part(2, request=21, run=NEXT_RUN, continues=RUN), limit=600)
    assert (spent(ledger), held(ledger, NEXT_RUN).parts) == (600, 2)
    take(ledger, *(part(number, request=20 + number, run=NEXT_RUN, continues=RUN) for number in (3, 4)), limit=600)
    assert (spent(ledger), ledger.reservation_of(NEXT_RUN)) == (600, None)


def test_a_first_step_that_another_replaces_is_reserved_once(ledger: LedgerStore) -> None:
    assert ledger.reserve(part(0), LIMIT)
    replaced = ((nonce(1), charge(1).request_hash),)
    assert ledger.reserve(part(0, request=9, run=NEXT_RUN, continues=RUN, replaces=replaced), LIMIT)
    assert (spent(ledger), ledger.reservation_of(RUN), held(ledger, NEXT_RUN).parts) == (500, None, 4)


def test_a_stop_gives_back_what_has_not_begun_and_no_step_is_taken_any_more(ledger: LedgerStore) -> None:
    take(ledger, part(0), part(1))
    assert ledger.reserve(part(2), LIMIT)
    ledger.stop_run(RUN, "diverged", releases=True)
    assert (spent(ledger), ledger.reservation_of(RUN), ledger.why_over(RUN)) == (200, None, "diverged")
    with pytest.raises(AlreadyChargedError):
        ledger.begin_charge(nonce(3), b"r" * 16)
    for later in (part(2), part(2, request=30), part(1, request=31), part(2, request=32, run=NEXT_RUN, continues=RUN)):
        with pytest.raises(AlreadyChargedError, match="over"):
            ledger.reserve(later, LIMIT)
    assert ledger.reserve(charge(77, 800), LIMIT), "what was given back is there for others"
    ledger.stop_run(RUN, "complete", releases=True)
    assert ledger.why_over(RUN) == "diverged", "the first stop stands"
    assert said(ledger, "run-stop") == ["no further step of run 72756e2d2d2d2d2d is taken: diverged"]
    assert said(ledger, "run-release")[-1].endswith("it is over; rho 0.0003 was left")


def test_a_charge_that_has_begun_stays_out_of_a_stop(ledger: LedgerStore) -> None:
    take(ledger, part(0))
    assert ledger.reserve(part(1), LIMIT)
    ledger.begin_charge(nonce(2), b"r" * 16)
    ledger.stop_run(RUN, "diverged", releases=True)
    assert spent(ledger) == 200
    ledger.commit(nonce(2), b"r" * 16)
    assert spent(ledger) == 200


def test_a_run_that_is_given_up_holds_its_reservation_until_a_quorum_says_so(ledger: LedgerStore) -> None:
    take(ledger, part(0))
    ledger.stop_run(RUN, "abandoned", releases=False)
    assert (spent(ledger), ledger.why_over(RUN)) == (500, "abandoned")
    with pytest.raises(AlreadyChargedError, match="over"):
        ledger.reserve(part(1), LIMIT)
    ledger.stop_run(RUN, "abandoned", releases=True)
    assert (spent(ledger), ledger.reservation_of(RUN)) == (100, None)


def test_a_run_that_lies_too_long_is_over(ledger: LedgerStore, clock: Clock) -> None:
    take(ledger, part(0))
    assert held(ledger).until == reserved_until(AT) == AT - AT % DAY_S + 31 * DAY_S
    clock.now = AT + 20 * DAY_S
    take(ledger, part(1, at=clock.now))
    assert held(ledger).until == reserved_until(clock.now), "each step keeps it longer"
    assert reserved_until(clock.now) >= clock.now + RESERVED_S
    clock.now = held(ledger).until - 1
    assert ledger.why_over(RUN) is None
    clock.now += 1
    assert ledger.why_over(RUN) == "expired", "also before anything was written"
    with pytest.raises(AlreadyChargedError, match="over"):
        ledger.reserve(part(2, at=clock.now), LIMIT)
    assert spent(ledger) == 500
    assert ledger.reserve(charge(77, 800, charged_at=clock.now), LIMIT), "it is given back before that is judged"
    assert (spent(ledger), ledger.reservation_of(RUN), ledger.why_over(RUN)) == (LIMIT, None, "expired")


def test_what_lies_too_long_ends_without_a_request(ledger: LedgerStore, clock: Clock) -> None:
    take(ledger, part(0))
    clock.now = reserved_until(AT)
    ledger.expire_runs()
    assert (spent(ledger), ledger.why_over(RUN)) == (100, "expired")
    entries = len(ledger.entries(1000))
    ledger.expire_runs()
    assert len(ledger.entries(1000)) == entries


def test_in_a_later_window_a_run_is_reserved_and_pays_from_its_reservation(ledger: LedgerStore) -> None:
    """What other runs have used of the new month meanwhile denies no step of it, and they see it as spent there."""
    later = AT + 20 * DAY_S
    here, there = (WindowLimit(window_start("calendar-month", at), 600, None) for at in (AT, later))
    assert str(here.since) < str(there.since)
    assert ledger.reserve(part(0), LIMIT, (here,))
    charged(ledger, nonce(1), b"r" * 16)
    assert not ledger.reserve(charge(77, 201, charged_at=later), LIMIT, (there,))
    assert ledger.reserve(charge(77, 200, charged_at=later), LIMIT, (there,))
    for number in range(1, STEPS):
        assert ledger.reserve(part(number, at=later), LIMIT, (there,))
        charged(ledger, nonce(number + 1), b"r" * 16)
    assert ledger.spending(b"", "health-research", "ana", [there.since]).windows[0].everybody == 600


def test_a_first_step_that_waits_past_midnight_is_judged_as_a_whole_again(ledger: LedgerStore) -> None:
    day = AT - AT % DAY_S
    assert ledger.reserve(part(0, at=day), LIMIT, (WindowLimit(day, 500, None),))
    next_day = WindowLimit(day + DAY_S, 499, None)
    assert not ledger.reserve(part(0, at=day + DAY_S), LIMIT, (next_day,))
    assert (spent(ledger), ledger.reservation_of(RUN)) == (0, None)


def test_a_start_keeps_what_begun_runs_have_reserved(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    other = b"unbegun---------"
    with closing(LedgerStore(path, SIGNER, lambda: AT)) as store:
        store.start(bytes(32), 1)
        take(store, part(0))
        assert store.reserve(part(1), LIMIT)
        assert store.reserve(part(0, request=40, run=other, steps=2), LIMIT)
        assert spent(store) == 700
    with closing(LedgerStore(path, SIGNER, lambda: AT)) as store:
        assert store.start(bytes(32), 1) == 2
        assert (spent(store), held(store).parts, store.reservation_of(other)) == (500, 4, None)
        assert store.reserve(part(1), LIMIT)
        store.begin_charge(nonce(2), b"r" * 16)
    with closing(LedgerStore(path, SIGNER, lambda: AT)) as store:
        store.start(bytes(32), 1)
        assert (spent(store), held(store).parts) == (500, 3), "what had begun is spent, and not reserved beside"
        take(store, part(2), part(3))
        assert store.reserve(part(4), LIMIT)
        store.begin_charge(nonce(5), b"r" * 16)
    with closing(LedgerStore(path, SIGNER, lambda: AT)) as store:
        store.start(bytes(32), 1)
        assert (spent(store), store.reservation_of(RUN)) == (500, None), "that was its last step"
        store.audit()


ALTERED = {
    "a reservation that is gone": "DELETE FROM run_reservations",
    "one that was never made": "INSERT INTO run_reservations SELECT zeroblob(16), analyst, purpose, policy_hash, silos,"
    " continues, steps, next_step, each_micro_rho, each_atto_delta, until, first_month, last_month FROM"
    " run_reservations",
    "how many steps are left": "UPDATE run_reservations SET next_step = next_step + 1",
    "its price": "UPDATE run_reservations SET each_micro_rho = 1",
    "how long it lasts": "UPDATE run_reservations SET until = until - 86400",
    "whose it is": "UPDATE run_reservations SET analyst = 'bo'",
    "a run that is over": "DELETE FROM ended_runs",
    "why a run is over": "UPDATE ended_runs SET why = 'complete'",
    "the trigger of a total": "DROP TRIGGER IF EXISTS run_releases",
}


@pytest.mark.parametrize("change", ALTERED)
@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_reservation_or_a_stop_that_was_altered_is_noticed(tmp_path: Path, change: str, is_restarted: bool) -> None:
    path = tmp_path / "altered.sqlite"
    with closing(LedgerStore(path, SIGNER, lambda: AT)) as store:
        take(store, part(0), part(0, request=40, run=NEXT_RUN))
        store.stop_run(NEXT_RUN, "diverged", releases=True)
        if is_restarted:
            store.start(bytes(32), 1)
        database = database_of(store).connection
        triggers = database.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        kept = "" if "DROP" in ALTERED[change] else ";".join(sql for _, sql in triggers)
        if "DROP" not in ALTERED[change]:
            database.executescript("".join(f"DROP TRIGGER {name};" for name, _ in triggers))
        database.executescript(ALTERED[change])
        database.executescript(  # whoever can do that makes the totals fit
            "DELETE FROM by_day; DELETE FROM by_month; UPDATE lifetime SET micro_rho ="
            f" (SELECT sum(micro_rho) FROM ({COUNTED})); INSERT INTO by_day SELECT purpose, at / {DAY_S}, analyst,"
            f" sum(micro_rho) FROM ({COUNTED}) GROUP BY 1, 2, 3; INSERT INTO by_month SELECT purpose, first_month,"
            f" last_month, analyst, sum(micro_rho) FROM ({COUNTED}) GROUP BY 1, 2, 3, 4"
        )
        database.executescript(kept)
        with pytest.raises(LedgerError, match=r"1 runs|2 runs|triggers"):
            store.audit()


def test_an_audit_beside_a_model_keeps_it_no_longer(ledger: LedgerStore, clock: Clock) -> None:
    ledger.save_run(RUN, KeptState(b"a model"))
    clock.now = AT + 9 * DAY_S
    ledger.save_run(RUN, KeptState(b"a model with an audit"), is_learned=False)
    assert ledger.load_run(RUN) == KeptState(b"a model with an audit")
    assert erased(ledger, Due(models=AT)) == 0
    assert erased(ledger, Due(models=AT + 1)) == 1
    ledger.save_run(RUN, KeptState(b"a model"))
    clock.now = AT + 20 * DAY_S
    ledger.save_run(RUN, KeptState(b"its next round"))
    assert erased(ledger, Due(models=AT + 19 * DAY_S)) == 0


def test_the_entries_of_what_is_reserved_are_not_erased(ledger: LedgerStore, clock: Clock) -> None:
    ledger.start(bytes(32), 1)
    take(ledger, part(0))
    clock.now += 10 * DAY_S
    take(ledger, charge(77, 10, charged_at=clock.now))
    due = Due(audit=clock.now - 5 * DAY_S)
    erased(ledger, due)
    assert said(ledger, "run-reservation")
    ledger.stop_run(RUN, "diverged", releases=True)
    assert erased(ledger, due)
    assert not said(ledger, "run-reservation")
    assert ledger.why_over(RUN) == "diverged"


def test_a_ledger_of_the_sixth_format_goes_on_with_its_runs(tmp_path: Path) -> None:
    path = tmp_path / "sixth.sqlite"
    with closing(LedgerStore(path, SIGNER, lambda: AT)) as store:
        take(store, part(0, each=0))
        store.start(bytes(32), 1)
        connection = database_of(store).connection
        older = "ALTER TABLE runs DROP COLUMN numbers; PRAGMA user_version = 6"
        connection.executescript(f"DROP TABLE run_reservations; DROP TABLE ended_runs; {older}")
    with closing(LedgerStore(path, SIGNER, lambda: AT)) as store:
        assert database_of(store).version == VERSION
        store.audit()
        take(store, part(1))
        assert (spent(store), held(store).parts) == (500, 3)
        store.audit()


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_nothing_is_paid_twice_and_nothing_beyond_the_limit(tmp_path: Path, seed: int) -> None:
    """Random requests, rounds that fail, deaths and stops, held against a plain model after each."""
    chance = random.Random(seed)  # noqa: S311
    path, runs = tmp_path / "random.sqlite", [bytes([65 + number]) * 16 for number in range(3)]
    state: dict[bytes, tuple[bytes, int, str]] = {}  # by nonce: the run, the step, and the state of its charge
    over: set[bytes] = set()
    store = LedgerStore(path, SIGNER, lambda: AT)
    try:
        for number in range(1, 150):
            run, of_step = chance.choice(runs), chance.randrange(STEPS)
            begun = [one for one in state.values() if one[0] == run]
            of_step = chance.choice([of_step, max((one[1] for one in begun), default=-1) + 1]) % STEPS
            name = chance.choice([*state, nonce(number)])
            action = chance.choice(["reserve", "reserve", "reserve", "begin", "commit", "release", "die", "stop"])
            match action:
                case "reserve":
                    before = spent(store)
                    is_given = False
                    if run in over:
                        with pytest.raises(AlreadyChargedError):
                            store.reserve(part(of_step, number, run=run), LIMIT)
                    else:
                        is_given = store.reserve(part(of_step, number, run=run), LIMIT)
                    if is_given:
                        state[nonce(number)] = run, of_step, "reserved"
                    else:
                        assert spent(store) == before
                case "begin" if name in state and state[name][2] == "reserved":
                    store.begin_charge(name, b"r" * 16)
                    state[name] = *state[name][:2], "charging"
                case "commit" if name in state and state[name][2] == "charging":
                    store.commit(name, b"r" * 16)
                    state[name] = *state[name][:2], "committed"
                case "release" if name in state and state[name][2] != "committed":
                    store.release(name)
                    del state[name]
                case "die" if not chance.randrange(4):
                    store.close()
                    store = LedgerStore(path, SIGNER, lambda: AT)
                    store.start(bytes(32), 1)
                    state = {one: (*held[:2], "committed") for one, held in state.items() if held[2] != "reserved"}
                case "stop" if not chance.randrange(8) and store.reservation_of(run) is not None:
                    store.stop_run(run, "diverged", releases=True)
                    over.add(run)
                    state = {one: held for one, held in state.items() if held[0] != run or held[2] != "reserved"}
                case _:
                    continue
            charges = len(state) * EACH
            reserved = sum(one.micro_rho for one in store.reservations())
            assert spent(store) == charges + reserved <= LIMIT
            for one in runs:
                steps = {of for run, of, _ in state.values() if run == one}
                found = store.reservation_of(one)
                if one in over or not steps:
                    assert found is None
                elif found is not None:
                    assert found.parts <= STEPS - 1 - max(steps), "what has begun is reserved no more"
            store.audit()
    finally:
        store.close()


def test_totals_that_travel_with_a_checkpoint_have_no_reservation(ledger: LedgerStore) -> None:
    """Or a ledger that is put back from a backup would book as spent what may never be."""
    take(ledger, part(0))
    database = database_of(ledger)
    with database.reading():
        assert totals_of(database, AT, ()).micro_rho == {"health-research": 100}
