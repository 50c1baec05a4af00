"""A silo that was away does not stop the others: a request in the place of the one that it left unanswered."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analyst.demo.hospitals import PURPOSE
from analyst.errors import DeniedError, LostError, RoundError
from analyst.kept import KeptAnswers
from analyst.replacing import in_place_of
from crypto.errors import ProtocolError
from crypto.keys import Secret, SigningKey
from crypto.rounds.messages import Away, Failure
from crypto.wire import digest_of, sign, verify
from policies.budget.ledger import Charge
from policies.decision.denial_codes import deny
from policies.errors import AlreadyChargedError
from policies.requests.denials import Refusal
from policies.requests.replacing import holds_for, left_out
from policies.requests.request import Request
from policies.units import DAY_S
from silo_node.home import LEDGER
from silo_node.ledger.log import Signer
from silo_node.ledger.retention import Due
from silo_node.ledger.store import LedgerStore
from silo_node.owner.ledger_commands import ledger_path
from silo_node.owner.pending import decide_on, requests_of
from tests.harness.inside import aggregator_of, copied, key_of, known_to, ledger_of
from tests.harness.simulator import Simulation, ask, simulate

QUESTION = "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex"


def without_spares(home: Path) -> Path:
    """Let no silo of a federation be missing from a sum."""
    for policy in home.glob("silos/*/policy.toml"):
        policy.write_text(policy.read_text().replace("max_missing   = 1", "max_missing   = 0"))
    return home


@pytest.fixture
def strict(home: Path) -> Iterator[Simulation]:
    with simulate(without_spares(home)) as running:
        yield running


def spent(simulation: Simulation) -> dict[str, int]:
    return {silo: simulation.spent(silo) for silo in simulation.silos if not simulation.silos[silo].is_dead}


def refused_by(simulation: Simulation, request: Request, others: Simulation | None = None) -> set[str]:
    """Send a request and return the codes with which silos refuse it."""
    answer = simulation.federation.exchange(request)
    assert not isinstance(answer, bytes)
    keys = simulation.federation.config.roster.silo_keys
    return {one.code for envelope in answer.message.refusals for one in verify(envelope, Refusal, keys).message.denials}


def requests_sent(simulation: Simulation) -> list[Request]:
    keys = {simulation.federation.analyst: simulation.federation.key}
    kept = reversed(simulation.federation.kept.all())
    return [verify(one.question.request, Request, keys).message for one in kept]


def test_the_others_answer_in_its_place_at_one_price(strict: Simulation) -> None:
    told: list[str] = []
    strict.silos["cedar"].dies_before = "propose"
    report = strict.federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5, tell=told.append)
    assert {silo: one.status for silo, one in report.silos.items()} == {
        "aspen": "answered",
        "birch": "answered",
        "cedar": "missing",
        "maple": "answered",
        "rowan": "answered",
    }
    assert any("asked again without cedar" in line for line in told)
    prices = set(spent(strict).values())
    assert len(prices) == 1
    first, later = sorted(requests_sent(strict), key=lambda one: len(one.silos), reverse=True)
    assert first.or_without == later.or_without == 2
    assert later.replaces is not None
    assert later.replaces.nonces == (first.nonce,)
    assert prices == {later.micro_rho}
    # The silo is back: no silo accepts the first request any more, also after a restart, and none is charged for it.
    strict.mend()
    assert refused_by(strict, first) >= {"REPLACED"}
    for name, silo in strict.silos.items():
        if name != "cedar":
            silo.kill()
            silo.actor = silo.start()
            silo.is_dead = False
    assert refused_by(strict, first) >= {"REPLACED"}
    assert set(spent(strict).values()) == {later.micro_rho, 0}


def test_of_two_that_are_away_one_is_left_out_and_the_other_missed(home: Path) -> None:
    """Five are asked, of whom one may be missing; of four, three answer."""
    told: list[str] = []
    with simulate(home) as simulation:
        for name in ("cedar", "maple"):
            simulation.silos[name].dies_before = "propose"
        report = simulation.federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5, tell=told.append)
        assert {silo: one.status for silo, one in report.silos.items()} == {
            "aspen": "answered",
            "birch": "answered",
            "cedar": "missing",
            "maple": "missing",
            "rowan": "answered",
        }
        assert any("asked again without cedar" in line for line in told)
        first, later = sorted(requests_sent(simulation), key=lambda one: len(one.silos), reverse=True)
        assert later.silos == tuple(silo for silo in first.silos if silo != "cedar")
        assert set(spent(simulation).values()) == {later.micro_rho}
        simulation.silos["rowan"].kill()
        with pytest.raises(RoundError, match="missing") as caught:
            simulation.federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5, new=True)
        assert "is back" in caught.value.hint or "are back" in caught.value.hint


def test_a_silo_that_refuses_is_left_out_by_its_own_word(home: Path) -> None:
    policy = home / "silos" / "cedar" / "policy.toml"
    policy.write_text(f"{policy.read_text()}\n[compute]\nfixed_seconds = 99.5\n")
    with simulate(without_spares(home)) as strict:
        assert ask(strict, QUESTION) == {
            "aspen": "answered",
            "birch": "answered",
            "cedar": "denied",
            "maple": "answered",
            "rowan": "answered",
        }


def test_who_has_charged_the_first_takes_no_part_in_the_later(strict: Simulation) -> None:
    strict.silos["cedar"].dies_before = "contribute"
    with pytest.raises(LostError, match="charged this request before"):
        strict.federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5)
    price = requests_sent(strict)[0].micro_rho
    assert set(spent(strict).values()) == {price}, "nobody paid twice"


def test_a_catalogue_that_was_missing_is_asked_for_again(strict: Simulation) -> None:
    strict.silos["cedar"].is_cut_off = True
    assert ask(strict, QUESTION)["cedar"] == "missing"
    strict.silos["cedar"].is_cut_off = False
    asked = strict.federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5, new=True)
    assert {one.status for one in asked.silos.values()} == {"answered"}


def test_the_ledger_holds_what_was_replaced(strict: Simulation, home: Path) -> None:
    strict.silos["cedar"].dies_before = "propose"
    ask(strict, QUESTION)
    first = max(requests_sent(strict), key=lambda one: len(one.silos))
    ledger = ledger_of(strict.silos["aspen"])
    assert ledger.is_replaced(first.nonce)
    ledger.audit()
    ledger.erase(Due(audit=int(time.time()) + DAY_S))
    assert ledger.is_replaced(first.nonce), "also when the log of it was erased"
    strict.silos["aspen"].kill()
    store = LedgerStore(ledger_path(home / "silos" / "aspen" / "policy.toml"))
    assert store.is_replaced(first.nonce)
    store.close()


def test_nobody_is_left_out_without_a_proof(strict: Simulation) -> None:
    federation = strict.federation
    _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.5)
    now, roster = federation.now(), federation.config.roster
    silos, aggregators = federation.config.roster.silo_keys, federation.config.roster.aggregator_keys
    hub = strict.server

    def failure(**changes: Any) -> Failure:
        given: dict[str, Any] = {
            "missing": ("cedar",),
            "left_out": (),
            "refusals": (),
            "failed": (),
            "away": b"",
            "charged": False,
            "manifests": (),
            "testimonies": (),
        }
        return Failure(request_hash=digest_of(request), reason="too few", **{**given, **changes})

    signing = aggregator_of(hub)

    def away(*names: str, request_hash: bytes = digest_of(request)) -> bytes:
        return sign(
            Away(federation=roster.federation, request_hash=request_hash, silos=names), signing.name, signing.signing
        )

    assert in_place_of(request, failure(), now, roster) is None, "nobody signed that it was away"
    later = in_place_of(request, failure(away=away("cedar")), now, roster)
    assert later is not None
    assert later.replaces is not None
    assert left_out(later.replaces, roster.federation, silos, aggregators) == {"cedar": ()}
    assert holds_for(request, later)
    dearer = later.model_copy(update={"micro_rho": later.micro_rho + 1})
    assert not holds_for(request, dearer)
    assert not holds_for(request.model_copy(update={"or_without": None}), later)
    assert not holds_for(later, later)
    for wrong in (
        away("aspen"),
        away("cedar", request_hash=bytes(32)),
        sign(
            Away(federation=roster.federation, request_hash=digest_of(request), silos=("cedar",)),
            "aspen",
            key_of(federation),
        ),
        b"no envelope",
    ):
        forged = later.replaces.model_copy(update={"evidence": (wrong,)})
        with pytest.raises(ProtocolError, match="why cedar is left out"):
            left_out(forged, roster.federation, silos, aggregators)
        answer = federation.exchange(later.model_copy(update={"replaces": forged}))
        assert not isinstance(answer, bytes)
        assert len(answer.message.failed) == 4, "each silo asks for a proof itself"
    birch = known_to(strict.silos["birch"])
    waits = deny("APPROVAL_AWAITED", "approvals.0", "people decide", "wait")
    refusal = Refusal(
        federation=birch.federation, request_hash=digest_of(request), policy_hash=bytes(32), denials=(waits,)
    )
    told = failure(missing=(), refusals=(sign(refusal, "birch", birch.signing),))
    assert in_place_of(request, told, now, roster) is None, "people are asked there"
    assert set(spent(strict).values()) == {0}


def test_a_client_that_is_killed_between_the_two_asks_the_later_one(
    strict: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict.silos["cedar"].dies_before = "propose"
    submit = Simulation.submit

    def once(simulation: Simulation, request: bytes, more_s: float = 0.0) -> bytes:
        if len(requests_sent(simulation)) == 2:
            raise KeyboardInterrupt
        return submit(simulation, request, more_s)

    with monkeypatch.context() as patch:
        patch.setattr(Simulation, "submit", once)
        with pytest.raises(KeyboardInterrupt):
            strict.federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5)
    assert sorted(one.state for one in strict.federation.kept.all()) == ["ended", "sent"]
    report = strict.federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5)
    assert [one.status for one in report.silos.values()].count("answered") == 4
    assert set(spent(strict).values()) == {report_price(strict)}
    assert isinstance(strict.federation.kept, KeptAnswers)


def test_an_approval_holds_for_both_if_it_was_shown(home: Path, tmp_path: Path) -> None:
    key = SigningKey(Secret.generate())
    policy = home / "silos" / "aspen" / "policy.toml"
    rule = f'[people.dpo]\nkey = "{key.public}"\n[[approvals]]\nneed = 1\nof = ["dpo"]\nexpires_hours = 24\n'
    policy.write_text(f"{policy.read_text()}\n{rule}")
    keep = tmp_path / "request"
    with simulate(without_spares(home)) as strict:
        federation, aspen = strict.federation, strict.silos["aspen"]
        with pytest.raises(DeniedError, match="APPROVAL_AWAITED"):
            federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5, keep=keep)
        store, rules, now = ledger_of(aspen), known_to(aspen).policy, federation.now()
        (waiting,) = requests_of(rules, store, now)
        assert dict(waiting.lines)["silos"] == "5: aspen, birch, cedar, maple, rowan; or without up to 2 of them"
        decide_on(rules, store, "dpo", key, waiting.name, "approve", now)
        strict.silos["cedar"].dies_before = "propose"
        report = federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5, keep=keep)
        assert report.silos["aspen"].status == "answered"
        assert report.silos["cedar"].status == "missing"
        assert not keep.exists()
        # It holds for these two alone, and once.
        (waiting,) = requests_of(rules, store, now)
        assert waiting.status == "approved"
        with pytest.raises(DeniedError, match="APPROVAL_AWAITED"):
            federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5, new=True, silos=("aspen", "birch", "maple"))


def without(simulation: Simulation, request: Request, *names: str) -> Request:
    """Return a request in the place of another, without silos that the aggregator says were away."""
    federation, hub = simulation.federation, aggregator_of(simulation.server)
    away = sign(Away(federation=hub.federation, request_hash=digest_of(request), silos=names), hub.name, hub.signing)
    fields: dict[str, Any] = {
        "missing": names,
        "left_out": (),
        "refusals": (),
        "failed": (),
        "charged": False,
        "manifests": (),
        "testimonies": (),
    }
    failure = Failure(request_hash=digest_of(request), reason="too few", away=away, **fields)
    later = in_place_of(request, failure, federation.now(), federation.config.roster)
    assert later is not None
    return later


def test_one_request_is_answered_in_a_place_whoever_is_said_to_be_away(strict: Simulation) -> None:
    # Hope: one approved question is answered again and again, each time without another silo, for the same approval.
    _, first = strict.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.5)
    later = without(strict, first, "cedar")
    assert isinstance(strict.federation.exchange(later), bytes)
    once = spent(strict)
    for others in (("cedar",), ("rowan",), ("cedar", "rowan")):
        assert refused_by(strict, without(strict, first, *others)) >= {"REPLACED"}
    assert refused_by(strict, without(strict, later, "rowan")) == {"ALREADY_ANSWERED"}
    left_out = {silo: paid for silo, paid in spent(strict).items() if silo != "cedar"}
    assert left_out == dict.fromkeys(left_out, later.micro_rho)
    assert spent(strict) == once


def test_nobody_takes_the_place_of_another_analysts_request(strict: Simulation, tmp_path: Path) -> None:
    # Hope: an analyst stops the questions of another, whose nonces a silo has told it.
    _, first = strict.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.5)
    ledger = ledger_of(strict.silos["aspen"])
    entry = Charge(first.nonce, digest_of(first), "ana", PURPOSE, 1, bytes(32), 1)
    assert ledger.reserve(entry, 100)
    of_ana = ((first.nonce, entry.request_hash),)
    with pytest.raises(AlreadyChargedError, match="another analyst's"):
        ledger.reserve(replace(entry, nonce=bytes(16), analyst="bob", replaces=of_ana), 100)
    assert not ledger.is_replaced(first.nonce)
    assert ledger.reserve(replace(entry, nonce=bytes(16), replaces=of_ana), 100)
    assert ledger.is_replaced(first.nonce)


def test_an_approval_of_before_a_backup_holds_for_no_later_request(home: Path, tmp_path: Path) -> None:
    # Hope: a silo that was put back has forgotten what was answered in the place of the request that people approved.
    key = SigningKey(Secret.generate())
    policy = home / "silos" / "aspen" / "policy.toml"
    rule = f'[people.dpo]\nkey = "{key.public}"\n[[approvals]]\nneed = 1\nof = ["dpo"]\nexpires_hours = 24\n'
    policy.write_text(f"{policy.read_text()}\n{rule}")
    with simulate(without_spares(home)) as strict:
        federation, aspen = strict.federation, strict.silos["aspen"]
        _, first = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.5)
        assert refused_by(strict, first) == {"APPROVAL_AWAITED"}
        store, rules, now = ledger_of(aspen), known_to(aspen).policy, federation.now()
        (waiting,) = requests_of(rules, store, now)
        decide_on(rules, store, "dpo", key, waiting.name, "approve", now)
        older = copied(store, tmp_path / "older.sqlite")
        assert isinstance(federation.exchange(without(strict, first, "cedar")), bytes)
        signer = Signer("aspen", federation.config.roster.federation, known_to(aspen).signing)
        aspen.kill()
        for file in policy.parent.glob("ledger.sqlite*"):
            file.unlink()
        with closing(LedgerStore(older.rename(policy.with_name(LEDGER)), signer)) as restored:
            time.sleep(1.1)  # it is put back in a later second than the request was signed
            restored.put_back(now)
        aspen.actor, aspen.is_dead = aspen.start(), False
        assert refused_by(strict, without(strict, first, "cedar")) == {"APPROVAL_AWAITED", "REPLACED"}


def report_price(simulation: Simulation) -> int:
    return requests_sent(simulation)[0].micro_rho


def test_a_silo_that_needs_one_that_is_away_is_left_out_too(home: Path) -> None:
    policy = home / "silos" / "aspen" / "policy.toml"
    policy.write_text(policy.read_text().replace("max_colluding = 1", 'must_include = ["cedar"]\nmax_colluding = 1'))
    with simulate(without_spares(home)) as strict:
        assert set(ask(strict, QUESTION).values()) == {"answered"}
        strict.silos["cedar"].dies_before = "propose"
        report = strict.federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5)
        found = {silo: one.status for silo, one in report.silos.items()}
        assert (found.pop("cedar"), found.pop("aspen")) == ("missing", "denied")
        assert set(found.values()) == {"answered"}
        (denial,) = report.silos["aspen"].denials
        assert (denial.code, denial.rule) == ("ROSTER", "protection.must_include")
        assert max(len(one.replaces.requests) for one in requests_sent(strict) if one.replaces is not None) == 2
