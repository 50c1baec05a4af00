"""The log: whatever is removed, changed, reordered or cut off is found, and no entry depends on a row."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyst.demo.hospitals import PURPOSE
from analyst.errors import DeniedError
from crypto.errors import WireError
from crypto.keys import Secret, SigningKey
from policies.budget.ledger import Checkpoint, KeptState
from policies.errors import LedgerError
from silo_node.ledger import events, log
from silo_node.ledger.events import Event, LogEntry, decided, worded
from silo_node.ledger.log import Line, Signer, chained, check_chain, read_checkpoint
from silo_node.ledger.replay import Held, examine
from silo_node.ledger.retention import Due
from silo_node.ledger.store import LedgerStore
from tests.cases import every
from tests.harness.inside import database_of, ledger_of, log_of
from tests.harness.owner_home import charge, charged, erased
from tests.harness.simulator import Simulation, no_noise, simulate

KEY = SigningKey(Secret(bytes(range(32))))
SIGNER = Signer("north", "fed", KEY)
EVENTS: tuple[Event, ...] = (
    events.Started(micro_rho=0, released=0),
    events.PolicyInForce(policy_hash=bytes(32), version=3),
    decided(bytes(32), "ana", "research", ()),
    events.Reserved(nonce=bytes(16), request_hash=bytes(32), micro_rho=5, atto_delta=0, policy_hash=bytes(32)),
    events.Charging(nonce=bytes(16), round_id=bytes(16), micro_rho=5),
    events.Contributed(nonce=bytes(16), round_id=bytes(16)),
    events.ConsentRead(nonce=bytes(16), purpose="research", as_of=5, feed_at=None),
    events.SurvivorsSigned(round_id=bytes(16), split_hash=bytes(32)),
    events.Opened(round_id=bytes(16), split_hash=bytes(32)),
    decided(bytes(32), "eve", "", ("ANALYST_UNKNOWN",)),
    events.Reserved(nonce=bytes([1]) * 16, request_hash=bytes(32), micro_rho=6, atto_delta=0, policy_hash=bytes(32)),
    events.Released(nonce=bytes([1]) * 16),
    events.StaysCharged(nonce=bytes([2]) * 16, round_id=bytes(16)),
    events.Excused(aggregator="hub", by="owner"),
    events.Excused(aggregator="hub", by="membership"),
    events.NotLogged(aggregator="hub", analyst="ana", count=7),
    events.ApprovalAsked(subject=bytes(32), analyst="ana", purpose="research"),
    events.Voted(subject=bytes(32), who="dpo", decision="reject"),
    events.ModelUpdated(run=bytes(16)),
    events.PolicyInForce(policy_hash=bytes(32), version=4, is_signed=True),
    events.RosterInForce(version=9, digest=bytes(32)),
    events.Erased(what="models", count=1, before=7),
)


def lines_of(events: tuple[Event, ...]) -> list[Line]:
    lines, chain = [], log.START
    for index, event in enumerate(events):
        body = LogEntry(seq=index + 1, at=100 + index, event=event).encode()
        chain = chained(chain, body)
        lines.append(Line(index + 1, body, chain))
    return lines


LINES = lines_of(EVENTS)


def checkpoint_of(lines: list[Line]) -> Checkpoint:
    return Checkpoint(federation="fed", silo="north", count=lines[-1].seq, chain=lines[-1].chain, at=200)


CHECKPOINT = checkpoint_of(LINES)


def test_a_whole_log_is_whole() -> None:
    found = examine(LINES, CHECKPOINT)
    assert (found.entries, found.first, found.last) == (len(EVENTS), 1, len(EVENTS))
    assert found.charges == {bytes(16): Held(5, 4, b"", bytes(16), "committed")}
    assert examine([], None).entries == 0


def test_what_people_said_to_a_request_stays_when_it_is_asked_again() -> None:
    """As another step of a training run is, whose steps are one thing to approve."""
    voted = events.Voted(subject=bytes(32), who="dpo", decision="reject", row=b"verdict")
    first = events.ApprovalAsked(subject=bytes(32), analyst="ana", purpose="research", until=300, row=b"first")
    again = first.model_copy(update={"until": 400, "row": b"again"})
    lines = lines_of((first, voted, again))
    (found,) = examine(lines, checkpoint_of(lines)).requests.values()
    assert (found.seq, found.until, found.row, found.verdicts) == (1, 400, b"again", (voted,))


def removed(lines: list[Line], index: int) -> list[Line]:
    return lines[:index] + lines[index + 1 :]


def changed(lines: list[Line], index: int) -> list[Line]:
    body = LogEntry(seq=lines[index].seq, at=99, event=events.Started(micro_rho=1, released=0)).encode()
    return [*lines[:index], replace(lines[index], body=body), *lines[index + 1 :]]


def changed_with_its_hash(lines: list[Line], index: int) -> list[Line]:
    body = LogEntry(seq=lines[index].seq, at=99, event=events.Started(micro_rho=1, released=0)).encode()
    before = lines[index - 1].chain if index else log.START
    return [*lines[:index], Line(lines[index].seq, body, chained(before, body)), *lines[index + 1 :]]


def swapped(lines: list[Line], index: int) -> list[Line]:
    other = (index + 1) % len(lines)
    first, second = replace(lines[index], seq=lines[other].seq), replace(lines[other], seq=lines[index].seq)
    swapped = list(lines)
    swapped[index], swapped[other] = second, first
    return swapped


def cut_after(lines: list[Line], index: int) -> list[Line]:
    return lines[:index]


def cut_before(lines: list[Line], index: int) -> list[Line]:
    return lines[index + 1 :]


def doubled(lines: list[Line], index: int) -> list[Line]:
    return [*lines[: index + 1], *lines[index:]]


@every("index", range(len(LINES)))
@pytest.mark.parametrize(
    "tamper", [removed, changed, changed_with_its_hash, swapped, cut_after, cut_before, doubled],
    ids=lambda tamper: tamper.__name__,
)  # fmt: skip
def test_a_log_that_was_tampered_with_is_found_out(tamper: Callable[[list[Line], int], list[Line]], index: int) -> None:
    with pytest.raises(LedgerError, match="not whole"):
        examine(tamper(LINES, index), CHECKPOINT)


def test_a_log_rewritten_to_its_end_does_not_fit_its_checkpoint() -> None:
    """Who can compute hashes can rebuild the chain, but not sign its end."""
    forged = lines_of((*EVENTS[:4], *EVENTS[5:]))
    with pytest.raises(LedgerError):
        examine(forged, CHECKPOINT)
    examine(forged, checkpoint_of(forged))
    other = SigningKey(Secret(bytes(32)))
    envelope = Signer("north", "fed", other).checkpoint(CHECKPOINT.count, CHECKPOINT.chain, 200)
    with pytest.raises(LedgerError, match="checkpoint does not verify"):
        read_checkpoint(envelope, "north", "fed", KEY.public)


@pytest.mark.parametrize("signer", [replace(SIGNER, silo="south"), replace(SIGNER, federation="other")])
def test_a_checkpoint_is_of_one_silo_in_one_federation(signer: Signer) -> None:
    with pytest.raises(LedgerError):
        read_checkpoint(signer.checkpoint(1, bytes(32), 5), "north", "fed", KEY.public)
    assert read_checkpoint(SIGNER.checkpoint(1, bytes(32), 5), "north", "fed", KEY.public).count == 1


def test_an_entry_may_not_stand_in_another_s_place() -> None:
    body = LogEntry(seq=2, at=100, event=EVENTS[0]).encode()
    line = Line(1, body, chained(log.START, body))
    with pytest.raises(LedgerError, match="position"):
        examine([line], checkpoint_of([line]))


def test_bytes_that_are_no_entry_are_found_out() -> None:
    line = Line(1, b"{}", chained(log.START, b"{}"))
    check_chain([line], checkpoint_of([line]))
    with pytest.raises(LedgerError, match="malformed"):
        examine([line], checkpoint_of([line]))


@given(st.binary(max_size=300))
def test_no_bytes_make_a_decoder_fail_otherwise(data: bytes) -> None:
    for kind in (LogEntry, Checkpoint):
        with pytest.raises(WireError):
            kind.decode(data)
    with pytest.raises(LedgerError):
        read_checkpoint(data, "north", "fed", KEY.public)


@settings(deadline=None)
@given(st.sampled_from(EVENTS), st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_of_an_entry_never_decodes_to_the_same(event: Event, place: int, bit: int) -> None:
    body = bytearray(LogEntry(seq=1, at=5, event=event).encode())
    assert LogEntry.decode(bytes(body)).event == event
    body[place % len(body)] ^= 1 << bit
    try:
        found = LogEntry.decode(bytes(body))
    except WireError:
        return
    assert found != LogEntry(seq=1, at=5, event=event)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_every_event_has_words(event: Event) -> None:
    text = worded(event)
    assert text
    assert text.isprintable()


def test_what_a_stranger_wrote_cannot_forge_a_line() -> None:
    event = decided(bytes(32), "eve\n  5  2027 policy" + "x" * 300, "\x1b[2Jresearch", ("SIGNATURE",))
    assert LogEntry.decode(LogEntry(seq=1, at=5, event=event).encode()).event == event
    assert worded(event).isprintable()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def test_the_log_says_what_the_ledger_holds(path: Path) -> None:
    with closing(LedgerStore(path, SIGNER, lambda: 500)) as store:
        store.reserve(charge(1, 500), 10**6)
        charged(store, charge(1, 500).nonce, bytes(16))
        store.reserve(charge(2, 500), 10**6)
        found = store.audit()
        assert {(held.micro_rho, held.round_id) for held in found.charges.values()} == {(5000, bytes(16)), (5000, None)}
        database_of(store).execute("DROP TRIGGER charge_commits_only")
        database_of(store).execute("UPDATE charges SET micro_rho = 1 WHERE state = 'reserved'")
        with pytest.raises(LedgerError, match="says what the ledger does not"):
            store.audit()


def test_what_is_due_is_erased_and_the_log_keeps_that_it_was(path: Path) -> None:
    now = [1_000_000.0]
    with closing(LedgerStore(path, SIGNER, lambda: now[0])) as store:
        for number in range(1, 6):
            store.reserve(charge(number, int(now[0])), 10**6)
            charged(store, charge(number, 0).nonce, bytes([number]) * 16)
            store.record_survivors(bytes([number]) * 16, bytes(32))
            store.save_run(bytes([number]) * 16, KeptState(b"a model of old"))
            now[0] += 1000
        before, charges = store.lines(), store.history()
        assert erased(store, Due()) == 0
        assert erased(store, Due(models=1_002_000, rounds=1_001_000, audit=1_003_000)) == 2 + 1 + 18
        assert len(store.runs()) == 3
        assert store.history() == charges, "charges stay for ever"
        assert store.spending().lifetime == 25_000
        kinds = [
            (entry.event.what, entry.event.count)
            for entry in store.entries(3)
            if isinstance(entry.event, events.Erased)
        ]
        assert kinds == [("models", 2), ("rounds", 1), ("log", 18)]
        found = store.audit()
        assert (found.first, found.entries) == (19, len(before) - 18 + 3)
        assert erased(store, Due(models=1_002_000, rounds=1_001_000, audit=1_003_000)) == 0, "once is enough"
        store.check_against(checkpoint_of(before))
        left = store.lines()[:18]
        assert [line.chain for line in left] == [line.chain for line in before[:18]], "what is kept of an entry"
        assert {line.body for line in left} == {b""}
    assert b"a model of old" not in path.read_bytes().replace(b"a model of old", b"", 3)
    assert not [line for line in before[:18] if line.body in path.read_bytes()]
    with closing(LedgerStore(path, SIGNER)) as again:
        again.audit()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE log SET chain = zeroblob(32) WHERE seq = 3",
        "UPDATE log SET chain = zeroblob(32) WHERE seq = 9",
        "DELETE FROM log WHERE seq < 4",
        "DELETE FROM log WHERE seq < 10",
        "DELETE FROM log WHERE body = x''",
        "UPDATE log SET body = x'' WHERE seq <= 13",
        "UPDATE log SET body = x'' WHERE seq = 15",
        "UPDATE log SET body = x''",
    ],
)
def test_what_is_left_of_erased_entries_is_held_against_the_entry_that_says_so(path: Path, change: str) -> None:
    now = [500.0]
    with closing(LedgerStore(path, SIGNER, lambda: now[0])) as store:
        for number in range(1, 8):
            store.reserve(charge(number, int(now[0])), 10**6)
            charged(store, charge(number, 0).nonce, bytes(16))
            now[0] += 10
        assert erased(store, Due(audit=511)) == 8
        assert erased(store, Due(audit=521)) == 4
        found = store.audit()
        assert (found.first, found.entries) == (13, 16 + 2)
        database_of(store).connection.executescript(f"DROP TRIGGER log_never_changes; DROP TRIGGER log_keeps; {change}")
        with pytest.raises(LedgerError, match="not whole"):
            store.audit()


def test_a_log_that_version_3_has_cut_goes_on(path: Path) -> None:
    now = [500.0]
    with closing(LedgerStore(path, SIGNER, lambda: now[0])) as store:
        for number in range(1, 6):
            store.reserve(charge(number, int(now[0])), 10**6)
            charged(store, charge(number, 0).nonce, bytes(16))
            now[0] += 10
        lines = store.lines()
        database_of(store).connection.executescript(
            "DROP TRIGGER log_keeps; DROP TABLE replaced; DROP TABLE run_reservations; DROP TABLE ended_runs;"
            "ALTER TABLE runs DROP COLUMN numbers; DELETE FROM log WHERE seq < 4"
        )
        database_of(store).execute("CREATE TRIGGER log_keeps BEFORE DELETE ON log BEGIN SELECT 1; END")
        with database_of(store).transaction():
            log_of(store).append(events.Erased(what="log", count=3, before=505, through=3, chain=lines[2].chain))
        database_of(store).execute("PRAGMA user_version = 3")
    for _ in range(2):
        with closing(LedgerStore(path, SIGNER, lambda: now[0])) as store:
            assert (store.audit().first, store.audit().is_cut) == (4, True)
            store.check_against(checkpoint_of(lines[:2]))
            with pytest.raises(LedgerError):
                store.check_against(replace_chain(checkpoint_of(lines[:5])))
    with closing(LedgerStore(path, SIGNER, lambda: now[0])) as store:
        assert erased(store, Due(audit=515)) == 5
        assert (store.audit().first, store.lines()[0].seq) == (9, 4)
        store.check_against(checkpoint_of(lines[:5]))


def replace_chain(checkpoint: Checkpoint) -> Checkpoint:
    return checkpoint.model_copy(update={"chain": bytes(32)})


def test_a_beginning_that_nothing_says_was_erased_is_found_out(path: Path) -> None:
    with closing(LedgerStore(path, SIGNER, lambda: 500)) as store:
        for number in range(1, 5):
            store.reserve(charge(number, 500), 10**6)
        database_of(store).execute("DROP TRIGGER log_keeps")
        database_of(store).execute("DELETE FROM log WHERE seq < 4")
        with pytest.raises(LedgerError, match="erased"):
            store.audit()


def logged(simulation: Simulation, silo: str = "aspen") -> list[LogEntry]:
    return ledger_of(simulation.silos[silo]).entries(1000)


QUESTION = "SELECT sex, COUNT(*) AS n, AVG(age) AS mean_age FROM lung GROUP BY sex"


def test_a_round_leaves_every_step_in_the_log(exact: Simulation) -> None:
    exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
    with pytest.raises(DeniedError):
        exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=90)
    entries = logged(exact)
    assert [entry.event.kind for entry in entries] == [
        "started", "policy", "decision", "reservation", "charging", "contribution", "consent", "split", "opening",
        "decision",
    ]  # fmt: skip
    denied = entries[-1].event
    assert isinstance(denied, events.Decided)
    assert (denied.analyst, denied.codes) == ("ana", ("RHO_PER_REQUEST", "BUDGET_LIFETIME"))
    store = ledger_of(exact.silos["aspen"])
    assert len(store.audit().charges) == 1
    exact.silos["aspen"].restarts = True
    exact.silos["aspen"].kill()
    assert [entry.event.kind for entry in logged(exact)][10:] == ["started"], "the policy is the same"


def test_no_entry_depends_on_a_row(home: Path, tmp_path: Path) -> None:
    """The same questions of two data sets, one of them without most of its rows, leave logs that differ in no value."""
    import pyarrow.parquet as pq

    other = Path(shutil.copytree(home, tmp_path / "other"))
    file = other / "silos" / "aspen" / "lung.parquet"
    pq.write_table(pq.read_table(file).slice(0, 3), file)
    found = []
    for place in (home, other):
        with simulate(place, noise=no_noise, clock=lambda: 1_800_000_000.0) as simulation:
            for question in (QUESTION, "SELECT COUNT(*) AS n FROM lung WHERE age > 60"):
                simulation.federation.query(question, purpose=PURPOSE, epsilon=1)
            found.append([json.loads(entry.encode()) for entry in logged(simulation)])
    drawn = {"nonce", "request_hash", "round_id", "split_hash", "row", "asked"}  # random, or hashes over what is random
    first, second = ([_without(entry, drawn) for entry in one] for one in found)
    assert first == second
    assert len(first) == 16


def _without(entry: dict[str, object], names: set[str]) -> object:
    event = entry["event"]
    assert isinstance(event, dict)
    return {**entry, "event": {key: value for key, value in event.items() if key not in names}}
