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
from analyst.training.run import Training, train
from analyst.training.told import show_training
from federation.founding import found
from policies.requests.exact import ExactStep
from silo_node.training.run import FamilyModel
from tests.harness import families
from tests.harness.simulator import Simulation, simulate
from tests.rounds.test_training import asked, models

pytestmark = pytest.mark.slow

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
    path: Path,
    job: str,
    rows: dict[str, list[dict[str, Any]]] | None = None,
    computations: Sequence[str] = ALL,
    consent: str = "[purposes.lending]\n",
    change: tuple[str, str] | None = None,
    workers: int | None = None,
    more: Sequence[tuple[str, str]] = (),
) -> Iterator[tuple[Simulation, Path]]:
    key = found(path, "banks", dict.fromkeys(SILOS), ("ana",))["ana"]
    for silo in SILOS:
        home = path / "silos" / silo
        own = rows[silo] if rows is not None else rows_of(silo)
        pyarrow.parquet.write_table(pa.Table.from_pylist(own), home / "loans.parquet")
        text = POLICY.format(silo=silo, key=key, computations=json.dumps(list(computations)))
        text = text.replace("[purposes.lending]\n", consent).replace(*(change or ("", "")))
        for old, new in more:
            assert old in text
            text = text.replace(old, new)
        (home / "consent.csv").write_text("id,purpose,given_at,withdrawn_at\n")
        (home / "policy.toml").write_text(text)
    (path / "job.toml").write_text(job)
    with simulate(path, is_lazy=workers is not None) as simulation:
        for one in simulation.silos.values():
            one.workers = workers
        yield simulation, path / "job.toml"


def run(simulation: Simulation, file: Path) -> Training:
    return train(simulation.federation, read_job(file), keep=file.with_name("keep.json"), sleep=lambda _: None)


def the_model(simulation: Simulation) -> FamilyModel:
    held = models(simulation)
    assert set(held) == set(SILOS)
    assert len({state.model_copy(update={"learned_at": 0}).encode() for state in held.values()}) == 1
    model = held["east"].exact
    assert model is not None
    return model


def coefficients(model: FamilyModel) -> dict[str, tuple[float | None, ...]]:
    return {line.name: line.values for line in model.fitted.listings[0].lines}


def agrees(model: FamilyModel, fit: Any) -> None:
    """Assert that coefficients, errors, p-values and intervals are those of a fit by statsmodels."""
    own = coefficients(model)
    assert tuple(own) == NAMES
    ends = np.asarray(fit.conf_int())
    for place, name in enumerate(NAMES):
        expected = (fit.params[place], fit.bse[place], fit.tvalues[place], fit.pvalues[place], *ends[place])
        for value, other in zip(own[name], expected, strict=True):
            assert value == pytest.approx(other, abs=1e-8 * max(1, abs(other))), name


def figures(model: FamilyModel) -> dict[str, float | None]:
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
            " and hashed-logistic and multinomial-regression",
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


@pytest.mark.parametrize(
    ("model", "label", "more"),
    [
        ("ridge-regression", "paid", "[options]\npenalty = 2.5\n"),
        ("multinomial-regression", "grade", ""),
        ("poisson-regression", "visits", '[columns]\noffset = "exposure"\n'),
        ("logistic-regression", "grade", '[options]\npositive = "yes"\nmissing = "indicator"\n'),
    ],
)
def test_every_family_runs_to_its_end_and_is_what_its_functions_give(
    tmp_path: Path, model: str, label: str, more: str
) -> None:
    with banks(tmp_path / "f", job_of(model, label, more)) as (simulation, file):
        training = run(simulation, file)
        found = the_model(simulation)
        request = asked(simulation)[0]
    assert training.ended == "complete"
    assert isinstance(request.plan, ExactStep)
    own = request.plan.task(request.table)
    cells: dict[str, Any] = {}
    for column in request.table.columns:
        values = [row[column.name] for row in pooled()]
        grain = float(column.step or 1)
        cells[column.name] = values if column.domain else [round(float(value) / grain) for value in values]
    gaps = {name: np.zeros(len(pooled()), np.bool_) for name in FEATURES[1:]} if "indicator" in more else None
    _, fitted, rounds = families.run(own, [families.examples(own, cells, gaps)])
    assert found.fitted == fitted
    assert training.steps == rounds


def test_labels_that_a_column_tells_apart_end_the_run_and_only_owners_see_the_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {silo: [row | {"owner": row["ok"]} for row in rows_of(silo)] for silo in SILOS}
    with banks(tmp_path / "f", job_of("logistic-regression", "ok"), rows) as (simulation, file):
        training = run(simulation, file)
        said = show_training(training, read_job(file), {})
        model = the_model(simulation)
        policy = tmp_path / "f" / "silos" / "west" / "policy.toml"
        assert silo_node.owner.cli.main(["models", "--policy", str(policy)]) == 0
        shown = capsys.readouterr().out
        assert b"owner" not in b"".join(
            frame for name, frames in west(simulation) if name == "< learn" for frame in frames
        )
    assert training.ended == "no-maximum"
    assert "no maximum" in said
    assert "owner tells" not in said
    assert not model.fitted.listings
    assert "no maximum: owner tells the labels apart" in shown


def west(simulation: Simulation) -> list[tuple[str, tuple[bytes, ...]]]:
    return simulation.silos["west"].seen


def test_a_run_that_is_interrupted_after_its_end_asks_for_no_further_step(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    with banks(tmp_path / "f", job_of("linear-regression", "paid")) as (simulation, file):

        def stop(done: int) -> None:
            if done == 3:
                raise StoppedError

        with pytest.raises(StoppedError):
            train(simulation.federation, read_job(file), stop, file.with_name("keep.json"))
        count = len(simulation.reports)
        training = run(simulation, file)
        assert len(simulation.reports) == count
        assert (training.ended, training.steps, training.holders) == ("complete", 3, SILOS)


def test_a_silo_that_is_away_for_a_step_is_taught_and_ends_with_the_same_model(tmp_path: Path) -> None:
    with banks(tmp_path / "f", job_of("logistic-regression", "ok")) as (simulation, file):
        simulation.silos["middle"].dies_before = "contribute"
        simulation.silos["middle"].restarts = True
        training = run(simulation, file)
        assert training.ended == "complete"
        assert training.holders == SILOS
        assert training.answered["middle"] == training.steps - 1
        the_model(simulation)


def test_a_withdrawal_in_a_run_leaves_the_person_out_of_what_follows(tmp_path: Path) -> None:
    decided = '[consent]\nmode = "table"\nsource = "consent.csv"\nsubject = "id"\npurpose = "purpose"\n'
    decided += 'given_at = "given_at"\nwithdrawn_at = "withdrawn_at"\n[purposes.lending]\nconsent = "opt-out"\n'
    with banks(tmp_path / "f", job_of("logistic-regression", "ok", TIGHT), consent=decided) as (simulation, file):
        gone = {row["id"] for row in rows_of("west")[::3]}

        def withdraw(done: int) -> None:
            if done == 3:
                lines = "".join(f"{one},lending,2020-01-01T00:00:00Z,2020-01-02T00:00:00Z\n" for one in sorted(gone))
                decisions = tmp_path / "f" / "silos" / "west" / "consent.csv"
                decisions.write_text(f"id,purpose,given_at,withdrawn_at\n{lines}")

        training = train(simulation.federation, read_job(file), withdraw)
        model = the_model(simulation)
    rest = [row for row in pooled() if row["id"] not in gone]
    fit = sm.Logit(np.array([row["ok"] for row in rest], float), design(rest)).fit(disp=0, tol=1e-14)
    agrees(model, fit)
    assert training.ended == "complete"
    assert figures(model)["rows"] == len(rest)
    assert any("the rows changed in the run" in note for note in model.fitted.notes)


def test_rows_that_lack_a_cell_are_left_out_and_counted_and_rows_of_a_person_are_bounded(tmp_path: Path) -> None:
    rows = {silo: [dict(row) for row in rows_of(silo)] for silo in SILOS}
    for row in rows["north"][:9]:
        row["debt"] = None
    for row in rows["south"][:5]:
        row["ok"] = None
    for row in rows["west"][:20]:
        row["id"] = "west-0"  # of whom four rows enter
    with banks(tmp_path / "f", job_of("logistic-regression", "ok", TIGHT), rows) as (simulation, file):
        training = run(simulation, file)
        model = the_model(simulation)
    whole = sum(map(len, rows.values()))
    assert training.ended == "complete"
    assert figures(model)["rows left out"] == 14
    assert figures(model)["rows"] == whole - 14 - 16


def test_an_exact_family_on_a_private_source_is_refused_with_the_reason(tmp_path: Path) -> None:
    for change in (('release = "exact"', 'release = "private"'), ('dp = "optional"', 'dp = "required"')):
        job = job_of("poisson-regression", "visits")
        with banks(tmp_path / change[1][:4].strip(), job, change=change) as (simulation, file):
            with pytest.raises(DeniedError, match="RELEASE") as caught:
                run(simulation, file)
            said = f"{caught.value.message} {caught.value.hint}"
            assert "the request is exact" in said or "training without noise is not allowed" in said
            assert not simulation.reports or not models(simulation)


def test_more_rounds_than_a_policy_allows_are_refused_by_the_key_of_the_job(tmp_path: Path) -> None:
    with banks(tmp_path / "f", job_of("linear-regression", "paid", "rounds = 31\n")) as (simulation, file):
        with pytest.raises(DeniedError, match="MAX_ROUNDS") as caught:
            run(simulation, file)
        assert "rounds = 30" in f"{caught.value.message} {caught.value.hint}"


def test_prepared_rows_give_the_same_model(tmp_path: Path) -> None:
    job = job_of("logistic-regression", "ok", '[options]\nmissing = "mean"\n')
    prepared = ('uri = "loans.parquet"', 'uri = "loans.parquet"\nread = "prepared"')
    fitted = []
    for name, change in (("read", None), ("prepared", prepared)):
        with banks(tmp_path / name, job, change=change) as (simulation, file):
            run(simulation, file)
            fitted.append(the_model(simulation).fitted)
    assert fitted[0] == fitted[1]


@pytest.mark.process
def test_a_process_of_its_own_computes_the_same_from_the_state_that_it_is_told(tmp_path: Path) -> None:
    job, fitted = job_of("logistic-regression", "ok"), []
    for workers in (None, 1):
        with banks(tmp_path / str(workers), job, workers=workers) as (simulation, file):
            run(simulation, file)
            fitted.append(the_model(simulation).fitted)
    assert fitted[0] == fitted[1]
