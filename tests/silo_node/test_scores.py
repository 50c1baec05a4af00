"""What a model says of each row: the predictions of a fit of the pooled rows, and the labels in the same unit."""

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm

from crypto.errors import ProtocolError
from silo_node.training.family import Examples, State
from silo_node.training.registry import FAMILIES
from tests.harness.families import divided, examples, number, run, task, text, truth
from tests.harness.public_rows import PublicRows, arrests, diabetes, loan_approvals

pytestmark = pytest.mark.slow
TIGHT = "0.000000000001"


def judged(family: str, of: PublicRows) -> tuple[Any, Any]:
    """Return the scores and outcomes of all rows by a model of five silos; labels are not looked at for scores."""
    own = task(family, of.columns, of.label, of.features, tolerance=TIGHT)
    whole = examples(own, of.rows)
    state, _, _ = run(own, divided(whole, 5))
    features = {name: cells for name, cells in whole.cells.items() if name != of.label}
    judge = FAMILIES[family].judged
    assert judge is not None
    found = judge.scores(own, state, Examples(whole.person, features, whole.missing))
    return found, judge.outcomes(own, whole)


def test_scores_are_the_predictions_of_the_pooled_fit() -> None:
    of = diabetes()
    scores, outcomes = judged("linear-regression", of)
    np.testing.assert_allclose(scores, sm.OLS(of.outcome, sm.add_constant(of.inputs)).fit().fittedvalues, rtol=1e-8)
    np.testing.assert_allclose(outcomes, of.outcome, atol=1e-9)
    of = loan_approvals()
    scores, outcomes = judged("logistic-regression", of)
    fit = sm.Logit(of.outcome, sm.add_constant(of.inputs)).fit(disp=0, tol=1e-14, maxiter=50)
    np.testing.assert_allclose(scores, fit.predict(), rtol=1e-8)
    assert (outcomes == of.outcome).all()
    of = arrests()
    scores, outcomes = judged("poisson-regression", of)
    fit = sm.GLM(of.outcome, sm.add_constant(of.inputs), family=sm.families.Poisson()).fit(tol=1e-14)
    np.testing.assert_allclose(scores, fit.fittedvalues, rtol=1e-7)
    np.testing.assert_allclose(outcomes, of.outcome, atol=1e-9)


def test_scores_of_classes_are_probabilities_of_each() -> None:
    of, numbers = diabetes(), np.random.default_rng(5)
    noisy = of.outcome + 60 * numbers.normal(size=len(of.outcome))
    names = np.array(["low", "mid", "high"])[np.digitize(noisy, [100, 180])]
    columns = [*(one for one in of.columns if one.name != of.label), text("level", "low", "mid", "high", "?")]
    rows = {**of.rows, "level": names}
    own = PublicRows(columns, rows, of.features, "level", of.inputs, of.outcome)
    scores, outcomes = judged("multinomial-regression", own)
    standard = (of.inputs - of.inputs.mean(0)) / of.inputs.std(0)
    place = np.searchsorted(["high", "low", "mid"], names)
    fit = sm.MNLogit(np.array([2, 0, 1])[place], sm.add_constant(standard)).fit(disp=0, method="newton")
    np.testing.assert_allclose(scores, fit.predict(), atol=1e-8)
    assert (outcomes == np.array([2, 0, 1])[place]).all()


def test_no_model_scores_no_row() -> None:
    of = loan_approvals()
    own = task("logistic-regression", of.columns, of.label, of.features)
    judge = FAMILIES[own.family].judged
    assert judge is not None
    with pytest.raises(ProtocolError, match="no model stands"):
        judge.scores(own, State(), examples(own, of.rows))


def test_naive_bayes_gives_the_probabilities_of_the_pooled_fit() -> None:
    from sklearn.naive_bayes import GaussianNB

    of = diabetes()
    rows = {**of.rows, "high": (of.outcome > 140).astype(np.int64)}
    columns = [*(one for one in of.columns if one.name != of.label), truth("high")]
    features = tuple(name for name in of.features if name != "f1")  # a number of two values is no normal one
    own = task("naive-bayes", columns, "high", features)
    whole = examples(own, rows)
    state, _, _ = run(own, divided(whole, 4))
    judge = FAMILIES[own.family].judged
    assert judge is not None
    inputs = of.inputs[:, [place for place, name in enumerate(of.features) if name != "f1"]]
    expected = GaussianNB(var_smoothing=0).fit(inputs, rows["high"]).predict_proba(inputs)[:, 1]
    np.testing.assert_allclose(judge.scores(own, state, whole), expected, atol=1e-7)
    assert (judge.outcomes(own, whole) == rows["high"]).all()


def test_cox_gives_the_log_of_hazards_relative_to_mean_features() -> None:
    of, numbers = diabetes(), np.random.default_rng(6)
    rows = {**of.rows, "days": np.rint(of.outcome).astype(np.int64), "died": numbers.integers(0, 2, len(of.outcome))}
    columns = [*(one for one in of.columns if one.name != of.label), number("days", 0, 400), truth("died")]
    own = task("cox", columns, None, of.features, {"time": "days", "event": "died"}, tolerance=TIGHT)
    whole = examples(own, rows)
    state, _, _ = run(own, [whole])
    judge = FAMILIES["cox"].judged
    assert judge is not None
    fit = sm.PHReg(rows["days"], of.inputs, status=rows["died"], ties="efron").fit()
    expected = (of.inputs - of.inputs.mean(0)) @ fit.params
    np.testing.assert_allclose(judge.scores(own, state, whole), expected, atol=1e-6)
    assert (judge.outcomes(own, whole) == rows["died"]).all()
