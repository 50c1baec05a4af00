"""A silo's rows as the inputs of a network and what it is to predict of each: arrays of numpy, rows first."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.requests import network_inputs as inputs
from policies.requests.families import Task, kind_of
from silo_node.training import design
from silo_node.training.family import Examples

Arrays = Mapping[str, npt.NDArray[Any]]


def inputs_of(task: Task, examples: Examples) -> Arrays:
    """Return each input by its name: float32, or int64 where an embedding looks it up."""
    return {inputs.DENSE: _dense(task, examples)}


def _dense(task: Task, examples: Examples) -> npt.NDArray[np.float32]:
    """Return the dense design, of shape (rows, task.width - 1)."""
    found = np.empty((examples.rows, task.width - 1), np.float32)
    for place, term in enumerate(design.terms(task)):
        found[:, place] = design.scaled(term, examples, slice(0, examples.rows))
    return found


def targets_of(task: Task, examples: Examples) -> npt.NDArray[Any]:
    """Return what is to be predicted, of shape (rows,): the place of a class, 0 or 1, or a number within [-1, 1]."""
    column, cells = task.label_column, examples.cells[task.label or ""]
    match kind_of(column):
        case "text":
            known = {value: place for place, value in enumerate(task.classes)}
            # A row whose label is the unknown value is left out before, so that its place is never read.
            place_of = np.array([known.get(value, 0) for value in column.domain], np.int64)
            return np.asarray(place_of[cells])
        case "bool":
            return np.asarray(cells > 0, np.float32)
    return np.asarray(cells / float(design.span(column)[2]), np.float32)


def outcomes_of(task: Task, examples: Examples) -> npt.NDArray[np.float64]:
    """Return what is true of each row, as `silo_node.training.family.Judged` has it."""
    found = targets_of(task, examples).astype(np.float64)
    if kind_of(task.label_column) != "number":
        return found
    middle, half, _ = design.span(task.label_column)
    return np.asarray(found * half + middle)
