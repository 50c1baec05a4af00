"""Whole rounds in memory by each backend: the same sums, the same drop-outs, and what each refuses in its own way."""

import json
import shutil
from pathlib import Path

import pytest

from aggregator.sums import SumShard
from analyst.demo.hospitals import PURPOSE
from analyst.errors import AnalystError, DeniedError
from analyst.reports.estimates import Estimate
from analyst.reports.report import Report
from analyst.requests import made_key
from crypto.backends.registry import BACKENDS
from crypto.errors import CryptoError, ProtocolError
from crypto.keys import Secret
from crypto.rounds.key_schedule import sum_info
from crypto.rounds.manifest import BackendName
from crypto.rounds.messages import Opening
from crypto.rounds.payload import digests
from crypto.rounds.report import StoredReport
from crypto.sealing import SealingKey, seal
from crypto.wire import sign, unverified
from policies.requests.request import Request
from silo_node.rounds.states import Agreed
from tests.cases import of_backends
from tests.harness.inside import exchange_keys, known_to, rounds_of
from tests.harness.simulator import Simulation, no_noise, simulate
from tests.rounds.test_rounds import pooled, rewrite_policies

QUESTION = "SELECT sex, COUNT(*) AS n, SUM(age) AS years FROM lung GROUP BY sex"
LITTLE = "SELECT COUNT(*) AS n FROM lung"
KEYED = ("round_key", "sealed_secrets")
NAMES: tuple[BackendName, ...] = ("masking", "shares", "bfv", "ckks", "paillier")
each_backend = pytest.mark.parametrize("backend", of_backends(NAMES))
each_added = pytest.mark.parametrize("backend", of_backends(name for name in NAMES if name != "shares"))


def ask(simulation: Simulation, backend: BackendName, question: str = LITTLE) -> Report:
    return simulation.federation.query(question, purpose=PURPOSE, epsilon=1, backend=backend)


def figures(report: Report, name: str) -> dict[str, float]:
    """Return a figure of every group."""
    cells = {str(row.get("sex", "")): row[name] for row in report.rows}
    return {group: cell.value or 0 for group, cell in cells.items() if isinstance(cell, Estimate)}


def test_the_registry_is_the_vocabulary() -> None:
    assert set(BACKENDS) == set(NAMES)


@each_backend
def test_every_backend_gives_the_exact_sum(shared: Simulation, backend: BackendName) -> None:
    report = ask(shared, backend, QUESTION)
    truth = {str(row["sex"]): row for row in pooled(QUESTION)}
    for name in ("n", "years"):
        assert figures(report, name) == {group: float(row[name]) for group, row in truth.items()}
    assert {outcome.status for outcome in report.silos.values()} == {"answered"}
    assert not report.wrong
    if backend != "masking":
        assert any(f"by {backend}" in text for text in report.assumptions), "where figures are cut is said"


@each_backend
def test_every_backend_bears_a_drop_out(shared: Simulation, backend: BackendName) -> None:
    shared.silos["cedar"].dies_before = "contribute"
    report = ask(shared, backend)
    assert report.silos["cedar"].status == "dropped"
    assert figures(report, "n") == {"": 228 - 45}


@each_backend
def test_every_backend_bears_a_silo_that_vanishes_after_contributing(shared: Simulation, backend: BackendName) -> None:
    shared.silos["cedar"].dies_before = "open_shares"
    report = ask(shared, backend)
    assert report.silos["cedar"].status == "answered"
    assert figures(report, "n") == {"": 228}


@each_backend
def test_with_noise_every_backend_is_near_the_truth(simulation: Simulation, backend: BackendName) -> None:
    (row,) = ask(simulation, backend).rows
    cell = row["n"]
    assert isinstance(cell, Estimate)
    assert cell.value is not None
    assert cell.sd is not None
    assert abs(cell.value - 228) < 6 * cell.sd


@each_added
def test_a_garbled_contribution_is_left_out(shared: Simulation, backend: BackendName) -> None:
    def garble(step: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return (frames[0], b"\xff" * len(frames[1])) if step == "contribute" else frames

    shared.silos["maple"].rewrite = garble
    report = ask(shared, backend)
    assert report.silos["maple"].status == "dropped"


@each_added
def test_a_wrong_sum_is_found(shared: Simulation, backend: BackendName, monkeypatch: pytest.MonkeyPatch) -> None:
    """The aggregator leaves a silo's vector out of the sum, yet says that it is in it."""
    original = SumShard.close

    def close(self: SumShard, round_id: bytes, names: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return original(self, round_id, names[1:])

    monkeypatch.setattr(SumShard, "close", close)
    with pytest.raises(CryptoError, match="sum"):
        ask(shared, backend)


@pytest.mark.parametrize("liars", [("maple",), ("aspen", "maple")])
def test_wrong_sums_of_shares_are_named_or_noticed(exact: Simulation, liars: tuple[str, ...]) -> None:
    """Five silos open, four are a quorum: one wrong sum is noticed, but cannot be told from the right ones."""
    for name in liars:
        lie(exact, name)
    with pytest.raises(ProtocolError, match="contradict"):
        ask(exact, "shares")


def test_a_sum_of_shares_that_does_not_open_is_named_and_left_out(exact: Simulation) -> None:
    garble_sum(exact, "maple")
    report = ask(exact, "shares")
    assert set(report.wrong) == {"maple"}
    assert figures(report, "n") == {"": 228}
    assert json.loads(report.to_json())["wrong"] == report.wrong


def lie(simulation: Simulation, name: str) -> None:
    """Let a silo open a sum of zeros instead of its own."""
    actor = simulation.silos[name].actor
    original = actor.open_shares

    def zeros(round_id: bytes, data: bytes, *columns: bytes) -> tuple[bytes, ...]:
        state = rounds_of(actor)[round_id]
        assert isinstance(state, Agreed)
        scheme = state.scheme
        found = original(round_id, data, *columns)
        recipient = state.manifest.terms.recipients[0]
        info = sum_info(state.manifest_hash, state.survivors_hash, name, recipient.name)
        wrong = (seal(recipient.key, b"".join(bytes(scheme.sum_bytes(0)) for _ in range(scheme.shape.chunks)), info),)
        opening = unverified(found[0], Opening).model_copy(update={"sums": digests(wrong)})
        return (sign(opening, name, known_to(actor).signing), *wrong)

    actor.open_shares = zeros  # type: ignore[method-assign]


def garble_sum(simulation: Simulation, name: str) -> None:
    """Let a silo seal its sum to somebody else."""
    actor = simulation.silos[name].actor
    original = actor.open_shares

    def garbled(round_id: bytes, data: bytes, *columns: bytes) -> tuple[bytes, ...]:
        found = original(round_id, data, *columns)
        length = len(found[1]) - len(seal(SealingKey(Secret.generate()).public, b"", b""))
        wrong = (seal(SealingKey(Secret.generate()).public, bytes(length), b""),)
        opening = unverified(found[0], Opening).model_copy(update={"sums": digests(wrong)})
        return (sign(opening, name, known_to(actor).signing), *wrong)

    actor.open_shares = garbled  # type: ignore[method-assign]


@pytest.mark.he
def test_a_policy_decides_by_which_backends_its_silo_takes_part(home: Path) -> None:
    rewrite_policies(home, '"masking", "shares", "bfv", "ckks", "paillier"', '"masking", "shares"')
    with simulate(home, noise=no_noise) as simulation:
        assert figures(ask(simulation, "shares"), "n") == {"": 228}
        with pytest.raises(DeniedError, match=r"BACKEND \(protection.accept\): bfv is not accepted"):
            ask(simulation, "bfv")


def test_a_checked_report_answers_its_own_request_and_no_later_change_of_its_bytes(exact: Simulation) -> None:
    federation = exact.federation
    _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    _, other = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    given = bytearray(federation.submit(request))
    checked = federation.check_report(StoredReport.decode(given), request)  # type: ignore[arg-type]
    before = federation.open_sum(checked, request).units.tolist()
    given[-8] ^= 1
    assert federation.open_sum(checked, request).units.tolist() == before
    with pytest.raises(ProtocolError, match="answers another request"):
        federation.open_sum(checked, other)


@pytest.mark.he
def test_the_secret_of_a_round_key_opens_for_recipients_only(exact: Simulation) -> None:
    federation = exact.federation
    _, request = federation.prepare(LITTLE, purpose=PURPOSE, epsilon=1, backend="bfv")
    encrypted = federation.submit(request)
    stored = StoredReport.decode(encrypted)
    checked = federation.check_report(stored, request)
    federation.open_sum(checked, request)
    exchange_keys(federation, sealing=SealingKey(Secret.generate()))
    with pytest.raises(CryptoError):
        federation.open_sum(checked, request)


@pytest.mark.he
def test_a_request_without_the_key_of_its_backend_is_none(shared: Simulation) -> None:
    _, request = shared.federation.prepare(LITTLE, purpose=PURPOSE, epsilon=1, backend="bfv")
    fields = dict(request)
    for change in (
        {"round_key": b""},
        {"sealed_secrets": ()},
        {"sealed_secrets": (b"short",)},
        {"backend": "ckks"},
        {"backend": "masking"},
        {"round_key": request.round_key[:-8]},
        {"round_key": b"\xff" * len(request.round_key)},
    ):
        if change == {"backend": "ckks"}:
            Request.model_validate(fields | change)  # a key is of either scheme: its id is not the same
            continue
        with pytest.raises(ValueError, match=r"key|secret|bytes|word"):
            Request.model_validate(fields | change)


DAYS = "SELECT SUM(survival) AS days FROM lung"
WIDE = 'bounds = [0, 900_000_000], unit = "day"'  # ckks carries 30 rows of this width at rho 0.1


def widened(home: Path, rows_up_to: int | None) -> Path:
    """Return a federation with wide bounds of `survival`, whose policies state so many rows."""
    rewrite_policies(home, 'bounds = [0, 1100], unit = "day"', WIDE)
    if rows_up_to is not None:
        rewrite_policies(home, 'uri  = "lung.parquet"', f'uri  = "lung.parquet"\nrows_up_to = {rows_up_to}')
    return home


@pytest.mark.he
def test_what_a_backend_would_cut_is_refused_by_client_and_silo_before_a_charge(home: Path) -> None:
    """By roster, bounds and the public number of rows alone: 2^24 where a policy states none, and 64 if it says so."""
    for rows_up_to, said in ((None, "16,777,216"), (64, "64")):
        path = Path(shutil.copytree(home, home.with_name(f"f-{rows_up_to}")))
        with simulate(widened(path, rows_up_to), noise=no_noise) as simulation:
            federation = simulation.federation
            message = f"ckks would cut figures of {said} rows, which 'aspen' may have: it carries those of 3[0-9]"
            with pytest.raises(AnalystError, match=message) as refused:
                federation.query(DAYS, purpose=PURPOSE, epsilon=2, backend="ckks")
            assert refused.value.hint.startswith("take the backend masking or ")
            planned, asked = federation.prepare(DAYS, purpose=PURPOSE, epsilon=2)
            fields = (
                dict(asked)
                | {"backend": "ckks"}
                | dict(zip(KEYED, made_key("ckks", asked.nonce, asked.recipients), strict=True))
            )
            request = Request.model_validate(fields)
            with pytest.raises(DeniedError) as denied:
                federation.submit(request)
            for denials in denied.value.denials.values():
                (denial,) = denials
                assert (denial.code, denial.rule) == ("BACKEND", "sources.lung.rows_up_to")
                assert denial.message.startswith(f"ckks would cut figures of {said} rows: it carries those of 3")
                assert denial.remedy.startswith("take the backend masking or ")
            assert all(simulation.spent(name) == 0 for name in simulation.silos)
            (row,) = federation.open_answer(planned, asked, federation.submit(asked)).rows
            assert isinstance(row["days"], Estimate)
            assert row["days"].value == pooled(DAYS)[0]["days"], "masking carries it, and changes nothing"


@pytest.mark.he
def test_only_rows_beyond_those_that_a_policy_states_are_cut_and_the_owner_is_told(home: Path) -> None:
    with simulate(widened(home, 16), noise=no_noise) as simulation:
        report = simulation.federation.query(DAYS, purpose=PURPOSE, epsilon=2, backend="ckks")
        assert report.silos["aspen"].status == "answered"
        assert any("up to 3" in text and "by ckks" in text for text in report.assumptions)
    log = (home / "silos/aspen/silo.log").read_text()
    assert "WARNING sources.lung: 47 rows, above rows_up_to = 16: plans may take longer, and figures may be cut" in log
    assert "figures cut: total:survival: cut, as the silo has more rows than rows_up_to; raise it" in log
