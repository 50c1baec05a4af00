"""What the analyst's commands share: their options, an open federation with its key, and showing an answer."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.status import Status

from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.reports.render import FORMATS, csv_files, render
from analyst.reports.report import Report
from federation import files
from federation.terminal import asking, plain, whole
from policies.units import MAX_SEND_S, MAX_WAIT_S, SEND_S, WAIT_S

NO_TERMINAL = "run the command in a terminal; Python programs can use Federation.open(..., passphrase=...)"


def federation_options(parser: argparse.ArgumentParser, has_analyst: bool = True) -> None:
    """Add the options that name a federation, and who asks."""
    default = Path("consilo.toml")
    parser.add_argument("--federation", type=Path, default=default, metavar="FILE", help="its consilo.toml")
    if has_analyst:
        parser.add_argument("--analyst", metavar="NAME", help="who asks, where consilo.toml has several keys")


def deadline_option(parser: argparse.ArgumentParser, other: str = "") -> None:
    """Add the option that says how long the silos may compute; `other` is what it is where the command says nothing."""
    default = None if other else WAIT_S
    text = "how long each round waits for the silos to compute; a silo that declares more refuses; default: "
    text += other or "%(default)s"
    parser.add_argument("--deadline", type=whole(1, MAX_WAIT_S), default=default, metavar="SECONDS", help=text)


def send_deadline_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how long a silo may send."""
    text = "how long each round waits for a silo to send a long vector; one whose link needs more refuses"
    text += "; default: %(default)s"
    parser.add_argument("--send-deadline", type=whole(1, MAX_SEND_S), default=SEND_S, metavar="SECONDS", help=text)


def silo_names(text: str) -> tuple[str, ...]:
    """Parse the names of silos; raises ArgumentTypeError."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} are not names of silos, such as aspen,birch")
    return names


def output_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how an answer is shown."""
    parser.add_argument("--format", choices=FORMATS, default="table")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the answer there instead of printing it")


def check_out(out: Path | None) -> None:
    """Raise AnalystError if an answer cannot be written there, before anything is asked."""
    if out is not None and out.is_dir():
        raise AnalystError(f"{out} is a directory", "name a file; nothing was asked or paid")
    if out is not None and not out.absolute().parent.is_dir():
        raise AnalystError(f"there is no directory {out.absolute().parent}", "make it first; nothing was asked or paid")
    if out is not None:
        try:
            files.check_out(out)
        except OSError as err:
            message = f"the answer cannot be written to {out} ({err.strerror})"
            raise AnalystError(message, "name another file; nothing was asked or paid") from err


@contextmanager
def federation_opened(options: argparse.Namespace, notes: Console) -> Iterator[tuple[Federation, Status]]:
    """Open the federation of a command's options; the status says what is going on."""
    with (
        notes.status("opening the federation") as status,
        Federation.open(
            options.federation, options.analyst, lambda text: status.update(text), asking_key(status)
        ) as federation,
    ):
        yield federation, status


def asking_key(status: Status | None = None, what: str = "the analyst's key") -> Callable[[], str]:
    """Return a function that asks for a passphrase on the terminal, while `status` is paused."""
    return asking(what, NO_TERMINAL) if status is None else asking(what, NO_TERMINAL, partial(_resting, status))


@contextmanager
def _resting(status: Status) -> Iterator[None]:
    status.stop()
    try:
        yield
    finally:
        status.start()


def show(report: Report, form: str, out: Path | None, notes: Console) -> None:
    """Print an answer, or write it to a file; whatever fails, it says how to see the paid answer again."""
    again = f"`consilo report open {report.request[:12]}` shows the answer again, at no cost"
    try:
        if out is None:
            sys.stdout.write(render(report, form))
            sys.stdout.flush()
            return
        written = csv_files(report, out) if form == "csv" else {out: render(report, form)}
        for path, text in written.items():
            files.write_out(path, text.encode())
    except BrokenPipeError:
        raise
    except UnicodeEncodeError as err:
        hint = f"{again}, with --format json in any encoding"
        raise AnalystError(f"the answer cannot be printed in the encoding {err.encoding}", hint) from err
    except OSError as err:
        if out is None:
            _close_output()
        raise AnalystError(f"the answer cannot be written to {out or 'the output'} ({err.strerror})", again) from err
    except Exception:
        notes.print(again, markup=False, soft_wrap=True)
        raise
    notes.print(f"written to {', '.join(map(str, written))}")


def _close_output() -> None:
    """Let what could not be written go, or the end of the program would fail once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_lines(lines: Iterable[str]) -> None:
    """Print lines without what could command a terminal."""
    for line in lines:
        print(plain(line))
