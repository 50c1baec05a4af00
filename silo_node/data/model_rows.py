"""The rows that a family learns from: bounded per person, whole, and those of a family without noise drawn once a run.

Pure: numbers in, numbers out. A row that lacks a needed cell is left out and counted. Which rows of a person enter,
where there are more than `max_rows`, is drawn by lot. Without noise the lots follow from the run, so that every round
has the same rows and the model one aim; the source is exact, so nothing is promised against whoever knows the choice.
With noise they are the request's own, which nobody knows.
"""

from hashlib import sha512

import numpy as np

from policies.array_steps import Unsigned
from policies.requests.exact import FamilyStep
from policies.requests.families import Task, kind_of
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from silo_node.data.bounding import chosen
from silo_node.data.coded import NO_STEPS, Bools, Integers, Rows, member_of, steps_of
from silo_node.data.lots import Lots
from silo_node.training.family import Examples
from silo_node.training.scoring import model_of

_CONTEXT = b"consilo/1 rows of a run"


def model_rows(rows: Rows, request: Request, is_in: Bools | None) -> Examples:
    """Return the rows of a step of a family; `is_in` says which persons are in, None means all.

    Raises TypeError if the request is no such step.
    """
    step = request.plan.training
    if not isinstance(step, FamilyStep):
        raise TypeError(f"rows are for a step of a family, not for a {request.plan.kind}")
    lots = Lots(sha512(_CONTEXT + step.run).digest()) if step.release == "exact" else Lots()
    return bounded_rows(rows, request, step.task(request.table), is_in, lots)


def judged_rows(rows: Rows, request: Request, is_in: Bools | None) -> Examples:
    """Return the rows that a model is judged by. They are drawn anew each time, by a secret: a sum may have noise."""
    return bounded_rows(rows, request, model_of(request).task(request.table), is_in, Lots())


def bounded_rows(rows: Rows, request: Request, task: Task, is_in: Bools | None, lots: Lots) -> Examples:
    """Return the whole rows of a task's columns, at most `max_rows` of a person, drawn by lot."""
    table = request.table
    masks = [mask for mask in (rows.is_usable, None if is_in is None else is_in[rows.person]) if mask is not None]
    kept = np.flatnonzero(np.logical_and.reduce(masks)) if masks else np.arange(len(rows.person))
    uses = {role: names for role, names in request.plan.uses().items() if role != "held_out"}
    labels = uses.get("label", ())
    columns = {name: table.column(name) for names in uses.values() for name in names}
    arrays = [name for name, column in columns.items() if kind_of(column) == "array"]
    found = {
        name: _cells(rows, column, kept, is_label=name in labels)
        for name, column in columns.items()
        if name not in arrays
    }
    filled = _filled(task)
    present = [there for name, (_, there) in found.items() if name not in filled]
    present += [rows.arrays(name).is_there[kept] for name in arrays]
    is_whole = np.logical_and.reduce(present) if present else np.ones(len(kept), np.bool_)
    whole = kept[is_whole]
    few = chosen(rows.person[whole], rows.persons, table.max_rows, lambda mask: lots.of_rows(rows.runs)[whole[mask]])
    _, person = np.unique(rows.person[whole[few]], return_inverse=True)
    return Examples(
        person.astype(np.int64),
        {name: np.asarray(cells[is_whole][few], np.int64) for name, (cells, _) in found.items()},
        {name: np.asarray(~found[name][1][is_whole][few]) for name in filled},
        int(len(kept) - is_whole.sum()),
        len(np.unique(rows.person[kept[~is_whole]])),
        {name: _at(rows.arrays(name).steps, whole[few]) for name in arrays},
    )


def _at(steps: Unsigned, places: Integers) -> Unsigned:
    """Return the arrays of some rows, whose places rise; of all rows no copy."""
    return steps if len(places) == len(steps) else steps[places]


def _filled(task: Task) -> tuple[str, ...]:
    """Return the features whose missing cells are filled: numbers and bools, as a domain has its own value for them."""
    if task.options.get("missing", "drop") == "drop":
        return ()
    return tuple(name for name in task.features if kind_of(task.table.column(name)) in ("number", "bool"))


def _cells(rows: Rows, column: TableColumn, kept: Integers, is_label: bool) -> tuple[Integers, Bools]:
    """Return the cells of a column as `Examples` has them, and where they are present.

    A text label that is its domain's unknown value is missing: that value stands for a missing cell too.
    """
    if kind_of(column) == "text":
        members = member_of(rows, column, kept).astype(np.int64)
        unknown = column.domain.index(column.unknown) if is_label and column.unknown is not None else -1
        return members, members != unknown
    steps = steps_of(rows, column, kept).astype(np.int64)
    width = 1 if kind_of(column) == "bool" else column.range_steps
    return 2 * np.clip(steps, 0, width) - width, steps != NO_STEPS
