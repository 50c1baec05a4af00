"""The commands of `consilo-silo` about spending, requests and the log.

They read the silo's own files; `approve`, `reject`, `excuse` and `erase` write to its ledger, under the silo's identity
key.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from crypto.keys import SigningKey, read_key_file
from federation.terminal import Commands, Parser, add_command, asking, whole
from policies.budget.ledger import Checkpoint
from policies.document.load import PolicyFile, load, printable
from policies.document.policy import Policy
from policies.errors import LedgerError
from policies.units import MICRO, when
from silo_node.errors import SiloError
from silo_node.home import LEDGER, read_home
from silo_node.ledger.events import Excused, worded
from silo_node.ledger.log import Signer, read_checkpoint
from silo_node.ledger.retention import due_of
from silo_node.ledger.store import LedgerStore
from silo_node.owner.accounts import Account, Accounts, accounts_of, run_summary, run_worded
from silo_node.owner.pending import Decision, PendingRequest, check_person, decide_on, requests_of

_LOG_ENTRIES, _MAX_ENTRIES = 100, 10**9


def add_commands(commands: Commands) -> None:
    """Add the commands of this module to the parser of `consilo-silo`."""
    ledger = _command(
        commands, "ledger", "show what the silo has spent, what is left, and how long it will last", _ledger
    )
    _format(ledger)
    requests = _command(commands, "requests", "show the requests that wait for people to approve them", _requests)
    requests.add_argument("--all", action="store_true", help="also those that were decided or have expired")
    text = "also the signed text itself, whose SHA-256 begins with the request's name"
    requests.add_argument("--signed", action="store_true", help=text)
    _format(requests)
    decisions: tuple[tuple[Decision, str], ...] = (
        ("approve", "say yes to a request that waits"),
        ("reject", "say no to a request that waits"),
    )
    for name, text in decisions:
        command = _command(commands, name, text, _vote)
        command.add_argument("request", metavar="REQUEST", help="its name, from `consilo-silo requests`")
        command.add_argument(
            "--as", dest="who", metavar="NAME", required=True, help="who you are in the policy's [people]"
        )
        command.add_argument("--key", type=Path, metavar="FILE", required=True, help="your key file")
        command.set_defaults(decision=name)
    log = _command(commands, "log", "show what the silo has done", _log)
    log.add_argument(
        "--last",
        type=whole(1, _MAX_ENTRIES),
        metavar="N",
        default=_LOG_ENTRIES,
        help=f"so many entries; default: {_LOG_ENTRIES}",
    )
    _format(log)
    verify = _command(
        commands, "verify-log", "examine the log: nothing removed, changed, reordered or cut off", _verify_log
    )
    verify.add_argument(
        "--head", type=Path, metavar="FILE", help="a checkpoint that was kept elsewhere: the log must go on from it"
    )
    _command(commands, "erase", "erase what the policy's [retention] says is due", _erase)
    excuse = _command(
        commands, "excuse", "let an aggregator count that keeps no checkpoint: it is new, or lost its disk", _excuse
    )
    excuse.add_argument("aggregator", metavar="AGGREGATOR", help="its name in the roster")
    console = _command(commands, "console", "open a page on this machine: policy, ledger, requests, log", _console)
    port = whole(0, 65_535)
    console.add_argument("--port", type=port, metavar="PORT", default=0, help="on the loopback interface; default: any")
    console.add_argument("--as", dest="who", metavar="NAME", help="who you are in [people], to approve on the page")
    console.add_argument("--key", type=Path, metavar="FILE", help="your key file")


def _command(commands: Commands, name: str, text: str, run: Callable[[argparse.Namespace], int]) -> Parser:
    parser = add_command(commands, name, run, text)
    parser.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml beside the ledger")
    return parser


def _format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=["table", "json"], default="table")


def ledger_path(policy: Path) -> Path:
    """Return the path of the ledger in a policy's directory; raises LedgerError if the silo has never started."""
    path = policy.resolve().parent / LEDGER
    if not path.exists():
        raise LedgerError(f"there is no ledger beside {policy}", "it appears when the silo first starts")
    return path


def signer_of(policy: Path) -> Signer:
    """Return the silo's signer of checkpoints, from the files in its directory."""
    silo = read_home(policy).silo
    return Signer(silo.name, silo.federation, silo.signing, silo.sealing)


def person_key(path: Path) -> SigningKey:
    """Read a person's key, asking on the terminal for its passphrase if it has one."""
    if not path.exists():
        raise SiloError(f"there is no key file {path}", "check the path")
    return SigningKey(read_key_file(path, asking(str(path), "run it in a terminal")))


def _read(options: argparse.Namespace) -> tuple[PolicyFile, LedgerStore]:
    return load(options.policy), LedgerStore(ledger_path(options.policy))


def _ledger(options: argparse.Namespace) -> int:
    file, store = _read(options)
    rows, spent, runs = store.history(), store.spending(), store.reservations()
    store.close()
    accounts = accounts_of(file.policy, rows, spent, int(time.time()), runs)
    if options.format == "json":
        charges = [
            {
                "at": when(row.at),
                "analyst": row.analyst,
                "purpose": row.purpose,
                "rho": row.micro_rho / MICRO,
                "state": "committed" if row.is_committed else "reserved",
            }
            for row in rows
        ]
        print(json.dumps(_summary(file.policy, accounts) | {"charges": charges}, indent=2))
        return 0
    print(f"Ledger of {file.policy.silo.id}")
    print(f"{'rho':>12}  {'state':<9}  {'when':<20}  who and for what" if rows else "  nothing was charged yet")
    for row in rows:
        state = "committed" if row.is_committed else "reserved"
        print(f"{row.micro_rho / MICRO:>12.6f}  {state:<9}  {when(row.at)}  {row.analyst} for {row.purpose}")
    _print_accounts(accounts)
    return 0


def _print_accounts(accounts: Accounts) -> None:
    for account in (*accounts.limits, *(one for one in accounts.purposes if one.spent)):
        since = f" since {account.since}" if account.since and account.window.startswith("calendar") else account.since
        print(f"\n{account.name}, {account.window} {since.strip()}".rstrip())
        headings = ("spent", "reserved") if account.limit is None else ("spent", "reserved", "left", "limit")
        print("".join(f"{heading:>12}" for heading in headings) + "  of")
        for name, one in (("all", account), *((part.name, part) for part in account.parts)):
            print("".join(f"{figure:>12}" for figure in _figures(one)[: len(headings)]) + f"  {name}")
    spent, limit = accounts.lifetime.spent, accounts.lifetime.limit or 0
    epsilons = f"epsilon {_short(accounts.epsilon(spent))} of {_short(accounts.epsilon(limit))}"
    print(f"\nspent: rho {spent / MICRO:.6f} of {limit / MICRO:g}; {epsilons} at delta {accounts.delta:g}")
    if accounts.lifetime.reserved:
        print(f"       of it rho {accounts.lifetime.reserved / MICRO:.6f} set aside for rounds and runs under way")
    for run in map(run_summary, accounts.runs):
        print(f"       rho {run['rho']:.6f} for {run_worded(run)}")
    print(f"left:  rho {(accounts.lifetime.left or 0) / MICRO:.6f}")
    if accounts.sampler_delta:
        of = f"{accounts.sampler_delta:.3g} of {accounts.sampler_limit:.3g}"
        print(f"noise of long answers: delta {of}")
    print(f"pace:  {accounts.forecast.worded()}")


def _figures(account: Account) -> tuple[str, ...]:
    """Return spent, reserved, left and the limit; the last two are blank for an analyst without a limit."""
    figures = (account.committed, account.reserved, account.left, account.limit)
    return tuple("-" if figure is None else f"{figure / MICRO:.6f}" for figure in figures)


def _summary(policy: Policy, accounts: Accounts) -> dict[str, object]:
    forecast = accounts.forecast
    lifetime = accounts.lifetime
    return {
        "silo": policy.silo.id,
        "at": when(accounts.at),
        "delta": accounts.delta,
        "lifetime": lifetime.summary()
        | {
            "epsilon_spent": accounts.epsilon(lifetime.spent),
            "epsilon_limit": accounts.epsilon(lifetime.limit or 0),
        },
        "sampler_delta": {"spent": accounts.sampler_delta, "limit": accounts.sampler_limit},
        "limits": [one.summary() for one in accounts.limits],
        "purposes": [one.summary() for one in accounts.purposes],
        "runs": [run_summary(one) for one in accounts.runs],
        "forecast": {
            "rho_per_day": forecast.micro_rho_per_day / MICRO,
            "over_days": forecast.over_days,
            "ends_at": None if forecast.ends_at is None else when(forecast.ends_at),
        },
    }


def _short(epsilon: float) -> str:
    return f"{epsilon:.2f}" if epsilon else "0"


def _requests(options: argparse.Namespace) -> int:
    file, store = _read(options)
    found = requests_of(file.policy, store, int(time.time()))
    store.close()
    if not options.all:
        found = [one for one in found if one.status == "waiting"]
    if options.format == "json":
        print(json.dumps([_request(one) for one in found], indent=2))
        return 0
    for one in found:
        print(f"{one.name}  {one.worded()}")
        for about, said in one.lines:
            print(f"  {about}: {said}")
        print(f"  asked: {when(one.asked_at)}")
        print(f"  to decide: {', '.join(one.people) or 'nobody'}")
        if options.signed:
            print(f"  signed text: {printable(one.signed)}")
    if not found:
        print("no request waits")
    return 0


def _request(one: PendingRequest) -> dict[str, object]:
    return {
        "request": one.subject.hex(),
        "status": one.status,
        "analyst": one.request.analyst,
        "purpose": one.request.purpose,
        "rho": one.micro_rho / MICRO,
        "question": one.request.plan.in_words(one.request.table.shown),
        "lines": [list(line) for line in one.lines],
        "signed": one.signed,
        "silos": list(one.request.silos),
        "or_without": one.request.or_without or 0,
        "asked_at": when(one.asked_at),
        "expires_at": when(one.request.expires_at),
        "approved": [list(approval.approved) for approval in one.approvals],
        "rejected": [list(approval.rejected) for approval in one.approvals],
        "need": [approval.need for approval in one.approvals],
        "people": list(one.people),
    }


def _vote(options: argparse.Namespace) -> int:
    policy = load(options.policy).policy
    path, now = ledger_path(options.policy), int(time.time())
    key = person_key(options.key)
    store = LedgerStore(path, signer_of(options.policy))
    try:
        after = decide_on(policy, store, options.who, key, options.request, options.decision, now)
    finally:
        store.close()
    print(f"{after.name}  {after.worded()}")
    return 0


def _log(options: argparse.Namespace) -> int:
    _, store = _read(options)
    entries = store.entries(options.last)
    store.close()
    for entry in entries:
        if options.format == "json":
            sys.stdout.write(entry.encode().decode() + "\n")
        else:
            print(f"{entry.seq:>6}  {when(entry.at)}  {entry.event.kind:<12}  {worded(entry.event)}")
    return 0


def _verify_log(options: argparse.Namespace) -> int:
    path, signer = ledger_path(options.policy), signer_of(options.policy)
    kept = None if options.head is None else _kept_checkpoint(options.head, signer)
    store = LedgerStore(path)
    try:
        found = store.audit(signer)
        if kept is not None:
            store.check_against(kept)
    finally:
        store.close()
    if found.checkpoint is None:
        hint = "if the silo was ever started, its ledger was emptied: a checkpoint kept elsewhere shows that, --head"
        raise LedgerError("the log is empty, so there is nothing to examine", hint)
    print(f"whole: entries {found.first} to {found.last}, checkpoint {found.checkpoint.chain.hex()[:32]}")
    print("       charges, survivor sets, requests and verdicts are those of the log")
    if kept is not None:
        print(f"       it goes on from the checkpoint of entry {kept.count} that was kept elsewhere")
    return 0


def _kept_checkpoint(path: Path, signer: Signer) -> Checkpoint:
    """Return the checkpoint in a file; raises SiloError unless this silo signed it."""
    try:
        return read_checkpoint(path.read_bytes(), signer.silo, signer.federation, signer.key.public)
    except OSError as err:
        raise SiloError(f"{path} cannot be read ({err.strerror})", "name a file with a signed checkpoint") from err
    except LedgerError as err:
        hint = "name a file with a checkpoint of its ledger; docs/ledger.md section 3 says where one is kept"
        raise SiloError(f"{path} is no checkpoint signed by {signer.silo!r} in {signer.federation!r}", hint) from err


def _erase(options: argparse.Namespace) -> int:
    policy = load(options.policy).policy
    store = LedgerStore(ledger_path(options.policy), signer_of(options.policy))
    try:
        erased = store.erase(due_of(policy, int(time.time())))
    finally:
        store.close()
    for event in erased:
        print(worded(event))
    if not erased:
        print("nothing is due" if policy.retention is not None else "the policy has no [retention], so nothing is due")
    return 0


def _excuse(options: argparse.Namespace) -> int:
    path, silo = ledger_path(options.policy), read_home(options.policy).silo
    if options.aggregator not in silo.aggregators:
        known = ", ".join(sorted(silo.aggregators))
        raise SiloError(f"the roster has no aggregator {options.aggregator!r}", f"it has: {known}")
    event = Excused(aggregator=options.aggregator, by="owner")
    store = LedgerStore(path, signer_of(options.policy))
    try:
        store.record(event)
    finally:
        store.close()
    print(worded(event))
    return 0


def _console(options: argparse.Namespace) -> int:
    from silo_node.owner.console import Visitor, serve

    path = ledger_path(options.policy)
    if (options.who is None) != (options.key is None):
        raise SiloError("--as and --key go together", "give both to approve on the page, none to look only")
    visitor = None if options.who is None else Visitor(options.who, person_key(options.key))
    if visitor is not None:
        check_person(load(options.policy).policy, visitor.who, visitor.key)
    signer = signer_of(options.policy)
    with serve(options.policy, path, signer, visitor, options.port) as running:
        print(f"{running.url}\nthe page is for you alone: keep the address secret; Ctrl-C ends it", flush=True)
        running.wait()
    return 0
