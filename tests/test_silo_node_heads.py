"""A ledger that is older than the one the silo signed last is found out by the head that the aggregator keeps."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aggregator.driver import Server
from aggregator.errors import AggregatorError, StoreError
from aggregator.store import HeadStore
from analyst.demo.hospitals import PURPOSE
from analyst.errors import RoundError
from crypto.errors import CryptoError, LinkError
from crypto.keys import Secret, SigningKey
from crypto.wire import unverified
from federation.transport.calls import CallFailedError
from policies.budget.ledger import Checkpoint
from policies.errors import LedgerError
from silo_node.ledger.checkpoints import RollbackGuard, UnreachableError
from silo_node.ledger.log import Signer
from silo_node.ledger.retention import Due
from silo_node.ledger.store import LedgerStore
from silo_node.transport.checkpoint_relay import Ask, CheckpointRelay, DeferredKeeper, Objection
from tests.harness.owner_home import charge, erased
from tests.harness.simulator import KilledError, Simulation

QUESTION = "SELECT COUNT(*) AS n FROM lung"
NORTH = Signer("north", "fed", SigningKey(Secret(bytes(range(32)))))
SOUTH = Signer("south", "fed", SigningKey(Secret(bytes(32))))


@pytest.fixture
def kept(tmp_path: Path) -> HeadStore:
    return HeadStore(tmp_path / "heads", "fed", {"north": NORTH.key.public, "south": SOUTH.key.public})


def test_a_head_replaces_only_a_shorter_one(kept: HeadStore) -> None:
    assert kept.get("north") == b""
    first, second = NORTH.checkpoint(3, bytes(32), 5), NORTH.checkpoint(4, bytes(32), 6)
    assert kept.put(first) == first
    assert kept.put(second) == second
    assert kept.put(first) == second
    assert kept.put(NORTH.checkpoint(4, b"x" * 32, 7)) == second, "another history of that length is none"
    assert kept.get("north") == second
    assert kept.get("south") == b""
    assert kept.put(SOUTH.checkpoint(1, bytes(32), 5)) == kept.get("south")


def test_a_head_that_is_said_to_be_kept_outlives_a_power_loss(
    kept: HeadStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's data are synced before it has its name, and its name before the silo is told."""
    done: list[object] = []

    def synced(handle: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{handle}"))
        done.append((place.suffix if place.is_file() else place, len(list((tmp_path / "heads").glob("*.head")))))

    monkeypatch.setattr("aggregator.store.os.fsync", synced)
    kept.put(NORTH.checkpoint(3, bytes(32), 5))
    assert done == [(".partial", 0), (tmp_path / "heads", 1)]


def test_only_the_silo_itself_can_say_how_long_its_ledger_is(kept: HeadStore) -> None:
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


def test_a_server_without_a_place_for_heads_says_so(exact: Simulation) -> None:
    server = exact.server
    bare = Server(server._aggregator, server._silos, server._sums, server._store)
    for call in (bare.put_head(b""), bare.get_head(b"aspen")):
        with pytest.raises(AggregatorError):
            asyncio.run(call)
    head = asyncio.run(server.get_head(b"aspen"))
    assert asyncio.run(server.get_head(b"\xff\xfe")) == b""
    exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
    after = asyncio.run(server.get_head(b"aspen"))
    assert after != head
    assert asyncio.run(server.put_head(after)) == after


class Keeper:
    """A store of heads that can be away, or lie."""

    def __init__(self, store: HeadStore) -> None:
        self.store, self.is_down, self.lie = store, False, b""

    def put_head(self, envelope: bytes) -> bytes:
        if self.is_down:
            raise KilledError("aggregator")
        return self.lie or self.store.put(envelope)

    def get_head(self, silo: bytes) -> bytes:
        if self.is_down:
            raise KilledError("aggregator")
        return self.lie or self.store.get(silo.decode())


@pytest.fixture
def keeper(kept: HeadStore) -> Keeper:
    return Keeper(kept)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerStore]:
    with closing(LedgerStore(tmp_path / "ledger.sqlite", NORTH, lambda: 500)) as store:
        yield store


def spend(store: LedgerStore, *numbers: int) -> None:
    for number in numbers:
        assert store.reserve(charge(number, 500), 10**6)


def test_a_ledger_that_goes_on_is_kept(ledger: LedgerStore, keeper: Keeper) -> None:
    heads = RollbackGuard(keeper, ledger, NORTH)
    heads.keep()  # nothing was logged yet
    assert keeper.store.get("north") == b""
    for number in range(1, 4):
        spend(ledger, number)
        heads.keep()
        assert keeper.store.get("north") == ledger.checkpoint()
    RollbackGuard(keeper, ledger, NORTH).compare()


def test_a_restored_older_ledger_is_refused(ledger: LedgerStore, keeper: Keeper, tmp_path: Path) -> None:
    spend(ledger, 1, 2)
    older = tmp_path / "older.sqlite"
    ledger._db.execute("VACUUM INTO ?", (str(older),))
    spend(ledger, 3)
    RollbackGuard(keeper, ledger, NORTH).keep()
    with closing(LedgerStore(older, NORTH, lambda: 500)) as restored:
        assert restored.spending().lifetime < ledger.spending().lifetime, "its spend would be forgotten"
        with pytest.raises(LedgerError, match="older than its last head") as caught:
            RollbackGuard(keeper, restored, NORTH).compare()
        assert caught.value.hint
        spend(restored, 4, 5, 6)  # also where it has grown longer meanwhile
        with pytest.raises(LedgerError, match="not the one whose head was kept"):
            RollbackGuard(keeper, restored, NORTH).compare()
        with pytest.raises(LedgerError):
            RollbackGuard(keeper, restored, NORTH).keep()
    RollbackGuard(keeper, ledger, NORTH).compare()


def test_erasing_what_is_due_does_not_make_an_older_ledger_the_newest(
    ledger: LedgerStore, keeper: Keeper, tmp_path: Path
) -> None:
    """The entries at which the two part are erased in time; their chain hashes still tell them apart."""
    spend(ledger, 1)
    older = tmp_path / "older.sqlite"
    ledger._db.execute("VACUUM INTO ?", (str(older),))
    spend(ledger, 2, 3)
    RollbackGuard(keeper, ledger, NORTH).keep()
    now = [500]
    with closing(LedgerStore(older, NORTH, lambda: now[0])) as restored:
        for _ in range(6):
            restored.start(bytes(32), 1)
        now[0] += 90 * 86_400
        assert erased(restored, Due(audit=now[0] - 86_400)) > 6
        restored.audit()
        with pytest.raises(LedgerError, match="not the one whose head was kept"):
            RollbackGuard(keeper, restored, NORTH).compare()
    with closing(LedgerStore(tmp_path / "ledger.sqlite", NORTH, lambda: now[0])) as newest:
        newest.start(bytes(32), 1)
        assert erased(newest, Due(audit=now[0])) == 6
        RollbackGuard(keeper, newest, NORTH).compare()


def test_an_empty_ledger_in_place_of_a_used_one_is_refused(ledger: LedgerStore, keeper: Keeper, tmp_path: Path) -> None:
    spend(ledger, 1)
    RollbackGuard(keeper, ledger, NORTH).keep()
    with closing(LedgerStore(tmp_path / "new.sqlite", NORTH)) as empty, pytest.raises(LedgerError, match="older"):
        RollbackGuard(keeper, empty, NORTH).compare()


def test_two_copies_that_both_go_on_find_each_other_out(ledger: LedgerStore, keeper: Keeper, tmp_path: Path) -> None:
    spend(ledger, 1)
    copy = tmp_path / "copy.sqlite"
    ledger._db.execute("VACUUM INTO ?", (str(copy),))
    with closing(LedgerStore(copy, NORTH, lambda: 501)) as twin:
        first, second = RollbackGuard(keeper, ledger, NORTH), RollbackGuard(keeper, twin, NORTH)
        first.compare()
        second.compare()
        spend(ledger, 2)
        first.keep()
        spend(twin, 3)
        with pytest.raises(LedgerError, match="not the one whose head was kept"):
            second.keep()


def test_an_aggregator_out_of_reach_lets_nothing_through(ledger: LedgerStore, keeper: Keeper) -> None:
    spend(ledger, 1)
    heads = RollbackGuard(keeper, ledger, NORTH)
    keeper.is_down = True
    heads.compare_if_reachable()
    with pytest.raises(UnreachableError):
        heads.compare()
    with pytest.raises(UnreachableError):
        heads.keep()
    keeper.is_down = False
    heads.keep()
    keeper.is_down = True
    heads.compare()  # it was compared
    with pytest.raises(UnreachableError):
        heads.keep()


@pytest.mark.parametrize(
    "lie",
    [b"garbage", SOUTH.checkpoint(1, bytes(32), 5), Signer("north", "other", NORTH.key).checkpoint(1, bytes(32), 5)],
)
def test_an_aggregator_that_lies_can_make_a_silo_wait_only(ledger: LedgerStore, keeper: Keeper, lie: bytes) -> None:
    spend(ledger, 1)
    keeper.lie = lie
    with pytest.raises(LedgerError):
        RollbackGuard(keeper, ledger, NORTH).compare()


@pytest.mark.parametrize("lie", [b"", NORTH.checkpoint(1, bytes(32), 5), b"garbage"])
def test_an_aggregator_that_keeps_another_head_than_the_one_it_was_given_did_not_take_it(
    ledger: LedgerStore, keeper: Keeper, lie: bytes
) -> None:
    heads = RollbackGuard(keeper, ledger, NORTH)
    heads.compare()
    spend(ledger, 1, 2)
    head = ledger.checkpoint()
    assert head is not None
    with pytest.raises(UnreachableError):
        heads.check_reply(lie, head)
    heads.check_reply(head, head)
    spend(ledger, 3)
    heads.check_reply(ledger.checkpoint() or b"", head)  # a later one of this very ledger, kept meanwhile


def test_a_silo_that_joined_anew_with_another_key_is_new_to_the_aggregator(tmp_path: Path) -> None:
    before = HeadStore(tmp_path, "fed", {"north": NORTH.key.public})
    before.put(NORTH.checkpoint(9, bytes(32), 5))
    after = HeadStore(tmp_path, "fed", {"north": SOUTH.key.public})
    assert after.get("north") == b""
    first = Signer("north", "fed", SOUTH.key).checkpoint(1, bytes(32), 6)
    assert after.put(first) == first
    assert before.get("north") == NORTH.checkpoint(9, bytes(32), 5)


class Carrying:
    """A `CheckpointRelay` between a ledger and aggregators, without streams."""

    def __init__(self, ledger: LedgerStore, *stores: HeadStore) -> None:
        self.heads = {f"hub-{number}": RollbackGuard(DeferredKeeper(), ledger, NORTH) for number in range(len(stores))}
        self.stores = dict(zip(self.heads, stores, strict=True))
        self.ledger, self.down, self.done = ledger, set[str](), list[str]()
        self.refused: Objection | None = None

    async def actor(self, step: str, *arguments: Any) -> Any:
        self.done.append(step)
        match step:
            case "aggregators":
                return tuple(self.heads)
            case "uncompared":
                return tuple(name for name, one in self.heads.items() if not one.is_compared)
            case "checkpoint":
                return self.ledger.checkpoint() or b""
            case "check_reply":
                try:
                    self.heads[arguments[0]].check_reply(*arguments[1:])
                except LedgerError as err:
                    return Objection(err.message, err.hint, not isinstance(err, UnreachableError))
                return None
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
            carrier = CheckpointRelay(self.actor, {name: self.way(name) for name in self.heads}, 0.01)
            try:
                return [await carrier.call(step, (bytes(16),)) for step in steps]
            finally:
                self.refused = carrier.refused.result() if carrier.refused.done() else None

        return asyncio.run(run())


def test_a_carrier_lets_through_what_every_aggregator_has_heard_of(ledger: LedgerStore, kept: HeadStore) -> None:
    spend(ledger, 1)
    one = Carrying(ledger, kept)
    assert one.call("propose", "contribute") == [(b"propose",), (b"contribute",)]
    assert kept.get("north") == ledger.checkpoint()
    assert one.call("propose", "cancel") == [(b"propose",), (b"cancel",)]
    assert one.done.count("check_reply") == 2, "compared once, and kept once"


def test_one_honest_aggregator_is_enough_to_find_an_older_ledger_out(
    ledger: LedgerStore, kept: HeadStore, tmp_path: Path
) -> None:
    """The other withholds what it was given."""
    forgetful = HeadStore(tmp_path / "other", "fed", {"north": NORTH.key.public})
    spend(ledger, 1)
    older = tmp_path / "older.sqlite"
    ledger._db.execute("VACUUM INTO ?", (str(older),))
    spend(ledger, 2)
    assert Carrying(ledger, forgetful, kept).call("contribute") == [(b"contribute",)]
    shutil.rmtree(tmp_path / "other")
    (tmp_path / "other").mkdir()
    with closing(LedgerStore(older, NORTH, lambda: 500)) as restored:
        one = Carrying(restored, forgetful, kept)
        with pytest.raises(CallFailedError):
            one.call("propose")
        assert one.refused is not None
        assert one.refused.is_final
        assert "propose" not in one.done


def test_a_carrier_waits_for_an_aggregator_out_of_reach(ledger: LedgerStore, kept: HeadStore, tmp_path: Path) -> None:
    other = HeadStore(tmp_path / "other", "fed", {"north": NORTH.key.public})
    spend(ledger, 1)
    one = Carrying(ledger, kept, other)
    one.down.add("hub-1")
    with pytest.raises(CallFailedError, match="hub-1 did not say"):
        one.call("propose")
    assert "propose" not in one.done
    one.down.clear()
    one.call("propose")
    one.down.add("hub-1")
    with pytest.raises(CallFailedError, match="hub-1 did not say"):
        one.call("contribute")
    assert one.done[-1] == "withhold"
    assert one.refused is None


def ask(simulation: Simulation) -> dict[str, str]:
    report = simulation.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
    return {silo: outcome.status for silo, outcome in report.silos.items()}


def restore(simulation: Simulation, silo: str, backup: Path) -> None:
    for file in simulation.silos[silo].policy.parent.glob("ledger.sqlite*"):
        file.unlink()
    shutil.copy(backup, simulation.silos[silo].policy.parent / "ledger.sqlite")


def test_a_silo_does_not_start_with_a_restored_ledger(exact: Simulation, tmp_path: Path) -> None:
    cedar = exact.silos["cedar"]
    cedar.restarts = True
    assert ask(exact)["cedar"] == "answered"
    backup = tmp_path / "backup.sqlite"
    cedar.actor._ledger._db.execute("VACUUM INTO ?", (str(backup),))
    assert ask(exact)["cedar"] == "answered"
    cedar.actor.close()
    restore(exact, "cedar", backup)
    with pytest.raises(LedgerError, match="older than its last head"):
        cedar._start()
    cedar.is_dead = True


def test_a_silo_that_started_before_the_aggregator_compares_before_it_accepts(
    exact: Simulation, tmp_path: Path
) -> None:
    cedar = exact.silos["cedar"]
    cedar.restarts = True
    ask(exact)
    backup = tmp_path / "backup.sqlite"
    cedar.actor._ledger._db.execute("VACUUM INTO ?", (str(backup),))
    ask(exact)
    cedar.actor.close()
    restore(exact, "cedar", backup)
    exact.heads.is_down = True
    cedar.actor = cedar._start()  # nobody to ask yet
    exact.heads.is_down = False
    before = cedar.actor._ledger.spending().lifetime
    assert ask(exact)["cedar"] == "missing"
    assert cedar.actor._ledger.spending().lifetime == before
    log = (cedar.policy.parent / "silo.log").read_text()
    assert "older than its last head" in log


def test_nothing_leaves_whose_charge_the_aggregator_does_not_know_of(exact: Simulation) -> None:
    ask(exact)
    spent = exact.spent("cedar")
    exact.heads.is_down = True
    with pytest.raises(RoundError):
        ask(exact)
    assert exact.spent("cedar") == 2 * spent, "it was committed before the head was refused, and stays so"
    exact.heads.is_down = False
    assert ask(exact)["cedar"] == "answered"
    kept = unverified(exact.heads.get_head(b"cedar"), Checkpoint)
    contributed = [
        entry for entry in exact.silos["cedar"].actor._ledger.entries(100) if entry.event.kind == "contribution"
    ]
    assert kept.count > contributed[-1].seq - 1
