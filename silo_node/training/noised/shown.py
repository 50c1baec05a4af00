"""What the owners see of a model that was fitted with noise: coefficients, and what the noise alone may have changed.

The interval of a descent is for what the same program would give without noise, not for the fit of the pooled rows: a
clip that binds, decay and few rounds move both alike. It is wide enough: its deviation is that of noise which no later
gradient pulls back, so at least 95 % of runs are within.
"""

import math
from collections.abc import Sequence

import numpy as np

from policies.requests.families import Task
from policies.requests.noised_families import outputs
from silo_node.training import design
from silo_node.training.coefficients import LEVEL
from silo_node.training.distributions import normal_quantile
from silo_node.training.family import Fitted, Line, Listing, State, figure, line
from silo_node.training.glm import weight_names
from silo_node.training.grid import Vector

OF_PROGRAM = (
    "the intervals are for what the same program would give without noise, not for the fit of the pooled rows: clip,"
    " decay and the number of rounds change both alike"
)
OF_PROGRAM_WIDE = "they are wide enough: they take noise as if no later round pulled the model back"


def shown(task: Task, state: State) -> Fitted:
    """Return the coefficients of a descent in the units of the columns, with what the noise may have changed."""
    has_model = len(state.numbers.get("accepted", ())) > 0
    listings = (_coefficients(task, state),) if has_model else ()
    notes = [*_end(state), *((OF_PROGRAM, OF_PROGRAM_WIDE) if has_model else ())]
    return Fitted(listings=listings, figures=tuple(counted(state)), notes=tuple(note[:400] for note in notes))


def counted(state: State) -> list[Line]:
    """Return the noised counts with their deviations."""
    if not state.numbers:
        return []
    found = [
        figure("persons, with noise", state.one("persons")),
        figure("deviation of that noise", state.one("persons_noise")),
    ]
    if len(state["left_out"]):
        count, deviation = state["left_out"]
        found.append(figure("persons with a row left out", count))
        found.append(figure("deviation of its noise", deviation))
    return found


def _end(state: State) -> list[str]:
    match state.ended:
        case "diverged":
            return [
                "stopped: the weights grew without end; the last good model stands; take a smaller rate or more rounds"
            ]
        case "too-few-rows":
            return ["too few persons: their count is not above its noise; ask more silos, or with a larger epsilon"]
        case _:
            return []


def _coefficients(task: Task, state: State) -> Listing:
    change, _ = design.natural(task, state)
    scale, shift = 1.0, 0.0
    if task.family == "linear-regression":
        middle, half, _ = design.span(task.label_column)
        scale, shift = half, middle
    variance, classes = _variance(task, state), max(1, outputs(task) - 1)
    variance = (2.0 if outputs(task) > 1 else 1.0) * change @ variance @ change.T  # of a class against the first
    names = weight_names(task, classes)
    values = np.concatenate([change @ own for own in state["accepted"].reshape(classes, task.width)])
    spread = np.tile(np.diag(variance), classes)
    values, spread = scale * values, scale * scale * spread
    values[0] += shift
    return interval_listing(names, values, spread)


def interval_listing(names: Sequence[str], values: Vector, variances: Vector) -> Listing:
    """Return coefficients with the deviation that noise gives each, and the ends of an interval."""
    quantile, lines = normal_quantile((1 + LEVEL) / 2), []
    for name, value, variance in zip(names, values, variances, strict=True):
        deviation = math.sqrt(max(0.0, float(variance)))
        numbers = (value, deviation, value - quantile * deviation, value + quantile * deviation)
        lines.append(line(name, numbers))
    headings = ("coefficient", "noise", "2.5 %", "97.5 %")
    return Listing(name="coefficients", headings=headings, lines=tuple(lines))


def _variance(task: Task, state: State) -> Vector:
    """Return the variance of the weights of one output by the noise of all rounds, of shape (width, width), at most."""
    width, rate, momentum = task.width, state.one("rate"), state.one("momentum")
    done = int(state.one("taken"))
    noise = state.one("noise") ** 2
    if len(state["factor"]):
        factor = state["factor"].reshape(width, width)
        return noise * carried(task, done, rate, momentum, 0.0) * (factor @ factor.T)
    with_decay = carried(task, done, rate, momentum, state.one("decay"))
    return noise * np.diag(np.r_[carried(task, done, rate, momentum, 0.0), np.full(width - 1, with_decay)])


def carried(task: Task, done: int, rate: float, momentum: float, decay: float) -> float:
    """Return the sum of squares of what the noise of each round, of deviation 1, adds to a weight of the model."""
    half = (task.rounds - 1) // 2
    averaged = range(half + 1, done + 1) if done > half else range(done, done + 1)
    # A unit of noise in a round moves the weight by `reply[lag]` so many rounds later.
    reply, velocity = [0.0], 0.0
    for lag in range(done):
        velocity = momentum * velocity + (1.0 if lag == 0 else 0.0) + decay * reply[-1]
        reply.append(reply[-1] - rate * velocity)
    found = 0.0
    for origin in range(1, done + 1):
        effect = sum(reply[number - origin + 1] for number in averaged if number >= origin) / len(averaged)
        found += effect * effect
    return found
