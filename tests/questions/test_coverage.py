"""Shown intervals hold the truth, of every function: a share of what `make bench` measures."""

import math
from pathlib import Path

import pytest

from tests.questions.coverage import CORE, DERIVED, PICKED, SHAPES, Covered, core_runs, derived_runs, silo

RUNS, ANSWERS = 400, 4
LEAST, DEVIATIONS = 0.94, 4.0  # of a share of few runs: 1 in 30,000 falls so far below by chance


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("coverage")


def check(found: Covered, least_shown: int, question: str) -> None:
    assert not found.impossible, (question, found.impossible[:3])
    for group, count in found.shown.items():
        if count >= least_shown:
            slack = DEVIATIONS * math.sqrt(LEAST * (1 - LEAST) / count)
            assert found.held[group] / count >= LEAST - slack, (question, group, found.held[group], count)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_the_intervals_of_every_aggregate_hold(home: Path, shape: str) -> None:
    of, whole = silo(home, shape), Covered()
    for seed, question in enumerate(CORE):
        found = core_runs(of, question, RUNS, seed)
        check(found, RUNS // 4, question)
        whole.merge(found)
    assert sum(whole.held.values()) / sum(whole.shown.values()) >= LEAST
    assert sum(whole.shown.values()) > len(CORE) * RUNS


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES[:2])
def test_the_intervals_of_what_is_computed_after_the_answer_hold(home: Path, shape: str) -> None:
    of, whole = silo(home, shape), Covered()
    for seed, (question, truth) in enumerate([*((one, None) for one in DERIVED), *PICKED]):
        found = derived_runs(of, question, ANSWERS, seed, truth)
        assert not found.impossible, (question, found.impossible[:3])
        whole.merge(found)
    held, shown = sum(whole.held.values()), sum(whole.shown.values())
    assert shown > 8 * len(DERIVED)
    assert held / shown >= LEAST - DEVIATIONS * math.sqrt(LEAST * (1 - LEAST) / shown)


def test_an_interval_that_misses_is_counted(home: Path) -> None:
    found = Covered()
    of = silo(home, "spread")
    found.merge(core_runs(of, CORE[0], 100, 0))
    held = sum(found.held.values())
    assert 0 < held < sum(found.shown.values()), "some miss"
    assert found.worst(10**9)[0] == "none"
