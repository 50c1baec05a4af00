"""How a program ends: by its own last lines, after what was to be done at its end, whatever libraries still hold."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process
BANK = str(Path(__file__).parents[2] / "policies/examples/bank.toml")
# A thread holds DuckDB, as Ray's threads may, when the command ends.
PROGRAM = """
import atexit, sys, threading, time
import duckdb
from silo_node.owner import cli

threading.Thread(target=lambda held: time.sleep(60), args=[duckdb.connect()], daemon=True).start()
atexit.register(print, "what was to be done at the end")
cli.program()
"""


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["check-policy", "nope.toml"], 1, ["nope.toml:1: the policy file cannot be read", "error: ", "hint: "]),
        (["serve", "--policy", "nope.toml"], 1, ["error: ", "hint: "]),
        (["diff-policy", BANK, BANK], 0, []),
    ],
    ids=["an error of the owner's", "of what is served", "no error"],
)
def test_a_program_ends_by_its_own_lines_whatever_libraries_hold(
    arguments: list[str], status: int, said: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, "-P", "-c", PROGRAM, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == status, done.stderr
    assert done.stdout.endswith("what was to be done at the end\n")
    assert "nanobind" not in done.stderr
    assert len(lines := done.stderr.splitlines()) == len(said)
    assert all(part in line for part, line in zip(said, lines, strict=True))
