"""Families with noise across five silos in memory: what their functions give, at the price that the job names."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import silo_node.owner.cli
from analyst.training.job import read_job
from analyst.training.run import show_training
from crypto.noise import discrete_gaussian
from federation.founding import found
from policies.requests.noised import NoisedStep
from silo_node.training.run import RunState
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
    assert state.exact is not None
    return {one.name: np.array(one.values) for one in state.exact.numbers}


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
