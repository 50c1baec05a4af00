"""The command line that `consilo` and `consilo-silo` share: parsers, typed values, passphrases, errors and exit codes.

Promise: a failing command writes two lines to standard error, `PROGRAM: error: ...` and `PROGRAM: hint: ...`, and has
an exit status above 0. Text of another party is printed without control characters. An unexpected error is reported as
a defect; with CONSILO_DEBUG set it is raised instead. `docs/decisions/0009-argparse.md` explains the choice of
argparse.
"""

import argparse
import atexit
import getpass
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import NoReturn, TypeAlias

from crypto.errors import CryptoError
from federation.errors import CommandLineError, FederationError
from federation.files import write_out
from federation.operations.checks import Finding
from federation.operations.private import close_to_others


class Parser(argparse.ArgumentParser):
    """A parser that raises CommandLineError instead of printing and leaving."""

    def error(self, message: str) -> NoReturn:
        raise CommandLineError(message, f"see `{self.prog} --help`")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


@dataclass(frozen=True, slots=True)
class Failure:
    """The message, hint and exit status of a failed command."""

    message: str
    hint: str
    status: int = 1
    details: tuple[str, ...] = ()  # lines that are printed before the message


@dataclass(frozen=True, slots=True)
class Program:
    """The texts that differ between the two programs."""

    name: str
    explain: Callable[[Exception], Failure | None]  # None for an unexpected error
    interrupted: str  # the hint after Ctrl-C


def commands_of(parser: Parser) -> Commands:
    """Return the object to which a program's commands are added."""
    return parser.add_subparsers(required=True, metavar="COMMAND")


def add_command(commands: Commands, name: str, run: Callable[..., int], text: str) -> Parser:
    """Add a command that calls `run`; `text` is its help, one sentence in lower case without a full stop."""
    added = commands.add_parser(name, help=text, description=_sentence(text))
    added.set_defaults(run=run)
    return added


def add_group(commands: Commands, name: str, text: str) -> Commands:
    """Add a command with actions, and return the object to which these are added."""
    added = commands.add_parser(name, help=text, description=_sentence(text))
    return added.add_subparsers(required=True, metavar="ACTION")


def run(program: Program, command: Callable[[], int]) -> int:
    """Run one command and return the exit status; every expected error becomes one line and one hint.

    What it writes is its user's only (umask 0077).
    """
    close_to_others()
    try:
        return command()
    except KeyboardInterrupt:
        return fail(program.name, Failure("interrupted", program.interrupted))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader is gone: no error at exit
        return 1
    except Exception as err:
        failure = program.explain(err) or _explain(err)
        if failure is not None:
            return fail(program.name, failure)
        if os.environ.get("CONSILO_DEBUG"):
            raise
        hint = "this is a defect: set CONSILO_DEBUG=1 to see where, and report it"
        return fail(program.name, Failure(f"unexpected {type(err).__name__}", hint))


def end(status: int) -> NoReturn:
    """End this process as the interpreter does, but do not take its modules down.

    What a thread or an error still refers to, DuckDB's module would then report in forty lines, below what counts.
    """
    atexit._run_exitfuncs()  # as multiprocessing ends its processes
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it, or it is closed
            stream.flush()
    os._exit(status)


def fail(program: str, failure: Failure) -> int:
    """Print why a command failed and what to do about it; return its exit status."""
    for line in failure.details:
        print(plain(line), file=sys.stderr)
    print(f"{program}: error: {_one_line(failure.message)}", file=sys.stderr)
    print(f"{program}: hint: {_one_line(failure.hint) or f'see `{program} --help`'}", file=sys.stderr)
    return failure.status


def print_findings(findings: Iterable[Finding]) -> int:
    """Print the findings of start-up checks; return the exit status, 1 if one of them failed."""
    status = 0
    for finding in findings:
        print("\n".join(finding.lines()))
        status = 1 if finding.state == "FAIL" else status
    return status


def plain(text: str) -> str:
    """Return text of another party without control characters."""
    return "".join(character if character.isprintable() else "?" for character in text)


def put_out(text: str, file: Path | None, in_words: str) -> None:
    """Write a text to a file and say what it is, or print it without control characters; raises OSError."""
    if file is None:
        print("\n".join(map(plain, text.splitlines())))
        return
    write_out(file, text.encode())
    print(f"{file}: {in_words}")


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of whole numbers between bounds, both included."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"found {text[:40]!r}, expected a whole number from {low} to {high}")
        return int(text)

    return read


def number(text: str) -> float:
    """Parse a number; raises ArgumentTypeError."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def asking(what: str, hint: str, pause: Callable[[], AbstractContextManager[None]] = nullcontext) -> Callable[[], str]:
    """Return a function that asks for the passphrase of `what` and says when it asks again; `hint` is as in `typed`.

    `pause` suspends other output while a person types.
    """
    prompts = chain([f"passphrase of {what}: "], repeat("that does not open it; passphrase: "))

    def ask() -> str:
        with pause():
            return typed(next(prompts), hint)

    return ask


def typed(prompt: str, hint: str) -> str:
    """Return the text that a person types at the terminal, without showing it.

    Raises CommandLineError with `hint` if there is no terminal, or nothing is typed.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandLineError("a passphrase is needed, and there is no terminal to ask for it", hint)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # it would show what is typed
            return getpass.getpass(prompt)
    except (EOFError, getpass.GetPassWarning):
        raise CommandLineError("no passphrase was given", hint) from None


def confirmed(question: str, hint: str) -> bool:
    """Tell whether a person at the terminal answers yes; raises CommandLineError with `hint` without a terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandLineError("a person has to agree, and there is no terminal to ask at", hint)
    try:
        return input(f"{question} [y/N] ").strip().casefold() in ("y", "yes")
    except EOFError:
        return False


def _explain(err: Exception) -> Failure | None:
    match err:
        case FederationError() | CryptoError():
            return Failure(err.message, err.hint)
        case OSError():
            message = f"{err.strerror or err}" + (f": {err.filename}" if err.filename else "")
            return Failure(message, "check the path and the free disk space")
        case _:
            return None


def _one_line(text: str) -> str:
    return plain(" ".join(text.split()))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
