"""The check of a source whose policy says that each person has one row in it, at a start and before one."""

import duckdb

from policies.units import counted
from silo_node.data.cells import quote
from silo_node.data.locations import LOAD_TIMEOUT_S, opened
from silo_node.data.sources import Source
from silo_node.errors import SourceError


def check_one_row(connection: duckdb.DuckDBPyConnection, source: Source) -> None:
    """Raise SourceError if a person has several rows, of which a join would read the first; or duckdb.Error."""
    unit, narrow = quote(source.unit), source.narrowed((source.unit,))
    with opened(connection, [narrow], LOAD_TIMEOUT_S):
        persons = f"SELECT {unit} FROM {narrow.view} WHERE {unit} IS NOT NULL GROUP BY 1 HAVING count(*) > 1"  # noqa: S608
        ((count,),) = connection.execute(f"SELECT count(*) FROM ({persons})").fetchall()  # noqa: S608
    if count:
        what = f"source {source.name!r} says one_row = true, and has {counted(count, 'person')} with several rows"
        raise SourceError(what, "remove one_row, or store one row of each person")
