"""Predicates: the conditions of a question on one row, judged by SQL's three-valued logic at each silo.

A missing cell compares neither true nor false, and a cell that is its domain's `unknown` is missing; only a comparison
with `unknown` itself, by = or IN, finds it. `silo_node/data/predicates.py` judges rows.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field

from crypto.wire import Message, Name
from policies.periods import granularity_of
from policies.requests.tables import Table, TableColumn, Text, is_number

_MAX_DEPTH = 12
MAX_VALUES, MAX_OPERANDS = 1000, 64  # of one list, and of one AND or OR
MAX_PARTS = 200  # of one filter
_MAX_LITERALS = 10_000  # of all lists together


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
    values: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_VALUES)]


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
    operands: Annotated[tuple["Predicate", ...], Field(min_length=2, max_length=MAX_OPERANDS)]


class Either(Message):
    """Operand OR operand OR ..."""

    kind: Literal["or"] = "or"
    operands: Annotated[tuple["Predicate", ...], Field(min_length=2, max_length=MAX_OPERANDS)]


class CompareColumns(Message):
    """One column op another of the same kind; neither true nor false where a cell of either is missing."""

    kind: Literal["compare_columns"] = "compare_columns"
    column: Name
    op: Literal["=", "<>", "<", "<=", ">", ">="]
    other: Name


Predicate = Annotated[Compare | OneOf | IsNull | Not | Both | Either | CompareColumns, Field(discriminator="kind")]


def parts_of(where: Predicate | None) -> Iterator[Predicate]:
    """Yield a predicate and all its operands, from left to right."""
    pending: list[Predicate] = [] if where is None else [where]
    while pending:
        part = pending.pop()
        yield part
        match part:
            case Both(operands=operands) | Either(operands=operands):
                pending += reversed(operands)
            case Not(operand=operand):
                pending.append(operand)


def columns_of(where: Predicate | None) -> Iterator[str]:
    """Yield the columns of a predicate, from left to right."""
    for part in parts_of(where):
        if isinstance(part, Compare | OneOf | IsNull | CompareColumns):
            yield part.column
        if isinstance(part, CompareColumns):
            yield part.other


def ordered_in(where: Predicate | None) -> Iterator[str]:
    """Yield the columns of which a predicate asks more than which value they have: those that it sorts or compares."""
    for part in parts_of(where):
        match part:
            case Compare() if part.op != "=":
                yield part.column
            case CompareColumns():
                yield from (part.column, part.other)


def cost_of(where: Predicate | None) -> int:
    """Return how much judging a row costs, in looks at a cell; a list is looked up by the digits of its length."""
    return sum(len(part.values).bit_length() if isinstance(part, OneOf) else 1 for part in parts_of(where))


def check_predicates(predicates: Iterable[Predicate], table: Table, most_parts: int = MAX_PARTS) -> None:
    """Raise ValueError unless predicates fit a table, and together have not too many parts or values."""
    nodes, literals, pending = 0, 0, [(one, 0) for one in predicates]
    while pending:
        predicate, depth = pending.pop()
        nodes += 1
        if depth > _MAX_DEPTH or nodes > most_parts:
            raise ValueError("the filter is nested too deeply or has too many parts")
        match predicate:
            case Both() | Either():
                pending += [(operand, depth + 1) for operand in reversed(predicate.operands)]
            case Not():
                pending.append((predicate.operand, depth + 1))
            case Compare():
                _check_literal(table.column(predicate.column), predicate.value)
            case OneOf():
                literals += len(predicate.values)
                if literals > _MAX_LITERALS:
                    raise ValueError(f"the filter lists more than {_MAX_LITERALS:,} values")
                for value in predicate.values:
                    _check_literal(table.column(predicate.column), value)
            case CompareColumns():
                problem = why_incomparable(table.column(predicate.column), table.column(predicate.other))
                if problem:
                    raise ValueError(problem)
            case IsNull():
                pass


def why_incomparable(one: TableColumn, other: TableColumn) -> str:
    """Return why two columns do not compare with each other; nothing if they do."""
    named = f"{one.name!r} and {other.name!r} do not compare"
    if {one.type, other.type} <= {"int", "decimal"}:
        return ""
    if one.type != other.type:
        return f"{named}: one is {one.type}, the other {other.type}"
    if one.type == "date":
        found = {granularity_of(period) for column in (one, other) for period in column.domain} - {None}
        if len(found) > 1:
            return f"{named}: one has other periods than the other"
    return ""


def _check_literal(column: TableColumn, value: str) -> None:
    kind = column.type
    if kind == "date" and value not in column.domain:
        raise ValueError(f"{value!r} is no period of column {column.name!r}")
    if (kind in ("int", "decimal") and not is_number(value)) or (kind == "bool" and value not in ("true", "false")):
        raise ValueError(f"{value!r} is no {kind}, the type of column {column.name!r}")


def in_words(predicate: Predicate) -> str:
    """Return a predicate in words; every field of it changes them."""
    match predicate:
        case Both():
            return "(" + " and ".join(map(in_words, predicate.operands)) + ")"
        case Either():
            return "(" + " or ".join(map(in_words, predicate.operands)) + ")"
        case Not():
            return f"not {in_words(predicate.operand)}"
        case IsNull():
            return f"{predicate.column} is missing"
        case OneOf():
            return f"{predicate.column} in ({', '.join(map(_literal, predicate.values))})"
        case Compare():
            return f"{predicate.column} {predicate.op} {_literal(predicate.value)}"
        case CompareColumns():
            return f"{predicate.column} {predicate.op} {predicate.other}"


def _literal(value: str) -> str:
    """Return a number or a truth value unquoted, any other text as ASCII JSON, since an analyst wrote it."""
    return value if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?|true|false", value) else json.dumps(value)
