"""`consilo`: the analyst's and operator's command. Answers go to standard output, everything else to standard error.

Exit status: 0 answered, 1 an error, 3 silos refused by policy.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from analyst.client import Federation
from analyst.config import read_config
from analyst.demo.story import tell
from analyst.doctor import examine
from analyst.errors import AnalystError, DeniedError
from analyst.render import FORMATS, plain, print_offer, render
from analyst.simulate import down, up
from crypto.errors import CryptoError
from policies.errors import PolicyError

_DENIED = 3


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise AnalystError(message, f"see `{self.prog} --help`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every expected error becomes one line and one hint."""
    notes = Console(stderr=True, highlight=False)
    try:
        options = _parser().parse_args(arguments)
        run: Callable[[argparse.Namespace, Console], int] = options.run
        return run(options, notes)
    except (AnalystError, CryptoError, PolicyError) as err:
        return _fail(err.message, err.hint, _DENIED if isinstance(err, DeniedError) else 1)
    except KeyboardInterrupt:
        return _fail("interrupted", "nothing is left running")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; do not complain at exit
        return 1
    except OSError as err:
        return _fail(f"{err.strerror or err}: {err.filename or 'no file'}", "check the path and the free disk space")
    except Exception as err:
        if os.environ.get("CONSILO_DEBUG"):
            raise
        return _fail(
            f"unexpected {type(err).__name__}", "this is a defect: set CONSILO_DEBUG=1 to see where, and report it"
        )


def _fail(message: str, hint: str, status: int = 1) -> int:
    print(f"consilo: error: {plain(' '.join(message.split()))}", file=sys.stderr)
    print(f"consilo: hint: {plain(' '.join(hint.split())) or 'see `consilo --help`'}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="consilo", description="Ask questions across organisations without moving their data.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, run: Callable[[argparse.Namespace, Console], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        added.set_defaults(run=run)
        return added

    demo = command("demo", _demo, "run a whole federation on this machine, on real data, and tell its story")
    demo.add_argument("--out", type=Path, default=Path("consilo-demo"), metavar="DIR", help="where it is left")
    query = command("query", _query, "ask one SQL question and open the answer")
    query.add_argument("sql", help="the question, in one argument")
    _federation_options(query)
    query.add_argument("--purpose", required=True, help="what the answer is for; policies open data by purpose")
    query.add_argument("--epsilon", required=True, type=_number, help="what it may cost one person, such as 1")
    query.add_argument("--format", choices=FORMATS, default="table")
    query.add_argument("--out", type=Path, metavar="FILE", help="write the answer there instead of printing it")
    silos = command("silos", _silos, "list the silos and what their policies open to you")
    _federation_options(silos)
    silos.add_argument("--format", choices=["table", "json"], default="table")
    for name, run, text in (
        ("up", _up, "start the federation and keep it running"),
        ("down", _down, "stop the federation that `consilo up` keeps"),
    ):
        _federation_options(command(name, run, text), has_analyst=False)
    doctor = command("doctor", _doctor, "check this machine, the installation and a federation")
    doctor.add_argument("--federation", type=Path, metavar="FILE", help="its consilo.toml")
    return parser


def _federation_options(parser: argparse.ArgumentParser, has_analyst: bool = True) -> None:
    default = Path("consilo.toml")
    parser.add_argument("--federation", type=Path, default=default, metavar="FILE", help="its consilo.toml")
    if has_analyst:
        parser.add_argument("--analyst", metavar="NAME", help="who asks, where consilo.toml has several keys")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _demo(options: argparse.Namespace, notes: Console) -> int:
    tell(options.out, Console(highlight=False))
    return 0


def _query(options: argparse.Namespace, notes: Console) -> int:
    if options.out is not None and not options.out.absolute().parent.is_dir():
        raise AnalystError(
            f"there is no directory {options.out.absolute().parent}", "make it first: nothing was asked yet"
        )
    with notes.status("opening the federation") as status:
        with Federation.open(options.federation, options.analyst, lambda text: status.update(text)) as federation:
            status.update("asking the silos")
            report = federation.query(options.sql, purpose=options.purpose, epsilon=options.epsilon)
        status.update("closing")
    text = render(report, options.format)
    if options.out is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        options.out.write_text(text)
        notes.print(f"written to {options.out}")
    return 0


def _silos(options: argparse.Namespace, notes: Console) -> int:
    with (
        notes.status("opening the federation") as status,
        Federation.open(options.federation, options.analyst, lambda text: status.update(text)) as federation,
    ):
        offer, known = federation.offer, federation.config.policies
    if options.format == "json":
        listing = {silo: json.loads(catalogue.model_dump_json()) for silo, catalogue in offer.silos.items()}
        print(json.dumps(listing, indent=2))
        return 0
    print_offer(offer, known, Console(highlight=False, markup=False))
    return 0


def _up(options: argparse.Namespace, notes: Console) -> int:
    config = read_config(options.federation)
    with notes.status(f"starting {config.federation} (one Ray cluster on this machine: one trust domain)"):
        process = up(config)
    print(f"{config.federation} is up (process {process}); `consilo down --federation {options.federation}` stops it")
    return 0


def _down(options: argparse.Namespace, notes: Console) -> int:
    config = read_config(options.federation)
    with notes.status("stopping"):
        stopped = down(config)
    print(f"{config.federation} is stopped" if stopped else f"{config.federation} was not up")
    return 0


def _doctor(options: argparse.Namespace, notes: Console) -> int:
    findings = examine(options.federation)
    for finding in findings:
        print(f"{'ok  ' if finding.is_ok else 'FAIL'}  {finding.what}: {finding.found}")
        if not finding.is_ok:
            print(f"      -> {finding.remedy}")
    return 0 if all(finding.is_ok for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
