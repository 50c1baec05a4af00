"""The figures of an inner question: what one expression over all rows of a person becomes on the wire.

A figure has public bounds: those that the question states by LEAST and GREATEST; where a figure is only compared, those
that the comparisons cannot see beyond; else those of the policy's rows of one person (`analyst.sql.row_bounds`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from types import MappingProxyType
from typing import Any

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.columns import by_each, define, measure
from analyst.sql.nodes import LARGEST, has_figure, number
from analyst.sql.offer import Offer
from analyst.sql.parse import sql_position, unsupported
from analyst.sql.predicates import predicate
from analyst.sql.row_bounds import bounds_by_rows
from policies.requests.persons import MAX_COUNT, InnerColumn
from policies.requests.predicates import Predicate
from policies.requests.tables import TableColumn

FIGURES = (
    "inside, the rows of a person are made one by COUNT(*), COUNT(col), COUNT(DISTINCT col), SUM(col), MIN(col) or"
    " MAX(col), each perhaps with FILTER (WHERE ...)"
)
_NONE_OTHER = "count the rows of which it is not true: COUNT(*) FILTER (WHERE NOT ({})) = 0"
_ORDERED = ("ARG_MIN", "ARG_MAX", "MIN_BY", "MAX_BY", "FIRST", "LAST", "NTH_VALUE", "LAG", "LEAD")
# The functions of groups that are the same of all rows of a person, by the one that joins the groups.
_AGAIN: Mapping[type[exp.Expr], tuple[str, ...]] = MappingProxyType(
    {exp.Min: ("min", "first"), exp.Max: ("max", "last"), exp.Sum: ("sum", "count")}
)


@dataclass(frozen=True, slots=True)
class Figure:
    """function(column) FILTER (WHERE where) of a person's rows, with the bounds that were written, in its own units."""

    function: str
    column: TableColumn | None
    where: Predicate | None
    low: Decimal | None = None
    high: Decimal | None = None
    of_person: bool = False  # of rows by group: of all rows of the person

    @property
    def needs_bounds(self) -> bool:
        """Whether it has no public bounds by itself."""
        return self.function in ("count", "sum") and self.high is None  # `distinct` has its domain's

    def within(self, max_rows: int, values: Iterable[Decimal] = ()) -> "Figure":
        """Return the same within the bounds of `max_rows` rows, where none is stated.

        Where `values` that it is compared with lie beyond, so do its bounds, or nobody would be seen there.
        """
        if self.function not in ("count", "sum"):
            return self
        low, high = bounds_by_rows(self.function, self.column, max_rows)
        if values := tuple(values):
            seen = self.compared(values)
            low, high = min(low, seen.low or low), max(high, seen.high or high)
        least = low if self.function == "sum" and self.low is None else self.low
        return replace(self, low=least, high=high if self.high is None else self.high)

    @property
    def steps(self) -> int:
        """How many steps its bounds are apart; 0 where it has none of its own."""
        if self.function != "sum" or self.column is None or self.low is None or self.high is None:
            return 0
        return int((self.high - self.low) / Decimal(self.column.step or 1))

    @property
    def text(self) -> str:
        """What it is, in SQL's words."""
        if self.function == "distinct":
            return f"COUNT(DISTINCT {'' if self.column is None else self.column.name})"
        named = {"first": "MIN", "last": "MAX"}.get(self.function, self.function.upper())
        return f"{named}({'*' if self.column is None else self.column.name})"

    def example(self) -> str:
        """Return how to write it with bounds."""
        if self.function == "count":
            return f"LEAST({self.text}, 20)"
        column, most = self.column, Decimal(1000)
        if column is not None and column.high is not None:
            most = max(abs(column.low or 0), abs(column.high)) * Decimal(column.step or 1) * 10
        if column is not None and (column.low or 0) < 0:
            return f"GREATEST(LEAST({self.text}, {most:f}), -{most:f})"
        return f"LEAST({self.text}, {most:f})"

    def compared(self, values: Iterable[Decimal]) -> "Figure":
        """Return the same within bounds beyond which no comparison with these values can see."""
        step = Decimal(1) if self.column is None or self.function == "count" else Decimal(self.column.step or 1)
        least = step * (min(values := tuple(values)) / step).to_integral_value(ROUND_FLOOR) - step
        most = step * (max(values) / step).to_integral_value(ROUND_CEILING) + step
        if self.function == "count":
            return replace(self, high=max(most, Decimal(1)))
        low = least if (self.column is not None and (self.column.low or 0) < 0) else min(least, Decimal(0))
        return replace(self, low=low, high=max(most, low + step))

    def inner(self, name: str, node: exp.Expr) -> InnerColumn:
        """Return it as the wire has it; raises SqlError where its bounds are none."""
        low, high = self.low, self.high
        if self.function == "distinct" and self.column is not None:
            most = len(self.column.domain) - 1  # which is that of all but `unknown`
            high = Decimal(most) if high is None else min(high, Decimal(most)) if high == int(high) else high
        if self.function in ("count", "distinct") and high is not None:
            if high != int(high) or not 1 <= high <= MAX_COUNT or low is not None:
                where = f"the bound of {self.text}{sql_position(node)} is none"
                raise SqlError(where, f"write LEAST({self.text}, 20), with a whole number from 1 to {MAX_COUNT:,}")
            return self._column(name, high=int(high))
        if self.function == "sum" and high is not None and self.column is not None:
            step = Decimal(self.column.step or 1)
            low = Decimal(0) if low is None else low
            if low % step or high % step or not low < high or max(abs(low), abs(high)) / step > LARGEST:
                raise SqlError(
                    f"the bounds {low:f} to {high:f} of {self.text}{sql_position(node)} are none",
                    f"write multiples of {step:f}, as in {self.example()}",
                )
            return self._column(name, low=int(low / step), high=int(high / step))
        return self._column(name)

    def _column(self, name: str, low: int | None = None, high: int | None = None) -> InnerColumn:
        function: Any = self.function
        column = None if self.column is None else self.column.name
        bounds: dict[str, Any] = {"low": low, "high": high, "of_person": self.of_person}
        return InnerColumn(name=name, function=function, column=column, where=self.where, **bounds)


def figure(node: exp.Expr, table: str, offer: Offer) -> Figure:
    """Return the figure that an expression over the rows of a person is; raises SqlError."""
    node = node.unnest()
    match node:
        case exp.Least() | exp.Greatest():
            return _bounded(node, table, offer)
        case exp.Filter(expression=exp.Where() as where):
            return _where(figure(node.this, table, offer), where.this, table, offer, node)
        case exp.IgnoreNulls() | exp.RespectNulls():
            return figure(node.this, table, offer)
        case exp.CountIf():
            return Figure("count", None, predicate(node.this, table, offer))
        case exp.Count() if not node.expressions:
            return _count(node, table, offer)
        case exp.Sum(this=exp.Case(args={"default": exp.Literal(this="0", is_string=False)}) as case):
            return _case(case, node, table, offer)
        case exp.Max(
            this=exp.Case(args={"default": exp.Literal(this="0", is_string=False)}) as case
        ):  # whether there is such a row
            return replace(_case(case, node, table, offer), high=Decimal(1))
        case exp.Window():
            return _of_person(node, table, offer)
        case exp.Sum(this=exp.Column() as target):
            return Figure("sum", measure(target, table, offer), None)
        case exp.Min(this=exp.Column() as target) | exp.AnyValue(this=exp.Column() as target):
            return _extreme("min", "first", target, table, offer)
        case exp.Max(this=exp.Column() as target):
            return _extreme("max", "last", target, table, offer)
        case exp.LogicalAnd(this=exp.Column() as target) | exp.LogicalOr(this=exp.Column() as target):
            column = define(target, table, offer)
            if column.type == "bool":
                return Figure("min" if isinstance(node, exp.LogicalAnd) else "max", column, None)
    raise refused_inside(node, table, offer)


def _of_person(window: exp.Window, table: str, offer: Offer) -> Figure:
    """Return the figure of all rows of a person that a window over the person's groups is."""
    by, of, wrong = window.args.get("partition_by") or [], window.this.this, refused_inside(window, table, offer)
    is_of_person = len(by) == 1 and isinstance(by[0], exp.Column) and by[0].name in offer.persons(table)
    if not is_of_person or any(window.args.get(key) for key in ("order", "spec", "alias", "first")):
        raise wrong
    if isinstance(of, exp.Column) and isinstance(window.this, exp.Min | exp.Max):
        return replace(figure(window.this, table, offer), of_person=True)
    inner = figure(of, table, offer) if isinstance(of, exp.AggFunc | exp.Filter) else None
    if inner is None or inner.high is not None or inner.function not in _AGAIN.get(type(window.this), ()):
        raise wrong
    return replace(inner, of_person=True)


def _bounded(node: exp.Expr, table: str, offer: Offer) -> Figure:
    is_least = isinstance(node, exp.Least)
    parts = [node.this, *node.expressions]
    bounds = [found for part in parts if (found := number(part)) is not None]
    figures = [part for part in parts if has_figure(part)]
    if len(parts) != 2 or len(bounds) != 1 or len(figures) != 1:
        raise SqlError(
            f"{node.sql(dialect='duckdb')[:60]} is not supported inside{sql_position(node)}",
            "bound one figure by one number, as in LEAST(COUNT(*), 20)",
        )
    inner = figure(figures[0], table, offer)
    if inner.function not in ("count", "distinct", "sum"):
        raise SqlError(f"{inner.text}{sql_position(node)} has the bounds of its column already", f"write {inner.text}")
    return bounded(inner, bounds[0], is_least=is_least)


def bounded(inner: Figure, bound: Decimal, *, is_least: bool) -> Figure:
    """Return a count or a sum within one bound more: by LEAST, or else by GREATEST."""
    if is_least:
        return replace(inner, high=bound if inner.high is None else min(inner.high, bound))
    if inner.function in ("count", "distinct") and bound <= 0:
        return inner
    return replace(inner, low=bound if inner.low is None else max(inner.low, bound))


def _where(inner: Figure, where: exp.Expr, table: str, offer: Offer, node: exp.Expr) -> Figure:
    if inner.where is not None:
        raise unsupported(node, "FILTER over CASE is not supported")
    return replace(inner, where=predicate(where, table, offer))


def _count(node: exp.Count, table: str, offer: Offer) -> Figure:
    target = node.this
    if isinstance(target, exp.Distinct) and len(target.expressions) == 1:
        return _different(target.expressions[0], node, table, offer)
    if isinstance(target, exp.Star) and not any(target.args.values()):
        return Figure("count", None, None)
    if isinstance(target, exp.Case) and target.args.get("default") is None:
        return _case(target, node, table, offer)
    if isinstance(target, exp.Column) and not isinstance(target.this, exp.Star):
        if target.name in offer.persons(table):
            return Figure("count", None, None)
        return Figure("count", measure(target, table, offer), None)
    raise SqlError(f"{node.sql(dialect='duckdb')[:60]} is not supported inside{sql_position(node)}", FIGURES)


def refused_inside(node: exp.Expr, table: str, offer: Offer) -> SqlError:
    """Return why an expression is no figure of the rows of a person, with what comes nearest."""
    shown, inner = node.sql(dialect="duckdb"), node.find(exp.AggFunc, exp.Window)
    name, column = shown.partition("(")[0].upper(), None if inner is None else inner.find(exp.Column)
    hint, of = FIGURES, "x" if column is None else column.name
    window = node.find(exp.Window)
    if window is not None and not window.args.get("partition_by") and inner is not None and offer.persons(table):
        hint = f"a rank compares persons; group them by what each comes to: {by_each(offer.persons(table)[0], table)}"
    elif window is not None or name in _ORDERED:
        hint = _unordered(table, offer)
    elif isinstance(node, exp.Avg):
        hint = (
            f"ask the sum and the number of a person's cells, SUM({of}) AS s and COUNT({of}) AS n, and divide outside"
        )
    elif isinstance(node, exp.LogicalOr | exp.LogicalAnd) and inner is not None:
        condition = node.find(exp.Predicate)
        said = "..." if condition is None else condition.sql(dialect="duckdb")
        is_any = isinstance(node, exp.LogicalOr)
        hint = f"count the rows: COUNT(*) FILTER (WHERE {said}) > 0" if is_any else _NONE_OTHER.format(said)
    elif isinstance(node, exp.Median | exp.Quantile | exp.PercentileCont | exp.Stddev | exp.Variance | exp.ArrayAgg):
        hint = f"{FIGURES}; a person's rows have a least and a greatest value, and no middle"
    elif not isinstance(node, exp.AggFunc) and inner is not None:
        hint = f"name each figure inside, as in {inner.sql(dialect='duckdb')} AS a, and compute outside"
    return SqlError(f"{shown[:60]} is not supported inside{sql_position(node)}", hint)


def _unordered(table: str, offer: Offer) -> str:
    """Return what to ask instead of what stands in the order of a person's rows."""
    names = [name for name in offer.columns(table) if len(offer.column(table, name).domain) > 1]
    persons, why = offer.persons(table), "silos compare no two rows of a person"
    if not names or not persons:
        return f"{why}; {FIGURES}"
    inner = f"SELECT {persons[0]}, COUNT(DISTINCT {names[0]}) AS n FROM {table} GROUP BY {persons[0]}"  # noqa: S608
    return f"{why}; count in how many groups a person has rows: SELECT n, COUNT(*) FROM ({inner}) GROUP BY n"  # noqa: S608


def _different(target: exp.Expr, node: exp.Expr, table: str, offer: Offer) -> Figure:
    """Return how many different values of a dimension a person has."""
    column = define(target, table, offer) if isinstance(target, exp.Column) else None
    if column is None or len(column.domain) < 2:
        where = f"{node.sql(dialect='duckdb')[:60]} is not supported inside{sql_position(node)}"
        raise SqlError(where, "a column with a closed domain has different values that are counted; others are not")
    return Figure("distinct", column, None)


def _case(case: exp.Case, node: exp.Expr, table: str, offer: Offer) -> Figure:
    """Return the count of the rows where the one condition of a CASE that gives 1 holds."""
    ifs = case.args.get("ifs") or []
    if case.this is not None or len(ifs) != 1 or number(ifs[0].args["true"]) != 1:
        raise SqlError(
            f"{node.sql(dialect='duckdb')[:60]} is not supported inside{sql_position(node)}",
            "count rows with COUNT(*) FILTER (WHERE ...), and add with SUM(col) FILTER (WHERE ...)",
        )
    return Figure("count", None, predicate(ifs[0].this, table, offer))


def _extreme(of_measure: str, of_domain: str, target: exp.Column, table: str, offer: Offer) -> Figure:
    column = define(target, table, offer)
    if column.domain:
        return Figure(of_domain, column, None)
    if column.step is None:
        where = f"column {column.name!r}{sql_position(target)} has neither a closed domain nor bounds"
        raise SqlError(where, "take a dimension or a measure")
    return Figure(of_measure, column, None)
