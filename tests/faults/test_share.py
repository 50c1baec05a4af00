"""A share of the table, on processes that are killed, stopped and cut off; `make faults` runs all of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import soak
from tests.faults.lane import Lane, lane
from tests.faults.run import price_of, run
from tests.faults.table import SHARE, Case

pytestmark = [pytest.mark.server, pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def running(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lane, int]]:
    with lane(tmp_path_factory.mktemp("lane"), founded) as one:
        yield one, price_of(one)


@pytest.mark.parametrize("case", SHARE, ids=str)
def test_a_fault(running: tuple[Lane, int], case: Case) -> None:
    one, price = running
    verdict = run(one, case, price)
    assert not verdict.wrong, verdict


def test_a_short_soak() -> None:
    memory, files, _ = soak.rounds(count=40, samples=8)
    assert memory.is_flat
    assert files.is_flat
