"""Computed measures over four banks without noise: what DuckDB says of all rows; foreseen, shown, verified."""

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from analyst.asking import Command
from analyst.demo import banks
from analyst.demo.sector import found_sector
from analyst.errors import DeniedError, SqlError
from analyst.preview import preview, preview_lines
from analyst.reports.estimates import Estimate
from analyst.reports.render import render
from analyst.reports.report import Report
from analyst.verify import verify
from tests.harness.simulator import Simulation, no_noise, simulate

pytestmark = pytest.mark.slow
# Loans and incomes within their bounds, as the policies have them.
CLAMPED = (
    "CREATE TABLE loans AS SELECT * REPLACE (LEAST(loan, 1000) AS loan, LEAST(income, 1000) AS income,"
    " approved::INT AS approved) FROM read_parquet('{path}/silos/*/loans.parquet')"
)
QUESTIONS = (
    "SELECT AVG(loan / income) AS f FROM loans WHERE income >= 1",
    "SELECT AVG(loan / NULLIF(income, 0)) AS f FROM loans WHERE income > 0 OR loan > 3",
    "SELECT SUM(loan * approved) AS f FROM loans",
    "SELECT AVG(LEAST(loan, 300) - income) AS f FROM loans WHERE race <> 'white'",
    "SELECT AVG(LN(income + 1)) AS f FROM loans",
    "SELECT AVG(CASE WHEN income >= 100 THEN loan / income ELSE 0 END) AS f FROM loans",
    "SELECT STDDEV_POP(loan - income) AS f FROM loans",
    "SELECT CORR(loan, income) FILTER (WHERE approved = 1) AS f FROM loans",
    "SELECT AVG(loan / income) FILTER (WHERE income >= 50) / AVG(loan / income) FILTER (WHERE income >= 20) AS f"
    " FROM loans",
)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Simulation, Path]]:
    path = tmp_path_factory.mktemp("banks") / "federation"
    found_sector(path, banks.SECTOR)
    with simulate(path, noise=no_noise) as simulation:
        yield simulation, path


def ask(simulation: Simulation, question: str) -> Report:
    asked = question.replace("approved = 1", "approved")
    return simulation.federation.query(asked, purpose=banks.SECTOR.purpose, epsilon=0.2, sure=False)


def one(report: Report) -> Estimate:
    (row,) = report.rows
    (cell,) = row.values()
    assert isinstance(cell, Estimate)
    return cell


def test_figures_are_those_of_all_rows(four: tuple[Simulation, Path]) -> None:
    simulation, path = four
    with duckdb.connect() as database:
        database.execute(CLAMPED.format(path=path))
        for question in QUESTIONS:
            (true,) = database.sql(question).fetchall()[0]
            report = ask(simulation, question)
            found = one(report)
            if found.value is not None:  # else the noise would hide it
                assert found.value == pytest.approx(float(true), rel=1e-4), question
            assert found.low is not None
            assert found.high is not None
            assert found.low <= float(true) <= found.high, question
            name, told = bytes.fromhex(report.transcript), json.loads(render(report, "json"))
            assert any(
                "rows of the answer are what it says" in line for line in verify(simulation.federation, name, told)
            )


def test_a_ratio_by_what_may_be_0_is_refused_with_questions_that_work(four: tuple[Simulation, Path]) -> None:
    simulation, _ = four
    with pytest.raises(SqlError) as caught:
        ask(simulation, "SELECT AVG(loan / income) AS ratio FROM loans")
    assert "the bounds of 'income' are 0 to 1000" in caught.value.message
    for instead in ("loan / NULLIF(income, 0)", "loan / GREATEST(income, 1)"):
        assert instead in caught.value.hint
        assert one(ask(simulation, f"SELECT AVG({instead}) AS ratio FROM loans")).value is not None
    assert "WHERE income >= 1" in caught.value.hint


def test_a_measure_is_shown_in_every_form(four: tuple[Simulation, Path], capsys: pytest.CaptureFixture[str]) -> None:
    simulation, _ = four
    sql = "SELECT race, AVG(loan / income) AS ratio, COUNT(*) AS n FROM loans WHERE income >= 20 GROUP BY race"
    report = ask(simulation, sql)
    told = json.loads(render(report, "json"))
    assert told["definition"]["derived"]["loan / income"]["bounds"] == [0, 50]
    assert "loan / income 0 to 50 by 2e-05" in " ".join(render(report, "table").split())
    assert "race,ratio,ratio_low,ratio_high,ratio_sd,n" in render(report, "csv")
    foreseen = preview(simulation.federation, Command(sql, banks.SECTOR.purpose, 0.05))
    text = "\n".join(preview_lines(foreseen))
    assert "measure_1 = loan / income" in text
    assert "measure_1 is from 0 to 50, of each row to the nearest 0.00002" in text
    assert foreseen.widths["ratio"]


def test_a_measure_that_is_no_filter_is_not_cut(four: tuple[Simulation, Path]) -> None:
    simulation, _ = four
    with pytest.raises(DeniedError, match="bankrupt"):
        ask(simulation, "SELECT AVG(NULLIF(bankrupt, 0)) AS f FROM loans")
    assert one(ask(simulation, "SELECT SUM(bankrupt * loan) AS f FROM loans")).value is not None
