"""Periods follow from the clock alone, sort as they follow each other, and cover every day once."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.periods import label, most_periods, periods, span

GRANULARITIES = ["day", "week", "month", "quarter", "year"]
DAYS = st.dates(date(1971, 1, 1), date(2200, 12, 31))


@pytest.mark.parametrize(
    ("granularity", "named"),
    [("day", "2026-11-24"), ("week", "2026-W48"), ("month", "2026-11"), ("quarter", "2026-Q4"), ("year", "2026")],
)
def test_labels(granularity: str, named: str) -> None:
    assert label(granularity, date(2026, 11, 24)) == named


def test_a_week_belongs_to_the_year_of_its_thursday() -> None:
    assert label("week", date(2027, 1, 1)) == "2026-W53"
    assert span("2026-W53") == (date(2026, 12, 28), date(2027, 1, 3))


@given(st.sampled_from(GRANULARITIES), DAYS)
def test_a_period_spans_exactly_the_days_of_its_label(granularity: str, day: date) -> None:
    found = span(label(granularity, day))
    assert found is not None
    first, last = found
    assert first <= day <= last
    assert label(granularity, first) == label(granularity, last) == label(granularity, day)
    assert label(granularity, first - timedelta(1)) < label(granularity, day) < label(granularity, last + timedelta(1))


@given(st.sampled_from(GRANULARITIES), st.integers(1, 900), DAYS)
def test_periods_are_those_of_the_days_back_in_order(granularity: str, lookback_days: int, day: date) -> None:
    now = int(datetime(day.year, day.month, day.day, 13, tzinfo=UTC).timestamp())
    found = periods(granularity, lookback_days, now)
    assert list(found) == sorted(set(found))
    expected = {label(granularity, day - timedelta(back)) for back in range(lookback_days + 1)}
    assert set(found) == expected
    assert len(found) <= most_periods(granularity, lookback_days)


@pytest.mark.parametrize("text", ["", "unknown", "2026-13", "2026-W54", "2026-Q5", "2026-02-30", "0000", "2026-1"])
def test_what_is_no_period_spans_nothing(text: str) -> None:
    assert span(text) is None


def test_a_granularity_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown granularity"):
        label("decade", date(2026, 1, 1))
