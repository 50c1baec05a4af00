"""Linear regression by least squares, of a number or a bool; its intervals are those of Student's t."""

import math

import numpy as np

from policies.requests.families import Task
from silo_node.training import design
from silo_node.training.coefficients import fitted, has_model, regression
from silo_node.training.family import Examples, Fitted, Line, State, figure
from silo_node.training.glm import Glm, Pointwise, Start, family_of, weight_names
from silo_node.training.grid import Integers, Vector


def label_moments(task: Task, examples: Examples) -> Integers:
    """Return the label's sum and sum of squares, the latter in two parts."""
    units = np.rint(np.ldexp(_label(task, examples), design.UNIT_BITS)).astype(np.int64)
    return np.array([int(units.sum()), *design.words(units * units)], np.int64)


def _label(task: Task, examples: Examples) -> Vector:
    cells = examples.cells[task.label or ""]
    return np.asarray(cells / float(design.span(task.label_column)[2]), np.float64)


def start(task: Task, state: State, label: Integers) -> Start:
    """Return the state with the label's mean and deviation, by which it is standardised, and the weight 0."""
    rows, total = int(state.one("rows")), int(label[0])
    (square,) = design.joined(label[1:2], label[2:3])
    deviation = (rows * square - total * total) ** 0.5 / rows / 2**design.UNIT_BITS
    state = state.with_(label_mean=total / rows / 2**design.UNIT_BITS, label_deviation=deviation or 1.0)
    return Start(state, np.zeros(1))


def labels(task: Task, state: State, examples: Examples) -> Vector:
    """Return the standardised label."""
    return (_label(task, examples) - state.one("label_mean")) / state.one("label_deviation")


def pointwise(predictors: Vector, label: Vector) -> Pointwise:
    """Return half the squared residual of each row."""
    residual = predictors[0] - label
    return Pointwise(residual * residual / 2, residual[None], np.ones((1, len(label))))


def in_units(task: Task, state: State) -> tuple[float, float]:
    """Return what one standardised unit of the label is in its own units, and where its 0 lies."""
    middle, half, _ = design.span(task.label_column)
    return half * state.one("label_deviation"), middle + half * state.one("label_mean")


def mean(task: Task, state: State, predictors: Vector) -> Vector:
    """Return the expected label in its own units."""
    scale, shift = in_units(task, state)
    return np.asarray(shift + scale * predictors[0])


def outcomes(task: Task, examples: Examples) -> Vector:
    """Return the label in its own units."""
    middle, half, _ = design.span(task.label_column)
    return np.asarray(middle + half * _label(task, examples))


def squares(task: Task, state: State) -> tuple[float, float]:
    """Return the sums of squared residuals and of squared distances from the mean, in standardised units."""
    mean = float(state["first_slope"][0]) / state.one("rows")
    return 2 * state.one("loss"), 2 * state.one("first_loss") - state.one("rows") * mean * mean


def finish(task: Task, state: State) -> Fitted:
    """Return the coefficients with t statistics, and how much of the label's variance they explain."""
    if not has_model(state):
        return fitted(task, state, (), ())
    rows, kept = state.one("rows"), int((state["kept"] > 0).sum())
    scale, shift = in_units(task, state)
    left, whole = squares(task, state)
    listings = regression(task, state, weight_names(task), scale, shift, variance=left / (rows - kept), df=rows - kept)
    return fitted(task, state, listings, tuple(explained(rows, kept, left, whole, scale)))


def explained(rows: float, kept: int, left: float, whole: float, scale: float) -> list[Line]:
    """Return the figures of a least squares fit; `left` and `whole` are sums of squares in units of `scale`."""
    residual = left * scale * scale
    share = left / whole if whole > 0 else math.nan
    likelihood = -rows / 2 * (math.log(2 * math.pi * residual / rows) + 1) if residual > 0 else math.nan
    return [
        figure("log-likelihood", likelihood),
        figure("R2", 1 - share),
        figure("adjusted R2", 1 - share * (rows - 1) / (rows - kept)),
        figure("residual standard error", math.sqrt(residual / (rows - kept))),
        figure("degrees of freedom", rows - kept),
    ]


FAMILY = family_of(Glm(label_moments, start, labels, pointwise, finish, mean, outcomes))
