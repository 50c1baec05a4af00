"""`consilo new`: found a simulated federation around files, with drafts of its policies and of a training job."""

import argparse
import re
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from analyst.cli.new import Founded, columns_of, new
from analyst.errors import AnalystError
from analyst.training.draft import Wanted
from federation.files import write_out
from federation.terminal import Commands, add_command, plain
from policies.document.agreement import read_columns
from policies.document.answers import DELTA, Answers, add_answers, answers_of
from policies.units import counted


def add_new_command(commands: Commands) -> None:
    """Add `consilo new`."""
    text = "found a simulated federation around your own files and draft its policies"
    parser = add_command(commands, "new", _new, text)
    parser.add_argument("directory", type=Path, metavar="DIR", help="where the federation is founded")
    text = "a silo and its CSV or Parquet file; once for each silo, at least three times"
    parser.add_argument("--silo", action="append", required=True, type=_silo_file, metavar="NAME=FILE", help=text)
    parser.add_argument("--table", metavar="NAME", help="what the table is called; default: the first file's name")
    text = "the column that says whose row it is; repeat it where files call it differently"
    parser.add_argument("--id", action="append", default=[], metavar="COLUMN", help=text)
    parser.add_argument("--analyst", default="ana", metavar="NAME", help="who may ask")
    add_answers(parser)
    text = "what is public knowledge of columns, one line each, for all drafts; every other column stays closed"
    parser.add_argument("--columns", type=Path, metavar="FILE", help=text)
    text = "only draft the file for --columns, and found nothing"
    parser.add_argument("--draft-columns", type=Path, metavar="FILE", help=text)
    text = "also draft the job that trains such a model, and let the policies allow it; such as logistic-regression"
    parser.add_argument("--job", metavar="MODEL", help=text)
    text = "what the job predicts from; default: every column that is open as a feature at all silos"
    parser.add_argument("--features", type=_names, default=(), metavar="NAME,NAME,...", help=text)
    text = "a further column of the model, such as time=survival_days of cox; repeat it"
    parser.add_argument("--part", action="append", default=[], type=_part, metavar="NAME=COLUMN", help=text)
    text = "the share of persons from whom the job learns nothing, so that the model is judged by them; such as 0.25"
    parser.add_argument("--held-out", type=_share, metavar="SHARE", help=text)
    text = "the value of a text label that the model predicts"
    parser.add_argument("--positive", metavar="VALUE", help=text)


def _silo_file(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, Path(file)


def _part(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not (name and equals and column):
        raise argparse.ArgumentTypeError(f"found {text[:60]!r}, expected NAME=COLUMN such as time=survival_days")
    return name, column


def _share(text: str) -> str:
    if not re.fullmatch(r"0\.[0-9]{1,3}", text) or not float(text):
        raise argparse.ArgumentTypeError(f"found {text[:40]!r}, expected a share of up to three digits, such as 0.25")
    return text


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for one in text.split(",") if (name := one.strip())))


def _wanted(options: argparse.Namespace) -> Wanted | None:
    """Return the job that is wanted; raises AnalystError where options of one contradict each other or stand alone."""
    if options.job is None:
        for name in ("features", "part", "positive", "held-out"):
            if getattr(options, name.replace("-", "_")):
                raise AnalystError(f"--{name} is of a job", f"add --job MODEL, or leave out --{name}")
        return None
    if len(options.label) > 1:
        raise AnalystError(f"{len(options.label)} labels, a job has one", "name its further columns with --part")
    label = options.label[0] if options.label else None
    return Wanted(options.job, label, options.features, dict(options.part), options.positive, options.held_out)


def _new(options: argparse.Namespace, notes: Console) -> int:
    wanted = _wanted(options)
    silos = [silo for silo, _ in options.silo]
    answers = answers_of(options, silos) if wanted is None else answers_of(options, silos, wanted.labels, wanted.model)
    if options.draft_columns is not None:
        return _draft_columns(options, answers)
    if options.columns is None and wanted is not None:
        hint = "add --columns FILE; to draft that file, --draft-columns FILE"
        raise AnalystError("a job needs what is public knowledge of its columns", hint)
    if options.columns is not None and not options.columns.is_file():
        hint = f"to draft it, give the command with --draft-columns {options.columns}"
        raise AnalystError(f"there is no {options.columns}", hint)
    columns = None if options.columns is None else read_columns(options.columns)
    now = datetime.now(UTC)
    founded = new(
        options.directory, options.silo, options.table, options.id, options.analyst, now, answers, columns, wanted
    )
    _print_founded(options.directory, founded, answers)
    return 0


def _print_founded(directory: Path, founded: Founded, answers: Answers) -> None:
    """Print what was founded, what is to be filled in, and the commands that come next."""
    todo, config = founded.todo, directory / "consilo.toml"
    print(f"{directory}: {len(todo)} silos on this machine, one trust domain; their policies are drafts")
    if answers.rho is not None:
        print(f"one person may spend rho {answers.rho} in a lifetime, epsilon {answers.epsilon:g} at delta {DELTA}")
    for note in founded.notes:
        print(f"note: {plain(note)}")
    for policy, entries in todo.items():
        if entries:
            print(f"\nfill in, in {policy}:")
        for entry in entries:
            print(f"  {plain(entry)}")
    print("\nColumns that mean the same must have the same key in every policy. Then, for each:")
    for policy in todo:
        print(f"  consilo-silo check-policy {policy}")
    if founded.job is not None:
        print("and train the model; with --preview it says what that takes and costs, and trains nothing:")
        print(f"  consilo train {founded.job} --federation {config} --preview")
        print(f"  consilo train {founded.job} --federation {config}")
        return
    print(f"and, with the table{'' if answers.purpose else ', its columns and the purpose that you filled in'}:")
    print('  consilo query "SELECT COUNT(*) AS n FROM TABLE" \\')
    print(f"      --federation {config} --purpose {answers.purpose or 'PURPOSE'} --epsilon 1")


def _draft_columns(options: argparse.Namespace, answers: Answers) -> int:
    file: Path = options.draft_columns
    if file.exists():
        raise AnalystError(f"{file} exists", "it is never overwritten; name another file")
    text, notes = columns_of(options.silo, options.id, answers)
    write_out(file, text.encode())
    count = sum(bool(line) and not line.startswith("#") for line in text.splitlines())
    print(f"{file}: {counted(count, 'column')}, a line each")
    for note in notes:
        print(f"note: {plain(note)}")
    print(f"replace FILL IN by public knowledge in the lines of columns to open, then add --columns {file}")
    return 0
