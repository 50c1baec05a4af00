"""An audit of decisions that are made already, by group: of the decisions alone, or beside what turned out to be true.

One round counts the rows of each group by decision and truth. What the counts say is in `policies/fairness/`.
"""

from collections.abc import Mapping

import numpy as np

from policies.fairness.audit import Audit, audit_of
from policies.fairness.counts import Counts
from policies.requests.audited import groups_of
from policies.requests.families import Task, audited_by, kind_of
from silo_node.training.audited import persons_of, places_of
from silo_node.training.family import Examples, Family, Fitted, State, figure
from silo_node.training.grid import Integers


def _statistics(task: Task, state: State, examples: Examples) -> list[Integers]:
    columns, truth = audited_by(task), task.parts.get("truth")
    groups = len(groups_of(columns))
    group, place = places_of(task, columns, examples), _is_positive(task, task.label or "", examples)
    truths = 1 if truth is None else 2
    if truth is not None:
        place = place + 2 * _is_positive(task, truth, examples)
    rows = np.bincount(group * 2 * truths + place, minlength=groups * 2 * truths).astype(np.int64)
    return [rows, persons_of(examples, group, groups), np.array([examples.left_out], np.int64)]


def _is_positive(task: Task, name: str, examples: Examples) -> Integers:
    column, cells = task.table.column(name), examples.cells[name]
    if kind_of(column) == "text":
        return np.asarray(cells == column.domain.index(task.options["positive"]), np.int64)
    return np.asarray(cells > 0, np.int64)


def _update(task: Task, state: State, sums: Mapping[str, Integers]) -> State:
    if state.ended is not None:
        return state
    found = State().with_(rows=sums["rows"], persons=sums["persons"], left_out=sums["left-out"])
    return found.at_end("complete" if _audit(task, found).has_gaps else "too-few-rows")


def _audit(task: Task, state: State) -> Audit:
    columns = audited_by(task)
    groups = groups_of(columns)
    rows = state["rows"].reshape(len(groups), -1, 2)
    counts = Counts(groups, state["persons"], rows, np.zeros(rows.shape), task.table.max_rows)
    return audit_of(counts, int(task.options["min_cohort"]), " and ".join(column.name for column in columns))


def _finish(task: Task, state: State) -> Fitted:
    if not state.numbers:
        return Fitted(listings=(), figures=())
    audit = _audit(task, state)
    figures = (figure("rows left out", state.one("left_out")),)
    return Fitted(listings=audit.listings, figures=figures, notes=tuple(one[:400] for one in audit.notes))


FAMILY = Family(lambda task: State(), _statistics, _update, _finish)
