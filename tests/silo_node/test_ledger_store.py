"""The ledger file: no sequence of calls, crashes or rivals spends more than the limit or forgets a spend."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from crypto.keys import Secret, SigningKey
from policies.budget.accountant import ORDERS, cover
from policies.budget.ledger import (
    ALL_MONTHS,
    Charge,
    KeptState,
    Ledger,
    Months,
    RunStep,
    Spending,
    WindowLimit,
    WindowSpending,
)
from policies.errors import AlreadyChargedError, LedgerError
from silo_node.ledger.events import worded
from silo_node.ledger.log import Signer
from silo_node.ledger.store import LedgerStore
from tests.harness.owner_home import charged

LIMIT = 1_000
SIGNER = Signer("north", "fed", SigningKey(Secret(bytes(range(32)))))


def opened(path: Path) -> LedgerStore:
    return LedgerStore(path, SIGNER)


def nonce(number: int) -> bytes:
    return number.to_bytes(16, "big")


def charge(number: int = 1, micro_rho: int = 100, **changes: Any) -> Charge:
    fields: dict[str, Any] = {
        "nonce": nonce(number),
        "request_hash": bytes([number % 256]) * 32,
        "analyst": "ana",
        "purpose": "health-research",
        "micro_rho": micro_rho,
        "policy_hash": bytes(32),
        "charged_at": 1_800_000_000,
    }
    return Charge(**fields | changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[LedgerStore]:
    with closing(opened(path)) as store:
        yield store


def test_a_new_ledger_is_empty(ledger: LedgerStore) -> None:
    as_ledger: Ledger = ledger  # mypy holds it against the protocol
    assert as_ledger.spending() == Spending(lifetime=0)
    assert ledger.history() == []
    assert not ledger.is_charged(nonce(1))


def test_a_reservation_counts_at_once_and_a_commit_does_not_count_again(ledger: LedgerStore) -> None:
    assert ledger.reserve(charge(1, 300), LIMIT)
    assert ledger.spending().lifetime == 300
    assert not ledger.is_charged(nonce(1))
    charged(ledger, nonce(1), b"r" * 16)
    assert ledger.spending().lifetime == 300
    assert ledger.is_charged(nonce(1))


def test_the_same_reservation_is_made_once(ledger: LedgerStore) -> None:
    assert ledger.reserve(charge(1, 600), LIMIT)
    assert ledger.reserve(charge(1, 600), LIMIT)  # although 600 more would exceed the limit
    assert ledger.spending().lifetime == 600


@pytest.mark.parametrize("changes", [{"request_hash": b"x" * 32}, {"micro_rho": 99}, {"micro_rho": 101}])
@pytest.mark.parametrize("is_committed", [False, True], ids=["reserved", "committed"])
def test_a_nonce_belongs_to_one_request_at_one_price(
    ledger: LedgerStore, changes: dict[str, Any], is_committed: bool
) -> None:
    ledger.reserve(charge(1), LIMIT)
    if is_committed:
        charged(ledger, nonce(1), b"r" * 16)
    with pytest.raises(AlreadyChargedError):
        ledger.reserve(charge(1, **changes) if "micro_rho" not in changes else charge(1, changes["micro_rho"]), LIMIT)
    assert ledger.spending().lifetime == 100


def test_an_answered_request_is_not_reserved_again(ledger: LedgerStore) -> None:
    ledger.reserve(charge(1), LIMIT)
    charged(ledger, nonce(1), b"r" * 16)
    with pytest.raises(AlreadyChargedError):
        ledger.reserve(charge(1), LIMIT)


def test_the_limit_is_reached_and_never_exceeded(ledger: LedgerStore) -> None:
    assert ledger.reserve(charge(1, 999), LIMIT)
    assert not ledger.reserve(charge(2, 2), LIMIT)
    assert ledger.spending().lifetime == 999
    assert ledger.reserve(charge(3, 1), LIMIT)
    assert not ledger.reserve(charge(4, 1), LIMIT)
    assert len(ledger.history()) == 2


def test_a_refused_charge_may_be_reserved_when_there_is_room(ledger: LedgerStore) -> None:
    ledger.reserve(charge(1, 999), LIMIT)
    assert not ledger.reserve(charge(2, 2), LIMIT)
    ledger.release(nonce(1))
    assert ledger.reserve(charge(2, 2), LIMIT)


def test_committed_charges_count_against_the_limit(ledger: LedgerStore) -> None:
    ledger.reserve(charge(1, 999), LIMIT)
    charged(ledger, nonce(1), b"r" * 16)
    assert not ledger.reserve(charge(2, 2), LIMIT)


def test_a_charge_is_committed_once(ledger: LedgerStore) -> None:
    ledger.reserve(charge(1), LIMIT)
    charged(ledger, nonce(1), b"r" * 16)
    for round_id in (b"r" * 16, b"s" * 16):
        with pytest.raises(AlreadyChargedError):
            charged(ledger, nonce(1), round_id)


def test_what_was_not_reserved_cannot_be_committed(ledger: LedgerStore) -> None:
    with pytest.raises(AlreadyChargedError):
        charged(ledger, nonce(1), b"r" * 16)
    ledger.reserve(charge(1), LIMIT)
    ledger.release(nonce(1))
    with pytest.raises(AlreadyChargedError):
        charged(ledger, nonce(1), b"r" * 16)
    assert not ledger.is_charged(nonce(1))


def test_a_release_gives_back_a_reservation_only(ledger: LedgerStore) -> None:
    ledger.release(nonce(9))  # nothing to give back
    ledger.reserve(charge(1), LIMIT)
    ledger.reserve(charge(2, 50), LIMIT)
    ledger.release(nonce(1))
    assert ledger.spending().lifetime == 50
    charged(ledger, nonce(2), b"r" * 16)
    ledger.release(nonce(2))
    assert ledger.spending().lifetime == 50
    assert ledger.is_charged(nonce(2))


def test_a_start_releases_what_was_not_committed_and_keeps_what_was_committed(ledger: LedgerStore) -> None:
    for number in (1, 2, 3):
        ledger.reserve(charge(number), LIMIT)
    charged(ledger, nonce(2), b"r" * 16)
    assert ledger.start(bytes(32), 1) == 2
    assert ledger.spending().lifetime == 100
    assert ledger.is_charged(nonce(2))
    assert ledger.start(bytes(32), 1) == 0


def test_spending_excluding_a_charge(ledger: LedgerStore) -> None:
    ledger.reserve(charge(1, 100), LIMIT)
    ledger.reserve(charge(2, 30), LIMIT)
    charged(ledger, nonce(2), b"r" * 16)
    assert ledger.spending(excluding_nonce=nonce(1)).lifetime == 30
    assert ledger.spending(excluding_nonce=nonce(2)).lifetime == 100
    assert ledger.spending(excluding_nonce=nonce(3)).lifetime == 130


def test_one_survivor_set_is_signed_in_a_round(ledger: LedgerStore) -> None:
    assert ledger.record_survivors(b"r" * 16, b"a" * 32)
    assert ledger.record_survivors(b"r" * 16, b"a" * 32)
    assert not ledger.record_survivors(b"r" * 16, b"b" * 32)
    assert ledger.record_survivors(b"r" * 16, b"a" * 32)  # the first one stands
    assert ledger.record_survivors(b"s" * 16, b"b" * 32)


def test_charges_are_listed(ledger: LedgerStore) -> None:
    ledger.reserve(charge(1, 100, analyst="ana"), LIMIT)
    ledger.reserve(charge(2, 30, analyst="bo", purpose="billing"), LIMIT)
    charged(ledger, nonce(2), b"r" * 16)
    assert {(row.analyst, row.purpose, row.micro_rho, row.is_committed) for row in ledger.history()} == {
        ("ana", "health-research", 100, False),
        ("bo", "billing", 30, True),
    }


@pytest.mark.parametrize("changes", [{"micro_rho": -5}, {"nonce": b"short"}, {"atto_delta": -1}, {"curve": (1,)}])
def test_a_charge_that_cannot_be_is_an_error_and_leaves_nothing(ledger: LedgerStore, changes: dict[str, Any]) -> None:
    with pytest.raises((LedgerError, ValueError)):
        ledger.reserve(charge(**{"number": 1} | changes), LIMIT)
    assert ledger.history() == []
    assert ledger.reserve(charge(2), LIMIT)  # and the ledger goes on


def test_everything_survives_closing_and_opening(path: Path) -> None:
    with closing(opened(path)) as ledger:
        ledger.reserve(charge(1), LIMIT)
        ledger.reserve(charge(2, 50), LIMIT)
        charged(ledger, nonce(2), b"r" * 16)
        ledger.record_survivors(b"r" * 16, b"a" * 32)
    with closing(opened(path)) as again:
        assert again.spending().lifetime == 150
        assert again.is_charged(nonce(2))
        assert not again.is_charged(nonce(1))
        assert not again.record_survivors(b"r" * 16, b"b" * 32)
        with pytest.raises(AlreadyChargedError):
            charged(again, nonce(2), b"s" * 16)


def test_the_files_are_their_owner_s_alone(path: Path) -> None:
    before = os.umask(0o022)
    try:
        with closing(opened(path)) as ledger:
            ledger.reserve(charge(1), LIMIT)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert path.name in modes
    assert set(modes.values()) == {0o600}, modes


def test_a_ledger_that_others_could_read_is_closed_to_them(path: Path) -> None:
    opened(path).close()
    path.chmod(0o644)
    opened(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def scribble(path: Path) -> None:
    """Overwrite the middle of the file's pages."""
    raw = bytearray(path.read_bytes())
    raw[4096 : 4096 + 2000] = b"\xaa" * 2000
    path.write_bytes(raw)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: 4096 + 100])


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 500)


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE notes (text TEXT)")


def foreign_charges(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE charges (amount INTEGER)")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage", [scribble, cut, garbage, newer, foreign, foreign_charges, directory], ids=lambda damage: damage.__name__
)
def test_what_is_no_sound_ledger_is_refused(path: Path, damage: Callable[[Path], None]) -> None:
    with closing(opened(path)) as ledger:
        for number in range(50):
            ledger.reserve(charge(number, 1), LIMIT)
    damage(path)
    with pytest.raises(LedgerError) as caught:
        opened(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_closed_ledger_is_an_error_not_an_empty_one(path: Path) -> None:
    ledger = opened(path)
    ledger.close()
    for call in (
        ledger.spending,
        lambda: ledger.is_charged(nonce(1)),
        lambda: ledger.reserve(charge(1), LIMIT),
        lambda: ledger.record_survivors(b"r" * 16, b"a" * 32),
    ):
        with pytest.raises(LedgerError):
            call()


_VICTIM = """
import sys, time
from pathlib import Path
from policies.budget.ledger import Charge
from tests.harness.owner_home import charged
from tests.silo_node.test_ledger_store import opened

ledger = opened(Path(sys.argv[1]))
first, step = int(sys.argv[2]), sys.argv[3]
for number in range(first, first + 3):
    nonce = number.to_bytes(16, "big")
    ledger.reserve(Charge(nonce, bytes(32), "ana", "p", 10, bytes(32), 0), 1000)
    if step != "reserve":
        charged(ledger, nonce, nonce)
    if step == "split":
        ledger.record_survivors(nonce, bytes(32))
print("done", flush=True)
time.sleep(60)
"""


@pytest.mark.process
def test_a_killed_process_has_forgotten_nothing(path: Path) -> None:
    root = Path(__file__).parents[2]
    for index, step in enumerate(["reserve", "commit", "split"]):
        first = 1 + 3 * index
        with subprocess.Popen(
            [sys.executable, "-c", _VICTIM, str(path), str(first), step], stdout=subprocess.PIPE, cwd=root
        ) as victim:
            assert victim.stdout is not None
            assert victim.stdout.readline() == b"done\n"
            os.kill(victim.pid, signal.SIGKILL)
        assert victim.returncode == -signal.SIGKILL
        with closing(opened(path)) as ledger:
            assert ledger.spending().lifetime == 30 * (index + 1)
            for number in range(first, first + 3):
                assert ledger.is_charged(nonce(number)) == (step != "reserve")
                assert ledger.record_survivors(nonce(number), b"x" * 32) == (step != "split")


def test_a_killed_process_leaves_half_a_change_behind_never(path: Path) -> None:
    """The limit is checked and the charge is written in one transaction: killed in between, nothing is there."""
    with closing(opened(path)) as ledger:
        ledger.reserve(charge(1), LIMIT)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")
    raw.execute("UPDATE lifetime SET micro_rho = 1")
    raw.close()  # without COMMIT
    with closing(opened(path)) as again:
        assert again.spending().lifetime == 100


def test_rivals_together_never_exceed_the_limit(path: Path) -> None:
    """Four threads, each on its own connection, ask 40 times for 50; only LIMIT / 50 of 160 can succeed."""
    stores = [opened(path) for _ in range(4)]
    granted: list[int] = []
    failures: list[BaseException] = []
    start = threading.Barrier(4)

    def reserve(worker: int) -> None:
        start.wait()
        try:
            for number in range(40):
                if stores[worker].reserve(charge(1 + 40 * worker + number, 50), LIMIT):
                    granted.append(worker)
        except BaseException as err:
            failures.append(err)

    threads = [threading.Thread(target=reserve, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(granted) == LIMIT // 50
    assert {store.spending().lifetime for store in stores} == {LIMIT}
    for store in stores:
        store.close()


def test_rivals_commit_a_charge_once_together(path: Path) -> None:
    stores = [opened(path) for _ in range(4)]
    stores[0].reserve(charge(1), LIMIT)
    outcomes: list[str] = []
    start = threading.Barrier(4)

    def commit(worker: int) -> None:
        start.wait()
        try:
            charged(stores[worker], nonce(1), bytes([worker]) * 16)
        except AlreadyChargedError:
            outcomes.append("refused")
        else:
            outcomes.append("committed")

    threads = [threading.Thread(target=commit, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["committed", "refused", "refused", "refused"]
    for store in stores:
        store.close()


class LedgerModel(RuleBasedStateMachine):
    """The ledger beside a dictionary that does the same."""

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory()
        self.ledger = opened(Path(self.home.name) / "ledger.sqlite")
        self.held: dict[int, tuple[int, bool]] = {}

    def teardown(self) -> None:
        self.ledger.close()
        self.home.cleanup()

    @rule(number=st.integers(1, 4), micro_rho=st.sampled_from([100, 400, 700]))
    def reserve(self, number: int, micro_rho: int) -> None:
        if number in self.held and self.held[number] != (micro_rho, False):
            with pytest.raises(AlreadyChargedError):
                self.ledger.reserve(charge(number, micro_rho), LIMIT)
            return
        fits = number in self.held or sum(price for price, _ in self.held.values()) + micro_rho <= LIMIT
        assert self.ledger.reserve(charge(number, micro_rho), LIMIT) == fits
        if fits:
            self.held[number] = (micro_rho, False)

    @rule(number=st.integers(1, 4))
    def commit(self, number: int) -> None:
        if number in self.held and not self.held[number][1]:
            charged(self.ledger, nonce(number), bytes(16))
            self.held[number] = (self.held[number][0], True)
        else:
            with pytest.raises(AlreadyChargedError):
                charged(self.ledger, nonce(number), bytes(16))

    @rule(number=st.integers(1, 4))
    def release(self, number: int) -> None:
        self.ledger.release(nonce(number))
        if number in self.held and not self.held[number][1]:
            del self.held[number]

    @invariant()
    def agrees(self) -> None:
        total = sum(price for price, _ in self.held.values())
        assert self.ledger.spending().lifetime == total <= LIMIT
        for number in range(1, 5):
            assert self.ledger.is_charged(nonce(number)) == self.held.get(number, (0, False))[1]
            assert (
                self.ledger.spending(excluding_nonce=nonce(number)).lifetime
                == total - self.held.get(number, (0, False))[0]
            )


TestLedgerModel = LedgerModel.TestCase
TestLedgerModel.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_a_ledger_of_the_first_format_is_kept_and_changed_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE charges (nonce BLOB PRIMARY KEY CHECK (length(nonce) = 16), request_hash BLOB NOT NULL,"
            " analyst TEXT NOT NULL, purpose TEXT NOT NULL, micro_rho INTEGER NOT NULL CHECK (micro_rho > 0),"
            " policy_hash BLOB NOT NULL, state TEXT NOT NULL CHECK (state IN ('reserved', 'committed')),"
            " round_id BLOB, charged_at INTEGER NOT NULL, CHECK ((state = 'committed') = (round_id IS NOT NULL))"
            ") STRICT, WITHOUT ROWID;"
            "CREATE TABLE splits (round_id BLOB PRIMARY KEY, split_hash BLOB NOT NULL) STRICT, WITHOUT ROWID;"
            "INSERT INTO charges VALUES (zeroblob(16), x'01', 'ana', 'research', 70, x'02', 'committed', x'03', 5);"
            "INSERT INTO splits VALUES (x'03', x'04'); PRAGMA user_version = 1;"
        )
    for _ in range(2):
        store = opened(path)
        assert store.spending().lifetime == 70
        assert store.is_charged(bytes(16))
        assert not store.record_survivors(b"\x03", b"\x05")
        assert store.load_run(bytes(16)) is None or store.load_run(bytes(16)) == KeptState(b"state")
        store.save_run(bytes(16), KeptState(b"state"))
        store.close()


def test_a_run_has_a_limit_of_its_own_for_each_analyst(ledger: LedgerStore) -> None:
    run = RunStep(bytes([9]) * 16, bytes(32), 0)
    assert ledger.reserve(charge(1, 60, run=run), 1000, (), 100)
    assert not ledger.reserve(charge(2, 41, run=run), 1000, (), 100)
    assert ledger.reserve(charge(2, 40, run=run), 1000, (), 100)
    assert ledger.reserve(charge(3, 41, run=replace(run, run=bytes(16))), 1000, (), 100)
    assert ledger.spending(analyst="ana", run=run).run == 100
    assert ledger.spending(analyst="bo", run=run).run == 0


def months(first: int, last: int | None = None) -> Months:
    return Months(24_000 + first, 24_000 + (first if last is None else last))


def test_a_limit_on_months_of_data_counts_by_month_and_the_lifetime_all(ledger: LedgerStore) -> None:
    def window(asked: Months) -> list[WindowLimit]:
        return [WindowLimit(asked, 100, 80)]

    assert ledger.reserve(charge(1, 80, months=months(1)), LIMIT, window(months(1)))
    assert not ledger.reserve(charge(2, 21, months=months(1), analyst="bo"), LIMIT, window(months(1)))
    assert ledger.reserve(charge(2, 20, months=months(1), analyst="bo"), LIMIT, window(months(1)))
    assert ledger.reserve(charge(3, 80, months=months(2)), LIMIT, window(months(2)))
    assert not ledger.reserve(charge(4, 21, months=months(0, 2), analyst="bo"), LIMIT, window(months(0, 2)))
    assert not ledger.reserve(charge(4, 1, months=months(0, 2)), LIMIT, window(months(0, 2))), "one month is full"
    assert ledger.reserve(charge(5, 80, months=months(3, 5)), LIMIT, window(months(3, 5)))
    assert not ledger.reserve(charge(6, 1, months=months(5), analyst="ana"), LIMIT, window(months(5)))
    assert not ledger.reserve(charge(7, 21, analyst="bo"), LIMIT, window(ALL_MONTHS)), "all months are each of them"
    assert ledger.spending().lifetime == 260, "the lifetime adds over all months"
    assert not ledger.reserve(charge(8, 741, months=months(9)), LIMIT, [])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(1, 50), st.booleans()), max_size=8),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_the_fullest_month_is_found(spent: list[tuple[int, int, int, bool]], first: int, more: int) -> None:
    with tempfile.TemporaryDirectory() as home, closing(opened(Path(home) / "ledger.sqlite")) as store:
        for number, (begin, length, micro_rho, is_ana) in enumerate(spent, 1):
            one = charge(number, micro_rho, months=months(begin, begin + length), analyst="ana" if is_ana else "bo")
            assert store.reserve(one, 10**6)
        asked = months(first, first + more)
        (found,) = store.spending(purpose="health-research", analyst="ana", since=[asked]).windows
        every = [
            (
                sum(price for begin, length, price, _ in spent if begin <= month <= begin + length),
                sum(price for begin, length, price, own in spent if own and begin <= month <= begin + length),
            )
            for month in range(first, first + more + 1)
        ]
        assert found == WindowSpending(max(one for one, _ in every), max(own for _, own in every))
        if spent:
            without = store.spending(nonce(1), "health-research", "ana", [asked]).windows[0]
            assert without.everybody <= found.everybody


def test_curves_are_added_order_by_order_and_survive(path: Path) -> None:
    steep = tuple(5_000 if order > 20 else 550_000 for order in ORDERS)
    flat = tuple(7 * order * (3 if order > 500 else 1) for order in ORDERS)
    both = tuple(one + other for one, other in zip(steep, flat, strict=True))
    with closing(opened(path)) as store:
        assert store.reserve(charge(1, 50), 10**6)
        assert store.reserve(charge(2, cover(steep), curve=steep), 10**6)
        assert not store.reserve(charge(3, cover(flat), curve=flat), 49 + cover(both))
        assert store.reserve(charge(3, cover(flat), curve=flat), 50 + cover(both))
        assert store.spending().lifetime == 50 + cover(both) < 50 + cover(steep) + cover(flat)
        assert store.spending(excluding_nonce=nonce(2)).lifetime == 50 + cover(flat)
        assert store.spending(excluding_nonce=nonce(2)).curve == flat
        charged(store, nonce(2), bytes(16))
        store.release(nonce(3))
        assert store.spending().lifetime == 50 + cover(steep)
        store.audit()
    with closing(opened(path)) as again:
        assert again.spending() == Spending(50 + cover(steep), curve=steep)


def test_deltas_are_added_up(ledger: LedgerStore) -> None:
    assert not ledger.reserve(charge(1, 5, atto_delta=10), LIMIT)
    assert ledger.reserve(charge(1, 5, atto_delta=10), LIMIT, delta_limit=15)
    assert not ledger.reserve(charge(2, 5, atto_delta=6), LIMIT, delta_limit=15)
    assert ledger.reserve(charge(2, 5, atto_delta=5), LIMIT, delta_limit=15)
    assert ledger.spending().atto_delta == 15
    assert ledger.spending(excluding_nonce=nonce(1)).atto_delta == 5
    ledger.release(nonce(1))
    assert ledger.spending().atto_delta == 5


def test_a_window_that_begins_within_a_day_counts_charge_by_charge(ledger: LedgerStore) -> None:
    day = 1_800_000_000 - 1_800_000_000 % 86_400
    for number, at in enumerate((day - 1, day, day + 100, day + 200), 1):
        ledger.reserve(charge(number, 10**number // 10, charged_at=at), 10**6)
    for since, expected in ((day, 1110), (day + 100, 1100), (day + 101, 1000), (day - 86_400, 1111)):
        assert ledger.spending(purpose="health-research", since=[since]).windows[0].everybody == expected
    assert ledger.spending(nonce(3), "health-research", "ana", [day, day + 101]).windows == (
        WindowSpending(1010, 1010),
        WindowSpending(1000, 1000),
    )


def test_more_silos_price_anew_what_was_charged_and_fewer_give_nothing_back(path: Path) -> None:
    def start(version: int, max_silos: int) -> LedgerStore:
        store = opened(path)
        store.start(bytes([version]) * 32, version, max_silos=max_silos)
        return store

    def spend(store: LedgerStore, number: int, version: int, micro_rho: int = 100, **changes: Any) -> None:
        assert store.reserve(charge(number, micro_rho, policy_hash=bytes([version]) * 32, **changes), 10_000)
        charged(store, nonce(number), nonce(number))

    with closing(start(1, 1)) as store:
        spend(store, 1, 1)
        spend(store, 2, 1, analyst="eve", charged_at=1_700_000_000, run=RunStep(b"r" * 16, b"j" * 32, 0))
    with closing(start(1, 1)) as store:
        assert store.spending().lifetime == 200, "a restart prices nothing anew"
    with closing(start(2, 2)) as store:
        assert store.spending().lifetime == 800, "four times as much"
        since = store.spending(purpose="health-research", analyst="ana", since=(1_800_000_000 // 86_400 * 86_400,))
        assert since.windows == (WindowSpending(400, 400),), "where they were charged"
        assert store.spending(analyst="eve", run=RunStep(b"r" * 16, b"j" * 32, 1)).run == 400
        assert not store.reserve(charge(9, 1), 800), "past the lifetime the silo only refuses"
        spend(store, 3, 2, 400)
    with closing(start(3, 1)) as store:
        assert store.spending().lifetime == 1_200
        spend(store, 4, 3)
    with closing(start(4, 2)) as store:
        assert store.spending().lifetime == 1_600, "only the last was priced for one silo"
    with closing(start(5, 3)) as store:
        assert store.spending().lifetime == 3_600
        assert "rho 0.002 more is spent, as one person may be known to 3 silos" in [
            worded(entry.event) for entry in store.entries(20)
        ]
    with closing(start(5, 3)) as store:
        assert store.audit().entries
        assert store.spending().lifetime == 3_600
