"""How a run with noise descends: rate, momentum and decay by what is public of it, fixed before any run.

One number keys the table: the *relative noise* of a run, the noise in the mean gradient over all rounds, as a share of
the clip norm, times the root of the weights. It follows from the noised count of persons, the price, the silos and the
width of the model. The rows were chosen on scikit-learn's breast cancer and digits (0 to 4 against 5 to 9) alone, at
epsilon 0.5 to 8, and for the last row with each person there up to 60 times: of a grid the descent that carries the
least noise into the model, while its AUC on both is within .015 of the best. `tests/bench/noised.py` says what it is.
"""

import math
from dataclasses import dataclass

from policies.requests.families import Task
from policies.requests.noised_families import has_moments, outputs

MOST_DECAY = 0.1
_USUAL_FEATURES = 65  # with more, gradients are longer, and steps shorter
# What a second moment is multiplied by to be about the curvature of the loss: the variance of a label, p (1 - p).
CURVATURE = {"logistic-regression": 0.15, "multinomial-regression": 0.15, "linear-regression": 1.0}
_STEEPER = {
    "linear-regression": 0.25,
    "poisson-regression": 0.25,
}  # of the rate: losses that curve more than a logistic


@dataclass(frozen=True, slots=True)
class Descent:
    """How a run descends."""

    rate: float
    momentum: float
    decay: float
    is_preconditioned: bool


# The relative noise from which a row counts; the rate, the momentum, the decay as so many times the relative noise,
# and whether the second moment preconditions.
TABLE: tuple[tuple[float, float, float, float, bool], ...] = (
    (1 / 45, 0.5, 0.7, 0.7, False),
    (1 / 540, 1.0, 0.7, 1.4, False),
    (0.0, 1.0, 0.0, 0.36, True),
)


def relative_noise(task: Task, persons: float, deviation: float) -> float:
    """Return the relative noise of a run with this deviation of each number of a round, as a share of the clip norm."""
    return deviation * math.sqrt(task.width * outputs(task)) / (persons * math.sqrt(max(1, task.rounds - 1)))


def descent(task: Task, persons: float, deviation: float) -> Descent:
    """Return how a run descends; the options that its job names stand for those of the table."""
    noise = relative_noise(task, persons, deviation)
    _, rate, momentum, decay, is_preconditioned = next(row for row in TABLE if noise >= row[0])
    if is_preconditioned and not (has_moments(task) and task.family in CURVATURE):
        _, rate, momentum, decay, is_preconditioned = TABLE[-2]
    if not is_preconditioned:
        rate *= min(1.0, _USUAL_FEATURES / (1 + len(task.features))) * _STEEPER.get(task.family, 1.0)
    return Descent(
        _named(task, "rate", rate),
        _named(task, "momentum", momentum),
        _named(task, "decay", min(MOST_DECAY, decay * noise)),
        is_preconditioned,
    )


def _named(task: Task, option: str, otherwise: float) -> float:
    value = task.options[option]
    return float(value) if value else otherwise
