"""Which inputs a network has by the columns of a request, and how many numbers predict its label.

Either all features are one row of numbers, the *dense design*: a number or bool in [-1, 1] by its bounds, a text as one
0 or 1 for each of its values but the first, an array number by number. Or each feature is an input of its own: of a
number or bool one number in [-1, 1], of a text its place in the domain, of an array its numbers in [-1, 1], or whole as
they are where the network looks them up.
"""

from policies.networks.graph import Graph, Input
from policies.requests.shapes import Task, kind_of
from policies.requests.tables import TableColumn

DENSE = "x"  # the name of the one input that is the dense design


def taken(task: Task, *, is_dense: bool, has_wholes: bool) -> tuple[Input, ...]:
    """Return the inputs that a shipped network has; raises ValueError for an array that has no whole numbers."""
    if is_dense:
        return (Input(name=DENSE, shape=(task.width - 1,)),)
    return tuple(
        _input(f"{DENSE}{place}", task.table.column(name), has_wholes=has_wholes)
        for place, name in enumerate(task.features)
    )


def _input(name: str, column: TableColumn, *, has_wholes: bool) -> Input:
    if kind_of(column) == "text":
        return Input(name=name, shape=(), below=len(column.domain))
    if column.type != "array" or not has_wholes:
        return Input(name=name, shape=column.shape)
    _check_wholes(column)
    return Input(name=name, shape=column.shape, below=highest(column) + 1)


def highest(column: TableColumn) -> int:
    """Return the highest whole number of an array."""
    return (column.high or 0) * int(column.step or 1)


def _check_wholes(column: TableColumn) -> None:
    if column.of != "int" or (column.low or 0) < 0:
        raise ValueError(f"{column.name} is looked up in a table, expected an array of int from 0 on; bound it so")


def is_dense(task: Task, graph: Graph) -> bool:
    """Tell whether a graph has one input that is the dense design of the task's features."""
    return len(graph.inputs) == 1 and graph.inputs[0].below is None and graph.inputs[0].shape == (task.width - 1,)


def predicted(task: Task) -> int:
    """Return how many numbers a network gives: one for each class of a text, or its own inputs without a label."""
    if task.label is None:
        return task.width - 1
    return len(task.classes) if kind_of(task.label_column) == "text" else 1


def check_fits(task: Task, graph: Graph, *, numbers: int) -> None:
    """Raise ValueError unless a graph's inputs are those of the task's features, and it gives so many numbers."""
    if graph.result.elements != numbers:
        of = f"label {task.label!r}" if task.label else "its own inputs, as there is no label"
        raise ValueError(f"the network gives {graph.result.elements:,} numbers a row, {of} takes {numbers:,}")
    if is_dense(task, graph):
        return
    if len(graph.inputs) != len(task.features):
        raise ValueError(
            f"the network has {len(graph.inputs)} inputs, and there are {len(task.features)} features, "
            f"which are {task.width - 1:,} numbers in one row"
        )
    if task.options.get("missing", "drop") != "drop":
        raise ValueError('missing: each feature is an input of its own, which no indicator stands beside; take "drop"')
    for one, name in zip(graph.inputs, task.features, strict=True):
        _check_input(one, task.table.column(name))


def _check_input(one: Input, column: TableColumn) -> None:
    shape = column.shape if column.type == "array" else ()
    if one.shape != shape:
        raise ValueError(f"input {one.name} has the shape {list(one.shape)}, and {column.name!r} {list(shape)}")
    if one.below is None:
        if column.domain:
            raise ValueError(f"input {one.name} has reals, and {column.name!r} is a text: its place is a whole number")
        return
    if column.type == "array":
        _check_wholes(column)
    elif not column.domain:
        raise ValueError(f"input {one.name} has whole numbers, and {column.name!r} is a {column.type}")
    values = highest(column) + 1 if column.type == "array" else len(column.domain)
    if values > one.below:
        raise ValueError(f"input {one.name} has numbers below {one.below:,}, and {column.name!r} {values:,} values")
