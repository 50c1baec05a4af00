"""What an expression of one column makes of all of the column's public values, as conditions that a silo judges.

The values are the members of a closed domain (of a date the days of its periods), or the steps between bounds: what
lies outside them counts with the nearest one, as in a sum. A member that is `unknown` is SQL's NULL.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.columns import define
from analyst.sql.evaluation import Kind, Result, changes, check_pure, is_dated, results
from analyst.sql.nodes import in_digits, shown_as
from analyst.sql.offer import Offer
from analyst.sql.parse import sql_position
from policies.periods import granularity_of, span
from policies.requests.predicates import Both, Compare, Either, IsNull, Not, OneOf, Predicate
from policies.requests.tables import MAX_DECIMALS, TableColumn

MAX_STEPS = 1_000_000  # between the bounds of a column that is cut into groups
MAX_LISTED = 1_000  # values of one list in a condition
_MOST_LISTED = 10_000  # values of all lists of a question
_MOST_CHARACTERS = 200_000
_MAX_OPERANDS = 64
_MOST_DAYS = 100_000
_LEAST = Decimal(1).scaleb(-MAX_DECIMALS)
_NARROW = 10**8  # numbers below it are computed with all decimals
_TYPES = {"string": "VARCHAR", "int": "BIGINT", "decimal": "DECIMAL(18, 9)", "bool": "BOOLEAN", "date": "VARCHAR"}


@dataclass(frozen=True, slots=True)
class Edge:
    """The end of a run of numbers: those `below` a value, or up to it."""

    op: str  # < or <=
    value: str

    def below(self, column: str) -> Predicate:
        return Compare(column=column, op=self.op, value=self.value)  # type: ignore[arg-type]

    def above(self, column: str) -> Predicate:
        return Compare(column=column, op=">=" if self.op == "<" else ">", value=self.value)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The results over a column: `missing` of a missing cell, and either of each member or of each run of numbers."""

    column: TableColumn
    kind: Kind
    missing: str | None
    members: tuple[tuple[str, str | None], ...] = ()
    runs: tuple[tuple[str | None, Edge | None], ...] = ()  # each with its end; the last has none

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The results of cells that are not missing, each once, in the order of the values."""
        return tuple(dict.fromkeys(label for label, _ in self.runs or [(one, None) for _, one in self.members]))

    def members_of(self, label: str | None) -> tuple[str, ...]:
        return tuple(member for member, found in self.members if found == label)


def only_column(node: exp.Expr) -> exp.Column | None:
    """Return the one column of an expression, of which it may have several mentions; None if it has more or none."""
    found = {(part.table, part.name): part for part in node.find_all(exp.Column)}
    return next(iter(found.values())) if len({name for _, name in found}) == 1 else None


def outcomes(node: exp.Expr, table: str, offer: Offer) -> Outcomes:
    """Return what an expression of one column makes of its public values; raises SqlError where that is not possible.

    An expression of several columns, or of a column without public values, is refused.
    """
    target = only_column(node)
    if target is None:
        hint = "an expression of one column is computed over its public values; compare two columns as they are: a < b"
        raise SqlError(f"{shown_as(node)} is no expression of one column{sql_position(node)}", hint)
    column = define(target, table, offer)
    check_pure(node)
    if column.type == "date" and column.domain and is_dated(node):
        return _of_periods(node, column)
    if column.domain or column.type == "bool":
        return _of_members(node, column)
    if column.low is None or column.high is None:
        lacks = "a closed domain" if column.type in ("string", "date") else "bounds"
        instead = (
            "compare it with whole texts: =, IN" if lacks == "a closed domain" else "compare it with numbers: <, ="
        )
        hint = f"an expression is computed over public values, and no policy gives {column.name!r} {lacks}; {instead}"
        raise SqlError(f"{shown_as(node)} cannot be computed{sql_position(node)}", hint)
    return _of_numbers(node, column, column.low, column.high)


def _kind_of(found: Sequence[Result]) -> Kind:
    kinds: set[Kind] = {one.kind for one in found if one.text is not None}
    if kinds == {"int", "decimal"}:
        return "decimal"
    return next(iter(kinds)) if len(kinds) == 1 else "string"


def _of_members(node: exp.Expr, column: TableColumn) -> Outcomes:
    """Compute an expression of each member of a domain; bools are true and false."""
    domain = tuple(column.domain) or ("false", "true")
    named = node.copy().transform(lambda part: _missing_named(part, column))
    known = [one for one in domain if one != column.unknown]
    found = results(named, _TYPES[column.type], [*known, None])
    members = tuple((one, result.text) for one, result in zip(known, found[:-1], strict=True))
    return Outcomes(column, _kind_of(found), found[-1].text, members)


def _missing_named(part: exp.Expr, column: TableColumn) -> exp.Expr:
    """Return a comparison with the domain's `unknown` as one with NULL: that literal names missing cells."""
    match part:
        case exp.EQ(this=exp.Column() as cell, expression=literal) if _is_unknown(literal, column):
            return exp.Is(this=cell, expression=exp.Null())
        case exp.NEQ(this=exp.Column() as cell, expression=literal) if _is_unknown(literal, column):
            return exp.Not(this=exp.Is(this=cell, expression=exp.Null()))
        case exp.In(this=exp.Column() as cell) if any(_is_unknown(one, column) for one in part.expressions):
            others = [one for one in part.expressions if not _is_unknown(one, column)]
            missing = exp.Is(this=cell.copy(), expression=exp.Null())
            return exp.paren(exp.or_(exp.In(this=cell, expressions=others), missing)) if others else missing
    return part


def _is_unknown(node: exp.Expr, column: TableColumn) -> bool:
    text = node.sql(dialect="duckdb")
    return column.unknown is not None and text in (column.unknown, f"'{column.unknown}'")


def _of_periods(node: exp.Expr, column: TableColumn) -> Outcomes:
    """Compute an expression of a date for each day of each period; all days of one must have one result."""
    periods = [(one, ends) for one in column.domain if one != column.unknown and (ends := span(one)) is not None]
    days = [first + timedelta(days=number) for _, (first, last) in periods for number in range((last - first).days + 1)]
    if len(days) > _MOST_DAYS:
        raise SqlError(f"{column.name!r} has {len(days):,} days, at most {_MOST_DAYS:,} are computed")
    *found, missing = results(node, "DATE", [*(day.isoformat() for day in days), None])
    whose, members = iter(found), []
    for name, (first, last) in periods:
        of_days = [next(whose) for _ in range((last - first).days + 1)]
        if len({one.text for one in of_days}) > 1:
            shown, place = node.sql(dialect="duckdb")[:60], sql_position(node)
            hint = f"no policy tells days: take a period that holds each {granularity_of(name) or 'period'} whole"
            said = f"{of_days[0].text} and {of_days[-1].text}"
            raise SqlError(f"{shown} is not one value of {name!r} in {column.name!r}{place}: {said}", hint)
        members.append((name, of_days[0].text))
    return Outcomes(column, _kind_of([*found, missing]), missing.text, tuple(members))


def _of_numbers(node: exp.Expr, column: TableColumn, low: int, high: int) -> Outcomes:
    """Compute an expression of every step between bounds, and find where its result changes."""
    if high - low > MAX_STEPS:
        message = f"{column.name!r} has {high - low:,} steps, at most {MAX_STEPS:,} are computed{sql_position(node)}"
        raise SqlError(message, f"write conditions instead: CASE WHEN {column.name} < ... THEN ... END")
    step = Decimal(column.step or "1")
    if column.type == "decimal":  # DuckDB's // of decimals is no whole number, as that of ints and of floats is
        node = node.copy().transform(_floored)
    exponent = step.normalize().as_tuple().exponent
    scale = 0 if column.type == "int" and step == step.to_integral_value() else max(0, -int(exponent))
    found = changes(node, scale, low, high, step)
    (missing,) = results(node, "BIGINT" if scale == 0 else f"DECIMAL(18, {scale})", [None])
    edges = _edges(node, column, [at * step for at, _ in found[1:]], step, [one.text for _, one in found])
    labels = [one.text for _, one in found]
    kind = _kind_of([missing, *(one for _, one in found)])
    return Outcomes(column, kind, missing.text, (), tuple(zip(labels, [*edges, None], strict=True)))


def _floored(part: exp.Expr) -> exp.Expr:
    if not isinstance(part, exp.IntDiv):
        return part
    return exp.Floor(this=exp.Div(this=part.this.copy(), expression=part.expression.copy()))


def _edges(
    node: exp.Expr, column: TableColumn, starts: Sequence[Decimal], step: Decimal, labels: Sequence[str | None]
) -> Iterator[Edge]:
    """Yield where each run ends, given the first step of the next one: a number may lie between two steps."""
    if column.type == "int" or not starts or max(map(abs, starts)) > _NARROW or len(starts) > MAX_LISTED:
        yield from (Edge("<", in_digits(start)) for start in starts)
        return
    close = [in_digits(one) for start in starts for one in (start - _LEAST, start - step + _LEAST)]
    found = [one.text for one in results(node, "DECIMAL(18, 9)", close)]
    for place, start in enumerate(starts):
        before, after = found[2 * place], found[2 * place + 1]
        if before != labels[place] and after == labels[place + 1]:
            yield Edge("<=", in_digits(start - step))  # all that is above the step before has the next result
        else:
            yield Edge("<", in_digits(start))


def never(column: TableColumn) -> Predicate:
    """Return a predicate that is true of no row, and unknown where the cell is missing."""
    value = _some_value(column)
    return Both(
        operands=(Compare(column=column.name, op="=", value=value), Compare(column=column.name, op="<>", value=value))
    )


def _some_value(column: TableColumn) -> str:
    if column.type == "bool":
        return "true"
    if column.domain:
        return next((one for one in column.domain if one != column.unknown), column.domain[0])
    return "0" if column.type in ("int", "decimal") else ""


def where_result(found: Outcomes, label: str | None) -> Predicate:
    """Return the predicate that is true of exactly the rows of which the expression has this result."""
    name, parts = found.column.name, list[Predicate]()
    if found.members:
        parts += _listed(found, found.members_of(label))
    else:
        parts += _runs_of(found, label)
    if found.missing == label:
        parts.append(IsNull(column=name))
    return any_of(parts) if parts else never(found.column)


def _listed(found: Outcomes, members: Sequence[str]) -> list[Predicate]:
    """Return predicates that list members; of a long domain those that are left out, where these are fewer."""
    if is_listable(members):
        return one_of(found.column.name, members)
    wanted = set(members)
    others = [one for one, _ in found.members if one not in wanted]
    check_listable(found.column, others)
    present = Not(operand=IsNull(column=found.column.name))
    return [Not(operand=any_of(one_of(found.column.name, others))) if others else present]


def is_listable(values: Sequence[str]) -> bool:
    """Tell whether a question has room for a list of values."""
    return len(values) <= _MOST_LISTED and sum(map(len, values)) <= _MOST_CHARACTERS


def check_listable(column: TableColumn, values: Sequence[str]) -> None:
    """Raise SqlError unless a question has room for a list of values of a column."""
    if not is_listable(values):
        message = (
            f"{len(values):,} values of {column.name!r} would have to be listed, there is room for {_MOST_LISTED:,}"
        )
        raise SqlError(message, f"name those that matter: {column.name} IN (...)")


def one_of(column: str, values: Sequence[str]) -> list[Predicate]:
    """Return predicates of which one is true of a cell that is one of these values."""
    if len(values) == 1:
        return [Compare(column=column, op="=", value=values[0])]
    return [
        OneOf(column=column, values=tuple(values[at : at + MAX_LISTED])) for at in range(0, len(values), MAX_LISTED)
    ]


def _runs_of(found: Outcomes, label: str | None) -> Iterator[Predicate]:
    name = found.column.name
    before: Edge | None = None
    for result, end in found.runs:
        if result == label:
            low = None if before is None else before.above(name)
            high = None if end is None else end.below(name)
            sides = tuple(side for side in (low, high) if side is not None)
            if not sides:
                yield Not(operand=IsNull(column=name))
            else:
                yield Both(operands=sides) if len(sides) > 1 else sides[0]
        before = end


def any_of(parts: Sequence[Predicate]) -> Predicate:
    """Return the predicate that is true where one of these is, however many they are."""
    parts = list(parts)
    while len(parts) > _MAX_OPERANDS:
        chunks = [parts[at : at + _MAX_OPERANDS] for at in range(0, len(parts), _MAX_OPERANDS)]
        parts = [Either(operands=tuple(one)) if len(one) > 1 else one[0] for one in chunks]
    return parts[0] if len(parts) == 1 else Either(operands=tuple(parts))
