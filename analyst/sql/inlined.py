"""Conditions of aggregates, moved into what is aggregated, where figures cannot be added over groups.

    VAR_POP(age) FILTER (WHERE died)     as VAR_POP(CASE WHEN died THEN age END)
    MEDIAN(age) FILTER (WHERE died)      as MEDIAN(CASE WHEN died THEN age END)
    AVG(a / b) FILTER (WHERE b > 0)      as AVG(CASE WHEN b > 0 THEN a / b END), where the condition bounds b

A count, a sum and an average of a column are added up over the groups that their conditions make
(`analyst.sql.conditions`); if one figure of a question cannot be, none is. Pure: it knows no silo.
"""

from sqlglot import exp

_ADDED = (exp.Count, exp.Sum, exp.Avg, exp.CountIf)
_QUANTILES = (exp.Median, exp.PercentileCont, exp.PercentileDisc, exp.Quantile, exp.ApproxQuantile)
_OTHERS = (
    *_QUANTILES,
    exp.Variance, exp.VariancePop, exp.Stddev, exp.StddevPop, exp.StddevSamp, exp.CovarPop, exp.CovarSamp, exp.Corr,
    exp.RegrSlope, exp.RegrIntercept, exp.RegrR2, exp.RegrCount, exp.RegrAvgx, exp.RegrAvgy,
)  # fmt: skip


def inlined(statement: exp.Select, *, has_to: bool = False) -> exp.Select:
    """Return a statement with conditions inside what is aggregated, where they must be; with `has_to` all of them."""
    if statement.find(exp.Filter, exp.CountIf) is None:
        return statement
    statement, has_to = statement.copy(), has_to or not can_be_added(statement)
    for one in list(statement.find_all(exp.Filter)):
        aggregate = one.this
        is_known = isinstance(aggregate, (*_ADDED, *_OTHERS)) and not isinstance(aggregate.this, exp.Distinct)
        if is_known and (has_to or _is_computed(aggregate)):
            _replace(one, _conditioned(aggregate, one.expression.this))
    if has_to:
        for count in list(statement.find_all(exp.CountIf)):
            _replace(count, _conditioned(exp.Count(this=exp.Star(), big_int=True), count.this))
    return statement


def can_be_added(statement: exp.Select) -> bool:
    """Tell whether every figure of a statement is a sum over the groups that conditions make, or a ratio of two."""
    return statement.find(*_OTHERS) is None or statement.find(exp.Filter, exp.CountIf) is None


def _is_computed(node: exp.Expr) -> bool:
    """Tell whether an aggregate is of something else than rows or a column."""
    return not isinstance(node, exp.CountIf) and not isinstance(node.this, exp.Star | exp.Column | exp.Literal)


def _conditioned(aggregate: exp.Expr, condition: exp.Expr) -> exp.Expr:
    """Return an aggregate of what is missing where a condition is not true."""
    found = aggregate.copy()
    if isinstance(found, exp.CountIf):
        found = exp.Count(this=exp.Star(), big_int=True)
        condition = exp.and_(aggregate.this.copy(), condition.copy())
    for key in ("this",) if isinstance(found, _QUANTILES) else ("this", "expression"):  # a quantile's share stays
        inner = found.args.get(key)
        if isinstance(inner, exp.Expr):
            value = exp.Literal.number(1) if isinstance(inner, exp.Star) else inner.copy()
            found.set(key, exp.Case().when(condition.copy(), value))
    return found


def _replace(one: exp.Expr, by: exp.Expr) -> None:
    by.meta.update(one.meta)
    one.replace(by)
