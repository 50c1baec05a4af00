"""`consilo train` as a user types it: its preview, a line a round, and JSON."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from analyst.cli.main import main
from tests.analyst.test_run_preview import PRIVATE, private
from tests.harness.simulator import Simulation
from tests.rounds.test_exact_families import banks, job_of
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


def test_a_run_prints_a_line_a_round_and_json_stays_json(
    tmp_path: Path, commanded: Callable[[Simulation], Simulation], capsys: pytest.CaptureFixture[str]
) -> None:
    with banks(tmp_path / "f", job_of("linear-regression", "paid", "rounds = 3\n")) as (simulation, file):
        commanded(simulation)
        command = ["train", str(file), "--federation", f"{simulation.path}/consilo.toml", "--format", "json"]
        assert main(command) == 0
        output, notes = capsys.readouterr()
    found = json.loads(output)
    assert [one["number"] for one in found["rounds"]] == [1, 2, 3]
    assert all(one["survivors"] == list(SILOS) for one in found["rounds"])
    lines = [line for line in notes.splitlines() if line.startswith("round ")]
    assert [line.partition(":")[0] for line in lines] == [f"round {number} of 3" for number in (1, 2, 3)]
    assert all(" s, 5 of 5 silos, each sent " in line for line in lines)
