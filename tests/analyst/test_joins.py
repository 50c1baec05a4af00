"""Joins of the silos' own tables become questions about one; what is refused names one that is answered."""

import re

import pytest

from analyst.errors import SqlError
from analyst.sql.plan import plan
from policies.requests.query import Plan
from tests.analyst.test_sql import OFFER, PAIRS, refusal
from tests.cases import every
from tests.harness.example_policy import Edit, catalogue, offer, policy, request
from tests.silo_node.test_joins import JOINED, PATIENTS

TABLES = offer(policy(JOINED))
SEVERAL = offer(policy(Edit("[purposes.health-research]", PATIENTS.replace("one_row = true\n", "", 1))))
USING = "FROM visits v JOIN patients p USING (patient_id)"
REGION = "SELECT p.region, COUNT(*) AS n "


@every("pair", [one for one in PAIRS if one.error and one.title.startswith(("joins:", "person_groups:", "persons:"))])
def test_a_question_that_a_hint_proposes_is_answered(pair: object) -> None:
    hint = refusal(getattr(pair, "question")).hint  # noqa: B009
    found = re.search(r"SELECT .* FROM visits[^;]*", hint)
    if found is not None and "..." not in found[0] and "x)" not in found[0] and "supported:" not in hint:
        assert plan(found[0], OFFER).plan.aggregates, found[0]


@every(
    "question",
    [
        f"{REGION}{USING} WHERE v.age > 50 GROUP BY p.region",
        f"{REGION}FROM visits v JOIN patients p ON v.patient_id = p.patient_id AND v.age > 50 GROUP BY p.region",
        f"{REGION}FROM visits v INNER JOIN patients p ON p.patient_id = v.patient_id WHERE v.age > 50 GROUP BY 1",
        f"{REGION}FROM patients p JOIN visits v USING (patient_id) WHERE v.age > 50 GROUP BY 1",
        f"{REGION}FROM visits AS v, patients AS p WHERE v.patient_id = p.patient_id AND v.age > 50 GROUP BY ALL",
        "SELECT region, COUNT(*) AS n FROM (SELECT p.region, v.age FROM visits v JOIN patients p USING (patient_id))"
        " WHERE age > 50 GROUP BY region",
    ],
)
def test_ways_to_write_a_join_are_one_question(question: str) -> None:
    planned = plan(question, TABLES)
    assert isinstance(planned.plan, Plan)
    assert planned.table.names == ("visits", "patients")
    assert planned.plan.in_words("visits") == "COUNT(*) of visits where age > 50 by patients.region"
    assert (planned.output, planned.names) == (("region", "n"), {"region": "patients.region"})
    assert request(table=planned.table, plan=planned.plan).table == planned.table


def test_a_joined_question_is_read_with_all_that_stands_around_it() -> None:
    ratio = plan(f"SELECT p.region AS r, SUM(v.age) / COUNT(*) AS x {USING} GROUP BY r ORDER BY x DESC LIMIT 1", TABLES)
    assert ratio.after == 'SELECT "patients.region" AS r, f1 / f2 AS x FROM released ORDER BY x DESC LIMIT 1'
    inner = plan(
        f"SELECT region, AVG(k) AS k FROM (SELECT v.patient_id, p.region, LEAST(COUNT(*), 9) AS k {USING}"
        " GROUP BY v.patient_id, p.region) GROUP BY region",
        TABLES,
    )
    assert inner.plan.inner is not None
    assert inner.plan.inner.keys == ("region",)
    named = plan(f"SELECT AVG(p.age), AVG(stay) {USING}", TABLES)
    assert named.output == ("avg_age", "avg_stay")


@every(
    ("question", "message", "hint"),
    [
        (
            f"SELECT COUNT(*) {USING} JOIN visits w USING (patient_id)",
            "a table with itself",
            "ask about the table alone",
        ),
        ("SELECT COUNT(*) FROM visits v LEFT JOIN patients p USING (patient_id)", "LEFT JOIN", "write visits JOIN"),
        ("SELECT COUNT(*) FROM visits v FULL JOIN patients p USING (patient_id)", "FULL JOIN", "write visits JOIN"),
        ("SELECT COUNT(*) FROM visits CROSS JOIN patients", "CROSS JOIN", "write visits JOIN patients USING"),
        ("SELECT COUNT(*) FROM visits NATURAL JOIN patients", "NATURAL JOIN", "write visits JOIN patients USING"),
        ("SELECT COUNT(*) FROM visits SEMI JOIN patients USING (patient_id)", "SEMI JOIN", "write visits JOIN"),
        ("SELECT COUNT(*) FROM visits, patients", "on the person alone", "ON visits.patient_id = patients.patient_id"),
        ("SELECT COUNT(*) FROM visits v JOIN patients p USING (age)", "on the person alone", "ON v.patient_id = "),
        ("SELECT COUNT(*) FROM visits v JOIN patients p USING (patient_id, age)", "on the person alone", "ON v."),
        ("SELECT COUNT(*) FROM visits v JOIN patients p ON v.age = p.age", "on the person alone", "ON v.patient_id"),
        ("SELECT COUNT(*) FROM visits v JOIN patients p ON v.patient_id < p.patient_id", "person alone", "ON v."),
        ("SELECT COUNT(*) FROM visits v JOIN patients p ON v.patient_id = p.patient_id OR v.age = 3", "alone", "ON v."),
        ("SELECT COUNT(*) FROM visits v JOIN loans l USING (patient_id)", "'loans' is no table", "across silos"),
        (f"SELECT age, COUNT(*) {USING} GROUP BY age", "'age' at line 1, column 8 is in 2 tables", "visits.age or"),
        (
            f"SELECT p.nothing, COUNT(*) {USING} GROUP BY 1",
            "unknown column 'patients.nothing' at line 1",
            "did you mean",
        ),
        (f"SELECT x.region, COUNT(*) {USING} GROUP BY 1", "unknown table 'x' at line 1", "visits"),
        (f"SELECT v.patient_id, COUNT(*) {USING} GROUP BY 1", "lists single persons", "ask about all of them"),
        (f"SELECT p.age, v.age, COUNT(*) {USING} GROUP BY 1, 2", "is used twice", "its own name with AS"),
        (f"SELECT v.cost, COUNT(*) {USING} WHERE p.age > 3 GROUP BY 1", "cannot group by", "buckets"),
        (f"SELECT * {USING}", "", ""),
    ],
)
def test_another_join_is_refused_with_its_place_and_what_to_write(question: str, message: str, hint: str) -> None:
    with pytest.raises(SqlError) as caught:
        plan(question, TABLES)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_tables_that_both_have_several_rows_of_a_person_are_not_joined() -> None:
    with pytest.raises(SqlError, match="'visits' and 'patients' may both have several rows of a person") as caught:
        plan(f"{REGION}{USING} GROUP BY p.region", SEVERAL)
    assert "one_row = true" in caught.value.hint


def test_only_silos_with_all_tables_are_asked_and_none_is_joined_with_another() -> None:
    both, first = catalogue(policy(JOINED)), catalogue(policy())
    second = both.model_copy(update={"tables": tuple(one for one in both.tables if one.name != "visits")})
    question = f"{REGION}{USING} GROUP BY p.region"
    mixed = offer(policy()).__class__({"a": both, "b": first, "c": second})
    planned = plan(question, mixed)
    assert mixed.holders_of(planned.table.names) == ("a",)
    with pytest.raises(SqlError, match="no silo has 'visits' and 'patients'") as caught:
        plan(question, offer(policy()).__class__({"b": first, "c": second}))
    assert caught.value.hint.startswith("no person is matched across silos")
