"""SURVIVAL(time, event[, width]) in a question: how it is read, what it may stand beside, and what hints propose it."""

from collections.abc import Iterator
from decimal import Decimal

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.columns import measure
from analyst.sql.offer import Offer
from analyst.sql.parse import sql_position
from policies.requests.query import Aggregate, Plan
from policies.requests.survival import MAX_BINS, SURVIVAL, check_curve, grid_of, number
from policies.requests.tables import Table, TableColumn

_SHAPE = "write SURVIVAL(time, event), or SURVIVAL(time, event, 30) for bins of 30: of a number, and of a bool"


class Survival(exp.Expression, exp.AggFunc):
    """The function, which sqlglot does not know as an aggregate."""

    arg_types = {"this": True, "expression": True, "width": False}  # noqa: RUF012  as sqlglot declares them
    _sql_names = ["SURVIVAL"]  # noqa: RUF012


def with_curves(query: exp.Query) -> exp.Query:
    """Return a question in which SURVIVAL is an aggregate; raises SqlError where it has other arguments."""
    for node in list(query.find_all(exp.Anonymous)):
        if str(node.this).upper() != SURVIVAL.upper():
            continue
        given = node.expressions
        if not 2 <= len(given) <= 3:
            raise SqlError(f"SURVIVAL takes a time, an event and a width{sql_position(node)}", _SHAPE)
        node.replace(Survival(this=given[0], expression=given[1], width=given[2] if given[2:] else None))
    return query


def check_stands_alone(statement: exp.Select, after: exp.Query | None) -> None:
    """Raise SqlError if a curve stands beside other aggregates, or something is computed from it after the answer."""
    curve = statement.find(Survival)
    if curve is None:
        return
    plain = ", ".join(one.sql(dialect="duckdb") for one in _keys(statement))
    shown = _alone(curve, statement, plain)
    if after is not None:
        message = f"nothing is computed from SURVIVAL after the answer{sql_position(curve)}"
        raise SqlError(message, f"ask {shown}; its rows are in order, and --format csv or Python compute with them")
    if sum(one.find(exp.AggFunc) is not None for one in statement.expressions) > 1:
        message = f"SURVIVAL stands beside dimensions alone{sql_position(curve)}: its answer has a row for each time"
        raise SqlError(message, f"ask {shown}, and the other figures in a second question")


def _keys(statement: exp.Select) -> list[exp.Expr]:
    group = statement.args.get("group")
    return group.expressions if group is not None else []


def _alone(curve: exp.Expr, statement: exp.Select, keys: str) -> str:
    source, where = statement.args["from_"].this.sql(dialect="duckdb"), statement.args.get("where")
    if isinstance(curve.parent, exp.Filter):
        conditions = [one.this.copy() for one in (where, curve.parent.expression) if one is not None]
        where = exp.Where(this=exp.and_(*conditions))
    text = f"SELECT {keys + ', ' if keys else ''}{curve.sql(dialect='duckdb')} FROM {source}"  # noqa: S608
    text += f" {where.sql(dialect='duckdb')}" if where is not None else ""
    return text + (f" GROUP BY {keys}" if keys else "")


def curve_of(node: Survival, alias: str, table: str, offer: Offer) -> Aggregate:
    """Return the aggregate of a curve; raises SqlError where its columns, or its width, are none of one."""
    found = []
    for argument in (node.this, node.args["expression"]):
        if not isinstance(argument, exp.Column) or isinstance(argument.this, exp.Star):
            raise SqlError(f"SURVIVAL takes plain columns{sql_position(node)}", _SHAPE)
        found.append(measure(argument, table, offer))
    time, event = found
    if event.type != "bool":
        bools = [name for name in offer.columns(table) if offer.column(table, name).type == "bool"]
        hint = f"the second column says whether the event was seen: {', '.join(bools) or 'this table has no bool'}"
        raise SqlError(f"{event.name!r} is no bool{sql_position(node)}", hint)
    try:
        width = _width(node, time)
        check_curve(time, event, width, 1)
    except ValueError as err:
        raise SqlError(f"{err}{sql_position(node)}", _hint(time)) from err
    return Aggregate(function="survival", column=time.name, other=event.name, alias=alias, width=width)


def _width(node: Survival, time: TableColumn) -> int | None:
    """Return the width of bins in steps of the time; raises ValueError unless it is a number of whole ones."""
    given = node.args.get("width")
    if given is None:
        return None
    if not isinstance(given, exp.Literal) or given.is_string:
        raise ValueError("the width of a curve's bins is a number")
    steps = Decimal(str(given.this)) / Decimal(time.step or 1)
    if steps < 1 or steps != steps.to_integral_value() or steps > 2**60:
        raise ValueError(f"bins of {given.this} are not whole steps of {time.name!r}, each {time.step}")
    return int(steps)


def _hint(time: TableColumn) -> str:
    """Return a width that a curve of this time may have, or what such a time is."""
    try:
        grid = grid_of(time, None)
    except ValueError:
        return _SHAPE
    width = number(grid.width * grid.shown * Decimal(time.step or 1))
    return f"leave the width out, or write {width}: at most {MAX_BINS:,} bins are computed"


def check_groups(plan: Plan, table: Table) -> None:
    """Raise SqlError if the curves of a question have more groups than are computed on so many bins."""
    if plan.curve is None:
        return
    time, event = map(plan.seen(table).column, plan.curve.columns)
    try:
        check_curve(time, event, plan.curve.width, plan.group_count(table))
    except ValueError as err:
        grid = grid_of(time, None)
        width = number(grid.width * grid.shown * Decimal(time.step or 1))
        hint = f"count in wider bins, as in SURVIVAL({time.name}, {event.name}, {width}), or group by fewer columns"
        raise SqlError(str(err), hint) from err


def curve_instead(statement: exp.Select, column: TableColumn, table: str, offer: Offer) -> str:
    """Return the question for a curve where one groups by a time and counts by a bool; nothing where it is not open."""
    opens = all(SURVIVAL in offer.silos[silo].aggregates for silo in offer.holders(table))
    bools = [name for name in _counted(statement) if _is_bool(name, table, offer)]
    if not opens or not bools or not offer.is_filter(table, column.name):
        return ""
    try:
        grid_of(column, None)
    except ValueError:
        return ""
    return f"ask the curve of what happened until then: SELECT SURVIVAL({column.name}, {bools[0]}) FROM {table}"  # noqa: S608


def _counted(statement: exp.Select) -> Iterator[str]:
    """Yield the columns of what is added up, or counted on a condition, which may be a group by now."""
    for node in statement.find_all(exp.Column):
        if node.find_ancestor(exp.Where) is None:
            yield node.name


def _is_bool(name: str, table: str, offer: Offer) -> bool:
    return name in offer.columns(table) and offer.column(table, name).type == "bool"
