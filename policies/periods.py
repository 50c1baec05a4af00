"""Periods of time as the values of a date column: a closed, public list, computed from the clock alone.

Labels of one granularity sort as the periods follow each other: 2026-11-24, 2026-W48, 2026-11, 2026-Q4, 2026.
"""

import re
from collections.abc import Sequence
from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise

from policies.units import DAY_S

UNKNOWN = "unknown"  # the value of a missing date, and of a date outside the list
SLACK_DAYS = 31  # how long a request that names periods may travel: longer than the lifetime of any request
_SHORTEST_DAYS = {"day": 1, "week": 7, "month": 28, "quarter": 90, "year": 365}


def label(granularity: str, day: date) -> str:
    """Return the name of the period of a day."""
    match granularity:
        case "day":
            return day.isoformat()
        case "week":
            year, week, _ = day.isocalendar()
            return f"{year:04}-W{week:02}"
        case "month":
            return f"{day:%Y-%m}"
        case "quarter":
            return f"{day:%Y}-Q{(day.month + 2) // 3}"
        case "year":
            return f"{day:%Y}"
    raise ValueError(f"unknown granularity {granularity!r}")


def span(named: str) -> tuple[date, date] | None:
    """Return the first and the last day of a period by its label; None if there is no such period."""
    match re.fullmatch(r"(\d{4})(?:-(?:W(\d\d)|Q([1-4])|(\d\d)(?:-(\d\d))?))?", named):
        case None:
            return None
        case found:
            year, week, quarter, month, day = (int(part) if part else 0 for part in found.groups())
    try:
        if week:
            first = date.fromisocalendar(year, week, 1)
            return first, first + timedelta(days=6)
        if day:
            return date(year, month, day), date(year, month, day)
        months = (month, month) if month else (3 * quarter - 2, 3 * quarter) if quarter else (1, 12)
        after = date(year + months[1] // 12, months[1] % 12 + 1, 1)
        return date(year, months[0], 1), after - timedelta(days=1)
    except ValueError:
        return None


def granularity_of(named: str) -> str | None:
    """Return the granularity of a period by its label; None if there is no such period."""
    found = span(named)
    return None if found is None else next((one for one in _SHORTEST_DAYS if label(one, found[0]) == named), None)


def is_calendar(values: Sequence[str]) -> bool:
    """Tell whether these are periods of one granularity, one or more, each the next one, and `UNKNOWN` at the end."""
    *named, last = values
    spans = [found for one in named if (found := span(one)) is not None]
    if last != UNKNOWN or not named or len(spans) != len(named):
        return False
    follows = all(after - before == timedelta(days=1) for (_, before), (after, _) in pairwise(spans))
    return follows and any([label(one, first) for first, _ in spans] == named for one in _SHORTEST_DAYS)


def most_periods(granularity: str, lookback_days: int) -> int:
    """Return an upper bound of the number of periods within `lookback_days` and the slack."""
    return (lookback_days + SLACK_DAYS) // _SHORTEST_DAYS.get(granularity, 1) + 2


def periods(granularity: str, lookback_days: int, now: int) -> tuple[str, ...]:
    """Return the periods from `lookback_days` before `now` (seconds since 1970) to now, oldest first; UTC."""
    return _periods(granularity, lookback_days, now // DAY_S)


@lru_cache(maxsize=256)
def _periods(granularity: str, lookback_days: int, day_number: int) -> tuple[str, ...]:
    today = date(1970, 1, 1) + timedelta(days=day_number)
    found = dict.fromkeys(
        label(granularity, today - timedelta(days=back))
        for back in range(min(lookback_days, today.toordinal() - 1), -1, -1)
    )
    return tuple(found)
