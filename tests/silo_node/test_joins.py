"""Rows joined with the one row of the same person in another table: DuckDB's figures, consent in both, and bounds."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyst.sql.plan import plan as plan_of
from policies.document.policy import Policy
from policies.requests.query import Plan
from policies.requests.request import Request
from silo_node.data import answer
from silo_node.data.arrays import Arrays
from silo_node.data.check import load_sources
from silo_node.data.coded import Aspect, Cells, Coding, Members, Rows, Run, Steps, coded
from silo_node.data.compute import Computer
from silo_node.data.consent import load_consent
from silo_node.data.joining import joined
from silo_node.data.locations import connect
from silo_node.data.locations import opened as opened_in
from silo_node.data.lots import SECRET_BYTES, Lots
from silo_node.data.query import Reading, execute
from silo_node.data.sources import source_of
from silo_node.errors import SourceError
from silo_node.rounds.proposal import Freshness, oldest
from tests.harness.example_policy import NOW, Edit, decided_in, offer, policy, request
from tests.harness.rows import opened
from tests.silo_node.test_persons import HEAVY, VISITS, pooled, released, same, written

PATIENTS = """[sources.patients]
kind = "parquet"
uri  = "patients.parquet"
one_row = true
[sources.patients.columns]
patient_id = { type = "string", class = "identifier", roles = [] }
region = { type = "string", class = "internal", roles = ["dimension", "filter"], domain = ["north", "south", "?"], \
unknown = "?" }
age = { type = "int", class = "internal", roles = ["measure", "filter"], bounds = [0, 50] }
[sources.insured]
kind = "parquet"
uri  = "insured.parquet"
one_row = true
[sources.insured.columns]
patient_id = { type = "string", class = "identifier", roles = [] }
plan = { type = "string", class = "internal", roles = ["dimension", "filter"], domain = ["a", "b", "?"], \
unknown = "?" }

[purposes.health-research]"""
JOINED = Edit("[purposes.health-research]", PATIENTS)
OFFER = offer(policy(JOINED))
FIELDS = pa.schema([("patient_id", pa.string()), ("region", pa.string()), ("age", pa.int64())])
INSURED = pa.schema([("patient_id", pa.string()), ("plan", pa.string())])
TABLES = "FROM visits v JOIN patients p ON v.patient_id = p.patient_id"
QUESTIONS = (
    f"SELECT COUNT(*) AS n {TABLES}",
    f"SELECT p.region, COUNT(*) AS n, AVG(v.age) AS a, SUM(p.age) AS b {TABLES} GROUP BY p.region",
    "SELECT p.region, v.ward, COUNT(*) AS n FROM patients p, visits v WHERE v.patient_id = p.patient_id"
    " AND (p.age > 20 OR v.smoker) GROUP BY p.region, v.ward",
    f"SELECT p.region, COUNT(DISTINCT v.patient_id) AS n {TABLES} WHERE v.age <= p.age GROUP BY p.region",
    "SELECT region, COUNT(*) AS n, SUM(k) AS k FROM (SELECT v.patient_id, p.region, LEAST(COUNT(*), 3) AS k"
    f" {TABLES} GROUP BY v.patient_id, p.region) GROUP BY region",
    "SELECT patients.region, plan, COUNT(*) AS n FROM visits JOIN insured USING (patient_id) JOIN patients"
    " USING (patient_id) GROUP BY patients.region, plan",
)  # fmt: skip
PERSON = st.tuples(
    st.sampled_from(["p1", "p2", "p3", "p4", "p5"]),
    st.none() | st.sampled_from(["north", "south", "west"]),
    st.none() | st.integers(-9, 60),
)
PERSONS = st.lists(PERSON, max_size=5, unique_by=lambda one: one[0])
PLANS = st.lists(
    st.tuples(st.sampled_from(["p1", "p2", "p3", "p4"]), st.sampled_from(["a", "b"])), unique_by=lambda one: one[0]
)


def asked_by(sql: str, max_rows: int = 1000, **changes: Any) -> Request:
    planned = plan_of(sql, OFFER, **changes)
    return request(table=planned.table.model_copy(update={"max_rows": max_rows}), plan=planned.plan)


def stored(home: Path, visits: Sequence[Any], persons: Sequence[Any], plans: Sequence[Any] = (("p9", "a"),)) -> None:
    written(home, [{"patient_id": person, **visit} for person, visit in visits])
    rows = [dict(zip(FIELDS.names, one, strict=True)) for one in persons]
    pq.write_table(pa.Table.from_pylist(rows, schema=FIELDS), home / "patients.parquet")
    insured = [dict(zip(INSURED.names, one, strict=True)) for one in plans]
    pq.write_table(pa.Table.from_pylist(insured, schema=INSURED), home / "insured.parquet")


def contributed(home: Path, asked: Request, by: Policy | None = None, out: Sequence[str] = ()) -> list[list[int]]:
    """Return what a silo contributes, by its consent rules now; the objections of `out` are remembered."""
    rules = by or policy(JOINED)

    def forgotten(_: Any, persons: pa.Array) -> Any:
        return np.isin(np.array(persons.to_pylist(), object), list(out)) if out else None

    with connect() as database:
        sources = load_sources(database, rules, home)
        decisions = load_consent(database, rules, home)
        computer = Computer(rules, database, sources, decisions, lambda _: None, forgotten=forgotten)
        return [one.tolist() for one in computer.contribution(asked, NOW)]


def computed(home: Path, asked: Request) -> list[list[int]]:
    """Return what the rows come to, of all persons."""
    first, *beside = (Reading(source_of(policy(JOINED), name, home)) for name in asked.table.names)
    with connect() as database, opened_in(database, [first.source, *(one.source for one in beside)], 60):
        found = execute(database, first.source, "patient_id", asked, beside=beside)
        return [one.tolist() for one in found]


def true_figures(sql: str, visits: Sequence[Any], persons: Sequence[Any], plans: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what DuckDB says of the same rows, of cells within their bounds and domains."""
    with duckdb.connect() as connection:
        rows = [{"patient_id": person, **visit} for person, visit in visits]
        cells = pooled("SELECT * FROM visits", rows)
        known = [
            {"patient_id": one, "region": region if region in ("north", "south") else "?",
             "age": None if age is None else max(0, min(50, age))}
            for one, region, age in persons
        ]  # fmt: skip
        schema = pa.schema(
            [("patient_id", pa.string()), ("ward", pa.string()), ("grade", pa.int64()), ("age", pa.int64()),
             ("cost", pa.float64()), ("smoker", pa.bool_())]
        )  # fmt: skip
        connection.register(
            "visits_",
            pa.Table.from_pylist(
                [{**row, "cost": None if row["cost"] is None else float(row["cost"])} for row in cells], schema=schema
            ),
        )
        connection.register("patients_", pa.Table.from_pylist(known, schema=FIELDS))
        insured = [dict(zip(INSURED.names, one, strict=True)) for one in plans]
        connection.register("insured_", pa.Table.from_pylist(insured, schema=INSURED))
        for name in ("visits", "patients", "insured"):
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_")
        found: list[dict[str, Any]] = connection.sql(sql).to_arrow_table().to_pylist()
        return found


@pytest.mark.parametrize("place", range(len(QUESTIONS)))
@settings(max_examples=6, deadline=None)
@given(VISITS, PERSONS, PLANS)
def test_a_figure_of_joined_rows_is_that_of_duckdb(
    tmp_path_factory: Any, place: int, visits: list[Any], persons: list[Any], plans: list[Any]
) -> None:
    home, question = tmp_path_factory.getbasetemp(), QUESTIONS[place]
    stored(home, visits, persons, plans)
    asked = asked_by(question)
    assert isinstance(asked.plan, Plan)
    found = released(asked, computed(home, asked))
    true = true_figures(question, visits, persons, plans)
    keys = [key.rpartition(".")[2] for key in asked.plan.group_by]
    for row in (*found, *true):
        row.update({key.rpartition(".")[2]: value for key, value in list(row.items())})
        for key in [key for key in row if "." in key]:
            del row[key]
        if "ward" in keys and row["ward"] is None:
            row["ward"] = "unknown"
    same(found, true, keys)


def test_tables_that_are_joined_are_named_with_their_columns() -> None:
    asked = asked_by(QUESTIONS[5])
    assert asked.table.names == ("visits", "insured", "patients")
    assert {asked.table.origin(column.name) for column in asked.table.columns} == {
        ("patients", "region"),
        ("insured", "plan"),
    }
    assert Request.decode(asked.encode()) == asked


VISITED = [(person, {"ward": ward, "age": 30}) for person in ("p1", "p2", "p3") for ward in ("surgery", "medicine")]
KNOWN = [("p1", "north", 1), ("p2", "south", 2), ("p4", "north", 3)]
BY_REGION = f"SELECT p.region, COUNT(*) AS n {TABLES} GROUP BY p.region"


def test_who_has_no_row_in_one_of_the_tables_is_out(tmp_path: Path) -> None:
    stored(tmp_path, VISITED, KNOWN)
    assert contributed(tmp_path, asked_by(BY_REGION)) == [[2, 2, 0]]
    stored(tmp_path, [], KNOWN)
    assert computed(tmp_path, asked_by(BY_REGION)) == [[0, 0, 0]]
    stored(tmp_path, VISITED, [])
    assert computed(tmp_path, asked_by(BY_REGION)) == [[0, 0, 0]]


def test_who_consented_in_one_table_only_is_out(tmp_path: Path) -> None:
    """Each table has its own column of consent, and each of its rows counts by it."""
    consented = Edit('legal_basis  = "public-task"', 'legal_basis = "consent"\nconsent = "opt-in"')
    column = 'ok = { type = "bool", class = "internal", roles = [] }\npatient_id = { type = "string", class'
    rules = policy(
        JOINED,
        consented,
        Edit('\npatient_id = { type = "string", class', f"\n{column}"),
        Edit('patients.columns]\npatient_id = { type = "string", class', f"patients.columns]\n{column}"),
        Edit('insured.columns]\npatient_id = { type = "string", class', f"insured.columns]\n{column}"),
        Edit("[budget]", '[consent]\nmode = "column"\ncolumn = "ok"\nstale_after_hours = 24\n[budget]'),
    )
    stored(tmp_path, VISITED, KNOWN)
    for name, agreed in (("visits", {"p1", "p3"}), ("patients", {"p1", "p2", "p4"}), ("insured", set())):
        rows = pq.read_table(tmp_path / f"{name}.parquet").to_pylist()
        told = [{**row, "ok": row["patient_id"] in agreed} for row in rows]
        schema = pq.read_schema(tmp_path / f"{name}.parquet").append(pa.field("ok", pa.bool_()))
        pq.write_table(pa.Table.from_pylist(told, schema=schema), tmp_path / f"{name}.parquet")
    assert contributed(tmp_path, asked_by(BY_REGION), rules) == [[2, 0, 0]], "p2 did not agree to the use of visits"


def test_a_decision_and_an_objection_count_for_the_rows_of_all_tables(tmp_path: Path) -> None:
    consented = Edit('legal_basis  = "public-task"', 'legal_basis = "consent"\nconsent = "opt-in"')
    rules = policy(JOINED, consented, Edit("[budget]", decided_in("consent.parquet") + "[budget]"))
    stored(tmp_path, VISITED, KNOWN)
    given_at = "2026-05-01T00:00:00Z"
    decided = [{"person": one, "purpose": "health-research", "given": given_at, "withdrawn": None} for one in
               ("p1", "p2", "p4")]  # fmt: skip
    schema = pa.schema([(name, pa.string()) for name in ("person", "purpose", "given", "withdrawn")])
    for withdrawn, counts in ((None, [2, 2, 0]), ("2026-06-01T00:00:00Z", [0, 2, 0])):
        decided[0]["withdrawn"] = withdrawn
        pq.write_table(pa.Table.from_pylist(decided, schema=schema), tmp_path / "consent.parquet")
        assert contributed(tmp_path, asked_by(BY_REGION), rules) == [counts]
    assert contributed(tmp_path, asked_by(BY_REGION), out=["p2"]) == [[2, 0, 0]]


def test_what_is_joined_is_as_fresh_as_its_oldest_source() -> None:
    first, second, unknown = Freshness(5, None), Freshness(3, 7), Freshness(None, None)
    assert oldest([first]) == first
    assert oldest([first, second]) == (3, 7)
    assert oldest([first, unknown]) == (None, None), "consent that nobody can date is too old"


def test_a_silo_does_not_start_where_persons_have_several_rows(tmp_path: Path) -> None:
    stored(tmp_path, VISITED, [*KNOWN, ("p1", "south", 3), ("p1", "north", 1)])
    with pytest.raises(SourceError, match="'patients' says one_row = true, and has 1 person with several rows"):
        contributed(tmp_path, asked_by(BY_REGION))


LIMITS = [(1, None), (2, None), (5, 2), (12, 3), (1000, None)]
SENSITIVE = [
    asked.model_copy(update={"table": asked.table.model_copy(update={"max_rows": rows, "max_norm": norm})})
    for sql in QUESTIONS[:5]
    for asked in [asked_by(sql, counts_cut=True)]
    for rows, norm in LIMITS
]
TWICE = ("heavy", "north", 50)  # a row that the policy says there is not


def read(home: Path, table: str) -> tuple[Rows, pa.Array]:
    """Return the rows of a table as numbers, and their persons by place, for all of the questions."""
    codings = dict[Coding, None]()
    for asked in SENSITIVE:
        for one in answer.codings_of(asked):
            origin, name = asked.table.origin(one.column.name)
            if origin == table:
                codings[Coding(one.aspect, one.column.model_copy(update={"name": name}))] = None
    source = source_of(policy(JOINED), table, home)
    with opened(source) as database:
        return coded(database, source.view, "patient_id", codings)


@settings(max_examples=6, deadline=None)
@given(VISITS, PERSONS, st.sampled_from([None, 1, 2]), st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES))
def test_no_person_changes_a_sum_by_more_than_the_price_assumes(
    tmp_path_factory: Any, visits: list[Any], persons: list[Any], max_groups: int | None, secret: bytes
) -> None:
    """Neighbours differ in one person: one of 24 rows and of two where one was said, or any other one."""
    home = tmp_path_factory.getbasetemp()
    heavy = [("heavy", visit) for visit in HEAVY]
    stored(home, [*visits, *heavy], [TWICE, *persons, TWICE])
    first, theirs = read(home, "visits"), read(home, "patients")
    found = joined(*first, {"patients": theirs})
    everybody = np.ones(found.persons, np.bool_)
    for asked in SENSITIVE:
        extents = asked.plan.statistics(asked.table)
        whole = answer.question(found, asked, everybody, Lots(secret), max_groups)
        for place in range(found.persons):
            others = np.arange(found.persons) != place
            rest = answer.question(found, asked, others, Lots(secret), max_groups)
            for (statistic, extent), one, other in zip(extents.items(), whole, rest, strict=True):
                assert ((one - other) ** 2).sum() <= extent.squared, (statistic, asked.plan.in_words("visits"))


def test_the_sensitivity_of_joined_rows_is_reached(tmp_path: Path) -> None:
    """A person's rows all stand beside one row, so all are in one group of its columns."""
    stored(tmp_path, [("heavy", visit) for visit in HEAVY], [TWICE])
    for max_rows in (1, 5, 24):
        asked = asked_by(BY_REGION, max_rows)
        assert [one.squared for one in asked.plan.statistics(asked.table).values()] == [max_rows**2]
        assert contributed(tmp_path, asked) == [[max_rows, 0, 0]]


def cells_of(rows: Rows, persons: list[str]) -> list[tuple[str, list[Any]]]:
    """Return the person and the cells of each row."""
    columns = [_values(one) for _, one in sorted(rows.cells.items())]
    return [(persons[person], [column[at] for column in columns]) for at, person in enumerate(rows.person.tolist())]


def _values(cells: Cells) -> list[Any]:
    match cells:
        case Members():
            return [cells.texts[code] if code >= 0 else None for code in cells.codes.tolist()]
        case Steps():
            return list(cells.cells.tolist())
        case Arrays():
            return list(cells.steps.tolist())
    return list(cells.whole.tolist())


@settings(max_examples=10, deadline=None)
@given(VISITS, PERSONS)
def test_what_one_person_is_joined_with_depends_on_nobody_else(
    tmp_path_factory: Any, visits: list[Any], persons: list[Any]
) -> None:
    home, found = tmp_path_factory.getbasetemp(), {}
    for without in (None, "p1"):
        theirs = [one for one in visits if one[0] != without]
        stored(home, theirs, [one for one in [TWICE, *persons, TWICE] if one[0] != without])
        first, second = read(home, "visits"), read(home, "patients")
        rows = cells_of(joined(*first, {"patients": second}), first[1].to_pylist())
        found[without] = sorted((row for row in rows if row[0] != "p1"), key=repr)
    assert found[None] == found["p1"]


@pytest.mark.slow
def test_a_million_rows_are_joined_in_a_fraction_of_a_second() -> None:
    draw, rows, persons = np.random.default_rng(7), 1_000_000, 200_000
    names = pa.array([f"c{at}" for at in range(persons)])
    cells: dict[tuple[Aspect, str], Cells] = {("steps", "age"): Steps(draw.integers(0, 110, rows), 0, 110)}
    many = Rows(draw.integers(0, persons, rows), persons, (Run(0, 0, rows),), cells)
    known = draw.permutation(persons)[: persons // 2]
    other: dict[tuple[Aspect, str], Cells] = {("member", "region"): Members(known % 3, ("a", "b", "c"))}
    ones = Rows(np.arange(len(known)), len(known), (Run(0, 0, len(known)),), other)
    began = time.process_time()
    found = joined(many, names, {"patients": (ones, names.take(pa.array(known)))})
    took = time.process_time() - began
    print(f"{took:.2f} s for {len(found.person):,} of {rows:,} rows")
    assert took < 4, "0.1 s on an idle core"
