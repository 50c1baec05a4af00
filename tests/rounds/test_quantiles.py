"""Whole questions for quantiles and histograms, over several silos in memory."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analyst.asking import Command
from analyst.demo.hospitals import PURPOSE
from analyst.errors import DeniedError, SqlError
from analyst.preview import preview, preview_lines
from analyst.reports.estimates import Estimate
from analyst.reports.render import render
from analyst.verify import verify
from tests.harness.simulator import Simulation, no_noise, simulate
from tests.rounds.test_rounds import ask, by_group, pooled, rewrite_policies

SPELLINGS = (
    "MEDIAN(survival)",
    "QUANTILE_CONT(survival, 0.25)",
    "QUANTILE_CONT(survival, 0.9)",
    "QUANTILE_DISC(survival, 0.3)",
    "QUANTILE(survival, 0.5)",
    "PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY age)",
    "PERCENTILE_CONT(0.25) WITHIN GROUP (ORDER BY age DESC)",
    "PERCENTILE_DISC(0.01) WITHIN GROUP (ORDER BY age)",
    "MEDIAN(karnofsky)",
)
MEDIANS = "SELECT sex, MEDIAN(survival) AS med FROM lung GROUP BY sex"
INNER = "SELECT patient_id, LEAST(SUM(survival), 1100) AS days FROM lung GROUP BY patient_id"


@pytest.fixture(scope="module")
def of_two(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """A federation without noise whose cohorts may be as small as two."""
    path = Path(shutil.copytree(founded, tmp_path_factory.mktemp("of-two") / "federation"))
    rewrite_policies(path, "min_cohort     = 25", "min_cohort     = 2")
    with simulate(path, noise=no_noise) as simulation:
        yield simulation


@pytest.mark.parametrize(
    "rest", [" FROM lung", " FROM lung WHERE age > 60 AND died", " FROM lung GROUP BY sex", " FROM lung GROUP BY ecog"]
)
def test_without_noise_every_quantile_equals_pooled_duckdb(of_two: Simulation, rest: str) -> None:
    keys = tuple(name for name in ("sex", "ecog") if f"BY {name}" in rest)
    named = (f"{one} AS q{place}" for place, one in enumerate(SPELLINGS))
    question = f"SELECT {', '.join((*keys, 'COUNT(*) AS n', *named))}{rest}"
    answers, truths = by_group(ask(of_two, question, 2.0).rows, keys), by_group(pooled(question), keys)
    assert answers
    for group, row in answers.items():
        for name, cell in row.items():
            if isinstance(cell, Estimate) and cell.value is not None:
                assert cell.low is not None
                assert cell.high is not None
                assert cell.value == pytest.approx(float(truths[group][name]), abs=1e-6), (group, name)
                assert cell.low <= float(truths[group][name]) <= cell.high
    assert any(row["q0"].value is not None for row in answers.values())


def test_the_median_of_each_group_has_an_interval(home: Path) -> None:
    truths = {row["sex"]: float(row["med"]) for row in pooled(MEDIANS)}
    with simulate(home) as simulation:
        report = ask(simulation, MEDIANS, 2.0)
        assert simulation.spent("aspen") > 0
        list(verify(simulation.federation, bytes.fromhex(report.transcript), json.loads(report.to_json())))
    assert [row["sex"] for row in report.rows] == ["female", "male"]
    for row in report.rows:
        cell = row["med"]
        assert isinstance(cell, Estimate)
        assert cell.low is not None
        assert cell.high is not None
        assert cell.value is not None
        assert cell.low <= cell.value <= cell.high
        assert 0 <= cell.low <= truths[str(row["sex"])] <= cell.high <= 1100
    assert "med_low" in report.field_names()
    assert report.to_json()
    for form in ("table", "csv", "json"):
        assert "med" in render(report, form)


def test_quantiles_are_computed_with_after_the_answer(of_two: Simulation) -> None:
    question = (
        "SELECT sex, QUANTILE_CONT(survival, 0.75) - QUANTILE_CONT(survival, 0.25) AS spread,"
        " ROUND(MEDIAN(age)) AS age, MEDIAN(survival) AS med FROM lung GROUP BY sex HAVING MEDIAN(survival) > 0"
        " ORDER BY med DESC"
    )
    rows = ask(of_two, question, 2.0).rows
    truths = pooled(question)
    assert [row["sex"] for row in rows] == [row["sex"] for row in truths]
    for row, truth in zip(rows, truths, strict=True):
        for name in ("spread", "age", "med"):
            cell = row[name]
            assert isinstance(cell, Estimate)
            assert cell.value == pytest.approx(float(truth[name]), abs=1e-6)
            assert cell.low is not None
            assert cell.high is not None
            assert cell.low <= float(truth[name]) <= cell.high
            assert cell.low < cell.high


def test_a_quantile_of_persons_is_that_of_their_rows(of_two: Simulation) -> None:
    question = f"SELECT MEDIAN(days) AS med, COUNT(*) AS n FROM ({INNER})"
    (row,), (truth,) = ask(of_two, question, 2.0).rows, pooled(question)
    assert isinstance(row["med"], Estimate)
    assert row["med"].value == pytest.approx(float(truth["med"]), abs=1e-6)


def test_a_histogram_is_a_row_for_each_bucket(of_two: Simulation) -> None:
    rows = ask(of_two, "SELECT sex, HISTOGRAM(age, 10) AS n FROM lung GROUP BY sex", 2.0).rows
    bucket = "least(age, 89) // 10 * 10"
    truths = pooled(f"SELECT sex, {bucket} AS age_from, COUNT(*) AS n FROM lung GROUP BY ALL")
    expected = {(one["sex"], one["age_from"]): one["n"] for one in truths if one["n"] > 1}
    found = {(row["sex"], row["age_from"]): row["n"] for row in rows}
    assert {place: one.value for place, one in found.items() if isinstance(one, Estimate)} == expected
    assert {(row["age_from"], row["age_to"]) for row in rows} <= {(low, low + 10) for low in range(30, 90, 10)}


def test_a_preview_tells_the_levels_the_bins_and_the_widths(shared: Simulation) -> None:
    spent = shared.spent("aspen")
    found = preview(shared.federation, Command(MEDIANS, purpose=PURPOSE, epsilon=2.0))
    tree = next(part for part in found.parts if part.name == "tree:survival")
    assert (tree.levels, tree.bin_width, tree.numbers, tree.sensitivity) == (4, 1.0, 3 * 1322, 1)
    text = "\n".join(preview_lines(found))
    assert "one person changes it by up to 1 in each of 4 levels" in text
    assert "in bins 1 wide" in text
    widths = [width for width in found.widths["med"].values() if width is not None]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 2
    assert not found.refusals
    assert shared.spent("aspen") == spent


def test_a_policy_that_does_not_list_it_refuses_before_anything_is_spent(home: Path) -> None:
    rewrite_policies(home, ', "quantile"', "")
    with simulate(home) as simulation:
        assert _denied(simulation, MEDIANS) == {"AGGREGATE"}
        with pytest.raises(SqlError, match="between 0 and 1"):
            ask(simulation, "SELECT QUANTILE_CONT(age, 2) FROM lung")
        assert simulation.spent("aspen") == 0


def test_a_measure_that_may_not_be_compared_shows_no_distribution(shared: Simulation) -> None:
    assert _denied(shared, "SELECT MEDIAN(weight_loss) AS m FROM lung") == {"COLUMN_ROLE"}


def _denied(simulation: Simulation, question: str) -> Any:
    with pytest.raises(DeniedError) as caught:
        simulation.federation.query(question, purpose=PURPOSE, epsilon=2.0)
    return {denial.code for found in caught.value.denials.values() for denial in found}
