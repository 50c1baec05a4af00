"""Multinomial logistic regression of a text: log-odds of each value of its domain against the first.

Rows whose label is the domain's `unknown` are left out. McFadden, Frontiers in Econometrics (1974).
"""

from itertools import combinations_with_replacement

import numpy as np

from policies.requests.families import Task
from silo_node.training.coefficients import fitted, has_model, regression
from silo_node.training.family import Examples, Fitted, State, figure
from silo_node.training.glm import PERFECT_LOSS, Glm, Pointwise, Start, family_of, weight_names
from silo_node.training.grid import Integers, Vector


def _label(task: Task, examples: Examples) -> Integers:
    """Return the place of each row's label among the classes; an unknown one is not among the examples."""
    column = task.label_column
    places = np.zeros(len(column.domain), np.int64)
    for place, value in enumerate(task.classes):
        places[column.domain.index(value)] = place
    return places[examples.cells[task.label or ""]]


def _moments(task: Task, examples: Examples) -> Integers:
    return np.bincount(_label(task, examples), minlength=len(task.classes)).astype(np.int64)


def _start(task: Task, state: State, label: Integers) -> Start:
    state = state.with_(classes=label)
    if not label.all():
        absent = task.classes[int(np.argmin(label))]
        return Start(
            state.at_end("no-maximum", f"{task.label} = {absent}, which no row has,"), np.zeros(len(label) - 1)
        )
    return Start(state, np.log(label[1:] / label[0]))


def _labels(task: Task, state: State, examples: Examples) -> Vector:
    return _outcomes(task, examples)


def _outcomes(task: Task, examples: Examples) -> Vector:
    return _label(task, examples).astype(np.float64)


def _shares(predictors: Vector) -> tuple[Vector, Vector, Vector]:
    """Return the probability of each class but the first, the sum of exponentials, and what was taken out of it."""
    top = np.maximum(predictors.max(0), 0.0)
    shares = np.exp(predictors - top)
    whole = np.exp(-top)
    for each in shares:
        whole = whole + each
    return shares / whole, whole, top


def _mean(task: Task, state: State, predictors: Vector) -> Vector:
    shares, whole, top = _shares(predictors)
    return np.vstack([np.exp(-top) / whole, shares]).T


def _pointwise(predictors: Vector, label: Vector) -> Pointwise:
    shares, whole, top = _shares(predictors)
    is_own = label == np.arange(1, len(predictors) + 1)[:, None]
    own = np.zeros(len(label))
    for each, mask in zip(predictors, is_own, strict=True):
        own[mask] = each[mask]
    pairs = combinations_with_replacement(range(len(predictors)), 2)
    weights = [shares[one] * ((one == other) - shares[other]) for one, other in pairs]
    return Pointwise(np.log(whole) + top - own, shares - is_own, np.array(weights))


def _finish(task: Task, state: State) -> Fitted:
    if not has_model(state):
        return fitted(task, state, (), ())
    outputs, classes = len(task.classes) - 1, state["classes"]
    listings = regression(task, state, weight_names(task, outputs), outputs=outputs)
    null = float((classes * np.log(classes / state.one("rows"))).sum())
    figures = [
        *(figure(f"rows with {value}", float(count)) for value, count in zip(task.classes, classes, strict=True)),
        figure("log-likelihood", -state.one("loss")),
        figure("log-likelihood without features", null),
        figure("pseudo-R2 (McFadden)", 1 + state.one("loss") / null),
    ]
    return fitted(task, state, listings, figures)


FAMILY = family_of(
    Glm(
        _moments,
        _start,
        _labels,
        _pointwise,
        _finish,
        _mean,
        _outcomes,
        outputs=lambda task: len(task.classes) - 1,
        can_run_away=True,
        least_loss=PERFECT_LOSS,
    )
)
