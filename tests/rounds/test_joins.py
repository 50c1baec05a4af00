"""A join over three silos that have both tables, and one that has not, without noise: DuckDB's figures, added."""

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from analyst.asking import Command
from analyst.demo import retailers
from analyst.demo.sector import found_sector
from analyst.errors import SqlError
from analyst.preview import preview, preview_lines
from analyst.reports.estimates import Estimate
from analyst.reports.render import render
from analyst.reports.report import Report
from analyst.verify import verify
from tests.harness.simulator import Simulation, no_noise, simulate
from tests.rounds.test_rounds import rewrite_policies

pytestmark = pytest.mark.slow
CUSTOMERS = """[sources.customers]
kind    = "parquet"
uri     = "customers.parquet"
one_row = true
[sources.customers.columns]
customer_id = { type = "string", class = "identifier", roles = [] }
region      = { type = "string", class = "internal", roles = ["dimension", "filter"], \
domain = ["north", "south", "?"], unknown = "?" }
born        = { type = "int", class = "internal", roles = ["measure", "filter"], bounds = [1900, 2000] }

[purposes.market-insight]"""
WITHOUT = retailers.RETAILERS[-1]  # this shop has no list of customers
JOIN = "FROM purchases p JOIN customers c USING (customer_id)"
QUESTIONS = (
    f"SELECT c.region, COUNT(*) AS n, SUM(p.cds) AS cds, AVG(born) AS born {JOIN} GROUP BY c.region",
    f"SELECT region, COUNT(*) AS n {JOIN} WHERE c.born < 1970 AND p.quarter > '1997Q1' GROUP BY region",
    f"SELECT COUNT(*) AS n FROM (SELECT p.customer_id, MAX(c.region) AS r {JOIN} GROUP BY p.customer_id)"
    " WHERE r = 'north'",
    f"SELECT region, quarter, COUNT(*) AS n FROM (SELECT p.customer_id, c.region, p.quarter {JOIN} GROUP BY ALL)"
    " GROUP BY region, quarter",
    f"SELECT c.region, COUNT(*) AS n, COUNT(DISTINCT p.customer_id) AS persons {JOIN} GROUP BY 1 ORDER BY n DESC",
)


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Simulation, Path]]:
    path = tmp_path_factory.mktemp("joins") / "federation"
    found_sector(path, retailers.SECTOR)
    rewrite_policies(path, "min_cohort     = 2600", "min_cohort     = 2")
    rewrite_policies(path, "max_missing   = 1 ", "max_missing   = 0 ")
    rewrite_policies(path, "max_rows  = 100 ", "max_rows  = 1000 ")
    for shop in retailers.RETAILERS[:-1]:
        home = path / "silos" / shop
        text = (home / "policy.toml").read_text()
        (home / "policy.toml").write_text(text.replace("[purposes.market-insight]", CUSTOMERS))
        with duckdb.connect() as database:
            database.execute(
                "COPY (SELECT customer_id, CASE hash(customer_id) % 3 WHEN 0 THEN 'north' WHEN 1 THEN 'south' END AS"
                " region, (1920 + hash(customer_id) % 79)::INT AS born FROM (SELECT DISTINCT customer_id FROM"
                f" '{home}/purchases.parquet') WHERE hash(customer_id) % 5 > 0) TO '{home}/customers.parquet'"
            )
    with simulate(path, noise=no_noise) as simulation:
        yield simulation, path


def ask(simulation: Simulation, question: str) -> Report:
    return simulation.federation.query(question, purpose="market-insight", epsilon=1.0, sure=False)


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_answer_is_what_silos_with_both_tables_have_added(shops: tuple[Simulation, Path], question: str) -> None:
    simulation, path = shops
    report = ask(simulation, question)
    assert set(report.silos) == set(retailers.RETAILERS[:-1])
    files = [f"{path}/silos/{shop}/%s.parquet" for shop in retailers.RETAILERS[:-1]]
    with duckdb.connect() as database:
        for name, cells in (("purchases", "* REPLACE (LEAST(cds, 20) AS cds)"), ("customers", "*")):
            # No customer of the demo is known to two shops, so that all rows may be joined at once.
            read = [one % name for one in files]
            database.execute(f"CREATE TABLE {name} AS SELECT {cells} FROM read_parquet({read}, filename=true)")
        truth = database.sql(question).to_arrow_table().to_pylist()
    keys = tuple(report.dimensions)
    known = {tuple(row[key] if row[key] is not None else "?" for key in keys): row for row in truth}
    assert known
    shown = 0
    for row in report.rows:
        true = known.get(tuple(row[key] for key in keys))
        for name, cell in row.items():
            if isinstance(cell, Estimate) and cell.value is not None and true is not None:
                assert cell.value == pytest.approx(float(true[name]), rel=1e-9)
                shown += 1
    assert shown
    assert render(report, "csv")
    assert "each row beside its person's row of customers" in " ".join(render(report, "table").split())
    fields = json.loads(render(report, "json"))
    assert fields["definition"]["joined_with"] == ["customers"]
    lines = list(verify(simulation.federation, bytes.fromhex(report.transcript), fields))
    assert any("rows of the answer are what it says" in line for line in lines)


def test_a_join_is_previewed(shops: tuple[Simulation, Path]) -> None:
    simulation, _ = shops
    found = preview(simulation.federation, Command(QUESTIONS[3], "market-insight", 1.0))
    text = "\n".join(preview_lines(found))
    assert "of purchases joined by person with customers" in text
    assert "one person changes it by up to 5, " in text  # in 21 groups, by 1 in each
    assert set(found.silos) == set(retailers.RETAILERS[:-1])
    assert "nobody would refuse it now" in text


def test_one_silo_alone_with_both_tables_is_too_few_and_another_one_is_not_asked(
    shops: tuple[Simulation, Path],
) -> None:
    simulation, _ = shops
    offer = simulation.federation.offer
    assert offer.holders_of(("purchases", "customers")) == retailers.RETAILERS[:-1]
    with pytest.raises(SqlError, match="'customers' is no table to join"):
        simulation.federation.query(QUESTIONS[0], purpose="market-insight", epsilon=1.0, silos=(WITHOUT,))
