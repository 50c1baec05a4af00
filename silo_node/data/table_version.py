"""Which version of its rows a table in PostgreSQL has, told by the server without sending a row.

A version of a row that was committed is named by its table, its place and the transaction that wrote it (`tableoid`,
`ctid`, `xmin`), and never changes: an update or a delete and an insert make another. So a table whose rows have the
same names, as many and with the same sum of their hashes, has the same rows, if what tells how they are read has not
changed either: columns, enum types, the tables that inherit, and the server since its start. Two tables with the same
sum of 64-bit hashes by chance are one in 2^64. PostgreSQL's manual, section 5.5.

Promise: where that is not so, a table has no version: a view, a foreign table, another way to store rows, rules on who
sees which row, and a user who may not read the names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg

_SHARE = 4  # of the time of a reading, in parts: how long the server may take for a version

# What tells how the rows of a table, and of all that inherit from it, are read; no line where they have no version.
_READ_AS = """
WITH RECURSIVE part (oid) AS (
    SELECT pg_catalog.to_regclass(%(table)s)::oid
    UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN part ON i.inhparent = part.oid
)
SELECT pg_catalog.pg_postmaster_start_time()::text,
    (SELECT pg_catalog.string_agg(part.oid::text, ',' ORDER BY part.oid) FROM part),
    (SELECT pg_catalog.sum(pg_catalog.hashtextextended(a.attrelid || ' ' || a.ctid || ' ' || a.xmin, 0))::text
     FROM pg_catalog.pg_attribute a JOIN part ON part.oid = a.attrelid),
    (SELECT pg_catalog.sum(pg_catalog.hashtextextended(e.ctid || ' ' || e.xmin, 0))::text FROM pg_catalog.pg_enum e)
WHERE NOT EXISTS (
    SELECT FROM part LEFT JOIN pg_catalog.pg_class c ON c.oid = part.oid LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
    WHERE c.oid IS NULL OR c.relrowsecurity
        OR NOT (c.relkind = 'p' OR c.relkind IN ('r', 'm') AND m.amname = 'heap')
)
"""
_ROWS = """
SELECT pg_catalog.count(*)::text,
    pg_catalog.sum(pg_catalog.hashtextextended(tableoid || ' ' || ctid || ' ' || xmin, 0))::text
FROM {}
"""


@dataclass(frozen=True, slots=True)
class TableVersion:
    """The rows of a table as they were in one snapshot."""

    read_as: tuple[str | None, ...]
    rows: tuple[str | None, ...]


def version_in(connection: "psycopg.Connection", table: Sequence[str], limit_s: float) -> TableVersion | None:
    """Return the version that a transaction sees, None where there is none; `table` is its name, by its parts.

    What fails here, or takes more than a part of `limit_s`, leaves the transaction as it was.
    """
    import psycopg
    from psycopg import sql

    try:
        with connection.transaction(force_rollback=True):  # a savepoint, so that the limit ends with it
            limit = f"{max(1.0, limit_s * 1000 / _SHARE):.0f}"
            connection.execute("SELECT pg_catalog.set_config('statement_timeout', %s, true)", [limit])
            quoted = ".".join(f'"{part}"' for part in table)
            read_as = connection.execute(_READ_AS, {"table": quoted}).fetchone()
            if read_as is None:
                return None
            rows = connection.execute(sql.SQL(_ROWS).format(sql.Identifier(*table))).fetchone()
    except psycopg.OperationalError as err:
        if isinstance(err, psycopg.errors.QueryCanceled):
            return None
        raise
    except psycopg.Error:
        return None
    return None if rows is None else TableVersion(tuple(read_as), tuple(rows))
