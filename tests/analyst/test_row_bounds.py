"""Figures of a person without a stated bound: the bounds of the policy's rows, what is told of them, pooled rows."""

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from analyst.demo import retailers
from analyst.demo.sector import found_sector
from analyst.preview import asks_of
from analyst.reports.estimates import Estimate
from analyst.sql.plan import plan
from tests.analyst.test_sql import OFFER, refusal
from tests.cases import every
from tests.harness.example_policy import Edit, offer, policy
from tests.harness.simulator import Simulation, no_noise, simulate

MANY = offer(policy(Edit("max_rows  = 2", "max_rows  = 300")))
ROWS = "(SELECT customer_id, COUNT(*) AS n, SUM(amount) AS spend FROM {table} GROUP BY customer_id)"
COUNTS = "SELECT {what} FROM (SELECT patient_id, COUNT(*) AS n, SUM(cost) AS s FROM visits GROUP BY patient_id)"


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Simulation, duckdb.DuckDBPyConnection]]:
    """Return the demo's shops without noise, and their pooled rows within what a policy says of one row."""
    path = tmp_path_factory.mktemp("shops") / "federation"
    found_sector(path, retailers.SECTOR)
    pooled = duckdb.connect()
    pooled.register("purchases", retailers.read_purchases())
    pooled.execute("CREATE TABLE bounded AS SELECT * REPLACE (LEAST(amount, 250) AS amount) FROM purchases")
    with simulate(path, noise=no_noise) as simulation:
        yield simulation, pooled


def of(cell: Any) -> float:
    value = cell.value if isinstance(cell, Estimate) else cell
    assert value is not None
    return float(value)


@every(
    "question",
    [
        "SELECT AVG(LEAST(n, 100)) AS x, SUM(LEAST(n, 100)) AS y FROM {rows}",
        "SELECT AVG(LEAST(spend, 25000)) AS x FROM {rows}",
        "SELECT n > 1 AS again, AVG(LEAST(spend, 25000)) AS x FROM {rows} GROUP BY again ORDER BY again",
        "SELECT AVG(LEAST(spend, 25000)) / AVG(LEAST(n, 100)) AS x FROM {rows} WHERE n > 2",
        "SELECT LEAST(n, 100) AS k, COUNT(*) AS x FROM {rows} GROUP BY k ORDER BY k LIMIT 2",
    ],
)
def test_figures_are_those_of_the_pooled_rows(
    question: str, shops: tuple[Simulation, duckdb.DuckDBPyConnection]
) -> None:
    simulation, pooled = shops
    unbounded = question.replace("LEAST(spend, 25000)", "spend").replace("LEAST(n, 100)", "n").replace("n AS k", "n")
    asked = unbounded.replace("BY k", "BY n").format(rows=ROWS.format(table="purchases"))
    report = simulation.federation.query(asked, purpose=retailers.SECTOR.purpose, epsilon=0.05)
    expected = pooled.execute(question.format(rows=ROWS.format(table="bounded"))).fetchall()
    assert [[of(cell) for cell in row.values()] for row in report.rows] == [
        pytest.approx([float(one) for one in row], rel=1e-6) for row in expected
    ]


def test_the_answer_tells_the_bounds_and_who_was_clamped(shops: tuple[Simulation, duckdb.DuckDBPyConnection]) -> None:
    simulation, _ = shops
    asked = f"SELECT AVG(n) AS n, AVG(spend) AS s FROM {ROWS.format(table='purchases')}"
    report = simulation.federation.query(asked, purpose=retailers.SECTOR.purpose, epsilon=0.5)
    assert report.definition["inner"]["n"]["bounds"] == [0, 100]
    assert report.definition["inner"]["spend"]["bounds"] == [0, 25_000]
    assert report.cut is not None
    assert any("of persons had a value clamped to its bounds" in line for line in report.cut.in_words())


def test_explain_says_a_bound_that_the_question_does_not_state() -> None:
    said = asks_of(plan(COUNTS.format(what="AVG(n), AVG(s)"), OFFER))
    assert "; n is from 0 to 2, as of 2 rows a person" in said
    assert "; s is from -100 to 10,000, as of 2 rows a person" in said
    assert "as of" not in asks_of(plan(COUNTS.format(what="AVG(LEAST(n, 1))"), OFFER))


def test_a_count_of_many_rows_is_averaged_and_grouped_by_within_a_stated_bound_alone() -> None:
    assert plan(COUNTS.format(what="AVG(n)"), MANY).plan.aggregates
    error = refusal(COUNTS.format(what="n, COUNT(*)") + " GROUP BY n", MANY)
    assert error.message.endswith("has as many groups as a person has rows, up to 300")
    assert error.hint.startswith("write LEAST(COUNT(*), 20) AS n")
    assert plan(COUNTS.format(what="LEAST(n, 20), COUNT(*)") + " GROUP BY 1", MANY).plan.group_by


def test_a_sum_of_too_many_steps_is_refused_with_a_narrower_one() -> None:
    wide = offer(policy(Edit("max_rows  = 2", "max_rows  = 10_000")))
    error = refusal(COUNTS.format(what="AVG(s)"), wide)
    assert "steps, at most 4,294,967,296 are added" in error.message
    assert "LEAST(SUM(cost)" in error.hint
