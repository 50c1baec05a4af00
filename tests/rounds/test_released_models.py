"""Models that silos release to the analyst: asked for in signed requests, opened by policies, signed by a quorum."""

import json
from pathlib import Path

import pytest

from analyst.errors import AnalystError, DeniedError
from analyst.training.job import read_job
from analyst.training.registry import Registry
from analyst.training.run import show_training, to_json
from policies.models.released import ReleasedModel
from silo_node.rounds.releasing import model_of
from tests.rounds.test_exact_families import SILOS, banks, job_of, run
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
        assert json.loads(to_json(training))["released"]
        assert "consilo model show" in show_training(training, read_job(file), {})
        assert entry.model == model_of(simulation.federation.config.federation, held["east"])
        assert entry.record == held["west"].record
        assert entry.record is not None
        assert entry.record.contributed == dict.fromkeys(SILOS, training.steps)
        assert (entry.done, entry.ended, entry.holders) == (training.steps, "complete", SILOS)
        assert all(request.plan.training and request.plan.training.released_to for request in asked(simulation))
        assert not file.with_name("keep.json").exists()


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
