"""Groups by conditions tell no more than a filter or a grouping by the columns would, and are judged as such."""

from itertools import combinations
from typing import Any

import pytest
from pydantic import ValidationError

from policies.budget.ledger import ALL_MONTHS, Months, Spending
from policies.decision.budget_rules import months_of
from policies.decision.compiled import compiled, facts_of
from policies.decision.decide import decide
from policies.decision.shown import in_words
from policies.decision.thresholds import thresholds_of
from policies.document.catalogue import published
from policies.document.policy import Policy
from policies.requests.cases import Cases
from policies.requests.predicates import Both, Compare, CompareColumns, Either, IsNull, Not, OneOf, Predicate
from policies.requests.query import Aggregate, Plan
from policies.requests.request import Request
from tests.cases import every
from tests.harness.example_policy import COLUMNS, CREATED_AT, NOW, Edit, plan, policy, request, table

COUNT = (Aggregate(function="count", column=None, alias="n"),)
GROUPED_ONLY = Edit('"internal", roles = ["dimension", "filter"]', '"internal", roles = ["dimension"]')  # ward
WIDE = Edit("max_dimensions = 2", "max_dimensions = 3")
SURGERY = Compare(column="ward", op="=", value="surgery")


def case(*whens: Predicate, name: str = "band", **fields: Any) -> Cases:
    labels = tuple(f"group {place}" for place in range(len(whens)))
    return Cases(**{"name": name, "whens": whens, "labels": labels, "otherwise": "other", **fields})


def grouped(*cases: Cases, by: tuple[str, ...] = (), where: Predicate | None = None) -> Request:
    names = tuple(one.name for one in cases)
    return request(plan=plan(where=where, group_by=(*names, *by), cases=cases, aggregates=COUNT))


def codes(by: Policy, asked: Request) -> list[tuple[str, str]]:
    denials = decide(by, asked, bytes(32), Spending(0), NOW)
    return [(denial.code, denial.rule.removeprefix("sources.visits.columns.")) for denial in denials]


def test_a_case_over_what_may_be_filtered_is_answered() -> None:
    ages = case(*(Compare(column="age", op="<", value=str(age)) for age in (18, 40, 65)))
    assert codes(policy(), grouped(ages)) == []
    assert codes(policy(), grouped(case(Both(operands=(SURGERY, IsNull(column="smoker")))))) == []


THRESHOLDS: list[Predicate] = [
    Compare(column="stay", op=">", value="20"),
    Compare(column="stay", op="<=", value="20"),
    Compare(column="stay", op="=", value="20"),
    Compare(column="stay", op="<>", value="20"),
    OneOf(column="stay", values=("20", "21")),
    IsNull(column="stay"),
    CompareColumns(column="stay", op="<", other="age"),
    CompareColumns(column="age", op=">=", other="stay"),
    CompareColumns(column="stay", op="=", other="stay"),
]
THRESHOLDS += [Not(operand=one) for one in THRESHOLDS]
THRESHOLDS += [Both(operands=(SURGERY, one)) for one in THRESHOLDS] + [
    Either(operands=(SURGERY, one)) for one in THRESHOLDS
]


@every("when", THRESHOLDS)
def test_no_condition_of_a_case_is_a_way_round_the_role_of_a_filter(when: Predicate) -> None:
    for asked in (grouped(case(when)), grouped(case(SURGERY, when)), grouped(case(SURGERY), case(when, name="other"))):
        assert codes(policy(WIDE), asked) == [("COLUMN_ROLE", "stay.roles"), ("COLUMN_ROLE", "stay.narrow")]
    narrow = policy(WIDE, Edit('["measure"], bounds = [0, 60]', '["measure"], narrow = true, bounds = [0, 60]'))
    assert codes(narrow, grouped(case(when))) == [("COLUMN_ROLE", "stay.roles")], "narrow opens no condition"
    open_ = policy(WIDE, Edit('["measure"], bounds = [0, 60]', '["measure", "filter"], bounds = [0, 60]'))
    assert codes(open_, grouped(case(when))) == []


def test_a_closed_column_stays_closed() -> None:
    closed = policy(Edit('"internal", roles = ["filter"]', '"internal", roles = []'))
    asked = grouped(case(Compare(column="region", op="=", value="north")))
    assert ("COLUMN_CLOSED", "sources.visits.columns") in codes(closed, asked)


MERGING: list[Predicate] = [SURGERY, OneOf(column="ward", values=("surgery", "unknown")), IsNull(column="ward")]
ORDERING: list[Predicate] = [
    Compare(column="ward", op="<", value="surgery"),
    Compare(column="ward", op="<>", value="surgery"),
    CompareColumns(column="ward", op="=", other="region"),
]


@every("when", [*MERGING, *(Not(operand=one) for one in MERGING)])
def test_who_may_group_by_a_column_may_merge_its_members(when: Predicate) -> None:
    by = policy(GROUPED_ONLY)
    assert codes(by, grouped(case(when))) == []
    assert codes(by, grouped(case(when), by=("ward",))) == []
    filtered = grouped(case(when), where=SURGERY)
    assert codes(by, filtered) == [("COLUMN_ROLE", "ward.roles"), ("COLUMN_ROLE", "ward.narrow")]


@every("when", ORDERING)
def test_but_not_sort_or_compare_them(when: Predicate) -> None:
    asked = grouped(case(SURGERY), case(when, name="other"))
    assert codes(policy(GROUPED_ONLY), asked) == [("COLUMN_ROLE", "ward.roles"), ("COLUMN_ROLE", "ward.narrow")]
    assert codes(policy(), asked) == []


def test_merging_needs_the_policys_domain() -> None:
    columns = tuple(
        one.model_copy(update={"domain": (), "unknown": None}) if one.name == "ward" else one for one in COLUMNS
    )
    asked = request(table=table(columns=columns), plan=plan(where=None, group_by=("band",), cases=(case(SURGERY),)))
    assert ("DEFINITION", "ward.domain") in codes(policy(GROUPED_ONLY), asked)


def test_the_columns_that_a_case_reads_count_as_dimensions() -> None:
    crossing = case(Both(operands=(SURGERY, Compare(column="grade", op="=", value="2"))))
    assert codes(policy(), grouped(crossing)) == []
    one = policy(Edit("max_dimensions = 2", "max_dimensions = 1"))
    assert codes(one, grouped(crossing)) == [("MAX_DIMENSIONS", "disclosure.max_dimensions")]
    assert codes(one, grouped(case(SURGERY), case(Not(operand=SURGERY), name="not"), by=("ward",))) == []
    assert codes(policy(), grouped(crossing, by=("ward", "grade"))) == [("MAX_GROUPS", "disclosure.max_groups")]


def test_the_groups_of_cases_count() -> None:
    ages = case(*(Compare(column="age", op="<", value=str(age)) for age in range(1, 12)))
    assert facts_of(grouped(ages), 2).groups == 12
    assert codes(policy(), grouped(ages)) == []
    more = case(*(Compare(column="age", op="<", value=str(age)) for age in range(1, 13)))
    assert codes(policy(), grouped(more)) == [("MAX_GROUPS", "disclosure.max_groups")]
    same = case(*more.whens, labels=("a", "b", None) * 4, otherwise=None)
    assert facts_of(grouped(same), 2).groups == 3
    assert same.groups == ("a", "b", None)


def test_merging_does_not_slip_below_the_most_groups() -> None:
    """Hope: a cell of a crossing that `max_groups` keeps closed, by two cases of two groups each, or by one."""
    grades = Edit('"sensitive", roles = ["dimension", "filter"]', '"sensitive", roles = ["dimension"]')
    few = Edit("max_groups     = 12", "max_groups     = 11")
    best = Compare(column="grade", op="=", value="2")
    hidden = (
        grouped(case(SURGERY), case(best, name="best")),
        grouped(case(Both(operands=(SURGERY, best)))),
        grouped(case(best), by=("ward",)),
    )
    for asked in hidden:
        assert facts_of(asked, 2).groups < 11
        assert codes(policy(GROUPED_ONLY, grades), asked) == []
        assert codes(policy(GROUPED_ONLY, grades, few), asked) == [("MAX_GROUPS", "disclosure.max_groups")]
        assert codes(policy(few), asked) == [], "whoever may filter may ask for the cell"


@every("when", [
    Compare(column="grade", op="=", value="2"), IsNull(column="grade"), OneOf(column="grade", values=("1", "2")),
])  # fmt: skip
def test_a_sole_dimension_is_crossed_by_no_case(when: Predicate) -> None:
    alone = policy(Edit("unknown = -1 }", "unknown = -1, sole_dimension = true }"))
    assert codes(alone, grouped(case(when))) == []
    crossings = (
        grouped(case(when), by=("ward",)),
        grouped(case(Both(operands=(when, SURGERY)))),
        grouped(case(when, SURGERY)),
        grouped(case(when), case(SURGERY, name="other")),
        grouped(case(when), where=SURGERY),
        grouped(case(SURGERY), by=("grade",)),
    )
    for asked in crossings:
        assert codes(alone, asked) == [("SOLE_DIMENSION", "grade.sole_dimension")]


def test_the_one_function_names_what_cases_cut() -> None:
    by = policy(GROUPED_ONLY)
    asked = grouped(case(SURGERY, Compare(column="age", op="<", value="40")), case(IsNull(column="stay"), name="no"))
    found = thresholds_of(asked, facts_of(asked, 2), compiled(by).sources["visits"])
    assert found == {"age": "by the groups of 'band'", "stay": "by the groups of 'no'"}


def test_a_case_costs_what_a_grouping_costs() -> None:
    """Each row is in one group, so the sum over all groups changes by one person's rows, whatever the conditions."""
    ages = case(*(Compare(column="age", op="<", value=str(age)) for age in (18, 40)))
    by_case, by_column = grouped(ages), grouped(by=("ward",))
    one, other = (asked.plan.statistics(asked.table) for asked in (by_case, by_column))
    assert one == other
    assert facts_of(by_case, 2).cost == facts_of(by_column, 2).cost
    assert facts_of(by_case, 2).size == facts_of(by_column, 2).size + 2, "a row is looked at by each condition"


def test_people_are_shown_every_condition_and_label() -> None:
    asked = grouped(
        case(Compare(column="age", op="<", value="18"), SURGERY, labels=("7", None), type="int", otherwise="8")
    )
    assert dict(in_words(policy(), asked, 0))["asks"] == (
        'COUNT(*) of visits by band (int: "7" where age < 18; NULL where ward = "surgery"; else "8")'
    )


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("grouped by, once", {"group_by": (), "cases": (case(SURGERY),)}),
    ("grouped by, once", {"group_by": ("band",), "cases": (case(SURGERY), case(SURGERY))}),
    ("used twice", {"group_by": ("band", "band"), "cases": (case(SURGERY),)}),
    ("used twice", {"group_by": ("n",), "cases": (case(SURGERY, name="n"),)}),
    ("the name of a column", {"group_by": ("age",), "cases": (case(SURGERY, name="age"),)}),
    ("not in the table definition", {"group_by": ("band",), "cases": (case(IsNull(column="mood")),)}),
    ("is no int", {"group_by": ("band",), "cases": (case(Compare(column="age", op="<", value="x")),)}),
    ("do not compare", {
        "group_by": ("b",), "cases": (case(CompareColumns(column="age", op="<", other="ward"), name="b"),),
    }),
    ("nested too deeply", {
        "group_by": ("band",), "cases": (case(*(Both(operands=(SURGERY,) * 64),) * 41),),
    }),
]  # fmt: skip


@every("wrong", WRONG)
def test_a_case_that_contradicts_the_table_is_no_request(wrong: tuple[str, dict[str, Any]]) -> None:
    why, fields = wrong
    with pytest.raises((ValidationError, KeyError), match=why):
        request(plan=Plan(where=None, aggregates=COUNT, **fields))


def test_labels_are_what_their_type_says() -> None:
    for kind, label in (("int", "1.5"), ("int", "01"), ("int", "-0"), ("int", "x"), ("decimal", "1e3"), ("bool", "yes"),
                        ("string", "a\nb"), ("string", "\u202e")):  # fmt: skip
        with pytest.raises(ValidationError, match="of a case is no"):
            case(SURGERY, labels=(label,), type=kind, otherwise=None)
    with pytest.raises(ValidationError, match="one label"):
        case(SURGERY, labels=("a", "b"))


def test_two_dates_compare_only_by_the_same_periods() -> None:
    months = COLUMNS[0].model_copy(update={"name": "m", "type": "date", "domain": ("2026-01", "unknown")})
    years = months.model_copy(update={"name": "y", "domain": ("2026", "unknown")})
    other = months.model_copy(update={"name": "o", "domain": ("2026-02", "unknown")})
    for one, two in combinations((months, years, other), 2):
        where = CompareColumns(column=one.name, op="<", other=two.name)
        fields: dict[str, Any] = {
            "table": table(columns=(one, two)),
            "plan": Plan(where=where, group_by=(), aggregates=COUNT),
        }
        if years in (one, two):
            with pytest.raises(ValidationError, match="other periods"):
                request(**fields)
        else:
            assert request(**fields).plan.conditions == (where,)


def test_a_filter_by_unknown_dates_may_read_any_month() -> None:
    """What no period holds is not of the months that are listed beside it."""
    by = policy(
        Edit(
            "diary  =",
            'month = { type = "date", class = "internal", roles = ["filter"], granularity = "month" }\ndiary  =',
        ),
        Edit('uri  = "visits.parquet"', 'uri  = "visits.parquet"\ntime_column = "month"\nlookback_days = 800'),
    )
    month = published("month", by.sources["visits"].columns["month"], by.sources["visits"], CREATED_AT)

    def months(where: Predicate) -> Months:
        asked = request(table=table(columns=(month,)), plan=Plan(where=where, group_by=(), aggregates=COUNT))
        return months_of(by, asked, NOW)

    whole = months(IsNull(column="month"))
    assert whole != ALL_MONTHS
    assert months(OneOf(column="month", values=("2026-03",))) != whole
    assert months(Compare(column="month", op="=", value="2026-03")) != whole
    for where in (
        OneOf(column="month", values=("2026-03", "unknown")),
        Compare(column="month", op="=", value="unknown"),
    ):
        assert months(where) == whole
