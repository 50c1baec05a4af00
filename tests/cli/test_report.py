"""`consilo report`: what was paid for is listed, shown again, fetched and checked; a failure to show loses nothing."""

import io
import json
import sys
from pathlib import Path

import pytest

import analyst.cli.opening
from analyst.cli.main import main
from analyst.kept import KeptAnswers
from tests.harness.inside import ledger_of
from tests.harness.simulator import Simulation

QUESTION = "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex"


def consilo(simulation: Simulation, *arguments: object) -> int:
    return main([*map(str, arguments), "--federation", f"{simulation.path}/consilo.toml"])


def query(simulation: Simulation, *more: object) -> int:
    price = "1"  # at which the empty group is shown once in 10^7
    return consilo(simulation, "query", QUESTION, "--purpose", "health-research", "--epsilon", price, *more)


def charges(simulation: Simulation) -> set[int]:
    return {len(ledger_of(silo).history()) for silo in simulation.silos.values()}


def listed(simulation: Simulation, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    capsys.readouterr()
    assert consilo(simulation, "report", "list", "--format", "json") == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_an_answer_is_listed_shown_opened_and_verified_by_its_name(
    in_memory: Simulation, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert query(in_memory, "--format", "json") == 0
    answer = capsys.readouterr().out
    (one,) = listed(in_memory, capsys)
    assert one["name"] == json.loads(answer)["request"]
    assert (one["question"], one["purpose"], one["state"]) == (QUESTION, "health-research", "opened")
    assert one["rho"] == pytest.approx(json.loads(answer)["rho"])
    name = str(one["name"])[:8]
    assert consilo(in_memory, "report", "list") == 0
    table = capsys.readouterr().out
    assert name in table
    assert "opened" in table
    assert consilo(in_memory, "report", "verify", name) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ok  the 2 rows of the answer are what it says"
    in_memory.server, server = None, in_memory.server  # type: ignore[assignment]
    assert consilo(in_memory, "report", "show", name, "--format", "json") == 0
    assert capsys.readouterr().out == answer, "without a connection"
    assert consilo(in_memory, "report", "show", name, "--format", "csv", "--out", tmp_path / "answer.csv") == 0
    assert (tmp_path / "answer.csv").read_text().count("\nsex,n,n_low") == 1
    in_memory.server = server
    for path in (in_memory.path / "answers").glob("*.answer"):
        path.unlink()
    capsys.readouterr()
    assert [row["state"] for row in listed(in_memory, capsys)] == ["sent"]
    assert consilo(in_memory, "report", "show", name) == 1
    assert f"{one['name']}"[:12] + ": its answer was not opened yet" in capsys.readouterr().err
    assert consilo(in_memory, "report", "open", name, "--format", "json") == 0
    assert capsys.readouterr().out == answer, "as the aggregator has it"
    assert consilo(in_memory, "report", "show", name, "--format", "json") == 0
    for path in (in_memory.path / "answers").iterdir():
        path.unlink()
    capsys.readouterr()
    assert consilo(in_memory, "report", "open", name) == 1
    assert "no question of ana is kept here" in capsys.readouterr().err
    assert consilo(in_memory, "report", "open", one["name"], "--format", "csv") == 0
    assert capsys.readouterr().out == (tmp_path / "answer.csv").read_text(), "another machine of the analyst has it"
    assert charges(in_memory) == {1}


def test_kept_answers_are_erased_by_name_or_by_day(in_memory: Simulation, capsys: pytest.CaptureFixture[str]) -> None:
    assert query(in_memory) == 0
    assert query(in_memory) == 0
    first, second = (str(one["name"]) for one in listed(in_memory, capsys))
    assert consilo(in_memory, "report", "erase", first[:9]) == 0
    assert capsys.readouterr().out.startswith("answers erased: 1, 0.0")
    assert sorted(str(one["state"]) for one in listed(in_memory, capsys)) == ["ended", "opened"]
    assert consilo(in_memory, "report", "show", first) == 1
    assert "its answer was erased here on 20" in capsys.readouterr().err
    assert consilo(in_memory, "report", "erase", "--before", "1999-12-31") == 0
    assert capsys.readouterr().out == "answers erased: 0, 0.0 MiB\n"
    assert consilo(in_memory, "report", "erase", "--before", "2199-12-31") == 0
    assert capsys.readouterr().out.startswith("answers erased: 1")
    for wrong in ((), (second, "--before", "2027-01-31"), ("--before", "31.1.2027"), (second,), ("abc123",)):
        assert consilo(in_memory, "report", "erase", *wrong) == 1
        assert "consilo: hint: " in capsys.readouterr().err
    assert charges(in_memory) == {2}


def test_names_that_are_none_say_so(in_memory: Simulation, capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("show", "open", "verify"):
        assert consilo(in_memory, "report", action, "abc123") == 1
        error, hint = capsys.readouterr().err.splitlines()
        assert error == "consilo: error: no question of ana is kept here as 'abc123'"
        assert hint.startswith("consilo: hint: `consilo report list` has the names")


def test_a_command_given_again_after_an_end_says_in_one_line_what_it_does(
    in_memory: Simulation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(KeptAnswers, "keep", interrupted)
        assert query(in_memory) == 1
    capsys.readouterr()
    assert query(in_memory) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("asked at ")
    assert line.endswith("this is its answer, at no second price")
    assert charges(in_memory) == {1}
    assert query(in_memory) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("this is a new request at a new price")
    assert charges(in_memory) == {2}


def test_an_answer_that_cannot_be_written_is_not_lost(
    in_memory: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    assert query(in_memory, "--out", tmp_path / "folder") == 1
    assert "is a directory" in capsys.readouterr().err
    assert charges(in_memory) == {0}, "nothing was asked"
    assert query(in_memory, "--out", "/dev/full", "--format", "csv") == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "consilo: error: the answer cannot be written to /dev/full (No space left on device)"
    (one,) = listed(in_memory, capsys)
    assert f"`consilo report open {str(one['name'])[:12]}` shows the answer again, at no cost" in hint
    assert consilo(in_memory, "report", "show", one["name"]) == 0
    assert charges(in_memory) == {1}


def test_an_encoding_that_cannot_show_an_answer_does_not_lose_it(
    in_memory: Simulation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
        assert query(in_memory) == 1
    errors = capsys.readouterr().err
    assert "consilo: error: the answer cannot be printed in the encoding ascii" in errors
    assert "--format json" in errors
    (one,) = listed(in_memory, capsys)
    assert consilo(in_memory, "report", "open", one["name"], "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["request"] == one["name"]
    assert charges(in_memory) == {1}


def test_a_defect_in_rendering_does_not_lose_the_answer(
    in_memory: Simulation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CONSILO_DEBUG", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(analyst.cli.opening, "render", lambda *_: 1 / 0)
        assert query(in_memory) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("`consilo report open ")
    assert errors[1] == "consilo: error: unexpected ZeroDivisionError"
    (one,) = listed(in_memory, capsys)
    assert consilo(in_memory, "report", "show", one["name"]) == 0
    assert charges(in_memory) == {1}
