"""Compute a request on the rows that its source has now: read them, code them in memory, compute on the codes.

The reading is total: a cell that cannot be read as its declared type counts as missing, a value outside the bounds is
clamped, one outside a domain becomes its `unknown`, and a row without a person is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from policies.requests.request import Request
from silo_node.data import answer
from silo_node.data.coded import Bools, Coding, Rows, coded
from silo_node.data.consent import ConsentFilter
from silo_node.data.joining import joined
from silo_node.data.lots import Lots
from silo_node.data.sources import Source
from silo_node.data.statements import contributed

Forgotten = Callable[[duckdb.DuckDBPyConnection, pa.Array], Bools | None]  # which persons are; None: nobody


def nobody(connection: duckdb.DuckDBPyConnection, persons: pa.Array) -> Bools | None:
    """Forget nobody."""
    return None


@dataclass(frozen=True, slots=True)
class Reading:
    """A source, and which of its rows may be used; None: all."""

    source: Source
    consent: ConsentFilter | None = None


def execute(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    unit: str,
    request: Request,
    consent: ConsentFilter | None = None,
    max_groups: int | None = None,
    forgotten: Forgotten = nobody,
    beside: Sequence[Reading] = (),
) -> answer.Vectors:
    """Return one vector per statistic of a question or a round of a key search; see `contributed`.

    `unit` is the policy's id column, `consent` says which rows may be used, and `forgotten` which persons are out.
    `beside` has the tables that the request's table is joined with, each with its own consent.
    """
    readings = (Reading(source, consent), *beside)
    rows, is_in = rows_of(connection, readings, unit, request, forgotten)
    return contributed(rows, request, is_in, Lots(), max_groups)


def rows_of(
    connection: duckdb.DuckDBPyConnection,
    readings: Sequence[Reading],
    unit: str,
    request: Request,
    forgotten: Forgotten = nobody,
) -> tuple[Rows, Bools | None]:
    """Return the rows of a request, and which of their persons are in; None: all."""
    found = {one.source.name: read_rows(connection, one, unit, request) for one in readings}
    first, *beside = request.table.names
    rows, persons = found[first]
    is_out = forgotten(connection, persons)
    if beside:
        rows = joined(rows, persons, {name: found[name] for name in beside})
    return rows, None if is_out is None else ~is_out


def read_rows(
    connection: duckdb.DuckDBPyConnection, reading: Reading, unit: str, request: Request
) -> tuple[Rows, pa.Array]:
    """Return the rows of one of the request's tables that may be used, and their persons by place."""
    table, consent = request.table, reading.consent
    where, parameters = ("TRUE", {}) if consent is None else (consent.sql, consent.parameters)
    of_table = []
    for one in answer.codings_of(request):
        source, name = table.origin(one.column.name)
        if source == reading.source.name:
            column = one.column if name == one.column.name else one.column.model_copy(update={"name": name})
            of_table.append(Coding(one.aspect, column))
    return coded(connection, reading.source.view, unit, of_table, where, parameters)
