"""Every example of docs/sql.md is answered by the demo: its silos compute it, with noise of variance 0."""

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from analyst.demo import banks, hospitals, retailers
from analyst.demo.sector import Sector, found_sector
from tests.harness.simulator import no_noise, simulate

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sql.md").read_text()
SECTORS = {"lung": hospitals.SECTOR, "loans": banks.SECTOR, "purchases": retailers.SECTOR}


def examples() -> Iterator[tuple[str, str]]:
    """Yield the table of each example, and the example: what stands between two comments of a block of SQL."""
    for block in re.findall(r"^```sql\n(.*?)^```", PAGE, re.M | re.S):
        for is_comment, lines in groupby(block.splitlines(), lambda line: line.startswith("--")):
            if not is_comment:
                question = "\n".join(lines)
                if not re.search(r"\bJOIN\b", question):  # of a table that the demo has not
                    yield next(table for table in SECTORS if re.search(rf"\b{table}\b", question)), question


@pytest.mark.parametrize("sector", SECTORS.values(), ids=list(SECTORS))
def test_every_example_is_answered(sector: Sector, tmp_path: Path) -> None:
    found_sector(tmp_path, sector)
    questions = [question for table, question in examples() if SECTORS[table] is sector]
    assert questions
    with simulate(tmp_path, noise=no_noise) as simulation:
        for question in questions:
            report = simulation.federation.query(question, purpose=sector.purpose, epsilon=0.05)
            assert all(table.rows for table in report.tables or (report,)), question
            assert {outcome.status for outcome in report.silos.values()} == {"answered"}, question
