"""Groups by conditions and rewritten filters count what DuckDB counts on the same rows, and cost what they should."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyst.sql.offer import Offer
from analyst.sql.plan import plan
from policies.document.catalogue import catalogue_of
from policies.document.policy import Analyst, Policy
from policies.requests.cases import Cases
from policies.requests.predicates import Both, Compare, CompareColumns, Either, IsNull, Not, OneOf, Predicate
from policies.requests.query import Aggregate, Plan
from policies.requests.request import Request
from silo_node.data.query import execute
from silo_node.data.sources import Source, source_of
from tests.harness.example_policy import CREATED_AT, KEY, STORED, Edit, policy, request, table
from tests.harness.rows import opened

Row = dict[str, Any]
SCHEMA = pa.schema([*STORED, ("seen", pa.date32())])
DATED = (
    Edit(
        "diary  =",
        'seen = { type = "date", class = "internal", roles = ["dimension", "filter"], '
        'granularity = "month" }\ndiary  =',
    ),
    Edit('uri  = "visits.parquet"', 'uri  = "visits.parquet"\ntime_column = "seen"\nlookback_days = 600'),
    Edit("max_rows  = 2", "max_rows  = 10_000"),
    Edit('roles = ["measure"], bounds = [0, 60]', 'roles = ["measure", "filter"], bounds = [0, 60]'),
)
# What a policy calls unknown is NULL, and a period is known by its first day.
CLEAN = """
    SELECT patient_id, CASE WHEN ward IN ('medicine', 'surgery') THEN ward END AS ward,
           CASE WHEN grade IN (0, 1, 2) THEN grade::BIGINT END AS grade, age, cost::DECIMAL(18, 3) AS cost, smoker,
           nullif(trim(region), '') AS region, stay, date_trunc('month', seen) AS seen
    FROM read_parquet(?) WHERE patient_id IS NOT NULL AND seen IS NOT NULL
"""
GROUPINGS = (
    "CASE WHEN age < 50 THEN 'under 50' WHEN age < 65 THEN '50 to 64' ELSE '65 and over' END",
    "CASE WHEN age < 18 THEN 'child' WHEN age IS NULL THEN NULL WHEN smoker THEN 'smoker' END",
    "CASE WHEN age < 18 THEN 1 WHEN cost > 100.5 THEN 2.5 ELSE 0 END",
    "CASE WHEN age < stay THEN 'a' WHEN age = stay THEN 'b' WHEN NOT age < stay THEN 'c' END",
    "CASE ward WHEN 'surgery' THEN 'cut' WHEN 'medicine' THEN 'cured' ELSE 'other' END",
    "CASE WHEN smoker THEN CASE WHEN ward = 'surgery' THEN 'x' END WHEN grade >= 1 THEN 'y' ELSE 'z' END",
    "age // 10", "FLOOR(age / 10) * 10", "age - age % 25", "CAST(age / 20 AS INTEGER)", "age % 3",
    "FLOOR(cost / 500)", "CEIL(cost / 700)", "ROUND(cost / 1000)", "FLOOR((cost + 50) / 250) * 250",
    "COALESCE(age // 50, -1)", "LEAST(age // 10, 5)",
    "age >= 65", "NOT age >= 65", "smoker", "age IS NULL", "age < stay", "smoker AND age > 40", "grade = 1 OR smoker",
    "grade + 1", "grade * grade", "grade % 2 = 0", "-grade",
    "SUBSTR(ward, 1, 1)", "LEFT(ward, 3) || '!'", "UPPER(RIGHT(ward, 2))", "LENGTH(ward)", "COALESCE(ward, 'none')",
    "ward LIKE 's%'", "ward IN ('surgery', 'cellar')", "NULLIF(ward, 'surgery')", "REPLACE(ward, 'e', '')",
    "year(seen)", "quarter(seen)", "month(seen)", "date_trunc('quarter', seen)", "date_trunc('year', seen)",
    "EXTRACT(year FROM seen)", "year(seen) * 10 + quarter(seen)", "ward", "grade",
)  # fmt: skip
CONDITIONS = (
    "ward LIKE 's%'", "ward NOT LIKE 's%'", "ward ILIKE 'SUR%'", "ward LIKE 'nothing'", "ward NOT LIKE 'nothing'",
    "SUBSTR(ward, 1, 1) = 'm'", "SUBSTR(ward, 2, 1) IN ('u', 'x')", "LENGTH(ward) > 7",
    "ward <> 'surgery'",
    "NOT ward = 'surgery'", "ward IS NULL", "ward IS NOT NULL", "COALESCE(ward, 'surgery') = 'surgery'",
    "grade <= 1", "grade < 5", "NOT grade <= 0", "grade <> 1", "grade IS NULL",
    "grade IN (0, 2)", "grade NOT IN (0, 2)",
    "grade + 1 > 1", "grade % 2 = 0", "COALESCE(grade, 2) >= 2", "NOT COALESCE(grade, 2) >= 2",
    "age + 1 > 50", "2 * age <= 31", "50 > age - 3", "-age > -40", "age / 4 = 10", "age * 2 = 5", "age * 2 <> 5",
    "age * 3 < 100", "age BETWEEN 20 AND 40", "age NOT BETWEEN 20 AND 40", "age + 1 BETWEEN 20 AND 40",
    "COALESCE(age, 0) < 5", "NOT COALESCE(age, 0) < 5", "COALESCE(age, 50) > 5", "age % 7 = 3", "ABS(age - 40) < 5",
    "age // 10 = 3", "age IS DISTINCT FROM 30", "age IS NOT DISTINCT FROM 30", "NOT age IS DISTINCT FROM 30",
    "age < stay", "age = stay", "age <> stay", "NOT age >= stay", "grade < age", "grade = stay", "ward < region",
    "stay BETWEEN grade AND age", "ABS(cost) > 300", "FLOOR(cost) = 3", "cost * 2 >= 0.01", "smoker IS TRUE",
    "smoker IS NOT TRUE", "NOT smoker", "NOT (smoker AND ward LIKE 's%')", "NOT (smoker OR grade % 2 = 1)",
    "year(seen) = 2026", "quarter(seen) IN (1, 3)", "NOT month(seen) > 6",
    "CASE WHEN age > 3 THEN TRUE WHEN age > 1 THEN NULL ELSE FALSE END",
)  # fmt: skip


@pytest.fixture(scope="module")
def by() -> Policy:
    return policy(*DATED)


def rows_of(random: Random, persons: int, most: int) -> list[Row]:
    """Return rows with missing cells, members that no policy lists, decimals, dates and duplicates."""
    made = []
    for person in range(persons):
        for _ in range(random.randint(1, most)):
            day = datetime.fromtimestamp(CREATED_AT, UTC).date() - timedelta(days=random.randint(0, 590))
            made.append(
                {
                    "patient_id": f"p{person}",
                    "ward": random.choice(["medicine", "surgery", "cellar", None]),
                    "grade": random.choice([-1, 0, 1, 2, 7, None]),
                    "age": random.choice([None, *range(0, 111, 3), 30, 50, 65]),
                    "cost": random.choice(
                        [None, random.randint(-50_000, 5_000_000) / 1000, random.randint(-50, 700), 3]
                    ),
                    "smoker": random.choice([True, False, None]),
                    "region": random.choice(["north", "south", "m", "", None]),
                    "stay": random.choice([None, *range(61)]),
                    "seen": day,
                }
            )
    return made + random.sample(made, min(10, len(made)))


def stored(home: Path, by: Policy, rows: list[Row]) -> Source:
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), home / "visits.parquet")
    return source_of(by, "visits", home)


def answer(source: Source, asked: Request) -> list[list[int]]:
    with opened(source) as database:
        return [each.tolist() for each in execute(database, source, "patient_id", asked)]


def offer(by: Policy) -> Offer:
    analyst = Analyst(key=KEY, purposes=tuple(by.purposes), until=datetime(2100, 1, 1, tzinfo=UTC))
    return Offer({"north": catalogue_of(by, analyst, "fed", bytes(32), bytes(16), CREATED_AT)})


def label(cell: Any) -> str | None:
    """Return a value of DuckDB as a label: a whole number without decimals, a day without a time."""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float | Decimal | int):
        number = Decimal(str(cell))
        return str(int(number)) if number == number.to_integral_value() else str(number)
    return None if cell is None else str(cell).removesuffix(" 00:00:00")


def counted(source: Source, by: Policy, sql: str) -> dict[tuple[str | None, ...], tuple[int, int]]:
    """Return the rows, and the sum of ages, of each group that has rows, as a silo computes them."""
    planned = plan(sql, offer(by))
    asked = request(table=planned.table, plan=planned.plan)
    assert isinstance(asked.plan, Plan)
    by_name = dict(zip(asked.plan.statistics(asked.table), answer(source, asked), strict=True))
    rows, present, total = (
        next(vector for one, vector in by_name.items() if one.kind == kind) for kind in ("rows", "present", "total")
    )
    wanted = [name for name in planned.output if name in planned.names]
    order = [asked.plan.group_by.index(planned.names[name]) for name in wanted]
    unknown = [
        None if name in {one.name for one in asked.plan.cases} else asked.table.column(name).unknown
        for name in asked.plan.group_by
    ]
    found = {}
    for place, group in enumerate(asked.plan.groups(asked.table)):
        if rows[place]:
            cells = [
                None if cell == other and other is not None else cell
                for cell, other in zip(group, unknown, strict=True)
            ]
            found[tuple(cells[at] for at in order)] = rows[place], (total[place] + 110 * present[place]) // 2
    return found


def expected(home: Path, sql: str) -> dict[tuple[str | None, ...], tuple[int, int]]:
    with duckdb.connect() as database:
        database.execute(f"CREATE TABLE visits AS {CLEAN}", [str(home / "visits.parquet")])
        found = database.execute(sql).fetchall()
    return {tuple(map(label, group)): (count, int(ages or 0)) for *group, count, ages in found if count}


def asked_of(random: Random) -> str:
    """Return a random question: one or two groupings, and up to two conditions, negated or not."""
    groupings = random.sample(GROUPINGS, random.choice([0, 1, 1, 1, 2]))
    conditions = [
        random.choice(["", "NOT "]) + f"({one})" for one in random.sample(CONDITIONS, random.choice([0, 1, 2]))
    ]
    selected = [f"{one} AS g{place}" for place, one in enumerate(groupings)]
    where = f" WHERE {random.choice([' AND ', ' OR ']).join(conditions)}" if conditions else ""
    by = f" GROUP BY {', '.join(f'g{place}' for place in range(len(groupings)))}" if groupings else ""
    return f"SELECT {', '.join([*selected, 'COUNT(*) AS n', 'SUM(age) AS ages'])} FROM visits{where}{by}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_questions_count_what_duckdb_counts_at_each_silo(tmp_path: Path, by: Policy, seed: int) -> None:
    random = Random(seed)  # noqa: S311
    homes = [tmp_path / "one", tmp_path / "two"]
    for home in homes:
        home.mkdir()
    sources = [stored(home, by, rows_of(random, 60, 4)) for home in homes]
    for _ in range(50):
        sql = asked_of(random)
        summed, truth = Counter[Any](), Counter[Any]()
        for home, source in zip(homes, sources, strict=True):
            for found, into in ((counted(source, by, sql), summed), (expected(home, sql), truth)):
                for group, figures in found.items():
                    into.update({(group, place): figure for place, figure in enumerate(figures)})
        assert +summed == +truth, sql


@pytest.mark.slow
def test_each_grouping_and_each_condition_counts_what_duckdb_counts(tmp_path: Path, by: Policy) -> None:
    source = stored(tmp_path, by, rows_of(Random(7), 100, 5))  # noqa: S311
    for grouping in GROUPINGS:
        sql = f"SELECT {grouping} AS g, COUNT(*) AS n, SUM(age) AS ages FROM visits GROUP BY g"
        assert counted(source, by, sql) == expected(tmp_path, sql), grouping
    for condition in CONDITIONS:
        for negated in ("", "NOT "):
            sql = f"SELECT COUNT(*) AS n, SUM(age) AS ages FROM visits WHERE {negated}({condition})"
            assert counted(source, by, sql) == expected(tmp_path, sql), sql


def test_what_lies_outside_the_bounds_counts_with_the_nearest_value(tmp_path: Path, by: Policy) -> None:
    whole = rows_of(Random(1), 5, 1)[:5]  # noqa: S311
    ages = (-7, 0, 110, 119, 10**15)
    rows = [{**row, "patient_id": f"q{age}", "age": age} for row, age in zip(whole, ages, strict=True)]
    source = stored(tmp_path, by, rows)
    sql = "SELECT age // 10 AS g, COUNT(*) AS n, SUM(age) AS ages FROM visits GROUP BY g"
    assert {group: count for group, (count, _) in counted(source, by, sql).items()} == {("0",): 2, ("11",): 3}
    sql = "SELECT age >= 119 AS g, COUNT(*) AS n, SUM(age) AS ages FROM visits GROUP BY g"
    assert {group: count for group, (count, _) in counted(source, by, sql).items()} == {("true",): 2, ("false",): 3}


def test_a_missing_value_of_a_whole_number_is_below_nothing(tmp_path: Path, by: Policy) -> None:
    """`grade` has unknown = -1: it was counted as a number below 1."""
    made = rows_of(Random(2), 6, 1)  # noqa: S311
    rows = [{**row, "grade": grade} for row, grade in zip(made, [None, -1, 7, 0, 1, 2], strict=False)]
    source = stored(tmp_path, by, rows)

    def count(where: str) -> int:
        sql = f"SELECT COUNT(*) AS n, SUM(age) AS ages FROM visits WHERE {where}"
        return counted(source, by, sql).get((), (0, 0))[0]

    below = ("<= 1", "< 2", "<> 0", "> -1", ">= -1", "IN (0, 1)")
    assert [count(f"grade {rest}") for rest in below] == [2, 2, 2, 3, 3, 2]
    assert [count(rest) for rest in ("NOT grade > 1", "NOT grade = 0", "NOT grade IN (0, 1)")] == [2, 2, 1]
    missing = ("IS NULL", "IS NOT NULL", "= -1", "<> -1", "IN (-1, 0)")
    assert [count(f"grade {rest}") for rest in missing] == [3, 3, 3, 3, 4]
    assert count("NOT grade IN (-1, 0)") == 2


SHAPES: st.SearchStrategy[Any] = st.sampled_from(
    [
        Compare(column="age", op="<", value="40"),
        Compare(column="grade", op=">=", value="1"),
        Compare(column="ward", op="=", value="surgery"),
        OneOf(column="ward", values=("unknown", "medicine")),
        IsNull(column="smoker"),
        CompareColumns(column="age", op="<", other="stay"),
        CompareColumns(column="grade", op="<>", other="stay"),
        Compare(column="smoker", op="=", value="true"),
    ]
)
WHENS: st.SearchStrategy[Any] = st.recursive(
    SHAPES,
    lambda inner: st.one_of(
        st.builds(Not, operand=inner),
        st.builds(Both, operands=st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Either, operands=st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=4,
)


@st.composite
def cases(draw: st.DrawFn, name: str) -> Cases:
    whens = draw(st.lists(WHENS, min_size=1, max_size=4).map(tuple))
    labels = draw(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=len(whens), max_size=len(whens)).map(tuple))
    return Cases(name=name, whens=whens, labels=labels, otherwise=draw(st.sampled_from(["a", "d", None])))


CELLS = st.fixed_dictionaries(
    {
        "patient_id": st.sampled_from(["p", "q", "r"]),
        "ward": st.sampled_from(["medicine", "surgery", "cellar", None]),
        "grade": st.sampled_from([-1, 0, 1, 2, None]),
        "age": st.none() | st.integers(-10, 120),
        "smoker": st.none() | st.booleans(),
        "stay": st.none() | st.integers(-5, 70),
    }
)
FIGURES = (
    Aggregate(function="count", column=None, alias="n"),
    Aggregate(function="avg", column="age", alias="age"),
    Aggregate(function="sum", column="stay", alias="stay"),
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(CELLS, min_size=1, max_size=14),
    grouping=st.tuples(cases("one"), cases("two")),
    extra=st.sampled_from([(), ("ward",)]),
    where=st.none() | WHENS,
    max_rows=st.integers(1, 5),
)
def test_one_person_changes_no_figure_by_more_than_its_sensitivity(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    grouping: tuple[Cases, Cases],
    extra: tuple[str, ...],
    where: Predicate | None,
    max_rows: int,
) -> None:
    """All rows of one person are taken away, who may be in many groups; of the others none is cut."""
    counts = Counter[str]()
    kept = []
    for row in rows:
        counts[row["patient_id"]] += 1
        if row["patient_id"] == "p" or counts[row["patient_id"]] <= max_rows:
            kept.append(dict.fromkeys(SCHEMA.names) | row)
    by, home = policy(), tmp_path_factory.mktemp("silo")
    asked = request(
        table=table(max_rows=max_rows),
        plan=Plan(where=where, group_by=("one", *extra, "two"), aggregates=FIGURES, cases=grouping, counts_cut=True),
    )
    with_p = answer(stored(home, by, kept), asked)
    without = answer(stored(home, by, [row for row in kept if row["patient_id"] != "p"]), asked)
    for (statistic, extent), one, other in zip(
        asked.plan.statistics(asked.table).items(), with_p, without, strict=True
    ):
        assert len(one) == extent.length
        change = sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
        assert change <= extent.sensitivity**2, statistic
        if statistic.kind == "rows":
            assert sum(one) <= len(kept), "a row is in one group"
