"""Persons as rows: how many there are by group, and one row of all rows of each person for an inner question.

An inner question that groups by more than the person makes one row for each group of them.

Pure, and the same to the bit however the persons are divided among several calls. No row of a person is left out: what
bounds a person is that there is one row of each, within public bounds. `policies.requests.persons` has the definitions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.requests.persons import Inner, InnerColumn
from policies.requests.query import Plan
from policies.requests.tables import Table, TableColumn
from silo_node.data.bounding import PairLots, chosen, different
from silo_node.data.cases import places as places_of
from silo_node.data.coded import (
    BELOW,
    NO_MEMBER,
    NO_NUMBER,
    NO_STEPS,
    Aspect,
    Cells,
    Integers,
    Members,
    Numbers,
    Rows,
    Steps,
    at,
    member_of,
    steps_of,
)
from silo_node.data.exact import sums
from silo_node.data.predicates import holds

_NANOS = 10**9
_SAFE = 2**62  # below it a product of whole numbers is exact in 64 bits
_TRUTH = ("false", "true")
Whole = npt.NDArray[np.int64]


def counted(rows: Rows, kept: Integers, of_groups: tuple[Integers, int] | None, most: int, draw: PairLots) -> Whole:
    """Return the number of persons with a kept row, by group; of the groups of a person `most` count, drawn by lot.

    `of_groups` has the group of each kept row, and the number of groups.
    """
    person = rows.person[kept]
    if of_groups is None:
        return np.array([np.count_nonzero(np.bincount(person, minlength=rows.persons))], np.int64)
    group, groups = of_groups
    pairs = different(person.astype(np.int64) * groups + group)
    owner, of = pairs // groups, pairs % groups
    is_in = chosen(owner, rows.persons, most, lambda mask: draw(owner[mask], of[mask]))
    return np.bincount(of[is_in], minlength=groups).astype(np.int64)


def rows_of(rows: Rows, table: Table, plan: Plan, inner: Inner, kept: Integers) -> Rows:
    """Return one row of each person with a kept row, or one for each group of them, with the cells that the plan reads.

    Rows by group keep the numbers of their persons, so that lots are the same in whatever part of the rows.
    """
    owner, made, cells = _owners(rows, table, inner, kept)
    count = len(made.person)
    for one in inner.columns:
        if one.function == "each":
            continue
        own = kept if one.where is None else kept[holds(rows, table, one.where).true[kept]]
        whose, of = (rows.person[own], rows.persons) if one.of_person else (owner[own], count)
        figures = _Figures(rows, table, one, own, whose, of)
        column = one.defined(table, is_grouped=one.name in plan.group_by)
        for aspect, found in figures.cells(column, one.name in plan.compared):
            cells[aspect, one.name] = at(found, made.person) if one.of_person else found
    return replace(made, cells=cells)


def _owners(
    rows: Rows, table: Table, inner: Inner, kept: Integers
) -> tuple[Integers, Rows, dict[tuple[Aspect, str], Cells]]:
    """Return the place of the new row that each kept row is a part of, the new rows, and the cells of their keys."""
    person, owner = rows.person[kept].astype(np.int64), np.full(len(rows.person), -1, np.int64)
    if not inner.keys:
        is_there = np.zeros(rows.persons, np.bool_)
        is_there[person] = True
        owner[kept] = (np.cumsum(is_there) - 1)[person]
        persons = int(np.count_nonzero(is_there))
        return owner, Rows(np.arange(persons), persons, ()), {}
    sizes, key = inner.key_sizes(table), np.zeros(len(kept), np.int64)
    for name, places in _keys(rows, table, inner, kept):
        key = key * sizes[name] + places
    groups = inner.most_a_person(table)
    pairs = different(person * groups + key)
    owner[kept] = np.searchsorted(pairs, person * groups + key)
    made, cells = pairs % groups, dict[tuple[Aspect, str], Cells]()
    rest, texts = made, dict[str, Sequence[str]]()
    texts |= {one.name: tuple(label or "" for label in one.groups) for one in inner.cases}
    texts |= {one.name: table.column(one.column or "").domain for one in inner.columns if one.name in inner.keys}
    for name in reversed(inner.keys):
        cells["member", name], rest = Members(rest % sizes[name], texts[name]), rest // sizes[name]
    return owner, Rows(pairs // groups, rows.persons, (), first_person=rows.first_person, key=made), cells


def _keys(rows: Rows, table: Table, inner: Inner, kept: Integers) -> Iterator[tuple[str, Integers]]:
    """Yield the name of each key, and the place of each kept row among its groups."""
    for one in inner.columns:
        if one.function == "each":
            yield one.name, member_of(rows, table.column(one.column or ""), kept)
    for case in inner.cases:
        yield case.name, places_of(rows, table, case)[kept]


class _Figures:
    """One inner column: the cells that it is made of, and the new row of each, from 0 to `persons`."""

    def __init__(
        self, rows: Rows, table: Table, one: InnerColumn, kept: Integers, owner: Integers, persons: int
    ) -> None:
        self._rows, self._table, self._one = rows, table, one
        self._kept, self._owner, self._persons = kept, owner, persons

    def cells(self, column: TableColumn, is_compared: bool) -> Iterator[tuple[Aspect, Cells]]:
        """Yield the aspects of the figure of each person, by its definition."""
        if self._one.function in ("first", "last"):
            yield "member", Members(self._member(), column.domain)
            return
        steps = self._steps(column)
        yield "steps", Steps(steps, column.low or 0, column.range_steps)
        if column.type == "bool":
            yield "member", Members(np.where(steps == NO_STEPS, NO_MEMBER, steps), _TRUTH)
        elif is_compared:
            yield "number", _numbers(steps, column)
        if column.domain:  # a count: of no person it is missing
            yield "member", Members(np.minimum(steps, column.range_steps) - int(column.domain[0]), column.domain)

    def _member(self) -> Integers:
        """Return the place in its domain of the first or last value of each person, in SQL's order."""
        column = self._table.column(self._one.column or "")
        order, rank, unknown = _ordered(tuple(column.domain), column.type == "int", column.unknown)
        found = rank[member_of(self._rows, column, self._kept)]
        is_known = found >= 0
        nothing = len(order)
        best = np.full(self._persons, nothing if self._one.function == "first" else -1, np.int64)
        extreme = np.minimum if self._one.function == "first" else np.maximum
        extreme.at(best, self._owner[is_known], found[is_known])
        return np.append(order, (unknown, unknown))[np.where(best < 0, nothing, best)]

    def _steps(self, column: TableColumn) -> Integers:
        """Return the figure of each person as `Steps` has cells."""
        if self._one.column is None:
            counts = np.bincount(self._owner, minlength=self._persons)
            return np.minimum(counts, column.range_steps + 1)
        base = self._table.column(self._one.column)
        if self._one.function == "distinct":
            return np.minimum(self._different(base), column.range_steps + 1)
        steps = steps_of(self._rows, base, self._kept)
        is_present = steps != NO_STEPS
        owner, present = self._owner[is_present], steps[is_present].astype(np.int64)
        counts = np.bincount(owner, minlength=self._persons)
        if self._one.function == "count":
            return np.minimum(counts, column.range_steps + 1)
        if self._one.function == "sum":
            total = self._sum(base, np.clip(present, 0, base.range_steps), owner, counts)
            low, high = column.low or 0, column.high or 0
            found = np.clip(total, low - 1, high + 1) - low
        else:
            least = self._one.function == "min"
            found = np.full(self._persons, base.range_steps + 1 if least else BELOW, np.int64)
            (np.minimum if least else np.maximum).at(found, owner, present)
        return np.where(counts == 0, NO_STEPS, found).astype(np.int64)

    def _different(self, base: TableColumn) -> Integers:
        """Return of each person how many members of a domain there are, without `unknown`."""
        found, size = member_of(self._rows, base, self._kept), len(base.domain)
        is_known = found != _ordered(tuple(base.domain), base.type == "int", base.unknown)[2]
        pairs = different(self._owner[is_known] * size + found[is_known])
        return np.bincount(pairs // size, minlength=self._persons)

    def _sum(self, base: TableColumn, present: Integers, owner: Integers, counts: Integers) -> npt.NDArray[Any]:
        """Return the sum of each person in steps, exactly."""
        above, low = sums(owner, present, self._persons, base.range_steps), base.low or 0
        most = int(counts.max(initial=0))
        if most * max(abs(low), base.range_steps) < _SAFE // 2:
            return above + counts * low
        total: npt.NDArray[Any] = above.astype(object) + counts.astype(object) * low
        return total


def _numbers(steps: Integers, column: TableColumn) -> Numbers:
    """Return steps as exact numbers within the bounds, as a condition compares them."""
    is_missing = steps == NO_STEPS
    low, nanos = column.low or 0, int(Decimal(column.step or "1") * _NANOS)
    total: npt.NDArray[Any] = np.clip(steps, 0, column.range_steps).astype(np.int64) + low
    if nanos % _NANOS == 0:
        whole, rest = total * (nanos // _NANOS), None
    else:
        if max(abs(low), abs(low + column.range_steps)) * nanos >= _SAFE:
            total = total.astype(object)
        units = total * nanos
        whole, rest = (units // _NANOS).astype(np.int64), (units % _NANOS).astype(np.int64)
        rest = np.where(is_missing, 0, rest)
    return Numbers(np.where(is_missing, NO_NUMBER, whole), rest)


@lru_cache(maxsize=8)
def _ordered(values: tuple[str, ...], is_int: bool, unknown: str | None) -> tuple[Integers, Integers, int]:
    """Return the places of a domain's values in SQL's order, the rank of each place, and the place of `unknown`.

    `unknown` has no rank, -1: it is not a value, and what else there is comes before it.
    """
    known = [place for place, value in enumerate(values) if value != unknown]
    known.sort(key=lambda place: (int(values[place]), "") if is_int else (0, values[place]))
    rank = np.full(len(values), -1, np.int64)
    rank[known] = np.arange(len(known))
    return np.array(known, np.int64), rank, values.index(unknown) if unknown is not None else 0
