"""The model of logistic regression at a silo, and its update by an opened sum: docs/protocol.md section 11.

Promise: silos at the same position of a run have the same weights to the last bit, since each opens the same sums and
updates its model by the same elementwise arithmetic (IEEE 754 doubles).
"""

from decimal import Decimal

import numpy as np

from crypto.errors import ProtocolError
from policies.requests.families import Task
from policies.requests.logistic import GRADIENT_UNITS, WEIGHT_BITS, LogisticStep
from policies.requests.request import Request
from silo_node.training.family import Examples
from silo_node.training.run import Opened, RunState, Term, Vector, state_after

MOST_WEIGHT = 100.0  # log-odds of a column within [-1, 1]: no model of such a weight tells more than one of a smaller


def logistic_step(request: Request) -> LogisticStep:
    """Return the step of a request; raises ProtocolError if it is not a step of logistic regression."""
    if not isinstance(request.plan, LogisticStep):
        raise ProtocolError(f"a step of logistic regression is computed here, not {request.plan.kind}")
    return request.plan


def weights_of(state: RunState | None, request: Request) -> Vector:
    """Return the weights that a step starts from."""
    return np.zeros(logistic_step(request).width(request.table)) if state is None else state.weights


def moved(state: RunState | None, request: Request, position: bytes, opened: Opened, now: int) -> RunState:
    """Return the state after a step, from the two blocks of its opened sum.

    The step must be the next one (`check_position`). Weights that are not finite or leave `MOST_WEIGHT` end the run as
    diverged, judged from the opened sum alone, and those before stand.
    """
    step, before = logistic_step(request), weights_of(state, request)
    velocity = np.zeros_like(before) if state is None else state.velocity
    ended = None if state is None else state.ended
    weights, after = (before, velocity) if ended else _stepped(step, before, velocity, opened)
    if not is_within(weights):
        ended, weights, after = "diverged", before, velocity
    terms = _terms(request, step)
    numbers = {"weights": weights, "velocity": after}
    return state_after(request, position, now, terms, numbers, ended=ended)


def is_within(weights: Vector) -> bool:
    """Tell whether a model's weights are finite and within the bound beyond which a run has diverged."""
    return bool(np.isfinite(weights).all()) and float(np.abs(weights).max(initial=0.0)) <= MOST_WEIGHT


def _stepped(step: LogisticStep, before: Vector, velocity: Vector, opened: Opened) -> tuple[Vector, Vector]:
    """Return the weights and the velocity after a step."""
    (total, (count,)) = opened.blocks()
    if step.is_exact:
        return np.ldexp(total, -WEIGHT_BITS) / count if count > 0 else before, velocity
    mean = total * (float(Decimal(step.clip)) / GRADIENT_UNITS) / max(count, 1.0)
    velocity = float(Decimal(step.momentum)) * velocity + mean
    return before - float(Decimal(step.learning_rate)) * velocity, velocity


def scores(task: Task, state: RunState, examples: Examples) -> Vector:
    """Return the chance of the label of each row."""
    weights = iter(state.weights.tolist())
    odds = np.full(examples.rows, next(weights))
    for name in task.features:
        column, cells = task.table.column(name), examples.cells[name]
        if column.domain:
            for member in range(1, len(column.domain)):
                odds += (cells == member) * next(weights)
        else:
            odds += cells / float(1 if column.type == "bool" else column.range_steps) * next(weights)
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-odds)))


def outcomes(task: Task, examples: Examples) -> Vector:
    """Return whether the label of each row is true."""
    return np.asarray(examples.cells[task.label or ""] > 0, np.float64)


def _terms(request: Request, step: LogisticStep) -> list[Term]:
    terms = [Term(name="(intercept)", middle=0.0, half=1.0)]
    for name in step.features:
        column = request.table.column(name)
        if column.domain:
            terms += [Term(name=f"{name} = {value}", middle=0.0, half=1.0) for value in column.domain[1:]]
        else:
            low, high, grain = column.low or 0, column.high or 0, float(Decimal(column.step or "1"))
            terms.append(Term(name=name, middle=(low + high) / 2 * grain, half=(high - low) / 2 * grain))
    return terms
