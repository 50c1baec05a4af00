"""Each denial has one smallest cause, names its rule and a remedy, and closing a policy never opens it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crypto.rounds.manifest import Recipient
from crypto.sealing import PUBLIC_BYTES
from policies.budget.ledger import Spending
from policies.decision.decide import decide
from policies.decision.denial_codes import CLOCK_SKEW_S
from policies.document.catalogue import open_tables
from policies.document.columns import Column
from policies.document.policy import Policy
from policies.requests.denials import Denial
from policies.requests.predicates import Compare, OneOf
from policies.requests.query import Aggregate
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from tests.cases import every
from tests.harness.example_policy import (
    AGE,
    COLUMNS,
    COST,
    CREATED_AT,
    NOW,
    REGION,
    SMOKER,
    WARD,
    Edit,
    plan,
    policy,
    request,
    table,
)

VISITS = "sources.visits.columns"
LIFETIME = 1_000_000
OPEN = policy()
KEY_BYTES = bytes(PUBLIC_BYTES)


def judge(
    judging: Policy | None = None, asked: Request | None = None, spent: int = 0, now: int = NOW
) -> tuple[Denial, ...]:
    """Return the denials of an example, each part of which may be replaced."""
    return decide(judging or policy(), asked or request(), bytes(32), Spending(spent), now)


def with_column(changed: TableColumn) -> Request:
    """Return the request with one column defined otherwise, and used by the plan."""
    columns = tuple(changed if column.name == changed.name else column for column in COLUMNS)
    where = None
    group_by: tuple[str, ...] = ()
    aggregates = [Aggregate(function="count", column=None, alias="n")]
    if changed.domain:
        group_by = (changed.name,)
    elif changed.low is not None:
        aggregates.append(Aggregate(function="sum", column=changed.name, alias="total"))
    else:
        where = Compare(column=changed.name, op="=", value="0")
    return request(
        table=table(columns=columns), plan=plan(where=where, group_by=group_by, aggregates=tuple(aggregates))
    )


def aggregates(*columns: str) -> tuple[Aggregate, ...]:
    """Return one sum per column."""
    return tuple(Aggregate(function="sum", column=column, alias=f"total_{column}") for column in columns)


@dataclass(frozen=True)
class Case:
    """One change of the allowed question, and the one denial it must bring."""

    title: str
    code: str
    rule: str
    says: str
    edits: tuple[Edit, ...] = ()
    asked: dict[str, Any] = field(default_factory=dict)
    request: Callable[[], Request] | None = None
    spent: int = 0
    now: int = NOW


CASES = [
    Case("policy over", "POLICY_EXPIRED", "policy.valid_until", "not valid today",
         (Edit("valid_until = 2036-01-01", "valid_until = 2027-01-01"),)),
    Case("policy not begun", "POLICY_EXPIRED", "policy.valid_until", "not valid today",
         (Edit("valid_from  = 2026-01-01", "valid_from  = 2027-06-01"),)),
    Case("request over", "REQUEST_EXPIRED", "request.expires_at", "not valid now", now=CREATED_AT + 600),
    Case("request of the future", "REQUEST_EXPIRED", "request.expires_at", "not valid now",
         now=CREATED_AT - CLOCK_SKEW_S - 1),
    Case("other analyst", "ANALYST_UNKNOWN", "analysts", "'eve' is not an analyst", asked={"analyst": "eve"}),
    Case("analyst until yesterday", "ANALYST_UNKNOWN", "analysts", "'ana' is not an analyst",
         (Edit("until    = 2036-01-01", "until    = 2027-01-14"),)),
    Case("unknown purpose", "PURPOSE_CLOSED", "analysts.ana.purposes", "'marketing'", asked={"purpose": "marketing"}),
    Case("purpose of others", "PURPOSE_CLOSED", "analysts.ana.purposes", "'health-research'",
         (Edit('["health-research", "billing"]', '["billing"]'),)),
    Case("other recipient", "RECIPIENT_CLOSED", "analysts.ana", "nobody but the analyst who asks",
         asked={"recipients": (Recipient(name="bo", key=KEY_BYTES),)}),
    Case("two recipients", "RECIPIENT_CLOSED", "analysts.ana", "nobody but the analyst who asks",
         asked={"recipients": (Recipient(name="ana", key=KEY_BYTES), Recipient(name="bo", key=KEY_BYTES))}),
    Case("no queries for the purpose", "COMPUTATION_CLOSED", "purposes.billing.computations", "not open",
         asked={"purpose": "billing"}),
    Case("other table", "TABLE_UNKNOWN", "sources", "'visit'", asked={"table": table(name="visit")}),
    Case("column that is not there", "COLUMN_CLOSED", VISITS, "no column 'mood'",
         asked={"table": table(columns=(*COLUMNS, TableColumn(name="mood", type="string"))),
                "plan": plan(where=Compare(column="mood", op="=", value="x"))}),
    Case("column without role", "COLUMN_CLOSED", VISITS, "no column 'diary'",
         asked={"table": table(columns=(*COLUMNS, TableColumn(name="diary", type="string"))),
                "plan": plan(where=Compare(column="diary", op="=", value="x"))}),
    Case("identifier", "COLUMN_CLOSED", VISITS, "no column 'patient_id'",
         asked={"table": table(columns=(*COLUMNS, TableColumn(name="patient_id", type="string"))),
                "plan": plan(where=OneOf(column="patient_id", values=("p1",)))}),
    Case("measure as filter", "COLUMN_ROLE", f"{VISITS}.stay.roles", "may be used as measure, not as filter",
         asked={"plan": plan(where=Compare(column="stay", op="=", value="3"))}),
    Case("filter as measure", "COLUMN_ROLE", f"{VISITS}.age.roles", "may be used as filter, not as measure",
         (Edit('roles = ["measure", "filter"], bounds = [0, 110]', 'roles = ["filter"], bounds = [0, 110]'),)),
    Case("dimension as filter only", "COLUMN_ROLE", f"{VISITS}.ward.roles", "not as dimension",
         (Edit('roles = ["dimension", "filter"]', 'roles = ["filter"]'),)),
    Case("dimension as measure", "COLUMN_ROLE", f"{VISITS}.grade.roles", "not as measure",
         (Edit('roles = ["dimension", "filter"], domain = [-1, 0, 1, 2], unknown = -1',
               'roles = ["dimension", "filter"], domain = [-1, 0, 1, 2], unknown = -1, bounds = [0, 2]'),),
         request=lambda: request(
             table=table(columns=(TableColumn(name="grade", type="int", low=0, high=2, step="1", unknown="-1",
                                              domain=("-1", "0", "1", "2")),)),
             plan=plan(where=None, group_by=(), aggregates=aggregates("grade")))),
    Case("other type", "DEFINITION", f"{VISITS}.region.type", "asked as int, it is string",
         request=lambda: with_column(REGION.model_copy(update={"type": "int"}))),
    Case("finer step", "DEFINITION", f"{VISITS}.cost.step", "asked in steps of 0.001, it has 0.01",
         request=lambda: with_column(COST.model_copy(update={"step": "0.001"}))),
    Case("lower bound", "DEFINITION", f"{VISITS}.age.bounds", "wider bounds",
         request=lambda: with_column(AGE.model_copy(update={"low": -1}))),
    Case("higher bound", "DEFINITION", f"{VISITS}.age.bounds", "wider bounds",
         request=lambda: with_column(AGE.model_copy(update={"high": 111}))),
    Case("wider domain", "DEFINITION", f"{VISITS}.ward.domain", "values that the policy's domain lacks",
         request=lambda: with_column(WARD.model_copy(update={"domain": (*WARD.domain, "cellar")}))),
    Case("other unknown", "DEFINITION", f"{VISITS}.ward.unknown", "asked with 'surgery' for missing values",
         request=lambda: with_column(WARD.model_copy(update={"unknown": "surgery"}))),
    Case("never missing", "DEFINITION", f"{VISITS}.age.can_be_missing", "a cell can be missing here",
         request=lambda: with_column(AGE.model_copy(update={"can_be_missing": False}))),
    Case("more rows", "MAX_ROWS", "privacy_unit.max_rows", "3 rows of one patient asked, up to 2 enter",
         asked={"table": table(max_rows=3)}),
    Case("fewer rows", "MAX_ROWS", "privacy_unit.max_rows", "1 row of one patient asked, up to 2 enter",
         asked={"table": table(max_rows=1)}),
    Case("a norm where the policy has none", "MAX_NORM", "privacy_unit.max_norm",
         "max_norm = 1 for the rows of one patient asked, the policy has no max_norm",
         asked={"table": table(max_norm=1)}),
    Case("no norm", "MAX_NORM", "privacy_unit.max_norm",
         "no max_norm for the rows of one patient asked, the policy has max_norm = 1",
         (Edit("max_rows  = 2", "max_rows  = 2\nmax_norm = 1"),)),
    Case("a smaller norm", "MAX_NORM", "privacy_unit.max_norm",
         "max_norm = 1 for the rows of one patient asked, the policy has max_norm = 2",
         (Edit("max_rows  = 2", "max_rows  = 3\nmax_norm = 2"),), asked={"table": table(max_rows=3, max_norm=1)}),
    Case("a larger norm", "MAX_NORM", "privacy_unit.max_norm",
         "max_norm = 2 for the rows of one patient asked, the policy has max_norm = 1",
         (Edit("max_rows  = 2", "max_rows  = 3\nmax_norm = 1"),), asked={"table": table(max_rows=3, max_norm=2)}),
    Case("fewer silos assumed", "MAX_SILOS", "privacy_unit.max_silos", "known to 2 silos, the request assumes 1",
         asked={"table": table(max_silos=1), "micro_rho": 2_000}),
    Case("aggregate", "AGGREGATE", "disclosure.aggregates", "AVG is not allowed",
         (Edit('["count", "sum", "avg"]', '["count", "sum"]'),)),
    Case("dimensions", "MAX_DIMENSIONS", "disclosure.max_dimensions", "2 dimensions, at most 1",
         (Edit("max_dimensions = 2", "max_dimensions = 1"),), asked={"plan": plan(group_by=("ward", "grade"))}),
    Case("groups", "MAX_GROUPS", "disclosure.max_groups", "12 groups, at most 11",
         (Edit("max_groups     = 12", "max_groups     = 11"),), asked={"plan": plan(group_by=("ward", "grade"))}),
    Case("backend", "BACKEND", "protection.accept", "masking is not accepted",
         (Edit('accept        = ["masking"]', "accept        = []"),)),
    Case("too few silos for the quorum", "ROSTER", "disclosure.min_silos", "silos",
         asked={"silos": ("east", "north")}),
    Case("too few silos for the policy", "ROSTER", "disclosure.min_silos", "at least 5 must",
         (Edit("min_silos      = 3", "min_silos      = 5"),)),
    Case("too many colluders", "ROSTER", "disclosure.min_silos", "colluding",
         (Edit("max_colluding = 1", "max_colluding = 2"),)),
    Case("too many missing", "ROSTER", "disclosure.min_silos", "cannot lose 2",
         (Edit("max_missing   = 1", "max_missing   = 2"),)),
    Case("without whom it takes no part", "ROSTER", "protection.must_include", "no part without elm",
         (Edit("max_colluding = 1", 'max_colluding = 1\nmust_include = ["east", "elm"]'),)),
    Case("all noise", "RHO_TOO_SMALL", "budget.per_request.min_rho", "costs rho 0.000999, less than 0.001",
         asked={"micro_rho": 999}),
    # A thousand times the price on paper: what it costs here, where fewer silos know a person, is a thousandth of it.
    Case("cheap, whatever price is signed", "RHO_TOO_SMALL", "budget.per_request.min_rho", "costs rho 4e-05, less",
         asked={"micro_rho": 99_999, "table": table(max_silos=100)}),
    Case("too dear", "RHO_PER_REQUEST", "budget.per_request.max_rho", "one request may cost 0.1",
         asked={"micro_rho": 100_002}),
    Case("spent", "BUDGET_LIFETIME", "budget.lifetime.rho", "does not cover this request", spent=LIFETIME - 9_999),
]  # fmt: skip


def test_the_allowed_request_is_allowed() -> None:
    assert judge() == ()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_smallest_change_brings_exactly_its_denial(case: Case) -> None:
    asked = case.request() if case.request is not None else request(**case.asked)
    denials = judge(policy(*case.edits), asked, case.spent, case.now)
    assert [(denial.code, denial.rule) for denial in denials] == [(case.code, case.rule)]
    assert case.says in denials[0].message
    assert denials[0].remedy


@pytest.mark.parametrize(
    ("asked", "spent", "now"),
    [
        (request(), 0, CREATED_AT - CLOCK_SKEW_S),
        (request(), 0, CREATED_AT + 599),
        (request(micro_rho=1_000), 0, NOW),
        (request(micro_rho=100_000), 0, NOW),
        (request(), LIFETIME - 10_000, NOW),
        (request(plan=plan(group_by=("ward", "grade"))), 0, NOW),
        (request(table=table(max_silos=3)), 0, NOW),
        (with_column(AGE.model_copy(update={"low": 1, "high": 109})), 0, NOW),
        (with_column(WARD.model_copy(update={"domain": ("surgery", "unknown")})), 0, NOW),
        (request(table=table(columns=(*COLUMNS, TableColumn(name="mood", type="string")))), 0, NOW),
    ],
    ids=[
        "clock behind",
        "last second",
        "least rho",
        "most rho",
        "all that is left",
        "two dimensions",
        "more silos",
        "narrower bounds",
        "smaller domain",
        "unknown column that is not used",
    ],
)
def test_what_lies_within_every_limit_is_allowed(asked: Request, spent: int, now: int) -> None:
    assert judge(asked=asked, spent=spent, now=now) == ()


def test_independent_reasons_come_together() -> None:
    asked = request(
        table=table(max_rows=3, name="visits"),
        plan=plan(where=Compare(column="stay", op="=", value="3")),
        silos=("north",),
        micro_rho=100_000_000,
    )
    codes = [denial.code for denial in judge(asked=asked)]
    assert codes == ["COLUMN_ROLE", "MAX_ROWS", "ROSTER", "RHO_PER_REQUEST", "BUDGET_LIFETIME"]


def test_whoever_may_not_ask_is_not_told_what_could_be_asked() -> None:
    asked = request(analyst="eve", table=table(name="visit"), silos=("north",))
    (denial,) = judge(asked=asked)
    assert denial.code == "ANALYST_UNKNOWN"
    told = denial.message + denial.remedy
    assert not any(name in told for name in ("visits", "health-research", *(column.name for column in COLUMNS)))


def test_remedies_never_name_a_closed_column() -> None:
    for case in CASES:
        asked = case.request() if case.request is not None else request(**case.asked)
        for denial in judge(policy(*case.edits), asked, case.spent, case.now):
            assert "diary" not in denial.remedy
            assert "patient_id" not in denial.remedy


@pytest.mark.parametrize("spent", [LIFETIME - 9_999, LIFETIME - 1, LIFETIME, 3 * LIFETIME, 987_654_321_012])
def test_denials_do_not_tell_what_others_spent(spent: int) -> None:
    assert judge(spent=spent) == judge(spent=LIFETIME - 9_998)


@settings(deadline=None)
@given(st.integers(0, LIFETIME))
def test_a_lifetime_holds_exactly_its_limit(spent: int) -> None:
    assert bool(judge(spent=spent)) == (spent + 10_000 > LIFETIME)


def test_the_silo_charges_its_own_assumption_of_silos() -> None:
    """A request that assumes more silos gets more noise, so it costs this silo less: a quarter at twice as many."""
    asked = request(table=table(max_silos=4), micro_rho=400_000)
    assert judge(asked=asked) == ()
    assert [one.code for one in judge(asked=request(micro_rho=400_000))] == ["RHO_PER_REQUEST"]


def test_open_tables_publish_what_has_a_role_and_nothing_else() -> None:
    (published,) = open_tables(policy())
    assert published.name == "visits"
    assert tuple(one.column for one in published.columns) == COLUMNS
    assert [one.roles for one in published.columns][:4] == [
        ("dimension", "filter"),
        ("dimension", "filter"),
        ("measure", "filter"),
        ("measure", "filter"),
    ]
    assert published.columns[2].unit == "year"


def test_a_step_is_published_in_plain_digits() -> None:
    stepped = policy(Edit("bounds = [-50, 5000], step = 0.01", "bounds = [0, 5000], step = 1e3"))
    (published,) = open_tables(stepped)
    (cost,) = [one.column for one in published.columns if one.column.name == "cost"]
    assert (cost.step, cost.low, cost.high) == ("1000", 0, 5)


class Closing(NamedTuple):
    """A change that closes something and opens nothing."""

    title: str
    apply: Callable[[Policy], Policy]


def close(path: str, value: Callable[[Any], Any]) -> Closing:
    """Return the closing that replaces what stands at a dotted path."""

    def replaced(node: Any, parts: list[str]) -> Any:
        if not parts:
            return value(node)
        if isinstance(node, dict):
            return {key: replaced(item, parts[1:]) if key == parts[0] else item for key, item in node.items()}
        return node.model_copy(update={parts[0]: replaced(getattr(node, parts[0]), parts[1:])})

    return Closing(path, lambda before: replaced(before, path.split(".")))


def without(name: object) -> Callable[[Any], Any]:
    def removed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if key != name}
        return tuple(item for item in value if item != name)

    return removed


def narrowed(column: Column) -> Column:
    low, high = column.bounds or (0, 0)
    return column.model_copy(update={"bounds": (low + 1, high - 1)})


CLOSINGS = [
    close("analysts", without("ana")),
    close("analysts.ana.purposes", without("health-research")),
    close("analysts.ana.until", lambda until: until.replace(year=2027, month=1, day=1)),
    close("policy.valid_until", lambda until: until.replace(year=2027, month=1, day=1)),
    close("purposes.health-research.computations", without("query")),
    close("sources.visits.columns", without("ward")),
    close("sources.visits.columns.ward.roles", without("dimension")),
    close("sources.visits.columns.ward.roles", without("filter")),
    close("sources.visits.columns.ward.domain", without("surgery")),
    close("sources.visits.columns.grade.domain", without(2)),
    close("sources.visits.columns.smoker.roles", without("filter")),
    close("sources.visits.columns.age.roles", without("measure")),
    close("sources.visits.columns.age", narrowed),
    close("disclosure.aggregates", without("avg")),
    close("disclosure.aggregates", without("count")),
    close("disclosure.max_dimensions", lambda most: most - 1),
    close("disclosure.max_groups", lambda most: most // 2),
    close("disclosure.min_silos", lambda least: least + 2),
    close("protection.accept", without("masking")),
    close("protection.max_colluding", lambda borne: borne + 1),
    close("protection.max_missing", lambda borne: borne + 1),
    close("privacy_unit.max_rows", lambda most: most - 1),
    close("privacy_unit.max_norm", lambda most: 1),
    close("privacy_unit.max_silos", lambda known: known + 1),
    close("budget.lifetime.rho", lambda rho: rho / 2),
    close("budget.per_request.max_rho", lambda rho: rho / 2),
    close("budget.per_request.min_rho", lambda rho: rho * 2),
]

BORDERLINE = st.fixed_dictionaries(
    {
        "analyst": st.sampled_from(["ana", "ana", "ana", "eve"]),
        "purpose": st.sampled_from(["health-research", "health-research", "billing"]),
        "micro_rho": st.sampled_from([999, 1_000, 1_999, 2_000, 10_000, 50_000, 50_002, 100_000, 100_002]),
        "silos": st.sampled_from([2, 3, 4, 5, 7]).map(lambda count: tuple(f"s{index}" for index in range(count))),
        "table": st.builds(
            table, max_rows=st.sampled_from([2, 2, 3]), max_norm=st.sampled_from([None, None, 1]),
            max_silos=st.sampled_from([1, 2, 2, 3]),
            columns=st.sampled_from([
                COLUMNS,
                tuple(AGE.model_copy(update={"low": 1, "high": 109}) if one is AGE else one for one in COLUMNS),
                tuple(WARD.model_copy(update={"domain": ("unknown", "medicine")}) if one is WARD else one
                      for one in COLUMNS),
                tuple(SMOKER.model_copy(update={"type": "bool", "low": None, "high": None, "step": None})
                      if one is SMOKER else one for one in COLUMNS),
            ]),
        ),
        "plan": st.builds(
            plan,
            where=st.sampled_from([
                None,
                Compare(column="smoker", op="=", value="true"),
                Compare(column="ward", op="=", value="surgery"),
                Compare(column="stay", op=">", value="3"),
            ]),
            group_by=st.sampled_from([(), ("ward",), ("grade",), ("ward", "grade")]),
            aggregates=st.sampled_from([
                (Aggregate(function="count", column=None, alias="n"),),
                aggregates("age"),
                aggregates("stay"),
                (Aggregate(function="avg", column="age", alias="mean"),),
            ]),
        ),
    }
)  # fmt: skip


@pytest.mark.parametrize("closing", CLOSINGS, ids=lambda closing: closing.title)
@settings(max_examples=40, deadline=None)
@given(changes=BORDERLINE, spent=st.sampled_from([0, LIFETIME // 2, LIFETIME - 10_000, LIFETIME - 1]))
@example(changes={}, spent=LIFETIME // 2)
def test_closing_never_allows_what_was_refused(closing: Closing, changes: dict[str, Any], spent: int) -> None:
    asked, closed = request(**changes), closing.apply(OPEN)
    before, after = judge(OPEN, as_defined_by(OPEN, closed, asked), spent), judge(closed, asked, spent)
    if closing.title == "privacy_unit.max_silos":  # it makes a request dearer: one that cost too little costs enough
        before = tuple(denial for denial in before if denial.code != "RHO_TOO_SMALL")
    assert after or not before


def as_defined_by(older: Policy, newer: Policy, asked: Request) -> Request:
    """Return the same question by the rows of a person that the older version defines."""
    unit, table = older.privacy_unit, asked.table
    if (table.max_rows, table.max_norm) != (newer.privacy_unit.max_rows, newer.privacy_unit.max_norm):
        return asked
    defined = table.model_copy(update={"max_rows": unit.max_rows, "max_norm": unit.max_norm})
    return asked.model_copy(update={"table": defined})


@every(
    ("closing", "code"),
    [
        (CLOSINGS[0], "ANALYST_UNKNOWN"),
        (CLOSINGS[1], "PURPOSE_CLOSED"),
        (CLOSINGS[2], "ANALYST_UNKNOWN"),
        (CLOSINGS[3], "POLICY_EXPIRED"),
        (CLOSINGS[4], "COMPUTATION_CLOSED"),
        (CLOSINGS[5], "COLUMN_CLOSED"),
        (CLOSINGS[6], "COLUMN_ROLE"),
        (CLOSINGS[8], "DEFINITION"),
        (CLOSINGS[10], "COLUMN_ROLE"),
        (CLOSINGS[11], "COLUMN_ROLE"),
        (CLOSINGS[12], "DEFINITION"),
        (CLOSINGS[13], "AGGREGATE"),
        (CLOSINGS[14], "AGGREGATE"),
        (CLOSINGS[18], "BACKEND"),
        (CLOSINGS[19], "ROSTER"),
        (CLOSINGS[20], "ROSTER"),
        (CLOSINGS[21], "MAX_ROWS"),
        (CLOSINGS[22], "MAX_NORM"),
        (CLOSINGS[23], "MAX_SILOS"),
    ],
)
def test_closing_what_the_allowed_request_uses_refuses_it(closing: Closing, code: str) -> None:
    assert [denial.code for denial in judge(closing.apply(OPEN))] == [code]
