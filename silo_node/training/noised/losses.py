"""The slope of each family's loss by the linear predictors of a row, and where a run begins."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from policies.requests.families import Task
from silo_node.training import design
from silo_node.training.families.logistic import share_of
from silo_node.training.grid import Vector

_MOST_LOGARITHM = 30.0  # of an expected count: beyond it only the sign of the slope counts, as it is clipped

# Of the linear predictors, shape (outputs, rows), and the labels of `Judged.outcomes`: slopes of the same shape.
Slope = Callable[[Task, Vector, Vector], Vector]


def _logistic(task: Task, predictors: Vector, label: Vector) -> Vector:
    return np.asarray(share_of(predictors) - label)


def _multinomial(task: Task, predictors: Vector, label: Vector) -> Vector:
    """Return the slope by one predictor for each class; the model compares each with the first."""
    powers = np.exp(predictors - predictors.max(0))
    return np.asarray(powers / powers.sum(0) - (label == np.arange(len(predictors))[:, None]))


def _linear(task: Task, predictors: Vector, label: Vector) -> Vector:
    middle, half, _ = design.span(task.label_column)
    return np.asarray(predictors - (label - middle) / half)


def _poisson(task: Task, predictors: Vector, label: Vector) -> Vector:
    """Return the slope in units of the root of the largest count, so that few are clipped."""
    return np.asarray((np.exp(np.minimum(predictors, _MOST_LOGARITHM)) - label) / count_unit(task))


def count_unit(task: Task) -> float:
    """Return the unit of the slopes of Poisson regression."""
    middle, half, _ = design.span(task.label_column)
    return math.sqrt(max(1.0, middle + half))


SLOPES: Mapping[str, Slope] = MappingProxyType(
    {
        "logistic-regression": _logistic,
        "multinomial-regression": _multinomial,
        "linear-regression": _linear,
        "poisson-regression": _poisson,
    }
)
