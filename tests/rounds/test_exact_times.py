"""Families of the time to an event across five silos in memory: what the pooled rows would give."""

import math
from pathlib import Path

import numpy as np
import pytest
import statsmodels.duration.api as smd

import silo_node.owner.cli
from analyst.errors import AnalystError, DeniedError
from analyst.training.job import read_job
from analyst.training.told import show_training
from policies.requests.exact import ExactStep
from tests.rounds.test_exact_families import SILOS, TIGHT, banks, figures, rows_of, run, the_model
from tests.rounds.test_training import asked

pytestmark = pytest.mark.slow

FEATURES = ("debt", "age", "owner")
COLUMNS = '[columns]\ntime = "paid"\nevent = "ok"\nstrata = "kind"\n'
JOB = (
    'schema = "consilo-job/1"\nmodel = "cox"\ntable = "loans"\npurpose = "lending"\n'
    f'features = ["debt", "age", "owner"]\nrelease = "exact"\n{TIGHT}'
)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_a_cox_run_is_the_stratified_fit_of_the_pooled_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ties: str
) -> None:
    own = {silo: [row | {"paid": 100.0 + round(row["paid"])} for row in rows_of(silo)] for silo in SILOS}
    with banks(tmp_path / "f", f'{JOB}ties = "{ties}"\n{COLUMNS}', own, ("cox",)) as (simulation, file):
        training = run(simulation, file)
        model = the_model(simulation)
        request = asked(simulation)[0]
        assert "complete" in show_training(training, read_job(file), {})
        policy = tmp_path / "f" / "silos" / "north" / "policy.toml"
        assert silo_node.owner.cli.main(["models", "--policy", str(policy)]) == 0
        shown = capsys.readouterr().out
    rows = [row | {"at": f"{silo} {row['kind']}"} for silo in SILOS for row in own[silo]]
    inputs = np.array([[row[name] for name in FEATURES] for row in rows], float)
    _, strata = np.unique([row["at"] for row in rows], return_inverse=True)
    times, events = np.array([row["paid"] for row in rows]), np.array([row["ok"] for row in rows], float)
    fit = smd.PHReg(times, inputs, status=events, strata=strata, ties=ties).fit(tol=1e-14)
    ends = np.asarray(fit.conf_int())
    lines = {line.name: line.values for line in model.fitted.listings[0].lines}
    assert tuple(lines) == FEATURES
    for place, name in enumerate(FEATURES):
        expected = (fit.params[place], fit.bse[place], fit.tvalues[place], fit.pvalues[place], *ends[place])
        for value, other in zip(lines[name], expected, strict=True):
            assert value == pytest.approx(other, abs=1e-8 * max(1, abs(other))), name
    assert (training.ended, training.holders, training.epsilon) == ("complete", SILOS, None)
    assert figures(model)["log partial likelihood"] == pytest.approx(fit.llf, abs=1e-8)
    assert (figures(model)["strata"], figures(model)["events"]) == (15, events.sum())
    assert len(set(times)) < len(times) / 3  # so many rows have the time of another
    for part in ("cox in loans", "hazard ratios", "likelihood-ratio chi-square", "concordance"):
        assert part in shown
    words = request.plan.in_words("loans")
    for part in ("event = ok", "strata = kind", "time = paid"):
        assert part in words


def test_a_run_of_curves_is_that_of_the_pooled_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lifelines import KaplanMeierFitter
    from lifelines.statistics import multivariate_logrank_test

    job = JOB.replace('"cox"', '"kaplan-meier"').replace('features = ["debt", "age", "owner"]\n', "")
    job = job.replace(TIGHT, "[options]\nmin_cohort = 2\ngrid = 2.5\n")
    columns = '[columns]\ntime = "paid"\nevent = "ok"\ngroup = "kind"\n'
    few = ('release = ["model"]', 'release = ["model"]\nmin_cohort = 2')
    with banks(tmp_path / "f", f"{job}{columns}", None, ("kaplan-meier",), change=few) as (simulation, file):
        training = run(simulation, file)
        model = the_model(simulation)
        policy = tmp_path / "f" / "silos" / "north" / "policy.toml"
        assert silo_node.owner.cli.main(["models", "--policy", str(policy)]) == 0
        shown = capsys.readouterr().out
    assert "1 of 1 step" in shown
    assert "a median is the end of its line" in shown
    rows = [row for silo in SILOS for row in rows_of(silo)]
    ends = np.round(np.floor(np.array([row["paid"] for row in rows]) / 2.5 + 1e-9) * 2.5 + 2.499, 3)
    events, kinds = np.array([row["ok"] for row in rows]), np.array([row["kind"] for row in rows])
    assert (training.ended, training.steps, training.holders) == ("complete", 1, SILOS)
    test = multivariate_logrank_test(ends, kinds, events)
    assert figures(model)["log-rank chi-square"] == pytest.approx(test.test_statistic, rel=1e-9)
    for kind, listing in zip("abc", model.fitted.listings[1:], strict=True):
        fit = KaplanMeierFitter().fit(ends[kinds == kind], events[kinds == kind])
        found = {float(line.name): line.values[2] for line in listing.lines}
        shares = fit.survival_function_["KM_estimate"]
        times = sorted(set(ends[kinds == kind]))
        assert 5 < len(found) <= len(times)
        assert set(found) <= set(times)
        assert found == pytest.approx({time: shares[time] for time in found}, abs=1e-12)
    for part in ("kaplan-meier in loans", "survival of kind = b", "median", "log-rank chi-square"):
        assert part in shown


def test_a_job_without_a_time_or_with_a_label_costs_nothing(tmp_path: Path) -> None:
    label = JOB.replace('table = "loans"\n', 'table = "loans"\nlabel = "grade"\n')
    for place, (job, says) in enumerate(
        (
            (f'{JOB}[columns]\nevent = "ok"\n', "cox needs time"),
            (f"{label}{COLUMNS}", "cox has no label; remove 'grade', and name time and event in [columns]"),
            (f"{JOB}{COLUMNS}".replace('"kind"', '"debt"'), "a column is used twice"),
        )
    ):
        with banks(tmp_path / str(place), job, computations=("cox",)) as (simulation, file):
            with pytest.raises(AnalystError) as caught:
                run(simulation, file)
            assert says in caught.value.message
            assert not simulation.reports


def test_a_cox_run_tells_the_baseline_hazard_in_lines_of_min_cohort_rows(tmp_path: Path) -> None:
    columns = '[columns]\ntime = "paid"\nevent = "ok"\n'
    job = f"{JOB}hazard = 2.5\n{columns}"
    with banks(tmp_path / "f", job, None, ("cox",)) as (simulation, file):
        training = run(simulation, file)
        model, step = the_model(simulation), asked(simulation)[0].plan.training
        assert training.ended == "complete"
        assert isinstance(step, ExactStep)
        assert step.cohort == 10  # the policies' largest, which the job does not name
        file.write_text(job.replace("hazard = 2.5\n", "hazard = 2.5\nmin_cohort = 2\n"))
        with pytest.raises(DeniedError, match="MIN_COHORT"):
            run(simulation, file)
        # Without a hazard there is no group to show, and a run says nothing of a cohort.
        file.write_text(job.replace("hazard = 2.5\n", ""))
        run(simulation, file)
        other = asked(simulation)[-1].plan.training
        assert isinstance(other, ExactStep)
        assert other.cohort is None
        assert [one.name for one in other.options] == ["tolerance"]
    rows = [row for silo in SILOS for row in rows_of(silo)]
    weights = [(line.values[0] or 0.0) for line in model.fitted.listings[0].lines]
    inputs = np.array([[row[name] for name in FEATURES] for row in rows], float)
    risk = np.exp((inputs - inputs.mean(0)) @ weights)
    bins = np.floor(np.array([row["paid"] for row in rows]) / 2.5 + 1e-9).astype(int)
    events = np.array([row["ok"] for row in rows])
    (found,) = [one for one in model.fitted.listings if one.name == "baseline hazard"]
    assert found.headings == ("at risk", "events", "cumulative hazard", "survival")
    places = [int((float(line.name) + 1e-9) // 2.5) for line in found.lines]
    assert len(places) > 5
    before = -math.inf
    for place, line in zip(places, found.lines, strict=True):
        hazard = sum(events[bins == one].sum() / risk[bins >= one].sum() for one in set(bins[bins <= place]))
        assert line.values[2] == pytest.approx(hazard, rel=1e-7)
        assert line.values[3] == pytest.approx(math.exp(-hazard), rel=1e-7)
        assert ((bins > before) & (bins <= place)).sum() >= 10
        assert (bins > place).sum() >= 10 or not (bins > place).any()
        before = place
