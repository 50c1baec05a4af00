"""What the quality of a model's predictions is told from: which sums each metric needs, and what a row adds to them.

A row's part of a sum is a whole number: a count, or a real number rounded to a grid of 2^-bits. Sums with noise bound
what a row can add more narrowly, and have fewer bins, as each number has noise of its own.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from policies.requests.families import SHAPES, Kind, Task, kind_of
from policies.requests.scores import COARSE, FINE, Bins

MetricName = Literal[
    "accuracy", "auc", "average-precision", "brier", "c-index", "calibration", "log-loss", "mae", "r2", "rmse"
]
METRICS: tuple[MetricName, ...] = get_args(MetricName)
Prediction = Literal["chance", "classes", "number", "order"]  # of one value, of each class, a number, who is first
CALIBRATION_BINS = 10
MAX_HISTOGRAMS = 64  # classes whose scores are counted in bins
MOST_LOSS = 4.0  # of a row, in sums with noise: the loss where a chance of 2 % came true
MOST_ERROR = 8.0  # of a row's prediction, in half ranges of the label, in sums without noise
NARROW_ERROR = 2.0  # with noise, where predictions are within the label's bounds
_LOSS_BITS, _SQUARE_BITS, _UNIT_BITS, _COARSE_BITS = 24, 20, 28, 10
_ERROR_BITS, _FOURTH_BITS = 24, 18

# The metrics of each kind of prediction, in the order in which they are shown.
OF_PREDICTION: Mapping[Prediction, tuple[MetricName, ...]] = MappingProxyType(
    {
        "chance": ("accuracy", "auc", "average-precision", "log-loss", "brier", "calibration"),
        "classes": ("accuracy", "auc", "log-loss", "brier", "calibration"),
        "number": ("rmse", "mae", "r2"),
        "order": ("c-index",),
    }
)
# Of which a larger value is the better one; of all others a smaller.
RISING: frozenset[MetricName] = frozenset({"accuracy", "auc", "average-precision", "c-index", "r2"})
# What is predicted of a label by its kind, where a family predicts any.
_OF_LABEL: Mapping[Kind | None, Prediction] = MappingProxyType(
    {"bool": "chance", "text": "classes", "number": "number"}
)


class Sum(NamedTuple):
    """One block: its numbers, the most that a row adds to one of them, how many it changes, and the grid's bits."""

    length: int
    most: int
    changed: int = 1
    bits: int = 0


def prediction_of(task: Task) -> Prediction | None:
    """Return what a family predicts of a row; None where it predicts nothing."""
    shape = SHAPES[task.family]
    if shape.predicts == "class":
        return "chance" if "positive" in shape.options or kind_of(task.label_column) == "bool" else "classes"
    if shape.predicts == "label":
        return None if task.label is None else _OF_LABEL.get(kind_of(task.label_column))
    return shape.predicts


def bins_of(*, has_noise: bool) -> Bins:
    """Return the bins of scores in sums with noise, or without it."""
    return COARSE if has_noise else FINE


def sums_of(task: Task, metrics: Sequence[MetricName], *, has_noise: bool) -> Mapping[str, Sum]:
    """Return the blocks that the metrics need, by name, in order; raises ValueError where one does not fit the task."""
    prediction = prediction_of(task)
    if prediction is None:
        able = ", ".join(name for name, shape in SHAPES.items() if shape.predicts is not None)
        raise ValueError(f"{task.family} predicts nothing of a row, so nothing is judged; families that do: {able}")
    known = OF_PREDICTION[prediction]
    if strange := [name for name in metrics if name not in known]:
        raise ValueError(f"{task.family} of {task.label or 'a time'} has no {strange[0]}; it has {', '.join(known)}")
    match prediction:
        case "number":
            return _of_number(metrics, has_noise=has_noise)
        case "order":
            if has_noise:
                raise ValueError(
                    'the c-index compares persons with each other; it needs sources with release = "exact"'
                )
            return {"rows": Sum(1, 1), "pairs": Sum(3, 0)}
    classes = 2 if prediction == "chance" else len(task.groups)
    return _of_classes(metrics, classes, is_chance=prediction == "chance", has_noise=has_noise)


def _of_classes(metrics: Sequence[MetricName], classes: int, *, is_chance: bool, has_noise: bool) -> Mapping[str, Sum]:
    found = {"rows": Sum(classes, 1)}
    if "accuracy" in metrics:
        found["right"] = Sum(1, 1)
    has_bins = {"auc", "average-precision"} & set(metrics) or ("calibration" in metrics and has_noise and is_chance)
    if has_bins:
        if not is_chance and classes > MAX_HISTOGRAMS:
            raise ValueError(f"auc of {classes} classes, at most {MAX_HISTOGRAMS}; ask for other metrics")
        curves = 1 if is_chance else classes  # a row is in one bin of each curve
        found["scores"] = Sum(2 * curves * bins_of(has_noise=has_noise).count, 1, curves)
    if "log-loss" in metrics:
        bits = _COARSE_BITS if has_noise else _LOSS_BITS
        found["loss"] = Sum(1, int(MOST_LOSS) << bits if has_noise else 2**31, 1, bits)
        if not has_noise:
            found["loss-square"] = Sum(1, 2**31, 1, _SQUARE_BITS)
    if "brier" in metrics:
        bits, most = _COARSE_BITS if has_noise else _UNIT_BITS, 1 if is_chance else 2
        found["brier"] = Sum(1, most << bits, 1, bits)
        if not has_noise:
            found["brier-square"] = Sum(1, most**2 << bits, 1, bits)
    if "calibration" in metrics and not (has_noise and is_chance):
        bits = _COARSE_BITS if has_noise else _UNIT_BITS
        found["calibration-rows"] = Sum(CALIBRATION_BINS, 1)
        found["calibration-scores"] = Sum(CALIBRATION_BINS, 1 << bits, 1, bits)
        found["calibration-right"] = Sum(CALIBRATION_BINS, 1)
    return found


def _of_number(metrics: Sequence[MetricName], *, has_noise: bool) -> Mapping[str, Sum]:
    """Return the sums of errors, in half ranges of the label, and of the label within [-1, 1]."""
    bits = _COARSE_BITS if has_noise else _ERROR_BITS
    largest = int(NARROW_ERROR if has_noise else MOST_ERROR)
    found = {"rows": Sum(1, 1)}
    if {"rmse", "r2"} & set(metrics) or not has_noise:
        found["squared"] = Sum(1, largest**2 << bits, 1, bits)
    if "mae" in metrics:
        found["absolute"] = Sum(1, largest << bits, 1, bits)
    if "r2" in metrics:
        found |= {"label": Sum(1, 1 << bits, 1, bits), "label-square": Sum(1, 1 << bits, 1, bits)}
    if not has_noise:
        found |= {"fourth": Sum(1, largest**4 << _FOURTH_BITS, 1, _FOURTH_BITS), "outside": Sum(1, 1)}
    return found
