"""The portable form of a model scores rows as the silo's family does, in every format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats

from policies.models.bayes import Bayes
from policies.models.exporting import exported
from policies.models.forms import scores_of
from policies.models.onnx_form import to_onnx
from policies.models.portable import Portable
from policies.models.scores import RowCells, scores
from policies.requests.families import Task
from silo_node.errors import SiloError
from silo_node.training.family import Examples, State
from silo_node.training.portable import bayes_form, exact_form
from silo_node.training.registry import FAMILIES
from tests.harness import families
from tests.harness.families import number, text, truth

COLUMNS = (
    text("kind", "a", "b", "c", "?"),
    number("debt", 0, 1000, "0.01"),
    number("age", 18, 99),
    truth("owner"),
    number("exposure", -3000, 3000, "0.001"),
    number("paid", -4000, 9000, "0.1"),
    number("visits", 0, 60),
    number("days", 0, 900),
    truth("ok"),
    text("grade", "no", "later", "yes", "?"),
)
FEATURES = ("kind", "debt", "age", "owner")
TASKS: Mapping[str, Mapping[str, Any]] = {
    "linear-regression": {"label": "paid"},
    "ridge-regression": {"label": "paid", "penalty": "2"},
    "logistic-regression": {"label": "ok"},
    "logistic of a text": {"label": "grade", "positive": "later"},
    "multinomial-regression": {"label": "grade"},
    "poisson-regression": {"label": "visits", "parts": {"offset": "exposure"}},
    "with products": {"label": "ok", "interactions": "owner*age; kind*debt"},
    "cox": {"label": None, "parts": {"time": "days", "event": "ok"}},
}


def rows(count: int = 500) -> dict[str, npt.NDArray[Any]]:
    numbers = np.random.default_rng(5)
    debt, age, owner = numbers.integers(0, 1001, count), numbers.integers(18, 100, count), numbers.random(count) < 0.4
    kind, exposure = numbers.choice(["a", "b", "c"], count), numbers.integers(-900, 900, count)
    odds = 1.2 - 0.003 * debt + 0.01 * age + 0.6 * owner + (kind == "b")
    draw = numbers.logistic(size=count)
    return {
        "kind": kind,
        "debt": debt,
        "age": age,
        "owner": owner,
        "exposure": exposure,
        "paid": np.rint(100 * odds + 30 * numbers.normal(size=count)).astype(int),
        "visits": np.minimum(60, numbers.poisson(np.exp(0.4 + 0.001 * debt + exposure / 1000))),
        "days": np.minimum(900, np.rint(300 * numbers.exponential(np.exp(-0.3 * odds)))).astype(int),
        "ok": odds + draw > 0,
        "grade": np.array(["no", "later", "yes"])[np.digitize(odds + draw, (-0.5, 1.0))],
    }


def fitted(what: str, missing: str = "drop") -> tuple[Task, State, Examples]:
    """Return a task, its model, and the rows that it was fitted on, of which some lack cells."""
    given = dict(TASKS[what])
    family = what if what in FAMILIES else "logistic-regression"
    label, parts = given.pop("label"), given.pop("parts", None)
    task = families.task(family, COLUMNS, label, FEATURES, parts, missing=missing, **given)
    found = rows()
    gaps = {} if missing == "drop" else {"debt": np.arange(500) % 7 == 0, "age": np.arange(500) % 11 == 0}
    examples = families.examples(task, found, gaps)
    return task, families.run(task, [examples])[0], examples


CASES = [(what, missing) for what in TASKS for missing in ("drop", "mean", "indicator")]


@pytest.mark.parametrize(("what", "missing"), CASES)
def test_the_form_scores_as_the_family(what: str, missing: str, tmp_path: Path) -> None:
    task, state, examples = fitted(what, missing)
    model = exact_form(task, state)
    judged = FAMILIES[task.family].judged
    assert judged is not None
    expected = judged.scores(task, state, examples)
    found = scores(model, RowCells(examples.cells, examples.missing))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-12 * max(1.0, np.abs(expected).max())
    again = Portable.decode(model.encode())
    assert np.array_equal(scores(again, RowCells(examples.cells, examples.missing)), found)
    natural = json.loads(exported(model, "json"))
    assert (natural["schema"], natural["model"]) == ("consilo-model/1", task.family)
    assert len(to_onnx(model)) > 500  # it was compared with the scores, or nothing would be returned


def test_a_model_that_is_too_large_for_a_form_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    task, state, _ = fitted("poisson-regression")
    for name, most in (("MAX_COMMAS", 30), ("MAX_BYTES", 500)):
        with monkeypatch.context() as patched:
            patched.setattr(Portable, name, most)
            with pytest.raises(SiloError, match="numbers the model is too large to be released or exported, and stays"):
                exact_form(task, state)


@pytest.mark.parametrize("what", ["poisson-regression", "with products"])
def test_coefficients_in_the_columns_units_are_those_that_owners_see(what: str) -> None:
    task, state, _ = fitted(what)
    (found,) = exact_form(task, state).coefficients()
    shown = {line.name: line.values[0] for line in FAMILIES[task.family].finish(task, state).listings[0].lines}
    assert found.keys() == shown.keys()
    for name, value in shown.items():
        assert found[name] == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize("missing", ["drop", "skip"])
@pytest.mark.parametrize(("label", "cohort"), [("grade", "2"), ("ok", "2"), ("grade", "150")])
def test_naive_bayes_scores_by_its_densities_and_shares_in_every_format(label: str, missing: str, cohort: str) -> None:
    task = families.task("naive-bayes", COLUMNS, label, FEATURES, missing=missing, min_cohort=cohort)
    found = rows()
    is_gap = np.arange(500) % 7 == 0, np.arange(500) % 13 == 0
    gaps = {} if missing == "drop" else {"debt": is_gap[0], "owner": is_gap[1]}
    examples = families.examples(task, found, gaps)
    state = families.run(task, [examples])[0]
    model = bayes_form(task, state)
    judged = FAMILIES["naive-bayes"].judged
    assert judged is not None
    cells = RowCells(examples.cells, examples.missing)
    assert np.array_equal(scores_of(model, cells), judged.scores(task, state, examples))
    # The same by scipy and by hand, of the rows themselves.
    groups = list(task.groups)
    of = np.array([groups.index(str(one)) for one in found["grade"]]) if label == "grade" else found["ok"].astype(int)
    sizes = np.bincount(of, minlength=len(groups))
    shown = [place for place in range(len(groups)) if sizes[place] >= int(cohort)]
    assert len(shown) == len(groups) - (cohort == "150")
    logs = np.full((500, len(groups)), -np.inf)
    for place in shown:
        own = of == place
        logs[:, place] = np.log(own.sum() / sizes[shown].sum())
        for name, values in (("debt", found["debt"] / 100), ("age", found["age"].astype(float))):
            there = np.ones(500, bool) if name not in gaps else ~gaps[name]
            normal = scipy.stats.norm(values[own & there].mean(), values[own & there].std())
            logs[:, place] += np.where(there, normal.logpdf(values), 0)
        for name, count in (("kind", 4), ("owner", 2)):
            there = np.ones(500, bool) if name not in gaps else ~gaps[name]
            share = [((found[name] == value) & own & there).sum() + 1 for value in found_values(name)]
            each = np.log(np.array(share) / ((own & there).sum() + count))
            places = [found_values(name).index(value) for value in found[name]]
            logs[:, place] += np.where(there, each[places], 0)
    expected = np.exp(logs - logs.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    assert scores_of(model, cells) == pytest.approx(expected if label == "grade" else expected[:, 1], abs=1e-10)
    assert Bayes.decode(model.encode()) == model
    assert json.loads(exported(model, "json"))["schema"] == "consilo-bayes/1"
    assert len(to_onnx(model)) > 500  # it was compared with the scores, or nothing would be returned


def found_values(name: str) -> list[Any]:
    return ["a", "b", "c", "?"] if name == "kind" else [False, True]


def test_naive_bayes_of_too_few_rows_has_no_form() -> None:
    task = families.task("naive-bayes", COLUMNS, "grade", FEATURES, min_cohort="400")
    state = families.run(task, [families.examples(task, rows())])[0]
    with pytest.raises(SiloError, match="ended without a model"):
        bayes_form(task, state)
