"""Where a silo's rows stand: found, and held against the policy's columns, before any request is answered.

In files, in a table of a DuckDB file, or in PostgreSQL. What is wrong with them is raised as SourceError, for the
silo's owner; nothing of it ever reaches an analyst.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import duckdb

from policies.document.columns import STORED_TYPES, Column
from policies.document.policy import Policy
from policies.document.purposes import ConsentColumn
from silo_node.data.mapping import check_ids, literal, mapped, quote
from silo_node.data.postgres import PostgresTable, fetch
from silo_node.data.postgres import types_of as types_in_postgres
from silo_node.errors import SourceError

LOAD_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Files:
    """CSV or Parquet files, read as one table."""

    kind: str
    files: tuple[str, ...]

    @property
    def relation(self) -> str:
        """The SQL that reads them at request time: cells of a CSV as text, which the query casts or drops."""
        return f"{self._call}, all_varchar = true)" if self.kind == "csv" else f"{self._call})"

    @property
    def typed_relation(self) -> str:
        """The SQL that tells the types of the columns, of a CSV from every line of it."""
        return f"{self._call}, sample_size = -1)" if self.kind == "csv" else f"{self._call})"

    @property
    def _call(self) -> str:
        listed = ", ".join(literal(file) for file in self.files)
        return f"read_{self.kind}([{listed}], hive_partitioning = false"

    def written_at(self) -> int | None:
        """Return when the oldest of them was written, in seconds since 1970; None if one cannot be found."""
        try:
            return int(min(os.stat(file).st_mtime for file in self.files))
        except (OSError, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class DuckTable:
    """A table, or SCHEMA.TABLE, of a DuckDB file, which is opened for one question at a time and never written to."""

    file: str
    table: str

    @property
    def relation(self) -> str:
        schema, _, table = self.table.rpartition(".")
        return f"{quote(self.file)}.{quote(schema or 'main')}.{quote(table)}"

    def written_at(self) -> int | None:
        """Return when anything in the file was written, in seconds since 1970; None if it cannot be found."""
        try:
            logs = (log for log in (f"{self.file}.wal",) if os.path.exists(log))
            return int(max(os.stat(file).st_mtime for file in (self.file, *logs)))
        except OSError:
            return None


Place = Files | DuckTable | PostgresTable


class Wanted(NamedTuple):
    """The columns that a question needs of one place, by the names that they have there."""

    place: Place
    columns: frozenset[str]


@dataclass(frozen=True, slots=True)
class Source:
    """A checked data source: where it stands, and its readable columns by the policy's names."""

    name: str
    place: Place
    columns: Mapping[str, Column]
    time_column: str | None = None
    lookback_days: int | None = None  # rows whose `DAY` lies further back are not read

    @property
    def reader(self) -> str:
        """The SQL that reads it under the policy's names and units, while its place is `opened`."""
        days = self.time_column if self.lookback_days is not None else None
        return mapped(self.place.relation, self.columns, days)

    @property
    def wanted(self) -> Wanted:
        """What is read of its place."""
        return Wanted(self.place, frozenset(column.from_ or key for key, column in self.columns.items()))

    def narrowed(self, keys: Iterable[str]) -> "Source":
        """Return the source with these columns only, and with the one that tells how old a row is, if it counts."""
        kept = {*keys, *([self.time_column] if self.lookback_days is not None else [])}
        return replace(self, columns={key: column for key, column in self.columns.items() if key in kept})


def connect() -> duckdb.DuckDBPyConnection:
    """Return an in-memory DuckDB that loads no extension and reaches no network."""
    connection = duckdb.connect(
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "threads": "2"}
    )
    connection.execute("SET TimeZone = 'UTC'")  # of a time without a zone, wherever this machine is
    # From statistics without NULLs the optimizer concludes that a TRY_CAST cannot fail; NaN would then count.
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    return connection


@contextmanager
def opened(connection: duckdb.DuckDBPyConnection, wanted: Iterable[Wanted], limit_s: float) -> Iterator[None]:
    """Make places readable as their `relation` for one question: what stands in a server is fetched, at one moment.

    Raises SourceError or duckdb.Error.
    """
    columns: dict[Place, frozenset[str]] = {}
    for one in wanted:
        columns[one.place] = columns.get(one.place, frozenset()) | one.columns
    remote = {place: sorted(names) for place, names in columns.items() if isinstance(place, PostgresTable)}
    with ExitStack() as stack:
        for file in {place.file for place in columns if isinstance(place, DuckTable)}:
            connection.execute(f"ATTACH {literal(file)} AS {quote(file)} (READ_ONLY, TYPE duckdb)")
            stack.callback(connection.execute, f"DETACH {quote(file)}")
        for place, rows in fetch(remote, limit_s).items():
            connection.register(place.name, rows)
            stack.callback(connection.unregister, place.name)
        yield


def load_sources(policy: Policy, home: Path) -> dict[str, Source]:
    """Check every source of the policy; paths are relative to `home`. Raises SourceError."""
    with connect() as connection:
        return {name: _load(connection, policy, name, home) for name in policy.sources}


def _load(connection: duckdb.DuckDBPyConnection, policy: Policy, name: str, home: Path) -> Source:
    declared, what = policy.sources[name], f"source {name!r}"
    place = place_of(what, declared.kind, declared.uri, home)
    found = types_of(what, place, declared.uri)
    consent = policy.consent.column if isinstance(policy.consent, ConsentColumn) else None
    needed = (policy.privacy_unit.id_column, consent, declared.time_column)
    # A column that is closed is never read.
    readable = {key: column for key, column in declared.columns.items() if column.roles or key in needed}
    source = Source(name, place, readable, declared.time_column, declared.lookback_days)
    _read_once(connection, what, declared.uri, Wanted(place, source.wanted.columns & found.keys()))
    for key, column in readable.items():
        stored = column.from_ or key
        if stored not in found:
            listing = ", ".join(found)
            raise SourceError(f"{what}: {declared.uri} has no column {stored!r} (found: {listing})", "mend either")
        if key == policy.privacy_unit.id_column:
            check_ids(f"{what}: column {stored!r} of {declared.uri}", found[stored])
            continue
        fits = STORED_TYPES[column.type] + (STORED_TYPES["int"] if column.type == "decimal" else ())
        if re.sub(r"\(.*\)$", "", found[stored]) not in fits:
            raise SourceError(
                f"{what}: column {stored!r} of {declared.uri} is {found[stored]}, declared as {column.type}",
                "mend the data or the policy's type",
            )
    return source


def _read_once(connection: duckdb.DuckDBPyConnection, what: str, uri: str, wanted: Wanted) -> None:
    """Read every cell, so that nothing that is there can make a request fail later. Raises SourceError."""
    if not wanted.columns:
        return
    sql = f"SELECT count(*), count(COLUMNS(*)) FROM {wanted.place.relation}"  # noqa: S608
    try:
        with opened(connection, [wanted], LOAD_TIMEOUT_S):
            (counted, *_), *_ = connection.execute(sql).fetchall()
    except duckdb.Error as err:
        raise _unreadable(what, wanted.place, uri, err) from err
    except SourceError as err:
        raise SourceError(f"{what}: {err.message}", err.hint) from err
    if not counted:
        raise SourceError(f"{what}: {uri} has no rows", "a source must hold data when it is loaded")


def place_of(what: str, kind: str, uri: str, home: Path) -> Place:
    """Return where `uri` says that rows stand, relative to `home`; raises SourceError, which begins with `what`."""
    path, _, table = uri.rpartition("#")
    if kind == "postgres":
        return PostgresTable(path.removeprefix("env:"), table)
    if kind != "duckdb":
        files = _find_files(what, uri, home)
        if kind == "csv" and not any(os.path.getsize(file) for file in files):
            raise SourceError(f"{what}: {uri} has no rows, and not even a line with names", "put data into it")
        return Files(kind, tuple(files))
    files = _find_files(what, path, home)
    if len(files) > 1:
        raise SourceError(f"{what}: {path} names {len(files)} files, expected one DuckDB file", "mend its uri")
    return DuckTable(files[0], table)


def types_of(what: str, place: Place, uri: str) -> dict[str, str]:
    """Return the types of the columns by their names, and nothing of their values.

    Raises SourceError, which begins with `what` and calls the place `uri`.
    """
    try:
        if isinstance(place, PostgresTable):
            return types_in_postgres(place, LOAD_TIMEOUT_S)
        relation = place.typed_relation if isinstance(place, Files) else place.relation
        with connect() as connection, opened(connection, [Wanted(place, frozenset())], LOAD_TIMEOUT_S):
            return {str(row[0]): str(row[1]) for row in connection.execute(f"DESCRIBE FROM {relation}").fetchall()}
    except duckdb.Error as err:
        raise _unreadable(what, place, uri, err) from err
    except SourceError as err:
        raise SourceError(f"{what}: {err.message}", err.hint) from err


def _unreadable(what: str, place: Place, uri: str, err: duckdb.Error) -> SourceError:
    kind, hint = (place.kind if isinstance(place, Files) else "duckdb"), "replace the file, or mend its uri"
    reason = str(err).splitlines()[0][:200]
    if "Could not set lock" in reason:
        hint = "another program writes it: let that end, or give the silo a copy"
    return SourceError(f"{what}: {uri} cannot be read as {kind} ({reason})", hint)


def _find_files(what: str, uri: str, home: Path) -> list[str]:
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
