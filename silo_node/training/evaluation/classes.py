"""What predictions of a value add: the chance of one value, or that of each class. Whole numbers, rounded by row."""

from collections.abc import Iterator, Mapping

import numpy as np

from policies.requests.metrics import CALIBRATION_BINS, MOST_LOSS, Sum, bins_of
from policies.requests.scores import LEAST
from silo_node.training.grid import Integers, Vector


def of_chances(sums: Mapping[str, Sum], scores: Vector, outcomes: Vector, *, has_noise: bool) -> dict[str, Integers]:
    """Return the blocks of a chance: `scores` and `outcomes`, which are 0 or 1, have the shape (rows,)."""
    chances = np.clip(np.nan_to_num(scores, nan=0.0), 0.0, 1.0)
    truth = outcomes.astype(np.int64)
    is_right = (chances > 0.5) == (truth == 1)
    of_truth = np.where(truth == 1, chances, 1 - chances)
    found = {"rows": np.bincount(truth, minlength=2)}
    found["scores"] = _curve(chances, truth, has_noise=has_noise)
    squares = (chances - truth) ** 2
    return found | _common(sums, is_right, of_truth, squares, (chances, truth), has_noise=has_noise)


def of_classes(sums: Mapping[str, Sum], scores: Vector, outcomes: Vector, *, has_noise: bool) -> dict[str, Integers]:
    """Return the blocks of classes: `scores` has the shape (rows, classes), `outcomes` (rows,) the place of each."""
    classes, truth = sums["rows"].length, outcomes.astype(np.int64)
    chances = np.clip(np.nan_to_num(scores, nan=0.0), 0.0, 1.0).reshape(len(truth), classes)
    told = chances.argmax(1) if len(truth) else truth
    is_right = told == truth
    rows = np.arange(len(truth))
    is_it = np.zeros(chances.shape)
    is_it[rows, truth] = 1.0
    found = {"rows": np.bincount(truth, minlength=classes)}
    if "scores" in sums:
        curves = (
            _curve(chances[:, one], (truth == one).astype(np.int64), has_noise=has_noise) for one in range(classes)
        )
        found["scores"] = np.concatenate(list(curves))
    squares = np.minimum(((chances - is_it) ** 2).sum(1), 2.0)
    of_told = chances[rows, told], is_right.astype(np.int64)
    return found | _common(sums, is_right, chances[rows, truth], squares, of_told, has_noise=has_noise)


def _curve(chances: Vector, truth: Integers, *, has_noise: bool) -> Integers:
    """Return how many rows where it is not true, and then where it is, are in each bin of scores."""
    bins = bins_of(has_noise=has_noise)
    return np.bincount(bins.places(chances) + bins.count * truth, minlength=2 * bins.count)


def _common(
    sums: Mapping[str, Sum],
    is_right: Vector,
    of_truth: Vector,
    squares: Vector,
    calibrated: tuple[Vector, Integers],
    *,
    has_noise: bool,
) -> dict[str, Integers]:
    """Return the blocks that both kinds have; `of_truth` is the chance of what was true, of each row."""
    losses = -np.log(np.maximum(of_truth, LEAST))
    if has_noise:
        losses = np.minimum(losses, MOST_LOSS)
    chances, truth = calibrated
    bins = np.minimum((chances * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    values = {"right": is_right, "loss": losses, "loss-square": losses**2, "brier": squares, "brier-square": squares**2}
    found = {name: np.array([units(value, sums[name])]) for name, value in values.items() if name in sums}
    if "calibration-rows" in sums:
        found["calibration-rows"] = np.bincount(bins, minlength=CALIBRATION_BINS)
        found["calibration-right"] = np.bincount(bins[truth == 1], minlength=CALIBRATION_BINS)
        each = rounded(chances, sums["calibration-scores"])
        by_bin = np.zeros(CALIBRATION_BINS, np.int64)
        np.add.at(by_bin, bins, each)
        found["calibration-scores"] = by_bin
    return found


def rounded(values: Vector, of: Sum) -> Integers:
    """Return each row's number in units of the sum's grid, half to even, and at most what a row may add."""
    with np.errstate(over="ignore"):
        found = np.rint(np.ldexp(np.asarray(values, np.float64), of.bits))
    return np.asarray(np.clip(found, -of.most, of.most), np.int64)


def units(values: Vector, of: Sum) -> int:
    """Return the sum of all rows' rounded numbers."""
    return int(rounded(values, of).sum())


def in_order(sums: Mapping[str, Sum], found: Mapping[str, Integers]) -> Iterator[Integers]:
    """Yield the blocks that are asked, in their order, as 64-bit integers."""
    for name in sums:
        yield np.asarray(found[name], np.int64)
