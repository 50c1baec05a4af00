"""Which calendar months of the data a request can read, as far as its filter on the source's time column says.

Read from the signed request alone. A filter that leaves a month open counts as reading it, so the answer may be too
wide, never too narrow; rows whose date is missing belong to every month.
"""

from datetime import date, timedelta

from policies.ledger import ALL_MONTHS, Months
from policies.model import Source
from policies.periods import UNKNOWN
from policies.request import Both, Compare, Either, IsNull, Not, OneOf, Plan, Predicate, Request, TableColumn

_OPERATORS = {
    "=": lambda one, other: one == other,
    "<>": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


def months_of(request: Request, source: Source) -> Months:
    """Return the months from the first to the last that the request can read; all where it does not say."""
    plan, name = request.plan, source.time_column
    if not isinstance(plan, Plan) or plan.where is None or name is None:
        return ALL_MONTHS
    column = next((one for one in request.table.columns if one.name == name), None)
    if column is None or column.type != "date":
        return ALL_MONTHS
    read = [period for period in column.domain if _outcomes(plan.where, column, period)[0]]
    if not read or UNKNOWN in read:
        return ALL_MONTHS
    days = [_days(period) for period in read]
    return Months.between(min(first for first, _ in days), max(last for _, last in days))


def _outcomes(predicate: Predicate, column: TableColumn, period: str) -> tuple[bool, bool]:
    """Return whether the filter can hold, and whether it can fail, for a row of this period."""
    match predicate:
        case Both():
            parts = [_outcomes(operand, column, period) for operand in predicate.operands]
            return all(holds for holds, _ in parts), any(fails for _, fails in parts)
        case Either():
            parts = [_outcomes(operand, column, period) for operand in predicate.operands]
            return any(holds for holds, _ in parts), all(fails for _, fails in parts)
        case Not():
            holds, fails = _outcomes(predicate.operand, column, period)
            return fails, holds
        case Compare(column=column.name):
            is_true = _OPERATORS[predicate.op](period, predicate.value)
            return is_true, not is_true
        case OneOf(column=column.name):
            return period in predicate.values, period not in predicate.values
        case Compare() | OneOf() | IsNull():
            return True, True


def _days(period: str) -> tuple[date, date]:
    """Return the first and the last day of a period, by the form of its label."""
    year = int(period[:4])
    if "-W" in period:
        monday = date.fromisocalendar(year, int(period[6:]), 1)
        return monday, monday + timedelta(days=6)
    if "-Q" in period:
        month = 3 * int(period[6:])
        return date(year, month - 2, 1), date(year, month, 1)
    if len(period) == 10:
        day = date.fromisoformat(period)
        return day, day
    return (date(year, 1, 1), date(year, 12, 1)) if len(period) == 4 else (date(year, int(period[5:]), 1),) * 2
