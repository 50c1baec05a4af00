"""Exact families across five silos in memory: what the pooled rows would give, opened by the silos alone."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import statsmodels.api as sm

import silo_node.owner.cli
from analyst.errors import AnalystError, DeniedError
from analyst.training.job import read_job
from analyst.training.run import Training, show_training, train
from federation.founding import found
from policies.requests.exact import ExactStep
from silo_node.training.run import ExactModel
from tests.harness.simulator import Simulation, simulate
from tests.rounds.test_training import asked, models

SILOS = ("east", "middle", "north", "south", "west")
POLICY = """\
schema = "silo-policy/1"
silo = {{ id = "{silo}", controller = "Bank", sector = "bank", jurisdiction = "NO", contact = "privacy@bank.example" }}
budget = {{ delta = 1e-6, lifetime = {{ rho = 1 }} }}
[privacy_unit]
entity = "applicant"
id_column = "id"
max_rows = 4
[sources.loans]
release = "exact"
kind = "parquet"
uri = "loans.parquet"
[sources.loans.columns]
id = {{ type = "string", class = "identifier", roles = [] }}
ok = {{ type = "bool", class = "internal", roles = ["label"] }}
grade = {{ type = "string", class = "internal", roles = ["label"], domain = ["no","later","yes","?"], unknown = "?" }}
visits = {{ type = "int", class = "internal", roles = ["label"], bounds = [0, 60] }}
paid = {{ type = "decimal", class = "internal", roles = ["label"], bounds = [-400, 900], step = 0.001 }}
kind = {{ type = "string", class = "internal", roles = ["feature"], domain = ["a", "b", "c", "d"], unknown = "d" }}
debt = {{ type = "decimal", class = "internal", roles = ["feature"], bounds = [0, 10], step = 0.01, narrow = true }}
age = {{ type = "int", class = "internal", roles = ["feature"], bounds = [18, 99] }}
owner = {{ type = "bool", class = "internal", roles = ["feature"] }}
exposure = {{ type = "decimal", class = "internal", roles = ["feature"], bounds = [-3, 3], step = 0.001 }}
[purposes.lending]
legal_basis = "legitimate-interest"
computations = {computations}
[disclosure]
release = ["model"]
[protection]
accept = ["masking"]
max_missing = 1
[training]
max_rounds = 30
dp = "optional"
clip_norm = 1.0
max_rho_per_run = 1.0
[analysts.ana]
key = "{key}"
purposes = ["lending"]
until = 2036-01-01T00:00:00Z
"""
ALL = (
    *("linear-regression", "ridge-regression", "logistic-regression"),
    *("multinomial-regression", "poisson-regression"),
)
FEATURES = ("kind", "debt", "age", "owner")


def rows_of(silo: str) -> list[dict[str, Any]]:
    """Return a silo's rows, one a person; nobody is of kind d, and all of the east pay back."""
    place = SILOS.index(silo)
    numbers = np.random.default_rng(place)
    rows = []
    for number in range(40 + 15 * place):
        debt, age = round(float(numbers.uniform(0, 10)), 2), int(numbers.integers(18, 100))
        owner = numbers.random() < 0.4
        kind, exposure = "abc"[numbers.integers(3)], round(float(numbers.uniform(-1, 1)), 3)
        odds = 1.2 - 0.3 * debt + 0.01 * age + 0.6 * owner + (kind == "b")
        draw = numbers.logistic()
        rows.append(
            {
                "id": f"{silo}-{number}",
                "ok": bool(odds + draw > 0) or silo == "east",
                "grade": ("no", "later", "yes")[int(np.digitize(odds + draw, (-0.5, 1.0)))],
                "visits": int(numbers.poisson(np.exp(0.4 + 0.1 * debt + exposure))),
                "paid": round(float(10 * odds + 3 * numbers.normal()), 3),
                "kind": kind,
                "debt": debt,
                "age": age,
                "owner": bool(owner),
                "exposure": exposure,
            }
        )
    return rows


def pooled() -> list[dict[str, Any]]:
    return [row for silo in SILOS for row in rows_of(silo)]


def design(rows: Sequence[dict[str, Any]]) -> Any:
    return np.array(
        [[1.0, row["kind"] == "b", row["kind"] == "c", row["debt"], row["age"], row["owner"]] for row in rows], float
    )


NAMES = ("(intercept)", "kind = b", "kind = c", "debt", "age", "owner")


def job_of(model: str, label: str, more: str = "") -> str:
    features = json.dumps(list(FEATURES))
    return (
        f'schema = "consilo-job/1"\nmodel = "{model}"\ntable = "loans"\npurpose = "lending"\n'
        f'label = "{label}"\nfeatures = {features}\nrelease = "exact"\n{more}'
    )


@contextmanager
def banks(
    path: Path, job: str, rows: dict[str, list[dict[str, Any]]] | None = None, computations: Sequence[str] = ALL
) -> Iterator[tuple[Simulation, Path]]:
    key = found(path, "banks", dict.fromkeys(SILOS), ("ana",))["ana"]
    for silo in SILOS:
        home = path / "silos" / silo
        own = rows[silo] if rows is not None else rows_of(silo)
        pyarrow.parquet.write_table(pa.Table.from_pylist(own), home / "loans.parquet")
        text = POLICY.format(silo=silo, key=key, computations=json.dumps(list(computations)))
        (home / "policy.toml").write_text(text)
    (path / "job.toml").write_text(job)
    with simulate(path) as simulation:
        yield simulation, path / "job.toml"


def run(simulation: Simulation, file: Path) -> Training:
    return train(simulation.federation, read_job(file), keep=file.with_name("keep.json"))


def the_model(simulation: Simulation) -> ExactModel:
    held = models(simulation)
    assert set(held) == set(SILOS)
    assert len({state.model_copy(update={"learned_at": 0}).encode() for state in held.values()}) == 1
    model = held["east"].exact
    assert model is not None
    return model


def coefficients(model: ExactModel) -> dict[str, tuple[float | None, ...]]:
    return {line.name: line.values for line in model.fitted.listings[0].lines}


def agrees(model: ExactModel, fit: Any) -> None:
    """Assert that coefficients, errors, p-values and intervals are those of a fit by statsmodels."""
    own = coefficients(model)
    assert tuple(own) == NAMES
    ends = np.asarray(fit.conf_int())
    for place, name in enumerate(NAMES):
        expected = (fit.params[place], fit.bse[place], fit.tvalues[place], fit.pvalues[place], *ends[place])
        for value, other in zip(own[name], expected, strict=True):
            assert value == pytest.approx(other, abs=1e-8 * max(1, abs(other))), name


def figures(model: ExactModel) -> dict[str, float | None]:
    return {line.name: line.values[0] for line in model.fitted.figures}


TIGHT = "[options]\ntolerance = 0.000000000001\n"


def test_a_logistic_run_is_the_fit_of_the_pooled_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with banks(tmp_path / "f", job_of("logistic-regression", "ok", TIGHT)) as (simulation, file):
        training = run(simulation, file)
        model = the_model(simulation)
        label = np.array([row["ok"] for row in pooled()], float)
        fit = sm.Logit(label, design(pooled())).fit(disp=0, tol=1e-14)
        agrees(model, fit)
        assert training.ended == "complete"
        assert training.steps < 10
        assert training.holders == SILOS
        assert (training.epsilon, simulation.spent("east")) == (None, 0)
        assert figures(model)["log-likelihood"] == pytest.approx(fit.llf, abs=1e-8)
        assert figures(model)["pseudo-R2 (McFadden)"] == pytest.approx(fit.prsquared, abs=1e-8)
        assert model.fitted.notes == ("dropped: kind = d is the same in all rows",)
        assert {type(request.plan) for request in asked(simulation)} == {ExactStep}
        assert "complete" in show_training(training, read_job(file), {})
        policy = tmp_path / "f" / "silos" / "north" / "policy.toml"
        assert silo_node.owner.cli.main(["models", "--policy", str(policy)]) == 0
        shown = capsys.readouterr().out
        for part in ("logistic-regression of ok", "standard error", "kind = b", "kind = d", "97.5 %"):
            assert part in shown
        assert silo_node.owner.cli.main(["models", "--policy", str(policy), "--format", "json"]) == 0
        (listed,) = json.loads(capsys.readouterr().out)
        assert (listed["model"], listed["ended"]) == ("logistic-regression", "complete")


def test_a_linear_run_is_the_fit_of_the_pooled_rows(tmp_path: Path) -> None:
    with banks(tmp_path / "f", job_of("linear-regression", "paid", TIGHT)) as (simulation, file):
        training = run(simulation, file)
        model = the_model(simulation)
    fit = sm.OLS(np.array([row["paid"] for row in pooled()]), design(pooled())).fit()
    agrees(model, fit)
    assert training.steps == 3
    assert figures(model)["R2"] == pytest.approx(fit.rsquared, abs=1e-9)
    assert figures(model)["adjusted R2"] == pytest.approx(fit.rsquared_adj, abs=1e-9)


def test_a_family_that_a_policy_does_not_name_is_refused_before_rows_are_read(tmp_path: Path) -> None:
    job = job_of("poisson-regression", "visits")
    with banks(tmp_path / "f", job, computations=("logistic-regression",)) as (simulation, file):
        for silo in SILOS:
            (tmp_path / "f" / "silos" / silo / "loans.parquet").unlink()
        with pytest.raises(DeniedError, match=r"COMPUTATION_CLOSED.*poisson-regression"):
            run(simulation, file)


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (
            job_of("linear-regression", "grade"),
            "label 'grade' is text (string), linear-regression takes bool or number; text labels: logistic-regression"
            " and multinomial-regression",
        ),
        (job_of("poisson-regression", "paid"), "poisson-regression takes whole numbers"),
        (job_of("logistic-regression", "grade"), "name its positive value, positive = one of no, later, yes"),
        (job_of("logistic-regression", "ok", '[options]\npositive = "yes"\n'), "which has no value to name"),
        (job_of("linear-regression", "paid", "[options]\npenalty = 1\n"), "no option 'penalty'"),
        (job_of("ridge-regression", "paid", "[options]\npenalty = 0\n"), "penalty: expected a number"),
        (job_of("linear-regression", "paid", '[columns]\noffset = "exposure"\n'), "has no offset"),
        (job_of("linear-regression", "paid", '[options]\nmissing = "zero"\n'), "drop, indicator, mean"),
        (job_of("linear-regression", "debt"), "used twice: debt"),
    ],
)
def test_a_job_that_does_not_fit_its_family_costs_nothing(tmp_path: Path, job: str, says: str) -> None:
    with banks(tmp_path / "f", job) as (simulation, file):
        with pytest.raises(AnalystError) as caught:
            run(simulation, file)
        assert says in caught.value.message
        assert "change the job" in caught.value.hint or "docs/training.md" in caught.value.hint
        assert not simulation.reports
