"""The definitions of a plan's columns, taken from the offer."""

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.of_dimensions import of_groups
from analyst.sql.offer import Offer, suggest
from analyst.sql.parse import sql_position
from policies.requests.tables import TableColumn


def define(node: exp.Column, table: str, offer: Offer) -> TableColumn:
    """Return the definition of a column of the question; raises SqlError if the offer has none."""
    if node.args.get("db") or (node.table and node.table != table):
        named = ".".join(part.name for part in node.parts[:-1])
        raise SqlError(f"unknown table {named!r}{sql_position(node)}", f"the question is about {table!r}")
    columns = offer.columns(table)
    if node.name in offer.persons(table):
        raise SqlError(
            f"column {node.name!r}{sql_position(node)} names single persons, and never leaves a silo",
            f"count them with COUNT(DISTINCT {node.name}), or make one row of each: {by_each(node.name, table)}",
        )
    if node.name not in columns:
        holders = offer.holders(table)
        opened = [silo for silo, found in holders.items() if node.name in found]
        if opened:
            others = ", ".join(silo for silo in holders if silo not in opened)
            hint = f"ask the others alone: --silos {','.join(opened)}"
            raise SqlError(f"unknown column {node.name!r}{sql_position(node)}: {others} does not open it", hint)
        hint = suggest(node.name, columns)
        if isinstance(node.parent, exp.Predicate) and node.arg_key != "this" and not hint.startswith("did you mean"):
            hint = f"a text stands in single quotes, as in {exp.Literal.string(node.name).sql()}; {hint}"
        raise SqlError(f"unknown column {node.name!r}{sql_position(node)}", hint)
    found = offer.with_values(offer.column(table, node.name))
    if found.type == "array":
        message = f"column {node.name!r}{sql_position(node)} holds arrays of shape {list(found.shape)}"
        hint = "no question reads arrays; a training job takes them, where its model does: name it under features"
        raise SqlError(message, hint)
    return found


def by_each(person: str, table: str) -> str:
    """Return a question that makes one row of each person, as an example."""
    inner = f"SELECT {person}, LEAST(COUNT(*), 20) AS n FROM {table} GROUP BY {person}"  # noqa: S608
    return f"SELECT n, COUNT(*) FROM ({inner}) GROUP BY n"  # noqa: S608


def measure(node: exp.Column, table: str, offer: Offer) -> TableColumn:
    """Return the definition of a column to aggregate; raises SqlError if no policy gives it bounds."""
    column = define(node, table, offer)
    if column.type in ("string", "date"):
        held = "text" if column.type == "string" else "dates"
        message = f"cannot aggregate {column.name!r}{sql_position(node)}: it holds {held}"
        raise SqlError(message, of_groups(column, node, table, offer))
    if column.step is None:
        message = f"cannot aggregate {column.name!r}{sql_position(node)}: no policy gives it bounds"
        raise SqlError(message, of_groups(column, node, table, offer))
    return column
