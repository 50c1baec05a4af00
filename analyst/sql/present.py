"""COUNT of a column that is grouped by: how many of its cells have a value of its domain.

SELECT COUNT(ward) FROM visits    as    SELECT COUNT(*) FILTER (WHERE ward IS NOT NULL) FROM visits
"""

from sqlglot import exp

from analyst.sql.offer import Offer


def with_present(query: exp.Query, offer: Offer) -> exp.Query:
    """Return a query in which such counts are counts of rows with a condition."""
    query = query.copy()
    for select in list(query.find_all(exp.Select)):
        source = select.args.get("from_")
        if source is None or not isinstance(source.this, exp.Table) or source.this.name not in offer.tables:
            continue
        table = source.this.name
        for count in [one for one in select.find_all(exp.Count) if one.find_ancestor(exp.Select) is select]:
            column = count.this
            if isinstance(column, exp.Column) and _is_grouped_by_only(column, table, offer):
                present = exp.Not(this=exp.Is(this=column.copy(), expression=exp.Null()))
                rows: exp.Expr = exp.Count(this=exp.Star(), big_int=True)
                rows.meta.update(count.meta)
                if count in select.expressions and count.parent is select:
                    count = count.replace(exp.alias_(count.copy(), f"count_{column.name}", quoted=True)).this
                if isinstance(count.parent, exp.Filter):
                    where = count.parent.expression
                    where.set("this", exp.and_(where.this.copy(), present))
                    count.replace(rows)
                else:
                    count.replace(exp.Filter(this=rows, expression=exp.Where(this=present)))
    return query


def _is_grouped_by_only(column: exp.Column, table: str, offer: Offer) -> bool:
    if column.name not in offer.columns(table):
        return False
    found = offer.column(table, column.name)
    return bool(found.domain) and found.step is None
