"""Calendar windows, and when one more charge exceeds a limit."""

import math
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.errors import WireError
from policies.budget.accountant import ORDERS, cover, curve_of, line_of
from policies.budget.ledger import (
    Charge,
    Checkpoint,
    Months,
    Rate,
    Spending,
    WindowLimit,
    WindowSpending,
    exceeds,
    lifetime_with,
    window_start,
)
from policies.errors import LedgerError
from policies.units import MICRO

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


def test_the_orders_are_those_of_dp_accounting() -> None:
    from dp_accounting.rdp import rdp_privacy_accountant

    assert [round(10 * order) for order in rdp_privacy_accountant.DEFAULT_RDP_ORDERS] == list(ORDERS)


@pytest.mark.parametrize("deviation", [0.7, 3.0, 41.5])
def test_a_gaussian_is_a_line_as_dp_accounting_has_it(deviation: float) -> None:
    from dp_accounting import dp_event
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant()
    accountant.compose(dp_event.GaussianDpEvent(deviation), 3)
    curve = curve_of(list(accountant._rdp))
    rho = 3 / (2 * deviation**2)
    assert cover(curve) == math.ceil(rho * MICRO)
    line = line_of(cover(curve))
    assert all(below <= above < below + 11 * order for below, above, order in zip(curve, line, ORDERS, strict=True))


def sampled(count: int) -> tuple[int, ...]:
    """Return the curve of a mechanism that is no line: a Gaussian on a random sample of the persons."""
    from dp_accounting import dp_event
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant()
    accountant.compose(dp_event.PoissonSampledDpEvent(0.02, dp_event.GaussianDpEvent(1.1)), count)
    return curve_of(list(accountant._rdp))


def test_a_curve_costs_less_together_than_the_lines_that_cover_its_parts() -> None:
    """Two mechanisms that are dear at different orders: their sum is below the sum of their covers."""
    steep = tuple(5_000 if order > 20 else 50_000 * 11 for order in ORDERS)
    flat = tuple(7 * order * (3 if order > 500 else 1) for order in ORDERS)
    together = tuple(one + other for one, other in zip(steep, flat, strict=True))
    assert cover(together) < cover(steep) + cover(flat)
    spent = Spending(100 + cover(steep), curve=steep)
    assert lifetime_with(spent, charge(cover(flat), curve=flat)) == 100 + cover(together)
    assert lifetime_with(spent, charge(50)) == 150 + cover(steep)


@given(st.lists(st.one_of(st.integers(0, 10**6), st.integers(1, 40)), min_size=1, max_size=6), st.integers(0, 10**7))
def test_the_filter_holds_at_every_order(prices: list[int], limit: int) -> None:
    """Whatever passes, one after another, stays below the limit's line at every order of dp-accounting."""
    total = [0] * len(ORDERS)
    spent = Spending(0)
    for price in prices:
        curve = sampled_curves()[price] if price <= 40 else ()
        one = charge(cover(curve) if curve else price, curve=curve)
        if exceeds(spent, one, limit, ()):
            continue
        added = curve or line_of(price)
        total = [before + more for before, more in zip(total, added, strict=True)]
        before = spent.curve or (0,) * len(ORDERS)
        curves = tuple(a + b for a, b in zip(before, curve, strict=True)) if curve else spent.curve
        spent = Spending(lifetime_with(spent, one), curve=curves)
        assert all(value <= limit * order for value, order in zip(total, ORDERS, strict=True))
        assert spent.lifetime == cover(total), "and no more was counted than that"


@cache
def sampled_curves() -> list[tuple[int, ...]]:
    once = sampled(1)
    return [tuple(count * value for value in once) for count in range(41)]


def test_dp_accounting_composes_the_same_curve() -> None:
    for count in (1, 7, 40):
        assert all(
            abs(one - other) <= count for one, other in zip(sampled(count), sampled_curves()[count], strict=True)
        )


def test_deltas_add_up_and_are_closed_unless_allowed() -> None:
    one = charge(1, atto_delta=5)
    assert exceeds(Spending(0), one, 1000, ())
    assert not exceeds(Spending(0), one, 1000, (), delta_limit=5)
    assert exceeds(Spending(0, atto_delta=1), one, 1000, (), delta_limit=5)
    assert not exceeds(Spending(0, atto_delta=99), charge(1), 1000, ())


def test_a_rate_counts_what_was_granted_before() -> None:
    assert not exceeds(Spending(0, requests=2), charge(1), 1000, (), rate=Rate(0, 3))
    assert exceeds(Spending(0, requests=3), charge(1), 1000, (), rate=Rate(0, 3))


def test_months_run_from_that_of_one_day_to_that_of_another() -> None:
    assert Months.between(date(2026, 1, 31), date(2026, 3, 1)) == Months(12 * 2026, 12 * 2026 + 2)
    for first, last in ((5, 4), (-1, 4), (0, 10**7)):
        with pytest.raises(LedgerError):
            Months(first, last)


@pytest.mark.parametrize(
    "changes",
    [{"curve": (1, 2)}, {"curve": (-1,) * len(ORDERS)}, {"curve": (2**60,) * len(ORDERS)}, {"atto_delta": -1}],
)
def test_a_charge_that_cannot_be_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises(LedgerError):
        charge(10**6, **changes)


def test_the_rho_that_people_see_covers_the_curve() -> None:
    curve = sampled(5)
    assert charge(cover(curve), curve=curve).micro_rho == cover(curve)
    with pytest.raises(LedgerError, match="cover"):
        charge(cover(curve) - 1, curve=curve)
    with pytest.raises(ValueError, match="expected"):
        curve_of([0.1, 0.2])


@given(st.binary(max_size=300))
def test_no_bytes_but_a_head_s_are_a_head(data: bytes) -> None:
    with pytest.raises(WireError):
        Checkpoint.decode(data)
