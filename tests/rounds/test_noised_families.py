"""Families with noise across five silos in memory: what their functions give, at the price that the job names."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import silo_node.owner.cli
from analyst.errors import AnalystError, DeniedError
from analyst.training.job import read_job
from analyst.training.told import show_training
from crypto.noise import discrete_gaussian
from federation.founding import found
from policies.requests.noised import NoisedStep
from policies.requests.noised_families import WITHOUT_NOISE
from silo_node.training.noised.registry import NOISED_FAMILIES
from silo_node.training.run import RunState
from tests.harness import families, noised
from tests.harness.simulator import Noise, Simulation, no_noise, simulate
from tests.rounds.test_exact_families import FEATURES, POLICY, SILOS, rows_of, run, the_model
from tests.rounds.test_training import asked, models

pytestmark = pytest.mark.slow
FAMILIES = ("logistic-regression", "multinomial-regression", "linear-regression", "poisson-regression", "cox")


def job_of(model: str, label: str, more: str = "epsilon = 8\n") -> str:
    features = json.dumps(list(FEATURES))
    return (
        f'schema = "consilo-job/1"\nmodel = "{model}"\ntable = "loans"\npurpose = "lending"\n'
        f'label = "{label}"\nfeatures = {features}\n{more}'
    )


@contextmanager
def banks(
    path: Path, job: str, noise: Noise = no_noise, rows: dict[str, list[dict[str, Any]]] | None = None, times: int = 4,
    change: tuple[str, str] = ("", ""), computations: Sequence[str] = FAMILIES,
) -> Iterator[tuple[Simulation, Path]]:  # fmt: skip
    """Found banks whose rows are there so many times, each of another person."""
    key = found(path, "banks", dict.fromkeys(SILOS), ("ana",))["ana"]
    for silo in SILOS:
        home = path / "silos" / silo
        own = (rows or {}).get(silo) or rows_of(silo)
        many = [row | {"id": f"{row['id']}-{time}"} for time in range(times) for row in own]
        pyarrow.parquet.write_table(pa.Table.from_pylist(many), home / "loans.parquet")
        text = POLICY.format(silo=silo, key=key, computations=json.dumps(list(computations)))
        text = (
            text.replace('release = "exact"\n', "")
            .replace('dp = "optional"\n', "")
            .replace("max_rounds = 30", "max_rounds = 60")
        )
        text = text.replace("lifetime = { rho = 1 }", "lifetime = { rho = 9 }").replace(
            "max_rho_per_run = 1.0", "max_rho_per_run = 9.0"
        )
        (home / "policy.toml").write_text(text.replace(*change))
    (path / "job.toml").write_text(job)
    with simulate(path, noise=noise) as simulation:
        yield simulation, path / "job.toml"


def numbers_of(state: RunState) -> dict[str, Any]:
    return {one.name: one.values for one in state.numbers}


def test_a_job_names_its_price_and_nothing_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with banks(tmp_path / "f", job_of("logistic-regression", "ok"), discrete_gaussian) as (simulation, file):
        training = run(simulation, file)
        model = the_model(simulation)
        assert training.steps == 50
        assert training.ended is None
        assert training.epsilon == pytest.approx(8, rel=0.01)
        assert training.epsilon is not None
        assert training.epsilon <= 8
        requests = asked(simulation)
        assert {type(request.plan) for request in requests} == {NoisedStep}
        assert len({request.micro_rho for request in requests}) == 1, "every round has the same price"
        persons = len([row for silo in SILOS for row in rows_of(silo)]) * 4
        held = numbers_of(models(simulation)["east"])
        assert abs(held["persons"][0] - persons) < 5 * held["persons_noise"][0]
        (listing,) = model.fitted.listings
        assert [line.name for line in listing.lines] == [
            "(intercept)", "kind = b", "kind = c", "kind = d", "debt", "age", "owner"
        ]  # fmt: skip
        assert any("without noise" in note for note in model.fitted.notes)
        assert "epsilon 8" in show_training(training, read_job(file), {})
        policy = tmp_path / "f" / "silos" / "north" / "policy.toml"
        assert silo_node.owner.cli.main(["models", "--policy", str(policy)]) == 0
        shown = capsys.readouterr().out
        for part in ("logistic-regression of ok", "50 of 50 steps", "noise", "without noise", "persons, with noise"):
            assert part in shown


def quick(model: str, label: str, more: str = "", rounds: int = 4) -> str:
    return job_of(model, label, f"epsilon = 20\nrounds = {rounds}\n{more}")


@pytest.mark.parametrize(
    ("model", "label", "more", "rounds"),
    [
        ("multinomial-regression", "grade", '[options]\nmissing = "mean"\ndecay = 0.01\nrate = 1\n', 4),
        ("poisson-regression", "visits", '[columns]\noffset = "exposure"\n[options]\ndecay = 0.01\nrate = 1\n', 4),
        (
            "logistic-regression",
            "grade",
            '[options]\npositive = "yes"\nmissing = "indicator"\ndecay = 0.01\nrate = 1\n',
            4,
        ),
        ("linear-regression", "paid", '[options]\nmethod = "moments"\n', 1),
    ],
)
def test_every_family_is_what_its_functions_give_of_the_opened_sums(
    tmp_path: Path, model: str, label: str, more: str, rounds: int
) -> None:
    job = job_of(model, label, "epsilon = 20\n" + (f"rounds = {rounds}\n" if rounds > 1 else "") + more)
    with banks(tmp_path / "f", job) as (simulation, file):
        training = run(simulation, file)
        found, held = the_model(simulation), numbers_of(models(simulation)["east"])
        request = asked(simulation)[0]
    assert (training.steps, training.ended) == (rounds, None)
    assert isinstance(request.plan, NoisedStep)
    task, state = request.plan.task(request.table), None
    persons = [row for silo in SILOS for _ in range(4) for row in rows_of(silo)]
    cells: dict[str, Any] = {}
    for column in request.table.columns:
        values = [row[column.name] for row in persons]
        grain = float(column.step or 1)
        cells[column.name] = values if column.domain else [round(float(value) / grain) for value in values]
    gaps = {name: np.zeros(len(persons), np.bool_) for name in FEATURES[1:]}
    own = families.examples(task, cells, gaps if "missing" in more else None)
    left_out = sum(row[label] == "?" for row in persons)
    assert left_out == 0
    parts = [own, families.part(own, np.arange(0))]  # no noise: whose rows they are changes nothing but truncation
    for number in range(rounds):
        step = noised.at(request.plan, number)
        state = NOISED_FAMILIES[model].update(
            replace(task, number=number),
            state or NOISED_FAMILIES[model].init(task),
            noised.opened(step, request.table, state or NOISED_FAMILIES[model].init(task), parts, request.micro_rho,
                          noised.nothing),
        )  # fmt: skip
    assert state is not None
    assert held["accepted"] == pytest.approx(state["accepted"], abs=2e-3)
    assert held["persons"][0] == pytest.approx(len(persons))
    dropped = [note for note in found.fitted.notes if note.startswith("dropped: kind = d")]
    assert len(found.fitted.listings[0].lines) + len(dropped) == len(state["accepted"])
    assert len(dropped) == (rounds == 1)


def test_weights_that_grow_without_end_stop_the_run_and_the_last_good_model_stands(tmp_path: Path) -> None:
    job = quick("logistic-regression", "ok", "[options]\nrate = 99999\n", rounds=6)
    with banks(tmp_path / "f", job, discrete_gaussian) as (simulation, file):
        training = run(simulation, file)
        said = show_training(training, read_job(file), {})
        states = models(simulation)
    assert training.ended == "diverged"
    assert training.steps < 6
    assert "smaller options.rate" in said
    assert "more rounds" in said
    assert {state.ended for state in states.values()} == {"diverged"}
    assert all(np.abs(numbers_of(state)["weights"]).max() <= 100 for state in states.values())


def test_a_descent_with_a_learning_rate_that_grows_says_so_too(tmp_path: Path) -> None:
    more = "epsilon = 20\nsteps = 4\nlearning_rate = 99999\nclip = 1.0\n"
    with banks(tmp_path / "f", job_of("logistic-regression", "ok", more), discrete_gaussian) as (simulation, file):
        training = run(simulation, file)
        said = show_training(training, read_job(file), {})
        states = models(simulation)
    assert (training.ended, training.steps) == ("diverged", 1)
    assert "smaller learning_rate" in said
    assert {state.weights.tobytes() for state in states.values()} == {np.zeros(7).tobytes()}


def test_rows_that_overflow_fail_no_round(tmp_path: Path) -> None:
    """A silo without a file contributes zeros and noise, the charge stands, and nobody else can tell."""
    with banks(tmp_path / "f", quick("logistic-regression", "ok"), discrete_gaussian) as (simulation, file):
        (tmp_path / "f" / "silos" / "west" / "loans.parquet").write_bytes(b"no parquet file")
        training = run(simulation, file)
        assert training.steps == 4
        assert training.holders == SILOS
        assert simulation.spent("west") == simulation.spent("east") > 0


@pytest.mark.parametrize("model", sorted(WITHOUT_NOISE))
def test_a_family_without_a_private_form_is_refused_with_the_reason(tmp_path: Path, model: str) -> None:
    (tmp_path / "job.toml").write_text(job_of(model, "ok"))
    with pytest.raises(AnalystError) as caught:
        read_job(tmp_path / "job.toml")
    assert f"{model} has no private form: {WITHOUT_NOISE[model]}" in caught.value.message
    assert 'release = "exact"' in caught.value.message


def test_a_policy_with_private_sources_refuses_an_exact_family_with_the_reason(tmp_path: Path) -> None:
    job = job_of("cox", "ok", 'release = "exact"\n[columns]\ntime = "visits"\nevent = "ok"\n').replace(
        'label = "ok"\n', ""
    )
    change = ("lifetime = { rho = 9 }", "lifetime = { rho = 9 }")
    with banks(tmp_path / "f", job, change=change) as (simulation, file):
        with pytest.raises(DeniedError) as caught:
            run(simulation, file)
        assert "RELEASE" in str(caught.value)
        assert "ask for a SURVIVAL curve" in f"{caught.value} {caught.value.hint}"
        (tmp_path / "f" / "job.toml").write_text(job_of("logistic-regression", "ok", 'release = "exact"\n'))
        with pytest.raises(DeniedError) as caught:
            run(simulation, file)
        assert 'remove release = "exact" from the job' in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("", "needs epsilon"),
        ("epsilon = 1\nclip = 1\n", "write it into [options]"),
        ("epsilon = 1\nsteps = 20\n", "name rounds"),
        ("epsilon = 1\nlocal_steps = 2\n", "remove it"),
    ],
)
def test_a_job_names_nothing_that_has_no_effect(tmp_path: Path, more: str, says: str) -> None:
    (tmp_path / "job.toml").write_text(job_of("logistic-regression", "ok", more))
    with pytest.raises(AnalystError, match=re.escape(says)):
        read_job(tmp_path / "job.toml")


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (job_of("logistic-regression", "ok", "epsilon = 1\n[options]\nrate = 0\n"), "rate: expected a number"),
        (job_of("logistic-regression", "ok", "epsilon = 1\n[options]\ntolerance = 0.1\n"), "no option 'tolerance'"),
        (job_of("linear-regression", "grade"), "linear-regression takes bool or number"),
        (quick("linear-regression", "paid", '[options]\nmethod = "moments"\nmissing = "mean"\n'), "no mean before"),
        (job_of("logistic-regression", "ok", "epsilon = 0.0001\n"), "too little for 50 rounds"),
        (job_of("logistic-regression", "ok", "epsilon = 0.03\n"), "too little for 50 rounds"),
    ],
)
def test_a_job_that_does_not_fit_costs_nothing(tmp_path: Path, job: str, says: str) -> None:
    change = ("lifetime = { rho = 9 }", "lifetime = { rho = 9 }, per_request = { min_rho = 0.00001, max_rho = 5 }")
    with banks(tmp_path / "f", job, change=change, times=1) as (simulation, file):
        with pytest.raises(AnalystError) as caught:
            run(simulation, file)
        assert says in caught.value.message
        if "0.03" in job:
            bought = int(re.search(r"rounds = (\d+)", caught.value.hint).group(1))  # type: ignore[union-attr]
            assert 3 <= bought < 50
            file.write_text(job.replace("epsilon = 0.03", f"epsilon = 0.03\nrounds = {bought}"))
            read_job(file)
            assert run(simulation, file).ended == "too-few-rows"
        assert not simulation.reports or "0.03" in job
