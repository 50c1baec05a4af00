"""Every command as a user types it: scripts in tests/cli/ hold command, output and exit status.

In a script, `...` stands for anything, FED for the federation's consilo.toml, POLICY for a silo's policy, KEY for the
analyst's key, OUT for a file that is not there, ANSWER for the JSON of an answer, DATA for a file of rows, EMPTY
for one without, EXAMPLES for the example policies and LOOSER for a changed one; lines after `2> ` are standard error,
`? N` is the exit status where it is not 0.
"""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import analyst.cli.main
import analyst.client
import policies.decision.decide
import policies.decision.denial_codes
import policies.decision.disclosure
import silo_node.owner.cli
from analyst.kept import DIRECTORY
from tests.harness.simulator import Simulation, simulate

SCRIPTS = Path(__file__).parent
EXAMPLES = Path(policies.__file__).parent / "examples"


def blocks(of_owner: bool) -> Iterator[Any]:
    for script in sorted(SCRIPTS.glob("*.txt")):
        for block in re.split(r"\n(?=\$ )", "\n" + script.read_text()):
            lines = [line for line in block.strip("\n").splitlines() if not line.startswith("#")]
            if lines and lines[0].startswith("$ ") and ("POLICY" in lines[0]) == of_owner:
                while lines and not lines[-1]:
                    lines.pop()
                marks = [pytest.mark.process] if "--request" in lines[0] else []  # which is planned in another
                yield pytest.param(lines, id=f"{script.stem}: {lines[0][2:80]}", marks=marks)


@pytest.fixture(scope="module")
def _running(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    path = Path(shutil.copytree(founded, tmp_path_factory.mktemp("scripts") / "federation"))
    with simulate(path, is_lazy=True) as simulation:
        yield simulation


@pytest.fixture
def asked(_running: Simulation, commanded: Callable[[Simulation], Simulation]) -> Simulation:
    """One federation for all scripts of analysts: what they ask leaves no trace but a spent budget."""
    shutil.rmtree(_running.path / DIRECTORY, ignore_errors=True)
    return commanded(_running)


@pytest.fixture
def owned(home: Path, commanded: Callable[[Simulation], Simulation]) -> Iterator[Simulation]:
    """A federation of the script's own, of which the owner's silo runs."""
    with simulate(home, is_lazy=True) as simulation:
        _ = simulation.silos["aspen"].actor
        yield commanded(simulation)


def spent(simulation: Simulation) -> dict[str, int]:
    return {name: simulation.spent(name) if silo.is_started else 0 for name, silo in simulation.silos.items()}


def matches(expected: list[str], actual: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in "\n".join(expected).split("..."))
    return re.fullmatch(pattern, actual.rstrip("\n"), re.DOTALL) is not None


def run(command: str) -> int:
    program, *arguments = shlex.split(command)
    return {"consilo": analyst.cli.main.main, "consilo-silo": silo_node.owner.cli.main}[program](arguments)


@pytest.mark.parametrize("block", list(blocks(of_owner=False)))
def test_script(block: list[str], asked: Simulation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    holds(block, asked, tmp_path, capsys)


@pytest.mark.parametrize("block", list(blocks(of_owner=True)))
def test_script_of_an_owner(
    block: list[str], owned: Simulation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holds(block, owned, tmp_path, capsys)


def holds(block: list[str], in_memory: Simulation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "ledger" in block[0]:
        run(
            f'consilo query "SELECT COUNT(*) AS n FROM lung" --federation {in_memory.path}/consilo.toml'
            " --purpose health-research --epsilon 1"
        )
        capsys.readouterr()
    command = block[0][2:].replace("FED", f"{in_memory.path}/consilo.toml").replace("OUT", str(tmp_path / "answer"))
    command = command.replace("POLICY", f"{in_memory.path}/silos/aspen/policy.toml")
    if "ANSWER" in command:
        answer = tmp_path / "answer.json"
        run(
            'consilo query "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex" --purpose health-research'
            f" --federation {in_memory.path}/consilo.toml --epsilon 1 --format json --out {answer}"
        )
        capsys.readouterr()
        command = command.replace("ANSWER", str(answer))
    command = command.replace("KEY", f"{in_memory.path}/analysts/ana.key")
    command = command.replace("EXAMPLES", str(EXAMPLES)).replace("DATA", str(tmp_path / "visits.csv"))
    command = command.replace("EMPTY", str(tmp_path / "empty.csv"))
    command = command.replace("LOOSER", str(tmp_path / "looser.toml"))
    (tmp_path / "visits.csv").write_text("pid,sex,age\np1,f,30\np2,m,40\n")
    (tmp_path / "empty.csv").write_text("pid,sex,age\n\n")
    bank = (EXAMPLES / "bank.toml").read_text().replace("version     = 7", "version     = 8")
    bank = bank.replace("min_cohort = 50", "min_cohort = 40").replace("requests_per_day = 40", "requests_per_day = 30")
    (tmp_path / "looser.toml").write_text(bank)
    before = spent(in_memory)
    status = run(command)
    output, errors = capsys.readouterr()
    expected_status = next((int(line[2:]) for line in block if line.startswith("? ")), 0)
    expected_errors = [line[3:] for line in block if line.startswith("2> ")]
    expected = [line for line in block[1:] if not line.startswith(("2> ", "? "))]
    assert status == expected_status, errors
    assert matches(expected_errors, errors), errors
    assert matches(expected, output), output
    assert "Traceback" not in output + errors
    if status:
        assert before == spent(in_memory), "an error must cost nothing"


def test_out_writes_the_answer_and_prints_nothing(
    in_memory: Simulation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "answer.json"
    status = run(
        f'consilo query "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex" --federation {in_memory.path}/consilo.toml'
        f" --purpose health-research --epsilon 1 --format json --out {file}"
    )
    assert status == 0
    assert not capsys.readouterr().out
    answer = json.loads(file.read_text())
    assert answer["columns"] == ["sex", "n"]
    assert set(answer) == {
        "columns", "dimensions", "rows", "withheld_groups", "rho", "epsilon", "delta", "silos", "transcript",
        "assumptions", "wrong", "threshold", "cut", "definition", "request", "after", "labels", "told",
    }  # fmt: skip
    assert set(answer["rows"][0]["n"]) == {"value", "low", "high", "sd"}
    assert set(answer["silos"]["aspen"]) == {"status", "policy_hash", "denials", "consent_as_of", "rows_as_of"}
    assert answer["withheld_groups"] == [{"sex": "unknown"}]


def test_a_defect_is_one_line_and_not_a_traceback(
    in_memory: Simulation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(analyst.client, "script_of", lambda *_: 1 / 0)
    monkeypatch.delenv("CONSILO_DEBUG", raising=False)
    status = run(
        f'consilo query "SELECT COUNT(*) FROM lung" --federation {in_memory.path}/consilo.toml --purpose p --epsilon 1'
    )
    errors = capsys.readouterr().err
    assert status == 1
    assert errors.startswith("consilo: error: unexpected ZeroDivisionError\nconsilo: hint: ")


@pytest.mark.parametrize("break_it", ["missing", "empty", "garbage", "wrongly typed"])
def test_a_broken_data_file_is_shown_to_its_owner(
    home: Path, break_it: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = home / "silos" / "maple" / "lung.parquet"
    if break_it == "missing":
        data.unlink()
    elif break_it == "garbage":
        data.write_bytes(b"no parquet at all")
    else:
        table = pq.read_table(data)
        table = table.slice(0, 0) if break_it == "empty" else table
        if break_it == "wrongly typed":
            table = table.set_column(table.column_names.index("age"), "age", pa.array(["old"] * len(table)))
        pq.write_table(table, data)
    assert run(f"consilo-silo check-policy {home}/silos/maple/policy.toml") == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert errors[0].startswith("consilo-silo: error: source 'lung': ")
    assert errors[1].startswith("consilo-silo: hint: ")


def test_a_malformed_policy_lists_every_problem_with_its_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = home / "silos" / "maple" / "policy.toml"
    text = policy.read_text().replace("min_cohort", "min_cohrt").replace("delta       = 1e-6", "delta = 0.01")
    policy.write_text(text)
    lines = text.splitlines()
    cohort = 1 + next(index for index, line in enumerate(lines) if line.startswith("min_cohrt"))
    delta = 1 + next(index for index, line in enumerate(lines) if line.startswith("delta"))
    assert run(f"consilo-silo check-policy {policy}") == 1
    errors = capsys.readouterr().err
    assert (
        f"{policy}:{cohort}: disclosure.min_cohrt: unknown key (found 'min_cohrt'; did you mean 'min_cohort')" in errors
    )
    assert f"{policy}:{delta}: budget.delta: " in errors
    assert "consilo-silo: error: 2 problems in the policy" in errors


def test_python_client_gives_arrow_and_pandas(in_memory: Simulation) -> None:
    with analyst.client.Federation.open(in_memory.path / "consilo.toml") as federation:
        report = federation.query(
            "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex", purpose="health-research", epsilon=1.0
        )
    assert report.to_arrow().column_names == ["sex", "n", "n_low", "n_high", "n_sd"]
    frame = report.to_pandas()
    assert list(frame["sex"]) == ["female", "male"]
    assert (frame["n_low"] < frame["n"]).all()


def test_text_of_another_party_cannot_command_the_terminal(
    in_memory: Simulation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A denial that a silo words is printed as text: no markup, no escape sequence."""
    policy = in_memory.silos["maple"].policy
    text = policy.read_text().replace(
        '["count", "sum", "avg", "var", "covar", "corr", "regr", "quantile", "survival"]', '["count"]'
    )
    policy.write_text(text)
    in_memory.silos["maple"].restarts = True
    in_memory.silos["maple"].kill()
    original = policies.decision.denial_codes.deny
    hostile = "[/oops]\x1b[2J\x9b\u202e"
    monkeypatch.setattr(
        policies.decision.disclosure, "deny", lambda code, rule, message, remedy: original(code, rule, hostile, remedy)
    )
    status = run(
        f'consilo query "SELECT SUM(age) AS s FROM lung" --federation {in_memory.path}/consilo.toml'
        " --purpose health-research --epsilon 1"
    )
    output = capsys.readouterr().out
    assert status == 0
    assert "[/oops]?[2J??" in output
