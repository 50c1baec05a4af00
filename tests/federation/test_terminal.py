"""What `consilo` and `consilo-silo` share at the terminal: one way to fail, whatever went wrong."""

import argparse
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from crypto.errors import CryptoError
from federation.errors import FederationError
from federation.files import replace_file
from federation.terminal import Failure, Parser, Program, add_command, add_group, commands_of, number, run, whole


def own(err: Exception) -> Failure | None:
    return Failure("of this program", "as it says", 3, ("line 1",)) if isinstance(err, KeyError) else None


PROGRAM = Program("prog", own, "nothing happened")


def raising(err: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise err

    return command


@pytest.mark.parametrize(
    ("err", "status", "printed"),
    [
        (KeyError("x"), 3, "line 1\nprog: error: of this program\nprog: hint: as it says\n"),
        (FederationError("two\nlines", ""), 1, "prog: error: two lines\nprog: hint: see `prog --help`\n"),
        (CryptoError("\x1b[2Jred", "a\x07b"), 1, "prog: error: ?[2Jred\nprog: hint: a?b\n"),
        (KeyboardInterrupt(), 1, "prog: error: interrupted\nprog: hint: nothing happened\n"),
        (
            OSError(2, "No such file", "data.csv"),
            1,
            "prog: error: No such file: data.csv\nprog: hint: check the path and the free disk space\n",
        ),
        (
            OSError(28, "No space left on device"),
            1,
            "prog: error: No space left on device\nprog: hint: check the path and the free disk space\n",
        ),
        (
            ZeroDivisionError("secret"),
            1,
            "prog: error: unexpected ZeroDivisionError\n"
            "prog: hint: this is a defect: set CONSILO_DEBUG=1 to see where, and report it\n",
        ),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, BaseException) else "",
)
def test_every_error_is_a_line_and_a_hint(
    err: BaseException, status: int, printed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONSILO_DEBUG", raising=False)
    assert run(PROGRAM, raising(err)) == status
    assert capsys.readouterr() == ("", printed)


def writing(path: Path) -> Callable[[], int]:
    def command() -> int:
        replace_file(path, b"x")
        return 0

    return command


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_names_the_file_that_was_asked_for(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    wanted = tmp_path / "wanted"
    assert run(PROGRAM, writing(wanted)) == 1
    assert capsys.readouterr().err.startswith(f"prog: error: {os.strerror(number)}: {wanted}\n")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    assert run(PROGRAM, writing(tmp_path / "none" / "wanted")) == 1
    assert capsys.readouterr().err.startswith(f"prog: error: No such file or directory: {tmp_path}/none/wanted\n")


def test_a_defect_is_raised_where_somebody_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSILO_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run(PROGRAM, raising(ZeroDivisionError()))


def test_a_reader_that_left_is_no_error_to_talk_about(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced: list[int] = []
    monkeypatch.setattr(os, "dup2", lambda _, onto: replaced.append(onto))
    monkeypatch.setattr("sys.stdout.fileno", lambda: 1)
    assert run(PROGRAM, raising(BrokenPipeError())) == 1
    assert replaced == [1]
    assert capsys.readouterr() == ("", "")


def test_a_command_line_is_parsed_into_what_runs_it(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="prog")
    commands = commands_of(parser)
    one = add_command(commands, "one", lambda options: int(options.count), "count for Ray")
    one.add_argument("--count", type=whole(1, 9), default=1)
    add_command(add_group(commands, "many", "a group"), "two", lambda _: 2, "say two")
    for line, status in (["one", "--count", "5"], 5), (["many", "two"], 2):
        options = parser.parse_args(line)
        assert run(PROGRAM, lambda options=options: options.run(options)) == status  # type: ignore[misc]
    assert one.description == "Count for Ray."
    assert run(PROGRAM, lambda: len(vars(parser.parse_args(["many"])))) == 1
    assert "hint: see `prog many --help`" in capsys.readouterr().err


def test_numbers_are_read_whole_or_not_at_all() -> None:
    assert (whole(0, 10)("10"), number("1e-3")) == (10, 0.001)
    for text in ("11", "-1", "1.0", "", "٣", "1" * 13):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 0 to 10"):
            whole(0, 10)(text)
    with pytest.raises(argparse.ArgumentTypeError, match="'one' is not a number"):
        number("one")
