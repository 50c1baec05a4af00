"""A model judged across silos in memory: what scikit-learn says of the pooled rows, opened by the analyst alone."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn import metrics as of_sklearn

import analyst.cli.main
import analyst.client
import silo_node.owner.cli
from analyst.errors import AnalystError, DeniedError
from analyst.training.evaluation import (
    Evaluated,
    Judged,
    evaluate,
    evaluation_of,
    show_evaluation,
    to_csv,
    to_json,
)
from analyst.training.registry import Registry, RunEntry
from policies.requests.evaluation import Evaluation
from policies.requests.held_out import HeldOut
from policies.requests.metrics import OF_PREDICTION
from policies.requests.scores import FINE
from silo_node.data.sides import held_out_of
from tests.harness.simulator import Simulation
from tests.rounds.test_exact_families import FEATURES, SILOS, TIGHT, banks, design, job_of, pooled, rows_of, run
from tests.rounds.test_held_out import WITH_EVALUATION, secret_of

pytestmark = pytest.mark.slow

METRICS = 'release = ["model"]', 'release = ["model", "metrics"]'
OPEN = 'release = ["model"]', 'release = ["model", "metrics"]\nown_metrics = true'
JOB = job_of("logistic-regression", "ok", TIGHT)


def entry_of(simulation: Simulation) -> RunEntry:
    return Registry(simulation.federation.config.path.parent).entries()[-1]


def judged(simulation: Simulation, **options: Any) -> Evaluated:
    entry = entry_of(simulation)
    return evaluate(simulation.federation, entry, evaluation_of(simulation.federation, entry, **options))


def by_name(found: Judged) -> dict[str, float]:
    return {one.name: one.value for one in found.metrics if one.value is not None}


def scores(rows: Sequence[dict[str, Any]], learned: Sequence[dict[str, Any]]) -> tuple[Any, Any]:
    """Return the chances that a fit of some rows gives to others, and what is true of them."""
    truth = [np.array([row["ok"] for row in of], float) for of in (learned, rows)]
    fit = sm.Logit(truth[0], design(learned)).fit(disp=0, tol=1e-14)
    return fit.predict(design(rows)), truth[1]


def is_sklearns(found: Judged, chances: Any, truth: Any) -> None:
    own = by_name(found)
    assert found.rows == len(truth)
    assert own["accuracy"] == pytest.approx(of_sklearn.accuracy_score(truth, chances > 0.5), abs=1e-12)
    places = FINE.places(chances)  # few rows are held out, and one bin holds several: their pairs count as half
    assert own["auc"] == pytest.approx(of_sklearn.roc_auc_score(truth, places), abs=1e-12)
    assert own["average-precision"] == pytest.approx(of_sklearn.average_precision_score(truth, places), abs=1e-12)
    assert own["log-loss"] == pytest.approx(of_sklearn.log_loss(truth, chances), abs=1e-7)
    assert own["brier"] == pytest.approx(of_sklearn.brier_score_loss(truth, chances), abs=1e-8)
    bins = np.minimum((chances * 10).astype(int), 9)
    for one, place in zip(found.calibration, np.unique(bins), strict=True):
        mask = bins == place
        assert one.rows == mask.sum()
        assert one.share == pytest.approx(truth[mask].mean())
        assert one.score == pytest.approx(chances[mask].mean(), abs=1e-8)


def test_a_logistic_model_is_judged_by_who_was_held_out(tmp_path: Path) -> None:
    job = f"{JOB}[held_out]\nshare = 0.3\n"
    with banks(tmp_path / "f", job, computations=WITH_EVALUATION, change=OPEN) as (simulation, file):
        run(simulation, file)
        found = judged(simulation, has_own=True)
        is_out = held_out_of(secret_of(simulation), [row["id"] for row in pooled()], 300)
        entry = entry_of(simulation)
        assert {one.name for one in entry.metrics} == set(OF_PREDICTION["chance"]) - {"calibration"}
        assert (simulation.spent("east"), found.epsilon) == (0, None)
    rows = pooled()
    held = [row for row, out in zip(rows, is_out, strict=True) if out]
    chances, truth = scores(held, [row for row, out in zip(rows, is_out, strict=True) if not out])
    is_sklearns(found.judged, chances, truth)
    assert found.silos == SILOS
    assert set(found.own) == set(SILOS)
    for silo, own in found.own.items():
        mask = np.array([row["id"].startswith(silo) for row in held])
        assert own.rows == mask.sum()
        assert by_name(own)["accuracy"] == pytest.approx(((chances > 0.5) == truth)[mask].mean())
        assert ("auc" in by_name(own)) == (len(set(truth[mask])) == 2)
    east = next(one for one in found.own["east"].metrics if one.name == "auc")
    assert east.value is None  # all of the east pay back
    told = "\n".join(show_evaluation(found))
    for part in (
        "logistic-regression of ok in loans",
        "0.3 of all persons",
        "accuracy",
        "east alone",
        "not told by these",
    ):
        assert part in told
    assert json.loads(to_json(found))["judged"]["rows"] == len(held)
    assert to_csv(found).splitlines()[0] == "silo,rows,metric,value,low,high"
    assert len(to_csv(found).splitlines()) == 1 + 5 * 6


def test_who_opens_no_metrics_refuses_before_rows_are_read(tmp_path: Path) -> None:
    with banks(tmp_path / "f", JOB, computations=WITH_EVALUATION) as (simulation, file):
        run(simulation, file)
        for silo in SILOS:
            (tmp_path / "f" / "silos" / silo / "loans.parquet").unlink()
        with pytest.raises(DeniedError, match=r"RELEASE.*metrics of a model may not leave"):
            judged(simulation)


def test_figures_of_one_silo_are_its_own_to_open(tmp_path: Path) -> None:
    with banks(tmp_path / "f", JOB, computations=WITH_EVALUATION, change=METRICS) as (simulation, file):
        run(simulation, file)
        entry = entry_of(simulation)
        request = evaluation_of(simulation.federation, entry, has_own=True)
        assert request.plan.judged is not None
        assert request.plan.judged.own == ()  # no catalogue says that they are open
        model = request.plan.judged.model_copy(update={"own": ("north",)})
        other = request.model_copy(update={"plan": request.plan.model_copy(update={"model": model})})
        found = evaluate(simulation.federation, entry, other)
        assert "north" not in found.silos  # it refuses, and the others go on
        is_sklearns(found.judged, *scores([row for row in pooled() if not row["id"].startswith("north")], pooled()))


def test_other_metrics_and_other_definitions_are_refused(tmp_path: Path) -> None:
    with banks(tmp_path / "f", JOB, computations=WITH_EVALUATION, change=METRICS) as (simulation, file):
        run(simulation, file)
        entry = entry_of(simulation)
        with pytest.raises(AnalystError, match="logistic-regression of ok has no rmse; it has accuracy, auc"):
            evaluation_of(simulation.federation, entry, metrics=("rmse",))
        with pytest.raises(AnalystError, match="unknown table"):
            evaluation_of(simulation.federation, entry, table="visits")
        request = evaluation_of(simulation.federation, entry)
        columns = [one.model_copy(update={"high": 500}) if one.name == "debt" else one for one in request.table.columns]
        other = request.model_copy(update={"table": request.table.model_copy(update={"columns": tuple(columns)})})
        with pytest.raises(DeniedError, match=r"RUN_POSITION.*other columns, definitions or options"):
            evaluate(simulation.federation, entry, other)
        moved = entry.model_copy(update={"position": bytes([7] * 32)})
        with pytest.raises(DeniedError, match=r"RUN_POSITION.*another one last than is judged"):
            evaluate(simulation.federation, moved, evaluation_of(simulation.federation, moved))


def test_classes_and_numbers_are_judged_as_scikit_learn_judges_them(tmp_path: Path) -> None:
    computations = (*WITH_EVALUATION, "naive-bayes")
    job = job_of("multinomial-regression", "grade", TIGHT)
    with banks(tmp_path / "f", job, computations=computations, change=METRICS) as (simulation, file):
        run(simulation, file)
        of_classes = by_name(judged(simulation).judged)
        file.write_text(job_of("linear-regression", "paid", TIGHT))
        run(simulation, file)
        of_numbers = by_name(judged(simulation).judged)
        file.write_text(job_of("poisson-regression", "visits", TIGHT))
        run(simulation, file)
        of_counts = by_name(judged(simulation).judged)
    rows = pooled()
    names = ("no", "later", "yes")
    grades = np.array([names.index(row["grade"]) for row in rows])
    centred = design(rows)[:, 1:]
    standard = sm.add_constant((centred - centred.mean(0)) / centred.std(0))
    chances = sm.MNLogit(grades, standard).fit(disp=0, method="newton").predict()
    assert of_classes["accuracy"] == pytest.approx((chances.argmax(1) == grades).mean(), abs=1e-9)
    assert of_classes["log-loss"] == pytest.approx(of_sklearn.log_loss(grades, chances), abs=1e-7)
    assert of_classes["auc"] == pytest.approx(of_sklearn.roc_auc_score(grades, chances, multi_class="ovr"), abs=0.002)
    paid = np.array([row["paid"] for row in rows])
    fit = sm.OLS(paid, design(rows)).fit()
    assert of_numbers["rmse"] == pytest.approx(np.sqrt(((paid - fit.fittedvalues) ** 2).mean()), rel=1e-4)
    assert of_numbers["mae"] == pytest.approx(np.abs(paid - fit.fittedvalues).mean(), rel=1e-5)
    assert of_numbers["r2"] == pytest.approx(fit.rsquared, abs=1e-3)
    visits = np.array([row["visits"] for row in rows], float)
    counts = sm.GLM(visits, design(rows), family=sm.families.Poisson()).fit(tol=1e-14)
    assert of_counts["rmse"] == pytest.approx(np.sqrt(((visits - counts.fittedvalues) ** 2).mean()), rel=1e-5)
    assert set(FEATURES) == {"kind", "debt", "age", "owner"}
    assert len(rows_of("east")) < len(rows)


def test_the_command_tells_the_last_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "f"
    with banks(home, JOB, computations=WITH_EVALUATION, change=METRICS) as (simulation, file):
        run(simulation, file)
        monkeypatch.setattr(analyst.client, "started", lambda config, progress=None: nullcontext(simulation))
        asked = ["model", "evaluate", "--federation", str(home / "consilo.toml"), "--metric", "auc"]
        assert analyst.cli.main.main(asked) == 0
        assert "  auc                0." in capsys.readouterr().out
        assert analyst.cli.main.main([*asked, "--metric", "accuracy", "--format", "json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [one["name"] for one in told["judged"]["metrics"]] == ["accuracy", "auc"]
        assert analyst.cli.main.main([*asked, "--format", "csv", "--out", str(tmp_path / "auc.csv")]) == 0
        assert (tmp_path / "auc.csv").read_text().splitlines()[1].startswith(f",{len(pooled())},auc,0.")
        sent = len(simulation.silos["east"].seen)
        assert analyst.cli.main.main([*asked, "--preview"]) == 0
        told = capsys.readouterr().out
        assert "price: none" in told
        assert "nobody would refuse it now" in told
        assert all(step.endswith(" catalogue") for step, _ in simulation.silos["east"].seen[sent:])
        assert analyst.cli.main.main([*asked, "--preview", "--format", "csv"]) == 1
        assert "take --format text or json" in capsys.readouterr().err
        assert analyst.cli.main.main([*asked, "--own"]) == 0
        assert "not judged alone, as their policies lack own_metrics = true" in capsys.readouterr().err
        assert analyst.cli.main.main([*asked, "--epsilon", "1"]) == 3
        assert "the source is exact, the request is private" in capsys.readouterr().err
        request = evaluation_of(simulation.federation, entry_of(simulation))
        with pytest.raises(ValueError, match="whom its own run held out"):
            Evaluation.model_validate(dict(request.plan) | {"held_out": HeldOut(column="owner")})


def test_a_run_without_a_maximum_has_no_model_to_judge_and_every_command_says_what_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {silo: [row | {"owner": row["ok"]} for row in rows_of(silo)] for silo in SILOS}
    both = ('release = ["model"]', 'release = ["model", "metrics", "model-to-analyst"]')
    to_analyst = 'recipients = ["silos", "analyst"]\n'
    job = job_of("logistic-regression", "ok", to_analyst) + '[held_out]\nshare = 0.3\n[metric]\nname = "auc"\n'
    path, remedy = tmp_path / "f", "train anew without the feature"
    with banks(path, job, rows, WITH_EVALUATION, change=both) as (simulation, file):
        training = run(simulation, file)  # its metric is not asked for once it has no model
        assert training.ended == "no-maximum"
        assert not training.rounds[-1].figures
        entry = entry_of(simulation)
        with pytest.raises(AnalystError, match=r"ended without a model \(no-maximum\)") as told:
            evaluation_of(simulation.federation, entry)
        assert remedy in told.value.hint
        # A silo says the same to an analyst whose own entry has not noted the end.
        request = evaluation_of(simulation.federation, entry.model_copy(update={"is_finished": False}))
        with pytest.raises(DeniedError, match="the run has ended without a model") as denied:
            evaluate(simulation.federation, entry, request)
        assert remedy in denied.value.hint
    (path / "new.csv").write_text("kind,debt,age,owner\na,2.5,40,yes\n")
    place = ("--federation", str(path / "consilo.toml"))
    own = ("--policy", str(path / "silos" / "north" / "policy.toml"))
    for words in (
        ["predict", entry.name, str(path / "new.csv")],
        ["export", entry.name, "--out", str(path / "m.json")],
    ):
        for command, program in (
            (["model", *words, *place], analyst.cli.main.main),
            (["models", *words, *own], silo_node.owner.cli.main),
        ):
            assert program(command) == 1
            said = capsys.readouterr().err
            assert "ended without a model" in said
            assert remedy in said
    assert not (path / "m.json").exists()
