"""`consilo train --resume RUN` and `--without-withdrawn RUN`: the run that is meant, or one line with a remedy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import analyst.client
from analyst.cli.main import main
from analyst.errors import AnalystError
from analyst.training.again import anew_in_words, check_resumes
from analyst.training.job import read_job
from analyst.training.progress import Progress
from analyst.training.run import Training, train
from policies.errors import ModelError
from policies.requests.request import Request
from tests.harness.simulator import Simulation
from tests.harness.states import states_of
from tests.rounds import test_training as noised
from tests.rounds.test_killed import ROUNDS, SILOS, KilledError, banks, charges, models

pytestmark = pytest.mark.slow


def keep_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.run.json")


def run(simulation: Simulation, file: Path, progress: Callable[[int], None] = lambda done: None) -> Training:
    return train(simulation.federation, read_job(file), progress, keep_of(file), sleep=lambda _: None)


def interrupted(simulation: Simulation, file: Path) -> str:
    """Interrupt a run after its first round; return its name."""

    def kill(done: int) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        run(simulation, file, kill)
    step = Request.decode(Progress.decode(keep_of(file).read_bytes()).first).plan.training
    assert step is not None
    return step.run.hex()


def resumes(simulation: Simulation, file: Path, name: str) -> None:
    check_resumes(simulation.federation, read_job(file), keep_of(file), name)


def anew(simulation: Simulation, file: Path, name: str) -> str:
    return anew_in_words(simulation.federation, read_job(file), keep_of(file), name)


@contextmanager
def commands(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Yield `consilo train`, which reaches the simulation."""

    @contextmanager
    def started(config: object, progress: object = None) -> Iterator[Simulation]:
        yield simulation

    monkeypatch.setattr(analyst.client, "started", started)
    home = simulation.path

    def command(*options: str) -> int:
        return main(["train", str(home / "job.toml"), "--federation", str(home / "consilo.toml"), *options])

    yield command


def test_resume_goes_on_with_the_named_run_and_never_begins_another(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        before = charges(simulation)
        name = interrupted(simulation, file)
        resumes(simulation, file, name[:8])
        training = run(simulation, file)
        assert (training.run, training.steps, training.holders) == (name, ROUNDS, SILOS)
        assert charges(simulation) == {silo: count + ROUNDS for silo, count in before.items()}, "nothing twice"
        with pytest.raises(AnalystError, match=f"the run {name[:12]} is over: complete") as caught:
            resumes(simulation, file, name)
        assert f"--from {name[:12]}" in caught.value.hint
        with pytest.raises(ModelError, match="no run of the name"):
            resumes(simulation, file, "ffffffff")


def test_resume_with_another_job_or_without_its_file_says_what_is_missing(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        name, text = interrupted(simulation, file), file.read_text()
        file.write_text(text.replace('"age", ', ""))
        assert file.read_text() != text
        with pytest.raises(AnalystError, match="is of another job") as caught:
            resumes(simulation, file, name)
        assert "put the job back as it was" in caught.value.hint
        file.write_text(text)
        away = keep_of(file).rename(tmp_path / "away")
        with pytest.raises(AnalystError, match="is not there") as caught:
            resumes(simulation, file, name)
        assert "put job.toml.run.json back" in caught.value.hint
        other = interrupted(simulation, file)
        with pytest.raises(AnalystError, match=f"is of the run {other[:12]}, not of {name[:12]}") as caught:
            resumes(simulation, file, name)
        assert f"--resume {other[:12]}" in caught.value.hint
        away.replace(keep_of(file))
        resumes(simulation, file, name)
        assert run(simulation, file).run == name


def test_a_job_is_trained_anew_without_who_withdrew_at_a_price_that_is_shown_and_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with banks(tmp_path / "f") as (simulation, file), commands(simulation, monkeypatch) as command:
        first, before = run(simulation, file), charges(simulation)
        assert command("--without-withdrawn", first.run[:8]) == 1
        assert "add --yes where nobody is asked" in capsys.readouterr().err
        assert charges(simulation) == before, "nothing was asked of a row"
        monkeypatch.setattr("analyst.cli.main.confirmed", lambda question, hint: False)
        assert command("--without-withdrawn", first.run[:8]) == 0
        shown = capsys.readouterr()
        assert "nothing was trained, nothing is paid" in shown.out
        assert "price: none" in shown.out
        assert f"trains anew what run {first.run[:12]} did, from first weights" in shown.err.replace("\n", " ")
        monkeypatch.setattr("analyst.cli.main.confirmed", lambda question, hint: True)
        assert command("--without-withdrawn", first.run[:8]) == 0
        assert charges(simulation) == {silo: count + ROUNDS for silo, count in before.items()}
        assert f"run {first.run}" not in capsys.readouterr().out, "another run"


def test_what_cannot_be_trained_anew_says_why(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        name, text = interrupted(simulation, file), file.read_text()
        with pytest.raises(AnalystError, match="is under way") as caught:
            anew(simulation, file, name)
        assert "--abandon" in caught.value.hint
        first = run(simulation, file)
        assert len(models(simulation, first)) == 1
        file.write_text(text.replace('"age", ', ""))
        with pytest.raises(AnalystError, match="is of another job") as caught:
            anew(simulation, file, name)
        assert "give the job file that began it" in caught.value.hint


@pytest.mark.torch
def test_with_noise_who_withdrew_is_in_no_round_and_what_was_spent_is_told(tmp_path: Path) -> None:
    with noised.banks(tmp_path / "f") as (simulation, file):
        first = noised.run(simulation, file)
        said = anew(simulation, file, first.run)
        assert first.epsilon is not None
        assert f"the epsilon {first.epsilon:.3g} (rho " in said
        assert said.endswith("that it had cost each person stays spent")
        gone = {f"east-{number}" for number in range(5)}
        lines = "".join(f"{person},lending,2020-01-01,2020-02-01\n" for person in sorted(gone))
        consent = simulation.silos["east"].policy.with_name("consent.csv")
        consent.write_text(f"id,purpose,given_at,withdrawn_at\n{lines}")
        second = noised.run(simulation, file)
        state = next(one for one in states_of(simulation.silos["east"]) if one.run.hex() == second.run)
        left = [row for row in noised.pooled() if row["id"] not in gone]
        assert len(left) < len(noised.pooled())
        assert state.weights == pytest.approx(noised.descent(lambda _: left), abs=2e-5)
