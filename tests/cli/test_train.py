"""`consilo train` as a user types it: its preview, a line a round, and JSON."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from analyst.cli.main import main
from tests.analyst.test_run_preview import PRIVATE, private
from tests.harness.simulator import Simulation
from tests.rounds.test_training import SILOS


def test_the_command_prints_text_and_json(
    tmp_path: Path, commanded: Callable[[Simulation], Simulation], capsys: pytest.CaptureFixture[str]
) -> None:
    with private(tmp_path / "f", f"{PRIVATE}epsilon = 4\n") as simulation:
        commanded(simulation)
        command = [
            "train",
            f"{simulation.path}/job.toml",
            "--federation",
            f"{simulation.path}/consilo.toml",
            "--preview",
        ]
        assert main(command) == 0
        assert "rounds 1 to 20, each: 5 values; a silo sends " in capsys.readouterr().out
        assert main([*command, "--format", "json"]) == 0
        found = json.loads(capsys.readouterr().out)
    assert found["rounds"] == 20
    assert set(found["silos"]) == set(SILOS)
