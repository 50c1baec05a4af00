"""`status` and `doctor` at an aggregator and at its analyst: what they say is so, also when nothing runs."""

import json
import time
from pathlib import Path

import pytest

import analyst.cli.main
from aggregator import status
from aggregator.keeping import Keeping
from aggregator.store import ReportStore
from federation.operations.running import forget_running, note_running
from federation.transport.frames import WIRE
from tests.harness.federated import AGGREGATOR, ANALYST, SILOS, free_port, provision, served

pytestmark = pytest.mark.server


def consilo(*arguments: object) -> int:
    return analyst.cli.main.main([str(one) for one in arguments])


def test_an_aggregator_that_does_not_run_is_not_shown_as_connected(founded: Path, tmp_path: Path) -> None:
    home = provision(tmp_path / "p", founded, "127.0.0.1:8443", SILOS[:3]) / AGGREGATOR
    note_running(home, 1)  # left by a process that was killed
    found = status.status(home, time.time())
    assert (found["running"], found["problems"], found["last"]) == (False, [], [])
    assert {one["name"]: one.get("connected") for one in found["members"] if one["role"] == "silo"} == dict.fromkeys(
        SILOS[:3]
    )
    lines = list(status.worded(found))
    assert lines[0] == f"{AGGREGATOR}, aggregator of consortium: does not answer: it was killed, or hangs"
    assert not [line for line in lines if "connected" in line]
    assert json.loads(json.dumps(found)) == found
    held = {"analyst eve": {"connections": 8, "closed": 501}, "silo aspen": {"connections": 1, "closed": 0}}
    assert "  too many connections  analyst eve 8 (501 closed)" in status.worded(found | {"holders": held})
    assert [(one.state, one.found) for one in status.examine(home) if one.what == "running"] == [
        ("warn", "does not answer: it was killed, or hangs")
    ]
    forget_running(home)  # as a process that ends by itself
    ReportStore(home / "reports", keeping=Keeping(1, 1, 1))
    found = status.status(home, time.time())
    assert next(status.worded(found)) == f"{AGGREGATOR}, aggregator of consortium: not running"
    assert found["stored"]["reports"] == {"files": 0, "bytes": 0}, "the room for the dates of erasures is no report"


def test_doctor_knows_an_aggregator_s_directory(
    founded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home = provision(tmp_path / "p", founded, "127.0.0.1:8443", SILOS[:3]) / AGGREGATOR
    findings = {one.what: one for one in status.examine(home)}
    assert {one.state for one in findings.values()} <= {"ok", "warn"}
    assert findings["silos"].found == "aspen, birch, cedar"
    assert (findings["certificate"].state, findings["running"].found) == ("warn", "not running")
    (home / "identity.key").chmod(0o644)
    failed = [one for one in status.examine(home) if one.state == "FAIL"]
    assert [one.what for one in failed] == ["identity key"]
    assert "can be read by others" in failed[0].found


def test_an_analyst_sees_who_answers(founded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    place = provision(tmp_path / "p", founded, f"127.0.0.1:{port}", SILOS[:3])
    file = place / ANALYST / "consilo.toml"
    with served(place, port, SILOS[:2]):
        capsys.readouterr()
        assert consilo("status", "--federation", file) == 0
        said = capsys.readouterr().out
        assert "silo         aspen  answers, policy version 1" in said
        assert "silo         cedar  does not answer" in said
        assert "certificate: 30 days left" in said
    capsys.readouterr()
    assert consilo("status", "--federation", file, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert "problem" in found
    assert {one["answers"] for one in found["silos"].values()} == {None}, "nobody could be asked"


def test_a_federation_in_simulate_mode_has_a_status(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert consilo("status", "--federation", home / "consilo.toml") == 0
    assert "not up; a query starts it for itself" in capsys.readouterr().out


def test_the_gate_says_since_when_a_silo_is_connected(founded: Path, tmp_path: Path) -> None:
    port = free_port()
    with served(provision(tmp_path / "p", founded, f"127.0.0.1:{port}", SILOS[:3]), port, SILOS[:3]) as one:
        one.wait(SILOS[:3])
        known = one.gate.connections
        assert set(known) == set(SILOS[:3])
        assert known["aspen"]["wire"] == WIRE[-1]
        one.silos["aspen"].stop()
        deadline = time.monotonic() + 20
        while "aspen" in one.gate.connections:
            assert time.monotonic() < deadline
            time.sleep(0.05)
