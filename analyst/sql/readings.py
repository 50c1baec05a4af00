"""Readings of a table: SELECTs that make figures of its rows, with the conditions that these rows meet.

Where a question reads a table several times, `analyst.sql.scalars` and `analyst.sql.beside` make one reading of them:
what all of them ask of a row stays in WHERE, and the rest becomes FILTER of each figure. Pure: it knows no silo.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlglot import exp

from analyst.sql.offer import Offer

_PLAIN = {"expressions", "from_", "where", "group"}
_UNCOUNTED = (exp.Distinct,)  # a number of persons has no condition of its own


class Kept(Exception):  # noqa: N818  no error: the question stays as it is written, and what follows may refuse it
    """Raised where readings cannot become one."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What can be read in a question: its CTEs, and the names of tables whose rows are counted."""

    ctes: Mapping[str, exp.CTE]
    rows: Collection[str]

    def table_of(self, select: exp.Select) -> str:
        """Return the table whose rows a SELECT reads by itself; an empty text where it reads something else."""
        source = select.args.get("from_")
        table = None if source is None else source.this
        if not isinstance(table, exp.Table) or select.args.get("joins"):
            return ""
        extras = [key for key, one in table.args.items() if one and key not in ("this", "alias")]
        return table.name if table.name in self.rows and not extras else ""

    def select_of(self, source: exp.Expr) -> exp.Select | None:
        """Return the SELECT that a subquery or the name of a CTE stands for; None where it is none."""
        inner = source.this if isinstance(source, exp.Subquery) else None
        if isinstance(source, exp.Table) and source.name in self.ctes:
            inner = self.ctes[source.name].this
        return inner if isinstance(inner, exp.Select) else None


def sources_of(query: exp.Query, offer: Offer) -> Sources:
    """Return what a question can read; a CTE has rows where it only filters, or makes one row of each person."""
    ctes = {one.alias: one for one in query.find_all(exp.CTE)}
    persons = {name for table in offer.tables for name in offer.persons(table)}
    rows = {name for name in offer.tables if name not in ctes}
    for name, cte in ctes.items():
        inner = cte.this
        if not isinstance(inner, exp.Select) or inner.args.get("from_") is None:
            continue
        group = inner.args.get("group")
        of_person = group is not None and any(one.name in persons for one in group.find_all(exp.Column))
        only_filters = group is None and not figures_of(inner) and not inner.args.get("distinct")
        if of_person or (only_filters and inner.args["from_"].this.name in rows):
            rows.add(name)
    return Sources(ctes, frozenset(rows))


def is_plain(select: exp.Select, *more: str) -> bool:
    """Tell whether a SELECT has no other clauses than these, and reads nothing below it."""
    has_others = any(one and key not in _PLAIN.union(more) for key, one in select.args.items())
    return not has_others and select.find(exp.Subquery, exp.Exists) is None and select.find(exp.Window) is None


def figures_of(node: exp.Expr) -> list[exp.Expr]:
    """Return the aggregates in an expression or a SELECT with their FILTER, but not windows or what is below it."""
    found, waiting = [], [node]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, exp.Query | exp.Subquery) and one is not node:
            continue
        is_windowed = isinstance(one.parent, exp.Window) and one.arg_key == "this"
        is_aggregate = isinstance(one.this if isinstance(one, exp.Filter) else one, exp.AggFunc)
        if isinstance(one, exp.Lag | exp.Lead | exp.FirstValue | exp.LastValue):
            is_aggregate = False
        if is_aggregate and not is_windowed:
            found.append(one)
        elif is_aggregate and isinstance(one, exp.Filter):  # of a window: what it adds up may be figures
            waiting += [one.expression, *one.this.iter_expressions()]
        else:
            waiting += list(one.iter_expressions())
    return found


def conditions_of(select: exp.Select) -> list[exp.Expr]:
    """Return the conditions in WHERE that all hold, without the name of the table that they read."""
    where = select.args.get("where")
    if where is None:
        return []
    if where.find(exp.Select) is not None:
        raise Kept
    parts = where.this.flatten() if isinstance(where.this, exp.And) else [where.this]
    return [one.unnest().copy() for one in parts]


def unqualified(select: exp.Select) -> exp.Select:
    """Return a copy of a SELECT of one table without the table's name before its columns; raises Kept."""
    select = select.copy()
    table = select.args["from_"].this
    for column in select.find_all(exp.Column):
        if column.table and column.find_ancestor(exp.Select) is select:
            if column.table not in (table.alias, table.name):
                raise Kept  # of the question around it
            if not isinstance(column.parent, exp.Group):
                column.set("table", None)
    table.set("alias", None)
    return select


def text_of(node: exp.Expr) -> str:
    """Return an expression as text, to tell whether two are the same; names are spelled already."""
    return node.unnest().sql(dialect="duckdb", comments=False, identify=True, normalize_functions="upper")


def shared(readings: Collection[list[exp.Expr]]) -> set[str]:
    """Return the conditions, as text, that every reading has."""
    return set.intersection(*({text_of(one) for one in found} for found in readings)) if readings else set()


def under(figure: exp.Expr, conditions: Collection[exp.Expr]) -> exp.Expr:
    """Return a figure of the rows that meet these conditions too; raises Kept for one that takes no condition."""
    if not conditions:
        return figure.copy()
    held = [one.copy() for one in conditions]
    aggregate = figure.this if isinstance(figure, exp.Filter) else figure
    if isinstance(aggregate.this, _UNCOUNTED):
        raise Kept
    if isinstance(figure, exp.Filter):
        held.insert(0, figure.expression.this.copy())
    new = exp.Filter(this=aggregate.copy(), expression=exp.Where(this=exp.and_(*held)))
    new.meta.update(figure.meta)
    return new


def put(node: exp.Expr, by: exp.Expr) -> exp.Expr:
    """Put an expression in the place of another, in parentheses where that may matter, and return it."""
    if isinstance(by, exp.Binary) and not isinstance(node.parent, exp.Select | exp.Alias | exp.Paren):
        by = exp.Paren(this=by)
    node.replace(by)
    return by


def without_unread(query: exp.Query) -> None:
    """Remove the CTEs that nothing reads any more, in place."""
    for with_ in list(query.find_all(exp.With)):
        for cte in reversed(list(with_.expressions)):
            if not any(one.name == cte.alias for one in query.find_all(exp.Table)):
                cte.pop()
        if not with_.expressions:
            with_.pop()
