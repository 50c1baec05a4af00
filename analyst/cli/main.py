"""`consilo`: the analyst's and operator's command. Answers go to standard output, everything else to standard error.

Exit status: 0 answered, 1 an error, 3 silos refused by policy.
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from analyst.asking import Command, ask
from analyst.cli.doctor import examine
from analyst.cli.federation import add_commands
from analyst.cli.finding import add_finding_commands
from analyst.cli.founding import add_new_command
from analyst.cli.model import add_model_commands
from analyst.cli.opening import (
    NO_TERMINAL,
    asking_key,
    check_out,
    deadline_option,
    federation_opened,
    federation_options,
    output_options,
    send_deadline_option,
    show,
    silo_names,
)
from analyst.cli.planning import add_planning_commands, show_preview, show_run_preview
from analyst.cli.report import add_report_commands
from analyst.cli.status import aggregator_home, as_json, federation_status, look_at
from analyst.cli.status import show as status_lines
from analyst.cli.watching import add_watch_command, keep_first_look
from analyst.demo.story import SECTORS, tell, tell_all
from analyst.errors import AnalystError, DeniedError
from analyst.pricing import Wanted, read_share, read_wanted
from analyst.reports.render import print_offer
from analyst.training.abandoning import abandon, show_abandoned
from analyst.training.again import anew_in_words, check_resumes
from analyst.training.beginning import beginning_in_words
from analyst.training.job import read_job
from analyst.training.rounds import RoundDone
from analyst.training.run import train
from analyst.training.told import show_training, to_json
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
    commands_of,
    confirmed,
    number,
    plain,
    print_findings,
    typed,
)
from policies.errors import ColumnsFileError, PolicyError
from policies.units import WAIT_S, counted

_DENIED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every expected error becomes one line and one hint."""
    notes = Console(stderr=True, highlight=False)

    def command() -> int:
        options = command_line().parse_args(arguments)
        run: Callable[[argparse.Namespace, Console], int] = options.run
        return run(options, notes)

    return terminal.run(
        Program("consilo", _explain, "nothing is left running; a question given again is not paid twice"), command
    )


def _explain(err: Exception) -> Failure | None:
    match err:
        case DeniedError():
            return Failure(err.message, err.hint, _DENIED)
        case ColumnsFileError():
            problems = tuple(err.message.splitlines())
            message = f"{counted(len(problems), 'problem')} in the file of columns"
            return Failure(message, err.hint, details=problems)
        case AnalystError() | PolicyError():
            return Failure(err.message, err.hint)
        case _:
            return None


def command_line() -> argparse.ArgumentParser:
    """Return the parser of every command and option."""
    parser = Parser(prog="consilo", description="Ask questions across organisations without moving their data.")
    commands = commands_of(parser)
    command = partial(add_command, commands)
    demo = command("demo", _demo, "run a whole federation on this machine, on real data, and tell its story")
    demo.add_argument("--out", type=Path, default=Path("consilo-demo"), metavar="DIR", help="where it is left")
    demo.add_argument("--sector", choices=SECTORS, help="tell the story of one sector only; default: of all")
    add_new_command(commands)
    query = command("query", _query, "ask one SQL question, or several at once, and open the answer")
    query.add_argument("sql", help="the question, in one argument; several with ; between them are one request")
    federation_options(query)
    query.add_argument("--purpose", required=True, help="what the answer is for; policies open data by purpose")
    _price_options(query)
    text = "how the silos' vectors are summed; their policies say which they accept"
    query.add_argument("--backend", choices=list(BACKENDS), default="masking", help=text)
    text = "keep the request there until it is answered; given again, the very same one is sent, say after an approval"
    query.add_argument("--keep", type=Path, metavar="FILE", help=text)
    deadline_option(query)
    send_deadline_option(query)
    text = "ask these silos alone, such as those that define the table alike; default: all that have it"
    query.add_argument("--silos", type=silo_names, default=(), metavar="NAME,NAME,...", help=text)
    text = "show only groups that surely have the silos' minimum cohort; by itself on from 100 groups"
    query.add_argument("--sure", action=argparse.BooleanOptionalAction, help=text)
    text = "do not ask how many persons had rows left out or values clamped, which takes a sixteenth of the price"
    query.add_argument("--no-cut", action="store_true", help=text)
    text = "ask anew, at a new price, though the same question has no opened answer yet"
    query.add_argument("--new", action="store_true", help=text)
    text = "say what it would cost and tell, and who would refuse it; ask and pay nothing"
    query.add_argument("--preview", action="store_true", help=text)
    output_options(query)
    train = command("train", _train, "train a model across the silos, which receive it, and you where policies say so")
    train.add_argument("job", type=Path, metavar="JOB", help="the job file, such as job.toml")
    federation_options(train)
    deadline_option(train, f"the job's, or {WAIT_S}")
    send_deadline_option(train)
    text = "say what the run would take, cost and leave, and who would refuse it; ask and pay nothing"
    train.add_argument("--preview", action="store_true", help=text)
    about = train.add_mutually_exclusive_group()
    about.add_argument("--abandon", action="store_true", help="give up its run that was interrupted")
    text = "a network begins with the weights of this run's model, which the silos hold"
    about.add_argument("--from", dest="begins", metavar="RUN", help=text)
    text = "go on with this run, which was interrupted, or end with an error; never begin another one"
    about.add_argument("--resume", metavar="RUN", help=text)
    text = "train the job of this run anew, without persons who have withdrawn since: show the price, and ask"
    about.add_argument("--without-withdrawn", dest="anew", metavar="RUN", help=text)
    train.add_argument("--yes", action="store_true", help="with --without-withdrawn: do not ask")
    train.add_argument("--format", choices=["text", "json"], default="text")
    add_finding_commands(commands)
    add_planning_commands(commands)
    add_report_commands(commands)
    add_model_commands(commands)
    add_watch_command(commands)
    silos = command("silos", _silos, "list the silos and what their policies open to you")
    federation_options(silos)
    silos.add_argument("--format", choices=["table", "json"], default="table")
    for name, run, text in (
        ("up", _up, "start the federation and keep it running"),
        ("down", _down, "stop the federation that `consilo up` keeps"),
    ):
        federation_options(command(name, run, text), has_analyst=False)
    doctor = command("doctor", _doctor, "check this machine, the installation and a federation")
    text = "its consilo.toml, or an aggregator's directory"
    doctor.add_argument("--federation", type=Path, metavar="FILE", help=text)
    text = "show who is there: of an aggregator's directory, or of a federation as an analyst sees it"
    status = command("status", _status, text)
    text = "an aggregator's directory, or the federation's consilo.toml"
    status.add_argument("--federation", type=Path, default=Path("consilo.toml"), metavar="FILE", help=text)
    status.add_argument("--json", action="store_true", help="as JSON")
    add_commands(commands)
    _key_commands(add_group(commands, "key", "make an analyst's key, or show its verification key"))
    return parser


def _price_options(parser: argparse.ArgumentParser) -> None:
    price = parser.add_mutually_exclusive_group(required=True)
    price.add_argument("--epsilon", type=number, help="what it may cost one person, such as 1")
    text = "cost that much of what is left to you at the silo where least is left, such as 10%%"
    price.add_argument("--share", type=_share, help=text)
    text = (
        "cost the least with which the 95%% interval of every count is at most that wide to either side, such as 50;"
        " of a named figure n=50, in groups of 1,000 rows or more; may be repeated"
    )
    price.add_argument("--error", type=_error, action="append", metavar="[NAME=]HALF", help=text)
    text = "how the price is divided among several statements, in their order; default: equally"
    parser.add_argument("--weights", type=_weights, default=(), metavar="N,N,...", help=text)


def _share(text: str) -> float:
    try:
        return read_share(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text[:40]!r}, expected a share such as 10% or 0.1") from None


def _error(text: str) -> Wanted:
    try:
        return read_wanted(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text[:40]!r}, expected an error above 0 such as 50 or n=50") from None


def _weights(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9][0-9]{0,3}(,[1-9][0-9]{0,3})*", text):
        raise argparse.ArgumentTypeError(f"found {text[:40]!r}, expected whole numbers from 1 to 1000, such as 2,1,1")
    return tuple(map(int, text.split(",")))


def _key_commands(actions: Commands) -> None:
    for name, run, text in (
        ("new", _key_new, "make key files and print their verification keys for the data owners"),
        ("show", _key_show, "print the verification key of a key file"),
    ):
        action = add_command(actions, name, run, text)
        count = "+" if name == "new" else None
        action.add_argument("file", type=Path, metavar="FILE", nargs=count, help="the key file")
    actions.choices["new"].add_argument("--passphrase", action="store_true", help="encrypt it; asked for twice")


def _demo(options: argparse.Namespace, notes: Console) -> int:
    console = Console(highlight=False)
    if options.sector is None:
        tell_all(options.out, console)
    else:
        tell(options.out, SECTORS[options.sector], console)
    return 0


def _query(options: argparse.Namespace, notes: Console) -> int:
    check_out(options.out)
    with federation_opened(options, notes) as (federation, status):
        status.update("asking the silos")
        command = Command(
            options.sql,
            options.purpose,
            options.epsilon,
            options.backend,
            options.deadline,
            options.silos,
            options.sure,
            not options.no_cut,
            options.share,
            tuple(options.error or ()),
            options.weights,
            options.send_deadline,
        )
        if options.preview:
            show_preview(federation, command, options.format)
            return 0
        report = ask(
            federation,
            command,
            options.keep,
            lambda line: notes.print(plain(line), markup=False, soft_wrap=True),
            options.new,
        )
    show(report, options.format, options.out, notes)
    return 0


def _train(options: argparse.Namespace, notes: Console) -> int:
    job = read_job(options.job)
    if options.begins is not None:
        job = job.model_copy(update={"begins": options.begins})
    keep = options.job.with_name(f"{options.job.name}.run.json")
    if options.abandon:
        with federation_opened(options, notes) as (federation, _):
            given_up = abandon(federation, job, keep)
        print("no run of this job is under way" if given_up is None else show_abandoned(given_up))
        return 0
    with federation_opened(options, notes) as (federation, status):
        if job.begins is not None:
            notes.print(beginning_in_words(federation, job.begins), markup=False, soft_wrap=True)
        if options.resume is not None:
            check_resumes(federation, job, keep, options.resume)
        if options.anew is not None:
            notes.print(anew_in_words(federation, job, keep, options.anew), markup=False, soft_wrap=True)
        if options.preview:
            show_run_preview(federation, job, keep, options.format, options.deadline, options.send_deadline)
            return 0
        if options.anew is not None and not options.yes:
            status.stop()
            show_run_preview(federation, job, keep, "text", options.deadline, options.send_deadline)
            if not confirmed("train it at this price?", "add --yes where nobody is asked"):
                print("nothing was trained, nothing is paid")
                return 0
            status.start()

        def tell(done: RoundDone) -> None:
            status.update(f"round {done.number} of {done.planned}")
            notes.print(done.in_words, markup=False, soft_wrap=True)

        waits = {"deadline": options.deadline, "send_deadline": options.send_deadline}
        training = train(federation, job, keep=keep, tell=tell, **waits)
        keep_first_look(training.audited, job, options.job, training.run, federation.now())
        policies = federation.config.policies
    print(to_json(training) if options.format == "json" else show_training(training, job, policies))
    return 0


def _silos(options: argparse.Namespace, notes: Console) -> int:
    with federation_opened(options, notes) as (federation, _):
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
    home = None if options.federation is None else aggregator_home(options.federation)
    found = print_findings(examine(None if home is not None else options.federation))
    return found if home is None else max(found, look_at(home, "doctor"))


def _status(options: argparse.Namespace, notes: Console) -> int:
    if (home := aggregator_home(options.federation)) is not None:
        return look_at(home, "status", *(["--json"] if options.json else []))
    with notes.status("asking the silos"):
        found = federation_status(options.federation)
    print(as_json(found) if options.json else "\n".join(plain(line) for line in status_lines(found)))
    return 0


def _key_new(options: argparse.Namespace, notes: Console) -> int:
    """Make one key with the lines for a policy, or several keys with a line for each."""
    is_one = len(options.file) == 1
    for file in options.file:
        root = Secret.generate()
        write_key_file(file, root, new_passphrase if options.passphrase else None)
        key, until = SigningKey(root).public, datetime.now(UTC) + timedelta(days=365)
        print(key if is_one else f"{file}: {key}")
    if is_one:
        print(
            "\nIf it is an analyst's, a data owner pastes this into policy.toml, with the name for NAME, and the"
            " purposes:\n"
            f'\n[analysts.NAME]\nkey      = "{key}"\npurposes = []\nuntil    = {until:%Y-%m-%d}T00:00:00Z'
        )
    written = ", ".join(str(file) for file in options.file)
    notes.print(f"written to {written}; keep a copy, as nobody can recover it", markup=False, soft_wrap=True)
    return 0


def _key_show(options: argparse.Namespace, notes: Console) -> int:
    print(SigningKey(read_key_file(options.file, asking_key(what=str(options.file)))).public)
    return 0


def new_passphrase() -> str:
    """Ask for a passphrase twice; raises AnalystError if the two differ, and keeps neither."""
    first = typed(f"new passphrase, at least {MIN_PASSPHRASE} characters: ", NO_TERMINAL)
    try:
        if first == typed("the same again: ", NO_TERMINAL):
            return first
    finally:
        del first  # or a traceback could show it
    raise AnalystError("the two passphrases differ", "no key was written; type the same one twice")


def program() -> NoReturn:
    """Run one command as a process of its own."""
    terminal.end(main())


if __name__ == "__main__":
    program()
