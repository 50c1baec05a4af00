"""`consilo model evaluate`: how good the predictions of a trained model are, by rows that its silos hold out."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from analyst.cli.opening import (
    deadline_option,
    federation_opened,
    federation_options,
    print_lines,
    send_deadline_option,
)
from analyst.training.evaluation import evaluate, evaluation_of, show_evaluation, to_csv, to_json
from analyst.training.judging_preview import judging_lines, preview_evaluation
from analyst.training.registry import Registry
from federation.errors import CommandLineError
from federation.files import write_out
from federation.terminal import Commands, add_command, number, plain
from policies.requests.metrics import METRICS


def add_evaluate_command(actions: Commands) -> None:
    """Add `evaluate` to a group of commands."""
    text = "judge a run's model by the rows that its silos hold out; with noise it has a price"
    command = add_command(actions, "evaluate", _evaluate, text)
    command.add_argument(
        "name", nargs="?", metavar="RUN", help="the run's name, or its beginning; default: the last run"
    )
    text = "a metric, once for each; default: all that the model has"
    command.add_argument("--metric", action="append", choices=METRICS, default=[], metavar="NAME", help=text)
    text = "judge by all rows of another table with the same columns, not by the rows that were held out"
    command.add_argument("--table", metavar="NAME", help=text)
    text = "the price to each person, on private sources; the metrics have noise then"
    command.add_argument("--epsilon", type=number, metavar="E", help=text)
    text = "also by each silo's own rows, where its policy says own_metrics = true"
    command.add_argument("--own", action="store_true", help=text)
    text = "say what it costs, how far noise moves each metric, and who would refuse; ask and pay nothing"
    command.add_argument("--preview", action="store_true", help=text)
    federation_options(command)
    deadline_option(command)
    send_deadline_option(command)
    command.add_argument("--format", choices=["text", "json", "csv"], default="text")
    command.add_argument("--out", type=Path, metavar="FILE", help="write it there instead of printing it")


def _evaluate(options: argparse.Namespace, notes: Console) -> int:
    if options.preview and options.format == "csv":
        raise CommandLineError("a preview is no table of metrics", "take --format text or json")
    with federation_opened(options, notes) as (federation, status):
        registry = Registry(federation.config.path.parent)
        entry = registry.last() if options.name is None else registry.entry(options.name)
        request = evaluation_of(
            federation,
            entry,
            metrics=options.metric,
            table=options.table,
            epsilon=options.epsilon,
            has_own=options.own,
            deadline=options.deadline,
            send_deadline=options.send_deadline,
        )
        if options.preview:
            foreseen = preview_evaluation(federation, entry, request)
            is_text = options.format == "text"
            return _shown(options, map(plain, judging_lines(foreseen)) if is_text else _json(foreseen.to_dict()))
        status.update("asking the silos")
        found = evaluate(federation, entry, request)
    text = {"json": to_json, "csv": to_csv}
    lines = map(plain, show_evaluation(found)) if options.format == "text" else text[options.format](found).splitlines()
    if options.own and (closed := [silo for silo in found.silos if silo not in found.own]):
        notes.print(f"not judged alone, as their policies lack own_metrics = true: {', '.join(closed)}")
    return _shown(options, lines)


def _json(found: dict[str, object]) -> list[str]:
    return json.dumps(found, indent=2).splitlines()


def _shown(options: argparse.Namespace, lines: Iterable[str]) -> int:
    """Print lines, or write them where the command says."""
    if options.out is None:
        print_lines(iter(lines))
    else:
        write_out(options.out, "".join(f"{line}\n" for line in lines).encode())
    return 0
