"""Held-out rows across silos in memory: no model sees them, and the silos alone know who is on which side."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm

import silo_node.owner.cli
from analyst.errors import AnalystError, DeniedError
from analyst.training.job import read_job
from silo_node.data.sides import held_out_of
from silo_node.training.run import RunState
from tests.harness.simulator import Simulation
from tests.harness.states import states_of
from tests.rounds.test_exact_families import (
    ALL,
    SILOS,
    TIGHT,
    banks,
    coefficients,
    design,
    job_of,
    pooled,
    rows_of,
    run,
)

pytestmark = pytest.mark.slow

WITH_EVALUATION = (*ALL, "evaluation")
JOB = job_of("logistic-regression", "ok", TIGHT)


def states(simulation: Simulation) -> dict[str, list[RunState]]:
    return {silo: states_of(actor) for silo, actor in simulation.silos.items()}


def secret_of(simulation: Simulation) -> bytes:
    """Return the secret of the only split, which every silo has."""
    found = {one.split for held in states(simulation).values() for one in held if one.split is not None}
    (secret,) = found
    assert secret is not None
    return secret


def the_model(simulation: Simulation) -> Any:
    held = [one for own in states(simulation).values() for one in own if one.exact is not None]
    assert len({one.model_copy(update={"learned_at": 0}).encode() for one in held}) == 1
    return held[-1].exact


def the_fit(rows: list[dict[str, Any]]) -> Any:
    return sm.Logit(np.array([row["ok"] for row in rows], float), design(rows)).fit(disp=0, tol=1e-14)


def test_a_column_holds_rows_out(tmp_path: Path) -> None:
    rows = {silo: [row | {"test": place % 4 == 0} for place, row in enumerate(rows_of(silo))] for silo in SILOS}
    change = (
        'age = { type = "int"',
        'test = { type = "bool", class = "internal", roles = ["held_out"] }\nage = { type = "int"',
    )
    job = f'{JOB}[held_out]\ncolumn = "test"\n'
    with banks(tmp_path / "f", job, rows, change=change) as (simulation, file):
        assert run(simulation, file).ended == "complete"
        found = coefficients(the_model(simulation))
    fit = the_fit([row for own in rows.values() for row in own if not row["test"]])
    assert [values[0] for values in found.values()] == pytest.approx(fit.params, abs=1e-8)


def test_a_share_of_persons_is_held_out_alike_in_every_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = f"{JOB}[held_out]\nshare = 0.25\n"
    with banks(tmp_path / "f", job, computations=WITH_EVALUATION) as (simulation, file):
        assert run(simulation, file).ended == "complete"
        secret = secret_of(simulation)
        assert {len(held) for held in states(simulation).values()} == {2}
        ids = [row["id"] for row in pooled()]
        is_out = held_out_of(secret, ids, 250)
        assert 0.15 < is_out.mean() < 0.35
        fit = the_fit([row for row, out in zip(pooled(), is_out, strict=True) if not out])
        found = coefficients(the_model(simulation))
        assert [values[0] for values in found.values()] == pytest.approx(fit.params, abs=1e-8)
        # Another run of the series, with another share, has the same split: more persons are held out, and none fewer.
        file.write_text(f"{JOB}[held_out]\nshare = 0.4\n")
        assert run(simulation, file).ended == "complete"
        assert secret_of(simulation) == secret
        # No file of the analyst and no command of an owner has the secret.
        for path in (tmp_path / "f").glob("*.json"):
            assert secret.hex() not in path.read_text()
        policy = tmp_path / "f" / "silos" / "north" / "policy.toml"
        assert silo_node.owner.cli.main(["models", "--policy", str(policy), "--format", "json"]) == 0
        assert len(json.loads(capsys.readouterr().out)) == 2


def test_a_silo_that_was_away_is_taught_the_split(tmp_path: Path) -> None:
    job = f"{JOB}[held_out]\nshare = 0.25\n"
    with banks(tmp_path / "f", job, computations=WITH_EVALUATION) as (simulation, file):
        north = simulation.silos["north"]
        taught = north.actor.learn
        north.actor.learn = lambda data, *evidence: ()  # type: ignore[method-assign]
        training = run(simulation, file)
        # A silo without the split refuses, and the others go on, as one may be missing.
        assert training.answered["north"] == 0
        assert "north" not in training.holders
        assert not states(simulation)["north"]
        north.actor.learn = taught  # type: ignore[method-assign]
        training = run(simulation, file)
        assert training.answered["north"] == training.steps
        assert training.holders == SILOS
        assert len(secret_of(simulation)) == 64


def test_a_split_needs_the_evaluation_to_be_open(tmp_path: Path) -> None:
    job = f"{JOB}[held_out]\nshare = 0.25\n"
    with banks(tmp_path / "f", job) as (simulation, file):
        with pytest.raises(DeniedError, match=r"COMPUTATION_CLOSED.*evaluation"):
            run(simulation, file)
        assert not (tmp_path / "f" / "splits.json").exists()


def test_a_job_names_one_way_of_holding_rows_out(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    for held_out, why in (
        ("", "a column or a share"),
        ('column = "a"\nshare = 0.5', "a column or a share"),
        ("share = 0.12", "a multiple of 0.05"),
        ("share = 1", "less than 1"),
        ('column = "a"\n[metric]\nname = "f1"', "metric.name"),
        ('column = "a"\n[metric]\nname = "auc"\nepsilon = 1', 'with "exact" it has none'),
        ('column = "a"\n[metric]\nname = "auc"\nevery = 99', "of a run of 25 rounds"),
    ):
        file.write_text(f"{JOB}[held_out]\n{held_out}\n")
        with pytest.raises(AnalystError, match=why):
            read_job(file)
