"""`consilo find-keys` as it is called: what it prints and writes, how it goes on, and that an error costs nothing."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from analyst.cli.main import main
from tests.harness.coded_visits import COMMON, PURPOSE, clinics
from tests.harness.simulator import Simulation


@pytest.fixture
def asked(tmp_path: Path, commanded: Callable[[Simulation], Simulation]) -> Iterator[Simulation]:
    with clinics(tmp_path / "f") as simulation:
        yield commanded(simulation)


def find(simulation: Simulation, *options: str, column: str = "visits.code", epsilon: str = "20") -> int:
    federation = str(simulation.path / "consilo.toml")
    command = ["find-keys", column, "--federation", federation, "--purpose", PURPOSE, "--epsilon", epsilon]
    return main([*command, *options])


def test_it_prints_what_was_found_and_how_to_adopt_it(
    asked: Simulation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert find(asked, "--out", str(out)) == 0
    text, notes = capsys.readouterr()
    assert "5 keys of code in visits, in 3 rounds" in text
    assert "  A01: about 220 persons (" in text
    assert "a key that nobody has is among them with probability 0.001 at most" in text
    stated = json.loads((out / "visits.code.v1.json").read_text())
    assert f'domain_file = "visits.code.v1.txt", domain_hash = "{stated["domain_hash"]}", unknown = "(other)"' in text
    assert "round 2: 24 numbers of 3 prefixes, 2 survive, 1 key entered" in notes
    assert sorted(path.name for path in out.iterdir()) == ["visits.code.v1.json", "visits.code.v1.txt"]
    federation = ["--federation", str(asked.path / "consilo.toml")]
    assert main(["report", "verify", str(out / "visits.code.v1.json"), *federation]) == 0
    assert capsys.readouterr().out.count("ok  ") == 6
    before = asked.spent("east")
    assert find(asked, "--out", str(out), "--format", "json") == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["version"], [one["key"] for one in again["found"]]) == (2, sorted(COMMON))
    assert asked.spent("east") == 2 * before, "what is finished is not continued"


def test_a_preview_writes_and_pays_nothing(
    asked: Simulation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find(asked, "--preview", "--out", str(tmp_path / "nowhere")) == 0
    assert "nothing was asked, nothing is paid" in capsys.readouterr().out
    assert find(asked, "--preview", "--format", "json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rounds"], set(told["silos"])) == (3, {"east", "north", "south", "west"})
    assert asked.spent("east") == 0


@pytest.mark.parametrize(
    ("column", "epsilon", "options", "message"),
    [
        ("code", "20", (), "'code' is no TABLE.COLUMN"),
        ("visits.", "20", (), "'visits.' is no TABLE.COLUMN"),
        ("visit.code", "20", (), "unknown table 'visit'"),
        ("visits.cod", "20", (), "unknown column 'cod' of 'visits'"),
        ("visits.code", "0", (), "epsilon is 0"),
        ("visits.code", "0.000001", (), "buys nothing"),
        ("visits.code", "20", ("--out", "/nowhere"), "there is no directory /nowhere"),
        ("visits.code", "20", ("--silos", "east"), "no answer: 1 silo"),
        ("visits.code", "20", ("--backend", "paillier"), "BACKEND"),
    ],
)
def test_an_error_is_one_line_with_a_hint_and_costs_nothing(
    asked: Simulation,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    column: str,
    epsilon: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    own = () if "--out" in options else ("--out", str(tmp_path))
    assert find(asked, *options, *own, column=column, epsilon=epsilon) in (1, 3)
    text, errors = capsys.readouterr()
    assert text == ""
    assert f"{message}" in errors
    assert errors.count("error:") == errors.count("hint:") == 1
    assert asked.spent("east") == 0
    assert not list(tmp_path.glob("*.search"))


def test_the_same_command_goes_on_and_new_begins_anew(
    asked: Simulation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submit, rounds = asked.submit, list[bytes]()

    def cut(request: bytes, more_s: float = 0.0) -> bytes:
        rounds.append(request)
        if len(rounds) == 2:
            raise KeyboardInterrupt
        return submit(request, more_s)

    asked.submit = cut  # type: ignore[method-assign]
    find(asked, "--out", str(tmp_path))
    assert (tmp_path / "visits.code.search").exists()
    after_one = asked.spent("east")
    assert find(asked, "--out", str(tmp_path), epsilon="10") == 1
    assert "is of another search" in capsys.readouterr().err
    assert find(asked, "--out", str(tmp_path)) == 0
    assert asked.spent("east") == 3 * after_one
    assert not (tmp_path / "visits.code.search").exists()
    rounds.clear()
    find(asked, "--out", str(tmp_path))
    rounds.clear()
    rounds.append(b"")
    rounds.append(b"")
    assert find(asked, "--out", str(tmp_path), "--new", epsilon="10") == 0
    assert (tmp_path / "visits.code.v2.txt").exists()
