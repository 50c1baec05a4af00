"""Before a question: what it computes, would cost and tell, and what is left. No row is read, nothing is paid."""

import argparse
import json
from collections.abc import Iterable

from rich.console import Console

from analyst.asking import Command
from analyst.cli.opening import federation_opened, federation_options
from analyst.client import Federation
from analyst.preview import budget_lines, parts_of, plan_lines, preview, preview_lines
from analyst.reports.rehearsal import rehearsed
from analyst.sql.plan import plan
from federation.terminal import Commands, add_command, plain


def add_planning_commands(commands: Commands) -> None:
    """Add `consilo explain` and `consilo budget`."""
    explain = add_command(commands, "explain", _explain, "show what a question computes, and what crosses")
    explain.add_argument("sql", help="the question, in one argument")
    text = "do not count how many persons had rows left out or values clamped"
    explain.add_argument("--no-cut", action="store_true", help=text)
    budget = add_command(commands, "budget", _budget, "show what is left of each silo's budgets")
    for command in (explain, budget):
        federation_options(command)
        command.add_argument("--format", choices=["text", "json"], default="text")


def show_preview(federation: Federation, command: Command, form: str) -> None:
    """Print what a question would cost and tell."""
    found = preview(federation, command)
    if form == "json":
        print(json.dumps(found.to_dict(), indent=2))
    else:
        _print(preview_lines(found))


def _explain(options: argparse.Namespace, notes: Console) -> int:
    with federation_opened(options, notes) as (federation, _):
        planned = rehearsed(plan(options.sql, federation.offer, not options.no_cut), options.sql)
    asks, parts = planned.plan.in_words(planned.table.name), tuple(parts_of(planned))
    if options.format == "json":
        fields = ("name", "numbers", "sensitivity", "share")
        crosses = [{field: getattr(part, field) for field in fields} for part in parts]
        print(json.dumps({"asks": asks, "crosses": crosses, "after": planned.after}, indent=2))
    else:
        _print(plan_lines(asks, planned.after, parts))
    return 0


def _budget(options: argparse.Namespace, notes: Console) -> int:
    with federation_opened(options, notes) as (federation, _):
        found = federation.standing()
    if options.format == "json":
        print(json.dumps({silo: [one.model_dump() for one in of.left] for silo, of in found.items()}, indent=2))
    else:
        _print(budget_lines(found))
    return 0


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(plain(line))
