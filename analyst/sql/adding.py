"""The SQL that adds up figures with conditions, over the groups that the conditions make. docs/sql.md section 3.

    SELECT AVG(age) FILTER (WHERE died) AS a FROM lung
    core:  SELECT <digits of died> AS hidden_1, SUM(age) AS s, COUNT(age) AS n FROM lung GROUP BY hidden_1
    after: SELECT SUM(s) FILTER (WHERE ...) / SUM(n) FILTER (WHERE ...) AS a FROM released

Pure. Where a figure is of no group, its sum is 0 and its average has no value, as in SQL.
"""

from collections.abc import Mapping

from sqlglot import exp

from analyst.sql.conditions import Conditioned, Figure, Held
from analyst.sql.split import RELEASED


def added(conditioned: Conditioned, after: exp.Query) -> exp.Query:
    """Return what is computed after the answer, on the figures of a core whose conditions became hidden dimensions."""
    query = after.copy()
    figures = {name: _sum_of(one) for name, one in conditioned.figures.items()}
    dimensions = [one.alias_or_name for one in conditioned.core.expressions]
    groups = _groups(conditioned)
    names = [name for name in dimensions if name in groups and name not in conditioned.hidden]
    leaf = next(one for one in query.find_all(exp.Table) if one.name == RELEASED).find_ancestor(exp.Select)
    if isinstance(query, exp.Select) and leaf is query and query.find(exp.Window) is None:
        _inline(query, figures, names)
        return query
    inner = exp.select(*map(exp.column, names)).from_(RELEASED)
    inner = inner.select(*(exp.alias_(node.copy(), name) for name, node in figures.items()))
    if names:
        inner = inner.group_by(*map(exp.column, names))
    table = next(one for one in query.find_all(exp.Table) if one.name == RELEASED)
    table.replace(inner.subquery("added"))
    return query


def _groups(conditioned: Conditioned) -> set[str]:
    group = conditioned.core.args.get("group")
    aliases = {one.alias: one.alias for one in conditioned.core.expressions if one.alias}
    nodes, written = group.expressions if group is not None else [], dict[str, str]()
    if any(node.name not in aliases for node in nodes):
        written = {one.unalias().sql(): one.alias_or_name for one in conditioned.core.expressions}
    return {aliases.get(node.name) or written.get(node.sql()) or node.name for node in nodes}


def _inline(leaf: exp.Select, figures: Mapping[str, exp.Expr], names: list[str]) -> None:
    """Let a SELECT on released figures add them up itself."""
    where = leaf.args.get("where")
    leaf.set("where", None)
    if where is not None:
        leaf.set("having", exp.Having(this=where.this))
    for column in list(leaf.find_all(exp.Column)):
        if column.name in figures:
            new = figures[column.name].copy()
            if isinstance(column.parent, exp.Select) and column.arg_key == "expressions":
                new = exp.alias_(new, column.name)
            column.replace(new if isinstance(column.parent, exp.Alias | exp.Select) else exp.Paren(this=new))
    if names:
        leaf.set("group", exp.Group(expressions=[exp.column(name) for name in names]))


def _sum_of(figure: Figure) -> exp.Expr:
    """Return a figure as sums over released groups."""
    match figure.function:
        case "avg":
            return exp.Div(this=_sum(figure.of, figure.held), expression=_sum(figure.by or "", figure.held))
        case "share":
            return exp.Div(this=_or_zero(_sum(figure.of, figure.held)), expression=_sum(figure.of, None))
    return _or_zero(_sum(figure.of, figure.held))


def _or_zero(total: exp.Expr) -> exp.Expr:
    return exp.func("coalesce", total, exp.Literal.number(0), dialect="duckdb")


def _sum(name: str, held: Held | None) -> exp.Expr:
    total = exp.Sum(this=exp.column(name))
    if held is None:
        return total
    digit = exp.Substring(
        this=exp.column(held.dimension), start=exp.Literal.number(held.place + 1), length=exp.Literal.number(1)
    )
    return exp.Filter(this=total, expression=exp.Where(this=exp.EQ(this=digit, expression=exp.Literal.string("1"))))
