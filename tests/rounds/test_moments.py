"""Whole questions for variances, correlations and regressions, over several silos in memory."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from analyst.errors import DeniedError, SqlError
from analyst.reports.estimates import Estimate
from policies.requests.moments import PAIRS, SPREADS
from tests.harness.simulator import Simulation, no_noise, simulate
from tests.rounds.test_rounds import ask, by_group, pooled, rewrite_policies

FUNCTIONS = (
    *(f"{name}(survival) AS {name}" for name in (*SPREADS, "variance", "stddev")),
    *(f"{name}(weight_loss, survival) AS {name}" for name in PAIRS),
)
# With noise: by groups, by a filter, and of bools.
QUESTIONS = (
    "SELECT sex, COUNT(*) AS n, STDDEV(age) AS spread, CORR(age, survival) AS r FROM lung GROUP BY sex",
    "SELECT ecog, VAR_POP(died) AS v, REGR_SLOPE(died, age) AS b FROM lung WHERE age >= 50 GROUP BY ecog",
)


@pytest.fixture(scope="module")
def of_two(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """A federation without noise whose cohorts may be as small as two."""
    path = Path(shutil.copytree(founded, tmp_path_factory.mktemp("of-two") / "federation"))
    rewrite_policies(path, "min_cohort     = 25", "min_cohort     = 2")
    with simulate(path, noise=no_noise) as simulation:
        yield simulation


@pytest.mark.parametrize("rest", [" FROM lung", " FROM lung WHERE age > 60 AND died", " FROM lung GROUP BY sex"])
def test_without_noise_every_function_equals_pooled_duckdb(of_two: Simulation, rest: str) -> None:
    keys = ("sex",) if "GROUP" in rest else ()
    question = f"SELECT {', '.join((*keys, *FUNCTIONS))}{rest}"
    answers, truths = by_group(ask(of_two, question, 2.0).rows, keys), by_group(pooled(question), keys)
    assert answers
    for group, row in answers.items():
        for name, cell in row.items():
            if not isinstance(cell, Estimate):
                continue
            assert cell.low is not None
            assert cell.high is not None
            assert cell.low - 1e-9 <= float(truths[group][name]) <= cell.high + 1e-9, name
            assert cell.value == pytest.approx(float(truths[group][name]), rel=1e-9), (group, name)


@pytest.mark.parametrize("question", QUESTIONS)
def test_with_noise_a_question_is_answered_as_it_would_be_by_hand(home: Path, question: str) -> None:
    with simulate(home) as simulation:
        report = ask(simulation, question, 2.0)
        assert report.rows
        assert simulation.spent("aspen") > 0
    for row in report.rows:
        for cell in row.values():
            if isinstance(cell, Estimate) and cell.value is not None:
                assert cell.low is not None
                assert cell.high is not None
                assert cell.low <= cell.value <= cell.high
    assert report.to_json()


def test_a_policy_that_does_not_list_it_refuses_before_anything_is_spent(home: Path) -> None:
    rewrite_policies(home, ', "var", "covar", "corr", "regr"', "")
    with simulate(home) as simulation:
        with pytest.raises(DeniedError) as caught:
            ask(simulation, "SELECT STDDEV(age) AS s FROM lung")
        assert {denial.code for found in caught.value.denials.values() for denial in found} == {"AGGREGATE"}
        with pytest.raises(SqlError, match="'age' twice"):
            ask(simulation, "SELECT CORR(age, age) FROM lung")
        assert simulation.spent("aspen") == 0
