"""The data files of a silo: found, and held against the policy's columns, before any request is answered.

What is wrong with a file is raised as SourceError, for the silo's owner; nothing of it ever reaches an analyst.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import duckdb

from policies.model import Column, Policy
from silo_node.errors import SourceError

_READERS = {"parquet": "read_parquet", "csv": "read_csv"}
_FITTING = {  # DuckDB's type names that a declared type may be read from
    "int": ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
    "decimal": ("FLOAT", "DOUBLE", "DECIMAL"),
    "bool": ("BOOLEAN",),
    "string": ("VARCHAR", "ENUM"),
}


@dataclass(frozen=True, slots=True)
class Source:
    """A checked data source: the SQL that reads it, and its policy columns."""

    name: str
    reader: str
    columns: dict[str, Column]


def connect() -> duckdb.DuckDBPyConnection:
    """Return an in-memory DuckDB that loads no extension and reaches no network."""
    return duckdb.connect(
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "threads": "2"}
    )


def load_sources(policy: Policy, home: Path) -> dict[str, Source]:
    """Check every source of the policy; file paths are relative to `home`. Raises SourceError."""
    with connect() as connection:
        return {name: _load(connection, policy, name, home) for name in policy.sources}


def _load(connection: duckdb.DuckDBPyConnection, policy: Policy, name: str, home: Path) -> Source:
    source = policy.sources[name]
    pattern = str(home / source.uri)
    if not any(home.glob(source.uri) if not Path(source.uri).is_absolute() else [Path(source.uri).exists()]):
        raise SourceError(f"source {name!r}: the file {source.uri} is missing", f"put it into {home}, or mend its uri")
    reader = f"{_READERS[source.kind]}({_literal(pattern)})"
    try:
        described = connection.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()  # noqa: S608
        found = {row[0]: str(row[1]) for row in described}
        rows = connection.execute(f"SELECT count(*) FROM (SELECT 1 FROM {reader} LIMIT 1)").fetchone()  # noqa: S608
    except duckdb.Error as err:
        reason = str(err).splitlines()[0][:200]
        raise SourceError(
            f"source {name!r}: {source.uri} cannot be read as {source.kind} ({reason})", "replace the file"
        ) from err
    if rows is None or rows[0] == 0:
        raise SourceError(f"source {name!r}: {source.uri} has no rows", "a source must hold data when it is loaded")
    for column, declared in source.columns.items():
        if not declared.roles and column != policy.privacy_unit.id_column:
            continue  # closed: it is never read
        if column not in found:
            listing = ", ".join(found)
            raise SourceError(
                f"source {name!r}: {source.uri} has no column {column!r} (found: {listing})", "mend either"
            )
        fits = _FITTING[declared.type] + (_FITTING["int"] if declared.type == "decimal" else ())
        if column != policy.privacy_unit.id_column and re.sub(r"\(.*\)$", "", found[column]) not in fits:
            raise SourceError(
                f"source {name!r}: column {column!r} of {source.uri} is {found[column]}, declared as {declared.type}",
                "mend the file or the policy's type",
            )
    return Source(name, reader, dict(source.columns))


def quote(identifier: str) -> str:
    """Return an SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
