"""A column inside an inner question keeps its role, and what an inner question states is bounded and priced."""

from typing import Any

import pytest
from pydantic import ValidationError

from policies.budget.accountant import charge
from policies.budget.ledger import Spending
from policies.decision.budget_rules import months_of
from policies.decision.decide import decide
from policies.document.catalogue import open_tables
from policies.document.policy import Policy
from policies.requests.cases import Cases
from policies.requests.persons import PERSONS, Inner, InnerColumn
from policies.requests.predicates import Both, Compare, OneOf
from policies.requests.query import Aggregate, Plan
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from tests.cases import every
from tests.harness.example_policy import COLUMNS, NOW, Edit, plan, policy, request, table

COUNT = Aggregate(function="count", column=None, alias="n")
PERSONS_OF = Aggregate(function="persons", column=None, alias="n")
STAYS = 'roles = ["measure"], bounds = [0, 60]'
NARROW = Edit(STAYS, 'roles = ["measure"], narrow = true, bounds = [0, 60]')
FILTER = Edit(STAYS, 'roles = ["measure", "filter"], bounds = [0, 60]')
ONLY_GROUPED = Edit('"internal", roles = ["dimension", "filter"]', '"internal", roles = ["dimension"]')
ONLY_FILTERED = Edit('"internal", roles = ["dimension", "filter"]', '"internal", roles = ["filter"]')


def inside(*columns: InnerColumn, where: Any = None, group_by: tuple[str, ...] = (), **changes: Any) -> Request:
    """Return a question about the rows of persons."""
    inner = Inner(where=changes.pop("of_rows", None), columns=columns)
    figures, cases = changes.pop("aggregates", (COUNT,)), changes.pop("cases", ())
    about = plan(where=where, group_by=group_by, aggregates=figures, inner=inner, cases=cases)
    return request(plan=about, **changes)


def codes(by: Policy, asked: Request) -> list[tuple[str, str]]:
    found = decide(by, asked, bytes(32), Spending(0), NOW)
    return [(denial.code, denial.rule.removeprefix("sources.visits.columns.")) for denial in found]


def visits(high: int = 5, **fields: Any) -> InnerColumn:
    return InnerColumn(name="v", function="count", column=None, high=high, **fields)


def of(function: Any, column: str, **fields: Any) -> InnerColumn:
    return InnerColumn(name="x", function=function, column=column, **fields)


def average(name: str) -> tuple[Aggregate, ...]:
    return (Aggregate(function="avg", column=name, alias="mean"),)


def long_condition(place: int) -> InnerColumn:
    """Return a count with a condition of 15 parts."""
    parts = tuple(Compare(column="age", op="<>", value=str(part)) for part in range(14))
    return InnerColumn(name=f"n{place}", function="count", column=None, high=1, where=Both(operands=parts))


def above(value: str, name: str = "x") -> Compare:
    return Compare(column=name, op=">", value=value)


def test_questions_about_persons_are_answered() -> None:
    assert codes(policy(), inside(visits(), where=above("1", "v"))) == []
    assert codes(policy(), inside(visits(), group_by=("v",))) == []
    assert codes(policy(), inside(of("sum", "stay", low=0, high=60), aggregates=average("x"))) == []
    assert codes(policy(), inside(of("min", "stay"), aggregates=average("x"))) == []
    assert codes(policy(), inside(of("first", "ward"), group_by=("x",))) == []
    assert codes(policy(), request(plan=plan(aggregates=(PERSONS_OF,)))) == []


OVER_20 = Cases(name="g", whens=(above("20"),), labels=("over",), otherwise=None)


@every(
    "asked",
    [
        inside(of("sum", "stay", low=0, high=600), where=above("20")),
        inside(of("min", "stay"), where=above("20")),
        inside(of("max", "stay"), where=above("20")),
        inside(of("count", "stay", high=2), where=above("0")),
        inside(of("sum", "stay", low=0, high=59), aggregates=average("x")),  # a row alone may exceed it
        inside(of("sum", "stay", low=1, high=600), aggregates=average("x")),
        inside(of("min", "stay"), group_by=("g",), cases=(OVER_20,)),
        inside(of("count", "stay", high=2), group_by=("x",)),  # who has none: WHERE stay IS NULL, in other words
    ],
)
def test_a_figure_of_a_measure_that_is_compared_or_cut_sets_a_threshold(asked: Request) -> None:
    assert codes(policy(), asked) == [("COLUMN_ROLE", "stay.narrow")]
    assert codes(policy(NARROW), asked) == []
    assert codes(policy(FILTER), asked) == []


def test_a_column_inside_keeps_its_role() -> None:
    in_stay = inside(visits(where=Compare(column="stay", op=">", value="3")), aggregates=average("v"))
    assert codes(policy(), in_stay) == [("COLUMN_ROLE", "stay.roles")], "a condition of a count is a filter"
    of_rows = inside(visits(), aggregates=average("v"), of_rows=Compare(column="stay", op=">", value="3"))
    assert codes(policy(), of_rows) == [("COLUMN_ROLE", "stay.roles")]
    first = inside(of("first", "ward"), group_by=("x",))
    assert codes(policy(ONLY_GROUPED), first) == []
    assert codes(policy(ONLY_FILTERED), first) == [("COLUMN_ROLE", "ward.roles")]
    compared = inside(of("last", "ward"), where=OneOf(column="x", values=("surgery",)))
    assert codes(policy(ONLY_GROUPED), compared) == [("COLUMN_ROLE", "ward.narrow")]
    assert codes(policy(), compared) == []


def test_what_may_leave_is_judged_inside_too() -> None:
    only = Edit('["count", "sum", "avg"]', '["avg"]')
    assert codes(policy(only), inside(visits(), aggregates=average("v"))) == [("AGGREGATE", "disclosure.aggregates")]
    only = Edit('["count", "sum", "avg"]', '["count", "avg"]')
    total = inside(of("sum", "stay", low=0, high=60), aggregates=average("x"))
    assert codes(policy(only), total) == [("AGGREGATE", "disclosure.aggregates")]
    persons = request(plan=plan(where=None, group_by=(), aggregates=(PERSONS_OF,)))
    assert codes(policy(only), persons) == []
    assert codes(policy(Edit('["count", "sum", "avg"]', '["avg"]')), persons) == [
        ("AGGREGATE", "disclosure.aggregates")
    ]
    many = inside(visits(high=13), group_by=("v",))
    assert codes(policy(), many) == [("MAX_GROUPS", "disclosure.max_groups")]


def each(column: str = "ward") -> InnerColumn:
    return InnerColumn(name=column, function="each", column=column)


def test_rows_of_persons_by_group_are_judged_by_the_roles_inside() -> None:
    assert codes(policy(), inside(each(), visits(), where=above("1", "v"), group_by=("ward",))) == []
    assert codes(policy(ONLY_GROUPED), inside(each(), group_by=("ward",))) == []
    assert codes(policy(ONLY_FILTERED), inside(each(), group_by=("ward",))) == [("COLUMN_ROLE", "ward.roles")]
    hidden = inside(each(), aggregates=(COUNT,))  # it groups inside all the same
    assert codes(policy(ONLY_FILTERED), hidden) == [("COLUMN_ROLE", "ward.roles")]
    compared = inside(each(), where=OneOf(column="ward", values=("surgery",)))
    assert codes(policy(ONLY_GROUPED), compared) == [("COLUMN_ROLE", "ward.narrow")]
    different = inside(of("distinct", "ward", high=2), aggregates=average("x"))
    assert codes(policy(ONLY_GROUPED), different) == []
    assert codes(policy(Edit('["count", "sum", "avg"]', '["avg"]')), different) == [
        ("AGGREGATE", "disclosure.aggregates")
    ]


def test_a_case_inside_needs_the_role_of_a_filter() -> None:
    stays = Cases(name="long", whens=(above("20", "stay"),), labels=("over",), otherwise=None)

    def asked(*cases: Cases, group_by: tuple[str, ...] = ()) -> Request:
        inner = Inner(where=None, columns=(), cases=cases)
        return request(plan=plan(where=None, group_by=group_by, aggregates=(COUNT,), inner=inner))

    assert codes(policy(), asked(stays)) == [("COLUMN_ROLE", "stay.roles")]
    assert codes(policy(FILTER), asked(stays, group_by=("long",))) == []
    wards = Cases(name="w", whens=(OneOf(column="ward", values=("surgery",)),), labels=("s",), otherwise=None)
    assert codes(policy(ONLY_GROUPED), asked(wards, group_by=("w",))) == [("COLUMN_ROLE", "ward.roles")]
    alone = policy(Edit('unknown = "unknown" }', 'unknown = "unknown", sole_dimension = true }'))
    assert ("SOLE_DIMENSION", "ward.sole_dimension") in codes(alone, asked(wards, group_by=("w",)))


def test_rows_by_group_are_as_many_as_can_be_in_one_group() -> None:
    wide = table(max_rows=100, max_silos=1)
    both = (each(), InnerColumn(name="grade", function="each", column="grade"))
    for columns, group_by, squared in (
        ((each(),), (), 9), ((each(),), ("ward",), 3), (both, (), 144), (both, ("ward",), 3 * 16),
        (both, ("grade",), 4 * 9), (both, ("ward", "grade"), 12),
    ):  # fmt: skip
        asked = inside(*columns, group_by=group_by, table=wide)
        assert next(iter(asked.plan.statistics(wide).values())).squared == squared
        assert asked.micro_rho - 1 <= charge(asked, 1) <= asked.micro_rho


def test_a_column_that_stands_alone_enters_no_inner_question() -> None:
    alone = policy(Edit('unknown = "unknown" }', 'unknown = "unknown", sole_dimension = true }'))
    rule = ("SOLE_DIMENSION", "ward.sole_dimension")
    assert rule in codes(alone, inside(of("first", "ward"), group_by=("x",)))
    surgery = Compare(column="ward", op="=", value="surgery")
    assert rule in codes(alone, inside(visits(where=surgery), where=above("0", "v")))
    assert rule not in codes(alone, inside(visits(), where=above("0", "v")))


def test_conditions_on_persons_exclude_no_months() -> None:
    """An inner column may have the name of the time column: what persons must meet says nothing of the rows read."""
    dated = policy(
        Edit("diary  =", 'month = { type = "date", class = "internal", roles = ["dimension", "filter"],'
             ' granularity = "month" }\ndiary  ='),
        Edit('uri  = "visits.parquet"', 'uri  = "visits.parquet"\ntime_column = "month"\nlookback_days = 800'),
    )  # fmt: skip
    month = compiled_month(dated)
    last = month.domain[-2]
    named = InnerColumn(name="month", function="first", column="month")
    fields: dict[str, Any] = {"table": table(columns=(*COLUMNS, month))}
    late = Compare(column="month", op="=", value=last)
    of_rows = months_of(dated, request(plan=plan(where=late, group_by=()), **fields), NOW)
    of_persons = months_of(dated, inside(named, where=late, **fields), NOW)
    both = months_of(dated, inside(named, where=late, of_rows=late, **fields), NOW)
    assert of_rows == both != of_persons == months_of(dated, request(plan=plan(where=None), **fields), NOW)


def compiled_month(by: Policy) -> TableColumn:
    """Return how the policy publishes its column of months."""
    (month,) = (one.column for one in open_tables(by, NOW)[0].columns if one.column.name == "month")
    return month


def test_a_person_is_priced_as_one_row_and_as_many_groups_as_rows_enter() -> None:
    wide = table(max_rows=7, max_silos=3)
    asked = inside(of("sum", "stay", low=0, high=600), visits(), aggregates=(COUNT, *average("x")), table=wide)
    found = asked.plan.statistics(wide)
    assert {one.name: extent.squared for one, extent in found.items()} == {
        "rows": 1, "present:x": 1, "total:x": 600**2,
    }  # fmt: skip
    for group_by, squared in (((), 1), (("ward",), 3), (("ward", "grade"), 7)):
        counted = request(table=wide, plan=plan(where=None, group_by=group_by, aggregates=(PERSONS_OF,)))
        assert counted.plan.statistics(wide)[PERSONS].squared == squared
        # What the variance gives back is the price, for a person known to three silos.
        assert counted.micro_rho - 1 <= charge(counted, 3) <= counted.micro_rho
        assert charge(counted, 1) <= counted.micro_rho / 9 + 1


def test_the_declared_time_grows_with_what_is_inside() -> None:
    plain = inside(visits(), where=above("1", "v"))
    more = inside(visits(), of("sum", "stay", low=0, high=60), where=above("1", "v"))
    fewer = inside(visits(), where=above("1", "v"), of_rows=Compare(column="age", op=">", value="3"))
    sizes = [one.plan.size(one.table) for one in (plain, more, fewer)]
    assert sizes[0] < min(sizes[1:])


@every(
    ("fields", "error"),
    [
        ({"function": "count", "column": None}, "a count has high"),
        ({"function": "count", "column": None, "high": 0}, "from 1"),
        ({"function": "count", "column": None, "low": 0, "high": 3}, "a count has high"),
        ({"function": "sum", "column": None, "low": 0, "high": 3}, "needs a column"),
        ({"function": "sum", "column": "stay", "high": 3}, "a sum low and high"),
        ({"function": "sum", "column": "stay", "low": 3, "high": 3}, "low must be below high"),
        ({"function": "sum", "column": "stay", "low": 0, "high": 2**33}, "low must be below high"),
        ({"function": "min", "column": "stay", "low": 0, "high": 3}, "nothing else has bounds"),
        ({"function": "first", "column": None}, "needs a column"),
        ({"function": "avg", "column": "stay"}, "function"),
    ],
)
def test_an_inner_column_without_its_bounds_is_none(fields: dict[str, Any], error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        InnerColumn(name="x", **fields)


@every(
    ("made", "error"),
    [
        (lambda: inside(of("sum", "ward", low=0, high=3)), "has no bounds"),
        (lambda: inside(of("first", "stay")), "has no domain"),
        (lambda: inside(of("min", "absent")), "not in the table definition"),
        (lambda: inside(visits(), where=above("1")), "no inner column 'x'"),
        (lambda: inside(visits(), where=Compare(column="v", op="=", value="many")), "is no int"),
        (lambda: inside(visits(), group_by=("ward",)), "no inner column 'ward'"),
        (lambda: inside(of("min", "stay"), group_by=("x",)), "has no domain"),
        (lambda: inside(of("first", "ward"), aggregates=average("x")), "has no bounds"),
        (lambda: inside(visits(high=2000), group_by=("v",)), "at most 1,000 are groups"),
        (lambda: inside(visits(), visits()), "named twice"),
        (lambda: inside(*(long_condition(place) for place in range(16))), "too many parts"),
        (lambda: inside(each("stay")), "no domain"),
        (lambda: inside(each(), each("grade"), group_by=("stay",)), "no inner column"),
        (lambda: inside(of("distinct", "stay", high=2)), "no domain"),
        (lambda: inside(of("min", "stay", of_person=True)), "beside groups"),
        (lambda: InnerColumn(name="x", function="each", column="ward", of_person=True), "a column as it is"),
        (lambda: inside(visits(), aggregates=(PERSONS_OF,)), "each row of an inner question is a person"),
        (lambda: request(plan=plan(aggregates=(PERSONS_OF.model_copy(update={"column": "age"}),))), "without a column"),
    ],
)
def test_a_plan_that_contradicts_its_inner_question_is_no_request(made: Any, error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        made()


def test_what_is_not_asked_is_left_out_of_the_encoding() -> None:
    assert "inner" not in plan().model_dump_json()
    asked = inside(visits(), of("first", "ward"), where=above("1", "v"))
    assert Request.decode(asked.encode()) == asked
    assert isinstance(asked.plan, Plan)
    assert asked.plan.model_dump_json().count('"where"') == 2, "of the plan, and of the inner question"
    assert {column.name for column in asked.plan.seen(asked.table).columns} == {"v", "x"}
    assert asked.plan.uses() == {"dimension": ("ward",), "filter": (), "measure": ()}
