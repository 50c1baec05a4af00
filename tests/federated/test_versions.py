"""Two versions of the software in one federation: they answer, or part with names and versions before any charge."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.link import RemoteLink
from analyst.reports.report import Report
from crypto.errors import LinkError
from federation.errors import FederationError
from federation.transport.frames import WIRE
from federation.transport.handshake import SOFTWARE
from tests.harness.federated import AGGREGATOR, ANALYST, SILOS, Served, credentials, free_port, provision, served
from tests.harness.inside import handle_of, ledger_of, wire_of
from tests.harness.waiting import until

pytestmark = pytest.mark.server

QUESTION = "SELECT COUNT(*) AS n FROM lung"
LATER, LATER_WIRE = "consilo/9.0.1", (8, 9)
SAID = rf"no common wire version: here 3 \({SOFTWARE}\), there 8, 9 \({LATER}\)"


@pytest.fixture
def running(founded: Path, tmp_path: Path) -> Iterator[Served]:
    port = free_port()
    with served(provision(tmp_path / "p", founded, f"127.0.0.1:{port}"), port) as one:
        yield one


def update(one: Served, silo: str, monkeypatch: pytest.MonkeyPatch, wire: tuple[int, ...] = LATER_WIRE) -> None:
    """Let a silo's owner update the software: another process with another version."""
    one.silos.pop(silo).stop()
    until(lambda: silo not in one.gate.connected)
    monkeypatch.setattr("silo_node.transport.dialler.SOFTWARE", LATER)  # as often as it dials
    started = one.start_silo(silo, wire)
    until(
        lambda: started.dialler.is_connected or bool(started.dialler.problem), what=lambda: str(started.counts.events)
    )


def ask(federation: Federation) -> Report:
    return federation.query(QUESTION, purpose="health-research", epsilon=0.5)


def spent(one: Served) -> dict[str, int]:
    return {name: ledger_of(silo).spending().lifetime for name, silo in one.silos.items()}


def test_the_software_names_the_version_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert f"{project['name']}/{project['version']}" == SOFTWARE


def test_a_later_version_that_speaks_a_common_one_answers(running: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for wire in (WIRE, (*WIRE, 4)):
        update(running, "birch", monkeypatch, wire)
        running.wait(SILOS)
        assert running.gate.connections["birch"]["software"] == LATER
        assert running.gate.other_versions == {}
        assert wire_of(handle_of(running.gate, "birch")) == max(WIRE)
        with running.open() as federation:
            assert {one.status for one in ask(federation).silos.values()} == {"answered"}


def test_a_silo_of_another_version_is_named_with_its_version_everywhere(
    running: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    update(running, "birch", monkeypatch)
    (problem,) = running.silos["birch"].streams.problems
    assert SAID.replace("\\", "") in problem, "its owner"
    assert list(running.gate.other_versions) == ["birch"], "the aggregator's operator"
    with running.open() as federation:
        report = ask(federation)
    birch = report.silos["birch"]
    assert birch.status == "unable"
    assert birch.denials[0].message == f"birch runs another version: {SAID}".replace("\\", "")
    assert birch.denials[0].remedy == "update the older side"
    assert [one.status for name, one in report.silos.items() if name != "birch"] == ["answered"] * 4
    assert spent(running)["birch"] == 0
    update(running, "birch", monkeypatch, WIRE)
    running.wait(SILOS)
    assert running.gate.other_versions == {}
    assert running.silos["birch"].streams.problems == []
    with running.open() as federation:
        assert ask(federation).silos["birch"].status == "answered"


def test_a_question_that_needs_the_silo_fails_before_a_charge(running: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its catalogue came before it was updated, so only the request finds out."""
    with running.open() as federation:
        assert set(federation.offer.silos) == set(SILOS)
        for silo in SILOS[1:]:
            update(running, silo, monkeypatch)
        before = spent(running)
        with pytest.raises(AnalystError, match=SAID) as failed:
            ask(federation)
        assert all(f"{silo} runs another version" in failed.value.message for silo in SILOS[1:2])
    assert spent(running) == before


def test_no_silo_of_the_aggregators_version(running: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for silo in SILOS:
        update(running, silo, monkeypatch)
    with running.open() as federation, pytest.raises(FederationError, match=SAID) as failed:
        ask(federation)
    assert failed.value.hint == "update the older side"


def test_a_client_of_another_version_is_told_both(running: Served) -> None:
    with pytest.raises(FederationError, match=rf"there 8, 9 \({SOFTWARE}\)") as failed:
        RemoteLink(credentials(running.path, ANALYST, "analyst"), AGGREGATOR, wire=LATER_WIRE)
    assert isinstance(failed.value.__cause__, LinkError)
