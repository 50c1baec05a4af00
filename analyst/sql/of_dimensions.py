"""What to ask instead of a figure of a column that is grouped by: its groups, or what can be computed from them."""

from sqlglot import exp

from analyst.sql.nodes import written_keys
from analyst.sql.offer import Offer
from analyst.sql.proposals import Key, count_beside, keys_at, proposed
from policies.requests.tables import TableColumn

_ADDED = (exp.Avg, exp.Sum)
_SPREAD = (exp.Variance, exp.VariancePop, exp.Stddev, exp.StddevPop, exp.StddevSamp)
_MIDDLE = (exp.Median, exp.Quantile, exp.PercentileCont, exp.PercentileDisc, exp.ApproxQuantile)
_PAIRS = (
    exp.Corr, exp.CovarPop, exp.CovarSamp, exp.RegrSlope, exp.RegrIntercept, exp.RegrR2, exp.RegrCount, exp.RegrAvgx,
    exp.RegrAvgy,
)  # fmt: skip


def of_groups(column: TableColumn, node: exp.Column, table: str, offer: Offer) -> str:
    """Return what to ask instead of the figure, around `node`, of a column that has no bounds."""
    figure, select, name = node.find_ancestor(exp.AggFunc), node.find_ancestor(exp.Select), column.name
    persons = offer.persons(table)
    if not column.domain:
        if column.type in ("string", "date"):
            return "COUNT(*) counts rows"
        added = [one for one in offer.columns(table) if offer.column(table, one).step is not None]
        return f"columns with bounds: {', '.join(added) or 'none'}"
    if select is not None and any(isinstance(key, exp.Column) and key.name in persons for key in written_keys(select)):
        return f"of a group's column, take COUNT(DISTINCT {name}), MIN({name}) or MAX({name}) inside"
    key: Key = (name, name)
    count = count_beside(offer.columns(table))
    if isinstance(figure, exp.Count):
        known = proposed(count, table, offer, node, where=f"{name} IS NOT NULL")
        return f"count the rows where it is known: {known}"
    if isinstance(figure, _PAIRS):
        other = next((one.name for one in figure.find_all(exp.Column) if one.name != name), "")
        if other in offer.columns(table) and offer.column(table, other).step is not None:
            asked = proposed(f"AVG({other})", table, offer, node, [key])
            return f"ask the average of the other column in each group: {asked}"
    if column.type in ("int", "decimal") and isinstance(figure, (*_ADDED, *_SPREAD)):
        return _computed(figure, name, table, offer, node)
    asked = proposed(count, table, offer, node, [key])
    more = ", and read off the middle" if isinstance(figure, _MIDDLE) else ""
    return f"count the rows of each value{more}: {asked}"


def _computed(figure: exp.Expr, name: str, table: str, offer: Offer, node: exp.Expr) -> str:
    """Return a sum, an average or a variance that is computed from groups."""
    count = count_beside(offer.columns(table))
    inner = proposed(count, table, offer, node, [(name, name)], f"{name} IS NOT NULL")
    groups = [given for _, given in keys_at(node) if given != name]
    n = count.rpartition(" ")[2]
    mean = f"SUM({name} * {n}) / SUM({n})"
    words, asked = "average its groups", f"{mean} AS average"
    if isinstance(figure, exp.Sum):
        words, asked = "add up its groups", f"SUM({name} * {n}) AS total"
    elif isinstance(figure, _SPREAD):
        spread = f"SUM({name} * {name} * {n}) / SUM({n}) - ({mean}) ** 2 AS variance"
        words, asked = "compute it from its groups", spread
    by = f" GROUP BY {', '.join(groups)}" if groups else ""
    shown = ", ".join([*groups, asked])
    return f"{words}: SELECT {shown} FROM ({inner}){by}"  # noqa: S608
