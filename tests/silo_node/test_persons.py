"""Figures of persons equal DuckDB's over the same rows, and no person changes a sum by more than the price assumes."""

import time
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyst.sql.plan import plan as plan_of
from policies.requests.persons import PERSONS, Inner, InnerColumn
from policies.requests.query import CUT, Aggregate, Plan
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from silo_node.data import answer
from silo_node.data.coded import Aspect, Cells, Members, Rows, Run, Steps, coded
from silo_node.data.locations import connect
from silo_node.data.lots import SECRET_BYTES, Lots
from silo_node.data.prepared.reader import Reader
from silo_node.data.prepared.store import Store
from silo_node.data.query import execute
from silo_node.data.sources import source_of
from tests.cases import every
from tests.harness.example_policy import AGE, STORED, WARD, Edit, offer, policy, request, table
from tests.harness.rows import NamedHere, opened

Row = dict[str, Any]
SCHEMA = pa.schema(STORED)
OFFER = offer(policy())
# Each with what DuckDB says of the same rows after the same mapping and clamping; NULL stays NULL.
INNER = "SELECT COUNT(*) AS n FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING "
QUESTIONS = (
    ("SELECT COUNT(DISTINCT patient_id) AS n FROM visits", None),
    ("SELECT COUNT(DISTINCT patient_id) AS n FROM visits WHERE age > 40 OR smoker", None),
    ("SELECT COUNT(*) AS n FROM (SELECT DISTINCT patient_id FROM visits WHERE ward <> 'surgery')", None),
    (INNER + "COUNT(*) > 1)", None),
    (INNER + "COUNT(age) BETWEEN 1 AND 2)", None),
    (INNER + "COUNT(*) NOT IN (1, 3))", None),
    (INNER + "SUM(cost) > 20.005)", None),
    (INNER + "SUM(cost) <= -3)", None),
    (INNER + "MIN(age) < 30 AND MAX(age) >= 60)", None),
    (INNER + "COUNT(*) FILTER (WHERE ward = 'surgery') > 0 AND SUM(CASE WHEN ward = 'medicine' THEN 1 ELSE 0 END) > 0)",
     None),
    (INNER + "NOT MIN(cost) > 0)", None),
    ("SELECT grade, COUNT(*) AS n FROM (SELECT patient_id, MIN(grade) AS grade FROM visits GROUP BY patient_id)"
     " GROUP BY grade",
     "SELECT coalesce(grade, -1) AS grade, COUNT(*) AS n FROM"
     " (SELECT patient_id, MIN(grade) AS grade FROM visits GROUP BY patient_id) GROUP BY ALL"),
    ("WITH f AS (SELECT patient_id, MAX(ward) AS last, MIN(ward) AS first FROM visits GROUP BY patient_id)"
     " SELECT first, last, COUNT(*) AS n FROM f GROUP BY first, last",
     "WITH f AS (SELECT patient_id, MAX(nullif(ward, 'unknown')) AS last, MIN(nullif(ward, 'unknown')) AS first"
     " FROM visits GROUP BY patient_id)"
     " SELECT coalesce(first, 'unknown') AS first, coalesce(last, 'unknown') AS last, COUNT(*) AS n"
     " FROM f GROUP BY ALL"),
    ("SELECT n, COUNT(*) AS persons FROM (SELECT patient_id, LEAST(COUNT(*), 3) AS n FROM visits GROUP BY patient_id)"
     " GROUP BY n", None),
    ("SELECT n, COUNT(*) AS persons FROM (SELECT patient_id, LEAST(COUNT(*) FILTER (WHERE smoker), 2) AS n FROM visits"
     " GROUP BY patient_id) WHERE n >= 0 GROUP BY n", None),
    ("SELECT AVG(n) AS mean, SUM(n) AS total FROM"
     " (SELECT patient_id, LEAST(COUNT(*), 3) AS n FROM visits WHERE age IS NOT NULL GROUP BY patient_id)", None),
    ("SELECT ward, AVG(spent) AS mean, COUNT(spent) AS known FROM (SELECT patient_id, MIN(ward) AS ward,"
     " GREATEST(LEAST(SUM(cost), 60), -20) AS spent FROM visits GROUP BY patient_id) GROUP BY ward",
     "SELECT ward, AVG(spent) AS mean, COUNT(spent) AS known FROM (SELECT patient_id,"
     " coalesce(MIN(nullif(ward, 'unknown')), 'unknown') AS ward,"
     " CASE WHEN SUM(cost) IS NOT NULL THEN GREATEST(LEAST(SUM(cost), 60), -20) END AS spent"
     " FROM visits GROUP BY patient_id) GROUP BY ward"),
    ("SELECT CASE WHEN n > 2 THEN 'many' WHEN low < 30 THEN 'young' END AS kind, COUNT(*) AS persons FROM"
     " (SELECT patient_id, LEAST(COUNT(*), 4) AS n, MIN(age) AS low FROM visits GROUP BY patient_id) GROUP BY kind",
     None),
    ("SELECT AVG(low) AS low, AVG(high) AS high, SUM(ever) AS ever FROM (SELECT patient_id, MIN(age) AS low,"
     " MAX(cost) AS high, BOOL_OR(smoker) AS ever FROM visits GROUP BY patient_id) WHERE NOT ever OR high > 3",
     "SELECT AVG(low) AS low, AVG(high) AS high, SUM(ever::INT) AS ever FROM (SELECT patient_id, MIN(age) AS low,"
     " MAX(cost) AS high, BOOL_OR(smoker) AS ever FROM visits GROUP BY patient_id) WHERE NOT ever OR high > 3"),
)  # fmt: skip
VISIT = st.fixed_dictionaries(
    {
        "ward": st.none() | st.sampled_from(["medicine", "surgery", "unknown", "cellar"]),
        "grade": st.none() | st.integers(-2, 4),
        "age": st.none() | st.integers(-20, 130),
        "cost": st.none() | st.integers(-60_00, 60_00).map(lambda cents: cents / 100),
        "smoker": st.none() | st.booleans(),
    }
)
# Persons with no row, one and many; some rows of nobody, and the same row twice.
VISITS = st.lists(st.tuples(st.none() | st.sampled_from(["p1", "p2", "p3", "p4"]), VISIT), max_size=14)


def asked_by(sql: str, of: Any = OFFER, **changes: Any) -> Request:
    planned = plan_of(sql, of, **changes)
    return request(table=planned.table, plan=planned.plan)


def written(home: Path, rows: Sequence[Row]) -> None:
    missing = dict.fromkeys(SCHEMA.names)
    pa.parquet.write_table(
        pa.Table.from_pylist([missing | row for row in rows], schema=SCHEMA), home / "visits.parquet"
    )


def computed(home: Path, rows: Sequence[Row], asked: Request, max_groups: int | None = None) -> list[list[int]]:
    """Return what a silo with these rows contributes."""
    written(home, rows)
    source = source_of(policy(), "visits", home)
    with opened(source) as database:
        return [one.tolist() for one in execute(database, source, "patient_id", asked, max_groups=max_groups)]


def released(asked: Request, vectors: list[list[int]]) -> list[Row]:
    """Return the exact figures of every group that has any, as the answer has them without noise."""
    plan = asked.plan
    assert isinstance(plan, Plan)
    seen, sums = plan.seen(asked.table), dict(zip(plan.statistics(asked.table), vectors, strict=True))
    rows = []
    for place, group in enumerate(plan.groups(asked.table)):
        row: Row = dict(zip(plan.group_by, group, strict=True))
        for one in plan.aggregates:
            first, *more = one.statistics(seen)
            count = sums[first][place]
            row[one.alias] = count
            if more:
                column = seen.column(one.column or "")
                assert column.low is not None
                assert column.high is not None
                step = float(column.step or 1)
                total = step * (sums[more[0]][place] / 2 + count * (column.low + column.high) / 2)
                row[one.alias] = (total / count if one.function == "avg" else total) if count else None
        rows.append(row)
    return rows


def pooled(sql: str, rows: Sequence[Row]) -> list[Row]:
    """Return what DuckDB says, of cells within their bounds and domains, and of rows of somebody."""
    table = pa.Table.from_pylist([dict.fromkeys(SCHEMA.names) | row for row in rows], schema=SCHEMA)
    with duckdb.connect() as connection:
        connection.register("raw", table)
        connection.execute(
            "CREATE TABLE visits AS SELECT patient_id, CASE WHEN ward IN ('medicine', 'surgery') THEN ward END AS ward,"
            " CASE WHEN grade IN (0, 1, 2) THEN grade END AS grade,"
            " CASE WHEN age IS NOT NULL THEN greatest(least(age, 110), 0) END AS age,"
            " CASE WHEN cost IS NOT NULL THEN greatest(least(cost, 5000), -50)::DECIMAL(18, 2) END AS cost, smoker"
            " FROM raw WHERE patient_id IS NOT NULL"
        )
        return list(connection.sql(sql).to_arrow_table().to_pylist())


def same(found: list[Row], true: list[Row], keys: Sequence[str]) -> None:
    """Assert that both have the same figures in every group; one that DuckDB does not have is empty."""
    truths = {tuple(str(row[key]) for key in keys): row for row in true}
    for row in found:
        truth = truths.pop(tuple(str(row[key]) for key in keys), None)
        for name, value in row.items():
            if name not in keys:
                expected = None if truth is None else truth[name]
                if expected is None:
                    assert not value, (row, truth)
                else:
                    assert value == pytest.approx(float(expected)), (row, truth)
    assert truths == {}


@pytest.mark.parametrize("place", range(len(QUESTIONS)))
@settings(max_examples=12, deadline=None)
@given(VISITS)
def test_a_figure_of_persons_is_that_of_duckdb(tmp_path_factory: Any, place: int, visits: list[Any]) -> None:
    question, truth = QUESTIONS[place]
    rows = [{"patient_id": person, **visit} for person, visit in visits]
    asked = asked_by(question)
    assert isinstance(asked.plan, Plan)
    found = released(asked, computed(tmp_path_factory.getbasetemp(), rows, asked))
    same(found, pooled(truth or question, rows), asked.plan.group_by)


MOST = 3  # rows of a person that a question about rows would take
SENSITIVE = [
    asked_by(question, counts_cut=True)
    for question in (
        "SELECT COUNT(DISTINCT patient_id) AS n FROM visits",
        "SELECT ward, grade, COUNT(DISTINCT patient_id) AS n FROM visits GROUP BY ward, grade",
        "SELECT ward, COUNT(DISTINCT patient_id) AS n, AVG(age) AS age FROM visits GROUP BY ward",
        *(question for question, _ in QUESTIONS[3:]),
    )
]
SENSITIVE += [one.model_copy(update={"table": one.table.model_copy(update={"max_rows": MOST})}) for one in SENSITIVE]
HEAVY = [
    {"ward": ward, "grade": grade, "age": age, "cost": cost, "smoker": age > 50}
    for ward, grade, (age, cost) in product(("medicine", "surgery", None), (0, 1, 2, None), ((0, -50.0), (110, 5000.0)))
]  # one person with two rows in each of twelve groups, at both ends of the bounds


def read(home: Path, rows: Sequence[Row], asked: Sequence[Request]) -> tuple[Rows, list[str]]:
    """Return the rows of several requests as numbers, and their persons by place."""
    written(home, rows)
    codings = dict.fromkeys(one for request in asked for one in answer.codings_of(request))
    source = source_of(policy(), "visits", home)
    with opened(source) as database:
        found, persons = coded(database, source.view, "patient_id", codings)
    return found, persons.to_pylist()


@settings(max_examples=60, deadline=None)
@given(VISITS, st.sampled_from([None, 1, 2, 5]), st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES))
def test_no_person_changes_a_sum_by_more_than_the_price_assumes(
    tmp_path_factory: Any, visits: list[Any], max_groups: int | None, secret: bytes
) -> None:
    """Neighbours differ in one person: one of many rows in each of twelve groups, or any other one."""
    rows = [{"patient_id": person, **visit} for person, visit in visits]
    rows += [{"patient_id": "heavy", **visit} for visit in HEAVY]
    found, persons = read(tmp_path_factory.getbasetemp(), rows, SENSITIVE)
    everybody = np.ones(len(persons), np.bool_)
    for asked in SENSITIVE:
        extents = asked.plan.statistics(asked.table)
        whole = answer.question(found, asked, everybody, Lots(secret), max_groups)
        for place in range(len(persons)):
            others = np.arange(len(persons)) != place
            rest = answer.question(found, asked, others, Lots(secret), max_groups)
            for (statistic, extent), one, other in zip(extents.items(), whole, rest, strict=True):
                assert ((one - other) ** 2).sum() <= extent.squared, (statistic, asked.plan.in_words("visits"))


def test_the_sensitivity_of_a_number_of_persons_is_reached(tmp_path: Path) -> None:
    """A person with rows in twelve groups is counted in as many as the policy lets rows in, and in no more."""
    rows = [{"patient_id": "heavy", **visit} for visit in HEAVY]
    for most_rows, reached in ((1, 1), (2, 2), (5, 5), (12, 12), (100, 12)):
        planned = plan_of(
            "SELECT ward, grade, COUNT(DISTINCT patient_id) AS n FROM visits GROUP BY ALL".replace(
                "ALL", "ward, grade"
            ),
            OFFER,
        )
        asked = request(table=planned.table.model_copy(update={"max_rows": most_rows}), plan=planned.plan)
        assert asked.plan.statistics(asked.table)[PERSONS].squared == reached
        (counts,) = computed(tmp_path, rows, asked)
        assert (sum(counts), max(counts)) == (reached, 1)
    (counts,) = computed(tmp_path, rows, asked, max_groups=4)
    assert sum(counts) == 4
    whole = asked_by("SELECT COUNT(DISTINCT patient_id) AS n FROM visits")
    assert computed(tmp_path, rows, whole) == [[1]]


def test_what_an_inner_question_cuts_is_counted(tmp_path: Path) -> None:
    spent = asked_by(
        "SELECT AVG(s) AS s FROM (SELECT patient_id, GREATEST(LEAST(SUM(cost), 100), -60) AS s FROM visits"
        " GROUP BY patient_id)",
        counts_cut=True,
    )
    rows = [{"patient_id": person, "cost": cost} for person, costs in (("a", (60.0, 50.0)), ("b", (-40.0, -30.0)),
            ("c", (-50.0, 60.0)), ("d", (None, None)), ("e", (100.0,))) for cost in costs]  # fmt: skip
    cut = dict(zip(spent.plan.statistics(spent.table), computed(tmp_path, rows, spent), strict=True))[CUT]
    assert cut == [3, 0, 2, 0], "no rows are left out, and two sums are clamped"
    wards = asked_by("SELECT ward, COUNT(DISTINCT patient_id) AS n FROM visits GROUP BY ward", counts_cut=True)
    rows = [{"patient_id": person, "ward": ward} for person, own in (("a", ("medicine", "surgery", None)),
            ("b", ("medicine",) * 9)) for ward in own]  # fmt: skip
    assert computed(tmp_path, rows, wards)[1] == [1, 1, 0, 0], "one person is in more groups than two"


def test_prepared_rows_and_any_parts_of_them_give_what_every_request_reads(tmp_path: Path) -> None:
    rules = policy(Edit('kind = "parquet"', 'kind = "parquet"\nread = "prepared"'))
    visits = [
        {"patient_id": f"p{at % 37}", **HEAVY[at * at % len(HEAVY)], "region": "north", "stay": at % 7}
        for at in range(300)
    ]
    written(tmp_path, visits)
    source, log = source_of(rules, "visits", tmp_path), NamedHere()
    store = Store(rules, tmp_path, log.kept)
    with connect() as database:
        log.prepare(store, database, source, 0)
        reader = Reader(rules, store, database, {"visits": source}, None)
        for asked in SENSITIVE:
            question, snapshot = reader.asked(asked, 0)
            persons = len(snapshot.persons)
            whole = question.part(0, persons, None, snapshot)
            for bounds in ([0, 11, persons], [0, 1, 2, 30, persons]):
                parts = [question.part(*ends, None, snapshot) for ends in pairwise(bounds)]
                for one, other in zip(answer.added(parts), whole, strict=True):
                    assert one.tolist() == other.tolist()
            if asked.plan.inner is not None or not asked.plan.dimensions:
                assert computed(tmp_path, visits, asked) == [one.tolist() for one in whole], "nothing is drawn by lot"


@every(
    ("kind", "domain", "unknown", "cells", "first", "last"),
    [
        ("date", ("2026-Q4", "2027-Q1", "2026-Q3", "unknown"), "unknown", (0, 1, 3), "2026-Q4", "2027-Q1"),
        ("date", ("2026-Q4", "2027-Q1", "unknown"), "unknown", (2, 2), "unknown", "unknown"),
        ("int", ("10", "9", "-1", "-20"), "-1", (0, 1, 2), "9", "10"),
        ("int", ("10", "9", "-1", "-20"), "-1", (3, 1), "-20", "9"),
        ("string", ("b", "B", "é", "a", "?"), "?", (0, 1, 2), "B", "é"),
    ],
)
def test_the_first_and_last_value_are_by_the_order_of_their_type(
    kind: Any, domain: tuple[str, ...], unknown: str, cells: tuple[int, ...], first: str, last: str
) -> None:
    column = TableColumn(name="x", type=kind, domain=domain, unknown=unknown)
    inner = Inner(where=None, columns=(
        InnerColumn(name="first", function="first", column="x"), InnerColumn(name="last", function="last", column="x"),
    ))  # fmt: skip
    counted = (Aggregate(function="count", column=None, alias="n"),)
    asked = request(
        table=table(columns=(column,)),
        plan=Plan(where=None, group_by=("first", "last"), aggregates=counted, inner=inner),
    )
    members: dict[tuple[Aspect, str], Cells] = {("member", "x"): Members(np.array(cells), domain)}
    rows = Rows(np.zeros(len(cells), np.int64), 1, (Run(0, 0, len(cells)),), members)
    (counts,) = answer.question(rows, asked, None, Lots(), None)
    groups = dict(zip(asked.plan.groups(asked.table), counts.tolist(), strict=True))  # type: ignore[union-attr, operator]
    assert {group for group, count in groups.items() if count} == {(first, last)}


def test_a_sum_that_64_bits_cannot_hold_is_clamped_and_not_wrapped() -> None:
    """Rows whose lower bound is far from 0 are added as Python's integers."""
    far = AGE.model_copy(update={"low": 2**58, "high": 2**58 + 100})
    planned = plan_of(
        "SELECT AVG(s) AS s FROM (SELECT patient_id, LEAST(SUM(age), 90) AS s FROM visits GROUP BY patient_id)", OFFER
    )
    asked = request(table=planned.table.model_copy(update={"columns": (far,)}), plan=planned.plan)
    cells: dict[tuple[Aspect, str], Cells] = {("steps", "age"): Steps(np.full(40, 7), 2**58, 100)}
    rows = Rows(np.repeat(np.arange(2), 20), 2, (Run(0, 0, 40),), cells)
    assert [one.tolist() for one in answer.question(rows, asked, None, Lots(), None)] == [[2], [180]]


@pytest.mark.slow
def test_a_million_rows_take_about_a_second() -> None:
    rows, persons, draw = 1_000_000, 200_000, np.random.default_rng(7)
    person = draw.integers(0, persons, rows)
    cells: dict[tuple[Aspect, str], Cells] = {
        ("steps", "age"): Steps(draw.integers(-2, 112, rows), 0, 110),
        ("member", "ward"): Members(draw.integers(0, 3, rows), WARD.domain),
    }
    table = Rows(person, persons, (Run(0, 0, rows),), cells)
    for question in (
        "SELECT ward, COUNT(DISTINCT patient_id) AS n FROM visits GROUP BY ward",
        "SELECT first, COUNT(*) AS n, AVG(years) AS years FROM (SELECT patient_id, MIN(ward) AS first,"
        " LEAST(SUM(age), 2000) AS years FROM visits GROUP BY patient_id"
        " HAVING COUNT(*) FILTER (WHERE ward = 'surgery') > 1) GROUP BY first",
    ):
        asked, began = asked_by(question, counts_cut=True), time.process_time()
        answer.question(table, asked, None, Lots(bytes(SECRET_BYTES)), None)
        took = time.process_time() - began
        print(f"{took:.2f} s: {question}")
        assert took < 8, "about a second on an idle core"
