"""How the cells of a source become the cells that a policy declares, in SQL."""

import re
from collections.abc import Mapping
from decimal import Decimal

from policies.document.columns import Column
from silo_node.errors import SourceError

# The time of a row to the day, beside the columns of the policy; no key of a policy can hold a space.
DAY = "day of the row"
_LABELS = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m", "year": "%Y"}  # as in policies/periods.py


def check_ids(what: str, kind: str) -> None:
    """Raise SourceError unless a column of this type can say which person a row is of."""
    if kind in ("FLOAT", "DOUBLE") or re.fullmatch(r"DECIMAL\(\d+,[1-9]\d*\)", kind):
        hint = "write ids as text or as whole numbers: many programs turn them into 2.0 where one is missing"
        raise SourceError(f"{what} is {kind}, which no id can be told by", hint)


def person_id(cell: str) -> str:
    """Return the SQL of a person's id as text; a whole number that was written as 2.0 is 2, in rows and decisions."""
    text = f"CAST({cell} AS VARCHAR)"
    plain = f"regexp_replace({text}, '^(-?[0-9]+)[.]0+$', '\\1')"
    return f"CASE WHEN suffix({text}, '0') AND contains({text}, '.') THEN {plain} ELSE {text} END"


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


def quote(identifier: str) -> str:
    """Return an SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return an SQL string."""
    return "'" + text.replace("'", "''") + "'"
