"""Whole long rounds over three shards, of which one ends with its disk at some step: silos learn the right sum."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest

from crypto.backends.scheme import CHUNK_VALUES
from tests.harness.long_rounds import LongFederation, long_federation

LENGTH, LIMIT, SHARDS, VICTIM = 4 * CHUNK_VALUES + 1, 2**28, 3, 1
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LongFederation]:
    path = tmp_path_factory.mktemp("shards") / "f"
    with long_federation(path, 4, LENGTH, LIMIT, step_timeout_s=20.0) as fed:
        fed.simulation.sums.place.spread(SHARDS, keeps=False)
        yield fed


def values(name: str) -> npt.NDArray[np.int64]:
    return np.random.default_rng(int(name[-2:])).integers(-(LIMIT // 2), LIMIT // 2, LENGTH, np.int64)


def dies(step: str, at: int) -> Callable[[int, str], str]:
    left = [at]

    def before(number: int, called: str) -> str:
        if (number, called) != (VICTIM, step) or left[0] < 0:
            return ""
        left[0] -= 1
        return "before" if left[0] < 0 else ""

    return before


@pytest.mark.parametrize(("step", "at"), [("stage", 0), ("stage", 2), ("keep", 1), ("close", 0)])
def test_a_shard_that_is_lost_with_its_disk_gets_its_range_again_from_the_silos(
    long: LongFederation, step: str, at: int
) -> None:
    place = long.simulation.sums.place
    made, place.before = place.made.count(VICTIM), dies(step, at)
    request = long.request()
    answer = long.ask(values, request)
    assert isinstance(answer, bytes), answer.message.reason
    assert place.made.count(VICTIM) > made, "it was lost, and is made anew"
    long.simulation.mend()
    assert {long.simulation.ended[-1].outcomes.status(name) for name in long.names} == {"answered"}
    long.opened.clear()
    assert set(long.learn(answer)) == set(long.names)
    right = sum(values(name) for name in long.names)
    assert all(np.array_equal(one, right) for one in long.opened)


def test_a_silo_that_has_gone_with_what_a_shard_lost_ends_the_round_with_what_was_lost(long: LongFederation) -> None:
    place = long.simulation.sums.place
    inner = dies("close", 0)

    def before(number: int, step: str) -> str:
        if died := inner(number, step):
            long.simulation.silos[long.names[2]].is_cut_off = True
        return died

    place.before = before
    answer = long.ask(values, long.request())
    assert not isinstance(answer, bytes)
    assert "shard 2 of 3 (machine 2) was lost with" in answer.message.reason
    assert f"of the contribution of {long.names[2]!r}, and the silo does not give it again" in answer.message.reason
    assert answer.message.charged, "the silos have contributed"
    long.simulation.mend()
    place.before = lambda number, step: ""
    assert isinstance(long.ask(values, long.request()), bytes)
