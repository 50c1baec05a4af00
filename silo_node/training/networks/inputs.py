"""A silo's rows as the inputs of a network and what it is to predict of each: arrays of numpy, rows first."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.networks.graph import Graph, Input
from policies.requests import network_inputs as inputs
from policies.requests.families import Task, kind_of
from policies.requests.networks import guess_of, is_reconstruction
from policies.requests.tables import TableColumn
from silo_node.training import design
from silo_node.training.family import Examples

Arrays = Mapping[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float32]


def inputs_of(task: Task, graph: Graph, examples: Examples) -> Arrays:
    """Return each input by its name: float32, or int64 where an embedding looks it up."""
    if inputs.is_dense(task, graph):
        return {graph.inputs[0].name: _dense(task, examples)}
    columns = [task.table.column(name) for name in task.features]
    return {one.name: _of_column(one, column, examples) for one, column in zip(graph.inputs, columns, strict=True)}


def _dense(task: Task, examples: Examples) -> Floats:
    """Return the dense design, of shape (rows, task.width - 1)."""
    found, place = np.empty((examples.rows, task.width - 1), np.float32), 0
    for term in design.terms(task):
        if term.column.type != "array":
            found[:, place] = design.scaled(term, examples, slice(0, examples.rows))
            place += 1
        elif not term.is_indicator:
            width = prod(term.column.shape)
            found[:, place : place + width] = _scaled(term.column, examples).reshape(examples.rows, width)
            place += width
    return found


def _of_column(one: Input, column: TableColumn, examples: Examples) -> npt.NDArray[Any]:
    """Return one feature as an input of its own; a whole number beyond those of the input is its last one."""
    if one.below is None:
        return _scaled(column, examples)
    if column.type == "array":
        step = int(column.step or 1)
        whole = examples.arrays[column.name].astype(np.int64) * step + (column.low or 0) * step
    else:
        whole = examples.cells[column.name]
    return np.clip(whole, 0, one.below - 1)


def _scaled(column: TableColumn, examples: Examples) -> Floats:
    """Return the numbers of a column in [-1, 1] by its bounds."""
    if column.type == "array":
        return examples.arrays[column.name].astype(np.float32) * np.float32(2 / column.range_steps) - np.float32(1)
    return (examples.cells[column.name] / float(design.span(column)[2])).astype(np.float32)


def targets_of(task: Task, examples: Examples, arrays: Arrays) -> npt.NDArray[Any]:
    """Return what is to be predicted of each row: the place of a class, 0 or 1, a number within [-1, 1].

    Of a network that gives its inputs again it is what `inputs_of` made of the rows, of shape (rows, numbers).
    """
    if not is_reconstruction(task):
        found = _label(task, examples)
        return found if found.dtype == np.int64 else found.astype(np.float32)
    (given,) = arrays.values()
    return given


def _label(task: Task, examples: Examples) -> npt.NDArray[Any]:
    """Return what is true of each row, of shape (rows,)."""
    column, cells = task.label_column, examples.cells[task.label or ""]
    match kind_of(column):
        case "text":
            known = {value: place for place, value in enumerate(task.classes)}
            # A row whose label is the unknown value is left out before, so that its place is never read.
            place_of = np.array([known.get(value, 0) for value in column.domain], np.int64)
            return np.asarray(place_of[cells])
        case "bool":
            return np.asarray(cells > 0, np.float64)
    return np.asarray(cells / float(design.span(column)[2]), np.float64)


def outcomes_of(task: Task, examples: Examples) -> npt.NDArray[np.float64]:
    """Return what is true of each row, as `silo_node.training.family.Judged` has it."""
    found = _label(task, examples).astype(np.float64)
    if kind_of(task.label_column) != "number":
        return found
    middle, half, _ = design.span(task.label_column)
    return np.asarray(found * half + middle)


def typical_of(task: Task, opened: npt.NDArray[np.float64]) -> float:
    """Return the error of a row that is as usual: the last opened loss, or before any that of a guess."""
    return max(float(opened[-1]) if len(opened) else guess_of(task), float(np.finfo(np.float64).tiny))
