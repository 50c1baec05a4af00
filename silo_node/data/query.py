"""Compute a request on the rows that its source has now: read them, code them in memory, compute on the codes.

The reading is total: a cell that cannot be read as its declared type counts as missing, a value outside the bounds is
clamped, one outside a domain becomes its `unknown`, and a row without a person is left out.
"""

from collections.abc import Callable

import duckdb
import pyarrow as pa

from policies.requests.request import Request
from silo_node.data import answer
from silo_node.data.coded import Bools, Rows, coded
from silo_node.data.consent import ConsentFilter
from silo_node.data.lots import Lots
from silo_node.data.model_rows import model_rows
from silo_node.data.sources import Source
from silo_node.training.family import Examples

Forgotten = Callable[[duckdb.DuckDBPyConnection, pa.Array], Bools | None]  # which persons are; None: nobody


def nobody(connection: duckdb.DuckDBPyConnection, persons: pa.Array) -> Bools | None:
    """Forget nobody."""
    return None


def execute(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    unit: str,
    request: Request,
    consent: ConsentFilter | None = None,
    max_groups: int | None = None,
    forgotten: Forgotten = nobody,
) -> answer.Vectors:
    """Return one vector per statistic of a question; see `answer.question`.

    `unit` is the policy's id column, `consent` says which rows may be used, and `forgotten` which persons are out.
    """
    rows, is_in = _rows(connection, source, unit, request, consent, forgotten)
    return answer.question(rows, request, is_in, Lots(), max_groups)


def examples(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    unit: str,
    request: Request,
    consent: ConsentFilter | None = None,
    forgotten: Forgotten = nobody,
) -> answer.Vectors:
    """Return the rows that a step of training learns from; see `answer.examples`."""
    rows, is_in = _rows(connection, source, unit, request, consent, forgotten)
    return answer.examples(rows, request, is_in, Lots())


def model_examples(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    unit: str,
    request: Request,
    consent: ConsentFilter | None = None,
    forgotten: Forgotten = nobody,
) -> Examples:
    """Return the rows that a step of an exact family learns from; see `model_rows.model_rows`."""
    rows, is_in = _rows(connection, source, unit, request, consent, forgotten)
    return model_rows(rows, request, is_in)


def _rows(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    unit: str,
    request: Request,
    consent: ConsentFilter | None,
    forgotten: Forgotten,
) -> tuple[Rows, Bools | None]:
    """Return the rows of a request, and which of their persons are in; None: all."""
    where, parameters = ("TRUE", {}) if consent is None else (consent.sql, consent.parameters)
    rows, persons = coded(connection, source.view, unit, answer.codings_of(request), where, parameters)
    is_out = forgotten(connection, persons)
    return rows, None if is_out is None else ~is_out
