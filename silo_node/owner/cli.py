"""`consilo-silo`: the data owner's command. It reads the silo's own files; only `serve` sends anything.

Exit status: 0 success, 1 an error, 3 the question would be refused (check-policy --request).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import duckdb

from federation import terminal
from federation.errors import ClusterDiedError
from federation.joining import install
from federation.members.certificates import utc_now
from federation.operations import background
from federation.terminal import Commands, Failure, Parser, Program, add_command, commands_of, plain, print_findings
from federation.transport.address import dialled, listened, port
from policies.document.load import load
from policies.document.policy import Policy
from policies.document.purposes import ConsentColumn, ConsentTable
from policies.errors import ColumnsFileError, PolicyError, PolicyFileError
from policies.units import HOUR_S, counted, when
from silo_node.data.check import load_sources
from silo_node.data.consent import load_consent, readings
from silo_node.data.locations import LOAD_TIMEOUT_S, connect, opened
from silo_node.data.sources import Source
from silo_node.errors import SiloError, SourceError
from silo_node.owner import backup_commands, force_commands, ledger_commands, policy_commands, prepared_commands
from silo_node.owner.consent_status import ConsentCounts, PersonConsent, consent_counts, status_of_person
from silo_node.owner.graph_commands import add_graph_commands
from silo_node.owner.model_commands import add_model_commands
from silo_node.owner.model_registry import held_states
from silo_node.owner.receipt_commands import add_receipt_command

WAIT_S = 180.0  # for a silo that was started to be connected


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every expected error becomes one line and one hint."""

    def command() -> int:
        options = command_line().parse_args(arguments)
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)

    return terminal.run(Program("consilo-silo", _explain, "nothing was changed"), command)


def _explain(err: Exception) -> Failure | None:
    match err:
        case PolicyFileError():
            problems = tuple(err.message.splitlines())
            message = f"{counted(len(problems), 'problem')} in the policy"
            return Failure(message, err.hint, details=problems)
        case ColumnsFileError():
            problems = tuple(err.message.splitlines())
            message = f"{counted(len(problems), 'problem')} in the file of columns"
            return Failure(message, err.hint, details=problems)
        case SiloError() | PolicyError():
            return Failure(err.message, err.hint)
        case _:
            return None


def command_line() -> argparse.ArgumentParser:
    """Return the parser of every command and option."""
    parser = Parser(prog="consilo-silo", description="Look after one silo: its policy, its data, its ledger.")
    commands = commands_of(parser)
    policy_commands.add_commands(commands)
    force_commands.add_commands(commands)
    ledger_commands.add_commands(commands)
    prepared_commands.add_commands(commands)
    backup_commands.add_commands(commands)
    add_receipt_command(commands)
    text = "show how many persons are in by consent right now, as the next request would count them"
    consent = add_command(commands, "consent", _consent, text)
    consent.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml")
    consent.add_argument("--purpose", metavar="PURPOSE", help="only this one; default: all of the policy")
    consent.add_argument("--person", metavar="ID", help="also say whether this person is in, and why")
    add_model_commands(commands)
    add_graph_commands(commands)
    _federated_commands(commands)
    return parser


def _federated_commands(commands: Commands) -> None:
    text = "check what `serve` needs: clock, disk, certificate, policy, sources, ledger, membership"
    doctor = add_command(commands, "doctor", _doctor, text)
    doctor.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml")
    text = "show the connection, the last rounds, errors of the day, disk and budget of the silo"
    status = add_command(commands, "status", _status_of_silo, text)
    status.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml")
    status.add_argument("--json", action="store_true", help="as JSON")
    text = "run the silo in this organisation's own Ray cluster and dial out to the aggregator"
    serve = add_command(commands, "serve", _serve, text)
    serve.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml")
    text = "health and metrics, on loopback"
    serve.add_argument("--monitor-port", type=port, default=9465, metavar="PORT", help=text)
    text = "also answer /live, /ready and /metrics there, for probes from other machines"
    serve.add_argument("--probes", type=listened, metavar="HOST:PORT", help=text)
    text = "a Ray cluster of this organisation; default: start one"
    serve.add_argument("--ray", type=dialled, metavar="HOST:PORT", help=text)
    serve.add_argument(
        "--ray-tls", type=Path, metavar="DIR", help="node.key, node.pem and ca.pem, if it has several nodes"
    )
    serve.add_argument("--node-address", default="", metavar="ADDRESS", help="of this machine in that cluster")
    text = "install the admission that the authority sent, before anything else"
    serve.add_argument("--admission", type=Path, metavar="FILE", help=text)
    text = "start it in the background, with serve.log beside the policy, and return once it is connected"
    serve.add_argument("--wait", action="store_true", help=text)


def _doctor(options: argparse.Namespace) -> int:
    from silo_node.doctor import examine

    return print_findings(examine(options.policy, is_measuring=True))


def _status_of_silo(options: argparse.Namespace) -> int:
    from silo_node.owner.silo_status import silo_status, worded

    found = silo_status(options.policy, time.time())
    print(json.dumps(found, indent=2) if options.json else "\n".join(plain(line) for line in worded(found)))
    return 0


def _serve(options: argparse.Namespace) -> int:
    if options.admission is not None:
        install(options.admission, options.policy.resolve().parent, utc_now())
    if options.wait:
        return _start(options)
    from federation.operations.ray_cluster import end_at_once
    from silo_node.serve import Options, serve

    chosen = Options(
        options.policy, options.monitor_port, options.ray, options.ray_tls, options.node_address, options.probes
    )
    try:
        serve(chosen, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("stopped before it was served", flush=True)
    except ClusterDiedError as err:
        end_at_once(terminal.fail("consilo-silo", Failure(err.message, err.hint)))
    return 0


def _start(options: argparse.Namespace) -> int:
    """Start `serve` without `--wait` in the background; return once it is connected."""
    home = options.policy.resolve().parent
    command = [sys.executable, "-P", "-m", "silo_node.owner.cli", "serve", "--policy", str(options.policy.resolve())]
    command += ["--monitor-port", str(options.monitor_port)]
    command += [] if options.probes is None else ["--probes", options.probes]
    command += [] if options.ray is None else ["--ray", options.ray]
    command += [] if options.ray_tls is None else ["--ray-tls", str(options.ray_tls)]
    command += [f"--node-address={options.node_address}"] if options.node_address else []
    process = background.start(home, command, options.monitor_port, WAIT_S)
    print(
        f"{load(options.policy).policy.silo.id} is connected, as process {process}; its log is {home / background.LOG}"
    )
    print(f"to stop it: kill {process}")
    return 0


def _consent(options: argparse.Namespace) -> int:
    policy, home = load(options.policy).policy, options.policy.resolve().parent
    if options.purpose is not None and options.purpose not in policy.purposes:
        raise SiloError(f"unknown purpose {options.purpose!r}", f"known: {', '.join(policy.purposes)}")
    purposes = list(policy.purposes) if options.purpose is None else [options.purpose]
    people: dict[tuple[str, str], PersonConsent] = {}
    now = int(time.time())
    with connect() as connection:
        checked, decisions = load_sources(connection, policy, home), load_consent(connection, policy, home)
        sources = {name: _for_consent(policy, source) for name, source in checked.items()}
        try:
            decided_at = None if decisions is None else decisions.written_at()
            with opened(connection, (*sources.values(), *readings(decisions)), LOAD_TIMEOUT_S):
                found = consent_counts(connection, policy, purposes, sources, now, decided_at)
                if options.person is not None:
                    people = {
                        (purpose, name): status_of_person(connection, policy, purpose, source, now, options.person)
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
                status = people[purpose, one.source]
                receipts = f" (receipts: {', '.join(status.receipts)})" if status.receipts else ""
                print(f"      {options.person} is {_status(policy, status)}{receipts}")
                if _may_have_been_in(status):
                    _print_learned(policy, options.policy.resolve().parent, purpose, one.source, now)
    return 0


def _for_consent(policy: Policy, source: Source) -> Source:
    """Return a source with only the columns that the consent filter needs."""
    keys = {policy.privacy_unit.id_column, policy.consent_column}
    return source.narrowed(key for key in keys if key is not None)


def _may_have_been_in(one: PersonConsent) -> bool:
    """Tell whether a person who is excluded now may have been included before; a column has no earlier decisions."""
    return one.reason in ("withdrawn", "expired", "objected") or (one.reason == "column" and one.rows_in < one.rows)


def _print_learned(policy: Policy, home: Path, purpose: str, table: str, now: int) -> None:
    states = [state for _, state in held_states(policy, home)]
    of = purpose, table
    learned = [one for one in states if (one.purpose, one.table) == of and one.learned_at <= now and one.split is None]
    if learned:
        print("        models learned while this person may have been in:")
    for state in learned:
        print(f"        run {state.run.hex()}, for {purpose} in {table}, learned {when(state.learned_at)}")


def _rule(policy: Policy, name: str) -> str:
    """Return a purpose's rule of consent and its legal basis."""
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


def _people(policy: Policy, one: ConsentCounts, now: int) -> str:
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


def _status(policy: Policy, one: PersonConsent) -> str:
    since = "" if one.at is None else f" {when(one.at)}"
    match one.reason:
        case "not asked":
            return "in: consent is not asked"
        case "column":
            consented = f"{policy.consent_column} is true in {one.rows_in} of {counted(one.rows, 'row')}"
            return f"in: {consented}" if one.rows_in else f"not in: {consented}"
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


def program() -> NoReturn:
    """Run one command as a process of its own."""
    terminal.end(main())


if __name__ == "__main__":
    program()
