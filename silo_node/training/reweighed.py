"""Weights of rows by which a group's label does not depend on the group: Kamiran and Calders, KAIS 33 (2012).

The first round counts the rows of each group and label, in all silos together. Every later round multiplies a row's
loss and derivatives by the weight of its cell, so the model is that of `statsmodels` with these as frequency weights.
"""

import math
from collections.abc import Mapping

import numpy as np

from policies.fairness.mending import reweighing
from policies.requests.audited import members_of
from policies.requests.families import Task
from silo_node.training.family import Examples, State
from silo_node.training.grid import Integers, Vector

_LABELS = 2


def is_reweighed(task: Task) -> bool:
    """Tell whether the job asks for weights."""
    return task.options.get("weights", "none") != "none"


def member_of(task: Task, name: str, examples: Examples) -> Integers:
    """Return the place of each row's value among `members_of` a bool or a text."""
    cells = examples.cells[name]
    return np.asarray(cells > 0, np.int64) if task.table.column(name).type == "bool" else cells


def cells(task: Task, examples: Examples, positive: Vector) -> list[Integers]:
    """Return the rows of each group and label, in one block; none where no weights are asked for."""
    if not is_reweighed(task):
        return []
    length = _LABELS * len(members_of(task.table.column(task.parts["group"])))
    return [np.bincount(_cell(task, examples, positive), minlength=length).astype(np.int64)]


def weighed(task: Task, state: State, sums: Mapping[str, Integers]) -> State:
    """Return the state with the weight of each cell, by the opened counts."""
    if not is_reweighed(task):
        return state
    counts = sums["cells"].reshape(-1, _LABELS).astype(np.float64)
    return state.with_(cells=counts.ravel(), cell_weights=reweighing(counts).ravel())


def weights_of(task: Task, state: State, examples: Examples, positive: Vector) -> Vector | None:
    """Return the weight of each row, of shape (rows,); None where all weigh the same.

    A cell that was empty in the first round, and is not since consent changed, has the weight 0.
    """
    if not is_reweighed(task):
        return None
    return np.asarray(state["cell_weights"][_cell(task, examples, positive)])


def unit_of(state: State) -> float:
    """Return a power of two that no weight exceeds, in units of which the loss of a row is at most that without it."""
    weights = state.numbers.get("cell_weights")
    return 1.0 if weights is None else 2.0 ** max(0, math.ceil(math.log2(max(float(weights.max()), 1.0))))


def _cell(task: Task, examples: Examples, positive: Vector) -> Integers:
    return member_of(task, task.parts["group"], examples) * _LABELS + positive.astype(np.int64)
