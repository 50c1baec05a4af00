"""Naive Bayes and statistical tests on their pure functions: those of the pooled rows, whatever silo has which."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats

from policies.requests.families import MOST_PER_ROW, SHAPES
from policies.requests.tables import TableColumn
from silo_node.training.family import Examples, Fitted, State
from silo_node.training.registry import FAMILIES
from tests.harness.families import divided, examples, number, part, run, summed, task, text, truth

pytestmark = pytest.mark.slow
Rows = dict[str, npt.NDArray[Any]]
KINDS = ("naive-bayes", "welch-t", "anova", "chi-square")
FEATURES = {
    "naive-bayes": ("age", "debt", "kind", "owner"),
    "welch-t": ("age", "debt", "owner"),
    "anova": ("age", "debt", "owner"),
    "chi-square": ("kind", "owner"),
}


def small(count: int = 400) -> tuple[list[TableColumn], Rows]:
    """Return rows of every kind of feature, with a label of two and one of three groups; nobody is of kind d."""
    numbers = np.random.default_rng(11)
    grade = numbers.choice(3, count, p=[0.2, 0.5, 0.3])
    rows = {
        "age": np.clip(np.rint(40 + 6 * grade + (4 + 3 * grade) * numbers.normal(size=count)), 18, 99).astype(np.int64),
        "debt": np.clip(np.rint(500 + 90 * numbers.normal(size=count)), 0, 1000).astype(np.int64),
        "owner": (numbers.random(count) < 0.2 + 0.2 * grade).astype(np.int64),
        "kind": np.array(["a", "b", "c"])[np.minimum(2, numbers.integers(0, 3, count) * (grade != 1))],
        "ok": (numbers.random(count) < 0.3 + 0.2 * grade).astype(np.int64),
        "grade": np.array(["low", "mid", "high"])[grade],
    }
    columns = [
        number("age", 18, 99), number("debt", 0, 1000, "0.01"), truth("owner"), text("kind", "a", "b", "c", "d"),
        truth("ok"), text("grade", "low", "mid", "high", "?"),
    ]  # fmt: skip
    return columns, rows


def label_of(family: str) -> str:
    return "ok" if family == "welch-t" else "grade"


def listing(fitted: Fitted, name: str) -> dict[str, tuple[float | None, ...]]:
    (found,) = [one for one in fitted.listings if one.name == name]
    return {line.name: line.values for line in found.lines}


def figures(fitted: Fitted) -> Mapping[str, float | None]:
    return {line.name: line.values[0] for line in fitted.figures}


def ran(family: str, silos: int = 4, label: str | None = None, **options: str) -> tuple[State, Fitted, Rows]:
    columns, rows = small()
    own = task(family, columns, label or label_of(family), FEATURES[family], None, 30, **options)
    state, fitted, rounds = run(own, divided(examples(own, rows), silos))
    assert (state.ended, rounds) == ("complete", 1)
    return state, fitted, rows


def test_gaussian_classes_are_those_of_scikit_learn() -> None:
    from sklearn.naive_bayes import GaussianNB

    _, fitted, rows = ran("naive-bayes")
    inputs = np.column_stack([rows["age"], rows["debt"] / 100])
    fit = GaussianNB(var_smoothing=0).fit(inputs, rows["grade"])
    found = listing(fitted, "numbers")
    for place, name in enumerate(("age", "debt")):
        for group, value in enumerate(("low", "mid", "high")):
            other = list(fit.classes_).index(value)
            mean, deviation = found[name][2 * group : 2 * group + 2]
            assert mean == pytest.approx(fit.theta_[other, place], abs=1e-8)
            assert deviation == pytest.approx(np.sqrt(fit.var_[other, place]), abs=1e-8)
            share, count, _ = listing(fitted, "classes")[value]
            assert share == pytest.approx(fit.class_prior_[other], abs=1e-12)
            assert count == fit.class_count_[other]
    assert figures(fitted)["rows"] == 400


@pytest.mark.parametrize("smoothing", ["1", "0.25"])
def test_counted_values_are_those_of_scikit_learn(smoothing: str) -> None:
    from sklearn.naive_bayes import CategoricalNB

    _, fitted, rows = ran("naive-bayes", smoothing=smoothing)
    kinds = np.array(["abcd".index(kind) for kind in rows["kind"]])
    fit = CategoricalNB(alpha=float(smoothing), min_categories=[4, 2]).fit(
        np.column_stack([kinds, rows["owner"]]), rows["grade"]
    )
    order = [list(fit.classes_).index(value) for value in ("low", "mid", "high")]
    names = [[f"kind = {value}" for value in "abcd"], ["owner = false", "owner = true"]]
    for place, of_feature in enumerate(names):
        found = np.array([listing(fitted, "shares of values")[name] for name in of_feature], float)
        assert found == pytest.approx(np.exp(fit.feature_log_prob_[place])[order].T, abs=1e-10)


def test_a_bool_label_has_two_classes() -> None:
    _, fitted, rows = ran("naive-bayes", label="ok")
    assert listing(fitted, "classes")["true"][1] == rows["ok"].sum()
    assert listing(fitted, "classes")["false"][1] == (1 - rows["ok"]).sum()


def test_a_number_that_does_not_vary_in_a_class_is_named() -> None:
    columns, rows = small()
    rows["age"] = np.where(rows["ok"] == 1, 30, rows["age"])
    own = task("naive-bayes", columns, "ok", ("age", "debt"))
    _, fitted, _ = run(own, divided(examples(own, rows), 2))
    assert fitted.notes == ("age is the same in all rows of true: leave it out",)


def test_welch_is_that_of_scipy() -> None:
    _, fitted, rows = ran("welch-t")
    found = listing(fitted, "mean of false less mean of true")
    for name, scale in (("age", 1), ("debt", 100), ("owner", 1)):
        one, other = (rows[name][rows["ok"] == value] / scale for value in (0, 1))
        test = scipy.stats.ttest_ind(one, other, equal_var=False)
        low, high = test.confidence_interval(0.95)
        expected = (test.statistic, test.df, test.pvalue, one.mean() - other.mean(), low, high)
        assert found[name] == pytest.approx(expected, rel=1e-8, abs=1e-9)
        groups = listing(fitted, "groups")[f"{name}, ok = true"]
        assert groups == pytest.approx((len(other), other.mean(), other.std(ddof=1)), rel=1e-8)


def test_anova_is_that_of_scipy() -> None:
    _, fitted, rows = ran("anova")
    for name, scale in (("age", 1), ("debt", 100), ("owner", 1)):
        groups = [rows[name][rows["grade"] == value] / scale for value in ("low", "mid", "high")]
        test = scipy.stats.f_oneway(*groups)
        ratio, between, within, p, share = listing(fitted, "F")[name]
        assert (ratio, p) == pytest.approx((test.statistic, test.pvalue), rel=1e-8)
        assert (between, within) == (2, 397)
        whole = rows[name] / scale
        inside = sum(((group - group.mean()) ** 2).sum() for group in groups)
        assert share == pytest.approx(1 - inside / ((whole - whole.mean()) ** 2).sum(), abs=1e-9)


def test_of_two_groups_anova_is_the_square_of_students_t() -> None:
    _, fitted, rows = ran("anova", label="ok")
    test = scipy.stats.ttest_ind(rows["age"][rows["ok"] == 0], rows["age"][rows["ok"] == 1])
    assert listing(fitted, "F")["age"][0] == pytest.approx(test.statistic**2, rel=1e-8)


@pytest.mark.parametrize("label", ["ok", "grade"])
def test_chi_square_is_that_of_scipy_without_values_that_nobody_has(label: str) -> None:
    _, fitted, rows = ran("chi-square", label=label)
    for name in FEATURES["chi-square"]:
        table = scipy.stats.contingency.crosstab(rows[label], rows[name]).count
        test = scipy.stats.chi2_contingency(table, correction=False)
        strength = scipy.stats.contingency.association(table, method="cramer")
        expected = (test.statistic, test.dof, test.pvalue, strength, test.expected_freq.min())
        assert listing(fitted, "independence")[name] == pytest.approx(expected, rel=1e-9)
    assert "left out: kind = d, fewer than 10 persons" in fitted.notes


def test_a_table_with_few_expected_rows_says_that_p_is_rough() -> None:
    columns, rows = small(60)
    rows["ok"] = (np.arange(60) < 4).astype(np.int64)
    own = task("chi-square", columns, "ok", ("owner",), min_cohort="2")
    _, fitted, _ = run(own, [examples(own, rows)])
    assert any("p is rough" in note for note in fitted.notes)


@pytest.mark.parametrize("family", KINDS)
def test_every_split_of_the_rows_gives_the_same_sums_to_the_last_bit(family: str) -> None:
    columns, rows = small()
    own = task(family, columns, label_of(family), FEATURES[family])
    whole = examples(own, rows)
    order = np.random.default_rng(7).permutation(whole.rows)
    splits = [[whole], divided(whole, 3), divided(part(whole, order), 5), [part(whole, order)]]
    splits[1].append(part(whole, np.zeros(0, np.int64)))  # a silo without rows
    state = FAMILIES[family].init(own)
    found = [{name: block.tolist() for name, block in summed(own, state, silos).items()} for silos in splits]
    assert found[1:] == found[:1] * 3


@pytest.mark.parametrize("family", KINDS)
def test_a_group_of_few_persons_is_not_shown_however_many_rows_they_have(family: str) -> None:
    columns, rows = small()
    features, label = FEATURES[family], label_of(family)
    own = task(family, columns, label, features)
    whole = examples(own, rows)
    first = own.groups[0]
    is_first = (rows["ok"] == 0) if label == "ok" else (rows["grade"] == "low")
    person = np.where(is_first, 1000 + np.arange(400) % 9, np.arange(400))  # nine persons have all rows of a group
    state, fitted, _ = run(own, [Examples(person, whole.cells)])
    assert f"left out: {label} = {first}, fewer than 10 persons" in fitted.notes
    if label == "ok":
        assert state.ended == "too-few-rows"
        assert not fitted.listings
        return
    assert state.ended == "complete"
    assert figures(fitted)["rows"] == (~is_first).sum()
    assert not any(first in line.name for one in fitted.listings for line in one.lines)
    assert not any(first in heading for one in fitted.listings for heading in one.headings)
    rest = part(whole, np.flatnonzero(~is_first))
    assert run(own, [rest])[1].listings == fitted.listings


def test_a_value_of_few_persons_is_not_in_the_table() -> None:
    columns, rows = small()
    own = task("chi-square", columns, "grade", ("kind",))
    rows["kind"] = np.where(np.arange(400) < 9, "d", rows["kind"])
    _, fitted, _ = run(own, divided(examples(own, rows), 3))
    table = scipy.stats.contingency.crosstab(rows["grade"][9:], rows["kind"][9:]).count
    test = scipy.stats.chi2_contingency(table, correction=False)
    assert listing(fitted, "independence")["kind"][0] == pytest.approx(test.statistic, rel=1e-9)


@pytest.mark.parametrize("family", KINDS)
def test_missing_cells_are_skipped_where_they_are_missing(family: str) -> None:
    columns, rows = small()
    name = FEATURES[family][-1]
    gap = np.random.default_rng(5).random(400) < 0.3
    own = task(family, columns, label_of(family), FEATURES[family], missing="skip")
    gaps = {one: np.zeros(400, np.bool_) for one in FEATURES[family] if one != "kind"} | {name: gap}
    _, fitted, _ = run(own, divided(examples(own, rows, gaps), 3))
    alone = task(family, columns, label_of(family), (name,))
    _, other, _ = run(alone, [part(examples(alone, rows), np.flatnonzero(~gap))])
    for one in other.listings:
        if one.name == "classes":
            continue
        for line in one.lines:
            assert listing(fitted, one.name)[line.name] == line.values


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_too_few_rows_show_nothing(family: str, count: int) -> None:
    columns, rows = small()
    own = task(family, columns, label_of(family), FEATURES[family], min_cohort="2")
    state, fitted, _ = run(own, [part(examples(own, rows), np.arange(count))])
    assert state.ended == "too-few-rows"
    assert not fitted.listings


@pytest.mark.parametrize("family", KINDS)
def test_features_that_never_vary_have_no_statistic_and_no_number_is_infinite(family: str) -> None:
    columns, rows = small()
    rows |= {"age": np.full(400, 40), "debt": np.full(400, 700), "owner": np.ones(400, np.int64)}
    rows["kind"] = np.full(400, "a")
    own = task(family, columns, label_of(family), FEATURES[family])
    _, fitted, _ = run(own, divided(examples(own, rows), 3))
    test = {"welch-t": "mean of false less mean of true", "anova": "F", "chi-square": "independence"}.get(family)
    if test is not None:
        assert {values[0] for values in listing(fitted, test).values()} == {None}


@pytest.mark.parametrize("family", KINDS)
def test_no_row_adds_more_to_a_round_than_its_shape_says(family: str) -> None:
    columns = [number("x", -(2**31), 2**31), truth("t"), text("kind", "a", "b", "?"), truth("ok")]
    features = {"chi-square": ("t", "kind"), "naive-bayes": ("x", "t", "kind")}.get(family, ("x", "t"))
    own = task(family, columns, "ok", features)
    for place in (0, 1):
        ends = {column.name: np.array([(column.low, column.high)[place]]) for column in columns if not column.domain}
        one = examples(own, {**ends, "kind": np.array(["a", "b"])[place : place + 1]})
        for block in FAMILIES[family].statistics(own, State(), one):
            assert np.abs(block).max() <= MOST_PER_ROW


@pytest.mark.parametrize("family", KINDS)
def test_a_row_changes_as_many_numbers_as_its_shape_says_however_many_groups_there_are(family: str) -> None:
    columns, rows = small()
    own = task(family, columns, label_of(family), FEATURES[family])
    whole, changed = examples(own, rows), SHAPES[family].changed
    assert changed is not None
    numbers = [
        sum(
            int((block != 0).sum()) for block in FAMILIES[family].statistics(own, State(), part(whole, np.array([row])))
        )
        for row in range(40)
    ]
    most = changed(own) - 1  # as no row was left out
    assert most - len(own.features) <= max(numbers) <= most  # the low part of a square may be 0


@pytest.mark.parametrize(
    ("family", "label", "features", "more", "says"),
    [
        ("welch-t", "grade", ("age",), {}, "compares two groups, label 'grade' has 3; take anova"),
        ("welch-t", "ok", ("kind",), {}, r"feature 'kind' is text \(string\), welch-t takes bool or number"),
        ("anova", "age", ("debt",), {}, "anova takes bool or text; number labels"),
        ("anova", None, ("debt",), {}, "needs a label"),
        ("chi-square", "ok", ("age",), {}, "chi-square takes bool or text"),
        ("chi-square", "ok", (), {}, "needs 1 or more features"),
        ("chi-square", "ok", ("kind",), {"min_cohort": "0"}, "a whole number from 2"),
        ("naive-bayes", "one", ("age",), {}, "needs two values beside its unknown"),
        ("naive-bayes", "many", ("kind", "many_values"), {}, "numbers by group, at most 100,000"),
        ("naive-bayes", "ok", ("age",), {"missing": "mean"}, "drop, skip"),
    ],
)
def test_what_a_family_does_not_take_is_named(
    family: str, label: str | None, features: tuple[str, ...], more: dict[str, Any], says: str
) -> None:
    columns, _ = small()
    more_columns = [
        text("one", "x", "?"),
        text("many", *map(str, range(900))),
        text("many_values", *map(str, range(300))),
    ]
    with pytest.raises(ValueError, match=says):
        task(family, [*columns, *more_columns], label, features, **more)
