"""Several statements under one budget: each is judged as if it were asked alone."""

from typing import Any

import pytest
from pydantic import ValidationError

from policies.budget.ledger import Months, Spending
from policies.decision.budget_rules import months_of
from policies.decision.computing import declared_ms
from policies.decision.decide import decide
from policies.document.policy import Policy
from policies.requests.predicates import Both, Compare, OneOf
from policies.requests.query import Aggregate, Plan
from policies.requests.request import Request
from policies.requests.statements import MAX_STATEMENTS, Statements
from policies.requests.survival import MOST_WORK
from policies.requests.tables import TableColumn
from tests.cases import every
from tests.harness.example_policy import AGE, NOW, SMOKER, WARD, Edit, plan, policy, request, table

COUNT = (Aggregate(function="count", column=None, alias="n"),)
SMOKERS = Compare(column="smoker", op="=", value="true")


def of(*plans: Plan, weights: tuple[int, ...] = (), **changes: Any) -> Request:
    return request(plan=Statements(plans=plans, weights=weights), **changes)


def codes(asked: Request, by: Policy | None = None, **spent: Any) -> list[tuple[str, str]]:
    """Return the codes of the denials, with the statement that each is about."""
    found = decide(by or policy(), asked, bytes(32), Spending(0, **spent), NOW)
    return [(one.code, one.message.partition(":")[0]) for one in found]


def test_what_each_statement_may_ask_all_may() -> None:
    assert codes(of(plan(), plan(where=None, group_by=(), aggregates=COUNT))) == []


REFUSED = {
    "AGGREGATE": plan(aggregates=(Aggregate(function="var_pop", column="age", alias="v"),)),
    "COLUMN_ROLE": plan(where=Compare(column="stay", op=">", value="5")),
    "MAX_DIMENSIONS": plan(group_by=("ward", "grade", "ward2")),
    "MAX_GROUPS": plan(group_by=("ward", "grade", "ward2")),
}


@every("place", [0, 1, 2])
@every("code", sorted(REFUSED))
def test_a_rule_for_a_question_holds_for_each_statement(code: str, place: int) -> None:
    extra = WARD.model_copy(update={"name": "ward2"})
    columns = (*table().columns, extra)
    plans = [plan(), plan(where=None, aggregates=COUNT)]
    plans.insert(place, REFUSED[code])
    asked = of(*plans, table=table(columns=columns))
    alone = {one for one, _ in codes(request(plan=REFUSED[code], table=table(columns=columns)))}
    assert code in alone
    assert set(codes(asked)) == {(one, f"statement {place + 1}") for one in alone}


def test_a_column_that_stands_alone_is_crossed_in_no_statement() -> None:
    alone = policy(
        Edit("domain = [-1, 0, 1, 2], unknown = -1", "domain = [-1, 0, 1, 2], unknown = -1, sole_dimension = true")
    )
    apart = of(plan(where=None, group_by=("grade",), aggregates=COUNT), plan(where=None, aggregates=COUNT))
    crossed = of(plan(where=None, aggregates=COUNT), plan(where=None, group_by=("grade", "ward"), aggregates=COUNT))
    assert codes(apart, alone) == []
    assert ("SOLE_DIMENSION", "statement 2") in codes(crossed, alone)


def test_a_purpose_that_opens_no_question_opens_no_several() -> None:
    asked = of(plan(), plan(), purpose="billing")
    assert [code for code, _ in codes(asked)] == ["COMPUTATION_CLOSED"]


@every(("asked_today", "is_refused"), [(0, False), (7, False), (8, True), (10, True)])
def test_each_statement_is_a_request_of_the_day(asked_today: int, is_refused: bool) -> None:
    limited = policy(Edit("[protection]", "[limits]\nrequests_per_day = 10\n\n[protection]"))
    found = codes(of(plan(), plan(), plan(where=None)), limited, requests=asked_today)
    assert [code for code, _ in found] == ["REQUESTS_PER_DAY"] * is_refused


def test_no_statement_is_cheaper_than_a_request_may_be() -> None:
    plans = plan(), plan(where=None)
    assert codes(of(*plans, micro_rho=2_100)) == []
    assert codes(of(*plans, micro_rho=1_900)) == [("RHO_TOO_SMALL", "statement 1")]
    assert codes(of(*plans, micro_rho=9_000, weights=(9, 1))) == [("RHO_TOO_SMALL", "statement 2")]
    assert codes(of(plan(), plan(aggregates=COUNT), micro_rho=1_100)) == [], "they share what they buy"


def test_the_months_of_all_statements_are_charged() -> None:
    months = tuple(f"2026-{month:02}" for month in range(1, 13))
    seen = TableColumn(name="seen", type="date", domain=(*months, "unknown"), unknown="unknown")
    dated = policy(
        Edit("[sources.visits.columns]", 'time_column = "seen"\nlookback_days = 700\n[sources.visits.columns]'),
        Edit(
            "region =",
            'seen = { type = "date", class = "internal", roles = ["filter"], granularity = "month" }\nregion =',
        ),
    )

    def read(*wheres: Any) -> Months:
        plans = [plan(where=where, group_by=(), aggregates=COUNT) for where in wheres]
        whole = plans[0] if len(plans) == 1 else Statements(plans=tuple(plans))
        return months_of(dated, request(plan=whole, table=table(columns=(*table().columns, seen))), NOW)

    early, late = OneOf(column="seen", values=("2026-02",)), Compare(column="seen", op=">=", value="2026-11")
    both = Both(operands=(late, SMOKERS))
    assert read(early, both) == Months(read(early).first, read(late).last)
    assert read(early, SMOKERS) == read(SMOKERS)


@every(
    "statements",
    [
        {"plans": (plan(),)},
        {"plans": (plan(),) * (MAX_STATEMENTS + 1)},
        {"plans": (plan(), plan()), "weights": (1,)},
        {"plans": (plan(), plan()), "weights": (1, 0)},
        {"plans": (plan(), plan()), "weights": (1, 1001)},
    ],
)
def test_what_no_request_can_be(statements: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request(plan=Statements.model_validate(statements))


def test_no_more_sums_than_a_manifest_holds() -> None:
    figures = tuple(
        Aggregate(function="var_pop", column=name, alias=f"{name}{index}")
        for index, name in enumerate(("age", "cost", "stay"))
    )
    wheres = [Compare(column="age", op=">", value=str(least)) for least in range(40)]
    with pytest.raises(ValidationError, match="the statements need 360 sums, one request has at most 256"):
        of(*(plan(where=where, aggregates=figures) for where in wheres))
    with pytest.raises(ValidationError, match="statement 2: an output name is used twice"):
        of(plan(), plan(aggregates=(Aggregate(function="count", column="age", alias="n"),) * 2))


def test_many_statements_have_the_fixed_time_several_times() -> None:
    declaring = policy(Edit("[protection]", "[compute]\nfixed_seconds = 2\n\n[protection]"))
    wheres = [Compare(column="age", op=">", value=str(least)) for least in range(20)]
    plans = [plan(where=where, aggregates=COUNT) for where in wheres]
    assert [declared_ms(declaring, of(*plans[:count])) for count in (2, 8, 9, 20)] == [2000, 2000, 4000, 6000]
    assert declared_ms(declaring, of(*plans[:1] * 20)) == 2000, "one block"


def test_the_curves_of_all_statements_are_bounded_together() -> None:
    curve = Aggregate(function="survival", column="age", other="smoker", alias="s")
    wide = AGE.model_copy(update={"high": 2_000})
    columns = (WARD, wide, SMOKER)
    one = plan(where=None, group_by=("ward",), aggregates=(curve,))
    groups, bins = 3, 2_001
    most = MOST_WORK // (groups * bins**2)
    request(table=table(columns=columns), plan=Statements(plans=(one,) * most))
    with pytest.raises(ValueError, match="curves of all statements are too many"):
        request(table=table(columns=columns), plan=Statements(plans=(one,) * (most + 1)))
