"""The commands for models, at a silo and at the analyst: the same model says the same of the same rows."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

import analyst.cli.main
import silo_node.owner.cli
from policies.models.scores import RowCells
from policies.requests.exact import FamilyStep
from silo_node.training.exact import kept_state
from silo_node.training.family import Examples
from silo_node.training.registry import FAMILIES
from silo_node.training.run import RunState
from tests.harness.families import examples
from tests.rounds.test_exact_families import SILOS, banks, job_of, pooled, run
from tests.rounds.test_released_models import OPEN, TO_ANALYST
from tests.rounds.test_training import models

pytestmark = pytest.mark.slow
KEPT = ("[training]", "[retention]\nresults_days = 100\n[training]")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunState]:
    """A run of five banks whose model the analyst has, after the federation has ended."""
    path = tmp_path_factory.mktemp("trained") / "f"
    change = (OPEN[0], OPEN[1])
    with banks(path, job_of("logistic-regression", "ok", TO_ANALYST), change=change) as (simulation, file):
        run(simulation, file)
        state = models(simulation)["north"]
    for silo in SILOS:
        policy = path / "silos" / silo / "policy.toml"
        policy.write_text(policy.read_text().replace(*KEPT))
    with (path / "new.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["owner", "kind", "name", "debt", "age"])
        for row in pooled():
            writer.writerow([row["owner"], row["kind"], 'Ann, "A"', row["debt"], row["age"]])
    return path, state


def owner(path: Path, *words: str) -> int:
    place = ("--policy", str(path / "silos" / "north" / "policy.toml"))
    return silo_node.owner.cli.main(["models", *words, *place])


def ana(path: Path, *words: str) -> int:
    return analyst.cli.main.main(["model", *words, "--federation", str(path / "consilo.toml")])


def test_the_owner_lists_and_shows_what_is_known_of_a_run(
    trained: tuple[Path, RunState], capsys: pytest.CaptureFixture[str]
) -> None:
    path, state = trained
    name = state.run.hex()
    assert owner(path, "list") == 0
    shown = capsys.readouterr().out
    assert f"{name[:12]}  logistic-regression of ok, for lending, asked by ana" in shown
    assert re.search(r"7 of 25 rounds, complete, 5 silos, without noise, [0-9,]+ bytes, erased after 20", shown)
    assert owner(path, "list", "--format", "json") == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["silos"] == dict.fromkeys(SILOS, 7)
    assert [one["rounds"] for one in listed["policies"]] == [[1, 7]]
    assert listed["policies"][0]["sha256"].keys() == set(SILOS)
    assert (listed["price"], listed["end"], listed["features"]) == (None, "complete", ["kind", "debt", "age", "owner"])
    assert owner(path, "show", name[:8]) == 0
    shown = capsys.readouterr().out
    for part in (
        "standard error",
        "kind = b",
        "east: in 7 rounds",
        f"sha256 {listed['sha256']}",
        "figures go to the analyst alone",
    ):
        assert part in shown
    assert ana(path, "show", name[:8]) == 0
    assert f"sha256 {listed['sha256']}" in capsys.readouterr().out


def test_the_analyst_lists_runs_with_their_days(
    trained: tuple[Path, RunState], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = trained
    assert ana(path, "list") == 0
    shown = capsys.readouterr().out
    day = r"of 20\d\d-\d\d-\d\d"
    assert re.search(f"{day}, 7 of 25 rounds, complete, 5 silos, without noise, released to you", shown)


def test_a_name_of_no_run_says_where_the_names_are(
    trained: tuple[Path, RunState], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = trained
    for command, hint in ((owner, "consilo-silo models list"), (ana, "consilo model list")):
        assert command(path, "show", "fade00") == 1
        assert hint in capsys.readouterr().err
        assert command(path, "show", "") == 1
        capsys.readouterr()
    assert silo_node.owner.cli.main(["models"]) == 1
    assert "--policy is missing" in capsys.readouterr().err


def test_silo_and_analyst_score_rows_as_the_family_does(
    trained: tuple[Path, RunState], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, state = trained
    assert owner(path, "predict", state.run.hex(), str(path / "new.csv"), "--out", str(tmp_path / "own.csv")) == 0
    assert "350 of 350 rows have a score" in capsys.readouterr().out
    assert ana(path, "predict", state.run.hex()[:6], str(path / "new.csv")) == 0
    text = capsys.readouterr().out
    assert (tmp_path / "own.csv").read_text() == text
    found = np.array([float(row["score"]) for row in csv.DictReader(text.splitlines())])
    assert state.record is not None
    assert state.record.plan.training is not None
    task = state.record.plan.task(state.record.table)  # type: ignore[union-attr]
    cells = {
        "kind": np.array([row["kind"] for row in pooled()]),
        "debt": np.array([round(row["debt"] * 100) for row in pooled()]),
        "age": np.array([row["age"] for row in pooled()]),
        "owner": np.array([row["owner"] for row in pooled()]),
        "ok": np.array([row["ok"] for row in pooled()]),
    }
    judged = FAMILIES[task.family].judged
    assert judged is not None
    expected = judged.scores(task, kept_state(state, task), examples(task, cells))
    assert np.abs(found - expected).max() <= 1e-12


def test_a_row_without_a_needed_cell_has_no_score_and_a_bad_cell_is_named(
    trained: tuple[Path, RunState], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, state = trained
    file = tmp_path / "rows.csv"
    file.write_text("kind,debt,age,owner\na,2.5,40,yes\nnever seen,,40,no\n,99,40, 1 \n")
    for command in (owner, ana):
        assert command(path, "predict", state.run.hex(), str(file)) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(",")[0] for line in lines] == ["row", "1", "2", "3"]
        assert lines[2] == "2,"
        file.write_text(file.read_text().replace("2.5", "two"))
        assert command(path, "predict", state.run.hex(), str(file)) == 1
        said = capsys.readouterr().err
        assert "line 2, column 'debt': found 'two', expected a number such as 12.5" in said
        file.write_text(file.read_text().replace("two", "2.5"))
    file.write_text("kind,debt,age\na,2.5,40\n")
    assert ana(path, "predict", state.run.hex(), str(file)) == 1
    assert "has no column 'owner', expected kind, debt, age, owner" in capsys.readouterr().err


def test_a_model_is_exported_as_json_and_onnx(
    trained: tuple[Path, RunState], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, state = trained
    for form in ("json", "onnx"):
        for command, name in ((owner, "own"), (ana, "ana")):
            out = tmp_path / f"{name}.{form}"
            assert command(path, "export", state.run.hex(), "--format", form, "--out", str(out)) == 0
            assert f"{out}: logistic-regression" in capsys.readouterr().out
        assert (tmp_path / f"own.{form}").read_bytes() == (tmp_path / f"ana.{form}").read_bytes()
    model = json.loads((tmp_path / "own.json").read_text())
    assert (model["schema"], model["link"], model["label"]) == ("consilo-model/1", "logistic", "ok")
    assert set(model["coefficients"][0]) == {"(intercept)", "kind = b", "kind = c", "debt", "age", "owner"}


def test_a_card_is_one_file_without_scripts_and_links(
    trained: tuple[Path, RunState], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, state = trained
    for command, name in ((owner, "own"), (ana, "ana")):
        page, data = tmp_path / f"{name}.html", tmp_path / f"{name}.json"
        for file in (page, data):
            assert command(path, "show", state.run.hex(), "--card", str(file)) == 0
        text = page.read_text()
        assert not re.search(r"<script|https?:|src=|href=|url\(", text)
        for part in ("lending", "logistic regression of ok", "0 to 10, in steps of 0.01", "kind = b", "Audit", "none"):
            assert part in text
        card = json.loads(data.read_text())
        assert (card["schema"], card["purpose"], card["silos"]["west"]) == ("consilo-model-card/1", "lending", 7)
        assert (card["metrics"], card["audit"]) == ([], [])
        assert "No audit by group is known here." in card["limits"]
        assert card["sha256"] in text
    capsys.readouterr()
    assert ana(path, "show", state.run.hex(), "--card", str(tmp_path / "card.pdf")) == 1
    assert "neither .html nor .json" in capsys.readouterr().err


def test_naive_bayes_is_exported_and_predicts_as_its_family_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, file = tmp_path / "f", tmp_path / "new.csv"
    job = job_of("naive-bayes", "grade", f'{TO_ANALYST}[options]\nmissing = "skip"\n')
    with banks(path, job, computations=("naive-bayes",), change=OPEN) as (simulation, job_file):
        assert run(simulation, job_file).has_model
        state = models(simulation)["north"]
    file.write_text("kind,debt,age,owner\na,2.5,40,yes\nb,,40,no\n")
    assert owner(path, "predict", state.run.hex(), str(file)) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "row,no,later,yes"
    found = np.array([[float(one) for one in line.split(",")[1:]] for line in lines])
    assert state.record is not None
    plan = state.record.plan
    assert isinstance(plan, FamilyStep)
    task = plan.task(state.record.table)
    cells = {"kind": np.array([0, 1]), "debt": np.array([-500, 0]), "age": np.array([-37, -37])}
    rows = RowCells(cells | {"owner": np.array([1, -1])}, {"debt": np.array([False, True])})
    judged = FAMILIES["naive-bayes"].judged
    assert judged is not None
    own = Examples(np.arange(rows.rows), rows.cells, rows.missing)
    assert np.abs(found - judged.scores(task, kept_state(state, task), own)).max() <= 1e-12
    assert found.sum(1) == pytest.approx([1, 1])
    assert ana(path, "predict", state.run.hex(), str(file)) == 0
    assert capsys.readouterr().out.splitlines() == [head, *lines]
    for form in ("json", "onnx"):
        for command, name in ((owner, "own"), (ana, "ana")):
            out = tmp_path / f"{name}.{form}"
            assert command(path, "export", state.run.hex(), "--format", form, "--out", str(out)) == 0
            assert f"{out}: naive-bayes" in capsys.readouterr().out
        assert (tmp_path / f"own.{form}").read_bytes() == (tmp_path / f"ana.{form}").read_bytes()
    model = json.loads((tmp_path / "own.json").read_text())
    assert (model["schema"], model["label"], model["classes"]) == ("consilo-bayes/1", "grade", ["no", "later", "yes"])
    assert [one["column"]["name"] for one in model["numbers"]] == ["debt", "age"]
    assert ana(path, "show", state.run.hex()) == 0
    assert "shares of values" in capsys.readouterr().out
