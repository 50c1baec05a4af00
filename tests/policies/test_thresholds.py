"""A role is a role whatever field says it: no field of a request makes a filter of what the policy opens otherwise.

In the example policy `stay` is a measure and nothing else, so nobody may learn how many stay longer than 20 days.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.budget.ledger import Spending
from policies.decision.compiled import compiled, facts_of
from policies.decision.decide import decide
from policies.decision.shown import in_words
from policies.decision.thresholds import thresholds_of
from policies.document.catalogue import published
from policies.document.consistency import warnings
from policies.document.diff import compare
from policies.document.load import parse
from policies.document.policy import Policy
from policies.domains import LongDomain
from policies.errors import PolicyFileError
from policies.requests.denials import Denial
from policies.requests.logistic import LogisticStep
from policies.requests.predicates import Both, Compare, IsNull, Not, OneOf
from policies.requests.query import Aggregate, Plan
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from policies.requests.training import START
from policies.units import DAY_S
from tests.harness.example_policy import (
    AGE,
    COLUMNS,
    CREATED_AT,
    GRADE,
    NOW,
    POLICY,
    STAY,
    WARD,
    Edit,
    plan,
    policy,
    request,
    table,
)

STAYS = 'roles = ["measure"], bounds = [0, 60]'
WARDS = '"internal", roles = ["dimension", "filter"]'
GRADES = '"sensitive", roles = ["dimension", "filter"]'
SUM_OF_STAYS = plan(where=None, group_by=(), aggregates=(Aggregate(function="sum", column="stay", alias="s"),))
DATED = (
    Edit(
        "diary  =",
        'month = { type = "date", class = "internal", roles = ["dimension"], granularity = "month" }\ndiary  =',
    ),
    Edit('uri  = "visits.parquet"', 'uri  = "visits.parquet"\ntime_column = "month"\nlookback_days = 800'),
    Edit("max_groups     = 12", "max_groups     = 60"),
)


def judge(by: Policy, asked: Request, now: int = NOW) -> tuple[Denial, ...]:
    return decide(by, asked, bytes(32), Spending(0), now)


def codes(by: Policy, asked: Request) -> list[tuple[str, str]]:
    return [(denial.code, denial.rule.removeprefix("sources.visits.columns.")) for denial in judge(by, asked)]


def defined(*changed: TableColumn, **fields: Any) -> Request:
    """Return a request by a table definition in which some columns are others."""
    others = {column.name: column for column in changed}
    columns = tuple(others.pop(column.name, column) for column in COLUMNS)
    return request(table=table(columns=(*columns, *others.values())), **fields)


def grouped(*names: str, where: Any = None) -> Plan:
    return plan(where=where, group_by=names, aggregates=(Aggregate(function="count", column=None, alias="n"),))


def test_what_nobody_may_ask_as_a_filter_is_refused_in_its_own_words_and_as_a_narrow_measure() -> None:
    plain = grouped(where=Compare(column="stay", op=">", value="20"))
    assert codes(policy(), request(plan=plain)) == [("COLUMN_ROLE", "stay.roles")]
    narrow = defined(STAY.model_copy(update={"low": 20, "high": 21}), plan=SUM_OF_STAYS)
    (denial,) = judge(policy(), narrow)
    assert (denial.code, denial.rule) == ("COLUMN_ROLE", "sources.visits.columns.stay.narrow")
    assert denial.message == (
        "column 'stay' may be used as measure, and not be narrowed: asked within 20 to 21, of 0 to 60"
    )
    assert judge(policy(), defined(plan=SUM_OF_STAYS)) == ()


@pytest.mark.parametrize(("low", "high"), [(0, 59), (1, 60), (59, 60), (0, 1), (30, 31)])
@pytest.mark.parametrize("function", ["sum", "avg"])
def test_every_narrower_bound_is_a_threshold(low: int, high: int, function: Any) -> None:
    what = plan(where=None, group_by=(), aggregates=(Aggregate(function=function, column="stay", alias="s"),))
    asked = defined(STAY.model_copy(update={"low": low, "high": high}), plan=what)
    assert codes(policy(), asked) == [("COLUMN_ROLE", "stay.narrow")]


def test_a_count_of_clamped_persons_is_no_way_round() -> None:
    what = SUM_OF_STAYS.model_copy(update={"counts_cut": True})
    asked = defined(STAY.model_copy(update={"low": 0, "high": 20}), plan=what)
    assert codes(policy(), asked) == [("COLUMN_ROLE", "stay.narrow")]


@pytest.mark.parametrize(
    "opened",
    [
        Edit(STAYS, 'roles = ["measure", "filter"], bounds = [0, 60]'),
        Edit(STAYS, 'roles = ["measure"], narrow = true, bounds = [0, 60]'),
    ],
    ids=["filter", "narrow"],
)
def test_who_may_filter_may_narrow(opened: Edit) -> None:
    asked = defined(STAY.model_copy(update={"low": 20, "high": 21}), plan=SUM_OF_STAYS)
    assert judge(policy(opened), asked) == ()


def test_narrow_opens_no_condition() -> None:
    by = policy(Edit(STAYS, 'roles = ["measure"], narrow = true, bounds = [0, 60]'))
    asked = request(plan=grouped(where=Compare(column="stay", op=">", value="20")))
    assert codes(by, asked) == [("COLUMN_ROLE", "stay.roles")]


def test_a_dimension_is_not_merged_to_two_groups() -> None:
    by = policy(Edit(WARDS, '"internal", roles = ["dimension"]'))
    few = WARD.model_copy(update={"domain": ("surgery", "unknown")})
    (denial,) = judge(by, defined(few, plan=grouped("ward")))
    assert (denial.code, denial.rule) == ("COLUMN_ROLE", "sources.visits.columns.ward.narrow")
    assert "asked by 2 of its 3 values" in denial.message
    assert codes(by, defined(WARD.model_copy(update={"domain": ("unknown",)}), plan=grouped("ward"))) == [
        ("COLUMN_ROLE", "ward.narrow")
    ]
    turned = WARD.model_copy(update={"domain": tuple(reversed(WARD.domain))})
    assert judge(by, defined(turned, plan=grouped("ward"))) == (), "another order merges nothing"


def test_a_shorter_domain_does_not_slip_below_the_most_groups() -> None:
    by = policy(
        Edit(WARDS, '"internal", roles = ["dimension"]'),
        Edit(GRADES, '"sensitive", roles = ["dimension"]'),
        Edit("max_groups     = 12", "max_groups     = 11"),
    )
    assert codes(by, defined(plan=grouped("ward", "grade"))) == [("MAX_GROUPS", "disclosure.max_groups")]
    few = GRADE.model_copy(update={"domain": ("-1", "0")})
    assert codes(by, defined(few, plan=grouped("ward", "grade"))) == [("COLUMN_ROLE", "grade.narrow")]


def test_a_column_that_is_not_used_may_be_defined_in_any_way() -> None:
    assert judge(policy(), defined(STAY.model_copy(update={"low": 20, "high": 21}), plan=grouped("ward"))) == ()


def month_of(by: Policy, at: int) -> TableColumn:
    source = by.sources["visits"]
    return published("month", source.columns["month"], source, at)


@pytest.mark.parametrize("chosen", [slice(12, None), slice(0, 5), slice(3, 4), slice(0, 0)])
def test_a_date_is_asked_by_all_its_periods(chosen: slice) -> None:
    by = policy(*DATED)
    whole = month_of(by, CREATED_AT)
    assert judge(by, defined(whole, plan=grouped("month"))) == ()
    assert isinstance(whole.domain, tuple)
    few = whole.model_copy(update={"domain": (*whole.domain[:-1][chosen], "unknown")})
    (denial,) = judge(by, defined(few, plan=grouped("month")))
    assert (denial.code, denial.rule) == ("COLUMN_ROLE", "sources.visits.columns.month.narrow")
    assert f"by {len(few.domain)} of its " in denial.message
    opened = policy(
        *DATED,
        Edit(
            '"internal", roles = ["dimension"], granularity', '"internal", roles = ["dimension", "filter"], granularity'
        ),
    )
    assert judge(opened, defined(few, plan=grouped("month"))) == ()


@pytest.mark.parametrize("days", [0, 1, 29])
def test_a_request_may_name_the_periods_of_the_day_on_which_its_analyst_was_told(days: int) -> None:
    by = policy(*DATED)
    told = month_of(by, CREATED_AT - days * DAY_S)
    assert judge(by, defined(told, plan=grouped("month"))) == ()


DAYS = [Edit(one.old, one.new.replace("month", "day")) for one in DATED]


@pytest.mark.parametrize("lookback_days", [20, 31, 40, 550])
@pytest.mark.parametrize(
    "chosen",
    [slice(-1, None), slice(0, 0), slice(0, -10), slice(0, None, 2), slice(5, None)],
    ids=["one day", "no day", "all but the last days", "every other day", "all but the first days"],
)
def test_of_the_days_that_a_request_travels_none_is_chosen(lookback_days: int, chosen: slice) -> None:
    """Hope: of a calendar of a month, whose periods all begin while a request may travel, one day is asked alone."""
    more = (Edit("lookback_days = 800", f"lookback_days = {lookback_days}"), Edit("groups     = 60", "groups = 600"))
    by = policy(*DAYS, *more)
    source = by.sources["visits"]
    for told_at in (CREATED_AT, CREATED_AT - 20 * DAY_S):
        whole = published("day", source.columns["day"], source, told_at)
        assert isinstance(whole.domain, tuple)
        assert judge(by, defined(whole, plan=grouped("day"))) == ()
        about_midnight = whole.model_copy(update={"domain": whole.domain[1:]})
        assert judge(by, defined(about_midnight, plan=grouped("day"))) == (), "what two silos read about midnight"
    few = whole.model_copy(update={"domain": (*whole.domain[:-1][chosen], "unknown")})
    assert codes(by, defined(few, plan=grouped("day"))) == [("COLUMN_ROLE", "day.narrow")]


def trained(*more: tuple[str, str]) -> str:
    """Return a policy that opens a job: of `smoker`, from `stay` and `ward`."""
    text = (
        POLICY.replace('computations = ["query"]', 'computations = ["query", "logistic-regression"]')
        .replace(STAYS, 'roles = ["feature"], bounds = [0, 60]')
        .replace(WARDS, '"internal", roles = ["feature"]')
        .replace('"sensitive", roles = ["measure", "filter"]', '"sensitive", roles = ["label"]')
        + "\n[training]\nmax_rounds = 5\nclip_norm = 10\nmax_rho_per_run = 0.5\n"
    )  # fmt: skip
    for old, new in more:
        assert old in text
        text = text.replace(old, new)
    return text


def job(*changed: TableColumn, features: tuple[str, ...] = ("stay", "ward")) -> Request:
    """Return the first step of that job."""
    step = LogisticStep(
        run=bytes(16), step=0, steps=5, after=START, release="private", label="smoker", features=features,
        learning_rate="1", clip="1",
    )  # fmt: skip
    silos = request().silos
    recipients = tuple(request().recipients[0].model_copy(update={"name": silo}) for silo in silos)
    return defined(*changed, plan=step, recipients=recipients)


def test_a_feature_is_not_narrowed_by_a_job() -> None:
    text, asked = trained(), job
    by = parse(text.encode(), "policy.toml")
    assert codes(by, asked()) == []
    assert codes(by, asked(STAY.model_copy(update={"low": 20, "high": 21}))) == [("COLUMN_ROLE", "stay.narrow")]
    merged = WARD.model_copy(update={"domain": ("surgery", "unknown")})
    assert codes(by, asked(merged)) == [("COLUMN_ROLE", "ward.narrow")]
    opened = parse(text.replace("bounds = [0, 60]", "bounds = [0, 60], narrow = true").encode(), "policy.toml")
    assert codes(opened, asked(STAY.model_copy(update={"low": 20, "high": 21}))) == []


@pytest.mark.parametrize("rows", [1, 3])
def test_two_questions_by_different_rows_do_not_tell_who_has_more(rows: int) -> None:
    (denial,) = judge(policy(), request(table=table(max_rows=rows)))
    assert (denial.code, denial.remedy) == ("MAX_ROWS", "ask with max_rows = 2")


ALONE = policy(Edit("unknown = -1 }", "unknown = -1, sole_dimension = true }"))


@pytest.mark.parametrize(
    ("what", "with_whom"),
    [
        (grouped("grade", "ward"), "ward"),
        (grouped("grade", where=Compare(column="ward", op="=", value="surgery")), "ward"),
        (grouped("grade", where=Not(operand=OneOf(column="region", values=("x",)))), "region"),
        (grouped("grade", where=IsNull(column="age")), "age"),
        (grouped("ward", where=Compare(column="grade", op="=", value="2")), "ward"),
        (grouped(where=Both(operands=(OneOf(column="grade", values=("2",)),
                                      Compare(column="age", op=">", value="64")))), "age"),
    ],
    ids=["grouped", "by a condition", "by its opposite", "by a missing cell", "as a condition", "in two conditions"],
)  # fmt: skip
def test_a_sole_dimension_is_crossed_by_no_clause(what: Plan, with_whom: str) -> None:
    (denial,) = judge(ALONE, request(plan=what))
    assert (denial.code, denial.rule) == ("SOLE_DIMENSION", "sources.visits.columns.grade.sole_dimension")
    assert denial.message == f"column 'grade' may be grouped by alone only, and is crossed with {with_whom}"


def test_a_sole_dimension_is_not_crossed_by_a_narrow_measure() -> None:
    what = plan(where=None, group_by=("grade",), aggregates=(Aggregate(function="sum", column="age", alias="s"),))
    assert judge(ALONE, request(plan=what)) == ()
    above = AGE.model_copy(update={"low": 64, "high": 65})
    assert codes(ALONE, defined(above, plan=what)) == [("SOLE_DIMENSION", "grade.sole_dimension")]


def test_a_sole_dimension_is_not_crossed_as_a_measure() -> None:
    edits = Edit(
        'smoker = { type = "bool", class = "sensitive", roles = ["measure", "filter"] }',
        'smoker = { type = "bool", class = "sensitive", roles = ["measure", "dimension"], sole_dimension = true }',
    )
    by = policy(edits)
    smoker = published("smoker", by.sources["visits"].columns["smoker"], by.sources["visits"], 0)
    summed = (Aggregate(function="sum", column="smoker", alias="s"),)
    crossed = defined(smoker, plan=plan(where=None, group_by=("ward",), aggregates=summed))
    assert codes(by, crossed) == [("SOLE_DIMENSION", "smoker.sole_dimension")]
    assert judge(by, defined(smoker, plan=plan(where=None, group_by=(), aggregates=summed))) == ()
    assert judge(by, defined(smoker, plan=grouped("smoker"))) == ()


WARD_ALONE = (
    'class = "internal", roles = ["feature"], domain',
    'class = "internal", sole_dimension = true, roles = ["dimension", "feature"], domain',
)
SMOKER_ALONE = ('"sensitive", roles = ["label"]', '"sensitive", sole_dimension = true, roles = ["dimension", "label"]')


@pytest.mark.parametrize(
    ("alone", "features", "column", "with_whom"),
    [
        (WARD_ALONE, ("stay", "ward"), "ward", "smoker, stay"),
        (WARD_ALONE, ("ward",), "ward", "smoker"),
        (SMOKER_ALONE, ("ward",), "smoker", "ward"),
    ],
    ids=["as one of the features", "as the only feature", "as the label"],
)
def test_a_sole_dimension_is_crossed_by_no_job(
    alone: tuple[str, str], features: tuple[str, ...], column: str, with_whom: str
) -> None:
    assert codes(parse(trained().encode(), "policy.toml"), job(features=features)) == []
    by = parse(trained(alone).encode(), "policy.toml")
    visits = by.sources["visits"]
    defined_as = (published(name, visits.columns[name], visits, 0) for name in (*features, "smoker"))
    (denial,) = judge(by, job(*defined_as, features=features))
    assert (denial.code, denial.rule) == ("SOLE_DIMENSION", f"sources.visits.columns.{column}.sole_dimension")
    assert denial.message == f"column {column!r} may be grouped by alone only, and is crossed with {with_whom}"
    (warned,) = [one for one in warnings(by) if one.path[-1] == "sole_dimension"]
    assert warned.path[-2] == column
    assert "no job can use it" in warned.text


def test_a_sole_dimension_alone_may_be_a_condition() -> None:
    assert judge(ALONE, request(plan=grouped(where=OneOf(column="grade", values=("1", "2"))))) == ()
    assert judge(ALONE, request(plan=grouped("grade", where=OneOf(column="grade", values=("1", "2"))))) == ()


NUMBERS = st.integers(-5, 65)


@settings(max_examples=200, deadline=None)
@given(low=NUMBERS, width=st.integers(1, 70), step=st.sampled_from(["1", "2", "0.5"]), missing=st.booleans())
def test_a_measure_is_answered_by_the_policys_own_bounds_alone(low: int, width: int, step: str, missing: bool) -> None:
    changed = TableColumn(name="stay", type="int", low=low, high=low + width, step=step, can_be_missing=missing)
    is_allowed = not judge(policy(), defined(changed, plan=SUM_OF_STAYS))
    assert is_allowed == (changed == STAY)


@settings(max_examples=200, deadline=None)
@given(domain=st.lists(st.sampled_from([*WARD.domain, "cellar"]), min_size=1, unique=True), unknown=st.integers(0, 3))
def test_a_dimension_is_answered_by_the_policys_own_values_alone(domain: list[str], unknown: int) -> None:
    by = policy(Edit(WARDS, '"internal", roles = ["dimension"]'))
    changed = TableColumn(
        name="ward", type="string", domain=tuple(domain), unknown=domain[min(unknown, len(domain) - 1)]
    )
    is_allowed = not judge(by, defined(changed, plan=grouped("ward")))
    assert is_allowed == (set(domain) == set(WARD.domain) and changed.unknown == "unknown")


def test_the_one_function_names_each_threshold_once() -> None:
    by = policy()
    asked = defined(
        STAY.model_copy(update={"low": 20, "high": 21}),
        AGE.model_copy(update={"low": 64}),
        plan=plan(aggregates=tuple(
            Aggregate(function="sum", column=name, alias=name) for name in ("stay", "age")
        ), group_by=()),
    )  # fmt: skip
    found = thresholds_of(asked, facts_of(asked, 2), compiled(by).sources["visits"])
    assert found == {"stay": "within 20 to 21, of 0 to 60", "age": "within 64 to 110, of 0 to 110"}
    assert codes(by, asked) == [("COLUMN_ROLE", "stay.narrow")], "an age may be filtered by"


def test_a_policy_that_narrows_a_measure_asks_what_it_refused_before_so_it_loosens() -> None:
    def effect(*edits: Edit) -> list[str]:
        before = edits[0] if len(edits) > 1 else None
        old = policy(*([before] if before else []))
        return [change.effect for change in compare(old, policy(*edits))]

    assert effect(Edit(STAYS, 'roles = ["measure"], bounds = [20, 21]')) == ["loosens"]
    assert effect(Edit("bounds = [0, 110]", "bounds = [18, 90]")) == ["tightens"], "whoever may filter loses by it"
    assert effect(Edit(STAYS, 'roles = ["measure"], narrow = true, bounds = [0, 60]')) == ["loosens"]


def test_narrow_is_for_what_can_be_narrowed() -> None:
    with pytest.raises(PolicyFileError, match="narrow is for a measure, a dimension or a feature"):
        policy(Edit('"internal", roles = ["filter"]', '"internal", roles = ["filter"], narrow = true'))


def test_periods_that_are_all_the_policys_are_said_to_be_its_own() -> None:
    by = policy(*DATED)
    whole = month_of(by, CREATED_AT - 20 * DAY_S)
    asked = defined(whole, plan=grouped("month"))
    assert dict(in_words(by, asked, 0))["column month"].endswith("as the policy defines it")
    few = whole.model_copy(update={"domain": (*whole.domain[-4:-1], "unknown")})
    assert (
        "; the policy has: date, one of 29 values from"
        in dict(in_words(by, defined(few, plan=grouped("month")), 0))["column month"]
    )


def test_two_calendars_are_not_both_said_to_be_the_policys_own() -> None:
    """Hope: of two requests with calendars of one beginning and length the words are the same, and so one is read."""
    by = policy(*DATED)
    told, older = month_of(by, CREATED_AT).domain, month_of(by, CREATED_AT - 29 * DAY_S).domain
    assert isinstance(told, tuple)
    assert isinstance(older, tuple)
    whole = (*(one for one in older if one not in told), *told)
    turned = (told[0], *reversed(told[1:-1]), told[-1])
    first, *rest = whole
    said = set()
    for domain in (told, turned, whole, (first, *rest[1:-2], rest[0], *rest[-2:])):
        asked = defined(month_of(by, CREATED_AT).model_copy(update={"domain": domain}), plan=grouped("month"))
        assert judge(by, asked) == ()
        said.add(dict(in_words(by, asked, 0))["column month"])
    assert len(said) == 4
    assert sum(one.endswith("as the policy defines it") for one in said) == 2, "of those in their order"


@pytest.mark.parametrize("size", [1001, 1_000_000])
def test_a_long_domain_whose_values_nobody_has_is_refused_and_ends_no_step(size: int) -> None:
    """It was asked for its values, which failed the step at every silo."""
    strange = WARD.model_copy(update={"domain": LongDomain(bytes(32), size)})
    asked = defined(strange, plan=grouped("ward"))
    found = judge(policy(Edit("max_groups     = 12", "max_groups     = 1000000")), asked)
    assert ("DEFINITION", "sources.visits.columns.ward.domain") in [(one.code, one.rule) for one in found]
    assert "one of 1" in dict(in_words(policy(), asked, 0))["column ward"]


def test_a_shorter_calendar_of_a_dimension_loosens() -> None:
    def effect(*more: Edit) -> list[str]:
        old = policy(*DATED, *more)
        shorter = Edit(DATED[1].new, DATED[1].new.replace("800", "80"))
        return [change.effect for change in compare(old, policy(*DATED, *more, shorter))]

    assert effect() == ["loosens"]
    assert effect(Edit('roles = ["dimension"], granularity', 'roles = ["filter"], granularity')) == ["tightens"]
