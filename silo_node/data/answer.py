"""What coded rows contribute: the figures of a question, or the examples that a step of training learns from.

Pure: numbers in, whole numbers out, the same to the bit however the persons are divided among several calls, as the
figures of parts add up. docs/protocol.md section 4.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from policies.requests.cases import by_name
from policies.requests.moments import product_most, square_most
from policies.requests.persons import PERSONS
from policies.requests.query import CUT, CUT_SLOTS, ROWS, Plan
from policies.requests.request import Request
from policies.requests.statistic import Statistic
from policies.requests.survival import SURVIVAL, grid_of
from policies.requests.tables import Table, TableColumn
from policies.requests.training import TrainingStep
from policies.requests.trees import TREE, tree_over
from silo_node.data import exact, per_person
from silo_node.data.bounding import PairLots, chosen, groups_of_each, of_few_groups
from silo_node.data.cases import places
from silo_node.data.coded import BELOW, NO_STEPS, Bools, Coding, Integers, Rows, member_of, steps_of
from silo_node.data.expressions import with_derived
from silo_node.data.lots import Lots, Words
from silo_node.data.moments import products, squares
from silo_node.data.norms import Owned, has_more, within_norm
from silo_node.data.predicates import holds, is_number
from silo_node.data.survival import trails
from silo_node.data.trees import counts

Vectors = list[npt.NDArray[np.int64]]  # one vector per statistic
_KEYS = 2**40  # apart from the groups of a question, whose lots are drawn for persons too
Grouping = tuple[Integers, int]  # the group of each kept row, by its place, and the number of groups


def codings_of(request: Request) -> Iterator[Coding]:
    """Yield how the columns of a request are coded."""
    table, uses = request.table, request.plan.uses()
    for name in uses.get("dimension", ()):
        yield Coding("member", table.column(name))
    for name in uses.get("filter", ()):
        yield Coding("number" if is_number(table.column(name)) else "member", table.column(name))
    for name in uses.get("key", ()):
        yield Coding("text", table.column(name))
    for name in uses.get("held_out", ()):
        yield Coding("member", table.column(name))
    for role in ("measure", "feature", "label", "audit"):
        for name in uses.get(role, ()):
            column = table.column(name)
            if column.type == "array":
                yield Coding("array", column)
                continue
            is_member = column.type == "bool" or (role != "measure" and column.domain)
            yield Coding("member" if is_member else "steps", column)


def question(rows: Rows, request: Request, is_in: Bools | None, lots: Lots, max_groups: int | None) -> Vectors:
    """Return one vector per statistic of a question, a whole number per group, exact and without noise.

    `is_in` says which persons are in, None means all. An inner question makes one row of all rows of a person first,
    or one for each group of them.
    Of one person rows of at most `max_groups` groups enter, and at most `max_rows` rows, of an L2 norm of at most
    `max_norm` over the groups, a random choice. A total is the sum of 2 * (steps above low) - (range in steps).
    """
    plan, table = request.plan, request.table
    if not isinstance(plan, Plan):
        raise TypeError(f"a question is computed here, not {plan.kind}")
    size, compared = plan.group_count(table), table
    if plan.inner is not None:
        theirs = _kept(rows, is_in, None if plan.inner.where is None else holds(rows, table, plan.inner.where).true)
        rows, is_in = per_person.rows_of(rows, table, plan, plan.inner, theirs), None
        compared = plan.inner.table(table)
    matching = kept = _kept(rows, is_in, None if plan.where is None else holds(rows, compared, plan.where).true)
    table = plan.seen(table)
    rows = with_derived(rows, plan.derived, plan.where, table, compared, kept)
    matching_group = group = _groups(rows, plan, table, compared, kept)
    vectors, statistics = [], plan.statistics(request.table)
    of_rows = any(one not in (PERSONS, CUT) for one in statistics)
    if group is not None and max_groups is not None and of_rows:
        few = of_few_groups(rows.person[kept], rows.persons, group, size, max_groups, _pairs(rows, lots))
        kept, group = kept[few], group[few]
    of_groups = None if matching_group is None else (matching_group, size)
    bounded = (
        _bounded(rows, kept, table, None if group is None else (group, size), lots)
        if of_rows
        else np.zeros(len(kept), np.bool_)
    )
    kept = kept[bounded]
    group = np.zeros(len(kept), np.int64) if group is None else group[bounded]
    grouped = Grouped(rows, table, kept, group, size)
    most = table.max_rows if max_groups is None else min(table.max_rows, max_groups)
    for statistic in statistics:
        if statistic == PERSONS:
            vectors.append(per_person.counted(rows, matching, of_groups, most, _pairs(rows, lots)))
        elif statistic == CUT:
            columns = tuple(map(table.column, plan.valued(request.table)))
            if of_rows:
                vectors.append(_cut(rows, columns, matching, of_groups, max_groups, table))
            else:  # no row is left out of a number of persons, but a person of groups
                vectors.append(_cut(rows, columns, matching, of_groups, most, None))
        elif statistic.kind == SURVIVAL:
            vectors.append(grouped.trails(statistic, None if plan.curve is None else plan.curve.width))
        elif statistic == ROWS:
            vectors.append(np.bincount(group, minlength=size).astype(np.int64))
        else:
            vectors.append(_FIGURES[statistic.kind](grouped, statistic))
    return vectors


def _cut(
    rows: Rows,
    columns: Iterable[TableColumn],
    kept: Integers,
    grouping: Grouping | None,
    most_groups: int | None,
    bounds: Table | None,
) -> npt.NDArray[np.int64]:
    """Return how many of the persons with a kept row have nothing cut, rows only, values only, and both.

    No lot is needed: rows are left out of who has more than the bounds' `max_rows` or `max_norm`, or rows in more than
    `most_groups` of the groups; a value is cut that lies outside its bounds.
    """
    person = rows.person[kept]
    counts = np.bincount(person, minlength=rows.persons)
    has_fewer_rows, has_other_values = np.zeros((2, rows.persons), np.bool_)
    if bounds is not None and bounds.max_norm is not None and grouping is not None:
        has_fewer_rows |= has_more(Owned(person, rows.persons, *grouping), bounds.max_rows, bounds.max_norm)
    elif bounds is not None:
        has_fewer_rows |= counts > bounds.most_in_a_group
    if grouping is not None and most_groups is not None:
        has_fewer_rows |= groups_of_each(person, rows.persons, *grouping, most_groups) > most_groups
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
    bounded = _few(rows, kept, request.table.max_rows, lots)  # however long: the gradient of a person is clipped
    _, person = np.unique(rows.person[kept[bounded]], return_inverse=True)
    return [person.astype(np.int64), *(column[bounded].astype(np.int64) for column, _ in cells)]


def _example_cells(rows: Rows, table: Table, step: TrainingStep, kept: Integers) -> Iterator[tuple[Integers, Bools]]:
    """Yield the label and each feature of the kept rows, and where it is present."""
    label = steps_of(rows, table.column(step.label or ""), kept)
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


def _bounded(rows: Rows, kept: Integers, table: Table, grouping: Grouping | None, lots: Lots) -> Bools:
    """Return which of the kept rows are in: of each person those within `max_rows`, and `max_norm` over the groups."""
    if table.max_norm is None or grouping is None:
        return _few(rows, kept, table.most_in_a_group, lots)
    owned = Owned(rows.person[kept], rows.persons, *grouping)
    return within_norm(owned, table.max_rows, table.max_norm, lambda mask: _lots(rows, kept[mask], lots))


def _few(rows: Rows, kept: Integers, most: int, lots: Lots) -> Bools:
    """Return which of the kept rows are in: at most `most` of each person."""
    return chosen(rows.person[kept], rows.persons, most, lambda mask: _lots(rows, kept[mask], lots))


def _lots(rows: Rows, places: Integers, lots: Lots) -> Words:
    """Return the lots of the rows at some places."""
    if rows.key is None:
        return lots.of_rows(rows.runs)[places]
    return lots.of_pairs(rows.person[places] + rows.first_person, rows.key[places] + _KEYS)


def _pairs(rows: Rows, lots: Lots) -> PairLots:
    return lambda persons, groups: lots.of_pairs(persons + rows.first_person, groups)


def _groups(rows: Rows, plan: Plan, table: Table, compared: Table, kept: Integers) -> Integers | None:
    """Return the group of each kept row, by its place among the plan's groups; None for a question without groups.

    `compared` is the definition by which conditions compare: of a count that is grouped by, its bounds.
    """
    found: Integers | None = None
    known, made = by_name(plan.cases), by_name(() if plan.inner is None else plan.inner.cases)
    for name in plan.group_by:
        if name in made:
            place, size = rows.members(name).codes[kept], len(made[name].groups)
        elif name in known:
            place, size = places(rows, compared, known[name])[kept], len(known[name].groups)
        else:
            place, size = member_of(rows, table.column(name), kept), len(table.column(name).domain)
        found = place.astype(np.int64) if found is None else found * size + place
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """The kept rows of a question, and the group of each."""

    rows: Rows
    table: Table
    kept: Integers
    group: Integers
    size: int  # the number of groups

    def present(self, statistic: Statistic) -> tuple[Integers, list[Integers]]:
        """Return of the rows where all columns of a statistic are present the group, and the steps of each column."""
        columns = [self.table.column(name) for name in statistic[1:] if name is not None]
        cells = [steps_of(self.rows, column, self.kept) for column in columns]
        is_present = np.logical_and.reduce([one != NO_STEPS for one in cells])
        clipped = zip(cells, columns, strict=True)
        return self.group[is_present], [np.clip(one[is_present], 0, column.range_steps) for one, column in clipped]

    def trails(self, statistic: Statistic, width: int | None) -> npt.NDArray[np.int64]:
        """Return the trails of the survival curves of all groups."""
        time, event = (self.table.column(str(name)) for name in (statistic.column, statistic.other))
        since, is_event = (steps_of(self.rows, one, self.kept) for one in (time, event))
        return trails(self.group, self.size, since, is_event, time, grid_of(time, width))

    def count(self, group: Integers) -> npt.NDArray[np.int64]:
        """Return how many there are of each group."""
        return np.bincount(group, minlength=self.size).astype(np.int64)

    def sums(self, group: Integers, values: Integers, most: int) -> npt.NDArray[np.int64]:
        """Return the exact sum of the values of each group; a value is at least 0 and at most `most`.

        The sums must fit 64 bits.
        """
        return exact.sums(group, values, self.size, most)


def _present(grouped: Grouped, statistic: Statistic) -> npt.NDArray[np.int64]:
    return grouped.count(grouped.present(statistic)[0])


def _tree(grouped: Grouped, statistic: Statistic) -> npt.NDArray[np.int64]:
    """Return the rows of every node of each group's tree; a cell that is missing is in none."""
    group, (steps, *_) = grouped.present(statistic)
    return counts(group, steps, grouped.size, tree_over(grouped.table.column(str(statistic.column))))


def _total(grouped: Grouped, statistic: Statistic) -> npt.NDArray[np.int64]:
    """Return the sum of twice the distance of each cell from the middle of its bounds, for each group."""
    group, (steps, *_) = grouped.present(statistic)
    most = grouped.table.column(str(statistic.column)).range_steps
    return 2 * grouped.sums(group, steps, most) - most * grouped.count(group)


def _square(grouped: Grouped, statistic: Statistic) -> npt.NDArray[np.int64]:
    """Return the sum of twice what `squares` says of each cell, less the most, for each group.

    A cell that is missing although none can be counts as the middle, as it does in a total.
    """
    column = grouped.table.column(str(statistic.column))
    group, (steps, *_) = grouped.present(statistic)
    figures, most = squares(steps.astype(np.int64), column), square_most(column)
    found = 2 * grouped.sums(group, figures, most) - most * grouped.count(group)
    if not column.can_be_missing:
        beside = Statistic("present", statistic.other)
        everywhere = grouped.count(grouped.group) if statistic.other is None else _present(grouped, beside)
        found += most * (everywhere - grouped.count(group))
    return found


def _product(grouped: Grouped, statistic: Statistic) -> npt.NDArray[np.int64]:
    """Return the sum of the product of two columns' centred cells, for each group; one that is missing is 0."""
    columns = grouped.table.column(str(statistic.column)), grouped.table.column(str(statistic.other))
    group, cells = grouped.present(statistic)
    first, second = (2 * steps.astype(np.int64) - one.range_steps for steps, one in zip(cells, columns, strict=True))
    most = product_most(*columns)
    figures = products(first, second, columns)
    return grouped.sums(group, figures + most, 2 * most) - most * grouped.count(group)


# Each kind of statistic of a column, or of two, from its cells.
_FIGURES: Mapping[str, Callable[[Grouped, Statistic], npt.NDArray[np.int64]]] = MappingProxyType(
    {
        TREE: _tree,
        "present": _present,
        "total": _total,
        "square": _square,
        "product": _product,
    }
)
