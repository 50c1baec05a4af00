"""One key in two federations: what was signed in one is worth nothing in the other.

An organisation may use one key in several federations, and its names there may be the same. Whoever is in both shows in
the one what was signed in the other.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from aggregator.outcomes import Outcomes
from aggregator.reports import read_model_updated
from aggregator.rounds import cancel, propose, read_request
from analyst.answers import failures_of
from analyst.demo.hospitals import PURPOSE
from analyst.errors import AnalystError
from crypto.errors import ProtocolError
from crypto.rounds.messages import Away, Failed, ModelUpdated
from crypto.wire import Message, digest_of, sign, unverified
from federation.errors import FederationError
from policies.decision.approvals import subject_of
from policies.document.signatures import admit, signature, signed_by
from policies.errors import PolicySignatureError
from policies.requests.catalogue import Catalogue
from policies.requests.denials import Denial, Refusal
from policies.requests.replaces import Replaced, Replaces
from policies.requests.replacing import left_out
from silo_node.rounds.states import Silo
from tests.fuzzing import decoders
from tests.harness.example_policy import NOW
from tests.harness.inside import aggregator_of, key_of, known_to, rounds_of
from tests.harness.simulator import Simulation
from tests.policies.test_signatures import FIRST, KEYS
from tests.rounds.test_checks import step_request
from tests.vectors.vocabulary import subclasses

QUESTION = "SELECT COUNT(*) AS n FROM lung"
OTHER = "another-federation"
# What a message has instead of the federation's name: the hash of a message with it, which every receiver has.
BOUND_BY = {
    "bundle": "manifest_hash",
    "ready": "manifest_hash",
    "contribution": "manifest_hash",
    "split": "manifest_hash",
    "opening": "manifest_hash",
    "products": "manifest_hash",
    "accusation": "manifest_hash",
    "failure": "request_hash",
    "verdict": "subject",
}
# Nobody signs these: they are parts of signed ones, files of one party, sealed, or travel inside TLS between two.
UNSIGNED = {
    *("share", "deliver", "go", "open", "challenge", "found", "report"),
    *("run-state", "own-state", "graph", "trace", "ledger-totals", "log-entry", "filed", "request-line", "question"),
    *("backup", "backup-entry", "hello", "welcome", "run-entry"),
}


def test_every_message_that_is_signed_is_bound_to_its_federation() -> None:
    """A new kind of message has the name, or stands in one of these lists, with its reason."""
    decoders()  # of every kind, so that every module of them is read
    named = {
        kind.KIND: set(kind.model_fields)
        for kind in subclasses(Message)
        if kind.KIND and kind.__module__.partition(".")[0] != "tests"
    }
    unbound = {kind for kind, fields in named.items() if not fields & {"federation", BOUND_BY.get(kind, "")}}
    assert unbound <= UNSIGNED, "what is signed has the federation's name"
    assert BOUND_BY.keys() <= named.keys()


def party(simulation: Simulation, name: str) -> Silo:
    return known_to(simulation.silos[name])


def test_a_cancel_of_another_federation_ends_no_round(exact: Simulation) -> None:
    # Hope: an aggregator of two federations was told to end a round in one; whoever saw that ends it in the other.
    federation, aspen, hub = exact.federation, exact.silos["aspen"], aggregator_of(exact.server)
    _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    round_id, envelope = b"r" * 16, sign(request, federation.analyst, key_of(federation))
    aspen.actor.propose(round_id, propose(hub, read_request(envelope), round_id, int(aspen.clock())).envelope)
    (reply,) = aspen.actor.cancel(round_id, cancel(replace(hub, federation=OTHER), round_id))
    assert "another round or federation" in unverified(reply, Failed).reason
    assert list(rounds_of(aspen)) == [round_id]
    assert exact.spent("aspen") > 0
    assert aspen.actor.cancel(round_id, cancel(hub, round_id)) == ()


def test_a_silo_that_failed_in_another_federation_has_not_failed_here(exact: Simulation) -> None:
    # Hope: the aggregator shows the analyst why cedar failed, in words that cedar signed elsewhere.
    cedar, roster = party(exact, "cedar"), exact.federation.config.roster

    def said(federation: str) -> bytes:
        return sign(Failed(federation=federation, round_id=bytes(16), reason="a word"), "cedar", cedar.signing)

    assert failures_of((said(roster.federation),), roster) == {"cedar": "a word"}
    assert failures_of((said(OTHER),), roster) == {}


def answers_of(simulation: Simulation, name: str, change: Callable[[bytes], bytes], at: str) -> None:
    def rewrite(step: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return (change(frames[0]),) if step == at else frames

    simulation.silos[name].rewrite = rewrite


def test_what_a_silo_could_not_do_elsewhere_is_no_answer_to_the_aggregator(exact: Simulation) -> None:
    # Hope: a step of this round "failed" with a message of a round of that id in the other federation.
    cedar, roster = party(exact, "cedar"), exact.federation.config.roster
    outcomes = Outcomes(bytes(32), roster.federation, roster.silo_keys)
    for federation, expected in ((OTHER, set[str]()), (roster.federation, {"cedar"})):
        said = sign(Failed(federation=federation, round_id=bytes(16), reason="a rule"), "cedar", cedar.signing)
        outcomes.hear(bytes(16), {"cedar": (said,)})
        assert outcomes.failed.keys() == expected


def test_a_catalogue_of_another_federation_is_none(exact: Simulation) -> None:
    # Hope: a silo's policy of the other federation, or why it has none there, passes for the one here.
    cedar = party(exact, "cedar")

    def elsewhere(data: bytes) -> bytes:
        return sign(unverified(data, Catalogue).model_copy(update={"federation": OTHER}), "cedar", cedar.signing)

    def failed(_: bytes) -> bytes:
        return sign(Failed(federation=OTHER, round_id=bytes(16), reason="no rows here"), "cedar", cedar.signing)

    for change in (elsewhere, failed):
        answers_of(exact, "cedar", change, "catalogue")
        with pytest.raises((AnalystError, FederationError)) as caught:
            exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1, silos=("aspen", "birch", "cedar", "maple"))
        assert "no rows here" not in f"{caught.value} {caught.value.args}"


def test_a_model_that_learned_in_another_federation_has_not_learned_here(exact: Simulation) -> None:
    # Hope: the owners of a run believe that a silo holds their model.
    cedar, hub = party(exact, "cedar"), aggregator_of(exact.server)
    step = step_request(exact.federation.config.roster.recipients(["cedar"])).plan.training
    assert step is not None

    def learned(federation: str) -> tuple[bytes, ...]:
        message = ModelUpdated(federation=federation, run=step.run, position=bytes(32))
        return (sign(message, "cedar", cedar.signing),)

    assert read_model_updated(hub, "cedar", step.run, learned(hub.federation)).signer == "cedar"
    with pytest.raises(ProtocolError, match="another training run or federation"):
        read_model_updated(hub, "cedar", step.run, learned(OTHER))


def test_an_analyst_counts_no_model_of_another_federation(exact: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    # Hope: the analyst believes that all silos have learned its step.
    cedar, name = party(exact, "cedar"), b"\1" * 32
    for federation, expected in ((OTHER, set[str]()), (exact.federation.config.federation, {"cedar"})):
        message = ModelUpdated(federation=federation, run=bytes(16), position=name)
        learned = (sign(message, "cedar", cedar.signing),)
        monkeypatch.setattr(Simulation, "deliver_report", lambda *_, _learned=learned: _learned)
        assert set(exact.federation.deliver_report(name)) == expected


def test_nobody_is_left_out_for_what_was_signed_in_another_federation(exact: Simulation) -> None:
    # Hope: a silo that refused, or was away, elsewhere is left out of a request here; no silo has that request.
    cedar, hub, roster = party(exact, "cedar"), aggregator_of(exact.server), exact.federation.config.roster
    _, first = exact.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    denial = Denial(code="BUSY", rule="", message="", remedy="")

    def refusal(federation: str) -> bytes:
        fields = {"request_hash": digest_of(first), "policy_hash": bytes(32), "denials": (denial,)}
        return sign(Refusal(federation=federation, **fields), "cedar", cedar.signing)  # type: ignore[arg-type]

    def away(federation: str) -> bytes:
        message = Away(federation=federation, request_hash=digest_of(first), silos=("cedar",))
        return sign(message, hub.name, hub.signing)

    for made in (refusal, away):
        for federation in (roster.federation, OTHER):
            replaces = Replaces(
                requests=(Replaced(nonce=first.nonce, request_hash=digest_of(first)),),
                left_out=("cedar",),
                evidence=(made(federation),),
            )
            if federation == roster.federation:
                assert set(left_out(replaces, federation, roster.silo_keys, roster.aggregator_keys)) == {"cedar"}
                continue
            with pytest.raises(ProtocolError, match="why cedar is left out"):
                left_out(replaces, roster.federation, roster.silo_keys, roster.aggregator_keys)


def test_a_policy_that_was_signed_for_another_federation_is_not_admitted_here() -> None:
    # Hope: the looser policy of a small federation runs in the large one, where the same people answer for the silo.
    signed = tuple(signature(FIRST, OTHER, name, KEYS[name], NOW) for name in ("dpo", "owner"))
    admit(FIRST, OTHER, signed, None, NOW)
    assert signed_by(FIRST, "health", signed, FIRST.policy) == ()
    with pytest.raises(PolicySignatureError, match=r"0 of 2 signatures .* for 'health'"):
        admit(FIRST, "health", signed, None, NOW)


def test_an_approval_of_another_federation_is_of_another_subject(exact: Simulation) -> None:
    # Hope: people approved the same question there. A verdict's subject is the hash of a request with the name.
    _, request = exact.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    there = request.model_copy(update={"federation": OTHER})
    assert subject_of(there, digest_of(there)) != subject_of(request, digest_of(request))
