"""Whether a private source and an exact one have the same rows, by what their locations are and not by their names.

One file under two names would be answered with noise under one and without under the other. A file is its inode and
the hash of its bytes, whatever links or patterns name it; a table of a database is what the database says that it is.
What a view reads nobody can say, so beside a source of the other kind a view is none.
"""

import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from hashlib import file_digest

import duckdb

from policies.document.policy import Policy
from silo_node.data.locations import LOAD_TIMEOUT_S, DuckTable, Files, located
from silo_node.data.postgres import PostgresTable, identities_of
from silo_node.data.sources import Source
from silo_node.errors import SourceError

_HINT = 'give both sources one kind of release, or put other rows under the one with release = "exact"'
_VIEW = "name the table itself: what a view reads may be the rows of a source of the other kind of release"
Identity = Hashable


class SameRowsError(SourceError):
    """Rows of a private source are those of an exact one."""


def check_apart(connection: duckdb.DuckDBPyConnection, policy: Policy, sources: Mapping[str, Source]) -> None:
    """Raise SameRowsError if rows of a private source are those of an exact one, SourceError if nobody can say that."""
    sides: dict[str, list[Source]] = {"private": [], "exact": []}
    for name, one in sources.items():
        sides[policy.sources[name].release].append(one)
    if not all(sides.values()):
        return
    sizes = [{_size(file) for one in side for file in files_of(one)} for side in sides.values()]
    doubtful = sizes[0] & sizes[1]  # files of other sizes are no copies of each other, so they are not read
    private, exact = (
        {one.name: frozenset(_identities(connection, one, lambda file: _size(file) in doubtful)) for one in side}
        for side in sides.values()
    )
    for name, found in private.items():
        for other, those in exact.items():
            if found & those:
                message = f'source {name!r}: it has rows of {other!r}, which says release = "exact"'
                raise SameRowsError(f"{message} ({sources[name].uri}, {sources[other].uri})", _HINT)


def files_of(source: Source) -> tuple[str, ...]:
    """Return the files in which a source's rows are; none of a table of a server."""
    match source.location:
        case Files() as location:
            return location.files
        case DuckTable(file=file):
            return (file,)
        case PostgresTable():
            return ()


def _size(file: str) -> int:
    return _stat(file).st_size


def _stat(file: str) -> os.stat_result:
    try:
        return os.stat(file)
    except OSError as err:
        raise SourceError(f"{file} cannot be read ({err.strerror})", "put it back") from err


def _identities(
    connection: duckdb.DuckDBPyConnection, source: Source, is_doubtful: Callable[[str], bool]
) -> Iterator[Identity]:
    """Yield what each part of a source is; two parts are the same rows if they have one of these in common."""
    location, table = source.location, ""
    match location:
        case PostgresTable():
            for *identity, kind in identities_of(location, LOAD_TIMEOUT_S):
                if kind not in ("r", "p"):
                    raise SourceError(f"source {source.name!r}: {location} is no table of its own", _VIEW)
                yield tuple(identity)
            return
        case DuckTable():
            table = _table_of(connection, source, location)
        case Files():
            pass
    for file in files_of(source):
        status = _stat(file)
        yield "inode", status.st_dev, status.st_ino, table
        if is_doubtful(file):
            with open(file, "rb") as opened:
                yield "bytes", file_digest(opened, "sha256").digest(), table


def _table_of(connection: duckdb.DuckDBPyConnection, source: Source, location: DuckTable) -> str:
    """Return the table of a DuckDB file as that file writes it; raises SourceError for a view."""
    schema, _, table = location.table.rpartition(".")
    sql = "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ?"
    sql += " AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)"
    with located(connection, [source], LOAD_TIMEOUT_S):
        found = connection.execute(sql, [location.file, schema or "main", table]).fetchone()
    if found is None:
        raise SourceError(f"source {source.name!r}: {source.uri} is no table of its own", _VIEW)
    return f"{found[0]}.{found[1]}"
