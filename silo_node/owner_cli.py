"""The commands of `consilo-silo` about what was spent, asked and logged.

They read the silo's own files; `approve`, `reject` and `erase` write to its ledger, under the silo's identity key.
"""

import argparse
import getpass
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from crypto.keys import SigningKey, VerifyKey, read_key_file
from crypto.wire import body_digest, unverified
from policies.approvals import Approval, Standing, standing, subject_of
from policies.decide import approval_of
from policies.errors import LedgerError
from policies.load import PolicyFile, load
from policies.model import MICRO, Policy
from policies.request import Request
from policies.training import Step
from silo_node.accounts import Account, Accounts, accounts_of
from silo_node.errors import SiloError
from silo_node.home import LEDGER, read_home
from silo_node.ledger_store import LedgerStore, Waiting
from silo_node.log import Signer, read_head, when, worded
from silo_node.retention import erase_due
from silo_node.wording import worded_request

_SHOWN = 12  # hexadecimal digits of a request's name that commands show and take
_LOG_ENTRIES = 100
Decision = Literal["approve", "reject"]


def add_commands(commands: Any) -> None:
    """Add the commands of this module to the parser of `consilo-silo`."""
    ledger = _command(
        commands, "ledger", "show what the silo has spent, what is left, and how long it will last", _ledger
    )
    _format(ledger)
    requests = _command(commands, "requests", "show the requests that wait for people to approve them", _requests)
    requests.add_argument("--all", action="store_true", help="also those that were decided or have expired")
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
        "--last", type=int, metavar="N", default=_LOG_ENTRIES, help=f"so many entries; default: {_LOG_ENTRIES}"
    )
    _format(log)
    verify = _command(
        commands, "verify-log", "examine the log: nothing removed, changed, reordered or cut off", _verify_log
    )
    verify.add_argument(
        "--head", type=Path, metavar="FILE", help="a head that was kept elsewhere: the log must go on from it"
    )
    _command(commands, "erase", "erase what the policy's [retention] says is due", _erase)
    console = _command(commands, "console", "open a page on this machine: policy, ledger, requests, log", _console)
    console.add_argument("--port", type=int, metavar="PORT", default=0, help="on the loopback interface; default: any")
    console.add_argument("--as", dest="who", metavar="NAME", help="who you are in [people], to approve on the page")
    console.add_argument("--key", type=Path, metavar="FILE", help="your key file")


def _command(commands: Any, name: str, text: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml beside the ledger")
    parser.set_defaults(run=run)
    return parser


def _format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=["table", "json"], default="table")


@dataclass(frozen=True, slots=True)
class Open:
    """A request that people were asked about, and how far that is."""

    waiting: Waiting
    request: Request
    standings: tuple[Standing, ...]
    people: tuple[str, ...]
    status: Literal["waiting", "approved", "rejected", "expired"]

    @property
    def name(self) -> str:
        return self.waiting.subject.hex()[:_SHOWN]

    def worded(self) -> str:
        """Return who has said what, and who may."""
        said = [f"{one}: no" for standing in self.standings for one in standing.rejected]
        said += [f"{one}: yes" for standing in self.standings for one in standing.approved]
        needed = ", ".join(f"{len(one.approved)} of {one.need}" for one in self.standings) or "none needed"
        return f"{self.status}, {needed}" + (f" ({', '.join(dict.fromkeys(said))})" if said else "")


def requests_of(policy: Policy, store: LedgerStore, now: int) -> list[Open]:
    """Return what people were asked about, oldest first, as the policy in force judges it."""
    keys = {name: VerifyKey.parse(person.key) for name, person in policy.people.items()}
    found = []
    for waiting in store.waiting():
        request, request_hash = unverified(waiting.envelope, Request), body_digest(waiting.envelope, Request)
        if subject_of(request, request_hash) != waiting.subject:
            raise LedgerError("a request that waits was altered", "restore the ledger, and find out who changed it")
        run = request.plan.run if isinstance(request.plan, Step) else None
        analyst = policy.analyst_entry(request.analyst) or request.analyst
        of_run = store.spending(request.nonce, analyst=analyst, run=run).run
        rules = approval_of(policy, request, request_hash, of_run)
        verdicts = store.verdicts(waiting.subject)
        standings = tuple(
            standing(
                verdicts,
                waiting.subject,
                policy.silo.id,
                {name: keys[name] for name in rule.of if name in keys},
                rule.need,
                rule.expires_hours * 3600,
                now,
            )
            for _, rule, _ in rules
        )
        status: Literal["waiting", "approved", "rejected", "expired"] = "waiting"
        is_expired = now >= waiting.expires_at
        if any(one.rejected for one in standings):
            status = "rejected"
        elif all(one.is_given for one in standings) and (run is not None or not is_expired):
            status = "approved"  # a run goes on with other requests than the first
        elif is_expired:
            status = "expired"
        people = tuple(dict.fromkeys(name for _, rule, _ in rules for name in rule.of))
        found.append(Open(waiting, request, standings, people, status))
    return found


def decide_on(
    policy: Policy, store: LedgerStore, who: str, key: SigningKey, name: str, decision: Decision, now: int
) -> Approval:
    """Sign and store what a person says to a request; return it. Raises SiloError or LedgerError."""
    if who not in policy.people:
        known = ", ".join(policy.people) or "nobody"
        raise SiloError(f"{who!r} is not in the policy's [people]", f"known: {known}")
    if VerifyKey.parse(policy.people[who].key) != key.public:
        raise SiloError(f"the key is not the one that the policy gives {who!r}", "use the key file of that person")
    matching = [one for one in requests_of(policy, store, now) if one.waiting.subject.hex().startswith(name.lower())]
    if len(name) < 8 or len(matching) != 1:
        raise SiloError(f"{name[:80]!r} names {len(matching)} requests", "take its name from `consilo-silo requests`")
    (one,) = matching
    if one.status == "expired" and decision == "approve":  # a rejection is heard at any time
        raise SiloError("the request has expired", "the analyst has to send a new one")
    if who not in one.people:
        raise SiloError(f"{who!r} is not among those who decide on it", f"ask: {', '.join(one.people) or 'nobody'}")
    verdict = Approval.signed(who, key, policy.silo.id, one.waiting.subject, decision, now)
    store.add_verdict(verdict)
    return verdict


def ledger_path(policy: Path) -> Path:
    """Return the ledger beside a policy; raises LedgerError if the silo has never started."""
    path = policy.resolve().parent / LEDGER
    if not path.exists():
        raise LedgerError(f"there is no ledger beside {policy}", "it appears when the silo first starts")
    return path


def signer_of(policy: Path) -> Signer:
    """Return the silo's own signature, from the files beside its policy."""
    silo = read_home(policy).silo
    return Signer(silo.name, silo.federation, silo.signing)


def person_key(path: Path) -> SigningKey:
    """Read a person's key, asking on the terminal for its passphrase if it has one."""
    prompts = chain([f"passphrase of {path}: "], repeat("that does not open it; passphrase: "))
    return SigningKey(read_key_file(path, lambda: _typed(next(prompts))))


def _typed(prompt: str) -> str:
    """Return what a person types at the terminal without showing it; raises SiloError if there is no terminal."""
    missing = SiloError("a passphrase is needed, and there is no terminal to ask for it", "use a terminal")
    if sys.stdin is None or not sys.stdin.isatty():
        raise missing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # it would show what is typed
            return getpass.getpass(prompt)
    except (EOFError, getpass.GetPassWarning):
        raise missing from None


def _read(options: argparse.Namespace) -> tuple[PolicyFile, LedgerStore]:
    return load(options.policy), LedgerStore(ledger_path(options.policy))


def _ledger(options: argparse.Namespace) -> int:
    file, store = _read(options)
    rows, spent = store.history(), store.spending().lifetime
    store.close()
    accounts = accounts_of(file.policy, rows, spent, int(time.time()))
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
    table = Table(title=f"Ledger of {file.policy.silo.id}", title_justify="left")
    for heading in ("when", "analyst", "purpose", "state"):
        table.add_column(heading)
    table.add_column("rho", justify="right")
    for row in rows:
        state = "committed" if row.is_committed else "reserved"
        table.add_row(when(row.at), row.analyst, row.purpose, state, f"{row.micro_rho / MICRO:.6f}")
    console = Console(highlight=False)
    console.print(table)
    _print_accounts(console, accounts)
    return 0


def _print_accounts(console: Console, accounts: Accounts) -> None:
    table = Table(title="Accounts", title_justify="left")
    for heading in ("of", "window", "since", "analyst"):
        table.add_column(heading)
    for heading in ("spent", "reserved", "limit", "left"):
        table.add_column(heading, justify="right")
    for account in (*accounts.limits, *(one for one in accounts.purposes if one.spent)):
        _account_row(table, account, "")
        for part in account.parts:
            _account_row(table, part, part.name)
    if table.row_count:
        console.print(table)
    spent, limit = accounts.lifetime.spent, accounts.lifetime.limit or 0
    epsilons = f"epsilon {_short(accounts.epsilon(spent))} of {_short(accounts.epsilon(limit))}"
    print(f"spent: rho {spent / MICRO:.6f} of {limit / MICRO:g}; {epsilons} at delta {accounts.delta:g}")
    if accounts.lifetime.reserved:
        print(f"       of it rho {accounts.lifetime.reserved / MICRO:.6f} set aside for rounds that are running")
    print(f"left:  rho {(accounts.lifetime.left or 0) / MICRO:.6f}")
    print(f"pace:  {accounts.forecast.worded()}")


def _account_row(table: Table, account: Account, analyst: str) -> None:
    limit = "" if account.limit is None else f"{account.limit / MICRO:.6f}"
    left = "" if account.left is None else f"{account.left / MICRO:.6f}"
    name, window = ("", "") if analyst else (account.name, account.window)
    since = "" if analyst else account.since
    figures = (f"{account.committed / MICRO:.6f}", f"{account.reserved / MICRO:.6f}", limit, left)
    table.add_row(name, window, since, analyst, *figures)


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
        "limits": [one.summary() for one in accounts.limits],
        "purposes": [one.summary() for one in accounts.purposes],
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
        print(f"  {one.waiting.analyst} for {one.waiting.purpose}, rho {one.waiting.micro_rho / MICRO:.6f}")
        print(f"  {worded_request(one.request)}")
        print(f"  asked {when(one.waiting.asked_at)}, expires {when(one.waiting.expires_at)}")
        print(f"  to decide: {', '.join(one.people) or 'nobody'}")
    if not found:
        print("no request waits")
    return 0


def _request(one: Open) -> dict[str, object]:
    return {
        "request": one.waiting.subject.hex(),
        "status": one.status,
        "analyst": one.waiting.analyst,
        "purpose": one.waiting.purpose,
        "rho": one.waiting.micro_rho / MICRO,
        "question": worded_request(one.request),
        "asked_at": when(one.waiting.asked_at),
        "expires_at": when(one.waiting.expires_at),
        "approved": [list(standing.approved) for standing in one.standings],
        "rejected": [list(standing.rejected) for standing in one.standings],
        "need": [standing.need for standing in one.standings],
        "people": list(one.people),
    }


def _vote(options: argparse.Namespace) -> int:
    policy = load(options.policy).policy
    path, now = ledger_path(options.policy), int(time.time())
    key = person_key(options.key)
    store = LedgerStore(path, signer_of(options.policy))
    try:
        verdict = decide_on(policy, store, options.who, key, options.request, options.decision, now)
        after = next(one for one in requests_of(policy, store, now) if one.waiting.subject == verdict.subject)
    finally:
        store.close()
    print(f"{after.name}  {after.worded()}")
    return 0


def _log(options: argparse.Namespace) -> int:
    if options.last < 1:
        raise SiloError(f"--last is {options.last}, expected at least 1")
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
    kept = None
    if options.head is not None:
        try:
            kept = read_head(options.head.read_bytes(), signer.silo, signer.federation, signer.key.public)
        except OSError as err:
            raise SiloError(
                f"{options.head} cannot be read ({err.strerror})", "name a file with a signed head"
            ) from err
    store = LedgerStore(path)
    try:
        envelope = store.head()
        head = None if envelope is None else read_head(envelope, signer.silo, signer.federation, signer.key.public)
        found = store.audit(head)
        if kept is not None:
            store.check_against(kept)
    finally:
        store.close()
    chain_hash = "" if head is None else head.chain.hex()
    print(f"whole: entries {found.first} to {found.last}, head {chain_hash[:32]}")
    print(f"       {len(found.charges)} charges, as the ledger has them")
    if kept is not None:
        print(f"       it goes on from the head of entry {kept.count} that was kept elsewhere")
    return 0


def _erase(options: argparse.Namespace) -> int:
    policy = load(options.policy).policy
    store = LedgerStore(ledger_path(options.policy), signer_of(options.policy))
    try:
        count = erase_due(policy, store, int(time.time()))
    finally:
        store.close()
    print(f"{count} erased" if policy.retention is not None else "the policy has no [retention], so nothing is due")
    return 0


def _console(options: argparse.Namespace) -> int:
    from silo_node.console import Visitor, serve

    path = ledger_path(options.policy)
    if (options.who is None) != (options.key is None):
        raise SiloError("--as and --key go together", "give both to approve on the page, none to look only")
    visitor = None if options.who is None else Visitor(options.who, person_key(options.key))
    signer = signer_of(options.policy)
    with serve(options.policy, path, signer, visitor, options.port) as running:
        print(f"{running.url}\nthe page is for you alone: keep the address secret; Ctrl-C ends it", flush=True)
        running.wait()
    return 0
