"""A join is judged by the policy's rules of all of its tables, and its words, time and price name them."""

from typing import Any

import pytest
from pydantic import ValidationError

from policies.budget.ledger import ALL_MONTHS, Spending
from policies.decision.budget_rules import months_of
from policies.decision.computing import declared_ms
from policies.decision.decide import decide
from policies.decision.shown import in_words
from policies.document.catalogue import open_tables
from policies.document.describe import worded_policy
from policies.document.diff import compare
from policies.document.policy import Policy
from policies.requests.predicates import Compare
from policies.requests.query import Aggregate
from policies.requests.request import Request
from policies.requests.statements import Statements
from policies.requests.tables import TableColumn
from tests.cases import every
from tests.harness.example_policy import AGE, NOW, WARD, Edit, plan, policy, request, table
from tests.silo_node.test_joins import JOINED, PATIENTS

COUNT = Aggregate(function="count", column=None, alias="n")
REGION = TableColumn(name="patients.region", type="string", domain=("north", "south", "?"), unknown="?")
BORN = TableColumn(name="patients.age", type="int", low=0, high=50, step="1")


def asked(*columns: TableColumn, beside: tuple[str, ...] = ("patients",), **fields: Any) -> Request:
    about = {"where": None, "group_by": ("patients.region",), "aggregates": (COUNT,)} | fields
    return request(table=table(columns=columns or (REGION,), beside=beside), plan=plan(**about))


def codes(by: Policy, question: Request) -> list[tuple[str, str]]:
    return [(one.code, one.rule) for one in decide(by, question, bytes(32), Spending(0), NOW)]


def changed(old: str, new: str) -> Policy:
    assert old in PATIENTS
    return policy(Edit("[purposes.health-research]", PATIENTS.replace(old, new, 1)))


def test_a_join_is_open_where_a_table_has_one_row_a_person() -> None:
    assert codes(policy(JOINED), asked()) == []
    insured = TableColumn(name="insured.plan", type="string", domain=("a", "b", "?"), unknown="?")
    of_both = {"beside": ("insured", "patients"), "group_by": ("insured.plan", "patients.region")}
    assert codes(policy(JOINED), asked(REGION, insured, **of_both)) == []
    closed = changed("one_row = true\n", "")
    assert codes(closed, asked()) == [("JOIN_CLOSED", "sources.patients.one_row")]
    assert codes(policy(), asked()) == [("TABLE_UNKNOWN", "sources")]
    prepared = changed("one_row = true\n", 'one_row = true\nread = "prepared"\n')
    assert ("JOIN_CLOSED", "sources.patients.read") in codes(prepared, asked())
    exact = changed("one_row = true\n", 'one_row = true\nrelease = "exact"\n')
    assert ("RELEASE", "sources.patients.release") in codes(exact, asked())


def test_a_column_of_a_joined_table_has_its_own_roles_bounds_and_domain() -> None:
    rule = "sources.patients.columns"
    only = changed('roles = ["dimension", "filter"]', 'roles = ["filter"]')
    assert codes(only, asked()) == [("COLUMN_ROLE", f"{rule}.region.roles")]
    alone = changed('unknown = "?" }', 'unknown = "?", sole_dimension = true }')
    older = Compare(column="age", op=">", value="3")
    assert codes(alone, asked(REGION, AGE, where=older)) == [("SOLE_DIMENSION", f"{rule}.region.sole_dimension")]
    wide = asked(REGION, BORN.model_copy(update={"high": 99}), aggregates=(
        COUNT, Aggregate(function="avg", column="patients.age", alias="a")))  # fmt: skip
    assert codes(policy(JOINED), wide) == [("DEFINITION", f"{rule}.age.bounds")]
    few = asked(REGION.model_copy(update={"domain": ("north", "?")}))
    merged = changed('roles = ["dimension", "filter"]', 'roles = ["dimension"]')
    assert codes(merged, few) == [("COLUMN_ROLE", f"{rule}.region.narrow")]
    closed = asked(TableColumn(name="patients.nothing", type="string", domain=("a", "?"), unknown="?"),
                   group_by=("patients.nothing",))  # fmt: skip
    assert codes(policy(JOINED), closed) == [("COLUMN_CLOSED", rule)]


def test_a_join_that_only_tells_who_has_a_row_is_closed() -> None:
    """Whoever is in a table has what its name says: that is a condition, whatever its columns are open for."""
    idle = asked(AGE, group_by=(), where=Compare(column="age", op=">", value="3"))
    assert codes(policy(JOINED), idle) == [("JOIN_CLOSED", "sources.patients.columns")]
    assert codes(policy(JOINED), asked(beside=("insured", "patients"))) == [("JOIN_CLOSED", "sources.insured.columns")]
    both = Statements.model_validate({"plans": (asked().plan, idle.plan)})
    several = codes(policy(JOINED), request(table=table(columns=(REGION, AGE), beside=("patients",)), plan=both))
    assert several == [("JOIN_CLOSED", "sources.patients.columns")]


def test_a_column_that_stands_alone_is_not_crossed_with_who_is_in_another_table() -> None:
    alone = policy(JOINED, Edit('ward   = { type = "string"', 'ward   = { sole_dimension = true, type = "string"'))
    born = Aggregate(function="avg", column="patients.age", alias="a")
    wards = asked(WARD, BORN, group_by=("ward",), aggregates=(COUNT, born))
    assert ("SOLE_DIMENSION", "sources.visits.columns.ward.sole_dimension") in codes(alone, wards)


def test_people_read_which_tables_are_joined() -> None:
    said = dict(in_words(policy(JOINED), asked(beside=("insured", "patients")), 0))
    assert said["asks"].startswith("COUNT(*) of visits joined by person with insured, patients by patients.region")
    assert said["column patients.region"].endswith("as the policy defines it")


def test_a_join_takes_as_long_as_the_rows_of_all_tables() -> None:
    compute = "[compute]\nfixed_seconds = 1\nrow_nanoseconds = 1000\n[budget]"
    rows = [Edit(f'uri  = "{name}.parquet"', f'uri  = "{name}.parquet"\nrows_up_to = {count}') for name, count in
            (("visits", 2**20), ("patients", 2**19), ("insured", 2**10))]  # fmt: skip
    by = policy(JOINED, Edit("[budget]", compute), *rows)
    alone, both = (declared_ms(by, asked(AGE, beside=(), group_by=())), declared_ms(by, asked(AGE, group_by=())))
    assert alone is not None
    assert both is not None
    assert both - 1000 == pytest.approx(1.5 * (alone - 1000), abs=50)


def test_owners_and_analysts_read_which_tables_can_be_joined() -> None:
    said = [line for _, lines in worded_policy(policy(JOINED)) for line in lines]
    assert "patients has one row of each person, which may stand beside the rows of other tables (JOIN)." in said
    assert {one.name: one.one_row for one in open_tables(policy(JOINED), NOW)} == {
        "visits": False, "patients": True, "insured": True,
    }  # fmt: skip


def test_a_person_beside_rows_is_of_no_month() -> None:
    assert months_of(policy(JOINED), asked(), NOW) == ALL_MONTHS


@every(
    "fields",
    [
        {"beside": ("visits",)},
        {"beside": ("patients", "patients")},
        {"beside": ("a", "b", "c", "d")},
        {"beside": ("a.b",)},
    ],
)
def test_tables_are_joined_once_each(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        table(**fields)


def test_what_is_not_joined_is_left_out_of_the_encoding() -> None:
    assert "beside" not in table().model_dump_json()
    assert "one_row" not in open_tables(policy(), NOW)[0].model_dump_json()
    question = asked(beside=("insured", "patients"))
    assert Request.decode(question.encode()) == question
    assert question.table.origin("patients.region") == ("patients", "region")
    assert question.table.origin("plain.region") == ("visits", "plain.region")


def test_a_join_that_a_new_policy_opens_is_a_widening() -> None:
    (one,) = compare(changed("one_row = true\n", ""), policy(JOINED))
    assert (one.path, one.effect) == (("sources", "patients", "one_row"), "loosens")
