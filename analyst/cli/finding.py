"""`consilo find-keys`: find the keys of a column that nobody has listed, and write them as a domain to adopt."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from analyst.cli.opening import (
    deadline_option,
    federation_opened,
    federation_options,
    print_lines,
    send_deadline_option,
    silo_names,
)
from analyst.errors import AnalystError
from analyst.finding.files import Written, check_directory, stem_of, to_json, write
from analyst.finding.preview import preview_lines, preview_search
from analyst.finding.search import DoneRound, Found, Wanted, find_keys, forget
from analyst.finding.tree import BETA
from crypto.backends.registry import BACKENDS
from federation.terminal import Commands, add_command, number
from policies.units import counted

_SHOWN = 20  # keys, the most frequent


def add_finding_commands(commands: Commands) -> None:
    """Add `consilo find-keys`."""
    text = "find the keys of a column that nobody has listed, by noised counts of prefixes, and write them as a domain"
    find = add_command(commands, "find-keys", _find, text)
    find.add_argument("column", metavar="TABLE.COLUMN", help="a text column whose keys the policies let be found")
    federation_options(find)
    find.add_argument("--purpose", required=True, help="what the search is for; policies open data by purpose")
    find.add_argument("--epsilon", required=True, type=number, help="what the whole search may cost one person")
    text = "how the silos' vectors are summed; their policies say which they accept"
    find.add_argument("--backend", choices=list(BACKENDS), default="masking", help=text)
    deadline_option(find)
    send_deadline_option(find)
    text = "ask these silos alone; default: all that have the table"
    find.add_argument("--silos", type=silo_names, default=(), metavar="NAME,NAME,...", help=text)
    text = "where the domain and its provenance are written, and an interrupted search is kept; default: here"
    find.add_argument("--out", type=Path, default=Path(), metavar="DIR", help=text)
    find.add_argument("--new", action="store_true", help="begin anew, at a new price, though a search was interrupted")
    text = "say what it would cost and could find, and who would refuse it; ask and pay nothing"
    find.add_argument("--preview", action="store_true", help=text)
    find.add_argument("--format", choices=["text", "json"], default="text")


def _find(options: argparse.Namespace, notes: Console) -> int:
    table, dot, column = options.column.rpartition(".")
    if not (table and dot and column):
        raise AnalystError(f"{options.column!r} is no TABLE.COLUMN", "name both, such as visits.diagnosis")
    choices = options.purpose, options.epsilon, options.backend, options.deadline, options.silos
    wanted = Wanted(table, column, *choices, options.send_deadline)
    if not options.preview:
        check_directory(options.out, table, column)
    keep = options.out / f"{stem_of(table, column)}.search"
    with federation_opened(options, notes) as (federation, status):
        status.update("asking the silos")
        if options.preview:
            previewed = preview_search(federation, wanted)
            if options.format == "json":
                print(json.dumps(previewed.to_dict(), indent=2))
            else:
                print_lines(preview_lines(previewed))
            return 0
        rounds = 0

        def told(done: DoneRound) -> None:
            nonlocal rounds
            rounds += 1
            notes.print(f"round {rounds}: {_round(done)}", markup=False, soft_wrap=True)

        found = find_keys(federation, wanted, keep, told, options.new)
        offer = federation.offer_of(wanted.silos)
        written = write(options.out, found, offer.column(table, column))
        forget(keep)
    if options.format == "json":
        print(to_json(found, written))
    else:
        print_lines(_lines(found, written))
    return 0


def _round(done: DoneRound) -> str:
    return (
        f"{done.slots:,} numbers of {done.prefixes:,} prefixes, {done.survivors:,} survive,"
        f" {counted(len(done.found), 'key')} entered"
    )


def _lines(found: Found, written: Written) -> Iterator[str]:
    """Yield a finished search as text: what was found and paid, and how an owner adopts it."""
    keys = found.keys
    yield f"{counted(len(keys), 'key')} of {found.column} in {found.table}, in {counted(len(found.rounds), 'round')}"
    for one in sorted(keys, key=lambda key: -key.count)[:_SHOWN]:
        yield f"  {one.key}: about {counted(one.count, 'person')} ({one.low:,.0f} to {one.high:,.0f})"
    if len(keys) > _SHOWN:
        yield f"  and {len(keys) - _SHOWN:,} more"
    cost = f"epsilon {found.epsilon:.3g} at delta {found.delta:g} (rho {found.rho:.4g})"
    yield f"cost to each person: {cost}; one person is known to at most {counted(found.max_silos, 'silo')}"
    if found.lost:
        yield f"of it, {found.lost} of {counted(len(found.rounds) + found.lost, 'charge')} gave no report"
    yield f"a key that nobody has is among them with probability {BETA:g} at most"
    if written.domain is None:
        yield f"no key had enough persons, so there is no domain; {written.path} says what was asked"
        return
    stated = written.provenance
    yield f"the domain is {written.domain}, version {stated.version}; where it is from: {written.path}"
    yield "an owner who adopts it puts the file beside the policy, and writes for the column, in place of its domain:"
    yield (
        f'  domain_file = "{stated.domain_file}", domain_hash = "{stated.domain_hash}",'
        f" unknown = {json.dumps(stated.unknown)}"
    )
