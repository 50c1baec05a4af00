"""Between which values a figure lies for certain, by what it is computed from: a count is 0 or more, a share at most 1.

Pure. An interval that is cut to these values holds the truth as often as before. What is not known here has no ends.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlglot import exp

from policies.requests.query import Aggregate, Plan
from policies.requests.tables import Table, TableColumn

Range = tuple[float, float]
ANY: Range = (-math.inf, math.inf)
_FROM_0: Range = (0.0, math.inf)
_SAME = (exp.Min, exp.Max, exp.Avg, exp.Median, exp.AnyValue, exp.FirstValue, exp.LastValue, exp.Lag, exp.Lead)
_AROUND = (exp.Paren, exp.Cast, exp.TryCast, exp.IgnoreNulls, exp.RespectNulls, exp.Filter, exp.Window)
_COUNTS = (exp.Count, exp.CountIf, exp.Rank, exp.DenseRank, exp.RowNumber, exp.Ntile)


def ranges_of(plan: Plan, table: Table) -> Mapping[str, "Figure"]:
    """Return the figures of a question by their names."""
    return {one.alias: Figure(one, _range_of(one, table)) for one in plan.aggregates}


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the core, and what it lies between."""

    aggregate: Aggregate
    ends: Range


def range_of(node: exp.Expr, figures: Mapping[str, Figure], bounds: Callable[[str], Range]) -> Range:
    """Return what an expression over released figures lies between; `bounds` says it of an average of a column."""
    return _Reading(figures, bounds).of(node)


def bounds_of(column: TableColumn) -> Range:
    """Return the bounds of a measure in its own units."""
    if column.low is None or column.high is None:
        return ANY
    step = float(column.step or 1)
    return column.low * step, column.high * step


def _range_of(one: Aggregate, table: Table) -> Range:
    kind = one.function
    if kind in ("count", "persons", "regr_count"):
        return _FROM_0
    ends = [bounds_of(table.column(name)) for name in one.columns]
    if kind == "sum":
        low, high = ends[0]
        return 0.0 if low >= 0 else -math.inf, 0.0 if high <= 0 else math.inf
    if kind == "avg":
        return ends[0]
    if kind in ("regr_avgx", "regr_avgy"):
        return ends[kind == "regr_avgx"]
    halves = [(high - low) / 2 for low, high in ends]
    of_sample = 2.0 if kind.endswith("samp") else 1.0  # n / (n - 1), from two rows on
    most = math.prod(halves) * of_sample
    known: Mapping[str, Range] = {
        "var": (0.0, halves[0] ** 2 * of_sample),
        "stddev": (0.0, halves[0] * math.sqrt(of_sample)),
        "covar": (-most, most),
        "corr": (-1.0, 1.0),
    }
    return (0.0, 1.0) if kind == "regr_r2" else known.get(kind.partition("_")[0], ANY)


@dataclass(frozen=True, slots=True)
class _Reading:
    figures: Mapping[str, Figure]
    bounds: Callable[[str], Range]

    def of(self, node: exp.Expr) -> Range:
        if isinstance(node, _AROUND):
            return self.of(node.this)
        if isinstance(node, exp.Column):
            return self.figures[node.name].ends if node.name in self.figures else ANY
        if isinstance(node, exp.Literal):
            return ANY if node.is_string else (float(node.this), float(node.this))
        if isinstance(node, exp.Case | exp.If):
            return self._either(_results(node))
        if isinstance(node, exp.Binary):
            return self._arithmetic(node)
        return self._function(node)

    def _function(self, node: exp.Expr) -> Range:
        match node:
            case exp.Neg():
                low, high = self.of(node.this)
                return -high, -low
            case exp.Coalesce() | exp.Greatest() | exp.Least():
                return self._of_several(node)
            case exp.Nullif():
                return self.of(node.this)
            case exp.Lag() | exp.Lead() if node.args.get("default") is not None:
                return self._either([node.this, node.args["default"]])
            case exp.Abs():
                low, high = self.of(node.this)
                return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))
            case exp.Sqrt():
                return 0.0, math.sqrt(max(self.of(node.this)[1], 0.0))
            case exp.Round() | exp.Floor() | exp.Ceil():
                return self._rounded(node)
            case exp.Sum():
                low, high = self.of(node.this)
                return 0.0 if low >= 0 else -math.inf, 0.0 if high <= 0 else math.inf
        if isinstance(node, _COUNTS):
            return _FROM_0
        return self.of(node.this) if isinstance(node, _SAME) and isinstance(node.this, exp.Expr) else ANY

    def _rounded(self, node: exp.Expr) -> Range:
        low, high = self.of(node.this)
        decimals = node.args.get("decimals")
        places = decimals.sql(dialect="duckdb") if isinstance(decimals, exp.Expr) else "0"
        unit = 10.0 ** -int(places) if places.lstrip("-").isdigit() and len(places) < 4 else math.inf
        # Rounding moves an end by less than a unit, and 0 not at all.
        return (0.0 if low == 0 else low - unit), (0.0 if high == 0 else high + unit)

    def _either(self, nodes: list[exp.Expr]) -> Range:
        """Return what one of some expressions lies between; one that is NULL says nothing."""
        found = [self.of(one) for one in nodes if not isinstance(one, exp.Null)]
        return (min(low for low, _ in found), max(high for _, high in found)) if found else ANY

    def _of_several(self, node: exp.Expr) -> Range:
        nodes = [node.this, *node.expressions]
        found = [self.of(one) for one in nodes]
        match node:
            case exp.Greatest():  # NULL is skipped, so that any of them may be the only one
                return min(low for low, _ in found), max(high for _, high in found)
            case exp.Least():
                return min(low for low, _ in found), max(high for _, high in found)
        return self._either(nodes)

    def _arithmetic(self, node: exp.Binary) -> Range:
        if isinstance(node, exp.Div) and (mean := self._mean(node)) is not None:
            return mean
        one, other = self.of(node.this), self.of(node.expression)
        match node:
            case exp.Add():
                return one[0] + other[0], one[1] + other[1]
            case exp.Sub():
                return one[0] - other[1], one[1] - other[0]
            case exp.Mul():
                if node.this == node.expression:
                    return 0.0, math.inf
                products = [_product(first, second) for first in one for second in other]
                return min(products), max(products)
            case exp.Div():
                return _quotient(one, other)
        return ANY

    def _mean(self, node: exp.Div) -> Range | None:
        """Return the bounds of a total divided by its own count, or of a part divided by its whole."""
        top, bottom = _total(node.this), _total(node.expression)
        if top is None or bottom is None:
            return None
        one, other = self.figures.get(top[0]), self.figures.get(bottom[0])
        if one is None or other is None:
            return None
        if one == other and one.ends[0] >= 0 and bottom[1] in ("", top[1]) and top[2] <= bottom[2]:
            return 0.0, 1.0
        if one.aggregate.function != "sum" or other.aggregate.function != "count" or top[1:] != bottom[1:]:
            return None
        low, high = self.bounds(one.aggregate.column or "")
        if other.aggregate.column is None:  # cells that are missing add nothing
            return min(low, 0.0), max(high, 0.0)
        return (low, high) if other.aggregate.column == one.aggregate.column else None


def _total(node: exp.Expr) -> tuple[str, str, bool] | None:
    """Return the figure that an expression adds up, where it does, and whether over several groups; None for others."""
    inner = node.unnest()
    if isinstance(inner, exp.Coalesce) and [one.sql() for one in inner.expressions] == ["0"]:
        inner = inner.this.unnest()
    where = ""
    if isinstance(inner, exp.Window) and not inner.args.get("spec"):  # a frame may leave the row itself out
        inner = inner.this
    if isinstance(inner, exp.Filter):
        where, inner = inner.expression.sql(), inner.this
    is_sum = isinstance(inner, exp.Sum)
    column = inner.this if is_sum else inner
    return (column.name, where, is_sum) if isinstance(column, exp.Column) else None


def _results(node: exp.Case | exp.If) -> list[exp.Expr]:
    if isinstance(node, exp.If):
        ends = [node.args["true"], node.args.get("false")]
    else:
        ends = [*(one.args["true"] for one in node.args["ifs"]), node.args.get("default")]
    return [one for one in ends if isinstance(one, exp.Expr)]


def _product(one: float, other: float) -> float:
    return 0.0 if 0.0 in (one, other) else one * other


def _quotient(top: Range, bottom: Range) -> Range:
    if bottom[0] == bottom[1] and bottom[0] not in (0.0, math.inf, -math.inf):
        ends = sorted(end / bottom[0] for end in top)
        return ends[0], ends[1]
    if bottom[0] >= 0:
        return 0.0 if top[0] >= 0 else -math.inf, 0.0 if top[1] <= 0 else math.inf
    return ANY
