"""`consilo-silo status`: what a silo's owner wants to know at a glance, from its own directory and its running program.

The last rounds come from the ledger's log, and the errors of the day from `silo.log`: both outlive a kill. Whether it
is connected only the running program knows; without its answer the status says so. Nothing is computed from a row.
"""

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from crypto.errors import CryptoError
from federation.members.certificates import days_left, utc_now
from federation.operations import ray_directory
from federation.operations.running import ask_running, free_bytes, size_of, tail, unanswered
from policies.document.load import load
from policies.errors import LedgerError, PolicyError
from policies.units import DAY_S, MICRO, when
from silo_node.data.prepared.store import FOLDER
from silo_node.errors import SiloError
from silo_node.home import LEDGER, accepted_in, read_credentials
from silo_node.ledger import events
from silo_node.ledger.events import LogEntry
from silo_node.ledger.store import LedgerStore
from silo_node.owner.accounts import Account, accounts_of, run_summary, run_worded
from silo_node.timed import ANSWERED_BY_NOTHING, REMEDY

ENTRIES = 5000  # of the log, for the rounds and refusals of the day
LAST = 10
TAIL_BYTES = 256 << 10  # of silo.log
WAITS = "it was put back from a backup: every request is refused until enough aggregators give its newest checkpoint"
_LINE = re.compile(r"(\d{4}-\d\d-\d\d) \d\d:\d\d:\d\d,\d{3} (WARNING|ERROR) ")


def silo_status(policy_path: Path, now: float) -> dict[str, Any]:
    """Return what is known of a silo; raises PolicyError if its policy cannot be read."""
    policy, home = load(policy_path).policy, policy_path.resolve().parent
    live = ask_running(home)
    found: dict[str, Any] = {
        "silo": policy.silo.id,
        "policy_version": policy.policy.version if policy.policy else 0,
        "version_in_force": _version_in_force(home),
        "running": live is not None,
        "state": unanswered(home) if live is None else "running",
        "since": None if live is None else live.get("since"),
        "connected": {} if live is None else live.get("connected", {}),
        "problems": [] if live is None else live.get("problems", []),
    }
    try:
        credentials = read_credentials(home, policy.silo.id)
        found["membership"] = len(credentials.log)
        found["certificate_days_left"] = round(days_left(credentials.certificate(), utc_now()), 1)
        found["aggregators"] = [one.name for one in credentials.membership.of_role("aggregator")]
    except (CryptoError, SiloError):
        found |= {"membership": None, "certificate_days_left": None, "aggregators": []}  # in simulate mode
    found |= _of_ledger(policy_path, home, now)
    found["errors_today"] = _errors(home / "silo.log", now)
    found["free_bytes"] = free_bytes({"directory": home, "tmp": ray_directory.place()})
    found["stored"] = {
        "ledger": (home / LEDGER).stat().st_size if (home / LEDGER).exists() else 0,
        "prepared": sum(size_of(place)[1] for place in (home / FOLDER).rglob("*") if place.is_dir())
        + size_of(home / FOLDER)[1],
    }
    return found


def _of_ledger(policy_path: Path, home: Path, now: float) -> dict[str, Any]:
    empty: dict[str, Any] = {"budget": [], "runs": [], "today": {}, "refusals_today": {}, "last": [], "ledger": ""}
    if not (home / LEDGER).exists():
        return empty
    try:
        with closing(LedgerStore(home / LEDGER)) as store:
            entries, rows, spent = store.entries(ENTRIES), store.history(), store.spending()
            runs = store.reservations()
            problem = WAITS if store.is_put_back else ""
    except LedgerError as err:
        return empty | {"ledger": err.message}
    accounts = accounts_of(load(policy_path).policy, rows, spent, int(now), runs)
    rounds = list(rounds_of(entries))
    today = [one for one in rounds if one["time"] >= now - now % DAY_S]
    codes = Counter(code for one in today for code in one["codes"])
    return {
        "budget": [_budget(one) for one in (accounts.lifetime, *accounts.limits)],
        "runs": [run_summary(one) for one in accounts.runs],
        "today": dict(Counter(one["outcome"] for one in today)),
        "refusals_today": dict(codes),
        "last": [{"at": when(one.pop("time")), **one} for one in rounds[-LAST:]],
        "ledger": problem,
    }


def _budget(account: Account) -> dict[str, Any]:
    left = None if account.left is None else account.left / MICRO
    return {"name": account.name, "window": account.window, "left": left, "spent": account.spent / MICRO}


def rounds_of(entries: Iterable[LogEntry]) -> Iterator[dict[str, Any]]:
    """Yield what became of each request in the log, in the order in which they were decided."""
    found: dict[bytes, dict[str, Any]] = {}  # by nonce, or by the number of a refusal
    of_round: dict[bytes, bytes] = {}
    asked: dict[bytes, tuple[str, str]] = {}  # by request hash: who asked, and what for
    for entry in entries:
        match entry.event:
            case events.Decided() as event:
                asked[event.request_hash] = event.analyst, event.purpose
                if event.codes:
                    who = {"analyst": event.analyst, "purpose": event.purpose}
                    found[entry.seq.to_bytes(8, "big")] = {
                        "time": entry.at, "outcome": "refused", **who, "codes": list(event.codes)
                    }  # fmt: skip
            case events.Reserved() as event:
                analyst, purpose = asked.get(event.request_hash, ("", ""))
                who = {"analyst": analyst, "purpose": purpose}
                found[event.nonce] = {"time": entry.at, "outcome": "accepted", **who, "codes": []}
            case events.Released() as event if event.nonce in found:
                found[event.nonce]["outcome"] = "released, nothing was spent"
            case events.Contributed() as event if event.nonce in found:
                found[event.nonce]["outcome"] = "spent, without an opening"
                of_round[event.round_id] = event.nonce
            case events.Opened() as event if event.round_id in of_round:
                found[of_round[event.round_id]]["outcome"] = "answered"
            case _:
                pass
    yield from found.values()


def _errors(log: Path, now: float) -> dict[str, Any]:
    """Return how many warnings and errors `silo.log` has of today, and the last ones."""
    today = time.strftime("%Y-%m-%d", time.localtime(now))
    lines = [line for line in tail(log, TAIL_BYTES).splitlines() if (at := _LINE.match(line)) and at[1] == today]
    nothing = sum(ANSWERED_BY_NOTHING in line for line in lines)
    return {"count": len(lines), "answered_by_nothing": nothing, "last": [line[:300] for line in lines[-5:]]}


def _version_in_force(home: Path) -> int | None:
    """Return the version of the signed policy in force; None before the first, or where its copy is not to be read."""
    with suppress(PolicyError, SiloError):
        accepted = accepted_in(home)
        return None if accepted is None or accepted.policy.policy is None else accepted.policy.policy.version
    return None


def worded(found: dict[str, Any]) -> Iterator[str]:
    """Yield a status in words, for people."""
    state = f"running since {found['since']}" if found["running"] else found["state"]
    version, in_force = found["policy_version"], found["version_in_force"]
    if in_force not in (None, version):
        yield f"{found['silo']}, policy version {in_force} in force: {state}"
        yield f"  policy       policy.toml is version {version}, which is in force from the next start on"
    else:
        yield f"{found['silo']}, policy version {version}: {state}"
    for problem in found["problems"]:
        yield f"  problem      {problem}"
    for name in found["aggregators"]:
        since = found["connected"].get(name)
        yield f"  aggregator   {name}{f', connected since {since}' if since else ', not connected'}"
    if found["membership"] is not None:
        yield f"  membership   version {found['membership']}; certificate: {found['certificate_days_left']:g} days left"
    for one in found["budget"]:
        left = "no limit" if one["left"] is None else f"rho {one['left']:g} left"
        yield f"  budget       {one['name']}, {one['window']}: {left}, {one['spent']:g} spent"
    for one in found["runs"]:
        yield f"  reserved     rho {one['rho']:g} by {run_worded(one)}"
    if found["ledger"]:
        yield f"  ledger       {found['ledger']}"
    free = [f"{room / 2**30:.1f} GiB ({what})" for what, room in found["free_bytes"].items()]
    yield f"  free disk    {', '.join(free)}"
    yield f"  stored       {', '.join(f'{what} {size / 2**20:.1f} MiB' for what, size in found['stored'].items())}"
    for title, counted in (("requests", found["today"]), ("refusals", found["refusals_today"])):
        shown = ", ".join(f"{number} {what}" for what, number in sorted(counted.items())) or "none"
        yield f"  today        {title}: {shown}"
    if nothing := found["errors_today"]["answered_by_nothing"]:
        yield f"  today        answered by nothing and noise: {nothing}; nobody else is told{REMEDY}"
    yield f"  today        warnings and errors in silo.log: {found['errors_today']['count']}"
    for line in found["errors_today"]["last"]:
        yield f"      {line}"
    for one in found["last"]:
        codes = f" ({', '.join(one['codes'])})" if one["codes"] else ""
        who = f"  {one['analyst']} for {one['purpose']}" if one["analyst"] else ""
        yield f"  {one['at']}  {one['outcome']}{codes}{who}"
