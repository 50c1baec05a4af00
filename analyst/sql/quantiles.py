"""Quantiles and medians in SQL: what each spelling of DuckDB asks, and what to ask instead of what is no quantile."""

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.nodes import number
from analyst.sql.parse import sql_position
from policies.requests.query import Aggregate

_DECIMALS = 6  # of a share
_MEDIAN = Decimal("0.5")
# The spellings: whether the quantile is that of a row, or lies between two.
_SPELLINGS: Mapping[type[exp.Expr], str] = MappingProxyType(
    {
        exp.Median: "quantile",
        exp.PercentileCont: "quantile",
        exp.ApproxQuantile: "quantile",
        exp.PercentileDisc: "quantile_disc",
        exp.Quantile: "quantile_disc",
    }
)
_KNOWN = {"this", "expression", "quantile"}


def is_quantile(node: exp.Expr) -> bool:
    """Tell whether an expression is a quantile or a median."""
    return type(node) in _SPELLINGS


def name_of_quantile(node: exp.Expr) -> str:
    """Return the name of a quantile without an alias, such as median_age or quantile_age_0.25."""
    share = _share(node)
    named = "median" if isinstance(node, exp.Median) else _SPELLINGS[type(node)]
    return "_".join([named, _name(node.this), *([] if share is None else [share.name or share.sql()])])


def _name(target: exp.Expr) -> str:
    return str(target.name).rpartition(".")[2] or target.sql(dialect="duckdb", comments=False)[:60]


def ordered(query: exp.Query) -> exp.Query:
    """Return a query in which PERCENTILE_CONT(q) WITHIN GROUP (ORDER BY x) is written QUANTILE_CONT(x, q)."""
    for node in list(query.find_all(exp.WithinGroup)):
        order, inner = node.expression, node.this
        keys = order.expressions if isinstance(order, exp.Order) else []
        if not isinstance(inner, exp.PercentileCont | exp.PercentileDisc) or len(keys) != 1 or inner.expression:
            continue
        key, share = keys[0], inner.this
        if isinstance(key, exp.Ordered) and key.args.get("desc"):
            found = number(share)
            if found is None or isinstance(inner, exp.PercentileDisc):
                raise SqlError(
                    f"a quantile ORDER BY ... DESC is not supported{sql_position(node)}",
                    "order by the column as it is, and ask for 1 - q",
                )
            share = exp.Literal.number(f"{1 - found:f}")
        new = type(inner)(this=key.this.copy() if isinstance(key, exp.Ordered) else key.copy(), expression=share.copy())
        node.replace(new)
    return query


def measured(node: exp.Expr) -> exp.Expr:
    """Return the measure of which a quantile is asked, a column or an expression of columns; raises SqlError."""
    target: exp.Expr = node.this.unnest()
    shown, place = node.sql(dialect="duckdb")[:60], sql_position(node)
    if isinstance(target, exp.Distinct):
        raise SqlError(f"{shown} is not supported{place}", f"ask it of all rows: {_example(target.expressions[0])}")
    if target.find(exp.Star, exp.AggFunc) is not None or target.find(exp.Column) is None:
        raise SqlError(f"{shown} is not supported{place}", "a quantile is of a column, or of an expression of columns")
    if more := next((key for key, value in node.args.items() if value and key not in _KNOWN), None):
        raise SqlError(f"{shown} is not supported, for its {more}{place}", f"write {_example(target)}")
    return target


def quantile_of(node: exp.Expr, alias: str, column: str, type_name: str) -> Aggregate:
    """Return the aggregate that a quantile of a measure of some type asks for; raises SqlError."""
    if type_name == "bool":
        raise SqlError(f"{column!r} is true or false, and has no quantile{sql_position(node)}", f"ask AVG({column})")
    at = _MEDIAN if isinstance(node, exp.Median) else _checked(_share(node), node, node.this.unnest())
    function = _SPELLINGS[type(node)]
    return Aggregate(function=function, column=column, alias=alias, at=f"{at.normalize():f}")  # type: ignore[arg-type]


def _share(node: exp.Expr) -> exp.Expr | None:
    found = node.args.get("quantile") or node.args.get("expression")
    return found if isinstance(found, exp.Expr) else None


def _example(target: exp.Expr, share: str = "0.5") -> str:
    return f"QUANTILE_CONT({target.sql(dialect='duckdb')[:60]}, {share})"


def _checked(share: exp.Expr | None, node: exp.Expr, target: exp.Expr) -> Decimal:
    """Return the share of the rows that lie below a quantile of `target`; raises SqlError where it is none."""
    place = sql_position(node)
    if isinstance(share, exp.Array):
        listed = [one.sql(dialect="duckdb") for one in share.expressions[:2]] or ["0.5"]
        each = ", ".join(_example(target, one) for one in listed)
        raise SqlError(f"a quantile is at one share of the rows, not at a list of them{place}", f"ask each: {each}")
    found = None if share is None else number(share)
    if found is None:
        shown = "nothing" if share is None else share.sql(dialect="duckdb")[:40]
        raise SqlError(
            f"a quantile is at a number between 0 and 1, found {shown}{place}", f"write {_example(target, '0.5')}"
        )
    if found in (0, 1):
        extreme, near = ("MIN", "0.01") if found == 0 else ("MAX", "0.99")
        raise SqlError(
            f"the quantile at {found} is {extreme}: one person decides it{place}", f"ask {_example(target, near)}"
        )
    if not 0 < found < 1:
        hint = f"a share of the rows, as in {_example(target, '0.25')}"
        if 1 < found < 100:
            hint = f"write a percentage as a share: {_example(target, f'{(found / 100).normalize():f}')}"
        raise SqlError(f"a quantile is at a number between 0 and 1, found {found:f}{place}", hint)
    if found != round(found, _DECIMALS):
        near = f"{round(found, _DECIMALS).normalize():f}"
        near = near if near not in ("0", "1") else "0.999999" if near == "1" else "0.000001"
        raise SqlError(f"a quantile has up to {_DECIMALS} decimals{place}", f"write {_example(target, near)}")
    return found
