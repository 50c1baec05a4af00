"""Before a question: what it computes, would cost and tell, and what is left. No row is read, nothing is paid."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from analyst.asking import Command
from analyst.cli.opening import federation_opened, federation_options, print_lines
from analyst.client import Federation
from analyst.preview import asks_of, budget_entries, budget_lines, parts_of, plan_lines, preview, preview_lines
from analyst.reports.rehearsal import rehearsed_all
from analyst.sql.script import script
from analyst.training.job import Job
from analyst.training.preview import preview_run, run_lines
from federation.terminal import Commands, add_command


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
        print_lines(preview_lines(found))


def show_run_preview(
    federation: Federation, job: Job, keep: Path, form: str, deadline: int | None, send_deadline: int
) -> None:
    """Print what a training run would take and cost."""
    found = preview_run(federation, job, keep, deadline, send_deadline)
    if form == "json":
        print(json.dumps(found.to_dict(), indent=2))
    else:
        print_lines(run_lines(found))


def _explain(options: argparse.Namespace, notes: Console) -> int:
    with federation_opened(options, notes) as (federation, _):
        found = rehearsed_all(script(options.sql, federation.offer, not options.no_cut), options.sql)
    statements = [(asks_of(one), one.after) for one in found.statements]
    parts = tuple(parts_of(found))
    if options.format == "json":
        crosses = [asdict(part) for part in parts]
        said = [{"asks": asks, "after": after} for asks, after in statements]
        first = {"asks": statements[0][0], "crosses": crosses, "after": statements[0][1]}
        print(json.dumps(first if len(said) == 1 else {"statements": said, "crosses": crosses}, indent=2))
    else:
        print_lines(plan_lines(statements, parts))
    return 0


def _budget(options: argparse.Namespace, notes: Console) -> int:
    with federation_opened(options, notes) as (federation, _):
        found = federation.standing()
    if options.format == "json":
        print(json.dumps({silo: list(budget_entries(of)) for silo, of in found.items()}, indent=2))
    else:
        print_lines(budget_lines(found))
    return 0
