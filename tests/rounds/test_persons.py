"""Questions about persons over four silos without noise: what DuckDB says of each silo's rows, added."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

from analyst.demo import retailers
from analyst.demo.sector import found_sector
from analyst.errors import AnalystError, DeniedError, SqlError
from analyst.reports.estimates import Estimate
from analyst.reports.render import render
from analyst.reports.report import Report
from analyst.verify import verify
from tests.harness.simulator import Simulation, no_noise, simulate
from tests.rounds.test_rounds import rewrite_policies

pytestmark = pytest.mark.slow
# Each with what DuckDB is asked at every silo, where that is written otherwise.
QUESTIONS = {
    "SELECT COUNT(DISTINCT customer_id) AS customers FROM purchases": None,
    "SELECT COUNT(DISTINCT customer_id) AS n FROM purchases WHERE cds >= 3 AND quarter <> '1997Q1'": None,
    "SELECT quarter, COUNT(DISTINCT customer_id) AS n FROM purchases GROUP BY quarter": None,
    "SELECT quarter, COUNT(DISTINCT customer_id) AS n, SUM(cds) AS cds FROM purchases WHERE quarter > '1997Q2'"
    " GROUP BY quarter":
    "SELECT quarter, COUNT(DISTINCT customer_id) AS n, SUM(LEAST(cds, 20)) AS cds FROM purchases"
    " WHERE quarter > '1997Q2' GROUP BY quarter",
    "SELECT COUNT(*) AS repeat FROM (SELECT customer_id FROM purchases GROUP BY customer_id HAVING COUNT(*) > 1)": None,
    "WITH f AS (SELECT customer_id, MIN(quarter) AS cohort FROM purchases GROUP BY customer_id)"
    " SELECT cohort, COUNT(*) AS n FROM f GROUP BY cohort": None,
    "SELECT n, COUNT(*) AS customers FROM (SELECT customer_id, LEAST(COUNT(*), 6) AS n FROM purchases"
    " GROUP BY customer_id) GROUP BY n": None,
    "SELECT SUM(n) AS orders, SUM(spent) AS spent, COUNT(*) AS customers FROM (SELECT customer_id,"
    " LEAST(COUNT(*), 20) AS n, LEAST(SUM(amount), 500) AS spent FROM purchases GROUP BY customer_id)":
    "SELECT SUM(n) AS orders, SUM(spent) AS spent, COUNT(*) AS customers FROM (SELECT customer_id, LEAST(COUNT(*), 20)"
    " AS n, LEAST(SUM(LEAST(amount, 250)), 500) AS spent FROM purchases GROUP BY customer_id)",
    "SELECT COUNT(*) AS baskets FROM (SELECT customer_id FROM purchases GROUP BY customer_id HAVING"
    " COUNT(*) FILTER (WHERE cds = 1) > 0 AND COUNT(*) FILTER (WHERE cds = 2) > 0)": None,
    "SELECT quarter, COUNT(*) AS n, SUM(k) AS k FROM (SELECT customer_id, quarter, LEAST(COUNT(*), 5) AS k, SUM(cds)"
    " AS c FROM purchases GROUP BY customer_id, quarter) WHERE c > 2 GROUP BY quarter":
    "SELECT quarter, COUNT(*) AS n, SUM(k) AS k FROM (SELECT customer_id, quarter, LEAST(COUNT(*), 5) AS k,"
    " SUM(LEAST(cds, 20)) AS c FROM purchases GROUP BY customer_id, quarter) WHERE c > 2 GROUP BY quarter",
    "SELECT cohort, quarter, COUNT(DISTINCT customer_id) AS n FROM (SELECT customer_id, quarter, MIN(quarter) OVER"
    " (PARTITION BY customer_id) AS cohort FROM purchases GROUP BY customer_id, quarter)"
    " GROUP BY cohort, quarter": None,
    "SELECT size, COUNT(*) AS n FROM (SELECT customer_id, CASE WHEN cds > 3 THEN 'big' ELSE 'small' END AS size"
    " FROM purchases GROUP BY customer_id, size HAVING COUNT(*) > 1) GROUP BY size": None,
    "SELECT COUNT(*) AS n FROM (SELECT customer_id FROM purchases GROUP BY customer_id"
    " HAVING COUNT(DISTINCT quarter) >= 3)": None,
    "SELECT COUNT(*) AS n FROM (SELECT customer_id FROM purchases GROUP BY customer_id HAVING SUM(amount) > 500)":
    "SELECT COUNT(*) AS n FROM (SELECT customer_id FROM purchases GROUP BY customer_id"
    " HAVING SUM(LEAST(amount, 250)) > 500)",
    "SELECT last, COUNT(*) AS n FROM (SELECT customer_id, MIN(quarter) AS first, MAX(quarter) AS last FROM purchases"
    " GROUP BY customer_id) WHERE first = '1997Q1' AND last >= '1997Q3' GROUP BY last": None,
}  # fmt: skip
SHARED = 300  # purchases of the first shop's customers that the second shop has too


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Simulation, Path]]:
    """Four shops without noise and without a cohort; some customers are known to two of them."""
    path = tmp_path_factory.mktemp("shops") / "federation"
    found_sector(path, retailers.SECTOR)
    rewrite_policies(path, "min_cohort     = 2600", "min_cohort     = 2")
    rewrite_policies(path, "lifetime    = { rho = 1.0 }", "lifetime    = { rho = 9.0 }")
    rewrite_policies(path, "max_rows  = 100 ", "max_silos = 2\nmax_rows  = 1000 ")
    first, second = (path / "silos" / shop / "purchases.parquet" for shop in retailers.RETAILERS[:2])
    with duckdb.connect() as database:
        database.execute(
            f"CREATE TABLE more AS SELECT * FROM '{second}' UNION ALL (SELECT * FROM '{first}' LIMIT {SHARED})"
        )
        database.execute(f"COPY more TO '{second}'")
    with simulate(path, noise=no_noise) as simulation:
        yield simulation, path


def ask(simulation: Simulation, question: str, epsilon: float = 1.0) -> Report:
    return simulation.federation.query(question, purpose="market-insight", epsilon=epsilon, sure=False)


def added(path: Path, question: str, keys: tuple[str, ...]) -> Mapping[tuple[Any, ...], Mapping[str, float]]:
    """Return DuckDB's figures of every silo's own rows, added."""
    total: dict[tuple[Any, ...], dict[str, float]] = {}
    for shop in retailers.RETAILERS:
        with duckdb.connect() as database:
            database.execute(f"CREATE TABLE purchases AS SELECT * FROM '{path}/silos/{shop}/purchases.parquet'")
            for row in database.sql(question).to_arrow_table().to_pylist():
                own = total.setdefault(tuple(row[key] for key in keys), {})
                for name in row.keys() - set(keys):
                    own[name] = own.get(name, 0.0) + float(row[name] or 0)
    return total


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_answer_is_what_every_silo_has_added(shops: tuple[Simulation, Path], question: str) -> None:
    simulation, path = shops
    report = ask(simulation, question)
    keys = tuple(report.dimensions)
    truth = added(path, QUESTIONS[question] or question, keys)
    assert report.rows
    for row in report.rows:
        for name, cell in row.items():
            if isinstance(cell, Estimate):
                assert cell.value == pytest.approx(truth[tuple(row[key] for key in keys)][name])
    found = {tuple(row[key] for key in keys) for row in report.rows}
    assert set(truth) <= found | {tuple(group[key] for key in keys) for group in report.withheld_groups}


def test_the_report_says_that_nobody_is_matched_and_verifies(shops: tuple[Simulation, Path]) -> None:
    simulation, _ = shops
    for question in QUESTIONS:
        report = ask(simulation, question)
        assert any("and the price is that of 2 silos" in text for text in report.assumptions)
        assert "known to at most 2 silos" in report.assumptions[0]
        lines = list(
            verify(simulation.federation, bytes.fromhex(report.transcript), json.loads(render(report, "json")))
        )
        assert any("rows of the answer are what it says" in line for line in lines)
        assert render(report, "table")
    grouped = ask(simulation, "SELECT quarter, AVG(n) AS n FROM (SELECT customer_id, quarter, LEAST(COUNT(*), 9) AS n"
                  " FROM purchases GROUP BY ALL) GROUP BY quarter")  # fmt: skip
    assert "has at most 7 rows, each made of all rows at a silo of one quarter" in grouped.assumptions[0]
    inner = ask(simulation, "SELECT AVG(n) AS n FROM (SELECT customer_id, LEAST(COUNT(*), 20) AS n FROM purchases"
                " GROUP BY customer_id)")  # fmt: skip
    assert inner.assumptions[0].startswith("one customer has one row made of all rows at a silo in an answer")
    text = " ".join(render(inner, "table").split())
    assert "each person has one row made of all rows at a silo; n 0 to 20" in text
    lines = json.loads(render(inner, "json"))
    lines["rows"][0]["n"]["value"] += 1
    with pytest.raises(AnalystError, match="is not what was opened"):
        list(verify(simulation.federation, bytes.fromhex(inner.transcript), lines))


def test_a_customer_of_two_silos_counts_at_each_and_is_priced_so(shops: tuple[Simulation, Path]) -> None:
    simulation, path = shops
    (row,) = ask(simulation, "SELECT COUNT(DISTINCT customer_id) AS n FROM purchases").rows
    with duckdb.connect() as database:
        files = [f"{path}/silos/{shop}/purchases.parquet" for shop in retailers.RETAILERS]
        (different,) = (
            database.execute(f"SELECT COUNT(DISTINCT customer_id) FROM read_parquet({files})").fetchone() or ()
        )
    assert isinstance(row["n"], Estimate)
    assert row["n"].value > different, "nobody is matched across silos"


def test_the_interval_of_a_number_of_persons_follows_from_its_noise(shops: tuple[Simulation, Path]) -> None:
    simulation, _ = shops
    whole, by_quarter = (
        ask(simulation, f"SELECT {more}COUNT(DISTINCT customer_id) AS n FROM purchases{grouped}", epsilon=2.0)
        for more, grouped in (("", ""), ("quarter, ", " GROUP BY quarter"))
    )
    deviations = {row["n"].sd for report in (whole, by_quarter) for row in report.rows}  # type: ignore[union-attr]
    least, most = sorted(one for one in deviations if one is not None)
    assert most / least == pytest.approx(7**0.5, rel=1e-3), "one of seven quarters a person, each changed by one"


def test_a_threshold_on_a_sum_of_amounts_is_refused_where_the_amount_is_no_filter(tmp_path: Path) -> None:
    """Else an analyst learnt how many customers spent more than 100, from a column that is a measure alone."""
    path = tmp_path / "federation"
    found_sector(path, retailers.SECTOR)
    rewrite_policies(path, 'roles = ["measure", "filter"], bounds = [0, 250]', 'roles = ["measure"], bounds = [0, 250]')
    question = "SELECT COUNT(*) AS n FROM (SELECT customer_id FROM purchases GROUP BY customer_id HAVING"
    with simulate(path, noise=no_noise) as simulation:
        for figure in ("SUM(amount) > 100", "MAX(amount) > 100"):
            with pytest.raises(DeniedError, match="not be narrowed"):
                ask(simulation, f"{question} {figure})")
        with pytest.raises(DeniedError, match="not be narrowed"):
            ask(simulation, "SELECT AVG(s) FROM (SELECT customer_id, LEAST(SUM(amount), 1) AS s FROM purchases"
                " GROUP BY customer_id)")  # fmt: skip


def test_the_nearest_question_to_a_join_is_answered(shops: tuple[Simulation, Path]) -> None:
    simulation, path = shops
    with pytest.raises(SqlError) as caught:
        ask(simulation, "SELECT a.cds AS x, b.cds AS y, COUNT(*) AS n FROM purchases a JOIN purchases b"
            " USING (customer_id) GROUP BY x, y")  # fmt: skip
    nearest = caught.value.hint.partition(": ")[2]
    (row,) = ask(simulation, nearest).rows
    ((_, truth),) = added(path, nearest, ()).items()
    (figure,) = (cell for cell in row.values() if isinstance(cell, Estimate))
    assert figure.value == pytest.approx(next(iter(truth.values())))


def test_what_is_cut_of_a_figure_by_person_is_told(shops: tuple[Simulation, Path]) -> None:
    simulation, _ = shops
    report = simulation.federation.query(
        "SELECT AVG(n) AS n FROM (SELECT customer_id, LEAST(COUNT(*), 1) AS n FROM purchases GROUP BY customer_id)",
        purpose="market-insight", epsilon=2.0, counts_cut=True,
    )  # fmt: skip
    assert report.cut is not None
    assert report.cut.values is not None
    assert report.cut.rows.value == 0
    assert report.cut.values.value == pytest.approx(0.49, abs=0.02), "half of all customers bought again"
