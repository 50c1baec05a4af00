"""`consilo`: the analyst's and operator's command. Answers go to standard output, everything else to standard error.

Exit status: 0 answered, 1 an error, 3 silos refused by policy.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.status import Status

from analyst.cli.doctor import examine
from analyst.cli.federation import add_commands, jurisdiction
from analyst.cli.new import new
from analyst.client import Federation
from analyst.demo.story import SECTORS, tell, tell_all
from analyst.errors import AnalystError, DeniedError
from analyst.reports.render import FORMATS, print_offer, render
from analyst.training.job import read_job
from analyst.training.run import show_training, to_json, train
from analyst.verify import read_answer, verify
from crypto.backends.registry import BACKENDS
from crypto.keys import MIN_PASSPHRASE, Secret, SigningKey, read_key_file, write_key_file
from federation import terminal
from federation.config import read_config
from federation.local import down, up
from federation.terminal import (
    Commands,
    Failure,
    Parser,
    Program,
    add_command,
    add_group,
    asking,
    commands_of,
    number,
    plain,
    print_findings,
    typed,
)
from policies.errors import PolicyError

_DENIED = 3
_NO_TERMINAL = "run the command in a terminal; Python programs can use Federation.open(..., passphrase=...)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every expected error becomes one line and one hint."""
    notes = Console(stderr=True, highlight=False)

    def command() -> int:
        options = _parser().parse_args(arguments)
        run: Callable[[argparse.Namespace, Console], int] = options.run
        return run(options, notes)

    return terminal.run(Program("consilo", _explain, "nothing is left running"), command)


def _explain(err: Exception) -> Failure | None:
    match err:
        case DeniedError():
            return Failure(err.message, err.hint, _DENIED)
        case AnalystError() | PolicyError():
            return Failure(err.message, err.hint)
        case _:
            return None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="consilo", description="Ask questions across organisations without moving their data.")
    commands = commands_of(parser)
    command = partial(add_command, commands)
    demo = command("demo", _demo, "run a whole federation on this machine, on real data, and tell its story")
    demo.add_argument("--out", type=Path, default=Path("consilo-demo"), metavar="DIR", help="where it is left")
    demo.add_argument("--sector", choices=SECTORS, help="tell the story of one sector only; default: of all")
    _new_options(command("new", _new, "found a simulated federation around your own files and draft its policies"))
    query = command("query", _query, "ask one SQL question and open the answer")
    query.add_argument("sql", help="the question, in one argument")
    _federation_options(query)
    query.add_argument("--purpose", required=True, help="what the answer is for; policies open data by purpose")
    query.add_argument("--epsilon", required=True, type=number, help="what it may cost one person, such as 1")
    text = "how the silos' vectors are summed; their policies say which they accept"
    query.add_argument("--backend", choices=list(BACKENDS), default="masking", help=text)
    text = "keep the request there until it is answered; given again, the very same one is sent, say after an approval"
    query.add_argument("--keep", type=Path, metavar="FILE", help=text)
    query.add_argument("--format", choices=FORMATS, default="table")
    query.add_argument("--out", type=Path, metavar="FILE", help="write the answer there instead of printing it")
    train = command("train", _train, "train a model across the silos, which alone receive it")
    train.add_argument("job", type=Path, metavar="JOB", help="the job file, such as job.toml")
    _federation_options(train)
    train.add_argument("--format", choices=["text", "json"], default="text")
    text = "hold an answer against what the silos signed"
    actions = add_group(commands, "report", text)
    text = "check every signature of a report, add its sum once more, and compare the answer"
    check = add_command(actions, "verify", _verify, text)
    check.add_argument("answer", metavar="ANSWER", help="the JSON of an answer, or its transcript")
    _federation_options(check)
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
    add_commands(commands)
    _key_commands(add_group(commands, "key", "make an analyst's key, or show its verification key"))
    return parser


def _new_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="where the federation is founded")
    text = "a silo and its CSV or Parquet file; once for each silo, at least three times"
    parser.add_argument("--silo", action="append", required=True, type=_silo_file, metavar="NAME=FILE", help=text)
    parser.add_argument("--table", metavar="NAME", help="what the table is called; default: the first file's name")
    text = "the column that says whose row it is; repeat it where files call it differently"
    parser.add_argument("--id", action="append", default=[], metavar="COLUMN", help=text)
    parser.add_argument("--analyst", default="ana", metavar="NAME", help="who may ask")
    text = "where this machine is, such as NO or EU-DE: purposes may be kept in named places"
    parser.add_argument("--jurisdiction", type=jurisdiction, metavar="PLACE", help=text)


def _silo_file(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, Path(file)


def _key_commands(actions: Commands) -> None:
    for name, run, text in (
        ("new", _key_new, "make a key file and print its verification key for the data owners"),
        ("show", _key_show, "print the verification key of a key file"),
    ):
        action = add_command(actions, name, run, text)
        action.add_argument("file", type=Path, metavar="FILE", help="the key file")
    actions.choices["new"].add_argument("--passphrase", action="store_true", help="encrypt it; asked for twice")


def _federation_options(parser: argparse.ArgumentParser, has_analyst: bool = True) -> None:
    default = Path("consilo.toml")
    parser.add_argument("--federation", type=Path, default=default, metavar="FILE", help="its consilo.toml")
    if has_analyst:
        parser.add_argument("--analyst", metavar="NAME", help="who asks, where consilo.toml has several keys")


def _demo(options: argparse.Namespace, notes: Console) -> int:
    console = Console(highlight=False)
    if options.sector is None:
        tell_all(options.out, console)
    else:
        tell(options.out, SECTORS[options.sector], console)
    return 0


def _new(options: argparse.Namespace, notes: Console) -> int:
    now = datetime.now(UTC)
    todo = new(options.directory, options.silo, options.table, options.id, options.analyst, now, options.jurisdiction)
    print(f"{options.directory}: {len(todo)} silos on this machine, one trust domain; their policies are drafts")
    for policy, entries in todo.items():
        print(f"\nfill in, in {policy}:")
        for entry in entries:
            print(f"  {plain(entry)}")
    print("\nText columns are closed; give columns that mean the same the same key in every policy. Then, for each:")
    for policy in todo:
        print(f"  consilo-silo check-policy {policy}")
    print("and, with the table, its columns and the purpose that you filled in:")
    print('  consilo query "SELECT COUNT(*) AS n FROM TABLE" \\')
    print(f"      --federation {options.directory / 'consilo.toml'} --purpose PURPOSE --epsilon 1")
    return 0


def _query(options: argparse.Namespace, notes: Console) -> int:
    if options.out is not None and not options.out.absolute().parent.is_dir():
        raise AnalystError(
            f"there is no directory {options.out.absolute().parent}", "make it first: nothing was asked yet"
        )
    with notes.status("opening the federation") as status:
        with Federation.open(
            options.federation, options.analyst, lambda text: status.update(text), _asking("the analyst's key", status)
        ) as federation:
            status.update("asking the silos")
            report = federation.query(
                options.sql,
                purpose=options.purpose,
                epsilon=options.epsilon,
                backend=options.backend,
                keep=options.keep,
            )
        status.update("closing")
    text = render(report, options.format)
    if options.out is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        options.out.write_text(text)
        notes.print(f"written to {options.out}")
    return 0


def _train(options: argparse.Namespace, notes: Console) -> int:
    job = read_job(options.job)
    keep = options.job.with_name(f"{options.job.name}.run.json")
    with (
        notes.status("opening the federation") as status,
        Federation.open(
            options.federation, options.analyst, lambda text: status.update(text), _asking("the analyst's key", status)
        ) as federation,
    ):
        training = train(federation, job, lambda done: status.update(f"step {done} of {job.steps}"), keep)
        policies = federation.config.policies
    print(to_json(training) if options.format == "json" else show_training(training, job, policies))
    return 0


def _verify(options: argparse.Namespace, notes: Console) -> int:
    name, answer = read_answer(options.answer)
    with (
        notes.status("opening the federation") as status,
        Federation.open(
            options.federation, options.analyst, lambda text: status.update(text), _asking("the analyst's key", status)
        ) as federation,
    ):
        status.update("checking")
        for line in verify(federation, name, answer):
            print(f"ok  {plain(line)}")
    return 0


def _silos(options: argparse.Namespace, notes: Console) -> int:
    with (
        notes.status("opening the federation") as status,
        Federation.open(
            options.federation, options.analyst, lambda text: status.update(text), _asking("the analyst's key", status)
        ) as federation,
    ):
        offer, known = federation.offer, federation.config.roster.silo_keys
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
    return print_findings(examine(options.federation))


def _key_new(options: argparse.Namespace, notes: Console) -> int:
    root = Secret.generate()
    write_key_file(options.file, root, _new_passphrase if options.passphrase else None)
    key, until = SigningKey(root).public, datetime.now(UTC) + timedelta(days=365)
    print(
        f"{key}\n\n"
        "A data owner pastes this into policy.toml, with the analyst's name for NAME, and fills in the purposes:\n\n"
        f'[analysts.NAME]\nkey      = "{key}"\npurposes = []\nuntil    = {until:%Y-%m-%d}T00:00:00Z'
    )
    notes.print(f"written to {options.file}; keep a copy, as nobody can recover it", markup=False)
    return 0


def _key_show(options: argparse.Namespace, notes: Console) -> int:
    print(SigningKey(read_key_file(options.file, _asking(str(options.file)))).public)
    return 0


def _asking(what: str, status: Status | None = None) -> Callable[[], str]:
    """Return what asks for a passphrase on the terminal, while `status` rests."""
    return asking(what, _NO_TERMINAL) if status is None else asking(what, _NO_TERMINAL, partial(_resting, status))


@contextmanager
def _resting(status: Status) -> Iterator[None]:
    status.stop()
    try:
        yield
    finally:
        status.start()


def _new_passphrase() -> str:
    first = typed(f"new passphrase, at least {MIN_PASSPHRASE} characters: ", _NO_TERMINAL)
    try:
        if first == typed("the same again: ", _NO_TERMINAL):
            return first
    finally:
        del first  # or a traceback would hold it
    raise AnalystError("the two passphrases differ", "no key was written; type the same one twice")


if __name__ == "__main__":
    sys.exit(main())
