"""Members come, go and change their keys while a federation is served: docs/federated.md, sections 2 and 4."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analyst.report import Report
from tests.federated import (
    SILOS,
    LocalSilo,
    Served,
    add_silo,
    free_port,
    provision,
    served,
    until,
)
from tests.test_federated_link import PURPOSE, QUESTION, ask, statuses

FOUR, FIFTH = SILOS[:4], SILOS[4]
SECOND = "spoke"


@pytest.fixture
def running(founded: Path, tmp_path: Path) -> Iterator[Served]:
    """Four silos that are connected."""
    port = free_port()
    with served(provision(tmp_path / "p", founded, f"127.0.0.1:{port}", FOUR), port, FOUR) as one:
        yield one


def answered(report: Report, silos: tuple[str, ...]) -> None:
    assert statuses(report) == dict.fromkeys(silos, "answered")


def spent(one: Served) -> dict[str, int]:
    return {name: silo.actor._ledger.spending().lifetime for name, silo in one.silos.items()}


def learned(one: Served, version: int) -> None:
    """Wait until every silo has learned of a version, and its actor has started anew with it."""

    def is_so() -> bool:
        return all(
            len(silo.dialler._credentials.log) == version and silo.actor._silo.roster.version == version
            for silo in one.silos.values()
        )

    until(is_so, 20.0, lambda: str({name: silo.actor._silo.roster.version for name, silo in one.silos.items()}))


def dialled(silo: LocalSilo) -> list[object]:
    """Return how the streams that the silo dialled have ended."""
    return [what for kind, what in silo.counts.events if kind == "dialled"]


# A silo more.


def test_a_fifth_silo_is_admitted_while_four_are_connected(running: Served, founded: Path) -> None:
    answered(ask(running), FOUR)
    add_silo(running.path, founded, FIFTH)
    version = running.take_membership()
    fifth = running.start_silo(FIFTH)
    running.wait(SILOS)
    learned(running, version)
    answered(ask(running), SILOS)
    assert {name: silo.starts for name, silo in running.silos.items()} == {**dict.fromkeys(FOUR, 2), FIFTH: 1}
    assert all(set(silo.actor._silo.silos) == set(SILOS) for silo in running.silos.values())
    assert fifth.seen.count("contribute") == 1


def test_a_question_under_way_while_the_membership_grows_ends_with_an_answer(running: Served, founded: Path) -> None:
    """Streams end when the rounds under way have: before that nobody dials again and no actor starts anew."""
    add_silo(running.path, founded, FIFTH)
    before = {name: running.gate._silos[name]._session for name in FOUR}
    found: dict[str, Any] = {}

    def grow(step: str) -> None:
        if step == "contribute" and not found:
            found["version"] = running.take_membership()
            time.sleep(1.0)  # time to end the streams in, for a gate that did not wait
            found["sessions"] = {name: running.gate._silos[name]._session for name in FOUR}
            found["starts"] = [silo.starts for silo in running.silos.values()]

    running.silos[FOUR[0]].before = grow
    answered(ask(running), FOUR)
    assert found["sessions"] == before
    assert found["starts"] == [1] * 4
    running.start_silo(FIFTH)
    running.wait(SILOS)
    learned(running, found["version"])
    answered(ask(running), SILOS)


def test_an_analyst_that_connected_before_the_fifth_silo_asks_those_it_knows(running: Served, founded: Path) -> None:
    with running.open() as federation:
        answered(federation.query(QUESTION, purpose=PURPOSE, epsilon=1.0), FOUR)
        add_silo(running.path, founded, FIFTH)
        version = running.take_membership()
        running.start_silo(FIFTH)
        running.wait(SILOS)
        learned(running, version)
        answered(federation.query(QUESTION, purpose=PURPOSE, epsilon=1.0), FOUR)
    answered(ask(running), SILOS)
