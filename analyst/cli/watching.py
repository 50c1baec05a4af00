"""`consilo watch`: look at a trained model on a schedule, and say when it needs its analyst."""

import argparse
import time
from pathlib import Path

from rich.console import Console

from analyst.cli.opening import deadline_option, federation_opened, federation_options
from analyst.training.auditing import Audited
from analyst.training.job import Job, read_job
from analyst.training.looking import first_look, keep, look_at, looks_in, run_of, sections_of
from analyst.training.watch_record import Look
from federation.terminal import Commands, add_command, plain
from policies.units import when

ALARM = 4  # the exit code


def add_watch_command(commands: Commands) -> None:
    """Add `watch`."""
    command = add_command(commands, "watch", _watch, "look at a trained model again and again: gaps, a metric, drift")
    command.add_argument("job", type=Path, metavar="JOB", help="the job file, with [watch]")
    command.add_argument("--once", action="store_true", help="look once, now; without it every watch.every")
    command.add_argument(
        "--run", dest="name", metavar="RUN", help="the run's name, or its beginning; default: the job's last one"
    )
    text = "where each look is a line of JSON; default: JOB.watch.jsonl"
    command.add_argument("--out", type=Path, metavar="FILE", help=text)
    text = "print each look so; json: as the line of the file, for a monitor"
    command.add_argument("--format", choices=["text", "json"], default="text", help=text)
    federation_options(command)
    deadline_option(command)


def looks_of(job: Path) -> Path:
    """Return where the looks at the model of a job are kept."""
    return job.with_name(f"{job.name}.watch.jsonl")


def keep_first_look(audited: Audited | None, job: Job, path: Path, run: str, now: int) -> None:
    """Keep the audit after training as the reference of later looks, where the job is one that is watched."""
    look = None if audited is None else first_look(audited, job, run, now)
    if look is not None:
        keep(looks_of(path), look)


def _watch(options: argparse.Namespace, notes: Console) -> int:
    job = read_job(options.job)
    watch, _ = sections_of(job)
    path = options.out or looks_of(options.job)
    while True:
        began = time.monotonic()
        with federation_opened(options, notes) as (federation, status):
            entry = run_of(federation, job, options.name)
            status.update("asking the silos")
            look = look_at(federation, entry, job, looks_in(path, entry.name), options.deadline)
        keep(path, look)
        text = look.line().rstrip() if options.format == "json" else "\n".join(map(plain, lines_of(look)))
        print(text, flush=True)
        if options.once:
            return ALARM if look.alarms else 0
        time.sleep(max(0.0, watch.every_s - (time.monotonic() - began)))


def lines_of(look: Look) -> list[str]:
    """Return a look as text."""
    cost = f", at a cost of rho {look.rho:g}" if look.rho else ""
    lines = [f"{when(look.at)} run {look.run[:12]}{cost}: {'ALARM' if look.alarms else 'as it should be'}"]
    lines += [f"  {name} gap {one.value:.4f} ({one.low:.4f} to {one.high:.4f})" for name, one in look.gaps.items()]
    if look.metric is not None and look.metric.value is not None:
        lines.append(f"  {look.metric.name} {look.metric.value:.4f}")
    lines += [
        f"  drift of {name} {one.index:.4f} (chance adds about {one.floor:.4f})" for name, one in look.drift.items()
    ]
    if look.bins and not look.drift:
        lines.append("  this look is the reference of drift: later ones are compared with it")
    return [*lines, *(f"  ALARM: {one}" for one in look.alarms)]
