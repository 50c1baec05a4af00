"""HISTOGRAM(x) as rows: a count of each public bucket of a column, which stand where DuckDB has one cell with a map.

    SELECT sex, HISTOGRAM(age) AS n FROM lung GROUP BY sex
    SELECT sex, CASE WHEN age < 35 THEN 30 ... END AS age_from, age_from + 5 AS age_to, COUNT(*) AS n FROM lung
    GROUP BY sex, age_from

Pure. A second argument says how wide a bucket is, or lists where buckets end. Each row of a group is in one bucket, so
a histogram costs as much as one count.
"""

from collections.abc import Iterator, Sequence
from decimal import ROUND_FLOOR, Decimal
from itertools import pairwise

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.columns import define
from analyst.sql.nodes import in_digits, number
from analyst.sql.offer import Offer
from analyst.sql.parse import sql_position
from policies.requests.cases import MAX_WHENS
from policies.requests.tables import TableColumn

_MOST_BUCKETS = 20  # without a width
_MOST_SHOWN = 10**9  # buckets, as a number in a refusal
_EXAMPLE = "SELECT HISTOGRAM({column}) FROM {table}"


def by_buckets(query: exp.Query, offer: Offer) -> exp.Query:
    """Return a query whose histograms of a table's rows are counts of groups; raises SqlError."""
    ctes = {cte.alias for cte in query.find_all(exp.CTE)}
    for select in list(query.find_all(exp.Select)):
        source = select.args.get("from_")
        table = source.this if source is not None else None
        if not isinstance(table, exp.Table) or table.name not in offer.tables or table.name in ctes:
            continue
        found = [node for node in select.find_all(exp.Anonymous) if _is_histogram(node, select)]
        if found:
            _grouped(select, found, table.name, offer)
    return query


def _is_histogram(node: exp.Anonymous, select: exp.Select) -> bool:
    return str(node.this).upper() == "HISTOGRAM" and node.find_ancestor(exp.Select) is select


def _grouped(select: exp.Select, found: Sequence[exp.Anonymous], table: str, offer: Offer) -> None:
    """Let a SELECT count the rows of each bucket."""
    node, *others = found
    shown, place = node.sql(dialect="duckdb")[:60], sql_position(node)
    projection = node.parent.parent if isinstance(node.parent, exp.Filter) else node.parent
    whole = node.parent if isinstance(node.parent, exp.Filter) else node
    is_column = isinstance(projection, exp.Alias | exp.Select) and whole.arg_key in ("this", "expressions")
    if others or not is_column or any(_has_figure(one, node) for one in select.expressions):
        hint = "ask for it in a question of its own, beside the columns of GROUP BY"
        raise SqlError(f"{shown} is not supported here: its buckets are rows of the answer{place}", hint)
    target = node.expressions[0] if node.expressions else None
    if not isinstance(target, exp.Column) or isinstance(target.this, exp.Star) or len(node.expressions) > 2:
        named = next((name for name in offer.columns(table) if offer.column(table, name).step is not None), "x")
        raise SqlError(
            f"HISTOGRAM takes a column, and perhaps the width of a bucket{place}",
            f"ask {_EXAMPLE.format(column=named, table=table)}",
        )
    key, made = _key(target, node.expressions[1:], table, offer)
    alias = projection.alias if isinstance(projection, exp.Alias) else "histogram"
    count = exp.alias_(exp.Count(this=exp.Star(), big_int=True), alias)
    if isinstance(whole, exp.Filter):
        count = exp.alias_(exp.Filter(this=count.this, expression=whole.expression.copy()), alias)
    at = next(place for place, one in enumerate(select.expressions) if one is projection or one is whole)
    keys = _keys(select, at, len(made))
    select.set("expressions", [*select.expressions[:at], *made, count, *select.expressions[at + 1 :]])
    select.set("group", exp.Group(expressions=[*keys, key.copy()]))


def _has_figure(projection: exp.Expr, node: exp.Expr) -> bool:
    return any(one is not node for one in projection.find_all(exp.AggFunc, exp.Window))


def _keys(select: exp.Select, at: int, more: int) -> list[exp.Expr]:
    """Return what a SELECT groups by, each written out, as columns are put in before the place `at`."""
    order = select.args.get("order")
    for one in order.expressions if order is not None else []:
        spot = number(one.this) if isinstance(one, exp.Ordered) else None
        if spot is not None and spot > at:
            one.set("this", exp.Literal.number(f"{spot + more:f}"))
    group = select.args.get("group")
    if group is None:
        return []
    if group.args.get("all"):
        return [one.unalias().copy() for place, one in enumerate(select.expressions) if place != at]
    keys = []
    for one in group.expressions:
        spot = number(one)
        is_place = spot is not None and spot == int(spot) and 1 <= spot <= len(select.expressions) and spot != at + 1
        keys.append(select.expressions[int(spot or 1) - 1].unalias().copy() if is_place else one)
    return keys


def _key(target: exp.Column, more: Sequence[exp.Expr], table: str, offer: Offer) -> tuple[exp.Expr, list[exp.Expr]]:
    """Return the buckets of a column as an expression to group by, and the columns of the answer that name them."""
    column, name = define(target, table, offer), target.name
    if column.type == "bool" or (column.domain and (column.low is None or not more)):
        if more:
            hint = "leave the second argument out: each value is a bucket"
            raise SqlError(f"{name!r} has values of its own as buckets{sql_position(more[0])}", hint)
        return target, [target.copy()]
    if column.low is None or column.high is None:
        raise SqlError(
            f"{name!r} has no buckets{sql_position(target)}: no policy gives it bounds or a closed domain",
            "COUNT(*) counts rows",
        )
    if more and isinstance(more[0], exp.Array):
        case = _listed(target, more[0])
        return case, [exp.alias_(case.copy(), f"{name}_bucket")]
    width = _width(column) if not more else _checked(more[0], column)
    case = _buckets(target, list(_edges(column, width)), column.can_be_missing)
    upto = exp.Add(this=exp.paren(case.copy()), expression=exp.Literal.number(in_digits(width)))
    return case, [exp.alias_(case.copy(), f"{name}_from"), exp.alias_(upto, f"{name}_to")]


def _ends(column: TableColumn) -> tuple[Decimal, Decimal]:
    step = Decimal(column.step or 1)
    return (column.low or 0) * step, (column.high or 0) * step


def _width(column: TableColumn) -> Decimal:
    """Return a round width, of 1, 2 or 5 and zeros, of which the bounds hold at most about twenty."""
    low, high = _ends(column)
    step = Decimal(column.step or 1)
    widths = (digit * Decimal(10) ** power for power in range(-9, 20) for digit in (1, 2, 5))
    return next(one for one in widths if (high - low) / one <= _MOST_BUCKETS and one >= step)


def _checked(node: exp.Expr, column: TableColumn) -> Decimal:
    """Return the width of a bucket; raises SqlError where it is none."""
    found, (low, high) = number(node), _ends(column)
    if found is None or found <= 0:
        shown = node.sql(dialect="duckdb")[:40]
        raise SqlError(
            f"a bucket is a number above 0 wide, found {shown}{sql_position(node)}",
            f"write HISTOGRAM({column.name}, {in_digits(_width(column))}), or a list of where buckets end",
        )
    if (high - low) / found >= MAX_WHENS:
        exact = (high - low) / found + 1
        count = f"{int(exact):,}" if exact < _MOST_SHOWN else f"more than {_MOST_SHOWN:,}"
        raise SqlError(
            f"{count} buckets, at most {MAX_WHENS} are made{sql_position(node)}",
            f"write HISTOGRAM({column.name}, {in_digits(_width(column))})",
        )
    return found


def _edges(column: TableColumn, width: Decimal) -> Iterator[Decimal]:
    """Yield the lower ends of the buckets."""
    low, high = _ends(column)
    first, last = (int((end / width).to_integral_value(ROUND_FLOOR)) for end in (low, high))
    is_last_value = last > first and last * width == high and width > Decimal(column.step or 1)
    # The upper bound counts with the last bucket, in place of one for it alone.
    for place in range(first, last + 1 - is_last_value):
        yield place * width


def _buckets(target: exp.Column, edges: Sequence[Decimal], can_be_missing: bool) -> exp.Case:
    """Return the lower end of each cell's bucket; nothing for a cell that is missing, where one can be."""
    case = exp.Case()
    for low, high in pairwise(edges):
        case = case.when(_compared(exp.LT, target, high), _literal(low))
    if len(edges) > 1 and not can_be_missing:
        return case.else_(_literal(edges[-1]))
    return case.when(_compared(exp.GTE, target, edges[-1]), _literal(edges[-1]))


def _listed(target: exp.Column, listed: exp.Array) -> exp.Case:
    """Return buckets that end at these numbers, each with its end, as DuckDB has them; raises SqlError."""
    ends = [found for one in listed.expressions if (found := number(one)) is not None]
    is_rising = all(one < other for one, other in pairwise(ends))
    if not ends or len(ends) != len(listed.expressions) or not is_rising or len(ends) >= MAX_WHENS:
        hint = f"write numbers in rising order, at most {MAX_WHENS - 1}, as in HISTOGRAM({target.name}, [10, 20, 50])"
        raise SqlError(f"the ends of buckets are no list of numbers{sql_position(listed)}", hint)
    case, before = exp.Case(), ""
    for end in ends:
        label = f"{before}up to {in_digits(end)}"
        case, before = case.when(_compared(exp.LTE, target, end), exp.Literal.string(label)), f"over {in_digits(end)} "
    return case.when(_compared(exp.GT, target, ends[-1]), exp.Literal.string(before.strip()))


def _compared(operator: type[exp.Binary], target: exp.Column, value: Decimal) -> exp.Expr:
    return operator(this=target.copy(), expression=_literal(value))


def _literal(value: Decimal) -> exp.Expr:
    found = exp.Literal.number(in_digits(abs(value)))
    return exp.Neg(this=found) if value < 0 else found
