"""Calendar windows, and when one more charge exceeds a limit."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import LedgerError
from policies.ledger import Charge, Spending, WindowLimit, WindowSpending, exceeds, window_start

WINDOWS = ("calendar-day", "calendar-week", "calendar-month", "calendar-quarter", "calendar-year")


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("window", "start"),
    [
        ("calendar-day", "2026-11-23"),
        ("calendar-week", "2026-11-23"),
        ("calendar-month", "2026-11-01"),
        ("calendar-quarter", "2026-10-01"),
        ("calendar-year", "2026-01-01"),
    ],
)
def test_windows_begin_where_the_calendar_says(window: str, start: str) -> None:
    assert window_start(window, at("2026-11-23T13:37:00")) == at(start)
    assert window_start(window, at(start)) == at(start)
    assert window_start(window, at(start) - 1) < at(start)


def test_a_week_begins_on_monday_across_years() -> None:
    assert window_start("calendar-week", at("2027-01-03T23:59:59")) == at("2026-12-28")


def test_an_unknown_window_is_refused() -> None:
    with pytest.raises(LedgerError):
        window_start("data-month", 0)


@given(st.integers(0, 4_000_000_000), st.sampled_from(WINDOWS))
def test_now_lies_in_its_window_and_windows_nest(now: int, window: str) -> None:
    assert window_start(window, now) <= now
    assert window_start("calendar-year", now) <= window_start(window, now) or window == "calendar-week"


def charge(micro_rho: int, **changes: Any) -> Charge:
    return Charge(bytes(16), bytes(32), "ana", "research", micro_rho, bytes(32), 0, **changes)


LIMIT = WindowLimit(since=0, rho=100, per_analyst=60)


@pytest.mark.parametrize(
    ("lifetime", "everybody", "analyst", "is_exceeded"),
    [(990, 90, 50, False), (991, 90, 50, True), (0, 91, 0, True), (0, 90, 51, True), (0, 0, 0, False)],
)
def test_each_limit_counts(lifetime: int, everybody: int, analyst: int, is_exceeded: bool) -> None:
    spent = Spending(lifetime, (WindowSpending(everybody, analyst),))
    assert exceeds(spent, charge(10), 1000, [LIMIT]) is is_exceeded


def test_a_window_whose_spending_is_unknown_counts_as_exceeded() -> None:
    assert exceeds(Spending(0), charge(1), 1000, [LIMIT])
    assert exceeds(Spending(0, (WindowSpending(0, 0),)), charge(1), 1000, [])
