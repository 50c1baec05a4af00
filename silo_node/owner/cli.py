"""`consilo-silo`: the data owner's command. Reads the silo's own files; `serve` alone sends anything anywhere.

Exit status: 0 in order, 1 an error, 3 the question would be refused (check-policy --request).
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb

from federation import terminal
from federation.terminal import Commands, Failure, Parser, Program, add_command, commands_of, print_findings
from federation.transport.address import dialled, port
from policies.document.load import load
from policies.document.policy import Policy
from policies.document.purposes import ConsentColumn, ConsentTable
from policies.errors import PolicyError, PolicyFileError
from policies.units import HOUR_S
from silo_node.data.consent import load_consent
from silo_node.data.sources import LOAD_TIMEOUT_S, Source, connect, load_sources, opened
from silo_node.errors import SiloError, SourceError
from silo_node.home import LEDGER
from silo_node.ledger.events import when
from silo_node.ledger.store import LedgerStore
from silo_node.owner import ledger_commands, policy_commands
from silo_node.owner.consent_status import PersonStanding, Standing, standing_of, standings
from silo_node.training.run import RunState


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every expected error becomes one line and one hint."""

    def command() -> int:
        options = _parser().parse_args(arguments)
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)

    return terminal.run(Program("consilo-silo", _explain, "nothing was changed"), command)


def _explain(err: Exception) -> Failure | None:
    match err:
        case PolicyFileError():
            problems = tuple(err.message.splitlines())
            message = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the policy"
            return Failure(message, err.hint, details=problems)
        case SiloError() | PolicyError():
            return Failure(err.message, err.hint)
        case _:
            return None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="consilo-silo", description="Look after one silo: its policy, its data, its ledger.")
    commands = commands_of(parser)
    policy_commands.add_commands(commands)
    ledger_commands.add_commands(commands)
    text = "show how many persons are in by consent right now, as the next request would count them"
    consent = add_command(commands, "consent", _consent, text)
    consent.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml")
    consent.add_argument("--purpose", metavar="PURPOSE", help="only this one; default: all of the policy")
    consent.add_argument("--person", metavar="ID", help="also say whether this person is in, and why")
    text = "show the models that the silo holds"
    models = add_command(commands, "models", _models, text)
    models.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml beside the ledger")
    models.add_argument("--format", choices=["table", "json"], default="table")
    _federated_commands(commands)
    return parser


def _federated_commands(commands: Commands) -> None:
    text = "check what `serve` needs: clock, disk, certificate, policy, sources, ledger, membership"
    doctor = add_command(commands, "doctor", _doctor, text)
    doctor.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml")
    text = "run the silo in this organisation's own Ray cluster and dial out to the aggregator"
    serve = add_command(commands, "serve", _serve, text)
    serve.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml")
    text = "health and metrics, on loopback"
    serve.add_argument("--monitor-port", type=port, default=9465, metavar="PORT", help=text)
    text = "a Ray cluster of this organisation; default: start one"
    serve.add_argument("--ray", type=dialled, metavar="HOST:PORT", help=text)
    serve.add_argument(
        "--ray-tls", type=Path, metavar="DIR", help="node.key, node.pem and ca.pem, if it has several nodes"
    )
    serve.add_argument("--node-address", default="", metavar="ADDRESS", help="of this machine in that cluster")


def _doctor(options: argparse.Namespace) -> int:
    from silo_node.doctor import examine

    return print_findings(examine(options.policy))


def _serve(options: argparse.Namespace) -> int:
    from silo_node.serve import Options, serve

    chosen = Options(options.policy, options.monitor_port, options.ray, options.ray_tls, options.node_address)
    serve(chosen, lambda line: print(line, flush=True))
    sys.stderr.flush()
    os._exit(0)  # all is closed; where Ray's threads still hold DuckDB's module at exit, it reports itself as leaked


def _consent(options: argparse.Namespace) -> int:
    policy, home = load(options.policy).policy, options.policy.resolve().parent
    if options.purpose is not None and options.purpose not in policy.purposes:
        raise SiloError(f"unknown purpose {options.purpose!r}", f"known: {', '.join(policy.purposes)}")
    purposes = list(policy.purposes) if options.purpose is None else [options.purpose]
    sources, decisions, now = load_sources(policy, home), load_consent(policy, home), int(time.time())
    sources = {name: _for_consent(policy, source) for name, source in sources.items()}
    reader, wanted = decisions.reader, [source.wanted for source in sources.values()]
    people: dict[tuple[str, str], PersonStanding] = {}
    try:
        with connect() as connection, opened(connection, (*wanted, *decisions.wanted_with_receipts), LOAD_TIMEOUT_S):
            found = standings(connection, policy, purposes, sources, reader, now, decisions.written_at())
            if options.person is not None:
                people = {
                    (purpose, name): standing_of(connection, policy, purpose, source, reader, now, options.person)
                    for purpose in purposes
                    for name, source in sources.items()
                }
    except duckdb.Error as err:
        raise SourceError("a file changed while it was read", "try again") from err
    print(f"{policy.silo.id} at {when(now)}")
    for purpose in purposes:
        print(f"  {purpose}: {_rule(policy, purpose)}")
        for one in (one for one in found if one.purpose == purpose):
            print(f"    {one.source}: {_people(policy, one, now)}")
            if options.person is not None:
                verdict = people[purpose, one.source]
                receipts = f" (receipts: {', '.join(verdict.receipts)})" if verdict.receipts else ""
                print(f"      {options.person} is {_verdict(policy, verdict)}{receipts}")
                if _may_have_been_in(verdict):
                    _print_learned(options.policy, purpose, one.source, now)
    return 0


def _for_consent(policy: Policy, source: Source) -> Source:
    """Return a source with the columns that say who is in."""
    consent = policy.consent
    return source.narrowed(
        {policy.privacy_unit.id_column, *([consent.column] if isinstance(consent, ConsentColumn) else [])}
    )


def _may_have_been_in(one: PersonStanding) -> bool:
    """Tell whether somebody is out who was in before; of a column of decisions nobody knows what it said before."""
    return one.reason in ("withdrawn", "expired", "objected") or (one.reason == "column" and one.rows_in < one.rows)


def _print_learned(policy: Path, purpose: str, table: str, now: int) -> None:
    learned = [one for one in _states(policy) if (one.purpose, one.table) == (purpose, table) and one.learned_at <= now]
    if learned:
        print("        models learned while this person may have been in:")
    for state in learned:
        print(f"        run {state.run.hex()}, for {purpose} in {table}, learned {when(state.learned_at)}")


def _rule(policy: Policy, name: str) -> str:
    """Return how a purpose asks for consent, and its legal basis."""
    purpose = policy.purposes[name]
    basis = f"legal basis {purpose.legal_basis}"
    if purpose.consent == "none":
        return f"consent is not asked, {basis}"
    match policy.consent:
        case ConsentTable():
            return f"{purpose.consent} by the table {policy.consent.source}, {basis}"
        case ConsentColumn():
            return f"{purpose.consent} by the column {policy.consent.column}, {basis}"
        case None:
            return f"{purpose.consent} without decisions, {basis}"


def _people(policy: Policy, one: Standing, now: int) -> str:
    counted = f"{one.persons_in} of {one.persons} {policy.privacy_unit.entity}s are in"
    if policy.consent is None or policy.consent.stale_after_hours is None:
        return counted
    if policy.purposes[one.purpose].consent == "none":
        return counted
    limit = f"{policy.consent.stale_after_hours:g} h"
    if one.feed_at is None:
        return f"{counted}; the age of the feed is unknown, so every request is denied"
    age = f"{counted}; the feed is {max(0, now - one.feed_at) / HOUR_S:.1f} h old"
    return f"{age}, more than {limit}, so every request is denied" if one.is_stale else f"{age}, at most {limit}"


def _verdict(policy: Policy, one: PersonStanding) -> str:
    since = "" if one.at is None else f" {when(one.at)}"
    match one.reason:
        case "not asked":
            return "in: consent is not asked"
        case "column":
            column = policy.consent.column if isinstance(policy.consent, ConsentColumn) else ""
            counted = f"{column} is true in {one.rows_in} of {one.rows} row{'s' if one.rows > 1 else ''}"
            return f"in: {counted}" if one.rows_in else f"not in: {counted}"
        case "given":
            return f"in: given{since}"
        case "no objection":
            return "in: no objection"
        case "not given yet":
            return f"not in: given only from{since}"
        case "no time":
            return "not in: no time of a consent"
        case "no row":
            return "not in: no row"
        case _:
            return f"not in: {one.reason}{since}"


def _states(policy: Path) -> list[RunState]:
    """Return the models in the ledger beside a policy, the one that was learned last at the end."""
    path = policy.resolve().parent / LEDGER
    if not path.exists():
        return []
    store = LedgerStore(path)
    try:
        return sorted(map(RunState.decode, store.runs()), key=lambda state: state.learned_at)
    finally:
        store.close()


def _models(options: argparse.Namespace) -> int:
    load(options.policy)
    states = _states(options.policy)
    if options.format == "json":
        listing = [{**state.summary(), "coefficients": state.coefficients()} for state in states]
        print(json.dumps(listing, indent=2))
        return 0
    for state in states:
        print(f"run {state.run.hex()}: {state.done} of {state.steps} steps, {state.release}, for {state.purpose}")
        print(f"  log-odds of {state.label} in {state.table}, asked by {state.analyst}")
        for name, value in state.coefficients().items():
            print(f"  {name:<32} {value:>10.4f}")
    if not states:
        print("no model yet")
    return 0


if __name__ == "__main__":
    sys.exit(main())
