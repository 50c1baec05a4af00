"""Exact families on their pure functions: equal to a fit of the pooled rows, whatever silo has which."""

import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import statsmodels.api as sm

from crypto.errors import ProtocolError
from crypto.rounds.manifest import Block
from crypto.rounds.opening import OpenedSum
from policies.requests.families import MAX_COUNT, MAX_OFFSET, MAX_WIDTH, MOST_PER_ROW, SHAPES
from silo_node.training.family import Examples, Fitted
from silo_node.training.registry import FAMILIES
from tests.harness.families import divided, examples, number, numbered, part, run, summed, task, text, truth
from tests.harness.public_rows import PublicRows, arrests, diabetes, loan_approvals, names

ROOT = Path(__file__).resolve().parents[2]
TIGHT = "0.000000000001"
pytestmark = pytest.mark.slow


def lines(fitted: Fitted) -> Mapping[str, tuple[float | None, ...]]:
    return {line.name: line.values for line in fitted.listings[0].lines}


def figures(fitted: Fitted) -> Mapping[str, float | None]:
    return {line.name: line.values[0] for line in fitted.figures}


def close(value: float | None, expected: float) -> None:
    assert value is not None
    assert abs(value - expected) <= 1e-8 * max(1.0, abs(expected))


def agrees(fitted: Fitted, fit: Any, of: PublicRows) -> None:
    ends, own = np.asarray(fit.conf_int()), lines(fitted)
    assert tuple(own) == tuple(names(of))
    for place, name in enumerate(names(of)):
        expected = (fit.params[place], fit.bse[place], fit.tvalues[place], fit.pvalues[place], *ends[place])
        for value, other in zip(own[name], expected, strict=True):
            close(value, float(other))


def test_least_squares_on_four_silos_are_those_of_the_pooled_rows() -> None:
    of = diabetes()
    own = task("linear-regression", of.columns, of.label, of.features, tolerance=TIGHT)
    state, fitted, rounds = run(own, divided(examples(own, of.rows), 4))
    fit = sm.OLS(of.outcome, sm.add_constant(of.inputs)).fit()
    agrees(fitted, fit, of)
    assert (state.ended, rounds) == ("complete", 3)
    close(figures(fitted)["R2"], fit.rsquared)
    close(figures(fitted)["adjusted R2"], fit.rsquared_adj)
    close(figures(fitted)["log-likelihood"], fit.llf)
    close(figures(fitted)["residual standard error"], math.sqrt(fit.scale))


def test_a_logistic_fit_on_five_silos_is_that_of_the_pooled_rows() -> None:
    of = loan_approvals()
    own = task("logistic-regression", of.columns, of.label, of.features, tolerance=TIGHT)
    state, fitted, rounds = run(own, divided(examples(own, of.rows), 5))
    fit = sm.Logit(of.outcome, sm.add_constant(of.inputs)).fit(disp=0, tol=1e-14, maxiter=50)
    agrees(fitted, fit, of)
    assert state.ended == "complete"
    assert rounds <= 10
    close(figures(fitted)["log-likelihood"], fit.llf)
    share = of.outcome.mean()
    null = len(of.outcome) * (share * math.log(share) + (1 - share) * math.log(1 - share))
    close(figures(fitted)["log-likelihood without features"], null)
    close(figures(fitted)["pseudo-R2 (McFadden)"], 1 - fit.llf / null)


def test_a_poisson_fit_on_five_silos_is_that_of_the_pooled_rows() -> None:
    of = arrests()
    own = task("poisson-regression", of.columns, of.label, of.features, tolerance=TIGHT)
    _, fitted, _ = run(own, divided(examples(own, of.rows), 5))
    fit = sm.GLM(of.outcome, sm.add_constant(of.inputs), family=sm.families.Poisson()).fit(tol=1e-14, maxiter=100)
    agrees(fitted, fit, of)
    close(figures(fitted)["log-likelihood"], fit.llf)
    close(figures(fitted)["log-likelihood without features"], fit.llnull)


def test_large_counts_whose_loss_is_below_0_have_a_maximum() -> None:
    columns, rows = small()
    rows["visits"] = np.minimum(60, 20 + 2 * rows["visits"])
    own = task("poisson-regression", columns, "visits", FEATURES, tolerance=TIGHT)
    state, fitted, _ = run(own, divided(examples(own, rows), 5))
    inputs = np.column_stack([rows["age"], rows["kind"] == "b", rows["kind"] == "c", rows["owner"]]).astype(float)
    fit = sm.GLM(rows["visits"], sm.add_constant(inputs), family=sm.families.Poisson()).fit(tol=1e-14, maxiter=100)
    assert state.ended == "complete"
    assert state.one("loss") < 0
    for values, expected, error in zip(lines(fitted).values(), fit.params, fit.bse, strict=True):
        close(values[0], expected)
        close(values[1], error)


def test_an_offset_is_added_to_the_predictor_as_it_is() -> None:
    of, numbers = arrests(), np.random.default_rng(4)
    offset = np.round(numbers.uniform(-2, 3, len(of.outcome)), 3)
    columns = [*of.columns, number("log_exposure", -4000, 5000, "0.001")]
    rows = {**of.rows, "log_exposure": np.rint(offset * 1000).astype(np.int64)}
    own = task("poisson-regression", columns, of.label, of.features, {"offset": "log_exposure"}, tolerance=TIGHT)
    _, fitted, _ = run(own, divided(examples(own, rows), 5))
    model = sm.GLM(of.outcome, sm.add_constant(of.inputs), family=sm.families.Poisson(), offset=offset)
    fit = model.fit(tol=1e-14, maxiter=100)
    agrees(fitted, fit, of)
    close(figures(fitted)["log-likelihood without features"], fit.llnull)


def test_ridge_is_that_of_standardised_pooled_rows() -> None:
    from sklearn.linear_model import Ridge

    of = diabetes()
    own = task("ridge-regression", of.columns, of.label, of.features, penalty="5", tolerance=TIGHT)
    _, fitted, _ = run(own, divided(examples(own, of.rows), 4))
    mean, deviation = of.inputs.mean(0), of.inputs.std(0)
    scaled = (of.inputs - mean) / deviation
    fit = Ridge(alpha=5, solver="svd").fit(scaled, of.outcome)
    slopes = fit.coef_ / deviation
    for name, expected in zip(names(of), [fit.intercept_ - slopes @ mean, *slopes], strict=True):
        close(lines(fitted)[name][0], expected)
    # The covariance of a shrunk estimate: that of least squares between two shrinking matrices.
    whole = np.column_stack([np.ones(len(scaled)), scaled])
    bare = np.diag([0.0] + [5.0] * scaled.shape[1])
    inverse = np.linalg.inv(whole.T @ whole + bare)
    residual = of.outcome - fit.predict(scaled)
    df = len(scaled) - np.trace(whole @ inverse @ whole.T)
    spread = residual @ residual / df * inverse @ whole.T @ whole @ inverse
    for place, name in enumerate(of.features, 1):
        close(lines(fitted)[name][1], math.sqrt(spread[place, place]) / deviation[place - 1])


def test_a_multinomial_fit_is_that_of_the_pooled_rows() -> None:
    of, numbers = loan_approvals(), np.random.default_rng(5)
    features = ("black", "dep", "obrat", "unem")
    places = [of.features.index(name) for name in features]
    inputs = of.inputs[:, places]
    latent = inputs @ np.array([0.5, 0.2, -0.02, 0.03]) + numbers.logistic(size=len(inputs))
    grade = np.digitize(latent, (-1.5, 0.5))
    columns = [*(of.columns[place] for place in places), text("grade", "low", "mid", "high", "?")]
    rows = {**{name: of.rows[name] for name in features}, "grade": np.array(["low", "mid", "high"])[grade]}
    own = task("multinomial-regression", columns, "grade", features, tolerance=TIGHT)
    _, fitted, _ = run(own, divided(examples(own, rows), 5))
    fit = sm.MNLogit(grade, sm.add_constant(inputs)).fit(disp=0, tol=1e-14, maxiter=50)
    for place, value in enumerate(("mid", "high")):
        for row, name in enumerate(("(intercept)", *features)):
            coefficient, error = lines(fitted)[f"{value}: {name}"][:2]
            close(coefficient, fit.params[row, place])
            close(error, fit.bse[row, place])
    close(figures(fitted)["log-likelihood"], fit.llf)


def test_a_text_label_has_its_positive_value_named() -> None:
    of = loan_approvals()
    values = np.array(["no", "yes"])[of.rows["approve"]]
    columns = [*of.columns[:-1], text("approve", "no", "yes", "?")]
    own = task("logistic-regression", columns, "approve", of.features[:3], positive="yes")
    plain = task("logistic-regression", of.columns, "approve", of.features[:3])
    _, named, _ = run(own, divided(examples(own, {**of.rows, "approve": values}), 2))
    _, truths, _ = run(plain, divided(examples(plain, of.rows), 2))
    assert lines(named) == lines(truths)


def small() -> tuple[list[Any], dict[str, npt.NDArray[Any]]]:
    """Return rows of every kind of column and label."""
    numbers, count = np.random.default_rng(6), 300
    age, kind = numbers.integers(18, 100, count), numbers.choice(["a", "b", "c"], count)
    owner = numbers.integers(0, 2, count)
    odds = 0.02 * age - 1 + owner
    rows = {
        "age": age,
        "kind": kind,
        "owner": owner,
        "ok": (odds + numbers.logistic(size=count) > 0).astype(np.int64),
        "visits": numbers.poisson(np.exp(odds / 2)),
        "paid": np.rint(10 * odds + numbers.normal(size=count)).astype(np.int64),
        "grade": np.array(["low", "mid", "high"])[np.digitize(odds + numbers.logistic(size=count), (0, 1))],
    }
    columns = [
        number("age", 18, 99), text("kind", "a", "b", "c", "d"), truth("owner"), truth("ok"), number("visits", 0, 60),
        number("paid", -100, 100), text("grade", "low", "mid", "high", "?"),
    ]  # fmt: skip
    return columns, rows


LABELS = {
    "linear-regression": "paid",
    "ridge-regression": "paid",
    "logistic-regression": "ok",
    "multinomial-regression": "grade",
    "poisson-regression": "visits",
    "cox": None,
}
PARTS = {"cox": {"time": "visits", "event": "ok"}}
OF_ROWS = sorted(set(LABELS) - {"cox"})  # whose sums are of rows, not of risk sets: tests/silo_node/test_cox.py
FEATURES = ("age", "kind", "owner")


@pytest.mark.parametrize("family", OF_ROWS)
def test_every_split_of_the_rows_gives_the_same_sums_to_the_last_bit(family: str) -> None:
    columns, rows = small()
    own = task(family, columns, LABELS[family], FEATURES, PARTS.get(family))
    whole = examples(own, rows)
    order = np.random.default_rng(7).permutation(whole.rows)
    splits = [[whole], divided(whole, 3), divided(part(whole, order), 5), [part(whole, order)]]
    state = FAMILIES[family].init(own)
    for count in range(4):
        round_ = numbered(own, count)
        sums = [summed(round_, state, silos) for silos in splits]
        for other in sums[1:]:
            assert {name: found.tolist() for name, found in sums[0].items()} == {
                name: found.tolist() for name, found in other.items()
            }
        state = FAMILIES[family].update(round_, state, sums[0])


@pytest.mark.parametrize("family", sorted(LABELS))
def test_columns_that_tell_nothing_are_dropped_and_named(family: str) -> None:
    """Nobody is of kind d, everybody has one age, and `twice` says what `owner` says."""
    columns, rows = small()
    columns = [*columns, number("fixed", 0, 10), truth("twice")]
    rows |= {"fixed": np.full(300, 7), "twice": 1 - rows["owner"]}
    own = task(family, columns, LABELS[family], ("fixed", *FEATURES, "twice"), PARTS.get(family))
    _, fitted, _ = run(own, divided(examples(own, rows), 3))
    expected = {"dropped: fixed is the same in all rows", "dropped: kind = d is the same in all rows"}
    if family == "ridge-regression":  # it divides a weight between columns that say the same
        assert set(fitted.notes) == expected
        return
    assert set(fitted.notes) == expected | {"dropped: twice follows from the columns before it"}
    plain = task(family, columns, LABELS[family], FEATURES, PARTS.get(family))
    _, other, _ = run(plain, divided(examples(plain, rows), 3))
    assert set(lines(fitted)) == set(lines(other))
    for name, values in lines(other).items():
        assert values == pytest.approx(lines(fitted)[name], rel=1e-8, abs=1e-10)


def test_values_that_all_rows_have_between_them_are_not_singular() -> None:
    columns, rows = small()
    rows["kind"] = np.where(rows["kind"] == "a", "b", rows["kind"])  # so the first value is nobody's
    own = task("logistic-regression", columns, "ok", ("kind", "age"))
    _, fitted, _ = run(own, divided(examples(own, rows), 2))
    assert "dropped: kind = c follows from the columns before it" in fitted.notes
    assert "kind = b" in lines(fitted)


@pytest.mark.parametrize("family", ["logistic-regression", "multinomial-regression"])
@pytest.mark.parametrize("is_whole", [True, False])
def test_labels_that_a_column_tells_apart_have_no_maximum(family: str, is_whole: bool) -> None:
    columns, rows = small()
    first = {"logistic-regression": 1, "multinomial-regression": "high"}[family]
    told = (rows[LABELS[family] or ""] == first).astype(np.int64)
    if not is_whole:
        told = told * np.random.default_rng(8).integers(0, 2, 300)  # of whom it is true the label is known
    own = task(family, [*columns, truth("teller")], LABELS[family], ("age", "teller", "owner"))
    state, fitted, rounds = run(own, divided(examples(own, {**rows, "teller": told}), 3))
    assert state.ended == "no-maximum"
    assert "teller" in state.why
    assert not fitted.listings
    assert "no maximum" in fitted.notes[-1]
    assert rounds <= 25


def test_counts_that_are_0_in_one_group_have_no_maximum() -> None:
    columns, rows = small()
    rows["visits"] = np.where(rows["kind"] == "b", 0, rows["visits"])
    own = task("poisson-regression", columns, "visits", FEATURES)
    state, _, _ = run(own, divided(examples(own, rows), 3))
    assert (state.ended, state.why) == ("no-maximum", "kind = b")


@pytest.mark.parametrize(
    ("family", "label", "value"),
    [("logistic-regression", "ok", 1), ("multinomial-regression", "grade", "mid"), ("poisson-regression", "visits", 0)],
)
def test_a_label_that_is_the_same_everywhere_has_no_maximum(family: str, label: str, value: Any) -> None:
    columns, rows = small()
    own = task(family, columns, label, FEATURES)
    state, fitted, rounds = run(own, divided(examples(own, {**rows, label: np.full(300, value)}), 3))
    assert (state.ended, rounds) == ("no-maximum", 1)
    assert label in fitted.notes[-1]


def test_a_silo_with_one_class_takes_part() -> None:
    columns, rows = small()
    own = task("logistic-regression", columns, "ok", FEATURES)
    whole = examples(own, rows)
    is_ok = rows["ok"] == 1
    parts = [part(whole, np.flatnonzero(is_ok)), part(whole, np.flatnonzero(~is_ok))]
    assert lines(run(own, parts)[1]) == lines(run(own, [whole])[1])


def test_a_silo_without_rows_takes_part() -> None:
    columns, rows = small()
    for family, label in LABELS.items():
        own = task(family, columns, label, FEATURES, PARTS.get(family))
        whole = examples(own, rows)
        nobody = part(whole, np.zeros(0, np.int64))
        assert lines(run(own, [whole, nobody])[1]) == lines(run(own, [whole])[1])


@pytest.mark.parametrize("family", sorted(LABELS))
@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_fewer_rows_than_weights_are_too_few(family: str, count: int) -> None:
    columns, rows = small()
    own = task(family, columns, LABELS[family], FEATURES, PARTS.get(family))
    whole = examples(own, rows)
    different = np.array([int(np.flatnonzero(rows["grade"] == value)[0]) for value in ("low", "mid", "high")])
    different = np.append(different, int(np.flatnonzero(rows["visits"] > 0)[0]))
    state, fitted, _ = run(own, [part(whole, different[:count])])
    assert state.ended in ("too-few-rows", "no-maximum")
    assert not fitted.listings


def test_a_missing_cell_is_filled_by_the_mean_or_told_by_a_column() -> None:
    of, numbers = diabetes(), np.random.default_rng(9)
    gap = numbers.random(len(of.outcome)) < 0.3
    name, place = of.features[2], 2
    filled = of.inputs.copy()
    filled[gap, place] = of.inputs[~gap, place].mean()
    for missing in ("mean", "indicator"):
        own = task("linear-regression", of.columns, of.label, of.features, missing=missing, tolerance=TIGHT)
        gaps = {feature: np.zeros(len(gap), np.bool_) for feature in of.features} | {name: gap}
        _, fitted, _ = run(own, divided(examples(own, of.rows, gaps), 4))
        inputs = filled if missing == "mean" else np.column_stack([filled, gap])
        fit = sm.OLS(of.outcome, sm.add_constant(inputs)).fit()
        for row, each in enumerate(names(of)):
            close(lines(fitted)[each][0], fit.params[row])
            close(lines(fitted)[each][1], fit.bse[row])
        if missing == "indicator":
            close(lines(fitted)[f"{name} is missing"][0], fit.params[-1])


def test_a_run_that_is_cut_short_says_so() -> None:
    columns, rows = small()
    own = task("logistic-regression", columns, "ok", FEATURES, rounds=3)
    state, fitted, _ = run(own, [examples(own, rows)])
    assert state.ended is None
    assert "not at its end" in fitted.notes[-1]
    assert fitted.listings


def test_numbers_beyond_the_grid_stop_the_run_and_the_last_good_model_stands() -> None:
    """Hope: a row so large that its square wraps the sum moves the model anywhere."""
    count = 40
    counts = np.full(count, 1)
    counts[0] = 1_000_000
    columns = [number("visits", 0, 1_000_000), number("x", 0, 2**30)]
    x = np.arange(count) * 5
    x[0] = 2**30
    own = task("poisson-regression", columns, "visits", ("x",))
    state, fitted, _ = run(own, [examples(own, {"visits": counts, "x": x})])
    assert all(np.isfinite(values).all() for values in state.numbers.values())
    assert state.ended in ("complete", "diverged", "no-maximum")
    assert fitted.notes or fitted.listings


@pytest.mark.parametrize("family", sorted(LABELS))
def test_no_row_adds_more_to_a_first_round_than_its_shape_says(family: str) -> None:
    """At the ends of all bounds, the largest count and the largest offset."""
    columns = [number("x", -(2**31), 2**31), truth("t"), text("kind", "a", "b", "?"), number("n", 0, MAX_COUNT)]
    columns += [number("o", -MAX_OFFSET, MAX_OFFSET), number("y", -5, 2**31)]
    label = {"poisson-regression": "n", "logistic-regression": "t", "multinomial-regression": "kind"}.get(family, "y")
    parts = {"poisson-regression": {"offset": "o"}, "cox": {"time": "y", "event": "t"}}.get(family, {})
    features = [name for name in ("x", "t", "kind") if name != label and name not in parts.values()]
    own = task(family, columns, None if family == "cox" else label, features, parts)
    for place in (0, 1):
        ends = {column.name: np.array([(column.low, column.high)[place]]) for column in columns if not column.domain}
        one = examples(own, {**ends, "kind": np.array(["a", "b"])[place : place + 1]})
        for block in FAMILIES[family].statistics(own, FAMILIES[family].init(own), one):
            assert np.abs(block).max() <= MOST_PER_ROW


def test_rows_that_change_in_a_run_change_its_aim_and_are_told() -> None:
    columns, rows = small()
    own = task("logistic-regression", columns, "ok", FEATURES, tolerance=TIGHT)
    whole = examples(own, rows)
    fewer = part(whole, np.arange(250))
    family, state = FAMILIES[own.family], FAMILIES[own.family].init(own)
    for count in range(own.rounds):
        round_ = numbered(own, count)
        state = family.update(round_, state, summed(round_, state, [whole if count < 3 else fewer]))
        if state.ended:
            break
    assert state.ended == "complete"
    expected = lines(run(own, [fewer])[1])
    for name, values in lines(family.finish(own, state)).items():
        assert values == pytest.approx(expected[name], rel=1e-8, abs=1e-9)
    assert "the rows changed in the run" in family.finish(own, state).notes[-1]


@pytest.mark.parametrize("family", ["logistic-regression", "linear-regression"])
@pytest.mark.parametrize("when", [2, 3, 4])
def test_as_many_other_rows_are_noticed_by_their_loss(family: str, when: int) -> None:
    """One person leaves as another comes in: the count is the same, and no step makes the loss smaller than before."""
    columns, rows = small()
    own = task(family, columns, "ok", FEATURES, tolerance=TIGHT)
    whole = examples(own, rows)
    before, after = part(whole, np.arange(200)), part(whole, np.arange(100, 300))
    state = FAMILIES[family].init(own)
    for count in range(own.rounds):
        round_ = numbered(own, count)
        state = FAMILIES[family].update(round_, state, summed(round_, state, [before if count < when else after]))
        if state.ended:
            break
    if family == "linear-regression" and when > 2:
        return  # at its end before
    assert state.ended == "complete"
    # As the first round's deviations stay those of the rows before, the weights are the same, but in other units.
    expected = lines(run(own, [after])[1])
    for name, values in lines(FAMILIES[family].finish(own, state)).items():
        assert values[:2] == pytest.approx(expected[name][:2], rel=1e-7, abs=1e-8)


def test_a_private_count_of_a_person_is_no_matter_as_rows_are_what_is_added() -> None:
    columns, rows = small()
    own = task("linear-regression", columns, "paid", FEATURES)
    whole = examples(own, rows)
    shared = Examples(np.zeros(whole.rows, np.int64), whole.cells)
    assert lines(run(own, [shared])[1]) == lines(run(own, [whole])[1])


@pytest.mark.parametrize(
    ("family", "label", "features", "more", "says"),
    [
        ("linear-regression", "grade", FEATURES, {}, "text labels: logistic-regression and hashed-logistic and"),
        ("multinomial-regression", "ok", FEATURES, {}, "bool labels: linear-regression and ridge-regression"),
        ("logistic-regression", "paid", FEATURES, {}, "number labels: linear-regression"),
        ("poisson-regression", "paid", FEATURES, {}, "whole numbers from 0"),
        ("poisson-regression", "visits", FEATURES, {"parts": {"offset": "grade"}}, "expected a number"),
        ("poisson-regression", "visits", FEATURES, {"parts": {"weight": "paid"}}, "has no weight"),
        ("poisson-regression", "visits", FEATURES, {"parts": {"offset": "paid"}}, "lies beyond 30"),
        ("linear-regression", "paid", (), {}, "needs 1 or more features"),
        ("linear-regression", None, FEATURES, {}, "needs a label"),
        ("linear-regression", "paid", FEATURES, {"tolerance": "1e-3"}, "expected a number"),
        ("linear-regression", "paid", FEATURES, {"tolerance": "NaN"}, "expected a number"),
        ("linear-regression", "paid", ("only",), {}, "of one value each"),
        ("linear-regression", "paid", ("wide",), {}, f"at most {MAX_WIDTH}"),
    ],
)
def test_what_a_family_does_not_take_is_named(
    family: str, label: str | None, features: tuple[str, ...], more: dict[str, Any], says: str
) -> None:
    columns, _ = small()
    wide = text("wide", *(f"v{place}" for place in range(MAX_WIDTH + 2)))
    with pytest.raises(ValueError, match=says):
        task(family, [*columns, text("only", "x"), wide], label, features, **more)


def test_every_shape_has_a_computation() -> None:
    assert set(SHAPES) == set(FAMILIES) > set(LABELS)


def test_a_sum_that_is_scaled_for_noise_is_not_read_as_whole_numbers() -> None:
    def opened(scale_bits: int) -> OpenedSum:
        blocks = (
            Block(name="rows", length=1, scale_bits=0, variance="0"),
            Block(name="loss", length=2, scale_bits=scale_bits, variance="0"),
        )
        manifest: Any = SimpleNamespace(terms=SimpleNamespace(blocks=blocks))
        survivors: Any = None
        return OpenedSum(manifest, survivors, np.array([2**60 + 1, -3, 4], np.int64))

    assert [block.tolist() for block in opened(0).whole_blocks()] == [[2**60 + 1], [-3, 4]]
    with pytest.raises(ProtocolError, match="no sum of whole numbers"):
        opened(4).whole_blocks()


@pytest.mark.process
def test_no_torch_is_loaded_for_exact_families() -> None:
    program = "import sys, silo_node.data.compute, silo_node.training.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("family", sorted(LABELS))
@pytest.mark.parametrize("size", [1e6, 1e300, -1e308])
def test_at_any_weights_a_silo_adds_what_fits_or_says_that_rows_are_outside(family: str, size: float) -> None:
    columns, rows = small()
    own = task(family, columns, LABELS[family], FEATURES, PARTS.get(family))
    whole = examples(own, rows)
    state = FAMILIES[family].update(own, FAMILIES[family].init(own), summed(own, FAMILIES[family].init(own), [whole]))
    far = state.with_(weights=np.full(len(state["weights"]), size))
    sums = summed(numbered(own, 1), far, [whole])
    if sums["outside"][0]:
        assert not any(sums[name].any() for name in ("loss", "gradient", "hessian"))
    assert all(np.abs(block).max() <= 2**55 for block in sums.values())
    after = far
    for _ in range(40):
        after = FAMILIES[family].update(numbered(own, 1), after, summed(numbered(own, 1), after, [whole]))
        assert all(np.isfinite(values).all() for values in after.numbers.values())
        if after.ended:
            break
    assert after.ended
