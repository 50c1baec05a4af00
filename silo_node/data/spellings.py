"""Ids of persons in their loosest form: one text for all spellings that some policy takes for one person."""

import duckdb
import numpy as np
import pyarrow as pa

from silo_node.data.cells import loosest, quote


def loosest_of(connection: duckdb.DuckDBPyConnection, persons: pa.Array) -> list[str]:
    """Return each id in its loosest form. Raises duckdb.Error."""
    if not len(persons):
        return []
    connection.register("persons in some spelling", pa.table({"person": persons, "place": np.arange(len(persons))}))
    try:
        relation = quote("persons in some spelling")
        found = connection.sql(f"SELECT {loosest('person')} AS alike FROM {relation} ORDER BY place")  # noqa: S608
        alike: list[str] = found.to_arrow_table()["alike"].to_pylist()
    finally:
        connection.unregister("persons in some spelling")
    return alike
