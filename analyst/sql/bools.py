"""Casts of a bool to a number in an aggregate: silos add up a bool as 1 and 0, and it needs no measure of its own.

AVG(died::INT) FILTER (WHERE age > 60)     as AVG(died) FILTER (WHERE age > 60)
"""

from sqlglot import exp

from analyst.sql.offer import Offer

_NUMBERS = (exp.DType.INT, exp.DType.BIGINT, exp.DType.SMALLINT, exp.DType.TINYINT, exp.DType.DOUBLE, exp.DType.FLOAT)


def without_casts(query: exp.Query, offer: Offer) -> exp.Query:
    """Return a query in which no bool of a table is cast within COUNT, SUM and AVG; what has no alias stays."""
    if query.find(exp.Cast) is None:
        return query
    query = query.copy()
    for cast in [one for one in query.find_all(exp.Cast) if type(one) is exp.Cast]:
        column, select = cast.this, cast.find_ancestor(exp.Select)
        source = None if select is None else select.args.get("from_")
        if source is None or not isinstance(column, exp.Column) or not isinstance(cast.parent, exp.Sum | exp.Avg):
            continue
        table = source.this.name if isinstance(source.this, exp.Table) else ""
        if table not in offer.tables or column.name not in offer.columns(table):
            continue
        is_bool = offer.column(table, column.name).type == "bool" and cast.to.this in _NUMBERS
        if is_bool and _has_name(cast, select):
            cast.replace(column)
    return query


def _has_name(node: exp.Expr, select: exp.Select | None) -> bool:
    """Tell whether what an expression is a part of is not named by its text."""
    holder = None if select is None else select.parent
    if isinstance(holder, exp.Subquery) and not isinstance(holder.parent, exp.From | exp.Join):
        return True  # of one value
    while node.parent is not None and node.parent is not select:
        node = node.parent
    return isinstance(node, exp.Alias) or node.arg_key != "expressions"
