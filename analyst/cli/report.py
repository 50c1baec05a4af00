"""`consilo report`: what was asked and paid for; show an answer again, fetch it, or check it."""

import argparse
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from analyst.answers import read_failure
from analyst.asking import fetch_unknown
from analyst.cli.opening import asking_key, check_out, federation_opened, federation_options, output_options, show
from analyst.client import Federation
from analyst.comparing import Told, compared, read_receipt, told_by_failure, told_by_report
from analyst.errors import AnalystError
from analyst.finding.verify import is_provenance, verify_domain
from analyst.kept import Kept, KeptAnswers
from analyst.reports.report import Report
from analyst.verify import read_answer, verify
from crypto.rounds.receipt import Receipt
from crypto.sealing import SealingKey
from crypto.wire import MAX_ENVELOPE_OVERHEAD, unverified
from federation.config import read_config
from federation.terminal import Commands, add_command, add_group, plain
from policies.requests.request import Request
from policies.units import MICRO

MAX_RECEIPT_BYTES = Receipt.MAX_BYTES + MAX_ENVELOPE_OVERHEAD + 1
_STATES = {"sent": "not opened", "opened": "opened"}


def add_report_commands(commands: Commands) -> None:
    """Add `consilo report` with its actions."""
    actions = add_group(commands, "report", "show again what was paid for, or hold it against what was signed")
    listing = add_command(actions, "list", _list, "list the questions asked from here, with their prices")
    listing.add_argument("--format", choices=["table", "json"], default="table")
    federation_options(listing)
    for name, run, text in (
        ("show", _show, "show a kept answer again, at no cost and without a connection"),
        ("open", _open, "show an answer that was paid, fetching it from the aggregator if it is not kept here"),
    ):
        action = add_command(actions, name, run, text)
        action.add_argument("name", metavar="NAME", help="the beginning of the request's hash, as `list` shows it")
        output_options(action)
        federation_options(action)
    text = "erase kept answers; their questions stay, and say when that was"
    erasing = add_command(actions, "erase", _erase, text)
    text = "the beginnings of the requests' hashes, as `list` shows them"
    erasing.add_argument("names", nargs="*", metavar="NAME", help=text)
    text = "erase the answers to all questions that were asked before this day (UTC)"
    erasing.add_argument("--before", type=_day, metavar="YYYY-MM-DD", help=text)
    federation_options(erasing)
    text = "check every signature of a report, add its sum once more, and compare the answer"
    check = add_command(actions, "verify", _verify, text)
    text = "the name of a kept answer, the JSON of an answer or of a domain that was found, or a transcript"
    check.add_argument("answer", metavar="ANSWER", help=text)
    federation_options(check)
    text = "compare what the aggregator says of a request with what silos signed, and with their receipts"
    comparing = add_command(actions, "compare", _compare, text)
    comparing.add_argument("name", metavar="NAME", help="the beginning of the request's hash, as `list` shows it")
    text = "what a silo's owner wrote with `consilo-silo receipt --out`"
    comparing.add_argument("receipts", nargs="*", type=Path, metavar="RECEIPT", help=text)
    federation_options(comparing)


def _list(options: argparse.Namespace, notes: Console) -> int:
    config = read_config(options.federation)
    found = KeptAnswers(config.path.parent, config.analyst_name(options.analyst)).all()
    if options.format == "json":
        print(json.dumps([_listed(one) for one in found], indent=2))
        return 0
    table = Table()
    for heading in ("name", "asked", "question", "purpose", "rho", "state"):
        table.add_column(heading, no_wrap=heading == "name", overflow="fold")
    for one in found:
        asked = one.question
        price = f"{asked.micro_rho / MICRO:.4g}"
        table.add_row(one.short, one.asked_at, plain(asked.text), asked.purpose, price, _state(one))
    printed = Console(highlight=False, markup=False)
    printed.print(table)
    kept = [one.size() for one in found if one.state == "opened"]
    printed.print(f"answers kept here: {len(kept):,}, {sum(kept) / 2**20:.1f} MiB; `consilo report erase` erases them")
    return 0


def _day(text: str) -> int:
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no day such as 2027-01-31") from None


def _state(kept: Kept) -> str:
    return _STATES.get(kept.state, kept.question.ended)


def _listed(kept: Kept) -> dict[str, Any]:
    return {
        "name": kept.name,
        "asked": kept.asked_at,
        "question": kept.question.text,
        "purpose": kept.question.purpose,
        "rho": kept.question.micro_rho / MICRO,
        "state": kept.state,
        "why": kept.question.ended,
    }


def _show(options: argparse.Namespace, notes: Console) -> int:
    check_out(options.out)
    config = read_config(options.federation)
    name, root = config.analyst_key(options.analyst, asking_key())
    kept = KeptAnswers(config.path.parent, name, SealingKey(root))
    show(kept.answer(kept.named(options.name)), options.format, options.out, notes)
    return 0


def _erase(options: argparse.Namespace, notes: Console) -> int:
    if bool(options.names) == (options.before is not None):
        raise AnalystError("give either names of answers, or --before", "see `consilo report erase --help`")
    config = read_config(options.federation)
    kept = KeptAnswers(config.path.parent, config.analyst_name(options.analyst))
    found = [kept.named(name) for name in options.names] or kept.opened_before(options.before or 0)
    erased = [kept.erase(one) for one in found]
    print(f"answers erased: {len(erased):,}, {sum(erased) / 2**20:.1f} MiB")
    return 0


def _open(options: argparse.Namespace, notes: Console) -> int:
    check_out(options.out)
    with federation_opened(options, notes) as (federation, status):
        status.update("fetching the answer")
        report = _opened(federation, options.name)
    show(report, options.format, options.out, notes)
    return 0


def _opened(federation: Federation, name: str) -> Report:
    try:
        kept = federation.kept.named(name)
    except AnalystError:
        if not re.fullmatch(r"[0-9a-f]{64}", name):
            raise
        return fetch_unknown(federation, bytes.fromhex(name))
    return federation.open_kept(kept)


def _verify(options: argparse.Namespace, notes: Console) -> int:
    if is_provenance(Path(options.answer)):
        with federation_opened(options, notes) as (federation, status):
            status.update("reading every round again")
            for line in verify_domain(federation, Path(options.answer)):
                print(f"ok  {plain(line)}")
        return 0
    is_name = re.fullmatch(r"[0-9a-f]{1,64}", options.answer) and not Path(options.answer).exists()
    read = None if is_name else read_answer(options.answer)
    with federation_opened(options, notes) as (federation, status):
        status.update("checking")
        for line in verify(federation, *(read or _kept(federation, options.answer))):
            print(f"ok  {plain(line)}")
    return 0


def _kept(federation: Federation, name: str) -> tuple[bytes, dict[str, Any] | None]:
    """Return the transcript and the values of a kept answer; a whole transcript may be of one that is not kept."""
    try:
        report = federation.kept.answer(federation.kept.named(name))
    except AnalystError:
        if len(name) < 64:
            raise
        return bytes.fromhex(name), None
    return bytes.fromhex(report.transcript), report.to_dict()


def _compare(options: argparse.Namespace, notes: Console) -> int:
    """Print what is known of each silo; the exit status is 1 if two signed words contradict each other."""
    config = read_config(options.federation)
    kept = KeptAnswers(config.path.parent, config.analyst_name(options.analyst)).named(options.name)
    request = unverified(kept.question.request, Request)  # as it was signed here
    receipts = [
        read_receipt(path.read_bytes()[:MAX_RECEIPT_BYTES], request, config.roster) for path in options.receipts
    ]
    told: Told | None = None
    if kept.failure.exists() and kept.state != "opened":
        told = told_by_failure(read_failure(kept.failure.read_bytes(), request, config.roster), config.roster)
    elif kept.state == "opened" or not receipts:
        with federation_opened(options, notes) as (federation, status):
            status.update("fetching the report")
            told = _told_by_report(federation, kept)
            config = federation.config
    lines, contradictions = compared(request, told, receipts, config.roster)
    print("\n".join(map(plain, lines)))
    for one in contradictions:
        print(plain(f"CONTRADICTION {one}"))
    return 1 if contradictions else 0


def _told_by_report(federation: Federation, kept: Kept) -> Told:
    where = federation.aggregators.find(bytes.fromhex(kept.name))
    if where.state != "kept":
        message = f"no aggregator has a report or a failure of {kept.short}"
        raise AnalystError(message, "give the silos' receipts: they are shown by themselves")
    stored, request = federation.stored_report(where.report)
    return told_by_report(federation.check_report(stored, request), federation.config.roster)
