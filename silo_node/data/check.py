"""The check of a silo's sources against its policy, at a start and before one: every column, every cell.

All that is wrong is found in one run, and raised as one SourceError with a line for each, for the silo's owner.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb

from policies.document.policy import Policy
from silo_node.data.apart import check_apart
from silo_node.data.locations import LOAD_TIMEOUT_S, check_columns, described, located, parts_of, prefixed, unreadable
from silo_node.data.one_row import check_one_row
from silo_node.data.postgres import PostgresTable
from silo_node.data.row_profile import ColumnProfile, check_cells, source_alarms
from silo_node.data.sources import Source, source_of
from silo_node.errors import SourceError


def load_sources(
    connection: duckdb.DuckDBPyConnection, policy: Policy, home: Path, alarm: Callable[[str], None] = lambda _: None
) -> dict[str, Source]:
    """Check every source of the policy; paths are relative to `home`. Raises SourceError with all that is wrong.

    `alarm` is called with what the owner should know and no answer depends on: more rows than `rows_up_to`, a cell that
    is missing where none can be.
    """
    found, errors = {}, []
    for name in policy.sources:
        try:
            found[name] = source_of(policy, name, home)
            for warning in source_alarms(policy, name, check_source(connection, policy, found[name])):
                alarm(warning)
        except SourceError as err:
            errors.append(err)
    if errors:
        hints = dict.fromkeys(err.hint for err in errors)
        raise SourceError("\n".join(err.message for err in errors), "; ".join(hints))
    check_apart(connection, policy, found)
    return found


def check_source(connection: duckdb.DuckDBPyConnection, policy: Policy, source: Source) -> dict[str, ColumnProfile]:
    """Read every cell of a source in the way of a request; return what the cells of each column are.

    Raises SourceError for a cell that would make a request fail.
    """
    what, declared = f"source {source.name!r}", policy.sources[source.name]
    strict = replace(source, is_strict=True)
    try:
        if isinstance(source.location, PostgresTable):
            check_columns([described(source.location)], strict.columns, strict.readable)
        with located(connection, [strict], LOAD_TIMEOUT_S):
            parts = parts_of(connection, source.location, is_strict=True)
            check_columns(parts, strict.columns, strict.readable)
            found = check_cells(connection, what, strict, parts, float(declared.max_unreadable))
        if declared.one_row:
            check_one_row(connection, strict)
        return found
    except duckdb.Error as err:
        raise unreadable(what, source.location, declared.uri, err) from err
    except SourceError as err:
        raise SourceError(prefixed(what, err.message), err.hint) from err
