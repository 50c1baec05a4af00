"""The locations of rows: files, tables of DuckDB files, tables of PostgreSQL; each found, opened and read by parts.

A part is one file or table as it is now. Rows that are stored in several files are taken together part by part, so that
each is read by its own header and its own types. An error is a SourceError for the silo's owner, or duckdb.Error.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import duckdb

from policies.document.cells import Csv
from silo_node.data import dialect
from silo_node.data.cells import literal, paths, quote
from silo_node.data.postgres import PostgresTable, fetch
from silo_node.data.postgres import types_of as types_in_postgres
from silo_node.data.table_version import TableVersion
from silo_node.errors import SourceError

LOAD_TIMEOUT_S = 30.0
PLAIN = Csv()


@dataclass(frozen=True, slots=True)
class Files:
    """CSV or Parquet files, each read by itself, and taken together as one table."""

    kind: str
    named: tuple[str, ...]
    dialect: Csv = PLAIN
    pattern: tuple[Path, str] | None = None  # a directory, and a pattern of the files in it
    is_whole: bool = False  # whether they are read at once, by a reader that knows RFC 4180 to the letter

    @property
    def files(self) -> tuple[str, ...]:
        """The files as they are named, or as many as match the pattern now."""
        if self.pattern is None:
            return self.named
        directory, pattern = self.pattern
        return tuple(sorted(str(file) for file in directory.glob(pattern) if file.is_file()))

    @property
    def is_fetched(self) -> bool:
        """Whether they are read into memory before they are asked; else the engine reads them."""
        return self.kind == "csv" and (self.is_whole or self.dialect.encoding in dialect.FETCHED)

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


Location = Files | DuckTable | PostgresTable
Versions = Mapping[PostgresTable, TableVersion | None]  # of the rows of tables as they were read


class Stored(NamedTuple):
    """A column where it is stored: its SQL, and its type in DuckDB's names."""

    cell: str
    type: str


@dataclass(frozen=True, slots=True)
class Part:
    """One file or table of a location, as it can be read now: its name for the owner, its SQL, its columns."""

    name: str
    relation: str
    columns: Mapping[str, Stored]
    file: str | None = None  # of a CSV file, whose lines can be counted
    dialect: Csv = PLAIN
    reader: Callable[[Sequence[str]], str] | None = None  # of a file: the SQL that reads several of the same columns

    def column(self, name: str) -> Stored | None:
        """Return a column by its name, without regard to case and blanks around it unless two names differ by them."""
        if name in self.columns:
            return self.columns[name]
        near = [stored for key, stored in self.columns.items() if key.strip().casefold() == name.strip().casefold()]
        return near[0] if len(near) == 1 else None


def stored_in(part: Part, name: str) -> Stored:
    """Return a column of a part by its name; raises SourceError if there is none."""
    found = part.column(name)
    if found is not None:
        return found
    hint = "mend the name in the policy (from = ...), or in the file"
    if part.file is not None and len(part.columns) == 1:
        hint = dialect.hint_of(part.file, part.dialect)
    raise SourceError(f"{part.name} has no column {name!r} (found: {', '.join(part.columns)[:300]})", hint)


@contextmanager
def misfits_named(part: Part) -> Iterator[None]:
    """Raise SourceError, with the line that does not fit, where the engine cannot read the CSV file of a part."""
    try:
        yield
    except duckdb.Error as err:
        if part.file is None:
            raise
        raise dialect.misfit(part.file, part.dialect, err) from err


class Asked(Protocol):
    """A location, and what is asked of it."""

    @property
    def location(self) -> Location:
        """Where it is stored."""

    @property
    def required(self) -> frozenset[str]:
        """The names of the columns to read, as they are stored."""

    @property
    def is_strict(self) -> bool:
        """Whether a line that does not fit fails the reading, instead of being left out."""


class Reading(Asked, Protocol):
    """What can be read of one location: a source, or the decisions on consent."""

    @property
    def view(self) -> str:
        """The SQL that reads it while it is `opened`."""

    def select(self, part: Part) -> str:
        """Return the SQL of its rows in one part of the location; raises SourceError."""


def connect(threads: int = 2, memory_mb: int | None = None) -> duckdb.DuckDBPyConnection:
    """Return an in-memory DuckDB that loads no extension, reaches no network, and writes nothing to a disk."""
    config = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "threads": str(threads)}
    if memory_mb is not None:
        config["memory_limit"] = f"{memory_mb}MB"
    connection = duckdb.connect(config={**config, "temp_directory": ""})
    connection.execute("SET TimeZone = 'UTC'")  # of a time without a zone, wherever this machine is
    # From statistics without NULLs the optimizer concludes that a TRY_CAST cannot fail; NaN would then count.
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    connection.execute("SET lock_configuration = true")
    return connection


@contextmanager
def opened(
    connection: duckdb.DuckDBPyConnection,
    readings: Iterable[Reading],
    limit_s: float,
    versioned: Collection[PostgresTable] = (),
) -> Iterator[Versions]:
    """Make readings readable as their `view` for one question; tables of a server are fetched as of one moment.

    Yields the versions of the rows of the tables that are `versioned`. Raises SourceError or duckdb.Error.
    """
    readings = tuple(readings)
    with located(connection, readings, limit_s, versioned) as versions, ExitStack() as views:
        for one in readings:
            parts = parts_of(connection, one.location, is_strict=one.is_strict)
            if not parts:
                raise SourceError("no file matches the pattern any more", "put one back")
            union = " UNION ALL ".join(f"({one.select(part)})" for part in joined(parts))
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {one.view} AS {union}")
            views.callback(connection.execute, f"DROP VIEW IF EXISTS {one.view}")
        yield versions


@contextmanager
def opened_within(
    connection: duckdb.DuckDBPyConnection,
    readings: Iterable[Reading],
    limit_s: float,
    versioned: Collection[PostgresTable] = (),
) -> Iterator[Versions]:
    """Make readings readable as `opened` does, and interrupt what the engine still does when the time is over."""
    began = time.monotonic()
    with opened(connection, readings, limit_s, versioned) as versions:
        limit = threading.Timer(max(1.0, limit_s - (time.monotonic() - began)), connection.interrupt)
        limit.start()
        try:
            yield versions
        finally:
            limit.cancel()


@contextmanager
def located(
    connection: duckdb.DuckDBPyConnection,
    readings: Sequence[Asked],
    limit_s: float,
    versioned: Collection[PostgresTable] = (),
) -> Iterator[Versions]:
    """Make the parts of the readings' locations readable: attach DuckDB files, fetch tables of a server."""
    columns: dict[Location, frozenset[str]] = {}
    for one in readings:
        columns[one.location] = columns.get(one.location, frozenset()) | one.required
    remote = {table: sorted(names) for table, names in columns.items() if isinstance(table, PostgresTable)}
    with ExitStack() as stack:
        for file in {location.file for location in columns if isinstance(location, DuckTable)}:
            connection.execute(f"ATTACH IF NOT EXISTS {literal(file)} AS {quote(file)} (READ_ONLY, TYPE duckdb)")
            stack.callback(connection.execute, f"DETACH {quote(file)}")
        strict = {one.location for one in readings if one.is_strict}
        for files in (files for files in columns if isinstance(files, Files) and files.is_fetched):
            for file in files.files:
                width = len(dialect.header_of(file, files.dialect))
                connection.register(file, dialect.fetched(file, files.dialect, width, is_strict=files in strict))
                stack.callback(connection.unregister, file)
        fetched = fetch(remote, limit_s, versioned)
        for location, table in fetched.items():
            connection.register(location.name, table.rows)
            stack.callback(connection.unregister, location.name)
        yield {location: table.version for location, table in fetched.items()}


def parts_of(connection: duckdb.DuckDBPyConnection, location: Location, *, is_strict: bool) -> list[Part]:
    """Return the parts of a location that is `located`, each as it is now. Raises SourceError or duckdb.Error."""
    match location:
        case Files(kind="csv"):
            return [_csv_part(file, location, is_strict=is_strict) for file in location.files]
        case Files():
            return [
                Part(file, _parquet([file]), _described(connection, _parquet([file])), reader=_parquet)
                for file in location.files
            ]
        case DuckTable():
            relations = [(f"{location.file}#{location.table}", location.relation)]
        case PostgresTable():
            relations = [(location.name, location.relation)]
    return [Part(name, relation, _described(connection, relation)) for name, relation in relations]


def joined(parts: Iterable[Part]) -> list[Part]:
    """Return parts with all files of the same columns in one: the engine plans a union of a thousand for a minute."""
    found: dict[object, list[Part]] = {}
    for part in parts:
        alike = part.name if part.reader is None else tuple(part.columns.items())
        found.setdefault(alike, []).append(part)
    return [
        one if one.reader is None else replace(one, relation=one.reader([one.name, *(part.name for part in rest)]))
        for one, *rest in found.values()
    ]


def _parquet(files: Sequence[str]) -> str:
    return f"read_parquet({paths(files)}, hive_partitioning = false)"


def _csv_part(file: str, location: Files, *, is_strict: bool) -> Part:
    declared = location.dialect
    names = dialect.header_of(file, declared)
    columns = {name: Stored(dialect.column_of(index), "VARCHAR") for index, name in enumerate(names)}
    if location.is_fetched:
        return Part(file, quote(file), columns, file, declared)

    def reader(files: Sequence[str]) -> str:
        return dialect.reader_of(files, declared, len(names), is_strict=is_strict)

    return Part(file, reader([file]), columns, file, declared, reader)


def described(table: PostgresTable) -> Part:
    """Return a table of a server as its catalogue describes it; no row is read. Raises SourceError."""
    types = types_in_postgres(table, LOAD_TIMEOUT_S)
    return Part(table.name, table.relation, {name: Stored(quote(name), kind) for name, kind in types.items()})


def check_columns(parts: Iterable[Part], keys: Iterable[str], check: Callable[[Part, str], object]) -> None:
    """Raise one SourceError, with a line for each, of all that `check` raises of a column in a part."""
    errors, keys = [], tuple(keys)
    for part in parts:
        for key in keys:
            try:
                check(part, key)
            except SourceError as err:
                errors.append(err)
    if errors:
        messages, hints = (
            dict.fromkeys(texts) for texts in zip(*((one.message, one.hint) for one in errors), strict=True)
        )
        raise SourceError("\n".join(messages), "; ".join(hints))


def _described(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, Stored]:
    rows = connection.execute(f"DESCRIBE FROM {relation}").fetchall()
    return {str(row[0]): Stored(quote(str(row[0])), str(row[1])) for row in rows}


def prefixed(what: str, message: str) -> str:
    """Return a message of several lines whose every line begins with `what`."""
    return "\n".join(line if line.startswith(what) else f"{what}: {line}" for line in message.splitlines())


def location_of(
    what: str,
    kind: str,
    uri: str,
    home: Path,
    declared: Csv | None = None,
    is_pattern: bool = False,
    is_whole: bool = False,
) -> Location:
    """Return the location that `uri` names, relative to `home`; raises SourceError, which begins with `what`."""
    path, _, table = uri.rpartition("#")
    if kind == "postgres":
        return PostgresTable(path.removeprefix("env:"), table)
    if kind == "duckdb":
        return DuckTable(_find_file(what, path, home), table)
    if not is_pattern:
        return Files(kind, (_find_file(what, uri, home),), declared or PLAIN, is_whole=is_whole)
    root = Path(Path(uri).anchor) if Path(uri).is_absolute() else home
    pattern = str(Path(uri).relative_to(root)) if Path(uri).is_absolute() else uri
    location = Files(kind, (), declared or PLAIN, (root, pattern), is_whole)
    try:
        if not location.files:
            raise SourceError(f"{what}: no file matches {uri}", f"put one into {home}, or mend its uri")
    except (OSError, ValueError, IndexError, NotImplementedError) as err:
        raise SourceError(f"{what}: {uri!r} is no path and no pattern", "mend its uri") from err
    return location


def types_of(connection: duckdb.DuckDBPyConnection, what: str, location: Location, uri: str) -> dict[str, str]:
    """Return the types of the columns by their names, and nothing of their values; of a CSV file each is VARCHAR.

    Raises SourceError, which begins with `what` and calls the location `uri`.
    """
    try:
        if isinstance(location, PostgresTable):
            return types_in_postgres(location, LOAD_TIMEOUT_S)
        with located(connection, [_Types(location)], LOAD_TIMEOUT_S):
            parts = parts_of(connection, location, is_strict=True)
        return {name: stored.type for part in parts for name, stored in part.columns.items()}
    except duckdb.Error as err:
        raise unreadable(what, location, uri, err) from err
    except SourceError as err:
        raise SourceError(prefixed(what, err.message), err.hint) from err


@dataclass(frozen=True, slots=True)
class _Types:
    """A location of which no column is read."""

    location: Location
    required: frozenset[str] = frozenset()
    is_strict: bool = True


def unreadable(what: str, location: Location, uri: str, err: duckdb.Error) -> SourceError:
    """Return what the owner is told of a location that the engine cannot read."""
    kind, hint = (location.kind if isinstance(location, Files) else "duckdb"), "replace the file, or mend its uri"
    reason = str(err).splitlines()[0][:200]
    if "Could not set lock" in reason:
        hint = "another program writes it: let that end, or give the silo a copy"
    elif "Out of Memory" in reason:
        hint = "free memory on this machine, or let the silo have more of it (MemoryMax of its unit)"
    return SourceError(f"{what}: {uri} cannot be read as {kind} ({reason})", hint)


def _find_file(what: str, uri: str, home: Path) -> str:
    """Return the file that `uri` names, relative to `home`; raises SourceError."""
    path = home / uri
    try:
        if path.is_file():
            return str(path)
        is_folder = path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        is_folder = False
    if is_folder:
        raise SourceError(f"{what}: {uri} is a folder", f'name its files: uri = "{uri}/*.csv" and pattern = true')
    hint = f"put it into {home}, or mend its uri"
    if any(letter in uri for letter in "*?["):
        hint = "a uri is a path: with pattern = true it is a pattern of several files' names"
    raise SourceError(f"{what}: the file {uri} is missing", hint)
