"""The bounds of a figure of a person that no question states: those that the policy's rows of one person give it.

A count of a person's rows is one of 0 to `max_rows`, a sum that of `max_rows` cells within their column's bounds. Both
are public. A person with more rows than that is clamped, as by bounds that a question states.
"""

from collections.abc import Iterator
from decimal import Decimal

from policies.requests.query import Plan
from policies.requests.tables import Table, TableColumn
from policies.units import counted

MAX_GROUPS = 200  # of a count of a person's rows that no question bounds


def bounds_by_rows(function: str, column: TableColumn | None, max_rows: int) -> tuple[Decimal, Decimal]:
    """Return the bounds of a count or a sum of `max_rows` rows, in the figure's own units."""
    if function != "sum" or column is None:
        return Decimal(0), Decimal(max_rows)
    most = max_rows * Decimal(column.step or 1)
    return min(column.low or 0, 0) * most, max(column.high or 0, 0) * most


def told(plan: Plan, table: Table) -> Iterator[str]:
    """Yield a clause for each figure of a person that has the bounds of `max_rows` rows."""
    for one in () if plan.inner is None else plan.inner.columns:
        if one.function not in ("count", "sum") or one.high is None:
            continue
        column = None if one.column is None else table.column(one.column)
        step = Decimal(1) if column is None or one.function == "count" else Decimal(column.step or 1)
        low, high = bounds_by_rows(one.function, column, table.max_rows)
        if (low, high) == ((one.low or 0) * step, one.high * step):
            yield f"{one.name} is from {_plain(low)} to {_plain(high)}, as of {counted(table.max_rows, 'row')} a person"


def _plain(value: Decimal) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value.normalize():,f}"
