"""Which rows end with the event, in families of the time to an event."""

import numpy as np

from policies.requests.families import Task, kind_of
from silo_node.training.family import Bools, Examples


def happened(task: Task, examples: Examples) -> Bools:
    """Return which rows end with the event: shape (rows,)."""
    name = task.parts["event"]
    column, cells = task.table.column(name), examples.cells[name]
    if kind_of(column) == "text":
        return np.asarray(cells == column.domain.index(task.options["positive"]))
    return np.asarray(cells > 0)
