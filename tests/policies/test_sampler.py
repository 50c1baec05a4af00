"""The noise of a long answer costs delta, the same for analyst and silo, and never more than a policy leaves for it."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyst import requests
from crypto.noise import TABLE_SLOTS
from crypto.table_noise import TABLE_TV_BITS
from policies.budget.accountant import delta_of, epsilon_of, micro_rho_of
from policies.budget.ledger import ATTO, Spending
from policies.budget.sampler import (
    LOSS_BITS,
    MAX_EPSILON,
    SHARE_BITS,
    delta_for,
    inexact_slots,
    rho_delta,
    sampler_delta,
    sampler_limit,
)
from policies.decision.budget_rules import delta_limit_of
from policies.decision.decide import decide
from policies.requests.denials import Denial
from policies.requests.query import Aggregate
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from policies.units import MAX_DELTA, MICRO, MIN_DELTA
from tests.harness.example_policy import AGE, NOW, SMOKER, Edit, offer, plan, policy, request, table

# Two dimensions of 64 and 63 or 64 values: 4,032 or 4,096 groups.
OPEN = (
    Edit(
        'domain = ["medicine", "surgery", "unknown"]', f"domain = {[*map(str, range(63)), 'unknown']}".replace("'", '"')
    ),
    Edit("domain = [-1, 0, 1, 2]", f"domain = {list(range(-1, 63))}"),
    Edit("max_groups     = 12", "max_groups     = 4096"),
)
COUNT = Aggregate(function="count", column=None, alias="n")
AVERAGE = Aggregate(function="avg", column="age", alias="mean_age")


def grouped(grades: int, *aggregates: Aggregate, **changes: Any) -> Request:
    """Return a request with 64 * `grades` groups."""
    ward = TableColumn(name="ward", type="string", domain=(*map(str, range(63)), "unknown"), unknown="unknown")
    grade = TableColumn(name="grade", type="int", domain=tuple(map(str, range(-1, grades - 1))), unknown="-1")
    asked = plan(where=None, group_by=("ward", "grade"), aggregates=aggregates or (COUNT,))
    return request(table=table(columns=(ward, grade, AGE, SMOKER)), plan=asked, **changes)


LONG, SHORT = grouped(64), grouped(63)


def judge(asked: Request, spent: Spending, *edits: Edit) -> tuple[Denial, ...]:
    return decide(policy(*OPEN, *edits), asked, bytes(32), spent, NOW)


def test_a_short_answer_costs_no_delta() -> None:
    assert inexact_slots(SHORT.table, SHORT.plan) == 0
    assert sampler_delta(SHORT) == 0
    assert delta_for(1e-6, SHORT.table, SHORT.plan) == 1e-6


@pytest.mark.parametrize(("aggregates", "blocks"), [((COUNT,), 1), ((AVERAGE,), 2), ((COUNT, AVERAGE), 3)])
@pytest.mark.parametrize("silos", [("east", "north", "south"), ("east", "north", "south", "west")])
def test_the_cost_of_a_long_answer_is_that_of_its_samples(
    aggregates: tuple[Aggregate, ...], blocks: int, silos: tuple[str, ...]
) -> None:
    asked = grouped(64, *aggregates, silos=silos)
    samples = blocks * TABLE_SLOTS * len(silos)
    exact = Fraction(samples * 2**LOSS_BITS, 2**TABLE_TV_BITS) * ATTO
    assert sampler_delta(asked) == math.ceil(exact) >= 1
    assert inexact_slots(asked.table, asked.plan) * len(silos) == samples


def test_a_distance_costs_less_than_it_is_charged_at_the_greatest_epsilon() -> None:
    assert 1 + math.exp(MAX_EPSILON) < 2**LOSS_BITS


@given(st.decimals(MIN_DELTA, MAX_DELTA), st.integers(1, 100 * MICRO))
def test_the_parts_of_delta_are_no_more_than_delta(delta: Decimal, lifetime: int) -> None:
    limit = sampler_limit(delta, lifetime)
    assert Fraction(limit, ATTO) <= Fraction(delta) / 2**SHARE_BITS
    assert Fraction(limit, ATTO) + Fraction(rho_delta(float(delta))) <= Fraction(delta) * (1 + Fraction(1, 2**50))
    if limit:
        assert delta_of(lifetime / MICRO, MAX_EPSILON) <= rho_delta(float(delta))


def test_a_million_slots_of_a_thousand_silos_fit_the_share_many_times() -> None:
    samples = 10**6 * 1000
    once = -(-samples * ATTO >> TABLE_TV_BITS - LOSS_BITS)
    assert once == 6_618
    assert sampler_limit(Decimal("1e-6"), MICRO) // once > 100_000


def test_an_analyst_converts_a_long_answer_at_the_rest_of_delta() -> None:
    offered = offer(policy(*OPEN))
    prices = [requests.price(offered, "health-research", 1.0, asked.table, asked.plan) for asked in (SHORT, LONG)]
    assert prices == [micro_rho_of(1.0, 1e-6), micro_rho_of(1.0, rho_delta(1e-6))]
    assert prices == [24_355, 24_353]
    assert epsilon_of(prices[1] / MICRO, rho_delta(1e-6)) <= 1.0


def test_a_long_answer_is_allowed_while_the_share_lasts() -> None:
    cost, limit = sampler_delta(LONG), delta_limit_of(policy(*OPEN))
    assert limit == ATTO // 10**6 // 2**SHARE_BITS
    assert judge(LONG, Spending(0)) == ()
    assert judge(LONG, Spending(0, atto_delta=limit - cost)) == ()
    (denial,) = judge(LONG, Spending(0, atto_delta=limit - cost + 1))
    assert (denial.code, denial.rule) == ("BUDGET_DELTA", "budget.delta")
    assert "fewer than 4096 groups" in denial.remedy
    assert judge(SHORT, Spending(0, atto_delta=limit)) == ()


def test_a_lifetime_above_epsilon_22_has_no_long_answers() -> None:
    wide = Edit("lifetime    = { rho = 1.0 }", "lifetime    = { rho = 6.0 }")
    assert epsilon_of(6.0, 1e-6) > MAX_EPSILON
    assert delta_limit_of(policy(*OPEN, wide)) == 0
    (denial,) = judge(LONG, Spending(0), wide)
    assert denial.code == "BUDGET_DELTA"
    assert "above epsilon 22" in denial.message
    assert judge(SHORT, Spending(0), wide) == ()


def test_a_policy_that_leaves_less_than_was_used_answers_nothing() -> None:
    wide = Edit("lifetime    = { rho = 1.0 }", "lifetime    = { rho = 6.0 }")
    for asked in (SHORT, LONG):
        (denial,) = judge(asked, Spending(0, atto_delta=1), wide)
        assert denial.code == "BUDGET_DELTA"
        assert "privacy@north.example" in denial.remedy


def test_the_cost_follows_from_the_signed_request_alone() -> None:
    assert sampler_delta(Request.decode(LONG.encode())) == sampler_delta(LONG)
