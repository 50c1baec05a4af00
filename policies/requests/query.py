"""A question: the typed plan of one SELECT. SQL never crosses the boundary; this does.

Shape of a question: a block for each statistic, one number for each group of the closed domains. A silo's contribution
is computed in `silo_node/data/query.py`, the answer's estimates in `analyst/reports/estimates.py`;
`analyst/sql/plan.py` reads it from SQL.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from crypto.wire import Message, Name
from policies.requests.statistic import Extent, Statistic, noised
from policies.requests.tables import Table, TableColumn, Text, is_number
from policies.units import Role

_MAX_DEPTH = 12
_MAX_NODES = 200
ROWS = Statistic("rows")
# The statistics of its column that each figure is computed from, by kind.
AGGREGATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "count": ("present",),
        "sum": ("present", "total"),
        "avg": ("present", "total"),
    }
)
# How much one row changes each kind of statistic at most; `silo_node/data/query.py` writes the sum of it.
PER_ROW: Mapping[str, Callable[[TableColumn], int]] = MappingProxyType(
    {
        "present": lambda column: 1,
        "total": lambda column: column.range_steps,
    }
)


class Compare(Message):
    """column op value; a number or a bool is written as text and read by the column's type."""

    kind: Literal["compare"] = "compare"
    column: Name
    op: Literal["=", "<>", "<", "<=", ">", ">="]
    value: Text


class OneOf(Message):
    """Column IN (values)."""

    kind: Literal["one_of"] = "one_of"
    column: Name
    values: Annotated[tuple[Text, ...], Field(min_length=1, max_length=1000)]


class IsNull(Message):
    """Column IS NULL."""

    kind: Literal["is_null"] = "is_null"
    column: Name


class Not(Message):
    """NOT operand."""

    kind: Literal["not"] = "not"
    operand: "Predicate"


class Both(Message):
    """Operand AND operand AND ..."""

    kind: Literal["and"] = "and"
    operands: Annotated[tuple["Predicate", ...], Field(min_length=2, max_length=64)]


class Either(Message):
    """Operand OR operand OR ..."""

    kind: Literal["or"] = "or"
    operands: Annotated[tuple["Predicate", ...], Field(min_length=2, max_length=64)]


Predicate = Annotated[Compare | OneOf | IsNull | Not | Both | Either, Field(discriminator="kind")]


class Aggregate(Message):
    """function(column) AS alias; no column means COUNT(*)."""

    function: Literal["count", "sum", "avg"]
    column: Name | None
    alias: Annotated[str, Field(min_length=1, max_length=120)]

    def statistics(self) -> tuple[Statistic, ...]:
        """Return the statistics that this figure is computed from."""
        if self.column is None:
            return (ROWS,)
        return tuple(Statistic(kind, self.column) for kind in AGGREGATES[self.function])


class Plan(Message):
    """One grouped question about one table."""

    kind: Literal["query"] = "query"
    where: Predicate | None
    group_by: Annotated[tuple[Name, ...], Field(max_length=8)]
    aggregates: Annotated[tuple[Aggregate, ...], Field(min_length=1, max_length=32)]

    release: ClassVar[Literal["private", "exact"]] = "private"
    result: ClassVar[Literal["query-result", "model"]] = "query-result"
    approved_as: ClassVar[Literal["query", "training"]] = "query"
    training: ClassVar[None] = None

    @property
    def dimensions(self) -> tuple[str, ...]:
        return self.group_by

    @property
    def functions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(aggregate.function for aggregate in self.aggregates))

    @property
    def conditions(self) -> tuple[Predicate, ...]:
        if self.where is None:
            return ()
        return self.where.operands if isinstance(self.where, Both) else (self.where,)

    def uses(self) -> Mapping[Role, tuple[str, ...]]:
        filters = dict.fromkeys(_columns(self.where))
        measures = dict.fromkeys(aggregate.column for aggregate in self.aggregates if aggregate.column is not None)
        return {"dimension": self.group_by, "filter": tuple(filters), "measure": tuple(measures)}

    def group_count(self, table: Table) -> int:
        count = 1
        for name in self.group_by:
            count *= len(table.column(name).domain)
        return count

    def groups(self, table: Table) -> Iterator[tuple[str, ...]]:
        """Yield every group of the closed domains, in the order of the slots; one without dimensions."""
        return product(*(table.column(name).domain for name in self.group_by))

    def statistics(self, table: Table) -> Mapping[Statistic, Extent]:
        """Return the rows, the rows where a column is present, and centred totals: one number a group each.

        A total is in half steps (a centred value is doubled to stay whole), the others count rows. At most `max_rows`
        rows of a person enter, in the worst case all into one group and all at one end of the bounds.
        """
        length, found = self.group_count(table), dict[Statistic, Extent]()
        for aggregate in self.aggregates:
            for statistic in aggregate.statistics():
                kind, column = statistic
                per_row = 1 if column is None else PER_ROW[kind](table.column(column))
                found[statistic] = noised(length, table.max_rows * per_row)
        return found

    def check(self, table: Table, backend: str) -> None:
        aliases = [*self.group_by, *(aggregate.alias for aggregate in self.aggregates)]
        if len(set(aliases)) != len(aliases):
            raise ValueError("an output name is used twice")
        if self.where is not None:
            _check_predicate(self.where, table)

    def release_remedy(self, release: str) -> str:
        return "an exact source serves training only, never a question"

    def in_words(self, table_name: str) -> str:
        text = (
            ", ".join(f"{one.function.upper()}({one.column or '*'})" for one in self.aggregates) + f" of {table_name}"
        )
        if self.where is not None:
            text += f" where {_in_words(self.where)}"
        return text + (f" by {', '.join(self.group_by)}" if self.group_by else "")


def _columns(where: Predicate | None) -> Iterator[str]:
    """Yield the columns of a predicate, from left to right."""
    pending: list[Predicate] = [] if where is None else [where]
    while pending:
        match pending.pop():
            case Both(operands=operands) | Either(operands=operands):
                pending += reversed(operands)
            case Not(operand=operand):
                pending.append(operand)
            case Compare(column=column) | OneOf(column=column) | IsNull(column=column):
                yield column


def _check_predicate(where: Predicate, table: Table) -> None:
    nodes, pending = 0, [(where, 0)]
    while pending:
        predicate, depth = pending.pop()
        nodes += 1
        if depth > _MAX_DEPTH or nodes > _MAX_NODES:
            raise ValueError("the filter is nested too deeply or has too many parts")
        match predicate:
            case Both() | Either():
                pending += [(operand, depth + 1) for operand in reversed(predicate.operands)]
            case Not():
                pending.append((predicate.operand, depth + 1))
            case Compare():
                _check_literal(table.column(predicate.column), predicate.value)
            case OneOf():
                for value in predicate.values:
                    _check_literal(table.column(predicate.column), value)
            case IsNull():
                pass


def _check_literal(column: TableColumn, value: str) -> None:
    kind = column.type
    if kind == "date" and value not in column.domain:
        raise ValueError(f"{value!r} is no period of column {column.name!r}")
    if (kind in ("int", "decimal") and not is_number(value)) or (kind == "bool" and value not in ("true", "false")):
        raise ValueError(f"{value!r} is no {kind}, the type of column {column.name!r}")


def _in_words(predicate: Predicate) -> str:
    match predicate:
        case Both():
            return "(" + " and ".join(map(_in_words, predicate.operands)) + ")"
        case Either():
            return "(" + " or ".join(map(_in_words, predicate.operands)) + ")"
        case Not():
            return f"not {_in_words(predicate.operand)}"
        case IsNull():
            return f"{predicate.column} is missing"
        case OneOf():
            return f"{predicate.column} in ({', '.join(map(_literal, predicate.values))})"
        case Compare():
            return f"{predicate.column} {predicate.op} {_literal(predicate.value)}"


def _literal(value: str) -> str:
    """Return a number or a truth value bare, anything else as JSON in ASCII: an analyst wrote it, a person reads it."""
    return value if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?|true|false", value) else json.dumps(value)
