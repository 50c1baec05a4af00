"""Models that silos release to the analyst: asked for in signed requests, opened by policies, signed by a quorum."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import silo_node.owner.cli
from aggregator.reports import sealed_model
from analyst.errors import AnalystError, DeniedError
from analyst.training.job import read_job
from analyst.training.registry import Registry
from analyst.training.told import show_training, to_json
from crypto.errors import ProtocolError
from crypto.rounds.report import StoredReport
from crypto.wire import is_envelope
from policies.document.load import load
from policies.models.forms import scores_of
from policies.models.released import MAX_SEALED_MODEL_BYTES, ReleasedModel, digest_of_model
from policies.models.scores import RowCells
from policies.requests.exact import FamilyStep
from silo_node.errors import SiloError
from silo_node.owner.model_registry import held_models
from silo_node.rounds.releasing import model_of, released
from silo_node.training.exact import kept_state
from silo_node.training.family import Examples
from silo_node.training.leaving import Way, may_leave
from silo_node.training.portable import portable_of
from silo_node.training.registry import FAMILIES
from tests.harness.inside import known_to, ledger_of
from tests.rounds.test_exact_families import SILOS, banks, job_of, run
from tests.rounds.test_noised_families import banks as banks_with_noise
from tests.rounds.test_noised_families import job_of as with_noise
from tests.rounds.test_training import asked, models

pytestmark = pytest.mark.slow

TO_ANALYST = 'recipients = ["silos", "analyst"]\n'
OPEN = ('release = ["model"]', 'release = ["model", "model-to-analyst"]')


def test_the_analyst_has_the_model_that_the_silos_have(tmp_path: Path) -> None:
    with banks(tmp_path / "f", job_of("logistic-regression", "ok", TO_ANALYST), change=OPEN) as (simulation, file):
        training = run(simulation, file)
        (entry,) = Registry(tmp_path / "f").entries()
        held = models(simulation)
        assert training.has_model
        assert json.loads(to_json(training))["has_model"]
        assert "consilo model show" in show_training(training, read_job(file), {})
        assert entry.model == model_of(simulation.federation.config.federation, held["east"])
        assert entry.record == held["west"].record
        assert entry.record is not None
        assert entry.record.contributed == dict.fromkeys(SILOS, training.steps)
        assert (entry.done, entry.ended, entry.holders) == (training.steps, "complete", SILOS)
        assert all(request.plan.training and request.plan.training.released_to for request in asked(simulation))
        assert not file.with_name("keep.json").exists()


def test_a_model_that_is_too_large_to_be_sent_stays_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ReleasedModel, "MAX_BYTES", 1000)
    with banks(tmp_path / "f", job_of("linear-regression", "paid", TO_ANALYST), change=OPEN) as (simulation, file):
        training = run(simulation, file)
        policy = simulation.silos["east"].policy
        assert not training.has_model
        assert "0 silos released the same model" in training.why_no_model
        assert "`consilo-silo models show` says so" in training.why_no_model
        assert training.holders == SILOS
    capsys.readouterr()
    assert silo_node.owner.cli.main(["models", "show", training.run[:8], "--policy", str(policy)]) == 0
    assert "too large to be released" in capsys.readouterr().out


def test_a_model_stays_where_the_job_names_the_silos_alone(tmp_path: Path) -> None:
    with banks(tmp_path / "f", job_of("logistic-regression", "ok"), change=OPEN) as (simulation, file):
        training = run(simulation, file)
        (entry,) = Registry(tmp_path / "f").entries()
        assert (training.has_model, entry.model, entry.why_no_model) == (None, None, "")
        assert "and nowhere else" in show_training(training, read_job(file), {})


def test_a_policy_that_does_not_open_it_refuses_the_first_step(tmp_path: Path) -> None:
    with banks(tmp_path / "f", job_of("logistic-regression", "ok", TO_ANALYST)) as (simulation, file):
        with pytest.raises(DeniedError, match=r"RELEASE \(disclosure.release\).*analyst") as caught:
            run(simulation, file)
        assert 'recipients = ["silos"]' in caught.value.hint
        assert models(simulation) == {}


def test_a_model_that_too_few_silos_signed_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of five sign another model than the others: three are fewer than a quorum of four."""

    def other(federation: str, state: object) -> ReleasedModel:
        made = model_of(federation, state)  # type: ignore[arg-type]
        count.append(1)
        return made.model_copy(update={"done": 1}) if len(count) % len(SILOS) < 2 else made

    count: list[int] = []
    with banks(tmp_path / "f", job_of("logistic-regression", "ok", TO_ANALYST), change=OPEN) as (simulation, file):
        monkeypatch.setattr("silo_node.rounds.releasing.model_of", other)
        training = run(simulation, file)
        assert training.has_model is False
        assert "3 silos released the same model, 4 of 5 must" in show_training(training, read_job(file), {})
        (entry,) = Registry(tmp_path / "f").entries()
        assert (entry.model, entry.why_no_model != "") == (None, True)
        monkeypatch.setattr("silo_node.rounds.releasing.model_of", model_of)
        assert run(simulation, file).has_model  # the same command fetches it
        (entry,) = Registry(tmp_path / "f").entries()
        assert (entry.model is None, entry.why_no_model) == (False, "")


def test_recipients_of_a_job_are_the_silos_and_perhaps_the_analyst(tmp_path: Path) -> None:
    for text in ('["analyst"]', '["silos", "silos"]', '["silos", "press"]'):
        (tmp_path / "job.toml").write_text(job_of("logistic-regression", "ok", f"recipients = {text}\n"))
        with pytest.raises(AnalystError, match="recipients"):
            read_job(tmp_path / "job.toml")


def test_nothing_is_sealed_before_a_run_is_over_nor_under_a_policy_that_closes_it(tmp_path: Path) -> None:
    with banks(tmp_path / "f", job_of("logistic-regression", "ok", TO_ANALYST), change=OPEN) as (simulation, file):
        run(simulation, file)
        reports = [StoredReport.decode(answer) for answer in simulation.reports if not is_envelope(answer)]
        east = simulation.silos["east"].actor
        silo, state, ledger = known_to(east), models(simulation)["east"], ledger_of(east)
        request = asked(simulation)[-1]
        assert len(released(silo, ledger, request, state, is_new=True)) == 1
        assert state.exact is not None
        ongoing = state.model_copy(update={"exact": state.exact.model_copy(update={"ended": None})})
        assert not ongoing.is_final
        assert released(silo, ledger, request, ongoing, is_new=True) == ()
        assert len(released(silo, ledger, request, ongoing, is_new=False)) == 1, "its analyst goes on no more"
        step = request.plan.training
        assert step is not None
        stays = request.model_copy(update={"plan": step.model_copy(update={"released_to": None})})
        assert released(silo, ledger, stays, state, is_new=False) == ()
        closed = silo.policy.model_copy(
            update={"disclosure": silo.policy.disclosure.model_copy(update={"release": ("model",)})}
        )
        assert released(replace(silo, policy=closed), ledger, request, state, is_new=False) == ()
        assert all(len(simulation.deliver_report(one.name)) == len(SILOS) for one in reports[:-1])
        assert len(simulation.deliver_report(reports[-1].name)) == 2 * len(SILOS)
        with pytest.raises(SiloError, match="may not leave to the analyst") as caught:
            may_leave(closed, state, "release")
        assert "model-to-analyst" in caught.value.hint
        ways: tuple[Way, ...] = ("predict", "export")
        for way in ways:
            may_leave(closed, state, way)


def test_the_aggregator_relays_a_model_only_where_it_was_asked_for(tmp_path: Path) -> None:
    with banks(tmp_path / "f", job_of("linear-regression", "paid", TO_ANALYST), change=OPEN) as (simulation, file):
        run(simulation, file)
        step = asked(simulation)[-1].plan.training
        assert step is not None
        stays = step.model_copy(update={"released_to": None})
        assert sealed_model(stays, [b"envelope"]) == sealed_model(step, [b"envelope"]) == ()
        assert sealed_model(step, [b"envelope", b"sealed"]) == (b"sealed",)
        for of, frames in (
            (stays, [b"envelope", b"sealed"]),
            (step, [b"envelope", b"one", b"two"]),
            (step, [b"envelope", bytes(MAX_SEALED_MODEL_BYTES + 1)]),
            (step, [b"envelope", "text"]),
        ):
            with pytest.raises(ProtocolError):
                sealed_model(of, frames)


def test_a_model_with_noise_is_released_at_no_further_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = with_noise("multinomial-regression", "grade", f"epsilon = 4\nrounds = 4\n{TO_ANALYST}")
    with banks_with_noise(tmp_path / "f", job, change=OPEN) as (simulation, file):
        training = run(simulation, file)
        state = models(simulation)["west"]
        (entry,) = Registry(tmp_path / "f").entries()
        assert training.has_model
        assert entry.model is not None
        assert entry.rho == training.rho == pytest.approx(simulation.spent("west") / 1e6)
        policy = tmp_path / "f" / "silos" / "west" / "policy.toml"
    (held,) = held_models(load(policy).policy, policy.parent)
    assert held.price is not None
    assert held.price.rho == training.rho
    assert held.card().price == held.price == entry.price
    assert held.digest == digest_of_model(entry.model.fitted, entry.model.portable)
    assert silo_node.owner.cli.main(["models", "list", "--policy", str(policy)]) == 0
    assert "epsilon" in capsys.readouterr().out
    form = portable_of(state)
    assert form == entry.model.portable
    assert state.record is not None
    plan = state.record.plan
    assert isinstance(plan, FamilyStep)
    task = plan.task(state.record.table)
    cells = {name: np.arange(9) % (3 if name == "kind" else 2) for name in ("kind", "debt", "age", "owner")}
    judged = FAMILIES[task.family].judged
    assert judged is not None
    expected = judged.scores(task, kept_state(state, task), Examples(np.arange(9), cells))
    found = scores_of(form, RowCells(cells))
    assert found.shape == (9, 3)
    assert np.abs(found - expected).max() <= 1e-12
