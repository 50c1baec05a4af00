"""ROLLUP, CUBE and GROUPING SETS: silos group by the finest groups, and totals are added up after the answer.

    SELECT ward, COUNT(*) AS n FROM visits GROUP BY ROLLUP (ward)    as
    SELECT ward, SUM(f1) AS n FROM (SELECT ward, COUNT(*) AS f1 FROM visits GROUP BY ward) GROUP BY ROLLUP (ward)

Pure: it knows no silo.
"""

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.parse import sql_position

_SETS = (exp.Rollup, exp.Cube, exp.GroupingSets)
_ADDED = (exp.Count, exp.CountIf, exp.Sum)
_FINEST = "finest"


def with_totals(query: exp.Query) -> exp.Query:
    """Return a query in which totals are sums of the finest groups' figures; raises SqlError."""
    ctes = {one.alias for one in query.find_all(exp.CTE)}
    for select in list(query.find_all(exp.Select)):
        group, source = select.args.get("group"), select.args.get("from_")
        if group is None or source is None or group.find(*_SETS) is None:
            continue
        if isinstance(source.this, exp.Table) and source.this.name not in ctes:
            _rewrite(select, group, source)
    return query


def _rewrite(select: exp.Select, group: exp.Group, source: exp.From) -> None:
    """Put the finest groups below a SELECT with totals, in place."""
    if group.expressions and (rest := [one for one in group.args.get("rollup") or () if not one.expressions]):
        rest[0].set("expressions", group.expressions)  # GROUP BY ... WITH ROLLUP
        group.set("expressions", [])
    named = {one.alias: one.this for one in select.expressions if one.alias}
    for column in list(group.find_all(exp.Column)):
        meant = named.get(column.name)
        if meant is not None and not column.table and meant != column:
            column.replace(meant.copy())
    keys = _keys(group)
    inner = exp.Select(expressions=[], from_=source.copy(), group=exp.Group(expressions=[one.copy() for one in keys]))
    for clause in ("where", "joins"):
        if select.args.get(clause):
            inner.set(clause, _copied(select.args[clause]))
            select.set(clause, None)
    for projection in select.expressions:
        if not projection.alias and not isinstance(projection, exp.Column):
            projection.replace(exp.alias_(projection.copy(), projection.sql(dialect="duckdb"), quoted=True))
    parts: dict[str, str] = {}
    for place, key in enumerate(keys, 1):
        name = key.name if isinstance(key, exp.Column) else f"key{place}"
        inner.append("expressions", exp.alias_(key.copy(), name, quoted=True))
        for node in [one for one in select.find_all(type(key)) if one == key]:
            node.replace(exp.column(name, quoted=True))
    select.set("from_", exp.From(this=exp.Subquery(this=inner, alias=exp.TableAlias(this=exp.to_identifier(_FINEST)))))
    for node in [one for one in select.find_all(exp.AggFunc) if one.find_ancestor(exp.Select) is select]:
        whole = node.parent if isinstance(node.parent, exp.Filter) else node
        if isinstance(node, exp.Avg):
            of = node.this.copy()
            _added(whole, node, inner, parts, (exp.Sum(this=of), exp.Count(this=of.copy(), big_int=True)))
        elif isinstance(node, _ADDED) and not isinstance(node.this, exp.Distinct):
            _added(whole, node, inner, parts, (node.copy(),))
        elif isinstance(node, exp.Grouping):
            message = f"GROUPING is not supported{sql_position(node)}"
            raise SqlError(message, "leave it out: a row of a total is NULL in the columns of which it is one")
        else:
            shown = node.sql(dialect="duckdb")[:60]
            hint = "totals add up counts, sums and averages: ask this figure of all rows in a statement of its own"
            raise SqlError(f"{shown} has no total{sql_position(node)}", hint)


def _keys(group: exp.Group) -> list[exp.Expr]:
    """Return everything that is grouped by, each once."""
    found: dict[str, exp.Expr] = {}
    waiting = [
        *group.expressions,
        *(one for kind in ("rollup", "cube", "grouping_sets") for one in group.args.get(kind) or ()),
    ]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, (*_SETS, exp.Tuple, exp.Group)):
            waiting = [*one.expressions, *waiting]
        elif isinstance(one, exp.Paren):
            waiting.insert(0, one.this)
        elif isinstance(one, exp.Literal):
            raise SqlError(
                f"GROUP BY {one.this} within totals is not supported{sql_position(group)}", "name the column"
            )
        else:
            found.setdefault(one.sql(), one.copy())
    return list(found.values())


def _added(
    whole: exp.Expr, node: exp.Expr, inner: exp.Select, parts: dict[str, str], figures: tuple[exp.Expr, ...]
) -> None:
    """Compute figures of the finest groups, and put their sum, or the quotient of two sums, in an aggregate's place."""
    sums = []
    for figure in figures:
        finest: exp.Expr = figure
        if whole is not node:
            finest = whole.copy()
            finest.set("this", figure)
        text = finest.sql()
        if text not in parts:
            parts[text] = f"part{len(parts) + 1}"
            inner.append("expressions", exp.alias_(finest, parts[text]))
        sums.append(exp.Sum(this=exp.column(parts[text])))
    new = (
        sums[0]
        if len(sums) == 1
        else exp.Paren(this=exp.Div(this=sums[0], expression=sums[1], typed=False, safe=False))
    )
    whole.replace(new)


def _copied(clause: object) -> object:
    if isinstance(clause, list):
        return [one.copy() for one in clause]
    return clause.copy() if isinstance(clause, exp.Expr) else clause
