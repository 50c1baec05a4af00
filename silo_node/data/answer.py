"""What coded rows contribute: the figures of a question, or the examples that a step of training learns from.

Pure: numbers in, whole numbers out, the same to the bit however the persons are divided among several calls, as the
figures of parts add up. docs/protocol.md section 4.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from policies.requests.persons import PERSONS
from policies.requests.query import CUT, CUT_SLOTS, Plan
from policies.requests.request import Request
from policies.requests.tables import Table, TableColumn
from policies.requests.training import TrainingStep
from silo_node.data import exact, per_person
from silo_node.data.bounding import PairLots, chosen, groups_of_each, of_few_groups
from silo_node.data.coded import BELOW, NO_STEPS, Bools, Coding, Integers, Rows, member_of, steps_of
from silo_node.data.lots import Lots
from silo_node.data.predicates import holds, is_number

Vectors = list[npt.NDArray[np.int64]]  # one vector per statistic


def codings_of(request: Request) -> Iterator[Coding]:
    """Yield how the columns of a request are coded."""
    table, uses = request.table, request.plan.uses()
    for name in uses.get("dimension", ()):
        yield Coding("member", table.column(name))
    for name in uses.get("filter", ()):
        yield Coding("number" if is_number(table.column(name)) else "member", table.column(name))
    for role in ("measure", "feature", "label"):
        for name in uses.get(role, ()):
            column = table.column(name)
            is_member = column.type == "bool" or (role == "feature" and column.domain)
            yield Coding("member" if is_member else "steps", column)


def question(rows: Rows, request: Request, is_in: Bools | None, lots: Lots, max_groups: int | None) -> Vectors:
    """Return one vector per statistic of a question, a whole number per group, exact and without noise.

    `is_in` says which persons are in, None means all. An inner question makes one row of all rows of a person first.
    Of one person rows of at most `max_groups` groups enter, and at most `max_rows` rows, a random choice. A total is
    the sum of 2 * (steps above low) - (range in steps).
    """
    plan, table = request.plan, request.table
    if not isinstance(plan, Plan):
        raise TypeError(f"a question is computed here, not {plan.kind}")
    size, compared = plan.group_count(table), table
    if plan.inner is not None:
        theirs = _kept(rows, is_in, None if plan.inner.where is None else holds(rows, table, plan.inner.where).true)
        rows, is_in = per_person.rows_of(rows, table, plan, plan.inner, theirs), None
        table, compared = plan.seen(table), plan.inner.table(table)
    matching = kept = _kept(rows, is_in, None if plan.where is None else holds(rows, compared, plan.where).true)
    matching_group = group = _groups(rows, plan, table, kept)
    vectors, statistics = [], plan.statistics(request.table)
    of_rows = any(one not in (PERSONS, CUT) for one in statistics)
    if group is not None and max_groups is not None and of_rows:
        few = of_few_groups(rows.person[kept], rows.persons, group, size, max_groups, _pairs(rows, lots))
        kept, group = kept[few], group[few]
    bounded = _bounded(rows, kept, table.max_rows, lots) if of_rows else np.zeros(len(kept), np.bool_)
    kept = kept[bounded]
    group = np.zeros(len(kept), np.int64) if group is None else group[bounded]
    of_groups = None if matching_group is None else (matching_group, size)
    most = table.max_rows if max_groups is None else min(table.max_rows, max_groups)
    for statistic in statistics:
        kind, name = statistic
        if statistic == PERSONS:
            vectors.append(per_person.counted(rows, matching, of_groups, most, _pairs(rows, lots)))
        elif statistic == CUT:
            columns = tuple(map(table.column, plan.valued(request.table)))
            if of_rows:
                vectors.append(_cut(rows, columns, matching, of_groups, max_groups, table.max_rows))
            else:  # no row is left out of a number of persons, but a person of groups
                vectors.append(_cut(rows, columns, matching, of_groups, most, None))
        elif name is None:
            vectors.append(np.bincount(group, minlength=size).astype(np.int64))
        else:
            column = table.column(name)
            cells = steps_of(rows, column, kept)
            is_present = cells != NO_STEPS
            present = np.clip(cells[is_present], 0, column.range_steps)
            vectors.append(_FIGURES[kind](Grouped(group[is_present], present, size, column.range_steps)))
    return vectors


def _cut(
    rows: Rows,
    columns: Iterable[TableColumn],
    kept: Integers,
    of_groups: tuple[Integers, int] | None,
    most_groups: int | None,
    most_rows: int | None,
) -> npt.NDArray[np.int64]:
    """Return how many of the persons with a kept row have nothing cut, rows only, values only, and both.

    No lot is needed: rows are left out of who has more than `most_rows`, or rows in more than `most_groups` of the
    groups (the group of each row, and the number of groups); a value is cut that lies outside its bounds.
    """
    person = rows.person[kept]
    counts = np.bincount(person, minlength=rows.persons)
    has_fewer_rows, has_other_values = np.zeros((2, rows.persons), np.bool_)
    if most_rows is not None:
        has_fewer_rows |= counts > most_rows
    if of_groups is not None and most_groups is not None:
        has_fewer_rows |= groups_of_each(person, rows.persons, *of_groups, most_groups) > most_groups
    for column in columns:
        cells = steps_of(rows, column, kept)
        is_clamped = (cells == BELOW) | (cells > column.range_steps)
        has_other_values[person[is_clamped]] = True
    slots = has_fewer_rows + 2 * has_other_values.astype(np.int64)
    return np.bincount(slots[counts > 0], minlength=CUT_SLOTS).astype(np.int64)


def examples(rows: Rows, request: Request, is_in: Bools | None, lots: Lots) -> Vectors:
    """Return the rows that a step of training learns from, by column: the person, the label, every feature in order.

    Persons are numbered from 0. A label is 0 or 1; a feature with a domain is the place of its value in it, any other
    2 * (steps above low) - (range in steps). A row where one of them is missing is left out.
    """
    step = request.plan.training
    if step is None:
        raise TypeError(f"examples are for training, not for a {request.plan.kind}")
    kept = _kept(rows, is_in, None)
    cells = list(_example_cells(rows, request.table, step, kept))
    is_whole = np.logical_and.reduce([present for _, present in cells])
    kept, cells = kept[is_whole], [(column[is_whole], present) for column, present in cells]
    bounded = _bounded(rows, kept, request.table.max_rows, lots)
    _, person = np.unique(rows.person[kept[bounded]], return_inverse=True)
    return [person.astype(np.int64), *(column[bounded].astype(np.int64) for column, _ in cells)]


def _example_cells(rows: Rows, table: Table, step: TrainingStep, kept: Integers) -> Iterator[tuple[Integers, Bools]]:
    """Yield the label and each feature of the kept rows, and where it is present."""
    label = steps_of(rows, table.column(step.label), kept)
    yield label, label != NO_STEPS
    for name in step.features:
        column = table.column(name)
        if column.domain:
            yield member_of(rows, column, kept), np.ones(len(kept), np.bool_)
        else:
            cells = steps_of(rows, column, kept).astype(np.int64)
            yield 2 * np.clip(cells, 0, column.range_steps) - column.range_steps, cells != NO_STEPS


def added(parts: Iterable[Vectors]) -> Vectors:
    """Return the sum of what several parts of the persons contribute to a question."""
    total: Vectors = []
    for part in parts:
        total = [one + other for one, other in zip(total, part, strict=True)] if total else part
    return total


def _kept(rows: Rows, is_in: Bools | None, is_true: Bools | None) -> Integers:
    """Return the places of the rows of persons who are in, where the filter is true."""
    masks = [rows.is_usable, is_true, None if is_in is None else is_in[rows.person]]
    given = [mask for mask in masks if mask is not None]
    return np.flatnonzero(np.logical_and.reduce(given)) if given else np.arange(len(rows.person))


def _bounded(rows: Rows, kept: Integers, most: int, lots: Lots) -> Bools:
    """Return which of the kept rows are in: at most `most` of each person."""
    return chosen(rows.person[kept], rows.persons, most, lambda mask: lots.of_rows(rows.runs)[kept[mask]])


def _pairs(rows: Rows, lots: Lots) -> PairLots:
    return lambda persons, groups: lots.of_pairs(persons + rows.first_person, groups)


def _groups(rows: Rows, plan: Plan, table: Table, kept: Integers) -> Integers | None:
    """Return the group of each kept row, by its place among the plan's groups; None for a question without groups."""
    found: Integers | None = None
    for name in plan.group_by:
        column = table.column(name)
        place = member_of(rows, column, kept)
        found = place.astype(np.int64) if found is None else found * len(column.domain) + place
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """The cells of a column that are present, in steps above the lower bound, and the group of each."""

    group: Integers
    steps: Integers  # 0 to range_steps
    size: int  # the number of groups
    range_steps: int

    def count(self) -> npt.NDArray[np.int64]:
        """Return the number of cells of each group."""
        return np.bincount(self.group, minlength=self.size).astype(np.int64)

    def sums(self, values: Integers, most: int) -> npt.NDArray[np.int64]:
        """Return the exact sum of one value a cell, for each group; a value is at least 0 and at most `most`.

        The sums must fit 64 bits.
        """
        return exact.sums(self.group, values, self.size, most)

    def total(self) -> npt.NDArray[np.int64]:
        """Return the sum of twice the distance of each cell from the middle of its bounds, for each group."""
        return 2 * self.sums(self.steps, self.range_steps) - self.range_steps * self.count()


# Each kind of statistic of a column, from its cells.
_FIGURES: Mapping[str, Callable[[Grouped], npt.NDArray[np.int64]]] = MappingProxyType(
    {
        "present": Grouped.count,
        "total": Grouped.total,
    }
)
