"""What the owner is told: the sums of the charges, what is left, and when it ends."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.budget.ledger import ALL_MONTHS, Months, Spending
from policies.units import DAY_S
from silo_node.ledger.charges import Row
from silo_node.owner.accounts import Account, Accounts, accounts_of
from tests.harness.example_policy import Edit, policy

NOW = int(datetime(2027, 5, 20, 12, tzinfo=UTC).timestamp())
LIMITS = Edit(
    "[disclosure]",
    """[[budget.limits]]
purpose = "health-research"
window = "calendar-month"
rho = 0.5
per_analyst_rho = 0.2
[[budget.limits]]
purpose = "health-research"
window = "data-month"
rho = 0.3
[disclosure]""",
)
POLICY = policy(LIMITS)


def row(days_ago: float = 0, micro_rho: int = 1000, **changes: object) -> Row:
    fields: dict[str, object] = {
        "at": int(NOW - days_ago * DAY_S),
        "analyst": "ana",
        "purpose": "health-research",
        "micro_rho": micro_rho,
        "is_committed": True,
        "months": ALL_MONTHS,
    }
    return Row(**fields | changes)  # type: ignore[arg-type]


def accounts(*rows: Row) -> Accounts:
    return accounts_of(POLICY, rows, Spending(sum(one.micro_rho for one in rows)), NOW)


def test_an_unused_ledger_has_everything_left_and_no_end() -> None:
    found = accounts()
    assert (found.lifetime.spent, found.lifetime.left) == (0, 1_000_000)
    assert found.forecast.ends_at is None
    assert "does not end" in found.forecast.worded()
    assert [one.left for one in found.limits] == [500_000, 300_000]
    assert found.epsilon(0) == 0


def test_spent_reserved_and_left_by_purpose_and_analyst() -> None:
    found = accounts(
        row(40, 100_000), row(3, 20_000), row(2, 5_000, is_committed=False), row(1, 7_000, analyst="bo"),
        row(1, 11_000, purpose="billing"),
    )  # fmt: skip
    assert (found.lifetime.committed, found.lifetime.reserved, found.lifetime.left) == (138_000, 5_000, 857_000)
    month = found.limits[0]
    assert (month.committed, month.reserved, month.left, month.since) == (27_000, 5_000, 468_000, "2027-05-01")
    assert [(part.name, part.spent, part.left) for part in month.parts] == [
        ("ana", 25_000, 175_000),
        ("bo", 7_000, 193_000),
    ]
    by_purpose = {one.name: (one.spent, [part.name for part in one.parts]) for one in found.purposes}
    assert by_purpose == {"health-research": (132_000, ["ana", "bo"]), "billing": (11_000, ["ana"])}


def test_the_fullest_month_of_the_data_is_told() -> None:
    march, april = (Months(12 * 2027 + month, 12 * 2027 + month) for month in (2, 3))
    both = Months(march.first, april.last)
    found = accounts(row(50, 10, months=march), row(40, 5, months=both), row(30, 8, months=april), row(1, 1))
    month = found.limits[1]
    assert (month.since, month.spent) == ("2027-03", 16)


def test_the_forecast_is_the_pace_of_the_last_days() -> None:
    found = accounts(row(200, 500_000), row(10, 45_000), row(1, 45_000))
    assert found.forecast.over_days == 90
    assert found.forecast.micro_rho_per_day == 1000
    assert found.forecast.ends_at == NOW + 410 * DAY_S
    assert "ends on 2028-07-03" in found.forecast.worded()
    young = accounts(row(0.5, 100_000))
    assert (young.forecast.over_days, young.forecast.micro_rho_per_day) == (1, 100_000)
    assert young.forecast.ends_at == NOW + 9 * DAY_S


@pytest.mark.parametrize("micro_rho", [1, 2, 5, 30, 100, 1000])
def test_an_end_that_no_calendar_holds_is_none(micro_rho: int) -> None:
    found = accounts(row(60, micro_rho)).forecast
    assert found.worded()
    assert found.ends_at is None or found.ends_at < NOW + 1001 * 366 * DAY_S
    assert (found.ends_at is None) == (micro_rho < 165)


def test_spending_over_time_only_grows() -> None:
    found = accounts(row(3, 5), row(3, 6), row(1, 7))
    today = NOW // DAY_S
    assert found.days == ((today - 3, 11), (today - 1, 18))


@given(
    st.lists(
        st.tuples(st.floats(0, 400), st.integers(0, 10**6), st.sampled_from(["ana", "bo"]), st.booleans()), max_size=12
    )
)
def test_whatever_was_charged_nothing_is_lost(charges: list[tuple[float, int, str, bool]]) -> None:
    rows = [row(days, micro, analyst=who, is_committed=done) for days, micro, who, done in charges]
    found = accounts(*rows)
    total = sum(micro for _, micro, _, _ in charges)
    assert found.lifetime.spent == total == sum(one.spent for one in found.purposes)
    assert found.lifetime.left == max(0, 1_000_000 - total)
    assert not found.days or found.days[-1][1] == total
    assert all(one.spent == sum(part.spent for part in one.parts) for one in (*found.limits, *found.purposes))


def test_an_account_without_a_limit_leaves_nothing_to_tell() -> None:
    assert Account("all", 5, 0, None).left is None
    assert "limit" not in Account("all", 5, 0, None).summary()
