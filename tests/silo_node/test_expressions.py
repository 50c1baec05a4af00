"""Measures that are expressions: as DuckDB has them, and no person changes a sum by more than the price assumes."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from analyst.errors import SqlError
from analyst.reports.estimates import Estimate, Threshold, interpret
from analyst.sql.plan import plan as plan_of
from policies.requests.query import Plan
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from silo_node.data import answer
from silo_node.data.coded import NO_NUMBER, Members, Numbers, Rows, Run, Steps
from silo_node.data.expressions import in_steps
from silo_node.data.lots import SECRET_BYTES, Lots
from tests.cases import every
from tests.harness.example_policy import STORED, offer, policy, request
from tests.harness.sums import opened_as
from tests.silo_node.test_persons import computed

Row = dict[str, Any]
SCHEMA = pa.schema(STORED)
OFFER = offer(policy())
EXPRESSIONS = 400  # random ones
ENOUGH = 100  # that have bounds
WARDS = ("medicine", "surgery", None)
CONDITIONS = ("age >= 65", "smoker", "stay < 10 AND NOT smoker", "ward = 'surgery'", "cost > 100.5", "age IS NULL")


def visits(random: np.random.Generator, rows: int) -> list[Row]:
    """Return random rows with nulls, decimals, values outside the bounds, and persons with several rows."""

    def some(value: Any) -> Any:
        return None if random.random() < 0.15 else value

    return [
        {
            "patient_id": f"p{random.integers(rows // 2 + 1)}",
            "ward": WARDS[random.integers(3)],
            "age": some(int(random.integers(-5, 130))),
            "cost": some(float(np.round(random.normal(100, 700), 2))),
            "smoker": some(bool(random.integers(2))),
            "stay": some(int(random.choice([0, 1, 2, 3, 60, 70]))),
        }
        for _ in range(rows)
    ]


def expression(random: np.random.Generator, depth: int) -> str:
    """Return a random expression, which need not have bounds."""
    if not depth or random.random() < 0.15:
        leaves = ["age", "cost", "stay", "CAST(smoker AS INT)", "age", "cost", "stay", "3", "0.25", "100", "-7"]
        return str(random.choice(leaves))

    def more() -> str:
        return expression(random, depth - 1)

    form = random.choice(
        [
            "({0} + {1})", "({0} - {1})", "({0} * {1})", "({0} / {1})", "({0} / GREATEST({1}, 1))", "-({0})",
            "LEAST({0}, {1})", "GREATEST({0}, {1})", "ABS({0})", "LEAST({0}, 40)", "ROUND({0})", "ROUND({0}, 1)",
            "FLOOR({0})", "CEIL({0})", "SQRT(ABS({0}))", "LN(ABS({0}) + 1)", "COALESCE({0}, {1})", "NULLIF({0}, 3)",
            "CASE WHEN {2} THEN {0} ELSE {1} END", "CASE WHEN {2} THEN {0} END", "CAST({0} AS INT)", "SIGN({0})",
            "({0} * {1} + 2)", "EXP(LEAST({0}, 3) / 10)", "POWER({0}, 2)", "TRUNC({0})",
        ]
    )  # fmt: skip
    return str(form).format(more(), more(), random.choice(CONDITIONS))


def truth(sql: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Return what DuckDB says of cells within their bounds."""
    table = pa.Table.from_pylist([dict.fromkeys(SCHEMA.names) | row for row in rows], schema=SCHEMA)
    with duckdb.connect() as connection:
        connection.register("raw", table)
        connection.execute(
            "CREATE TABLE visits AS SELECT patient_id, ward,"
            " CASE WHEN age IS NOT NULL THEN greatest(least(age, 110), 0) END AS age,"
            " CASE WHEN cost IS NOT NULL THEN greatest(least(cost, 5000), -50)::DECIMAL(18, 2) END AS cost,"
            " smoker, CASE WHEN stay IS NOT NULL THEN greatest(least(stay, 60), 0) END AS stay FROM raw"
        )
        (found,) = connection.sql(sql).to_arrow_table().to_pylist()
    return dict(found)


def planned(sql: str, **changes: Any) -> Request:
    found = plan_of(sql, OFFER, **changes)
    return request(table=found.table.model_copy(update={"max_rows": 1000}), plan=found.plan)


def sum_of(asked: Request, vectors: list[list[int]]) -> tuple[TableColumn, int, Fraction]:
    """Return the definition of the first measure, the number of its cells, and their exact sum."""
    plan = asked.plan
    assert isinstance(plan, Plan)
    figures, seen = dict(zip(plan.statistics(asked.table), vectors, strict=True)), plan.seen(asked.table)
    column = seen.column(plan.aggregates[0].column or "")
    first, second = plan.aggregates[0].statistics(seen)
    count, total = figures[first][0], figures[second][0]
    assert column.low is not None
    assert column.high is not None
    return (
        column,
        count,
        Fraction(column.step or 1) * (Fraction(total, 2) + count * Fraction(column.low + column.high, 2)),
    )


@pytest.mark.slow
def test_a_random_expression_is_what_duckdb_says(tmp_path: Path) -> None:
    """Exactly where its own step holds, else within rows x half a step."""
    random, exact, rounded = np.random.default_rng(42), 0, 0
    rows = visits(random, 60)
    for place in range(EXPRESSIONS):
        text = expression(random, 1 + place % 3)
        sql = f"SELECT SUM({text}) AS s FROM visits"
        try:
            asked = planned(sql)
        except SqlError:
            continue
        if not isinstance(asked.plan, Plan) or not asked.plan.derived:
            continue
        try:
            true = truth(f"SELECT COUNT({text}) AS n, SUM({text})::DOUBLE AS s FROM visits", rows)
        except duckdb.Error:  # DuckDB's own decimals and whole numbers overflow
            continue
        column, count, total = sum_of(asked, computed(tmp_path, rows, asked))
        assert count == (len(rows) if not column.can_be_missing else true["n"]), text
        found, step = float(total), float(column.step or 1)
        if step in (1.0, 0.01) and abs(found) < 1e9:
            assert found == pytest.approx(true["s"] or 0.0, abs=1e-6), text
            exact += 1
        else:
            assert abs(found - (true["s"] or 0.0)) <= count * step / 2 + 1e-9 * (1 + abs(found)), text
            rounded += 1
    assert exact > ENOUGH / 2
    assert rounded > ENOUGH / 2


QUESTIONS = (
    "SELECT AVG(cost / NULLIF(age, 0)) AS f FROM visits",
    "SELECT SUM(age * stay) AS f FROM visits",
    "SELECT AVG(cost / age) AS f FROM visits WHERE age >= 18",
    "SELECT AVG(LEAST(GREATEST(cost, 0), 1000)) AS f FROM visits WHERE smoker",
    "SELECT SUM(CASE WHEN smoker THEN age ELSE -stay END) AS f FROM visits",
    "SELECT AVG((age >= 65)::INT) AS f FROM visits",
    "SELECT SUM(CAST(smoker AS INT) * age) AS f FROM visits",
    "SELECT VAR_POP(age * 2 + 1) AS f FROM visits",
    "SELECT CORR(age / 10, SQRT(stay)) AS f FROM visits",
    "SELECT REGR_SLOPE(cost - stay, LN(age + 1)) AS f FROM visits",
    "SELECT COUNT(NULLIF(age, 0)) AS f FROM visits",
)
CONDITIONED = (
    ("SELECT VAR_POP(age) FILTER (WHERE smoker) AS f FROM visits", "SELECT VAR_POP(age) AS f FROM visits WHERE smoker"),
    (
        "SELECT CORR(age, cost) FILTER (WHERE stay > 1) AS f FROM visits",
        "SELECT CORR(age, cost) AS f FROM visits WHERE stay > 1",
    ),
    (
        "SELECT AVG(cost / age) FILTER (WHERE age >= 18) AS f FROM visits",
        "SELECT AVG(cost / age) AS f FROM visits WHERE age >= 18",
    ),
)


def figure(sql: str, rows: Sequence[Row], home: Path) -> float:
    """Return the one figure of a question without noise."""
    found = plan_of(sql, OFFER)
    asked = request(table=found.table.model_copy(update={"max_rows": 1000}), plan=found.plan)
    vectors = computed(home, rows, asked)
    opened = opened_as(asked, vectors)
    (row,), _ = interpret(found, asked, opened, Threshold(0, False, 0.0))
    (cell,) = row.values()
    assert isinstance(cell, Estimate)
    assert cell.value is not None
    return cell.value


@every("sql", QUESTIONS)
def test_a_figure_of_an_expression_is_that_of_duckdb(sql: str, tmp_path_factory: Any) -> None:
    rows = visits(np.random.default_rng(len(sql)), 400)
    true = truth(sql.replace("AS f", "::DOUBLE AS f"), rows)["f"]
    assert figure(sql, rows, tmp_path_factory.getbasetemp()) == pytest.approx(true, rel=2e-5)


@every(("sql", "same"), CONDITIONED)
def test_a_condition_of_any_aggregate_is_one_of_rows(sql: str, same: str, tmp_path_factory: Any) -> None:
    rows = visits(np.random.default_rng(len(sql)), 400)
    home = tmp_path_factory.getbasetemp()
    assert figure(sql, rows, home) == pytest.approx(truth(same.replace("AS f", "::DOUBLE AS f"), rows)["f"], rel=2e-5)


# What a person may bring: cells at the ends of their bounds, beyond them, near 0 and missing.
CELLS = {
    "age": (0, 1, 18, 110, None, 200),
    "cost": (-5000, 0, 1, 500_000, None, 10**7),
    "stay": (0, 1, 60, None, 99),
    "smoker": (0, 1, None),
}


def worst(random: np.random.Generator, persons: int, rows: int) -> Rows:
    """Return rows of persons with such cells; a cell is in steps above the lower bound."""
    size = persons * rows
    person = np.repeat(np.arange(persons), rows)

    def drawn(name: str) -> np.ndarray:
        values = CELLS[name]
        return np.array([-2 if (one := values[random.integers(len(values))]) is None else one for _ in range(size)])

    cells: dict[Any, Any] = {}
    for name, low, width in (("age", 0, 110), ("cost", -5000, 505_000), ("stay", 0, 60)):
        steps = drawn(name)
        above = np.where(steps == -2, -2, np.clip(steps - low, -1, width + 1))
        cells["steps", name] = Steps(above, low, width)
        whole, rest = np.divmod(low + above, 100) if name == "cost" else (low + above, 0 * above)
        cells["number", name] = Numbers(np.where(above == -2, NO_NUMBER, whole), rest * 10**7)
    smoker = drawn("smoker")
    cells["member", "smoker"] = Members(np.where(smoker == -2, -1, smoker), ("false", "true"))
    cells["member", "ward"] = Members(random.integers(0, 3, size), ("medicine", "surgery", "unknown"))
    return Rows(person, persons, (Run(0, 0, size),), cells)


def sensitive() -> Iterator[Request]:
    for sql in (*QUESTIONS, *(sql for sql, _ in CONDITIONED)):
        for more in ("", " GROUP BY ward"):
            yield planned(sql.replace("SELECT ", f"SELECT {'ward, ' if more else ''}", 1) + more)
    random = np.random.default_rng(3)
    for place in range(EXPRESSIONS):
        text = expression(random, 1 + place % 3)
        try:
            asked = planned(f"SELECT ward, AVG({text}) AS a, VAR_POP({text}) AS v FROM visits GROUP BY ward")
        except SqlError:
            continue
        yield asked


@pytest.mark.slow
def test_no_person_changes_a_sum_by_more_than_the_price_assumes() -> None:
    """Neighbours differ in one person with any cells in several groups; each computes on its own rows alone."""
    random, tried, reached = np.random.default_rng(11), 0, 0.0
    for asked in sensitive():
        asked = asked.model_copy(update={"table": asked.table.model_copy(update={"max_rows": 4})})
        rows, lots = worst(random, 40, 5), Lots(bytes(SECRET_BYTES))
        extents = asked.plan.statistics(asked.table)
        whole = answer.question(rows, asked, np.ones(40, np.bool_), lots, None)
        for place in range(40):
            rest = answer.question(rows, asked, np.arange(40) != place, lots, None)
            for (statistic, extent), one, other in zip(extents.items(), whole, rest, strict=True):
                changed = int(((one - other) ** 2).sum())
                assert changed <= extent.squared, (statistic, asked.plan.in_words("visits"))
                reached = max(reached, changed / extent.squared)
                tried += 1
    assert tried >= 10_000
    assert reached > 0.9, "the bound is no larger than it has to be"


def test_sums_are_the_same_however_rows_are_divided() -> None:
    rows = worst(np.random.default_rng(5), 64, 3)
    for sql in QUESTIONS[:1] + QUESTIONS[7:10]:
        asked, lots = planned(sql), Lots(bytes(SECRET_BYTES))
        whole = answer.question(rows, asked, np.ones(64, np.bool_), lots, None)
        parts = [answer.question(rows, asked, np.arange(64) % 3 == part, lots, None) for part in range(3)]
        assert [one.tolist() for one in whole] == [one.tolist() for one in answer.added(parts)]


def test_what_is_no_number_is_missing_and_what_lies_beyond_is_the_bound() -> None:
    column = TableColumn(name="x", type="decimal", low=-10, high=10, step="0.5")
    values = np.array([np.nan, np.inf, -np.inf, -1e300, 1e300, -5.0, 5.0, 0.2, 0.3, -0.2])
    assert in_steps(values, column).tolist() == [-2, -2, -2, -1, 21, 0, 20, 10, 11, 10]
