"""Poisson regression of a count by maximum likelihood, with the logarithm as its link and an offset if one is named.

The offset is added to the linear predictor as it is: for an exposure name a column with its logarithm.
"""

import math

import numpy as np

from policies.requests.families import Task
from silo_node.training import design
from silo_node.training.coefficients import fitted, has_model, regression
from silo_node.training.family import Examples, Fitted, State, figure
from silo_node.training.glm import Glm, Pointwise, Start, family_of, weight_names
from silo_node.training.grid import Integers, Vector

_FINE_BITS = 48  # of a row's exposure, as a share of the largest possible one
_LOG_BITS = 36  # of a row's log(count!) and count times offset, which are below 2^25


def _counts(task: Task, examples: Examples) -> Vector:
    middle, half, width = design.span(task.label_column)
    return np.asarray(np.rint(examples.cells[task.label or ""] / float(width) * half + middle), np.float64)


def offset_of(task: Task, examples: Examples) -> Vector | None:
    """Return what is added to the linear predictor of each row, in the column's own units; None without a column."""
    name = task.parts.get("offset")
    if name is None:
        return None
    middle, half, width = design.span(task.table.column(name))
    return np.asarray(examples.cells[name] / float(width) * half + middle, np.float64)


def _most_offset(task: Task) -> float:
    """Return the largest offset that the bounds allow."""
    name = task.parts.get("offset")
    middle, half, _ = design.span(task.table.column(name)) if name is not None else (0.0, 0.0, 1)
    return middle + half


def _moments(task: Task, examples: Examples) -> Integers:
    """Return the sums of the counts, of log(count!), of the exposures, and of the counts times the offsets."""
    counts, offset = _counts(task, examples), offset_of(task, examples)
    offsets = np.zeros(examples.rows) if offset is None else offset
    different, places = np.unique(counts, return_inverse=True)
    factorials = np.array([math.lgamma(count + 1) for count in different], np.float64)
    exposures = np.exp(offsets - _most_offset(task))
    return np.array(
        [
            int(counts.sum()),
            *design.words(_units(factorials, _LOG_BITS)[places]),
            *design.words(_units(exposures, _FINE_BITS)),
            *design.words(_units(counts * offsets, _LOG_BITS)),
        ],
        np.int64,
    )


def _units(values: Vector, bits: int) -> Integers:
    return np.rint(np.ldexp(values, bits)).astype(np.int64)


def _start(task: Task, state: State, label: Integers) -> Start:
    count = int(label[0])
    factorial, exposure, product = design.joined(label[1::2], label[2::2])
    exposed = math.ldexp(exposure, -_FINE_BITS) * math.exp(_most_offset(task))
    state = state.with_(
        counts=float(count),
        factorials=math.ldexp(factorial, -_LOG_BITS),
        exposures=exposed,
        products=math.ldexp(product, -_LOG_BITS),
    )
    if not count or not exposed:
        return Start(state.at_end("no-maximum", f"{task.label}, which is 0 in all rows,"), np.zeros(1))
    mean = count / state.one("rows")
    return Start(state, np.array([math.log(count / exposed)]), 2.0 ** math.ceil(math.log2(mean)))


def _labels(task: Task, state: State, examples: Examples) -> Vector:
    return _counts(task, examples)


def _mean(task: Task, state: State, predictors: Vector) -> Vector:
    return np.asarray(np.exp(predictors[0]))


def _pointwise(predictors: Vector, label: Vector) -> Pointwise:
    (logarithm,) = predictors
    mean = np.exp(logarithm)
    return Pointwise(mean - label * logarithm, (mean - label)[None], mean[None])


def _finish(task: Task, state: State) -> Fitted:
    if not has_model(state):
        return fitted(task, state, (), ())
    count, factorials = state.one("counts"), state.one("factorials")
    rate = count / state.one("exposures")
    likelihood = -state.one("loss") - factorials
    null = state.one("products") + count * math.log(rate) - count - factorials
    figures = (
        figure("sum of counts", count),
        figure("log-likelihood", likelihood),
        figure("log-likelihood without features", null),
        figure("pseudo-R2 (McFadden)", 1 - likelihood / null),
    )
    return fitted(task, state, regression(task, state, weight_names(task)), figures)


FAMILY = family_of(Glm(_moments, _start, _labels, _pointwise, _finish, _mean, _counts, offset_of, can_run_away=True))
