"""Curves on a public grid of the time: which bin a row ends in, and which bins make a line that may be shown."""

from collections.abc import Iterator

import numpy as np

from policies.requests.families import Task, curve_grid
from silo_node.training.family import Examples
from silo_node.training.grid import Integers, Vector


def cells_of(task: Task, examples: Examples, divides: str) -> Integers:
    """Return in which bin of which group each row ends, of shape (rows,); the part `divides` is the column of groups.

    All bins of one group come before those of the next.
    """
    grid, column = curve_grid(task), task.table.column(task.parts["time"])
    steps = (examples.cells[column.name] + column.range_steps) // 2 + (column.low or 0)
    return np.asarray(steps // grid.width - grid.first + grid.bins * _groups_of(task, examples, divides))


def _groups_of(task: Task, examples: Examples, divides: str) -> Integers:
    """Return the place of each row's group."""
    name = task.parts.get(divides)
    if name is None:
        return np.zeros(examples.rows, np.int64)
    cells = examples.cells[name]
    return cells if task.table.column(name).domain else (cells > 0).astype(np.int64)


def counted_in(cells: Integers, length: int) -> Integers:
    """Return the rows in each bin."""
    return np.bincount(cells, minlength=length).astype(np.int64)


def stretches(ends: Vector, least: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last bin of each line of a curve: `least` or more rows end in it.

    After it as many are left, or none. Rows that no line can have, as too few are left, are in none.
    """
    first, ended, left = 0, 0.0, float(ends.sum())
    for place in np.flatnonzero(ends):
        ended, left = ended + ends[place], left - ends[place]
        if ended >= least and (left >= least or not left):
            yield first, int(place)
            first, ended = int(place) + 1, 0.0
