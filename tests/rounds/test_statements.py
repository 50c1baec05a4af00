"""Several statements as one request: one round, one charge, a table for each, and each as if it were asked alone."""

import json
import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from analyst.asking import Command
from analyst.demo.hospitals import PURPOSE
from analyst.errors import AnalystError, DeniedError
from analyst.preview import preview, preview_lines
from analyst.reports.estimates import Estimate
from analyst.reports.render import csv_files, render
from analyst.reports.report import Report, decoded, encoded
from analyst.reports.table import Answered
from analyst.verify import verify
from policies.units import MICRO
from tests.harness.simulator import Simulation, no_noise, simulate
from tests.rounds.test_rounds import pooled, rewrite_policies

pytestmark = pytest.mark.slow

THREE = (
    "SELECT sex, COUNT(*) AS n, AVG(age) AS mean_age FROM lung GROUP BY sex",
    "SELECT COUNT(*) AS n, SUM(survival) AS days FROM lung WHERE died",
    "SELECT age // 10 AS decade, COUNT(*) FILTER (WHERE died) AS deaths FROM lung GROUP BY decade ORDER BY deaths DESC",
)
UNION = (
    "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex UNION ALL SELECT 'all', COUNT(*) FROM lung"
    " UNION ALL SELECT 'dead', COUNT(*) FROM lung WHERE died"
)


@pytest.fixture(scope="module")
def exactly(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """A federation without noise whose cohorts may be as small as two."""
    path = Path(shutil.copytree(founded, tmp_path_factory.mktemp("statements") / "federation"))
    rewrite_policies(path, "min_cohort     = 25", "min_cohort     = 2")
    with simulate(path, noise=no_noise) as simulation:
        yield simulation


def ask(simulation: Simulation, *statements: str, **choices: Any) -> Report:
    given: dict[str, Any] = {"purpose": PURPOSE, "epsilon": 1.0, "new": True} | choices
    return simulation.federation.query("; ".join(statements), **given)


def values(rows: Any) -> list[dict[str, Any]]:
    """Return the rows of a table, a figure by its value."""
    return [{name: cell.value if isinstance(cell, Estimate) else cell for name, cell in row.items()} for row in rows]


def figures(table: Answered) -> list[Estimate]:
    return [cell for row in table.rows for cell in row.values() if isinstance(cell, Estimate)]


def test_each_table_is_what_its_statement_asked_alone_gives(exactly: Simulation) -> None:
    report = ask(exactly, *THREE)
    assert len(report.tables) == 3
    for sql, table in zip(THREE, report.tables, strict=True):
        alone = ask(exactly, sql)
        assert values(table.rows) == values(alone.rows)
        assert (table.columns, table.labels, table.dimensions) == (alone.columns, alone.labels, alone.dimensions)
        assert table.withheld_groups == alone.withheld_groups
        assert alone.tables == ()
    total = pooled("SELECT SUM(survival) AS days FROM lung WHERE died")[0]["days"]
    assert values(report.tables[1].rows)[0]["days"] == pytest.approx(total)


def test_one_round_and_one_charge_whose_parts_add_up(exactly: Simulation) -> None:
    before = exactly.spent("aspen")
    report = ask(exactly, *THREE, weights=(2, 1, 1))
    assert exactly.spent("aspen") - before == round(report.rho * MICRO)
    assert [table.rho for table in report.tables] == pytest.approx([report.rho * part for part in (0.5, 0.25, 0.25)])


def test_a_table_is_as_noisy_as_its_statement_asked_alone_at_its_part_of_the_price(exactly: Simulation) -> None:
    report = ask(exactly, *THREE, weights=(2, 1, 1))
    for part, sql, table in zip((0.5, 0.25, 0.25), THREE, report.tables, strict=True):
        alone = ask(exactly, sql)
        widest = max(cell.sd or 0 for cell in figures(table))
        lone = max(cell.sd or 0 for row in alone.rows for cell in row.values() if isinstance(cell, Estimate))
        assert widest == pytest.approx(lone / part**0.5, rel=0.02), sql


def test_statements_that_differ_in_their_figures_only_share_them(exactly: Simulation) -> None:
    both = ask(
        exactly,
        "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex",
        "SELECT sex AS s, COUNT(*) AS many, AVG(age) AS a FROM lung GROUP BY sex ORDER BY a",
        "SELECT sex, COUNT(*) AS n FROM lung WHERE died GROUP BY sex",
    )
    first, second, third = both.tables
    counted = {row["sex"]: row["n"] for row in first.rows}
    assert counted == {row["s"]: row["many"] for row in second.rows}, "one count, bought once"
    assert first.rho == second.rho == pytest.approx(both.rho * 2 / 3)
    assert third.rho == pytest.approx(both.rho / 3)


def test_a_union_of_questions_is_one_table(exactly: Simulation) -> None:
    report = ask(exactly, UNION)
    assert report.tables == ()
    assert [row["sex"] for row in report.rows] == ["female", "male", "all", "dead"]
    truth = pooled(UNION)
    assert {row["sex"]: row["n"] for row in values(report.rows)} == {row["sex"]: row["n"] for row in truth}
    assert report.labels == ("sex",)
    assert [record["sex"] for record in report.to_records()] == ["female", "male", "all", "dead"]
    beside = ask(exactly, UNION, THREE[2])
    assert len(beside.tables[0].rows) == 4
    assert beside.tables[0].rho == pytest.approx(beside.rho / 2)
    shared = ask(exactly, UNION, THREE[1])
    assert shared.tables[0].rho == pytest.approx(shared.rho), "who died is bought for both"


def test_a_cte_is_read_by_several_questions_of_a_union(exactly: Simulation) -> None:
    sql = (
        "WITH t AS (SELECT ecog, COUNT(*) AS n FROM lung GROUP BY ecog)"
        " SELECT 'some' AS what, SUM(n) AS n FROM t UNION ALL SELECT 'dead', COUNT(*) FROM lung WHERE died"
    )
    assert [row["n"] for row in values(ask(exactly, sql).rows)] == [row["n"] for row in pooled(sql)]


@pytest.mark.parametrize("statements", [THREE, (UNION,), (UNION, THREE[1])], ids=["three", "union", "both"])
def test_an_answer_is_kept_written_and_verified(
    exactly: Simulation, statements: tuple[str, ...], tmp_path: Path
) -> None:
    federation = exactly.federation
    report = ask(exactly, *statements)
    assert decoded(encoded(report)) == report
    kept = federation.kept.of_request(bytes.fromhex(report.request))
    assert kept is not None
    assert federation.kept.answer(kept) == report
    answer = json.loads(render(report, "json"))
    lines = list(verify(federation, bytes.fromhex(report.transcript), answer))
    assert lines[-1].endswith("rows of the answer are what it says")
    for change in _changes(answer):
        with pytest.raises(AnalystError):
            list(verify(federation, bytes.fromhex(report.transcript), change))
    text = render(report, "table")
    assert text.count("statement ") >= len(report.tables)
    files = csv_files(report, tmp_path / "answer.csv")
    names = ["answer.csv"] if not report.tables else [f"answer.{place + 1}.csv" for place in range(len(report.tables))]
    assert [path.name for path in files] == names
    whole = render(report, "csv")
    assert all(text in whole for text in files.values())


def _changes(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the answer with one thing in it changed."""
    tables = answer.get("tables", [answer])
    for place, table in enumerate(tables):
        for branch in (None, *range(len(table.get("branches", [])))):
            for what in ("figure", "row", "rho", "column", "withheld"):
                changed = deepcopy(answer)
                at: Any = changed["tables"][place] if "tables" in answer else changed
                at = at if branch is None else at["branches"][branch]
                if what == "figure":
                    cell = next(cell for row in at["rows"] for cell in row.values() if isinstance(cell, dict))
                    cell["value"] += 1
                elif what == "row":
                    at["rows"] = at["rows"][1:]
                elif what == "rho":
                    at["rho"] = at["rho"] * 1.5
                elif what == "column":
                    at["columns"] = [*at["columns"][:-1], "other"]
                else:
                    at["withheld_groups"] = [*at["withheld_groups"], {"sex": "other"}]
                yield changed
    if "tables" in answer:
        yield {**answer, "tables": tables[1:]}
        yield {**answer, "tables": [tables[1], tables[0], *tables[2:]]}


def test_the_same_text_again_is_the_same_request(exactly: Simulation) -> None:
    command = Command("; ".join(THREE), PURPOSE, 1.0)
    same = Command(";\n-- a comment\n".join(THREE).replace("SELECT", "select") + " ; ;", PURPOSE, 1.0)
    others = [
        Command("; ".join(THREE), PURPOSE, 1.0, weights=(1, 2, 1)),
        Command("; ".join(reversed(THREE)), PURPOSE, 1.0),
        Command("; ".join(THREE), PURPOSE, None, share=0.1),
    ]
    digest = command.digest("f", "a")
    assert same.digest("f", "a") == digest
    assert all(other.digest("f", "a") != digest for other in others)


def test_the_preview_of_several_statements_has_each(exactly: Simulation) -> None:
    found = preview(exactly.federation, Command("; ".join(THREE), PURPOSE, 1.0))
    assert [list(one.widths) for one in found.statements] == [["n", "mean_age"], ["n", "days"], ["deaths"]]
    assert sum(part.share for part in found.parts) == pytest.approx(1)
    assert {part.name.partition("/")[0] for part in found.parts} == {"1", "2", "3"}
    text = "\n".join(preview_lines(found))
    assert "statement 2: each silo computes: COUNT(*), SUM(survival) of lung where died = true" in text
    assert not found.refusals
    assert found.to_dict()["statements"][1]["groups"] == 1
    report = ask(exactly, *THREE)
    width = found.statements[1].widths["n"][100_000]
    cell = figures(report.tables[1])[0]
    assert cell.high is not None
    assert cell.value is not None
    assert width == pytest.approx(cell.high - cell.value, rel=0.05)


def test_no_statement_is_a_way_around_a_rule(exactly: Simulation) -> None:
    good, refused = THREE[0], "SELECT sex, ecog, age // 5 AS a, COUNT(*) AS n FROM lung GROUP BY sex, ecog, a"
    with pytest.raises(DeniedError) as alone:
        ask(exactly, refused)
    with pytest.raises(DeniedError) as caught:
        ask(exactly, good, refused)
    for silo, denials in alone.value.denials.items():
        found = caught.value.denials[silo]
        assert [one.code for one in denials] == [one.code for one in found]
        assert all(one.message.startswith("statement 2: ") for one in found)


def test_the_limit_of_requests_a_day_counts_statements(founded: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(founded, tmp_path / "federation"))
    rewrite_policies(path, "\n[budget]", "\n[limits]\nrequests_per_day = 5\n\n[budget]")
    with simulate(path, noise=no_noise) as simulation:
        ask(simulation, *THREE, epsilon=0.2)
        with pytest.raises(DeniedError) as caught:
            ask(simulation, *THREE, epsilon=0.2)
        assert {one.code for denials in caught.value.denials.values() for one in denials} == {"REQUESTS_PER_DAY"}
        assert "3 requests today, 5 are answered, and 3 more" in caught.value.message
        ask(simulation, *THREE[:2], epsilon=0.2)
        with pytest.raises(DeniedError):
            ask(simulation, THREE[0], epsilon=0.2)


def test_a_part_below_the_least_price_is_refused(founded: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(founded, tmp_path / "federation"))
    rewrite_policies(path, "min_rho = 0.00002", "min_rho = 0.01")
    with simulate(path, noise=no_noise) as simulation:
        with pytest.raises(DeniedError) as caught:
            ask(simulation, *THREE, weights=(1, 1, 30), epsilon=1.0)
        assert "RHO_TOO_SMALL" in caught.value.message
        assert "statement 1: it has rho" in caught.value.message
        ask(simulation, *THREE[:2], epsilon=1.0)


def test_each_table_says_the_definition_of_its_own_columns(exactly: Simulation) -> None:
    report = ask(exactly, *THREE)
    for sql, table in zip(THREE, report.tables, strict=True):
        assert table.definition == ask(exactly, sql).definition


def test_silos_that_add_shares_answer_several_statements(exactly: Simulation) -> None:
    by_shares, by_masks = ask(exactly, *THREE, backend="shares"), ask(exactly, *THREE)
    for one, other in zip(by_shares.tables, by_masks.tables, strict=True):
        assert values(one.rows) == values(other.rows)
