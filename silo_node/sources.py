"""The data files of a silo: found, and held against the policy's columns, before any request is answered.

What is wrong with a file is raised as SourceError, for the silo's owner; nothing of it ever reaches an analyst.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import duckdb

from policies.model import BUILT_KINDS, STORED_TYPES, Column, ConsentColumn, Policy
from silo_node.errors import SourceError

# The time of a row to the day, beside the columns of the policy; no key of a policy can hold a space.
DAY = "day of the row"
_LABELS = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m", "year": "%Y"}  # as in policies/periods.py


@dataclass(frozen=True, slots=True)
class Source:
    """A checked data source: the SQL that reads it under the policy's names and units, and its policy columns."""

    name: str
    reader: str
    columns: dict[str, Column]
    files: tuple[str, ...] = ()
    lookback_days: int | None = None  # rows whose `DAY` lies further back are not read

    def written_at(self) -> int | None:
        """Return when the oldest of its files was written, in seconds since 1970; None if one cannot be found."""
        return written_at(self.files)


def written_at(files: Iterable[str]) -> int | None:
    """Return when the oldest of these files was written, in seconds since 1970; None if one cannot be found."""
    try:
        return int(min(os.stat(file).st_mtime for file in files))
    except (OSError, ValueError):
        return None


def connect() -> duckdb.DuckDBPyConnection:
    """Return an in-memory DuckDB that loads no extension and reaches no network."""
    connection = duckdb.connect(
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "threads": "2"}
    )
    # From statistics without NULLs the optimizer concludes that a TRY_CAST cannot fail; NaN would then count.
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    return connection


def load_sources(policy: Policy, home: Path) -> dict[str, Source]:
    """Check every source of the policy that this version can read; paths are relative to `home`.

    Requests for the others are denied by `decide`. Raises SourceError.
    """
    with connect() as connection:
        return {
            name: _load(connection, policy, name, home)
            for name, source in policy.sources.items()
            if source.kind in BUILT_KINDS
        }


def _load(connection: duckdb.DuckDBPyConnection, policy: Policy, name: str, home: Path) -> Source:
    source = policy.sources[name]
    files = find_files(f"source {name!r}", source.uri, home)
    try:
        described = connection.execute(f"DESCRIBE FROM {_typed_reader(source.kind, files)}").fetchall()
        found = {row[0]: str(row[1]) for row in described}
        reader = reader_of(source.kind, files)
        # Every cell is read once, so that nothing in a file can make a request fail later.
        rows = connection.execute(f"SELECT count(*), count(COLUMNS(*)) FROM {reader}").fetchone()  # noqa: S608
    except duckdb.Error as err:
        reason = str(err).splitlines()[0][:200]
        raise SourceError(
            f"source {name!r}: {source.uri} cannot be read as {source.kind} ({reason})", "replace the file"
        ) from err
    if rows is None or rows[0] == 0:
        raise SourceError(f"source {name!r}: {source.uri} has no rows", "a source must hold data when it is loaded")
    consent = policy.consent.column if isinstance(policy.consent, ConsentColumn) else None
    readable: dict[str, Column] = {}
    for key, declared in source.columns.items():
        if not declared.roles and key not in (policy.privacy_unit.id_column, consent, source.time_column):
            continue  # closed: it is never read
        readable[key] = declared
        column = declared.from_ or key
        if column not in found:
            listing = ", ".join(found)
            raise SourceError(
                f"source {name!r}: {source.uri} has no column {column!r} (found: {listing})", "mend either"
            )
        fits = STORED_TYPES[declared.type] + (STORED_TYPES["int"] if declared.type == "decimal" else ())
        if key != policy.privacy_unit.id_column and re.sub(r"\(.*\)$", "", found[column]) not in fits:
            raise SourceError(
                f"source {name!r}: column {column!r} of {source.uri} is {found[column]}, declared as {declared.type}",
                "mend the file or the policy's type",
            )
    days = source.time_column if source.lookback_days is not None else None
    return Source(name, mapped(reader, readable, days), dict(source.columns), tuple(files), source.lookback_days)


def schema_of(file: Path, kind: str) -> dict[str, str]:
    """Return the types of a file's columns by their names, and nothing of its values; raises SourceError."""
    if not file.is_file():
        raise SourceError(f"there is no file {file}", "check the path")
    with connect() as connection:
        try:
            described = connection.execute(f"DESCRIBE FROM {_typed_reader(kind, [str(file)])}").fetchall()
        except duckdb.Error as err:
            reason = str(err).splitlines()[0][:200]
            raise SourceError(f"{file} cannot be read as {kind} ({reason})", "mend the file") from err
    return {str(row[0]): str(row[1]) for row in described}


def mapped(reader: str, columns: Mapping[str, Column], time_column: str | None = None) -> str:
    """Return the SQL that reads these columns under the policy's names, in the policy's units.

    A cell that is no number, or 10^20 and more after its scale, counts as missing. A date is read as the name of its
    period; with `time_column` each row also has its `DAY`.
    """
    cells = [f"{_cell(column, key)} AS {quote(key)}" for key, column in columns.items()]
    if time_column is not None:
        cells.append(f"{_date(columns[time_column], time_column)} AS {quote(DAY)}")
    return f"(SELECT {', '.join(cells)} FROM {reader})"  # noqa: S608


def _cell(column: Column, key: str) -> str:
    if column.type == "date":
        return _period(column, key)
    number = _scaled(column, key)
    return f"coalesce(TRY_CAST({number} AS DECIMAL(38, 9)), 0)" if column.missing == "zero" else number


def _date(column: Column, key: str) -> str:
    return f"TRY_CAST(TRY_CAST({quote(column.from_ or key)} AS TIMESTAMP) AS DATE)"


def _period(column: Column, key: str) -> str:
    """Return the name of a date's period; a date without a granularity is closed and never shown."""
    day = _date(column, key)
    if column.granularity is None:
        return "NULL"
    if column.granularity == "quarter":
        return f"(strftime({day}, '%Y') || '-Q' || quarter({day}))"
    return f"strftime({day}, '{_LABELS[column.granularity]}')"


def _scaled(column: Column, key: str) -> str:
    cell = quote(column.from_ or key)
    if column.scale == 1:
        return cell
    # An exact product has 18 decimals, so 20 digits before the point. TRY, not a CASE on the cell's size: DuckDB moves
    # a TRY_CAST that is all there is of a column into the reader of a CSV, where it fails the query.
    product = f"TRY_CAST({cell} AS DECIMAL(38, 9)) * CAST('{Decimal(column.scale):f}' AS DECIMAL(19, 9))"
    return f"TRY(CAST({product} AS DECIMAL(38, 9)))"


def find_files(what: str, uri: str, home: Path) -> list[str]:
    """Return the files that `uri` names, a path or a pattern relative to `home`; raises SourceError."""
    path = Path(uri)
    try:
        found = [path] if path.is_absolute() else sorted(home.glob(uri))
    except (ValueError, IndexError, NotImplementedError) as err:
        raise SourceError(f"{what}: {uri!r} is no path and no pattern", "mend its uri") from err
    files = [str(file) for file in found if file.is_file()]
    if not files:
        raise SourceError(f"{what}: the file {uri} is missing", f"put it into {home}, or mend its uri")
    return files


def reader_of(kind: str, files: list[str]) -> str:
    """Return the SQL that reads the files at request time: cells of a CSV as text, which the query casts or drops."""
    return f"{_call(kind, files)}, all_varchar = true)" if kind == "csv" else f"{_call(kind, files)})"


def _typed_reader(kind: str, files: list[str]) -> str:
    """Return the SQL that tells the types of the columns, of a CSV from every line of it."""
    return f"{_call(kind, files)}, sample_size = -1)" if kind == "csv" else f"{_call(kind, files)})"


def _call(kind: str, files: list[str]) -> str:
    listed = ", ".join(_literal(file) for file in files)
    return f"read_{kind}([{listed}], hive_partitioning = false"


def quote(identifier: str) -> str:
    """Return an SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
