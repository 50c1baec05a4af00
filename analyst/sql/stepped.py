"""GROUP BY a number with few steps between its bounds: a group for each of them, as by a domain.

SELECT grade, COUNT(*) FROM visits GROUP BY grade    as    SELECT grade // 1 * 1 AS grade, ... GROUP BY grade // 1 * 1
"""

from decimal import Decimal

from sqlglot import exp

from analyst.sql.offer import Offer
from policies.requests.cases import MAX_WHENS


def by_steps(query: exp.Query, offer: Offer) -> exp.Query:
    """Return a query in which numbers that are grouped by, and have few steps, are written as buckets of one step."""
    query = query.copy()
    for select in list(query.find_all(exp.Select)):
        group, source = select.args.get("group"), select.args.get("from_")
        if group is None or source is None or source.this.name not in offer.tables:
            continue
        table = source.this.name
        for projection in list(select.expressions):
            column = projection.unalias()
            if isinstance(column, exp.Column) and (step := _step(column, table, offer)):
                name = projection.alias or column.name
                projection.replace(exp.alias_(_bucket(column, step), name, quoted=True))
        for key in list(group.expressions):
            if isinstance(key, exp.Column) and (step := _step(key, table, offer)):
                key.replace(_bucket(key, step))
    return query


def _step(column: exp.Column, table: str, offer: Offer) -> int:
    """Return the step of a whole number with few of them between its bounds; 0 for any other column."""
    if column.name not in offer.columns(table):
        return 0
    found = offer.column(table, column.name)
    is_whole = found.type == "int" and not found.domain and found.step is not None and Decimal(found.step) % 1 == 0
    return int(Decimal(found.step or 0)) if is_whole and found.range_steps < MAX_WHENS - 1 else 0


def _bucket(column: exp.Column, step: int) -> exp.Expr:
    width = exp.Literal.number(step)
    return exp.Paren(this=exp.Mul(this=exp.IntDiv(this=column.copy(), expression=width), expression=width.copy()))
