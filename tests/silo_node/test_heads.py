"""A ledger that is older than the one the silo signed last is found out by the checkpoint that the aggregator keeps."""

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aggregator.errors import StoreError
from aggregator.store import CheckpointStore
from analyst.demo.hospitals import PURPOSE
from analyst.errors import RoundError
from crypto.errors import CryptoError, LinkError
from crypto.keys import Secret, SigningKey
from crypto.wire import unverified
from policies.budget.ledger import Checkpoint
from policies.document.policy import Aggregators
from policies.errors import LedgerError
from silo_node.ledger.checkpoints import Guards, NoCheckpointError, RollbackGuard, UnreachableError
from silo_node.ledger.log import Signer
from silo_node.ledger.retention import Due
from silo_node.ledger.store import LedgerStore
from silo_node.transport.checkpoint_relay import Ask, CheckpointRelay, DeferredKeeper, Guarding, Objection
from tests.harness.inside import copied, ledger_of
from tests.harness.owner_home import charge, charged, erased
from tests.harness.simulator import KilledError, Simulation, ask

QUESTION = "SELECT COUNT(*) AS n FROM lung"
NORTH = Signer("north", "fed", SigningKey(Secret(bytes(range(32)))))
SOUTH = Signer("south", "fed", SigningKey(Secret(bytes(32))))


@pytest.fixture
def kept(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "heads", "fed", {"north": NORTH.key.public, "south": SOUTH.key.public})


def test_a_checkpoint_replaces_only_a_shorter_one(kept: CheckpointStore) -> None:
    assert kept.get("north") == b""
    first, second = NORTH.checkpoint(3, bytes(32), 5), NORTH.checkpoint(4, bytes(32), 6)
    assert kept.put(first) == first
    assert kept.put(second) == second
    assert kept.put(first) == second
    assert kept.put(NORTH.checkpoint(4, b"x" * 32, 7)) == second, "another history of that length is none"
    assert kept.get("north") == second
    assert kept.get("south") == b""
    assert kept.put(SOUTH.checkpoint(1, bytes(32), 5)) == kept.get("south")


def test_a_checkpoint_that_is_said_to_be_kept_outlives_a_power_loss(
    kept: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's data are synced before it has its name, and its name before the silo is told."""
    done: list[object] = []

    def synced(handle: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{handle}"))
        done.append((place.suffix if place.is_file() else place, len(list((tmp_path / "heads").glob("*.head")))))

    monkeypatch.setattr("aggregator.store.os.fsync", synced)
    kept.put(NORTH.checkpoint(3, bytes(32), 5))
    assert done == [(".partial", 0), (tmp_path / "heads", 1)]


def test_only_the_silo_itself_can_say_how_long_its_ledger_is(kept: CheckpointStore) -> None:
    for forged in (
        Signer("north", "fed", SOUTH.key).checkpoint(9, bytes(32), 5),
        Signer("east", "fed", SOUTH.key).checkpoint(9, bytes(32), 5),
        NORTH.checkpoint(9, bytes(32), 5)[:-1],
        b"",
        bytes(500),
    ):
        with pytest.raises(CryptoError):
            kept.put(forged)
    with pytest.raises(StoreError):
        kept.put(Signer("north", "other", NORTH.key).checkpoint(9, bytes(32), 5))
    assert kept.get("north") == b""
    assert kept.get("../north") == b""


def test_a_server_keeps_the_checkpoint_of_every_charge(exact: Simulation) -> None:
    server = exact.server
    checkpoint = asyncio.run(server.get_checkpoint(b"aspen"))
    assert asyncio.run(server.get_checkpoint(b"\xff\xfe")) == b""
    exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
    after = asyncio.run(server.get_checkpoint(b"aspen"))
    assert after != checkpoint
    assert asyncio.run(server.put_checkpoint(after)) == after


class Keeper:
    """A store of checkpoints that can be away, or lie."""

    def __init__(self, store: CheckpointStore) -> None:
        self.store, self.is_down, self.lie = store, False, b""

    def put_checkpoint(self, envelope: bytes) -> bytes:
        if self.is_down:
            raise KilledError("aggregator")
        return self.lie or self.store.put(envelope)

    def get_checkpoint(self, silo: bytes) -> bytes:
        if self.is_down:
            raise KilledError("aggregator")
        return self.lie or self.store.get(silo.decode())


@pytest.fixture
def keeper(kept: CheckpointStore) -> Keeper:
    return Keeper(kept)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerStore]:
    with closing(LedgerStore(tmp_path / "ledger.sqlite", NORTH, lambda: 500)) as store:
        yield store


def spend(store: LedgerStore, *numbers: int) -> None:
    for number in numbers:
        assert store.reserve(charge(number, 500), 10**6)
        charged(store, charge(number, 500).nonce, bytes(16))


def kept_by(keeper: Keeper, store: LedgerStore) -> RollbackGuard:
    """Return the guard of an aggregator that keeps the newest checkpoint of a ledger."""
    guard = RollbackGuard("hub", keeper, store, NORTH)
    guard.keep(store.checkpoint() or b"")
    return guard


def test_a_ledger_that_goes_on_is_kept(ledger: LedgerStore, keeper: Keeper) -> None:
    for number in range(1, 4):
        spend(ledger, number)
        kept_by(keeper, ledger)
        assert keeper.store.get("north") == ledger.checkpoint()
    RollbackGuard("hub", keeper, ledger, NORTH).compare()


def test_a_restored_older_ledger_is_refused(ledger: LedgerStore, keeper: Keeper, tmp_path: Path) -> None:
    spend(ledger, 1, 2)
    older = tmp_path / "older.sqlite"
    copied(ledger, older)
    spend(ledger, 3)
    kept_by(keeper, ledger)
    with closing(LedgerStore(older, NORTH, lambda: 500)) as restored:
        assert restored.spending().lifetime < ledger.spending().lifetime, "its spend would be forgotten"
        with pytest.raises(LedgerError, match="older than its last checkpoint") as caught:
            RollbackGuard("hub", keeper, restored, NORTH).compare()
        assert caught.value.hint
        spend(restored, 4, 5, 6)  # also where it has grown longer meanwhile
        with pytest.raises(LedgerError, match="not the one whose checkpoint was kept"):
            RollbackGuard("hub", keeper, restored, NORTH).compare()
        with pytest.raises(LedgerError):
            kept_by(keeper, restored)
    RollbackGuard("hub", keeper, ledger, NORTH).compare()


def test_erasing_what_is_due_does_not_make_an_older_ledger_the_newest(
    ledger: LedgerStore, keeper: Keeper, tmp_path: Path
) -> None:
    """The entries at which the two part are erased in time; their chain hashes still tell them apart."""
    spend(ledger, 1)
    older = tmp_path / "older.sqlite"
    copied(ledger, older)
    spend(ledger, 2, 3)
    kept_by(keeper, ledger)
    now = [500]
    with closing(LedgerStore(older, NORTH, lambda: now[0])) as restored:
        for _ in range(6):
            restored.start(bytes(32), 1)
        now[0] += 90 * 86_400
        assert erased(restored, Due(audit=now[0] - 86_400)) > 6
        restored.audit()
        with pytest.raises(LedgerError, match="not the one whose checkpoint was kept"):
            RollbackGuard("hub", keeper, restored, NORTH).compare()
    with closing(LedgerStore(tmp_path / "ledger.sqlite", NORTH, lambda: now[0])) as newest:
        newest.start(bytes(32), 1)
        assert erased(newest, Due(audit=now[0])) == 12
        RollbackGuard("hub", keeper, newest, NORTH).compare()


def test_an_empty_ledger_in_place_of_a_used_one_is_refused(ledger: LedgerStore, keeper: Keeper, tmp_path: Path) -> None:
    spend(ledger, 1)
    kept_by(keeper, ledger)
    with closing(LedgerStore(tmp_path / "new.sqlite", NORTH)) as empty, pytest.raises(LedgerError, match="older"):
        RollbackGuard("hub", keeper, empty, NORTH).compare()


def test_two_copies_that_both_go_on_find_each_other_out(ledger: LedgerStore, keeper: Keeper, tmp_path: Path) -> None:
    spend(ledger, 1)
    kept_by(keeper, ledger)
    copy = tmp_path / "copy.sqlite"
    copied(ledger, copy)
    with closing(LedgerStore(copy, NORTH, lambda: 501)) as twin:
        first, second = RollbackGuard("hub", keeper, ledger, NORTH), RollbackGuard("hub", keeper, twin, NORTH)
        first.compare()
        second.compare()
        spend(ledger, 2)
        first.keep(ledger.checkpoint() or b"")
        spend(twin, 3)
        with pytest.raises(LedgerError, match="not the one whose checkpoint was kept"):
            second.keep(twin.checkpoint() or b"")


def test_an_aggregator_out_of_reach_lets_nothing_through(ledger: LedgerStore, keeper: Keeper) -> None:
    spend(ledger, 1)
    kept_by(keeper, ledger)
    guards = Guards({"hub": RollbackGuard("hub", keeper, ledger, NORTH)}, Aggregators())
    checkpoint = ledger.checkpoint() or b""
    keeper.is_down = True
    guards.compare_if_reachable()
    for refused in (guards.compare, lambda: guards.hand_over(checkpoint)):
        with pytest.raises(UnreachableError):
            refused()
    keeper.is_down = False
    guards.hand_over(checkpoint)
    keeper.is_down = True
    guards.compare()  # it was compared
    guards.hand_over(checkpoint)  # it was handed over
    spend(ledger, 2)
    with pytest.raises(UnreachableError):
        guards.hand_over(ledger.checkpoint() or b"")


@pytest.mark.parametrize(
    "lie",
    [b"garbage", SOUTH.checkpoint(1, bytes(32), 5), Signer("north", "other", NORTH.key).checkpoint(1, bytes(32), 5)],
)
def test_an_aggregator_that_lies_can_make_a_silo_wait_only(ledger: LedgerStore, keeper: Keeper, lie: bytes) -> None:
    spend(ledger, 1)
    keeper.lie = lie
    with pytest.raises(LedgerError):
        RollbackGuard("hub", keeper, ledger, NORTH).compare()


@pytest.mark.parametrize("lie", [b"", NORTH.checkpoint(1, bytes(32), 5), b"garbage"])
def test_an_aggregator_that_keeps_another_checkpoint_than_the_one_it_was_given_did_not_take_it(
    ledger: LedgerStore, keeper: Keeper, lie: bytes
) -> None:
    guard = RollbackGuard("hub", keeper, ledger, NORTH)
    guard.compare()
    spend(ledger, 1, 2)
    checkpoint = ledger.checkpoint()
    assert checkpoint is not None
    with pytest.raises(UnreachableError):
        guard.check_reply(lie, checkpoint)
    guard.check_reply(checkpoint, checkpoint)
    spend(ledger, 3)
    guard.check_reply(ledger.checkpoint() or b"", checkpoint)  # a later one of this very ledger, kept meanwhile


def test_a_silo_that_joined_anew_with_another_key_is_new_to_the_aggregator(tmp_path: Path) -> None:
    before = CheckpointStore(tmp_path, "fed", {"north": NORTH.key.public})
    before.put(NORTH.checkpoint(9, bytes(32), 5))
    after = CheckpointStore(tmp_path, "fed", {"north": SOUTH.key.public})
    assert after.get("north") == b""
    first = Signer("north", "fed", SOUTH.key).checkpoint(1, bytes(32), 6)
    assert after.put(first) == first
    assert before.get("north") == NORTH.checkpoint(9, bytes(32), 5)


class Carrying:
    """A `CheckpointRelay` between a ledger and aggregators, without streams."""

    def __init__(self, ledger: LedgerStore, *stores: CheckpointStore, tolerated: Aggregators | None = None) -> None:
        names = [f"hub-{number}" for number in range(len(stores))]
        guards = {name: RollbackGuard(name, DeferredKeeper(), ledger, NORTH) for name in names}
        self.guards = Guards(guards, tolerated or Aggregators())
        self.stores = dict(zip(names, stores, strict=True))
        self.ledger, self.down, self.done = ledger, set[str](), list[str]()
        self.refused: Objection | None = None

    async def actor(self, step: str, *arguments: Any) -> Any:
        self.done.append(step)
        checkpoint = self.ledger.checkpoint() or b""
        match step:
            case "guarding":
                guards = self.guards
                missing, lagging = guards.missing_answers, guards.lagging(checkpoint)
                return Guarding(tuple(guards.of), guards.uncompared, missing, guards.most_away, checkpoint, lagging)
            case "begin_charge":
                return checkpoint
            case "check_reply":
                try:
                    self.guards.of[arguments[0]].check_reply(*arguments[1:])
                except LedgerError as err:
                    is_none = isinstance(err, NoCheckpointError)
                    return Objection(err.message, err.hint, not isinstance(err, UnreachableError), is_none)
                return None
            case "propose" if self.guards.missing_answers:
                return (b"refused",)  # as `Recorder.ready` of the silo's actor
            case "ready":
                self.guards.hand_over(checkpoint)
        return (step.encode(),)

    def way(self, name: str) -> Ask:
        async def ask(step: str, *arguments: bytes) -> tuple[bytes, ...]:
            if name in self.down:
                raise LinkError("it is down")
            store = self.stores[name]
            return (store.put(*arguments) if step == "put_head" else store.get("north"),)

        return ask

    def call(self, *steps: str) -> list[tuple[bytes, ...]]:
        async def run() -> list[tuple[bytes, ...]]:
            carrier = CheckpointRelay(self.actor, {name: self.way(name) for name in self.stores}, 0.01)
            try:
                return [await carrier.call(step, (bytes(16),)) for step in steps]
            finally:
                await carrier.close()
                self.refused = carrier.refused.result() if carrier.refused.done() else None

        return asyncio.run(run())


def another(place: Path) -> CheckpointStore:
    return CheckpointStore(place, "fed", {"north": NORTH.key.public})


def test_a_carrier_lets_through_what_every_aggregator_has_heard_of(ledger: LedgerStore, kept: CheckpointStore) -> None:
    one = Carrying(ledger, kept)
    assert one.call("propose") == [(b"propose",)], "nothing was charged yet, so nothing need be kept"
    spend(ledger, 1)
    assert one.call("ready", "contribute") == [(b"ready",), (b"contribute",)]
    assert kept.get("north") == ledger.checkpoint()
    assert one.call("propose", "cancel") == [(b"propose",), (b"cancel",)]
    assert one.done.count("check_reply") == 2, "compared once, and kept once"


def test_one_honest_aggregator_is_enough_to_find_an_older_ledger_out(
    ledger: LedgerStore, kept: CheckpointStore, tmp_path: Path
) -> None:
    """The other withholds what it was given."""
    forgetful = another(tmp_path / "other")
    one = Carrying(ledger, forgetful, kept)
    one.call("propose")
    spend(ledger, 1)
    older = tmp_path / "older.sqlite"
    copied(ledger, older)
    spend(ledger, 2)
    assert one.call("ready") == [(b"ready",)]
    shutil.rmtree(tmp_path / "other")
    (tmp_path / "other").mkdir()
    with closing(LedgerStore(older, NORTH, lambda: 500)) as restored:
        one = Carrying(restored, forgetful, kept)
        assert one.call("propose") == [(b"refused",)]
        assert one.refused is not None
        assert one.refused.is_final


def test_a_carrier_waits_for_an_aggregator_out_of_reach(
    ledger: LedgerStore, kept: CheckpointStore, tmp_path: Path
) -> None:
    one = Carrying(ledger, kept, another(tmp_path / "other"))
    one.down.add("hub-1")
    assert one.call("propose") == [(b"refused",)], "the silo itself says why"
    one.down.clear()
    assert one.call("propose") == [(b"propose",)]
    spend(ledger, 1)
    one.down.add("hub-1")
    with pytest.raises(UnreachableError):
        one.call("ready")
    assert one.refused is None
    one.down.clear()
    assert one.call("ready") == [(b"ready",)]


def test_a_carrier_waits_for_no_more_aggregators_than_the_policy_demands(
    ledger: LedgerStore, kept: CheckpointStore, tmp_path: Path
) -> None:
    """One of three may be away, and none lies: two answer at the start, and two keep each charge."""
    late = another(tmp_path / "late")
    one = Carrying(
        ledger, kept, another(tmp_path / "other"), late, tolerated=Aggregators(max_unreachable=1, max_dishonest=0)
    )
    one.down.add("hub-2")
    assert one.call("propose") == [(b"propose",)]
    spend(ledger, 1)
    assert one.call("ready") == [(b"ready",)]
    assert late.get("north") == b""
    one.down = {"hub-1", "hub-2"}
    spend(ledger, 2)
    with pytest.raises(UnreachableError):
        one.call("ready")
    one.down = {"hub-0"}
    assert one.call("ready") == [(b"ready",)]
    assert late.get("north") == ledger.checkpoint(), "it has the newest, though it has missed one"


def test_an_aggregator_that_hangs_holds_up_nobody_whom_the_policy_lets_go_on(
    ledger: LedgerStore, kept: CheckpointStore, tmp_path: Path
) -> None:
    one = Carrying(ledger, kept, another(tmp_path / "other"), tolerated=Aggregators(max_unreachable=1, max_dishonest=0))
    one.call("propose")
    spend(ledger, 1)
    way = one.way

    def hanging(name: str) -> Ask:
        async def ask(step: str, *arguments: bytes) -> tuple[bytes, ...]:
            await asyncio.sleep(3600)
            return ()

        return ask if name == "hub-1" else way(name)

    one.way = hanging  # type: ignore[method-assign]
    began = time.monotonic()
    assert one.call("ready") == [(b"ready",)]
    assert time.monotonic() - began < 5


def restore(simulation: Simulation, silo: str, backup: Path) -> None:
    for file in simulation.silos[silo].policy.parent.glob("ledger.sqlite*"):
        file.unlink()
    shutil.copy(backup, simulation.silos[silo].policy.parent / "ledger.sqlite")


def test_a_silo_does_not_start_with_a_restored_ledger(exact: Simulation, tmp_path: Path) -> None:
    cedar = exact.silos["cedar"]
    cedar.restarts = True
    assert ask(exact, QUESTION)["cedar"] == "answered"
    backup = tmp_path / "backup.sqlite"
    copied(ledger_of(cedar), backup)
    assert ask(exact, QUESTION)["cedar"] == "answered"
    cedar.actor.close()
    restore(exact, "cedar", backup)
    with pytest.raises(LedgerError, match="older than its last checkpoint"):
        cedar.start()
    cedar.is_dead = True


def test_a_silo_that_started_before_the_aggregator_compares_before_it_accepts(
    exact: Simulation, tmp_path: Path
) -> None:
    cedar = exact.silos["cedar"]
    cedar.restarts = True
    ask(exact, QUESTION)
    backup = tmp_path / "backup.sqlite"
    copied(ledger_of(cedar), backup)
    ask(exact, QUESTION)
    cedar.actor.close()
    restore(exact, "cedar", backup)
    exact.checkpoints.is_down = True
    cedar.actor = cedar.start()  # nobody to ask yet
    exact.checkpoints.is_down = False
    before = ledger_of(cedar).spending().lifetime
    assert ask(exact, QUESTION)["cedar"] == "unable"
    assert ledger_of(cedar).spending().lifetime == before
    log = (cedar.policy.parent / "silo.log").read_text()
    assert "older than its last checkpoint" in log


def test_nothing_is_charged_that_the_aggregator_does_not_know_of(exact: Simulation) -> None:
    ask(exact, QUESTION)
    spent = exact.spent("cedar")
    exact.checkpoints.is_down = True
    with pytest.raises(RoundError):
        ask(exact, QUESTION)
    assert {exact.spent(silo) for silo in exact.silos} == {spent}, "it was given back: nothing had left"
    exact.checkpoints.is_down = False
    assert ask(exact, QUESTION)["cedar"] == "answered"
    kept = unverified(exact.checkpoints.get_checkpoint(b"cedar"), Checkpoint)
    begun = [entry for entry in ledger_of(exact.silos["cedar"]).entries(100) if entry.event.kind == "charging"]
    assert kept.count >= begun[-1].seq
