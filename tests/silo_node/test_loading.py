"""What a run needs is there before a silo accepts its first step; what that finds of rows, nobody outside can tell."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policies.requests.request import Request
from silo_node.data.loading import FAILED, LOADED, LOADING, Loading
from silo_node.errors import NotLoadedError, SourceError
from silo_node.killable import ComputeLimits, KillableComputer
from silo_node.timed import READ_ENDS_S, TimedComputing
from tests.harness.example_policy import NOW, Edit, policy
from tests.harness.waiting import until
from tests.rounds.computation_examples import EXAMPLES, exact

LEARNS = Edit('computations = ["query"]', 'computations = ["query", "logistic-regression"]')
STEP = EXAMPLES["logistic-regression"][0]


def loaded_by(load: Callable[[], None]) -> Loading:
    """Return what imports any kind by a function."""
    return Loading(lambda kind: load())


def waited(event: threading.Event) -> None:
    event.wait(20)


def test_an_import_goes_on_beside_other_work() -> None:
    is_over = threading.Event()
    found = loaded_by(lambda: waited(is_over))
    assert [found.state("any") for _ in range(3)] == [LOADING] * 3
    is_over.set()
    found.wait()
    assert found.state("any") == LOADED


def test_an_import_that_fails_is_told_and_begun_anew() -> None:
    tried = list[int]()

    def load() -> None:
        tried.append(1)
        if len(tried) == 1:
            raise MemoryError

    found = loaded_by(load)
    found.begin("any")
    found.wait()
    assert found.state("any") == FAILED
    found.begin("any")
    found.wait()
    assert (found.state("any"), len(tried)) == (LOADED, 2)


class Reading:
    """A computer whose imports and reading take some time, or fail."""

    def __init__(self, lasts_s: float = 0.0, error: Exception | None = None, missing: bool = False) -> None:
        self.lasts_s, self.error, self.missing, self.read = lasts_s, error, missing, list[Request]()

    def load(self, kind: str, limit_s: float) -> None:
        if self.missing:
            raise NotLoadedError(f"what {kind} needs cannot be imported here")

    def read_ahead(self, request: Request, now: int) -> None:
        self.read.append(request)
        time.sleep(self.lasts_s)
        if self.error is not None:
            raise self.error


def timed(computer: Any, slept: list[float], *edits: Edit) -> TimedComputing:
    return TimedComputing(policy(LEARNS, *edits), computer, 0.01, slept.append, logging.getLogger("consilo.tests"))


STATES = Edit("[analysts.ana]", "[compute]\nfixed_seconds = 4\n[analysts.ana]")
SLOW = Edit("[analysts.ana]", "[compute]\nfixed_seconds = 90\n[analysts.ana]")
EXACT = Edit('kind = "parquet"', 'kind = "parquet"\nrelease = "exact"')


@pytest.mark.parametrize("error", [None, SourceError("row 7 is odd"), MemoryError()])
def test_where_a_time_is_stated_reading_ahead_takes_it_whatever_rows_hold(error: Exception | None) -> None:
    """Hope: the time of an acceptance tells how many rows there are, or that one cannot be read."""
    for lasts_s in (0.0, 0.3):
        slept, reading = list[float](), Reading(lasts_s, error)
        computing, began = timed(reading, slept, STATES), time.monotonic()
        computing.load(STEP, NOW, 60.0)
        assert len(reading.read) == 1
        assert slept[-1] == pytest.approx(began + 4 - time.monotonic(), abs=0.1)
        assert computing.turn(STEP, began) < began + 4, "its turn is given back"


def test_a_time_that_is_stated_as_longer_than_may_be_waited_has_its_reading_in_its_first_round() -> None:
    slept, reading = list[float](), Reading()
    timed(reading, slept, SLOW).load(STEP, NOW, 60.0)
    assert (reading.read, slept) == ([], [])


def test_elsewhere_reading_ahead_of_a_private_source_lasts_as_long_as_the_longest_in_steps_that_double() -> None:
    slept, reading, longest = list[float](), Reading(), 0.0
    computing = timed(reading, slept)
    for lasts_s in (0.0, 0.25, 0.0):
        reading.lasts_s, began = lasts_s, time.monotonic()
        computing.load(STEP, NOW, 60.0)
        ends_s = slept[-1] + time.monotonic() - began
        assert any(ends_s == pytest.approx(one, abs=0.05) for one in READ_ENDS_S), ends_s
        assert ends_s >= max(lasts_s, longest - 0.05)
        longest = ends_s
    assert longest > 0.3
    slept.clear()
    timed(reading, slept, EXACT).load(exact("logistic-regression", "smoker", "age"), NOW, 60.0)
    assert slept == [], "of an exact source nothing is promised"


def test_rows_that_cannot_be_kept_are_not_read_ahead() -> None:
    reading = Reading()
    timed(reading, [], Edit('kind = "parquet"', 'kind = "parquet"\nread = "prepared"')).load(STEP, NOW, 60.0)
    assert reading.read == []


def test_what_is_not_imported_ends_the_step_before_a_row_is_read() -> None:
    reading = Reading(missing=True)
    with pytest.raises(NotLoadedError):
        timed(reading, []).load(STEP, NOW, 60.0)
    assert reading.read == []


@pytest.mark.process
def test_a_worker_imports_beside_questions_and_says_when_it_is_over(home: Path) -> None:
    """In a process of its own: what needs nothing slow is there at once, and a limit that is over is told."""
    from policies.document.load import load

    file = home / "silos" / "aspen" / "policy.toml"
    one = KillableComputer(load(file), file, ComputeLimits(2048, 1), lambda _: None, dict)
    try:
        one.wait()
        one.load("exact-step", 0.0)
        with pytest.raises(NotLoadedError, match="not imported after"):
            one.load("logistic-regression", 0.0)
        until(lambda: is_loaded(one), 120)
    finally:
        one.close()


def is_loaded(computer: KillableComputer) -> bool:
    try:
        computer.load("logistic-regression", 5.0)
    except NotLoadedError:
        return False
    return True
