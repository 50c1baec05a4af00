"""A ledger that was put back from a backup: what was spent since is booked before anything is answered."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from aggregator.store import CheckpointStore
from crypto.keys import Secret, SigningKey
from crypto.sealing import SealingKey
from crypto.wire import unverified
from policies.budget.ledger import UNKNOWN, Charge, Checkpoint, Months, RunStep, WindowLimit
from policies.document.policy import Aggregators
from policies.errors import AlreadyChargedError, LedgerError
from silo_node.ledger.checkpoints import Guards, RollbackGuard, UnreachableError
from silo_node.ledger.events import Excused, KeptInForce, Recovered, RosterInForce
from silo_node.ledger.log import Signer
from silo_node.ledger.retention import Due
from silo_node.ledger.store import LedgerStore
from silo_node.ledger.totals import MAX_NONCES, STEP_BYTES, opened
from tests.harness.inside import copied, database_of
from tests.harness.owner_home import charge, charged

ROOT = Secret(bytes(range(32)))
NORTH = Signer("north", "fed", SigningKey(ROOT), SealingKey(ROOT))
NOW = 10_000
MUCH = 10**9
ALL = Aggregators()


class Hub:
    """An aggregator's checkpoints, in reach or not."""

    def __init__(self, place: Path) -> None:
        self.store, self.is_down = CheckpointStore(place, "fed", {"north": NORTH.key.public}), False

    def put_checkpoint(self, envelope: bytes) -> bytes:
        if self.is_down:
            raise ConnectionError
        return self.store.put(envelope)

    def get_checkpoint(self, silo: bytes) -> bytes:
        if self.is_down:
            raise ConnectionError
        return self.store.get(silo.decode())


@pytest.fixture
def hubs(tmp_path: Path) -> tuple[Hub, ...]:
    return tuple(Hub(tmp_path / f"hub-{number}") for number in range(3))


def opening(path: Path, now: int = NOW) -> LedgerStore:
    return LedgerStore(path, NORTH, lambda: now)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerStore]:
    with closing(opening(tmp_path / "ledger.sqlite")) as store:
        yield store


def guards(store: LedgerStore, hubs: tuple[Hub, ...], tolerated: Aggregators = ALL) -> Guards:
    found = {f"hub-{number}": RollbackGuard(f"hub-{number}", hub, store, NORTH) for number, hub in enumerate(hubs)}
    return Guards(found, tolerated)


def keep(store: LedgerStore, *hubs: Hub) -> None:
    for hub in hubs:
        hub.put_checkpoint(store.checkpoint() or b"")


def spend(store: LedgerStore, *numbers: int, at: int = NOW) -> None:
    for number in numbers:
        assert store.reserve(charge(number, at), MUCH)
        charged(store, charge(number, at).nonce, bytes(16))


def backup(store: LedgerStore, place: Path) -> Path:
    return copied(store, place)


def waits(store: LedgerStore) -> bool:
    return store.is_put_back


def put_back(place: Path, now: int = NOW + 100) -> LedgerStore:
    store = opening(place, now)
    store.put_back(NOW)
    store.start(bytes(32), 1)
    return store


def test_what_was_spent_since_the_backup_is_booked(ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path) -> None:
    spend(ledger, 1, 2)
    older = backup(ledger, tmp_path / "older.sqlite")
    spend(ledger, 3, 4, 5)
    assert ledger.reserve(charge(6, NOW), MUCH), "set aside, and never charged"
    keep(ledger, *hubs)
    ledger.release(charge(6, NOW).nonce)
    with closing(put_back(older)) as restored:
        assert waits(restored)
        after = guards(restored, hubs)
        after.compare()
        assert not waits(restored)
        assert restored.spending().lifetime == ledger.spending().lifetime
        assert [row.analyst for row in restored.history()][-1] == UNKNOWN
        purpose = charge(1, NOW).purpose
        for analyst in (charge(1, NOW).analyst, "another"):
            spent = restored.spending(b"", purpose, analyst, (0, NOW + 50, Months(0, 5))).windows
            assert [one.everybody for one in spent[:1]] == [ledger.spending().lifetime]
            booked = ledger.spending().lifetime - 2 * charge(1, NOW).micro_rho
            assert spent[1].everybody == spent[1].analyst == booked, "it counts as spent now, by anybody"
            assert spent[2].everybody >= booked
        for number in (3, 4, 5):
            with pytest.raises(AlreadyChargedError):
                restored.reserve(charge(number, NOW), MUCH)
        assert restored.reserve(charge(6, NOW), MUCH)
        restored.audit()
        (event,) = [one.event for one in restored.entries(50) if isinstance(one.event, Recovered)]
        assert (event.given, event.nonces) == (3, 3)
        guards(restored, hubs).hand_over(restored.checkpoint() or b"")
    with closing(opening(older)) as again:
        assert not waits(again)
        guards(again, hubs).compare()
        again.audit()


@pytest.mark.parametrize("since", [(), (1, 2)])
def test_a_backup_of_the_newest_ledger_books_nothing(
    ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path, since: tuple[int, ...]
) -> None:
    ledger.start(bytes(32), 1)
    spend(ledger, *since)
    keep(ledger, *hubs)
    with closing(put_back(backup(ledger, tmp_path / "older.sqlite"))) as restored:
        guards(restored, hubs).compare()
        assert restored.spending() == ledger.spending()
        assert [one.analyst for one in restored.history()] == [one.analyst for one in ledger.history()]


def test_until_enough_aggregators_give_a_checkpoint_nothing_is_answered(
    ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path
) -> None:
    spend(ledger, 1)
    older = backup(ledger, tmp_path / "older.sqlite")
    spend(ledger, 2)
    keep(ledger, *hubs)
    with closing(put_back(older)) as restored:
        hubs[1].is_down = True
        waiting = guards(restored, hubs)
        for _ in range(2):
            with pytest.raises(UnreachableError, match="put back from a backup"):
                waiting.compare()
            with pytest.raises(UnreachableError):
                waiting.hand_over(restored.checkpoint() or b"")
        assert waits(restored)
        assert hubs[0].store.get("north") == ledger.checkpoint()
        lenient = guards(restored, hubs, Aggregators(max_unreachable=1, max_dishonest=0))
        lenient.compare()
        assert restored.spending().lifetime == ledger.spending().lifetime
        hubs[1].is_down = False
        lenient.hand_over(restored.checkpoint() or b"")
        assert not lenient.lagging(restored.checkpoint() or b"")


def test_the_newest_of_different_checkpoints_counts(ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path) -> None:
    older = backup(ledger, tmp_path / "older.sqlite")
    for number, hub in enumerate(hubs):
        spend(ledger, number + 1)
        keep(ledger, hub)
    with closing(put_back(older)) as restored:
        guards(restored, hubs).compare()
        assert restored.spending().lifetime == ledger.spending().lifetime
        newest = unverified(restored.checkpoint() or b"", Checkpoint)
        assert all(unverified(hub.store.get("north"), Checkpoint).line == newest.line for hub in hubs)


def test_the_machine_that_still_runs_stops(ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path) -> None:
    running = guards(ledger, hubs)
    running.compare()
    spend(ledger, 1)
    running.hand_over(ledger.checkpoint() or b"")
    older = backup(ledger, tmp_path / "older.sqlite")
    spend(ledger, 2)
    running.hand_over(ledger.checkpoint() or b"")
    with closing(put_back(older)) as restored:
        guards(restored, hubs).compare()
        spend(ledger, 3, 4, 5, 6, 7)  # longer than the other
        with pytest.raises(LedgerError, match="another copy") as caught:
            running.hand_over(ledger.checkpoint() or b"")
        assert not isinstance(caught.value, UnreachableError)
        spend(restored, 8)
        guards(restored, hubs).hand_over(restored.checkpoint() or b"")


def test_what_the_other_copy_charges_meanwhile_is_booked_too(
    ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path
) -> None:
    """It charges between the answer of an aggregator and the first checkpoint that the copy sends there."""
    running = guards(ledger, hubs)
    running.compare()
    spend(ledger, 1)
    running.hand_over(ledger.checkpoint() or b"")
    older = backup(ledger, tmp_path / "older.sqlite")
    with closing(put_back(older)) as restored:
        restored.recover([unverified(ledger.checkpoint() or b"", Checkpoint)])
        spend(ledger, 2)
        running.hand_over(ledger.checkpoint() or b"")
        guards(restored, hubs).compare()
        assert restored.spending().lifetime == ledger.spending().lifetime
        restored.audit()


def test_of_two_copies_of_one_backup_one_goes_on(ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path) -> None:
    spend(ledger, 1)
    places = [backup(ledger, tmp_path / f"copy-{number}.sqlite") for number in range(2)]
    spend(ledger, 2)
    keep(ledger, *hubs)
    with closing(put_back(places[0])) as one, closing(put_back(places[1])) as two:
        kept = [unverified(hub.store.get("north"), Checkpoint) for hub in hubs]
        two.recover(kept)
        guards(one, hubs).compare()
        spend(two, 3, 4)
        with pytest.raises(LedgerError, match="another copy"):
            guards(two, hubs).compare()
        guards(one, hubs).hand_over(one.checkpoint() or b"")


def test_put_back_twice_nothing_is_forgotten(ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path) -> None:
    first = backup(ledger, tmp_path / "first.sqlite")
    spend(ledger, 1)
    keep(ledger, *hubs)
    lost = ledger.spending().lifetime
    with closing(put_back(first)) as restored:
        guards(restored, hubs).compare()
        second = backup(restored, tmp_path / "second.sqlite")
        spend(restored, 2)
        guards(restored, hubs).hand_over(restored.checkpoint() or b"")
        assert restored.spending().lifetime == 2 * lost
    for place in (second, shutil.copy(second, tmp_path / "third.sqlite")):
        with closing(put_back(Path(place), NOW + 200)) as again:
            guards(again, hubs).compare()
            assert again.spending().lifetime == 2 * lost
            again.audit()
            for number in (1, 2):
                with pytest.raises(AlreadyChargedError):
                    again.reserve(charge(number, NOW), MUCH)


def test_an_aggregator_that_lost_its_disk_needs_a_word_of_the_owner(
    ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path
) -> None:
    spend(ledger, 1)
    ledger.record(Excused(aggregator="hub-0", by="owner"))  # this word was said before the backup was put back
    with closing(put_back(backup(ledger, tmp_path / "older.sqlite"))) as restored:
        with pytest.raises(UnreachableError, match="put back"):
            guards(restored, hubs[:1]).compare()
        restored.record(Excused(aggregator="hub-0", by="owner"))
        after = guards(restored, hubs[:1])
        after.compare()
        after.hand_over(restored.checkpoint() or b"")
        assert restored.spending().lifetime == ledger.spending().lifetime


def test_a_checkpoint_without_totals_lets_nothing_through(
    ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path
) -> None:
    spend(ledger, 1)
    older = backup(ledger, tmp_path / "older.sqlite")
    spend(ledger, 2)
    bare = unverified(ledger.checkpoint() or b"", Checkpoint)
    hubs[0].put_checkpoint(NORTH.checkpoint(bare.count, bare.chain, bare.at))
    with closing(put_back(older)) as restored:
        for _ in range(2):
            with pytest.raises(LedgerError, match="does not have its totals") as caught:
                guards(restored, hubs[:1]).compare()
            assert "newest ledger" in caught.value.hint
        assert waits(restored)
    with closing(put_back(backup(ledger, tmp_path / "newest.sqlite"))) as newest:
        guards(newest, hubs[:1]).compare()  # it is one of this very log


def test_totals_are_of_bounded_size_and_say_from_when_on_they_are_whole(ledger: LedgerStore) -> None:
    for number in range(1, MAX_NONCES + 40):
        spend(ledger, number, at=NOW + number // 2)
    checkpoint = unverified(ledger.checkpoint() or b"", Checkpoint)
    totals = opened(checkpoint, SealingKey(ROOT))
    assert MAX_NONCES - 2 <= len(totals.charged) <= MAX_NONCES
    assert len(ledger.checkpoint() or b"") < 64 << 10, "it fits into a silo's call"
    first = min(number for number in range(1, MAX_NONCES + 40) if charge(number, NOW).nonce in totals.charged)
    assert totals.nonces_since == NOW + first // 2
    with pytest.raises(LedgerError, match="do not open"):
        opened(checkpoint, SealingKey(Secret(bytes(32))))
    for wrong in (checkpoint.count + 1, 0):
        with pytest.raises(LedgerError, match="do not open"):
            opened(checkpoint.model_copy(update={"count": wrong}), SealingKey(ROOT))


def test_an_aggregator_sees_a_length_in_steps(ledger: LedgerStore) -> None:
    lengths = set()
    for number in range(1, 9):
        spend(ledger, number)
        lengths.add(len(unverified(ledger.checkpoint() or b"", Checkpoint).sealed))
    assert len({one % STEP_BYTES for one in lengths}) == 1
    assert len(lengths) == 1


def test_erasing_old_entries_leaves_what_tells_the_copies_apart(
    ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path
) -> None:
    older = backup(ledger, tmp_path / "older.sqlite")
    spend(ledger, 1, 2, 3)
    keep(ledger, *hubs)
    with closing(put_back(older)) as restored:
        guards(restored, hubs).compare()
        guards(restored, hubs).hand_over(restored.checkpoint() or b"")
        line = restored.line
    later = NOW + 90 * 86_400
    with closing(opening(older, later)) as restored:
        restored.start(bytes(32), 1)
        assert restored.erase(Due(audit=later))
        assert not [one for one in restored.entries(99) if isinstance(one.event, Recovered)]
        restored.audit()
        assert restored.line == line
        guards(restored, hubs).compare()
        guards(restored, hubs).hand_over(restored.checkpoint() or b"")
    with closing(opening(older, later)) as restored:
        assert restored.spending().lifetime == ledger.spending().lifetime


def test_a_gap_that_no_entry_explains_is_found(ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path) -> None:
    older = backup(ledger, tmp_path / "older.sqlite")
    spend(ledger, 1, 2, 3)
    keep(ledger, *hubs)
    with closing(put_back(older)) as restored:
        guards(restored, hubs).compare()
        spend(restored, 7)
        database = database_of(restored)
        last = database.execute("SELECT max(seq) FROM log").fetchone()[0]
        for trigger in ("log_never_changes", "log_keeps"):
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute("DELETE FROM log WHERE seq = ?", (last - 1,))
        with pytest.raises(LedgerError, match="follows"):
            restored.audit()


def test_a_run_that_began_before_counts_what_nobody_knows(
    ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path
) -> None:
    def step(number: int, run: bytes, at: int = NOW) -> Charge:
        one = charge(100 + number, at)
        return Charge(
            one.nonce, one.request_hash, one.analyst, one.purpose, 1000, one.policy_hash, at, RunStep(run, run, number)
        )

    run, other = bytes(16), bytes([7]) * 16
    for number in range(4):
        if number == 1:
            older = backup(ledger, tmp_path / "older.sqlite")
        assert ledger.reserve(step(number, run), MUCH, run_limit=5000)
        charged(ledger, step(number, run).nonce, bytes(16))
    keep(ledger, *hubs)
    with closing(put_back(older)) as restored:
        guards(restored, hubs).compare()
        later = NOW + 101
        assert restored.reserve(step(4, run, later), MUCH, run_limit=5000)
        assert not restored.reserve(step(5, run, later), MUCH, run_limit=5000)
        assert restored.reserve(step(6, other, later).__class__(
            bytes([9]) * 16, bytes(32), "ana", "p", 4000, bytes(32), later, RunStep(other, other, 0)
        ), MUCH, run_limit=5000)  # fmt: skip


def test_a_window_of_another_purpose_is_not_touched(ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path) -> None:
    older = backup(ledger, tmp_path / "older.sqlite")
    spend(ledger, 1)
    keep(ledger, *hubs)
    with closing(put_back(older)) as restored:
        guards(restored, hubs).compare()
        other = Charge(bytes(16), bytes(32), "ana", "another", 5, bytes(32), NOW + 100)
        assert restored.reserve(other, MUCH, (WindowLimit(0, 5, 5),))


def test_a_step_without_noise_of_a_run_from_before_the_backup_may_have_left(
    ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path
) -> None:
    # Hope: what a silo contributed without noise after its backup leaves a second time, for the same model.
    run, unknown, later = (bytes([number]) * 16 for number in (7, 8, 9))

    def step(number: int, of: bytes, place: int, at: int) -> Charge:
        return charge(number, at, micro_rho=0, run=RunStep(of, of + of, place))

    assert ledger.reserve(step(1, run, 0, NOW), MUCH)
    charged(ledger, step(1, run, 0, NOW).nonce, bytes(16))
    older = backup(ledger, tmp_path / "older.sqlite")
    for one in (step(2, run, 1, NOW), step(3, unknown, 0, NOW), step(4, unknown, 1, NOW)):
        assert ledger.reserve(one, MUCH)
        charged(ledger, one.nonce, bytes(16))
    keep(ledger, *hubs)
    with closing(put_back(older)) as restored:
        guards(restored, hubs).compare()
        assert restored.has_contributed((run,), 1, bytes(16))
        assert restored.has_contributed((unknown,), 1, bytes(16))
        assert not restored.has_contributed((later,), 0, bytes(16)), "a new run begins"
        assert restored.reserve(step(5, later, 0, NOW + 100), MUCH)
        assert not restored.has_contributed((later,), 1, bytes(16)), "and goes on"
        assert restored.has_contributed((later, run), 1, bytes(16)), "but not from a model of before"
    assert not ledger.has_contributed((run,), 2, bytes(16))


ROSTERS = [RosterInForce(version=number, digest=bytes([number]) * 32) for number in range(3)]
LATER: dict[str, Callable[[LedgerStore], object]] = {
    "the policy in force was version 2 after the backup was made, and here 1": lambda store: store.start(
        b"2" * 32, 2, True, ROSTERS[1]
    ),
    "the members in force were version 2 after the backup was made, and here 1": lambda store: store.start(
        b"1" * 32, 1, True, ROSTERS[2]
    ),
    "the number of forgotten persons was 3 after the backup was made, and here 1": lambda store: store.put_in_force(
        KeptInForce(name="forgotten.json", digest=bytes(32), count=3)
    ),
}


@pytest.mark.parametrize("message", LATER)
def test_what_was_in_force_after_the_backup_is_put_back_first(
    message: str, ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path
) -> None:
    # Hope: a looser policy, a revoked member or a forgotten person comes back with a backup, by the silo's own command.
    ledger.start(b"1" * 32, 1, True, ROSTERS[1])
    ledger.put_in_force(KeptInForce(name="forgotten.json", digest=bytes(32), count=1))
    spend(ledger, 1)
    older = backup(ledger, tmp_path / "older.sqlite")
    LATER[message](ledger)
    keep(ledger, *hubs)
    with closing(opening(older, NOW + 100)) as restored:
        restored.put_back(NOW)
        restored.start(b"1" * 32, 1, True, ROSTERS[1])
        with pytest.raises(LedgerError, match=message) as caught:
            guards(restored, hubs).compare()
        assert caught.value.hint
        assert waits(restored), "it answers nothing"
        LATER[message](restored)
        guards(restored, hubs).compare()
        assert not waits(restored)


def test_an_older_ledger_with_the_policy_of_its_time_does_not_start(
    ledger: LedgerStore, hubs: tuple[Hub, ...], tmp_path: Path
) -> None:
    # Hope: ledger, policy and roster are older together, so the log is no witness; the aggregators' checkpoints are.
    ledger.start(b"1" * 32, 1, True, ROSTERS[1])
    spend(ledger, 1)
    older = backup(ledger, tmp_path / "older.sqlite")
    ledger.start(b"2" * 32, 2, True, ROSTERS[2])
    keep(ledger, *hubs)
    with closing(opening(older, NOW + 100)) as restored, pytest.raises(LedgerError, match="older than its last"):
        guards(restored, hubs).compare()
