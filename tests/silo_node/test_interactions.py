"""Products of features: the coefficients and effects of statsmodels' formulas on the pooled rows."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from silo_node.training.family import Fitted, Listing
from tests.cases import every
from tests.harness.families import divided, examples, number, run, task, text, truth

pytestmark = pytest.mark.slow
TIGHT = "0.000000000001"
COLUMNS = [
    number("age", 400, 900, "0.1"),
    number("dose", 0, 50),
    truth("treated"),
    text("ward", "a", "b", "c", "?"),
    number("score", -2000, 4000, "0.01"),
    truth("died"),
    number("visits", 0, 60),
    text("grade", "low", "mid", "high", "?"),
    number("days", 0, 4000),
]


def people() -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return 600 rows in the columns' units, and as a silo has them."""
    numbers, count = np.random.default_rng(11), 600
    age, dose = numbers.integers(400, 901, count), numbers.integers(0, 51, count)
    treated, ward = numbers.integers(0, 2, count), numbers.choice(list("abc"), count)
    signal = 0.02 * age / 10 - 0.9 * treated + 0.015 * treated * age / 10 + (ward == "b") * (0.4 - 0.6 * treated)
    score = np.clip(np.rint(100 * (signal + numbers.normal(0, 1, count))), -2000, 4000).astype(int)
    rows = {
        "age": age,
        "dose": dose,
        "treated": treated,
        "ward": ward,
        "score": score,
        "died": (numbers.random(count) < 1 / (1 + np.exp(1 - signal))).astype(int),
        "visits": numbers.poisson(np.exp(signal / 2)).clip(0, 60),
        "grade": np.array(["low", "mid", "high"])[np.digitize(signal + numbers.normal(0, 1, count), [0.6, 1.6])],
        "days": np.rint(numbers.exponential(np.exp(5 - signal), count)).clip(0, 4000).astype(int),
    }
    frame = pd.DataFrame(rows).assign(age=age / 10, score=score / 100)
    return frame, rows


def fitted(family: str, label: str | None, features: tuple[str, ...], parts: Any = None, **options: Any) -> Fitted:
    """Return what four silos see of a model of these rows."""
    own = task(family, COLUMNS, label, features, parts, tolerance=TIGHT, **options)
    return run(own, divided(examples(own, people()[1]), 4))[1]


def listing(of: Fitted, name: str) -> dict[str, Any]:
    (found,) = [one for one in of.listings if one.name == name]
    assert isinstance(found, Listing)
    return {line.name: line.values for line in found.lines}


def assert_same(found: dict[str, Any], fit: Any, names: dict[str, str]) -> None:
    """Compare coefficients, errors and p by statsmodels' names for them."""
    assert set(found) == set(names)
    for own, other in names.items():
        expected = (fit.params[other], fit.bse[other], fit.pvalues[other])
        for value, right in zip((found[own][0], found[own][1], found[own][3]), expected, strict=True):
            assert abs(value - right) <= 1e-8 * max(1, abs(right)), (own, value, right)


NAMES = {
    "(intercept)": "Intercept",
    "age": "age",
    "treated": "treated",
    "ward = b": "C(ward)[T.b]",
    "ward = c": "C(ward)[T.c]",
    "treated * age": "treated:age",
    "treated * ward = b": "treated:C(ward)[T.b]",
    "treated * ward = c": "treated:C(ward)[T.c]",
}
FEATURES = ("age", "treated", "ward")
PAIRS = "treated*age; treated*ward"


def fit_of(family: str) -> Any:
    frame = people()[0]
    if family == "linear-regression":
        return smf.ols("score ~ age + treated + C(ward) + treated:age + treated:C(ward)", frame).fit()
    kind = sm.families.Binomial() if family == "logistic-regression" else sm.families.Poisson()
    label = "died" if family == "logistic-regression" else "visits"
    formula = f"{label} ~ age + treated + C(ward) + treated:age + treated:C(ward)"
    return smf.glm(formula, frame, family=kind).fit(tol=1e-15, maxiter=100)


@every(
    "family, label", [("linear-regression", "score"), ("logistic-regression", "died"), ("poisson-regression", "visits")]
)
def test_coefficients_and_effects_are_those_of_the_formula(family: str, label: str) -> None:
    fit = fit_of(family)
    of = fitted(family, label, FEATURES, interactions=PAIRS, at="age 45 60.5 80")
    assert_same(listing(of, "coefficients"), fit, NAMES)
    effects = listing(of, "effects at values")
    frame = people()[0]
    shares = {f"treated:C(ward)[T.{ward}]": (frame["ward"] == ward).mean() for ward in "bc"}
    for age in (45, 60.5, 80):
        contrast = {"treated": 1.0, "treated:age": age, **shares}
        check_effect(effects[f"treated at age = {age:g}"], fit, contrast)
    mean = frame["age"].mean()
    for ward in "abc":
        inside = {f"treated:C(ward)[T.{one}]": float(one == ward) for one in "bc"}
        check_effect(effects[f"treated at ward = {ward}"], fit, {"treated": 1.0, "treated:age": mean, **inside})
    assert len(effects) == 7  # the domain's unknown value is one of the wards


def check_effect(found: Any, fit: Any, contrast: dict[str, float]) -> None:
    """Compare an effect, its error and its interval with statsmodels' test of the same contrast."""
    row = np.array([contrast.get(name, 0.0) for name in fit.params.index])
    expected = fit.t_test(row)
    (low, high), *_ = expected.conf_int()
    for value, right in zip((found[0], found[1], found[4], found[5]),
                            (expected.effect[0], expected.sd[0][0], low, high), strict=True):  # fmt: skip
        assert abs(value - right) <= 1e-8 * max(1, abs(right))


def test_effects_of_a_number_are_told_about_its_mean() -> None:
    frame = people()[0]
    of = fitted("linear-regression", "score", ("dose", "age"), interactions="dose*age")
    fit = smf.ols("score ~ dose + age + dose:age", frame).fit()
    assert_same(
        listing(of, "coefficients"), fit,
        {"(intercept)": "Intercept", "dose": "dose", "age": "age", "dose * age": "dose:age"},
    )  # fmt: skip
    mean, deviation = frame["age"].mean(), frame["age"].std(ddof=0)
    effects = list(listing(of, "effects at values").items())
    for (name, found), age in zip(effects, (mean - deviation, mean, mean + deviation), strict=True):
        assert name == f"dose at age = {age:.6g}"
        check_effect(found, fit, {"dose": 1.0, "dose:age": age})


def test_classes_and_hazards_have_interactions_too() -> None:
    frame = people()[0]
    of = fitted("multinomial-regression", "grade", ("age", "treated"), interactions="treated*age", at="age 60")
    place = frame["grade"].map({"low": 0, "mid": 1, "high": 2})
    inputs = sm.add_constant(np.column_stack([frame.age - 60, frame.treated, frame.treated * (frame.age - 60)]))
    fit = sm.MNLogit(place, inputs).fit(disp=0, method="newton", tol=1e-14, maxiter=60)
    effects = listing(of, "effects at values")
    for output, name in enumerate(("mid", "high")):  # at 60, the centred column leaves the effect of the treatment
        found = effects[f"{name}: treated at age = 60"]
        assert found[:2] == pytest.approx((fit.params.iloc[2, output], fit.bse.iloc[2, output]), abs=1e-8)
    parts = {"time": "days", "event": "died"}
    of = fitted("cox", None, ("age", "treated"), parts, interactions="treated*age", at="age 60")
    own = task(
        "cox", COLUMNS, None, ("age", "treated"), parts, tolerance=TIGHT, interactions="treated*age", at="age 60"
    )
    of = run(own, [examples(own, people()[1])])[1]  # one stratum
    cox = sm.PHReg(frame.days, inputs[:, 1:], status=frame.died, ties="efron").fit()
    found = listing(of, "effects at values")["treated at age = 60"]
    assert found[:2] == pytest.approx((cox.params[1], cox.bse[1]), abs=1e-7)


def test_a_product_of_what_is_the_same_in_all_rows_is_dropped() -> None:
    frame, rows = people()
    rows = {**rows, "treated": np.ones(len(frame), int)}
    own = task("linear-regression", COLUMNS, "score", ("age", "treated"), interactions="treated*age", at="age 50")
    of = run(own, [examples(own, rows)])[1]
    assert set(listing(of, "coefficients")) == {"(intercept)", "age"}
    assert listing(of, "effects at values") == {}
    assert "dropped: treated * age follows from the columns before it" in of.notes


def test_a_missing_cell_of_a_factor_is_the_mean_of_the_product() -> None:
    frame, rows = people()
    own = task("linear-regression", COLUMNS, "score", ("age", "treated"), missing="mean", interactions="treated*age")
    gap = np.random.default_rng(2).random(len(frame)) < 0.2
    whole = examples(own, rows, {"age": gap})
    of = run(own, divided(whole, 3))[1]
    centred = frame.age.where(~gap, frame.age[~gap].mean())
    both = (frame.treated * frame.age).where(~gap)
    # Products are of (value - middle of the bounds), so the mean of the missing ones is that of those.
    middle = (frame.treated - 0.5) * (frame.age - 65)
    product = middle.where(~gap, middle[~gap].mean())
    assert both.isna().sum() == gap.sum()
    fit = sm.OLS(frame.score, sm.add_constant(np.column_stack([centred, frame.treated, product]))).fit()
    found = listing(of, "coefficients")["treated * age"]
    assert found[:2] == pytest.approx((fit.params.iloc[3], fit.bse.iloc[3]), abs=1e-8)


@every(
    "options, message",
    [
        ({"interactions": "treated*"}, "expected pairs of features"),
        ({"interactions": "treated*age*ward"}, "expected pairs of features"),
        ({"interactions": "treated*dose"}, "'dose' is no feature"),
        ({"interactions": "age*age"}, "with itself"),
        ({"interactions": "treated*age; age*treated"}, "named twice"),
        ({"interactions": "treated*age", "at": "age"}, "expected a feature once"),
        ({"interactions": "treated*age", "at": "age old"}, "expected a feature once"),
        ({"interactions": "treated*age", "at": "age 40; age 50"}, "expected a feature once"),
        ({"interactions": "treated*age", "at": "treated 1"}, "behind no asterisk"),
        ({"interactions": "treated*ward", "at": "ward 1"}, "at all of its values"),
        ({"interactions": "treated*age", "at": "age 95"}, "outside the bounds of 'age', 40.0 to 90.0"),
        ({"at": "age 45"}, "behind no asterisk"),
    ],
)
def test_an_interaction_that_cannot_be_is_refused_with_what_is_expected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task("linear-regression", COLUMNS, "score", FEATURES, **options)
