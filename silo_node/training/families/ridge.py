"""Ridge regression: least squares with half of `penalty` times the squares of the standardised weights.

Standardised is by the deviation over all rows of all silos; the intercept is not penalised. Hoerl and Kennard,
Technometrics 12 (1970).
"""

import numpy as np

from policies.requests.families import Task
from silo_node.training.coefficients import fitted, has_model, regression
from silo_node.training.families.linear import (
    explained,
    in_units,
    label_moments,
    labels,
    mean,
    outcomes,
    pointwise,
    squares,
    start,
)
from silo_node.training.family import Fitted, State
from silo_node.training.glm import Glm, family_of, weight_names
from silo_node.training.grid import Vector
from silo_node.training.newton import covariance


def penalty(task: Task) -> float:
    """Return the penalty, in units of the label's variance: the label is standardised, and so are its squares."""
    return float(task.options["penalty"])


def finish(task: Task, state: State) -> Fitted:
    """Return the coefficients; their errors are those of the penalised estimate, whose bias they do not tell."""
    if not has_model(state):
        return fitted(task, state, (), ())
    rows, weights, own = state.one("rows"), state["accepted"], penalty(task)
    scale, shift = in_units(task, state)
    left, whole = squares(task, state)
    left -= own * float(weights[1:] @ weights[1:])
    shrunk = covariance(state)
    # The Hessian without the penalty between two inverses with it: the covariance of an estimate that is shrunk.
    bare = np.diag(np.r_[0.0, np.full(len(weights) - 1, own)])
    spread: Vector = shrunk - shrunk @ bare @ shrunk
    df = rows - (float(state["kept"].sum()) - own * float(np.trace(shrunk[1:, 1:])))  # by the trace of the hat matrix
    listings = regression(task, state, weight_names(task), scale, shift, variance=left / df, df=df, spread=spread)
    figures = [line for line in explained(rows, 0, left, whole, scale) if line.name == "R2"]
    return fitted(task, state, listings, figures)


FAMILY = family_of(Glm(label_moments, start, labels, pointwise, finish, mean, outcomes, penalty=penalty))
