"""Requests that wait for people: asked, seen, approved or rejected, and only then answered; hours, days and rates."""

import io
import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import silo_node.owner.cli
from aggregator.rounds import propose, read_request
from analyst.demo.hospitals import PURPOSE
from analyst.errors import AnalystError, DeniedError
from analyst.reports.report import Report
from crypto.keys import Secret, SigningKey, write_key_file
from crypto.randomness import token
from crypto.wire import sign, unverified
from policies.budget.ledger import MAX_PROPOSALS, KeptState
from policies.document.load import load
from policies.errors import LedgerError
from policies.requests.approval import StoredVerdict
from policies.requests.denials import Refusal
from policies.requests.logistic import LogisticStep
from policies.requests.request import Request
from policies.requests.training import START
from policies.units import DAY_S
from silo_node.errors import SiloError
from silo_node.ledger import events
from silo_node.ledger.approvals import MAX_WAITING, Waiting
from silo_node.ledger.retention import Due
from silo_node.ledger.store import LedgerStore
from silo_node.owner.pending import decide_on, requests_of
from tests.harness.inside import aggregator_of, database_of, erase_at, key_of, ledger_of, log_of
from tests.harness.owner_home import NOW, PEOPLE, OwnerHome, ask, erased, founded_with_people, spend, with_people
from tests.harness.simulator import Simulation, no_noise, simulate

DPO, OWNER, CISO = PEOPLE
QUESTION = "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex"


@pytest.fixture
def owner(founded: Path, tmp_path: Path) -> OwnerHome:
    return founded_with_people(founded, tmp_path)


@pytest.fixture
def guarded(home: Path) -> Iterator[tuple[Simulation, OwnerHome]]:
    """A running federation in which every silo asks the same people; the home is aspen's."""
    owners = {silo.name: with_people(home, silo.name) for silo in (home / "silos").iterdir()}
    with simulate(home, noise=no_noise) as simulation:
        yield simulation, owners["aspen"]


def command(*arguments: str) -> int:
    return silo_node.owner.cli.main(list(arguments))


def vote(owner: OwnerHome, who: str, name: str, decision: str = "approve") -> int:
    key = str(owner.files[who])
    return command(decision, name, "--policy", str(owner.policy), "--as", who, "--key", key)


def denied(simulation: Simulation, request: Request) -> dict[str, str]:
    """Send a request that no silo answers; return why aspen said no, by code."""
    with pytest.raises(DeniedError) as caught:
        simulation.federation.submit(request)
    return {denial.code: denial.message for denial in caught.value.denials["aspen"]}


def prepared(simulation: Simulation, epsilon: float = 1) -> Request:
    return simulation.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=epsilon)[1]


def answer(simulation: Simulation, request: Request) -> None:
    """Send a request that every silo answers."""
    simulation.federation.submit(request)
    assert all(ledger_of(silo).is_charged(request.nonce) for silo in simulation.silos.values())


def others(simulation: Simulation) -> list[OwnerHome]:
    keys = {name: SigningKey(Secret(bytes([index + 1]) * 32)) for index, name in enumerate(PEOPLE)}
    files = {name: simulation.path / f"{name}.key" for name in PEOPLE}
    return [OwnerHome(silo.policy, keys, files) for name, silo in simulation.silos.items() if name != "aspen"]


def test_a_request_waits_is_approved_and_answered_under_the_same_nonce(
    guarded: tuple[Simulation, OwnerHome], capsys: pytest.CaptureFixture[str]
) -> None:
    simulation, owner = guarded
    request = prepared(simulation)
    for _ in range(2):  # asking again changes nothing
        awaited = denied(simulation, request)
        assert awaited == {"APPROVAL_AWAITED": f"2 of {DPO}, {OWNER} must approve it"}
        assert simulation.spent("aspen") == 0

    assert command("requests", "--policy", str(owner.policy), "--format", "json") == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["status"], one["analyst"], one["need"]) == ("waiting", "ana", [2])
    assert one["question"] == "COUNT(*) of lung by sex"
    name = one["request"][:32]

    assert vote(owner, DPO, name) == 0
    assert capsys.readouterr().out == f"{name}  waiting, 1 of 2 ({DPO}: yes)\n"
    assert denied(simulation, request)["APPROVAL_AWAITED"].endswith(f"given by {DPO}")
    assert vote(owner, DPO, name) == 0, "the same person twice is one person"
    assert "APPROVAL_AWAITED" in denied(simulation, request)
    for home in (owner, *others(simulation)):
        assert vote(home, OWNER, name) == 0
        assert home is owner or vote(home, DPO, name) == 0
    answer(simulation, request)
    assert simulation.spent("aspen") == request.micro_rho
    capsys.readouterr()
    assert command("requests", "--policy", str(owner.policy)) == 0
    assert capsys.readouterr().out == "no request waits\n"
    kinds = [entry.event.kind for entry in ledger_of(simulation.silos["aspen"]).entries(100)]
    assert kinds.count("request") == 1
    assert kinds.count("verdict") >= 2
    assert kinds[-1] == "opening"


def test_a_kept_request_is_sent_again_after_it_was_approved(
    guarded: tuple[Simulation, OwnerHome], tmp_path: Path
) -> None:
    simulation, _ = guarded
    keep = tmp_path / "request"

    def again(question: str = QUESTION) -> Report:
        return simulation.federation.query(question, purpose=PURPOSE, epsilon=1, keep=keep)

    with pytest.raises(DeniedError, match="APPROVAL_AWAITED"):
        again()
    assert keep.stat().st_mode & 0o777 == 0o600
    nonce = Request.decode(keep.read_bytes()).nonce
    with pytest.raises(DeniedError, match="APPROVAL_AWAITED"):
        again()
    with pytest.raises(AnalystError, match="another question"):
        again("SELECT COUNT(*) AS n FROM lung")
    for home in (guarded[1], *others(simulation)):
        (waiting,) = requests_of(load(home.policy).policy, ledger_of(simulation.silos[home.policy.parent.name]), NOW)
        for who in (DPO, OWNER):
            vote(home, who, waiting.name)
    report = again()
    assert {outcome.status for outcome in report.silos.values()} == {"answered"}
    assert all(ledger_of(silo).is_charged(nonce) for silo in simulation.silos.values())
    assert not keep.exists(), "it was answered"


def test_a_file_that_holds_no_request_is_said_to(exact: Simulation, tmp_path: Path) -> None:
    keep = tmp_path / "request"
    keep.write_text("no request")
    with pytest.raises(AnalystError, match="holds no request"):
        exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1, keep=keep)
    assert keep.read_text() == "no request"


def test_one_rejection_refuses(guarded: tuple[Simulation, OwnerHome]) -> None:
    simulation, owner = guarded
    request = prepared(simulation)
    denied(simulation, request)
    name = ledger_of(simulation.silos["aspen"]).waiting()[0].subject.hex()
    for who, decision in ((DPO, "approve"), (OWNER, "approve"), (DPO, "reject")):
        assert vote(owner, who, name, decision) == 0
    assert denied(simulation, request) == {"APPROVAL_REJECTED": f"{DPO} rejected it"}
    assert simulation.spent("aspen") == 0


def test_what_is_refused_anyway_is_put_to_nobody(guarded: tuple[Simulation, OwnerHome]) -> None:
    simulation, _ = guarded
    with pytest.raises(DeniedError):
        simulation.federation.query(QUESTION, purpose=PURPOSE, epsilon=50)
    assert ledger_of(simulation.silos["aspen"]).waiting() == []


def test_no_more_requests_a_day_than_the_policy_says(guarded: tuple[Simulation, OwnerHome]) -> None:
    simulation, _ = guarded
    for _ in range(3):
        answer(simulation, prepared(simulation, 0.3))
    assert set(denied(simulation, prepared(simulation, 0.3))) == {"REQUESTS_PER_DAY"}


def test_a_request_is_proposed_only_so_often(exact: Simulation) -> None:
    request = prepared(exact)
    for silo in exact.silos.values():
        database_of(ledger_of(silo)).execute(
            "INSERT INTO nonces VALUES (?, zeroblob(32), 'ana', NULL, NULL, NULL, zeroblob(16), 0, ?)",
            (request.nonce, MAX_PROPOSALS),
        )
    assert set(denied(exact, request)) == {"RETRIES"}
    assert exact.spent("aspen") == 0


@pytest.mark.parametrize(
    ("who", "key", "name", "message"),
    [
        ("eve@aspen.example", DPO, "", "not in the policy's"),
        (DPO, OWNER, "", "not the one that the policy gives"),
        (CISO, CISO, "", "not among those who decide"),
        (DPO, DPO, "abcdef01" * 4, "no requests here are named 'abcdef01abcdef01"),
        (DPO, DPO, "ab", "at least 32 digits, found 'ab'"),
    ],
)
def test_who_may_not_decide_decides_nothing(owner: OwnerHome, who: str, key: str, name: str, message: str) -> None:
    waiting = ask(owner, now=NOW)
    policy = load(owner.policy).policy
    with closing(owner.open()) as store, pytest.raises(SiloError, match=message):
        decide_on(policy, store, who, owner.keys[key], name or waiting.subject.hex()[:32], "approve", NOW)
    with closing(owner.open()) as store:
        assert store.verdicts(waiting.subject) == ()
        assert not [entry for entry in store.entries(100) if entry.event.kind == "verdict"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "a request is named by at least 32 digits, found ''"),
        ("z" * 32, f"no requests here are named {'z' * 32!r}"),
    ],
)
def test_a_request_that_is_not_there_is_said_so(
    owner: OwnerHome, name: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(owner, now=int(time.time()))
    assert vote(owner, DPO, name) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"consilo-silo: error: {says}",
        "consilo-silo: hint: take its whole name from `consilo-silo requests`",
    ]


def test_a_key_with_a_passphrase_needs_a_terminal(
    owner: OwnerHome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(owner, now=int(time.time()))
    owner.files[DPO].unlink()
    write_key_file(owner.files[DPO], Secret(bytes([1]) * 32), lambda: "a long passphrase")
    monkeypatch.setattr("sys.stdin", io.StringIO("a long passphrase\n"))
    assert vote(owner, DPO, "0123456789ab") == 1
    output, errors = capsys.readouterr()
    assert errors.splitlines() == [
        "consilo-silo: error: a passphrase is needed, and there is no terminal to ask for it",
        "consilo-silo: hint: run it in a terminal",
    ]
    assert not output


def test_an_emptied_ledger_is_not_called_whole(owner: OwnerHome, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(owner.open()) as store:
        store.start(bytes(32), 1)
        kept = owner.policy.with_name("kept.head")
        kept.write_bytes(store.checkpoint() or b"")
    for file in owner.policy.parent.glob("ledger.sqlite*"):
        file.unlink()
    owner.ledger.touch()
    assert command("verify-log", "--policy", str(owner.policy)) == 1
    output, errors = capsys.readouterr()
    assert not output
    assert "the log is empty" in errors
    assert "--head" in errors
    assert command("verify-log", "--policy", str(owner.policy), "--head", str(kept)) == 1
    assert "older than its last checkpoint: 0 entries, 2 were signed" in capsys.readouterr().err


def test_the_ledger_is_whole_in_a_narrow_window(
    owner: OwnerHome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    spend(owner)
    assert command("ledger", "--policy", str(owner.policy)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "    0.017000  committed  2026-10-27T09:00:00Z  bo<script>@uni.example for health-research" in lines
    assert lines.count("       spent    reserved        left       limit  of") == 1
    assert all("@uni.example" in line[:80] for line in lines if "bo<" in line), "figures come before long names"
    assert not [line for line in lines if "\u2026" in line], "nothing is cut"


def test_an_expired_request_is_not_decided_on(owner: OwnerHome) -> None:
    waiting = ask(owner)
    policy = load(owner.policy).policy
    with closing(owner.open()) as store:
        assert [one.status for one in requests_of(policy, store, waiting.expires_at)] == ["expired"]
        with pytest.raises(SiloError, match="expired"):
            decide_on(policy, store, DPO, owner.keys[DPO], waiting.subject.hex(), "approve", waiting.expires_at)


def test_an_approval_lapses(owner: OwnerHome) -> None:
    waiting = ask(owner, expires_at=NOW + 20 * DAY_S)
    policy = load(owner.policy).policy
    with closing(owner.open()) as store:
        for who in (DPO, OWNER):
            decide_on(policy, store, who, owner.keys[who], waiting.subject.hex(), "approve", NOW)
        after = [requests_of(policy, store, NOW + hours * 3600)[0].status for hours in (0, 71, 72)]
    assert after == ["approved", "approved", "waiting"]


def test_a_run_is_stopped_and_approved_anew_after_its_first_request_has_expired(owner: OwnerHome) -> None:
    policy, hour = load(owner.policy).policy, 3600

    def step(number: int, now: int) -> Waiting:
        plan = LogisticStep(run=bytes(16), step=number, steps=3, after=bytes([7]) * 32 if number else START,
                    label="smoker", release="private", features=("age",), learning_rate="1", clip="1")  # fmt: skip
        return ask(owner, number, now, plan=plan, expires_at=now + 600)

    def told(store: LedgerStore, now: int) -> tuple[str, int]:
        (one,) = requests_of(policy, store, now)
        return one.status, one.request.expires_at

    first = step(0, NOW)
    name = first.subject.hex()
    with closing(owner.open()) as store:
        for who in (DPO, OWNER):
            decide_on(policy, store, who, owner.keys[who], name, "approve", NOW)
        assert told(store, NOW + hour) == ("approved", NOW + 600), "a run goes on with other requests"
        assert told(store, NOW + 72 * hour) == ("expired", NOW + 600)
        with pytest.raises(SiloError, match="has expired"):
            decide_on(policy, store, DPO, owner.keys[DPO], name, "approve", NOW + 72 * hour)
    later = NOW + 72 * hour
    assert step(1, later).subject == first.subject
    step(2, later + 1)  # asked while the other one waits
    with closing(owner.open(later)) as store:
        assert told(store, later) == ("waiting", later + 600)
        for who in (DPO, OWNER):
            decide_on(policy, store, who, owner.keys[who], name, "approve", later + 2)
        assert told(store, later + hour)[0] == "approved"
        decide_on(policy, store, OWNER, owner.keys[OWNER], name, "reject", later + hour)
        assert told(store, later + hour)[0] == "rejected"
        store.audit()
        asked = [entry for entry in store.entries(100) if isinstance(entry.event, events.ApprovalAsked)]
        assert len(asked) == 2, "each time that people were asked stands in the log"


def test_a_rejection_is_heard_after_the_request_has_expired(owner: OwnerHome) -> None:
    waiting = ask(owner)
    policy = load(owner.policy).policy
    with closing(owner.open()) as store:
        decide_on(policy, store, DPO, owner.keys[DPO], waiting.subject.hex(), "reject", waiting.expires_at + 1)
        assert requests_of(policy, store, waiting.expires_at + 1)[0].status == "rejected"


def test_a_stored_verdict_that_was_altered_counts_as_a_rejection(owner: OwnerHome) -> None:
    waiting = ask(owner)
    policy = load(owner.policy).policy
    with closing(owner.open()) as store:
        for who in (DPO, OWNER):
            decide_on(policy, store, who, owner.keys[who], waiting.subject.hex(), "reject", NOW)
        database_of(store).execute("UPDATE verdicts SET decision = 'approve'")
        assert requests_of(policy, store, NOW)[0].status == "rejected"
        forged = StoredVerdict.signed(DPO, SigningKey(Secret(bytes(32))), "aspen", waiting.subject, "approve", NOW)
        store.add_verdict(forged)
        assert requests_of(policy, store, NOW)[0].status == "rejected"


def test_a_stored_request_that_was_exchanged_is_found_out(owner: OwnerHome) -> None:
    first, second = ask(owner), ask(owner, 2)
    policy = load(owner.policy).policy
    with closing(owner.open()) as store:
        database_of(store).execute(
            "UPDATE requests SET envelope = ? WHERE subject = ?", (second.envelope, first.subject)
        )
        with pytest.raises(LedgerError, match="altered"):
            requests_of(policy, store, NOW)


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM verdicts WHERE decision = 'reject'",
        "UPDATE verdicts SET decision = 'approve'",
        "UPDATE verdicts SET at = at + 1000 WHERE decision = 'reject'",
        "UPDATE verdicts SET envelope = x'00' WHERE decision = 'reject'",
        "UPDATE verdicts SET who = 'nobody' WHERE decision = 'reject'",
        "INSERT INTO verdicts SELECT subject, who, at - 1, 'approve', envelope FROM verdicts WHERE decision = 'reject'",
        "INSERT INTO verdicts SELECT zeroblob(32), who, at, decision, envelope FROM verdicts",
        "DELETE FROM verdicts",
        "DELETE FROM requests",
        "DELETE FROM requests; DELETE FROM verdicts",
        "INSERT INTO requests SELECT zeroblob(32), envelope, analyst, purpose, 1, asked_at, expires_at FROM requests",
        "UPDATE requests SET micro_rho = 1",
        "UPDATE requests SET purpose = 'billing'",
        "UPDATE requests SET expires_at = asked_at + 1",
    ],
)
def test_what_people_said_cannot_be_altered_unseen(
    owner: OwnerHome, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rejection that is deleted would leave the approvals of the others."""
    waiting = ask(owner)
    policy = load(owner.policy).policy
    with closing(owner.open()) as store:
        for who, decision in ((DPO, "reject"), (OWNER, "approve")):
            decide_on(policy, store, who, owner.keys[who], waiting.subject.hex(), decision, NOW)  # type: ignore[arg-type]
    owner.open().close()
    with closing(sqlite3.connect(owner.ledger)) as database:
        database.executescript(change)
    with pytest.raises(LedgerError, match="or what people said to them"):
        owner.open()
    assert command("verify-log", "--policy", str(owner.policy)) == 1
    assert "the log says what the ledger does not" in capsys.readouterr().err


def test_what_people_see_of_a_request_is_what_the_analyst_signed(
    owner: OwnerHome, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = ask(owner, now=int(time.time()))
    policy = load(owner.policy).policy
    with closing(LedgerStore(owner.ledger)) as store:
        (before,) = requests_of(policy, store, waiting.asked_at)
        assert before.micro_rho == before.request.micro_rho == 20_000
        database_of(store).execute("UPDATE requests SET micro_rho = 1, analyst = 'bo', purpose = 'p', expires_at = 1")
        assert requests_of(policy, store, waiting.asked_at) == [before]
    assert command("requests", "--policy", str(owner.policy)) == 0
    text = capsys.readouterr().out
    assert "  analyst: ana, in fed\n  purpose: health-research\n  price: rho 0.020000, epsilon " in text


def test_requests_are_erased_when_they_are_due_and_their_entries_with_them(owner: OwnerHome) -> None:
    ask(owner, 1, now=NOW, expires_at=NOW + DAY_S)
    late = ask(owner, 2, now=NOW, expires_at=NOW + 20 * DAY_S)
    policy = load(owner.policy).policy
    with closing(owner.open(NOW + 1)) as store:
        for waiting in store.waiting():
            decide_on(policy, store, DPO, owner.keys[DPO], waiting.subject.hex(), "reject", NOW)
    with closing(owner.open(NOW + 12 * DAY_S)) as store:
        assert erased(store, Due(audit=NOW + 10 * DAY_S)) == 2, "a request, and the entry before that of the other"
        assert [one.subject for one in store.waiting()] == [late.subject]
        found = store.audit()
        assert (found.first, len(found.requests)) == (2, 1), "what is kept of a request is held against its entry"
    with closing(owner.open(NOW + 40 * DAY_S)) as store:
        assert erased(store, Due(audit=NOW + 30 * DAY_S)) > 2
        assert store.waiting() == []
        assert not store.audit().requests
    owner.open().close()


def test_requests_of_the_third_format_are_held_against_the_log_too(owner: OwnerHome) -> None:
    waiting = ask(owner)
    verdict = StoredVerdict.signed(DPO, owner.keys[DPO], "aspen", waiting.subject, "reject", NOW)
    with closing(owner.open()) as store:
        keeps = database_of(store).execute("SELECT sql FROM sqlite_schema WHERE name = 'log_keeps'").fetchone()[0]
        database_of(store).execute("DROP TRIGGER log_keeps")
        database_of(store).execute("DELETE FROM log")
        database_of(store).execute(keeps)
        database_of(store).execute("DELETE FROM head")
        log_of(store).append(events.ApprovalAsked(subject=waiting.subject, analyst="ana", purpose="p"))
        database_of(store).execute(
            "INSERT INTO verdicts VALUES (?, ?, ?, 'reject', ?)", (waiting.subject, DPO, NOW, verdict.envelope)
        )
        log_of(store).append(events.Voted(subject=waiting.subject, who=DPO, decision="reject"))
        store.audit()
        database_of(store).execute("UPDATE verdicts SET who = ?", (OWNER,))
        with pytest.raises(LedgerError, match="what people said"):
            store.audit()
        database_of(store).execute("DELETE FROM verdicts")
        with pytest.raises(LedgerError, match="what people said"):
            store.audit()
        log_of(store).append(events.Erased(what="approvals", count=1, before=NOW + DAY_S))
        store.audit()  # that one may have been erased: version 3 did not say when it expired
        database_of(store).execute("DELETE FROM requests")
        store.audit()


def test_a_verdict_needs_a_request_and_is_stored_once(owner: OwnerHome) -> None:
    waiting = ask(owner)
    verdict = StoredVerdict.signed(DPO, owner.keys[DPO], "aspen", waiting.subject, "approve", NOW)
    with closing(owner.open()) as store:
        store.add_verdict(verdict)
        store.add_verdict(verdict)
        assert store.verdicts(waiting.subject) == (verdict,)
        assert [entry.event.kind for entry in store.entries(100)] == ["request", "verdict"]
        with pytest.raises(LedgerError, match="waits here"):
            store.add_verdict(StoredVerdict.signed(DPO, owner.keys[DPO], "aspen", bytes(32), "approve", NOW))


def test_an_analyst_cannot_fill_the_list(tmp_path: Path, owner: OwnerHome) -> None:
    def waiting(number: int, analyst: str = "ana") -> Waiting:
        return Waiting(number.to_bytes(32, "big"), b"", analyst, "p", 1, NOW, NOW + 10)

    with closing(LedgerStore(tmp_path / "ledger.sqlite", owner.signer(), lambda: NOW)) as store:
        for number in range(MAX_WAITING):
            store.await_approval(waiting(number))
        with pytest.raises(LedgerError, match="waiting for approval"):
            store.await_approval(waiting(5000))
        store.await_approval(waiting(5000, "bo"))
        store.await_approval(waiting(3))  # known already
        assert len(store.waiting()) == MAX_WAITING + 1


def test_analysts_of_one_entry_share_how_many_may_wait(
    guarded: tuple[Simulation, OwnerHome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds the key of a domain can sign under any name of it."""
    monkeypatch.setattr("silo_node.ledger.approvals.MAX_WAITING", 2)
    simulation, owner = guarded
    owner.policy.write_text(owner.policy.read_text().replace("[analysts.ana]", '[analysts."*@lab.example"]'))
    aspen = simulation.silos["aspen"]
    own = prepared(simulation)
    aspen.restarts = True
    aspen.kill()
    reasons = []
    for number in range(3):
        name = f"a{number}@lab.example"
        recipient = own.recipients[0].model_copy(update={"name": name})
        request = own.model_copy(update={"analyst": name, "recipients": (recipient,), "nonce": token(16)})
        round_id, envelope = token(16), sign(request, name, key_of(simulation.federation))
        proposed = propose(aggregator_of(simulation.server), read_request(envelope), round_id, int(aspen.clock()))
        (reply,) = aspen.actor.propose(round_id, proposed.envelope)
        reasons.append({denial.code for denial in unverified(reply, Refusal).denials})
    assert reasons == [{"APPROVAL_AWAITED"}] * 2 + [{"BUSY"}]
    assert len(ledger_of(aspen).waiting()) == 2


def test_a_stranger_s_request_is_logged_and_put_to_nobody(guarded: tuple[Simulation, OwnerHome]) -> None:
    simulation, _ = guarded
    _, request = simulation.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    forged = sign(request, "ana", SigningKey(Secret(bytes(32))))
    stranger = sign(request.model_copy(update={"analyst": "eve"}), "eve", SigningKey(Secret(bytes(32))))
    actor = simulation.silos["aspen"].actor
    codes = []
    for envelope in (forged, stranger):
        round_id = token(16)
        proposed = propose(
            aggregator_of(simulation.server), read_request(envelope), round_id, int(simulation.silos["aspen"].clock())
        )
        (reply,) = actor.propose(round_id, proposed.envelope)
        assert unverified(reply, Refusal).denials
        event = ledger_of(actor).entries(1)[0].event
        assert isinstance(event, events.Decided)
        codes.append((event.analyst, event.codes))
    assert codes == [("ana", ("SIGNATURE",)), ("eve", ("ANALYST_UNKNOWN",))]
    assert ledger_of(actor).waiting() == []


def test_a_broken_ledger_refuses_every_request(exact: Simulation) -> None:
    actor = exact.silos["aspen"].actor
    pages = database_of(ledger_of(actor)).execute("PRAGMA page_count").fetchone()[0]
    database_of(ledger_of(actor)).execute(f"PRAGMA max_page_count = {pages}")
    database_of(ledger_of(actor)).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    outcomes = []
    for _ in range(12):
        report = exact.federation.query("SELECT COUNT(*) AS n FROM lung", purpose=PURPOSE, epsilon=0.1)
        outcomes.append(report.silos["aspen"].status)
        if outcomes[-1] != "answered":
            break
    assert outcomes[-1] == "unable", "a ledger that is full accepts nothing"
    (denial,) = report.silos["aspen"].denials
    assert (denial.code, "to free disk space" in denial.remedy) == ("DISK_FULL", True)
    ledger_of(actor).audit()


def test_a_silo_that_nobody_asks_erases_what_is_due(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("silo_node.stepping.LOOK_S", 0.05)
    with_people(home)
    now = [float(NOW)]
    others = set(threading.enumerate())
    with simulate(home, noise=no_noise, clock=lambda: now[0]) as simulation:
        actor = simulation.silos["aspen"].actor
        ledger_of(actor).save_run(bytes(16), KeptState(b"a model"))
        time.sleep(0.5)
        assert len(ledger_of(actor).runs()) == 1, "it is not due"
        for _ in range(2):
            now[0] += 31 * DAY_S
            deadline = time.monotonic() + 20
            while ledger_of(actor).runs() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert ledger_of(actor).runs() == {}
            ledger_of(actor).save_run(bytes(16), KeptState(b"another"))
    for one in set(threading.enumerate()) - others:
        one.join(5)
        assert not isinstance(one, threading.Timer) or not one.is_alive(), "a silo that was stopped looks no more"


def test_retention_runs_once_a_day_and_on_command(
    guarded: tuple[Simulation, OwnerHome], capsys: pytest.CaptureFixture[str]
) -> None:
    simulation, owner = guarded
    actor = simulation.silos["aspen"].actor
    began = simulation.silos["aspen"].clock()
    # As an earlier version kept it, of whose models the log knows nothing: one that the log dates may not be so old.
    old, insert = (
        (bytes(16), b"a model", int(began) - 31 * DAY_S),
        "INSERT INTO runs (run, state, saved_at) VALUES (?, ?, ?)",
    )
    database_of(ledger_of(actor)).execute(insert, old)
    erase_at(actor, began)
    assert len(ledger_of(actor).runs()) == 1, "once a day"
    erase_at(actor, began + DAY_S + 1)
    assert ledger_of(actor).runs() == {}
    event = ledger_of(actor).entries(1)[0].event
    assert isinstance(event, events.Erased)
    assert (event.what, event.count) == ("models", 1)
    database_of(ledger_of(actor)).execute(insert, old)
    assert command("erase", "--policy", str(owner.policy)) == 0
    assert re.fullmatch(r"1 models from before \S+Z erased\n", capsys.readouterr().out)
    assert command("erase", "--policy", str(owner.policy)) == 0
    assert capsys.readouterr().out == "nothing is due\n"
    assert ledger_of(actor).runs() == {}
