"""Metrics of a model from opened sums, each with an interval: pure.

Promise: an interval covers what further rows of the same kind, and the noise, leave open; with 95 % of both together.
It takes rows of different persons as independent and those of one person as alike. Accuracy: Wilson, JASA 22 (1927);
AUC: DeLong et al., Biometrics 44 (1988), on bins; average precision: Boyd et al., ECML 2013; means: of their variance,
or where only the mean is opened of the largest that it can have, Bhatia and Davis, Am. Math. Monthly 107 (2000).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policies.fairness.shares import ALPHA, z_of
from policies.requests.metrics import MOST_LOSS, NARROW_ERROR, MetricName, Sum, bins_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure and its interval; None where the rows do not tell it."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows of like scores: their mean score, and the share of them in which it came true."""

    rows: float
    score: float
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """The opened sums of some rows by name, in units of one row, with the variance of the noise in each number."""

    sums: Mapping[str, Sum]
    values: Mapping[str, Floats]
    noise: Mapping[str, float]
    has_noise: bool
    rows_per_person: int

    def one(self, name: str) -> float:
        """Return the only number of a block."""
        return float(self.values[name][0])

    @property
    def rows(self) -> float:
        return float(self.values["rows"].sum())

    @property
    def rows_noise(self) -> float:
        return self.noise["rows"] * len(self.values["rows"])


def opened_of(
    sums: Mapping[str, Sum], blocks: Mapping[str, Floats], noise: Mapping[str, float], rows_per_person: int
) -> Opened:
    """Return opened blocks, in whole units of their grids, in units of one row."""
    values = {name: np.ldexp(np.asarray(blocks[name], np.float64), -one.bits) for name, one in sums.items()}
    scaled = {name: noise[name] * 4.0**-one.bits for name, one in sums.items()}
    return Opened(sums, values, scaled, any(noise.values()), rows_per_person)


def of_chance(opened: Opened, metrics: tuple[MetricName, ...]) -> tuple[Metric, ...]:
    """Return the metrics of a chance."""
    found = list(_of_rows(opened, metrics, 1.0))
    if "auc" in metrics:
        found.append(_auc(opened, *_curves(opened)))
    if "average-precision" in metrics:
        found.append(_average_precision(opened, *_curves(opened)))
    return _in_order(found, metrics)


def of_classes(opened: Opened, metrics: tuple[MetricName, ...]) -> tuple[Metric, ...]:
    """Return the metrics of classes; the AUC is the mean of those of each class against all others."""
    found = list(_of_rows(opened, metrics, 2.0))
    if "auc" in metrics:
        negatives, positives = _curves(opened)
        each = [_auc(opened, *one) for one in zip(negatives, positives, strict=True)]
        known = [one for one in each if one.value is not None]
        found.append(_mean_of(known) if known else Metric("auc", None))
    return _in_order(found, metrics)


def of_number(opened: Opened, metrics: tuple[MetricName, ...], half: float) -> tuple[Metric, ...]:
    """Return the metrics of a number, whose label has bounds of half the width `half` in its own unit."""
    found, rows = [], opened.rows
    if rows <= 0:
        return tuple(Metric(name, None) for name in metrics)
    largest = NARROW_ERROR**2
    if "squared" in opened.values:
        fourth = opened.one("fourth") if "fourth" in opened.values else None
        square = _mean(opened, "squared", fourth, largest)
        if square.value is not None and square.low is not None and square.high is not None:
            root = [half * math.sqrt(max(0.0, one)) for one in (square.value, square.low, square.high)]
            found.append(Metric("rmse", *root))
    if "absolute" in opened.values:
        square_sum = opened.one("squared") if "squared" in opened.values and not opened.has_noise else None
        mean = _mean(opened, "absolute", square_sum, NARROW_ERROR)
        ends = [None if one is None else half * one for one in (mean.value, mean.low, mean.high)]
        found.append(Metric("mae", *ends))
    if "r2" in metrics:
        found.append(_r2(opened))
    return _in_order(found, metrics)


def of_order(opened: Opened) -> tuple[Metric, ...]:
    """Return the C-index: of pairs of which it is known who has the event first, the share that scores tell."""
    told, wrong, tied = opened.values["pairs"]
    known = told + wrong + tied
    return (Metric("c-index", None if known <= 0 else float((told + tied / 2) / known)),)


def calibration_of(opened: Opened) -> tuple[CalibrationBin, ...]:
    """Return the bins that have rows; with noise those with more than three of its deviations."""
    if "calibration-rows" in opened.values:
        rows, score, right = (opened.values[f"calibration-{name}"] for name in ("rows", "scores", "right"))
        least = 3 * math.sqrt(opened.noise["calibration-rows"])
    elif opened.has_noise and "scores" in opened.values:
        negatives, positives = _curves(opened)
        rows, right = negatives + positives, positives
        score, least = rows * bins_of(has_noise=True).middles, 3 * math.sqrt(2 * opened.noise["scores"])
    else:
        return ()
    kept = rows > least
    each = zip(rows[kept], score[kept] / rows[kept], right[kept] / rows[kept], strict=True)
    return tuple(CalibrationBin(*map(float, (count, mean, min(1.0, max(0.0, share))))) for count, mean, share in each)


def _in_order(found: list[Metric], metrics: tuple[MetricName, ...]) -> tuple[Metric, ...]:
    by_name = {one.name: one for one in found}
    return tuple(by_name[name] for name in metrics if name in by_name)


def _of_rows(opened: Opened, metrics: tuple[MetricName, ...], most_square: float) -> list[Metric]:
    """Return the metrics that are means over rows."""
    found = []
    if "accuracy" in metrics:
        found.append(_accuracy(opened))
    for name, block, most in (("log-loss", "loss", MOST_LOSS), ("brier", "brier", most_square)):
        if name in metrics:
            square = f"{block}-square"
            found.append(
                Metric(
                    name, *_ends(_mean(opened, block, opened.one(square) if square in opened.values else None, most))
                )
            )
    return found


def _ends(metric: Metric) -> tuple[float | None, float | None, float | None]:
    return metric.value, metric.low, metric.high


def _mean(opened: Opened, block: str, squares: float | None, most: float) -> Metric:
    """Return the mean of a block's numbers over rows; `squares` is the sum of their squares, None if not opened."""
    rows = opened.rows
    if rows <= 0:
        return Metric(block, None)
    mean = opened.one(block) / rows
    if squares is None:
        inside = min(max(mean, 0.0), most)
        variance = inside * (most - inside)
    else:
        variance = max(0.0, squares / rows - mean**2)
    noise = (opened.noise[block] + mean**2 * opened.rows_noise) / rows**2
    half = z_of(ALPHA) * math.sqrt(variance * opened.rows_per_person / rows + noise)
    return Metric(block, mean, max(0.0, mean - half), mean + half)


def _accuracy(opened: Opened) -> Metric:
    """Return the share of rows that are right, and all shares that are within z deviations of it: Wilson's interval."""
    right, rows, square = opened.one("right"), opened.rows, z_of(ALPHA) ** 2
    if rows <= 0:
        return Metric("accuracy", None)
    spread = square * opened.rows_per_person * rows
    leading = rows * rows + spread - square * opened.rows_noise
    middle, last = right * rows + spread / 2, right * right - square * opened.noise["right"]
    inside = middle * middle - leading * last
    value = min(1.0, max(0.0, right / rows))
    if leading <= 0 or inside < 0:
        return Metric("accuracy", value, 0.0, 1.0)
    root = math.sqrt(inside)
    return Metric("accuracy", value, max(0.0, (middle - root) / leading), min(1.0, (middle + root) / leading))


def _curves(opened: Opened) -> tuple[Floats, Floats]:
    """Return how many rows are in each bin of scores, where it is not true and where it is; of classes by class."""
    scores, count = opened.values["scores"], bins_of(has_noise=opened.has_noise).count
    by_curve = scores.reshape(-1, 2, count)
    found = by_curve[0] if len(by_curve) == 1 else by_curve.transpose(1, 0, 2)
    return found[0], found[1]


def auc_of(negatives: Floats, positives: Floats) -> float:
    """Return the area under the curve of two histograms of scores; rows of one bin count as equal."""
    below = np.cumsum(negatives) - negatives / 2
    return float((positives * below).sum() / (positives.sum() * negatives.sum()))


def average_precision_of(negatives: Floats, positives: Floats) -> float:
    """Return the mean precision over the recalls of two histograms of scores, from the highest bin down."""
    true, false = np.cumsum(positives[::-1]), np.cumsum(negatives[::-1])
    told = true + false
    precision = np.divide(true, told, out=np.zeros_like(told), where=told > 0)
    return float((precision * positives[::-1]).sum() / positives.sum())


def _auc(opened: Opened, negatives: Floats, positives: Floats) -> Metric:
    count, others = float(positives.sum()), float(negatives.sum())
    if count <= 0 or others <= 0:
        return Metric("auc", None)
    value = auc_of(negatives, positives)
    below = (np.cumsum(negatives) - negatives / 2) / others  # of each positive, how many negatives it exceeds
    above = (count - np.cumsum(positives) + positives / 2) / count
    sampled = _variance(positives, below, value, count) + _variance(negatives, above, value, others)
    noise = opened.noise["scores"] * float(
        (((below - value) / count) ** 2).sum() + (((above - value) / others) ** 2).sum()
    )
    half = z_of(ALPHA) * math.sqrt(max(0.0, sampled) * opened.rows_per_person + noise)
    return Metric("auc", min(1.0, max(0.0, value)), max(0.0, min(value - half, 1.0)), min(1.0, max(value + half, 0.0)))


def _variance(weights: Floats, values: Floats, mean: float, count: float) -> float:
    """Return the variance of the mean of values that have these numbers of rows."""
    kept = np.maximum(weights, 0.0)
    return float((kept * (values - mean) ** 2).sum()) / (count * max(count - 1, 1.0))


def _average_precision(opened: Opened, negatives: Floats, positives: Floats) -> Metric:
    count = float(positives.sum())
    if count <= 0 or negatives.sum() < 0:
        return Metric("average-precision", None)
    value = average_precision_of(negatives, positives)
    inside = min(max(value, 1e-6), 1 - 1e-6)
    z, logit = z_of(ALPHA), math.log(inside / (1 - inside))
    sampled = opened.rows_per_person / (count * inside * (1 - inside))
    slopes = _slopes(lambda both: average_precision_of(both[0], both[1]), np.stack([negatives, positives]))
    noise = opened.noise["scores"] * float((slopes**2).sum()) / (inside * (1 - inside)) ** 2
    half = z * math.sqrt(sampled + noise)
    low, high = ((1 + math.tanh(one / 2)) / 2 for one in (logit - half, logit + half))
    return Metric("average-precision", min(1.0, max(0.0, value)), low, high)


def _slopes(function: Callable[[Floats], float], at: Floats) -> Floats:
    """Return how much a figure changes with each number, per row, by a step of one row up and down."""
    found = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        one = np.zeros_like(at)
        one[place] = 1.0
        found[place] = (function(at + one) - function(at - one)) / 2
    return found


def _r2(opened: Opened) -> Metric:
    """Return the share of the label's variance that predictions tell; an interval only where it is above 0."""
    rows, squared = opened.rows, opened.one("squared")
    label, square = opened.one("label"), opened.one("label-square")
    spread = square - label**2 / rows
    if spread <= 0:
        return Metric("r2", None)
    value = 1 - squared / spread
    if value <= 0:
        return Metric("r2", value)
    sampled = 4 * value * (1 - value) ** 2 * opened.rows_per_person / rows
    mean = label / rows
    variance = opened.noise["squared"] + (1 - value) ** 2 * (
        opened.noise["label-square"] + 4 * mean**2 * opened.noise["label"] + mean**4 * opened.rows_noise
    )
    half = z_of(ALPHA) * math.sqrt(sampled + variance / spread**2)
    return Metric("r2", value, value - half, min(1.0, value + half))


def _mean_of(each: list[Metric]) -> Metric:
    """Return the mean of some areas; its interval is as wide as if all erred alike."""
    ends = ([one.value or 0.0, one.low or 0.0, one.high or 0.0] for one in each)
    return Metric("auc", *map(float, np.mean(list(ends), axis=0)))
