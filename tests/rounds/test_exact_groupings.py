"""Families without Newton's method across five silos in memory: each ends by itself with what its functions give."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

import silo_node.owner.cli
from analyst.errors import AnalystError, DeniedError
from analyst.training.job import read_job
from analyst.training.run import train
from analyst.training.told import show_training
from policies.requests.exact import ExactStep
from tests.harness import families
from tests.rounds.test_exact_families import banks, figures, pooled, rows_of, run, the_model
from tests.rounds.test_training import asked

pytestmark = pytest.mark.slow

SILOS = ("east", "middle", "north", "south", "west")
EVERY = ("pca", "k-means", "naive-bayes", "welch-t", "anova", "chi-square")


def job_of(model: str, label: str | None, *features: str, more: str = "") -> str:
    named = "" if label is None else f'label = "{label}"\n'
    return (
        f'schema = "consilo-job/1"\nmodel = "{model}"\ntable = "loans"\npurpose = "lending"\nrelease = "exact"\n'
        f"{named}features = {json.dumps(list(features))}\n{more}"
    )


@pytest.mark.parametrize(
    ("model", "label", "features", "more", "steps"),
    [
        ("pca", None, ("debt", "age", "owner", "kind"), "[options]\nscale = 'deviation'\n", 2),
        ("k-means", None, ("debt", "age"), "[options]\nclusters = 3\ncentres = '2 30; 5 60; 8 90'\n", None),
        ("k-means", None, ("debt", "age", "owner"), "[options]\nclusters = 4\nmissing = 'indicator'\n", None),
        ("naive-bayes", "grade", ("debt", "age", "kind", "owner"), "", 1),
        ("welch-t", "ok", ("debt", "age"), "[options]\nmissing = 'skip'\n", 1),
        ("anova", "grade", ("debt", "age", "owner"), "[options]\nmin_cohort = 20\n", 1),
        ("chi-square", "grade", ("kind", "owner"), "", 1),
    ],
)
def test_every_family_ends_by_itself_and_is_what_its_functions_give(
    tmp_path: Path, model: str, label: str | None, features: tuple[str, ...], more: str, steps: int | None,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    job, change = job_of(model, label, *features, more=more), ("max_rounds = 30", "max_rounds = 100")
    with banks(tmp_path / "f", job, computations=EVERY, change=change) as (simulation, file):
        training = run(simulation, file)
        found, request = the_model(simulation), asked(simulation)[0]
        said = show_training(training, read_job(file), {})
        policy = tmp_path / "f" / "silos" / "north" / "policy.toml"
        assert silo_node.owner.cli.main(["models", "--policy", str(policy)]) == 0
        shown = capsys.readouterr().out
    assert (training.ended, training.holders, training.epsilon) == ("complete", SILOS, None)
    assert steps in (None, training.steps)
    assert "complete" in said
    assert isinstance(request.plan, ExactStep)
    own = request.plan.task(request.table)
    cells: dict[str, Any] = {}
    for column in request.table.columns:
        grain, values = float(column.step or 1), [row[column.name] for row in pooled()]
        cells[column.name] = values if column.domain else [round(float(value) / grain) for value in values]
    filled = [name for name in features if name != "kind"] if "missing" in more else []
    gaps = {name: np.zeros(len(pooled()), np.bool_) for name in filled}
    _, fitted, rounds = families.run(own, [families.examples(own, cells, gaps)])
    assert found.fitted == fitted
    assert training.steps == rounds
    for one in fitted.listings:
        assert one.name in shown
        assert all(line.name in shown for line in one.lines)


def test_a_welch_test_is_that_of_the_pooled_rows_whose_cells_are_there(tmp_path: Path) -> None:
    rows = {silo: [dict(row) for row in rows_of(silo)] for silo in SILOS}
    for row in rows["north"][:9]:
        row["debt"] = None
    for row in rows["south"][:5]:
        row["ok"] = None
    job = job_of("welch-t", "ok", "debt", "age", more="[options]\nmissing = 'skip'\n")
    with banks(tmp_path / "f", job, rows, computations=EVERY) as (simulation, file):
        run(simulation, file)
        model = the_model(simulation)
    whole = [row for own in rows.values() for row in own if row["ok"] is not None]
    (tests, _) = model.fitted.listings
    for line in tests.lines:
        groups = [[row[line.name] for row in whole if row["ok"] is is_ok and row[line.name] is not None]
                  for is_ok in (False, True)]  # fmt: skip
        test = scipy.stats.ttest_ind(*groups, equal_var=False)
        assert line.values[:3] == pytest.approx((test.statistic, test.df, test.pvalue), rel=1e-8)
    assert figures(model) == {"rows": len(whole), "rows left out": 5}


def test_rows_of_one_person_at_a_silo_are_one_person_of_a_centre(tmp_path: Path) -> None:
    """Up to four rows of a person enter: six persons whose rows are alone around a centre are fewer than ten."""
    rows: dict[str, list[dict[str, Any]]] = {silo: [dict(row, debt=1.0) for row in rows_of(silo)] for silo in SILOS}
    for number, row in enumerate(rows["west"][:24]):
        row |= {"id": f"few-{number // 4}", "debt": 9.0}
    job = job_of("k-means", None, "debt", more="[options]\nclusters = 2\ncentres = '0;10'\n")
    with banks(tmp_path / "f", job, rows, EVERY, change=("max_rounds = 30", "max_rounds = 100")) as (simulation, file):
        run(simulation, file)
        model = the_model(simulation)
    (centres,) = model.fitted.listings
    assert [line.name for line in centres.lines] == ["centre 1"]
    assert model.fitted.notes == ("left out: 1 centre of fewer than 10 persons",)
    assert figures(model)["rows"] == sum(map(len, rows.values())) - 24


def test_groups_of_few_persons_end_a_test_and_the_analyst_learns_no_more_than_that(tmp_path: Path) -> None:
    job = job_of("welch-t", "ok", "debt", more="[options]\nmin_cohort = 500\n")
    with banks(tmp_path / "f", job, computations=EVERY) as (simulation, file):
        training = run(simulation, file)
        model = the_model(simulation)
        said = show_training(training, read_job(file), {})
    assert training.ended == "too-few-rows"
    assert "groups and curves min_cohort persons" in said
    assert not model.fitted.listings


def test_a_group_is_of_as_many_persons_as_the_strictest_policy_says_or_the_job_is_refused(tmp_path: Path) -> None:
    strict = ('release = ["model"]', 'release = ["model"]\nmin_cohort = 40')
    with banks(tmp_path / "f", job_of("anova", "grade", "debt"), computations=EVERY, change=strict) as (
        simulation,
        file,
    ):
        training = run(simulation, file)
        (request,) = asked(simulation)
        assert training.ended == "complete"
        assert isinstance(request.plan, ExactStep)
        assert request.plan.cohort == 40
        for model, label, feature in (("anova", "grade", "debt"), ("k-means", None, "debt")):
            (tmp_path / "f" / "job.toml").write_text(
                job_of(model, label, feature, more="rounds = 20\n[options]\nmin_cohort = 39\n")
            )
            with pytest.raises(DeniedError, match=r"MIN_COHORT.*groups of 39 persons") as caught:
                train(simulation.federation, read_job(file))
            assert "ask with min_cohort = 40" in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (job_of("pca", "ok", "debt"), "pca has no label; remove 'ok'"),
        (job_of("welch-t", "grade", "debt"), "take anova"),
        (job_of("chi-square", "grade", "debt"), "chi-square takes bool or text"),
        (job_of("k-means", None, "debt", more="[options]\ncentres = '1;2'\n"), "expected 8 of 1 numbers each"),
        (job_of("k-means", None, "debt", more="[options]\nclusters = 2.5\n"), "a whole number from 1 to 100"),
    ],
)
def test_a_job_that_does_not_fit_its_family_costs_nothing(tmp_path: Path, job: str, says: str) -> None:
    with banks(tmp_path / "f", job, computations=EVERY) as (simulation, file):
        with pytest.raises(AnalystError) as caught:
            run(simulation, file)
        assert says in caught.value.message
        assert not simulation.reports


def test_a_family_that_a_policy_does_not_name_is_refused(tmp_path: Path) -> None:
    job = job_of("pca", None, "debt", "age")
    with (
        banks(tmp_path / "f", job, computations=("anova",)) as (simulation, file),
        pytest.raises(DeniedError, match=r"COMPUTATION_CLOSED.*pca"),
    ):
        run(simulation, file)
