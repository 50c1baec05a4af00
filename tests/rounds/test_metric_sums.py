"""Metrics from sums: what scikit-learn says of the rows, what one row can change, and intervals that hold the truth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as of_sklearn

from analyst.training.metrics import (
    Metric,
    Opened,
    auc_of,
    calibration_of,
    of_chance,
    of_classes,
    of_number,
    of_order,
    opened_of,
)
from policies.requests.families import Task
from policies.requests.metrics import OF_PREDICTION, MetricName, Sum, prediction_of, sums_of
from policies.requests.scores import COARSE, FINE
from silo_node.training.evaluation.classes import in_order, of_chances
from silo_node.training.evaluation.classes import of_classes as sums_of_classes
from silo_node.training.evaluation.errors import of_numbers
from tests.harness.families import number, task, text, truth

Vector = npt.NDArray[np.float64]
CHANCE = OF_PREDICTION["chance"]
LABEL = number("y", -10, 30)
OF_TRUTH = task("logistic-regression", [number("x", 0, 9), truth("ok")], "ok", ("x",))
OF_TEXT = task("multinomial-regression", [number("x", 0, 9), text("ok", "a", "b", "c", "?")], "ok", ("x",))
OF_NUMBER = task("linear-regression", [number("x", 0, 9), LABEL], "y", ("x",))
ODD = (0.0, 1.0, 0.5, np.nextafter(0.5, 1), 1e-300, 1 - 1e-16, 0.02, 0.999, np.nan, np.inf, -np.inf, -3.0, 7.0)


def opened(of: Task, metrics: tuple[MetricName, ...], blocks: Mapping[str, Any], deviation: float = 0.0) -> Opened:
    sums = sums_of(of, metrics, has_noise=deviation > 0)
    found: dict[str, Vector] = {
        name: values.astype(np.float64) for name, values in zip(sums, in_order(sums, blocks), strict=True)
    }
    noise = np.random.default_rng(int(sum(float(one.sum()) for one in found.values())) % 2**32)
    noisy = {
        name: values + deviation * sums[name].most * noise.standard_normal(len(values))
        for name, values in found.items()
    }
    variances = {name: (deviation * one.most) ** 2 for name, one in sums.items()}
    return opened_of(sums, noisy if deviation else found, variances, 1)


def of_rows(scores: Vector, outcomes: Vector, deviation: float = 0.0) -> dict[str, Metric]:
    has_noise = deviation > 0
    sums = sums_of(OF_TRUTH, CHANCE, has_noise=has_noise)
    blocks = of_chances(sums, scores, outcomes, has_noise=has_noise)
    return {one.name: one for one in of_chance(opened(OF_TRUTH, CHANCE, blocks, deviation), CHANCE)}


def fitted(inputs: Vector, outcome: Vector) -> Vector:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    standard = StandardScaler().fit_transform(inputs)
    chances: Vector = LogisticRegression(C=10, max_iter=5000).fit(standard, outcome).predict_proba(standard)[:, 1]
    return chances


@pytest.mark.slow
def test_the_area_of_512_bins_is_scikit_learns() -> None:
    from sklearn.datasets import load_breast_cancer, load_digits

    from tests.harness.public_rows import loan_approvals

    digits, cancer = load_digits(), load_breast_cancer()
    rare = np.random.default_rng(4)
    chances = 1 / (1 + np.exp(6 - rare.normal(size=60_000)))
    of = loan_approvals()
    for name, scores, outcome in (
        ("loanapp", fitted(of.inputs, of.outcome), of.outcome),
        ("breast cancer", fitted(cancer.data, cancer.target), cancer.target.astype(float)),
        ("digits", fitted(digits.data, digits.target > 4), (digits.target > 4).astype(float)),
        ("rare", chances, (rare.random(60_000) < chances).astype(float)),
    ):
        found = of_rows(scores, outcome)["auc"]
        assert found.value == pytest.approx(of_sklearn.roc_auc_score(outcome, scores), abs=0.002), name


def test_what_a_row_adds_is_within_what_its_sum_declares() -> None:
    """The sensitivity of a private block is that of one row times `max_rows`: each row is within it, whatever it is."""
    for has_noise in (True, False):
        for score in ODD:
            for outcome in (0.0, 1.0):
                sums = sums_of(OF_TRUTH, CHANCE, has_noise=has_noise)
                within(sums, of_chances(sums, np.array([score]), np.array([outcome]), has_noise=has_noise))
            each = OF_PREDICTION["classes"]
            for place in range(3):
                sums = sums_of(OF_TEXT, each, has_noise=has_noise)
                scores = np.array([[score, 0.3, -score]])
                within(sums, sums_of_classes(sums, scores, np.array([float(place)]), has_noise=has_noise))
            for label in (-10.0, 30.0, 7.0):
                sums = sums_of(OF_NUMBER, OF_PREDICTION["number"], has_noise=has_noise)
                scores = np.array([40 * score])
                within(sums, of_numbers(LABEL, sums, scores, np.array([label]), has_noise=has_noise))


def within(sums: Mapping[str, Sum], blocks: Mapping[str, Any]) -> None:
    for name, of in sums.items():
        found = np.asarray(blocks[name])
        assert found.shape == (of.length,)
        assert np.abs(found).max() <= of.most, name
        assert np.count_nonzero(found) <= of.changed, name


def test_the_largest_change_of_a_row_is_reached() -> None:
    sums = sums_of(OF_TRUTH, CHANCE, has_noise=True)
    wrong = of_chances(sums, np.array([0.0]), np.array([1.0]), has_noise=True)
    assert {name: int(np.abs(wrong[name]).max()) for name in ("rows", "scores", "loss", "brier")} == {
        name: sums[name].most for name in ("rows", "scores", "loss", "brier")
    }
    sums = sums_of(OF_NUMBER, OF_PREDICTION["number"], has_noise=True)
    far = of_numbers(LABEL, sums, np.array([1e9]), np.array([-10.0]), has_noise=True)
    assert {name: int(np.abs(far[name]).max()) for name in sums} == {name: one.most for name, one in sums.items()}


def test_intervals_hold_the_truth_with_noise_and_without() -> None:
    """In 300 samples of 400 rows, of each metric 92 % or more; the truth is that of 400,000 rows."""
    numbers = np.random.default_rng(11)

    def drawn(rows: int) -> tuple[Vector, Vector]:
        odds = numbers.normal(0.3, 1.2, rows)
        return 1 / (1 + np.exp(-odds)), (numbers.random(rows) < 1 / (1 + np.exp(-1.3 * odds))).astype(float)

    for deviation, bins in ((0.0, FINE), (4.0, COARSE)):
        scores, outcomes = drawn(400_000)
        places = bins.places(scores)
        counts = [np.bincount(places[outcomes == value], minlength=bins.count).astype(float) for value in (0, 1)]
        expected = {
            "accuracy": float(((scores > 0.5) == (outcomes == 1)).mean()),
            "auc": auc_of(*counts),
            "brier": float(((scores - outcomes) ** 2).mean()),
            "log-loss": of_sklearn.log_loss(outcomes, scores),
        }
        held = dict.fromkeys(expected, 0)
        for _ in range(300):
            for name, one in of_rows(*drawn(400), deviation).items():
                if name in expected and one.low is not None and one.high is not None:
                    held[name] += one.low <= expected[name] <= one.high
        assert min(held.values()) >= 0.92 * 300, (deviation, held)


def test_rows_that_tell_nothing_give_no_figure() -> None:
    nobody = of_rows(np.zeros(0), np.zeros(0))
    assert {one.value for one in nobody.values()} == {None}
    one_class = of_rows(np.array([0.2, 0.9]), np.array([1.0, 1.0]))
    assert one_class["auc"].value is None
    assert one_class["accuracy"].value == 0.5
    blocks = {"rows": np.array([0]), "pairs": np.zeros(3, np.int64)}
    assert of_order(opened(cox(), ("c-index",), blocks)) == (Metric("c-index", None),)
    sums = sums_of(OF_NUMBER, ("rmse",), has_noise=False)
    none = of_numbers(LABEL, sums, np.zeros(0), np.zeros(0), has_noise=False)
    assert of_number(opened(OF_NUMBER, ("rmse",), none), ("rmse",), 20.0) == (Metric("rmse", None),)


def cox() -> Task:
    columns = [number("x", 0, 9), number("days", 0, 99), truth("died")]
    return task("cox", columns, None, ("x",), {"time": "days", "event": "died"})


def test_the_c_index_is_of_known_pairs() -> None:
    (found,) = of_order(opened(cox(), ("c-index",), {"rows": np.array([9]), "pairs": np.array([30, 8, 4])}))
    assert found.value == pytest.approx(32 / 42)


def test_calibration_with_noise_is_told_by_the_bins_of_scores() -> None:
    scores = np.repeat([0.1, 0.5, 0.9], 3000)
    outcomes = np.tile(np.arange(3000) % 10 < 3, 3).astype(float)
    sums = sums_of(OF_TRUTH, ("calibration",), has_noise=True)
    found = calibration_of(opened(OF_TRUTH, ("calibration",), of_chances(sums, scores, outcomes, has_noise=True), 4.0))
    assert len(found) == 3
    for one, score in zip(found, (0.1, 0.5, 0.9), strict=True):
        assert one.score == pytest.approx(score, abs=0.07)
        assert one.share == pytest.approx(0.3, abs=0.02)
        assert one.rows == pytest.approx(3000, abs=40)


def test_an_error_beyond_the_bounds_counts_as_their_end_with_noise() -> None:
    scores, outcomes = np.array([50.0, 10.0]), np.array([20.0, 12.0])
    sums = sums_of(OF_NUMBER, ("mae", "rmse"), has_noise=True)
    noisy = of_numbers(LABEL, sums, scores, outcomes, has_noise=True)
    assert noisy["absolute"][0] == pytest.approx((0.5 + 0.1) * 1024, abs=1)
    sums = sums_of(OF_NUMBER, ("mae", "rmse"), has_noise=False)
    blocks = of_numbers(LABEL, sums, scores, outcomes, has_noise=False)
    rmse, mae = of_number(opened(OF_NUMBER, ("rmse", "mae"), blocks), ("rmse", "mae"), 20.0)
    assert rmse.value == pytest.approx(np.sqrt((30**2 + 2**2) / 2), rel=1e-5)
    assert mae.value == pytest.approx(16, rel=1e-5)


def test_metrics_are_those_of_the_prediction() -> None:
    for of, prediction in ((OF_TRUTH, "chance"), (OF_TEXT, "classes"), (OF_NUMBER, "number"), (cox(), "order")):
        assert prediction_of(of) == prediction
    naive = task("naive-bayes", [number("x", 0, 9), truth("ok")], "ok", ("x",))
    assert prediction_of(naive) == "chance"
    parts = task("pca", [number("x", 0, 9), number("z", 0, 9)], None, ("x", "z"))
    with pytest.raises(ValueError, match="pca predicts nothing of a row"):
        sums_of(parts, ("auc",), has_noise=False)
    with pytest.raises(ValueError, match="compares persons with each other"):
        sums_of(cox(), ("c-index",), has_noise=True)
    classes = [f"c{place}" for place in range(70)]
    many = task("multinomial-regression", [number("x", 0, 9), text("ok", *classes, "?")], "ok", ("x",))
    with pytest.raises(ValueError, match="auc of 70 classes, at most 64"):
        sums_of(many, ("auc",), has_noise=False)


def test_classes_are_told_apart_one_against_the_rest() -> None:
    numbers = np.random.default_rng(3)
    scores = numbers.dirichlet((1, 1, 1), 2000)
    outcomes = np.array([numbers.choice(3, p=row) for row in scores]).astype(float)
    every = OF_PREDICTION["classes"]
    sums = sums_of(OF_TEXT, every, has_noise=False)
    blocks = sums_of_classes(sums, scores, outcomes, has_noise=False)
    found = {one.name: one.value for one in of_classes(opened(OF_TEXT, every, blocks), every)}
    assert found["auc"] == pytest.approx(of_sklearn.roc_auc_score(outcomes, scores, multi_class="ovr"), abs=0.002)
    assert found["log-loss"] == pytest.approx(of_sklearn.log_loss(outcomes, scores), abs=1e-6)
    assert found["accuracy"] == pytest.approx((scores.argmax(1) == outcomes).mean())
    one_hot = np.eye(3)[outcomes.astype(int)]
    assert found["brier"] == pytest.approx(((scores - one_hot) ** 2).sum(1).mean(), abs=1e-7)


def test_pairs_of_a_stratum_are_those_of_another_program() -> None:
    from lifelines.utils import concordance_index

    from silo_node.training.evaluation.orders import of_orders
    from tests.harness.families import examples
    from tests.harness.public_rows import patients

    columns, rows = patients(days=20)
    own = task("cox", columns, None, ("age",), {"time": "days", "event": "died"})
    whole = examples(own, rows)
    hazards = rows["age"] - 3.0 * rows["sex"] + rows["ecog"]
    (found,) = of_order(opened(own, ("c-index",), of_orders(own, whole, hazards)))
    assert found.value == pytest.approx(concordance_index(rows["days"], -hazards, rows["died"]), abs=1e-12)
