"""Attack stories of who is blamed: an aggregator's word stands against what silos signed, and what it signed itself."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aggregator import rounds as aggregator_core
from aggregator.outcomes import Outcomes
from aggregator.rounds import read_request
from analyst.answers import read_failure
from analyst.cli.main import main
from analyst.client import Federation
from analyst.comparing import Told, compared, read_receipt, told_by_failure, told_by_report
from analyst.demo.hospitals import PURPOSE
from analyst.errors import AnalystError, RoundError
from crypto.rounds.messages import Failure, SurvivorSet
from crypto.rounds.receipt import Receipt, RoundReceipt
from crypto.rounds.report import StoredReport
from crypto.wire import Signed, digest_of, sign, unverified
from policies.requests.request import Request
from silo_node.owner.cli import main as silo_main
from silo_node.owner.receipt_commands import receipt_of, worded
from silo_node.traces import MAX_KEPT, RoundTraces
from tests.harness.inside import aggregator_of, erase_at, known_to, ledger_of
from tests.harness.simulator import Simulation

QUESTION = "SELECT COUNT(*) AS n FROM lung"


def prepared(simulation: Simulation) -> Request:
    return simulation.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1, counts_cut=False)[1]


def blaming(
    simulation: Simulation, request: Request, *blamed: str, reason: str = "too few are left"
) -> Signed[Failure]:
    """Let the aggregator sign that silos were missing, with nothing to show."""
    hub, roster = aggregator_of(simulation.server), simulation.federation.config.roster
    outcomes = Outcomes(digest_of(request), roster.federation, roster.silo_keys)
    outcomes.missing |= set(blamed)
    asked = read_request(simulation.federation.signed(request))
    return read_failure(aggregator_core.failure(hub, asked, "too few are left", outcomes), request, roster)


def receipt(simulation: Simulation, name: str, request: Request, **changes: Any) -> Signed[Receipt]:
    """Return a silo's receipt as its owner's command makes it, or as a silo that lies does."""
    silo = simulation.silos[name]
    known = known_to(silo)
    entries = ledger_of(silo).entries(10**6)
    made = receipt_of(known.federation, digest_of(request), entries, RoundTraces(silo.policy.parent), 1)
    envelope = sign(made.model_copy(update=changes), name, known.signing)
    return read_receipt(envelope, request, simulation.federation.config.roster)


def contradictions(simulation: Simulation, request: Request, told: Told, *receipts: Signed[Receipt]) -> list[str]:
    return compared(request, told, receipts, simulation.federation.config.roster)[1]


def test_an_aggregator_that_calls_a_survivor_missing_contradicts_its_own_signature(exact: Simulation) -> None:
    # Hope: everybody has paid, cedar is blamed, and the aggregator alone has the answer.
    request, roster = prepared(exact), exact.federation.config.roster
    assert isinstance(exact.federation.exchange(request), bytes)
    told = told_by_failure(blaming(exact, request, "cedar"), roster)
    lines, found = compared(request, told, [receipt(exact, "cedar", request)], roster)
    assert found == ["aggregator signed that the contribution of cedar is in the sum, and that it was missing"]
    cedar = next(line for line in lines if line.startswith("cedar"))
    assert "aggregator says that it was missing; aggregator shows nothing that it signed" in cedar
    assert "its receipt says that it opened at " in cedar
    assert contradictions(exact, request, told) == [], "without a receipt nobody can tell"


def test_an_aggregator_that_withholds_the_survivor_set_stands_against_the_silos_word(exact: Simulation) -> None:
    # Hope: as nothing was signed that names the survivors, the silo has no word at all.
    def stop(step: str, arguments: tuple[bytes, ...]) -> None:
        if step == "agree":
            raise TimeoutError

    for silo in exact.silos.values():
        silo.before = stop
    request, roster = prepared(exact), exact.federation.config.roster
    answer = exact.federation.exchange(request)
    assert not isinstance(answer, bytes)
    told = told_by_failure(blaming(exact, request, "cedar"), roster)
    found = contradictions(exact, request, told, receipt(exact, "cedar", request))
    assert found == ["cedar signed that it contributed, and aggregator says missing: one of the two is wrong"]


def two_leave(exact: Simulation) -> tuple[Request, Told]:
    """Ask while cedar and rowan leave before they contribute; return the request, and what the aggregator says."""
    for name in ("cedar", "rowan"):
        exact.silos[name].dies_before = "contribute"
    request = prepared(exact)
    answer = exact.federation.exchange(request)
    assert not isinstance(answer, bytes)
    exact.mend()
    return request, told_by_failure(answer, exact.federation.config.roster)


def test_an_honest_aggregator_and_an_honest_silo_contradict_nobody(exact: Simulation) -> None:
    request, told = two_leave(exact)
    receipts = [receipt(exact, name, request) for name in exact.silos]
    lines, found = compared(request, told, receipts, exact.federation.config.roster)
    assert found == []
    cedar = next(line for line in lines if line.startswith("cedar"))
    assert "aggregator says that it was missing; aggregator shows that it accepted, shared its keys, was ready" in cedar
    assert "its receipt says that it was ready at " in cedar
    maple = next(line for line in lines if line.startswith("maple"))
    assert "its receipt says that it contributed at " in maple


def test_a_silo_that_leaves_out_what_it_signed_is_shown_its_signature(exact: Simulation) -> None:
    # Hope: a silo that vanished after it was ready says that nobody asked it.
    request, told = two_leave(exact)
    lie = receipt(exact, "cedar", request, accepted_at=0, rounds=())
    assert contradictions(exact, request, told, lie) == [
        "cedar signed that it accepted, and its receipt does not say so",
        "cedar signed that it was ready, and its receipt does not say so",
    ]


FORGERIES: dict[str, Callable[[Simulation, RoundReceipt], dict[str, object]]] = {
    "signed by the silo": lambda sim, one: {
        "survivors": sign(unverified(one.survivors, SurvivorSet), "cedar", known_to(sim.silos["cedar"]).signing)
    },
    "signed by another silo's key in the aggregator's name": lambda sim, one: {
        "survivors": sign(
            unverified(one.survivors, SurvivorSet), aggregator_of(sim.server).name, known_to(sim.silos["cedar"]).signing
        )
    },
    "of another manifest": lambda sim, one: {
        "survivors": sign(
            unverified(one.survivors, SurvivorSet).model_copy(update={"manifest_hash": bytes(32)}),
            aggregator_of(sim.server).name,
            aggregator_of(sim.server).signing,
        )
    },
    "of another contribution": lambda sim, one: {"contribution": b"no header"},
    "without the manifest": lambda sim, one: {"manifest": b""},
    "without the survivor set": lambda sim, one: {"survivors": b""},
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_silo_convicts_no_aggregator_by_what_that_did_not_sign(shared: Simulation, forgery: str) -> None:
    # Hope: a silo that was away makes the aggregator a liar.
    request, roster = prepared(shared), shared.federation.config.roster
    assert isinstance(shared.federation.exchange(request), bytes)
    told = told_by_failure(blaming(shared, request, "cedar"), roster)
    (one,) = receipt(shared, "cedar", request).message.rounds
    forged = one.model_copy(update=FORGERIES[forgery](shared, one))
    found = contradictions(shared, request, told, receipt(shared, "cedar", request, rounds=(forged,)))
    assert found == ["cedar signed that it contributed, and aggregator says missing: one of the two is wrong"]


def test_a_survivor_set_of_another_request_proves_nothing_of_this_one(exact: Simulation) -> None:
    # Hope: a silo answers one question, and shows that survivor set for another that it left.
    first, second = prepared(exact), prepared(exact)
    roster = exact.federation.config.roster
    assert isinstance(exact.federation.exchange(first), bytes)
    rounds = receipt(exact, "cedar", first).message.rounds
    told = told_by_failure(blaming(exact, second, "cedar"), roster)
    lie = receipt(exact, "cedar", second, rounds=rounds, accepted_at=1)
    found = contradictions(exact, second, told, lie)
    assert found == ["cedar signed that it contributed, and aggregator says missing: one of the two is wrong"]


def test_a_receipt_counts_from_its_silo_for_its_request_alone(shared: Simulation) -> None:
    # Hope: the receipt of one silo, or of another question, is taken for cedar's.
    request, other, roster = prepared(shared), prepared(shared), shared.federation.config.roster
    assert isinstance(shared.federation.exchange(request), bytes)
    made = receipt(shared, "cedar", request)
    with pytest.raises(AnalystError, match="of another request"):
        read_receipt(made.envelope, other, roster)
    maple, hub = known_to(shared.silos["maple"]).signing, aggregator_of(shared.server)
    for envelope in (
        sign(made.message, "cedar", maple),
        sign(made.message, hub.name, hub.signing),
        sign(made.message, "nobody", maple),
        made.envelope[:-1],
        b"",
    ):
        with pytest.raises(AnalystError, match="no receipt of a silo"):
            read_receipt(envelope, request, roster)
    assert read_receipt(sign(made.message, "maple", maple), request, roster).signer == "maple"


def test_a_report_and_the_receipts_of_all_silos_agree(exact: Simulation) -> None:
    # Nobody is contradicted who says the truth: a quorum signed who is in the sum.
    exact.silos["rowan"].dies_before = "contribute"
    request, roster = prepared(exact), exact.federation.config.roster
    answer = exact.federation.exchange(request)
    assert isinstance(answer, bytes)
    checked = exact.federation.check_report(StoredReport.decode(answer), request)
    told = told_by_report(checked, roster)
    exact.mend()
    receipts = [receipt(exact, name, request) for name in exact.silos]
    lines, found = compared(request, told, receipts, roster)
    assert found == []
    assert "a quorum of silos signed that its contribution is in the sum; its receipt says that it opened" in lines[0]
    assert "aggregator says that it was dropped; its receipt says that it was ready" in lines[-1]


def test_what_is_kept_for_receipts_fails_no_round(
    exact: Simulation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Hope: a silo whose disk refuses its copies is dropped from rounds, or charged for nothing.
    for silo in exact.silos.values():
        (silo.policy.parent / "rounds").write_text("a file in the way")
    report = exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1, counts_cut=False)
    assert {one.status for one in report.silos.values()} == {"answered"}


def test_what_is_kept_for_receipts_is_private_bounded_and_erased(
    exact: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hope: rounds without number fill a silo's disk, or others read who asked what.
    exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1, counts_cut=False)
    (path,) = (exact.silos["cedar"].policy.parent / "rounds").iterdir()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    monkeypatch.setattr("silo_node.traces.MAX_KEPT", 3)
    traces = RoundTraces(tmp_path)
    for number in range(5):
        traces.contributed(bytes([number] * 16), b"manifest", b"header")
        os.utime(tmp_path / "rounds" / f"{bytes([number] * 16).hex()}", (number, number))
        traces.agreed(bytes([number] * 16), b"survivors")
        os.utime(tmp_path / "rounds" / f"{bytes([number] * 16).hex()}", (number, number))
    assert [traces.find(bytes([number] * 16)) is not None for number in range(5)] == [False, False, True, True, True]
    traces.erase(4)
    assert [traces.find(bytes([number] * 16)) is not None for number in range(5)] == [False] * 4 + [True]
    (tmp_path / "rounds" / (b"\4" * 16).hex()).write_bytes(b"garbage")
    assert traces.find(b"\4" * 16) is None
    assert MAX_KEPT == 4096


def test_traces_are_erased_by_the_policys_retention(home: Path) -> None:
    from tests.harness.simulator import no_noise, simulate

    for path in (home / "silos").glob("*/policy.toml"):
        path.write_text(path.read_text() + "\n[retention]\nencrypted_contributions_days = 30\n")
    with simulate(home, noise=no_noise) as simulation:
        simulation.federation.query(QUESTION, purpose=PURPOSE, epsilon=1, counts_cut=False)
        silo = simulation.silos["cedar"]
        kept = silo.policy.parent / "rounds"
        now = next(kept.iterdir()).stat().st_mtime
        erase_at(silo, now + 29 * 86_400)
        assert len(list(kept.iterdir())) == 1
        erase_at(silo, now + 31 * 86_400)
        assert list(kept.iterdir()) == []


def test_owner_and_analyst_compare_by_two_commands(
    exact: Simulation, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The aggregator answers every question with a failure that blames cedar, and keeps the report.
    monkeypatch.setattr(Federation, "open", lambda *_, **__: exact.federation)
    answered = exact.submit

    def blame(request: bytes, more_s: float = 0.0) -> bytes:
        answered(request, more_s)
        return blaming(exact, unverified(request, Request), "cedar").envelope

    monkeypatch.setattr(exact, "submit", blame)
    monkeypatch.setattr(exact, "find", lambda digest: b'{"state":"none","report":"","erased_at":0}')
    with pytest.raises(RoundError, match="missing: cedar"):
        exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1, counts_cut=False)
    kept = next(one for one in exact.federation.kept.all() if "asked again without cedar" in one.question.ended)
    policy, out = exact.silos["cedar"].policy, tmp_path / "cedar.receipt"
    assert silo_main(["receipt", kept.short, "--policy", str(policy), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"cedar, of request {kept.short}:" in printed
    assert "the aggregator signed that its contribution is in the sum" in printed
    federation = ["--federation", str(exact.path / "consilo.toml")]
    assert main(["report", "compare", kept.short, *federation]) == 0
    assert main(["report", "compare", kept.short, str(out), *federation]) == 1
    printed = capsys.readouterr().out
    assert (
        "CONTRADICTION aggregator signed that the contribution of cedar is in the sum, and that it was missing"
        in printed
    )
    assert silo_main(["receipt", "00" * 32, "--policy", str(policy)]) == 0
    assert "never came here" in capsys.readouterr().out
    assert silo_main(["receipt", "0000", "--policy", str(policy)]) == 1
    assert "0 requests in this silo's log begin with '0000'" in capsys.readouterr().err


def test_a_refusal_is_in_the_receipt(exact: Simulation) -> None:
    request = prepared(exact).model_copy(update={"purpose": "unknown-purpose"})
    answer = exact.federation.exchange(request)
    assert not isinstance(answer, bytes)
    made = receipt(exact, "cedar", request)
    assert made.message.refused
    assert worded("cedar", made.message)[1].startswith("  refused: ")
    told = told_by_failure(blaming(exact, request, "cedar"), exact.federation.config.roster)
    lines, found = compared(request, told, [made], exact.federation.config.roster)
    assert "its receipt says that it refused" in next(line for line in lines if line.startswith("cedar"))
    assert found == []
