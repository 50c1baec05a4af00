"""Tables in PostgreSQL, read as text: the columns asked for and no others, in one read-only snapshot, in limited time.

Promise: a connection string may hold a password, so it is looked up in the environment for each connection, kept
nowhere, and part of no error. Every cell arrives as text, like those of a CSV file, so nothing that a row holds can
make the reading fail.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from silo_node.data.table_version import TableVersion, version_in
from silo_node.errors import SourceError

if TYPE_CHECKING:
    import psycopg

CONNECT_TIMEOUT_S = 5
BATCH_ROWS = 10_000
T = TypeVar("T")

_TYPES = {  # PostgreSQL's names of types, in DuckDB's
    "smallint": "SMALLINT",
    "integer": "INTEGER",
    "bigint": "BIGINT",
    "real": "FLOAT",
    "double precision": "DOUBLE",
    "numeric": "DECIMAL",
    "boolean": "BOOLEAN",
    "text": "VARCHAR",
    "character varying": "VARCHAR",
    "character": "VARCHAR",
    "date": "DATE",
    "timestamp without time zone": "TIMESTAMP",
    "timestamp with time zone": "TIMESTAMP",  # written in UTC
}
_DESCRIBE = """
SELECT a.attname, CASE t.typtype WHEN 'e' THEN 'enum' ELSE pg_catalog.format_type(t.oid, NULL) END
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type d ON d.oid = a.atttypid
JOIN pg_catalog.pg_type t ON t.oid = CASE d.typtype WHEN 'd' THEN d.typbasetype ELSE d.oid END
WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
# A table and all that inherit from it, each by its server, its database and its number there.
_IDENTIFY = """
WITH RECURSIVE part (oid) AS (
    SELECT pg_catalog.to_regclass(%s)::oid
    UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN part ON i.inhparent = part.oid
)
SELECT pg_catalog.pg_postmaster_start_time()::text, d.oid::bigint, c.oid::bigint, c.relkind::text
FROM part JOIN pg_catalog.pg_class c ON c.oid = part.oid
JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
"""
# What the text of a cell depends on, and how long the server may take or wait.
_SETTINGS = {"TimeZone": "UTC", "DateStyle": "ISO, YMD", "extra_float_digits": "1"}
_LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
# What a refused connection comes to, by a part of libpq's words, which may hold parts of the connection string.
_REFUSALS = {
    "password": "the user or the password is refused",
    "pg_hba.conf": "the server's pg_hba.conf does not let this user in",
    "does not exist": "the user or the database is unknown",
    "timeout": f"no answer within {CONNECT_TIMEOUT_S} s",
    "resolve host": "the name of the host is unknown",
    "refused": "nobody listens at that address",
    "No such file": "nobody listens at that address",
    "SSL": "no secure connection can be made",
}


@dataclass(frozen=True, slots=True)
class PostgresTable:
    """A table, or SCHEMA.TABLE, of the database whose connection string an environment variable holds."""

    variable: str
    table: str

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """What the policy calls it, and DuckDB once it is fetched."""
        return f"env:{self.variable}#{self.table}"

    @property
    def relation(self) -> str:
        """The SQL that reads it once it is fetched."""
        return f'"{self.name}"'

    def written_at(self) -> None:
        """Return None: a database does not say when a table was last written."""


def types_of(table: PostgresTable, limit_s: float) -> dict[str, str]:
    """Return the types of a table's columns, in DuckDB's names; no row is read. Raises SourceError."""

    def ask(connection: "psycopg.Connection") -> list[tuple[Any, ...]]:
        if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
            raise SourceError(f"{table}: the database does not know the encoding of its text", "use UTF8")
        return connection.execute(_DESCRIBE, [_quoted(table)]).fetchall()

    found = _asked(table.variable, [table], limit_s, ask)
    if not found:
        raise SourceError(f"{table}: there is no such table", "write SCHEMA.TABLE as the database does")
    return {str(name): _TYPES.get(kind, kind.upper()) for name, kind in found}


def identities_of(table: PostgresTable, limit_s: float) -> list[tuple[str, int, int, str]]:
    """Return what a table is, and what inherits from it: server, database, number and kind. Raises SourceError."""
    return _asked(
        table.variable, [table], limit_s, lambda connection: connection.execute(_IDENTIFY, [_quoted(table)]).fetchall()
    )


def _quoted(table: PostgresTable) -> str:
    return ".".join(f'"{part}"' for part in table.table.split("."))


def version_of(table: PostgresTable, limit_s: float) -> TableVersion | None:
    """Return the version of a table's rows, None where it has none; no row is read. Raises SourceError."""
    parts = table.table.split(".")
    return _asked(table.variable, [table], limit_s, lambda connection: version_in(connection, parts, limit_s))


@dataclass(frozen=True, slots=True, eq=False)
class Fetched:
    """The columns of a table as Arrow text, and the version of its rows where that was asked for."""

    rows: Any
    version: TableVersion | None = None


def fetch(
    columns: Mapping[PostgresTable, Sequence[str]], limit_s: float, versioned: Collection[PostgresTable] = ()
) -> dict[PostgresTable, Fetched]:
    """Return these columns of each table, those of one variable as of one moment, and the version of the `versioned`.

    Raises SourceError, also when `limit_s` seconds do not suffice.
    """
    found: dict[PostgresTable, Fetched] = {}
    until = time.monotonic() + limit_s
    for variable in sorted({table.variable for table in columns}):
        tables = [table for table in columns if table.variable == variable]

        def ask(connection: "psycopg.Connection", tables: Sequence[PostgresTable] = tables) -> list[Fetched]:
            return [
                Fetched(
                    _rows(connection, table.table, columns[table]),
                    version_in(connection, table.table.split("."), limit_s) if table in versioned else None,
                )
                for table in tables
            ]

        left_s = max(1.0, until - time.monotonic())
        found |= zip(tables, _asked(variable, tables, left_s, ask), strict=True)
    return found


def _rows(connection: "psycopg.Connection", table: str, columns: Sequence[str]) -> Any:
    from psycopg import sql

    cells = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(column)) for column in columns)
    query = sql.SQL("SELECT {} FROM {}").format(cells, sql.Identifier(*table.split(".")))
    schema = pa.schema([(column, pa.large_string()) for column in columns])
    batches = []
    with connection.cursor("consilo") as cursor:  # at the server: a batch at a time is here
        cursor.execute(query)
        while rows := cursor.fetchmany(BATCH_ROWS):
            arrays = [pa.array(cells, pa.large_string()) for cells in zip(*rows, strict=True)]
            batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema)


def _asked(
    variable: str, tables: Sequence[PostgresTable], limit_s: float, ask: Callable[["psycopg.Connection"], T]
) -> T:
    """Return what is asked within one read-only transaction, which sees the database at one moment."""
    what = " and ".join(map(str, tables))
    try:
        import psycopg
    except ImportError as err:
        raise SourceError(f"{what}: psycopg is not installed", "pip install 'consilo[postgres]'") from err
    if variable not in os.environ:
        hint = "set it, where the silo runs, to libpq's connection string of the database"
        raise SourceError(f"{what}: the environment variable {variable} is not set", hint)
    until = time.monotonic() + limit_s
    try:
        connection = psycopg.connect(
            os.environ[variable],  # bound to no name here, so that no frame of ours holds it
            connect_timeout=CONNECT_TIMEOUT_S,
            client_encoding="utf8",
            application_name="consilo",
            prepare_threshold=None,
        )
    except psycopg.ProgrammingError:
        reason = f"{variable} holds no connection string of libpq"
    except (psycopg.Error, UnicodeError) as err:
        words = str(err)
        reason = next((said for part, said in _REFUSALS.items() if part in words), "the connection is refused")
    else:
        is_late = threading.Event()
        line = socket.socket(fileno=os.dup(connection.fileno()))

        def cut() -> None:
            is_late.set()
            with suppress(OSError):  # it is closed already
                line.shutdown(socket.SHUT_RDWR)

        # The server ends a statement that takes too long; where it no longer answers at all, the line is cut.
        limit = threading.Timer(max(0.0, until - time.monotonic()), cut)
        limit.start()
        try:
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            settings = _SETTINGS | dict.fromkeys(_LIMITS, f"{limit_s * 1000:.0f}")
            for setting in settings.items():
                connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", setting)
            return ask(connection)
        except (psycopg.Error, UnicodeError) as err:
            reason = "the connection was lost"
            if is_late.is_set() or isinstance(err, psycopg.errors.QueryCanceled):
                reason = f"not read within {limit_s:g} s"
            elif isinstance(err, psycopg.Error) and err.diag.message_primary:
                reason = err.diag.message_primary.splitlines()[0][:200]
        finally:
            limit.cancel()
            limit.join()
            connection.close()
            line.close()
    # Not within `except`: not even as context may an error carry what libpq said of the connection string.
    raise SourceError(f"{what} cannot be read as postgres ({reason})", "check the database, and the variable")
