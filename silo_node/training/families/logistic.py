"""Logistic regression by maximum likelihood, of a bool or of one value of a text against the others."""

import math

import numpy as np

from policies.requests.families import Task, kind_of
from silo_node.training.coefficients import fitted, has_model, regression
from silo_node.training.family import Examples, Fitted, State, figure
from silo_node.training.glm import PERFECT_LOSS, Glm, Pointwise, Start, family_of, weight_names
from silo_node.training.grid import Integers, Vector
from silo_node.training.reweighed import is_reweighed


def labels_of(task: Task, examples: Examples) -> Vector:
    """Return 1 for the rows that have the positive value, else 0."""
    column, cells = task.label_column, examples.cells[task.label or ""]
    if kind_of(column) == "text":
        return np.asarray(cells == column.domain.index(task.options["positive"]), np.float64)
    return np.asarray(cells > 0, np.float64)


def _moments(task: Task, examples: Examples) -> Integers:
    positive = int(labels_of(task, examples).sum())
    return np.array([examples.rows - positive, positive], np.int64)


def _start(task: Task, state: State, label: Integers) -> Start:
    negative, positive = map(int, label)
    state = state.with_(classes=label)
    if not negative or not positive:
        return Start(state.at_end("no-maximum", f"{task.label}, which is the same in all rows,"), np.zeros(1))
    return Start(state, np.array([math.log(positive / negative)]))


def _labels(task: Task, state: State, examples: Examples) -> Vector:
    return labels_of(task, examples)


def share_of(odds: Vector) -> Vector:
    """Return the probability that log-odds stand for; no exponential overflows."""
    small = np.exp(-np.abs(odds))
    return np.asarray(np.where(odds >= 0, 1.0, small) / (1.0 + small))


def _mean(task: Task, state: State, predictors: Vector) -> Vector:
    return share_of(predictors[0])


def _pointwise(predictors: Vector, label: Vector) -> Pointwise:
    (odds,) = predictors
    small = np.exp(-np.abs(odds))
    share = np.where(odds >= 0, 1.0, small) / (1.0 + small)
    loss = np.maximum(odds, 0.0) - odds * label + np.log1p(small)
    return Pointwise(loss, (share - label)[None], (small / ((1.0 + small) * (1.0 + small)))[None])


def _finish(task: Task, state: State) -> Fitted:
    if not has_model(state):
        return fitted(task, state, (), ())
    classes = state["classes"]
    weighed = (state["cells"] * state["cell_weights"]).reshape(-1, 2).sum(0) if is_reweighed(task) else classes
    null = float((weighed * np.log(weighed / weighed.sum())).sum())
    figures = (
        figure("rows with the positive value", float(classes[1])),
        figure("log-likelihood", -state.one("loss")),
        figure("log-likelihood without features", null),
        figure("pseudo-R2 (McFadden)", 1 + state.one("loss") / null),
    )
    notes = (f"rows weigh so that {task.label} does not depend on {task.parts['group']}",) if is_reweighed(task) else ()
    return fitted(task, state, regression(task, state, weight_names(task)), figures, more=notes)


FAMILY = family_of(
    Glm(
        _moments,
        _start,
        _labels,
        _pointwise,
        _finish,
        _mean,
        labels_of,
        can_run_away=True,
        least_loss=PERFECT_LOSS,
    )
)
