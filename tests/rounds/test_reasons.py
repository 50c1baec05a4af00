"""Why a silo took no part reaches the analyst and the aggregator's operator in its own signed words, and no row's."""

import asyncio
import sqlite3
from dataclasses import replace

import pytest

from aggregator.errors import StoreError
from aggregator.outcomes import Outcomes
from analyst.demo.hospitals import PURPOSE
from analyst.errors import DeniedError, RoundError
from crypto.errors import LinkError, ProtocolError
from crypto.rounds.messages import Failed
from crypto.wire import sign, unverified
from federation.transport.calls import CallFailedError
from policies.errors import LedgerError, LedgerFullError
from silo_node.rounds.answers import FAILED
from tests.harness.inside import database_of, gather, known_to, ledger_of, set_ahead
from tests.harness.simulator import SimulatedSilo, Simulation, ask

QUESTION = "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex"


def ahead(silo: SimulatedSilo, seconds: int, step: str = "propose") -> None:
    """Put a silo's clock ahead from a step on."""
    call = silo.call

    async def later(name: str, *arguments: bytes) -> tuple[bytes, ...]:
        if name == step:
            set_ahead(silo, seconds)
        return await call(name, *arguments)

    silo.call = later  # type: ignore[method-assign,assignment]


def full_at(silo: SimulatedSilo, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Let the disk of a silo be full when its ledger is about to do something."""

    def fail(*_: object, **__: object) -> None:
        raise LedgerFullError("no room for the ledger (database or disk is full)", "free disk space")

    monkeypatch.setattr(ledger_of(silo), method, fail)


def test_a_clock_that_is_ahead_is_named_with_what_to_do(exact: Simulation) -> None:
    ask(exact, QUESTION)
    ahead(exact.silos["birch"], 600)
    report = exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
    outcome = report.silos["birch"]
    assert (outcome.status, [one.code for one in outcome.denials]) == ("unable", ["CLOCK"])
    assert "by NTP" in outcome.denials[0].remedy
    assert report.to_dict()["silos"]["birch"]["denials"][0]["code"] == "CLOCK"
    assert "CLOCK" in exact.ended[-1].outcomes.words()["birch"]
    assert exact.ended[-1].outcomes.outcome() == "answered"


@pytest.mark.parametrize(("method", "status"), [("reserve", "unable"), ("commit", "unable")])
def test_a_full_disk_is_named_before_anything_is_charged(
    exact: Simulation, monkeypatch: pytest.MonkeyPatch, method: str, status: str
) -> None:
    ask(exact, QUESTION)
    spent = exact.spent("birch")
    full_at(exact.silos["birch"], monkeypatch, method)
    report = exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
    assert report.silos["birch"].status == status
    assert report.silos["birch"].denials[0].code == "DISK_FULL"
    assert exact.spent("birch") == spent


def test_sqlite_s_full_disk_is_an_error_of_its_own(exact: Simulation) -> None:
    store = ledger_of(exact.silos["aspen"])
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    with pytest.raises(LedgerFullError), database_of(store).reading():
        raise error
    with pytest.raises(LedgerError) as caught, database_of(store).reading():
        raise sqlite3.OperationalError("disk I/O error")
    assert not isinstance(caught.value, LedgerFullError)


def test_without_an_answer_the_error_says_who_is_unable_and_who_is_missing(exact: Simulation) -> None:
    ask(exact, QUESTION)
    for silo in ("aspen", "birch"):
        ahead(exact.silos[silo], 600)
    exact.silos["cedar"].is_dead = True
    with pytest.raises(RoundError) as caught:
        exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
    assert "; missing: cedar; unable: aspen (CLOCK: the round has expired" in caught.value.message
    assert "unable: birch (CLOCK" in caught.value.message
    assert "NTP" in caught.value.hint
    assert exact.ended[-1].outcomes.outcome() == "missing"
    assert {silo: exact.ended[-1].outcomes.status(silo) for silo in ("aspen", "cedar")} == {
        "aspen": "unable",
        "cedar": "missing",
    }


def test_all_unable_is_no_refusal_by_policy(exact: Simulation) -> None:
    ask(exact, QUESTION)
    for silo in exact.silos.values():
        ahead(silo, 600)
    with pytest.raises(RoundError, match="unable: maple") as caught:
        exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
    assert not isinstance(caught.value, DeniedError)
    assert "missing" not in caught.value.message
    assert exact.ended[-1].outcomes.outcome() == "unable"


def test_a_broken_rule_is_told_in_the_words_that_the_silo_signed(exact: Simulation) -> None:
    ask(exact, QUESTION)
    for name in ("aspen", "birch", "cedar"):
        silo = exact.silos[name]
        key = known_to(silo).signing

        def rewrite(step: str, frames: tuple[bytes, ...], name: str = name, key: object = key) -> tuple[bytes, ...]:
            if step != "propose":
                return frames
            (round_id, _) = next(args for seen, args in reversed(exact.silos[name].seen) if seen == "> propose")
            failed = Failed(federation=exact.federation.config.federation, round_id=round_id, reason="a rule")
            return (sign(failed, name, key),)  # type: ignore[arg-type]

        silo.rewrite = rewrite
    with pytest.raises(RoundError, match=r"failed: aspen \(a rule\); failed: birch \(a rule\)") as caught:
        exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
    assert "missing" not in caught.value.message


def test_after_the_commit_a_failure_is_one_message_at_the_end_of_the_time(
    exact: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(exact, QUESTION)
    cedar = exact.silos["cedar"]
    replies, slept = [], []
    for error in (ProtocolError("a word"), LedgerFullError("another", ""), ValueError("a row: 17")):

        def fail(*_: object, _error: Exception = error, **__: object) -> None:
            raise _error

        monkeypatch.setattr("silo_node.stepping.steps.mask", fail)
        cedar.slept.clear()
        with pytest.raises(RoundError):
            exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=0.1)
        frames = next(frames for step, frames in reversed(cedar.seen) if step == "< contribute")
        replies.append(unverified(frames[0], Failed).reason)
        slept.append(max(cedar.slept))
    assert set(replies) == {FAILED}
    assert all(19 < one <= 20.1 for one in slept), "a computation may take 20 s"
    log = (cedar.policy.parent / "silo.log").read_text()
    for words in ("ProtocolError: a word", "LedgerFullError: another", "ValueError: a row: 17"):
        assert words in log


def test_who_answered_is_never_called_missing(shared: Simulation) -> None:
    """Whatever arrives: silence is missing, anything else is not."""

    async def raised(error: Exception) -> tuple[bytes, ...]:
        raise error

    async def replied(*frames: bytes) -> tuple[bytes, ...]:
        return frames

    outcomes = Outcomes(bytes(32), "f", {})
    calls = {
        "silent": raised(LinkError("not connected")),
        "dead": raised(RuntimeError("its actor died")),
        "failing": raised(CallFailedError("the step failed at the silo")),
        "wrong": raised(ProtocolError("a chunk is not the one it signed")),
        "unlucky": raised(StoreError("a contribution cannot be kept (No space left on device)")),
        "well": replied(b"x"),
    }
    replies = asyncio.run(gather(shared.server, calls, outcomes))
    assert (set(replies), outcomes.missing) == ({"well"}, {"silent", "dead"})
    assert "No space left" in outcomes.own
    outcomes.leave_out(calls)
    assert outcomes.left_out == {"failing", "wrong", "unlucky", "well"}
    assert outcomes.outcome() == "missing"
    assert replace(outcomes, missing=set()).outcome() == "failed"


def test_a_catalogue_s_failure_is_told_too(exact: Simulation) -> None:
    """A silo whose clock is wrong has no catalogue for anybody, and is there all the same."""
    for silo in ("aspen", "birch", "cedar"):
        set_ahead(exact.silos[silo], 900)
    with pytest.raises(RoundError) as caught:
        exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
    assert "unable: aspen (the clocks of analyst and silo differ by more than 300 s)" in caught.value.message
    assert "missing" not in caught.value.message
