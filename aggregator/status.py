"""`consilo status DIR` and `consilo doctor` of an aggregator.

Both read the aggregator's directory and ask its running program. If the program does not answer, they say so and show
what the directory tells. Nothing here depends on a row.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aggregator.errors import AggregatorError
from aggregator.home import read_credentials, read_home
from aggregator.keeping import DATES
from aggregator.request_log import RequestLine, read_request_log
from crypto.errors import CryptoError
from federation.members.certificates import days_left, utc_now
from federation.members.credentials import Credentials
from federation.operations import ray_directory
from federation.operations.checks import Finding, certificate_expiry, closed_home, code, ok_if
from federation.operations.cluster import RAY_TOKEN, check_token
from federation.operations.running import NOTE, ask_running, free_bytes, size_of, unanswered
from federation.terminal import Failure, fail, plain, print_findings
from policies.units import DAY_S, when

MIN_FREE_BYTES = 1 << 30
LAST = 10
KEPT = 100_000
PLACES = ("reports", "contributions", "heads")


def status(home: Path, now: float) -> dict[str, Any]:
    """Return what is known of an aggregator; raises AggregatorError or CryptoError if its directory is not one."""
    credentials = read_credentials(home)
    live = ask_running(home)
    connected = {} if live is None else dict(live.get("connected", {}))
    lines = read_request_log(home, KEPT)
    today = [line for line in lines if line.at >= now - now % DAY_S]
    membership = credentials.membership
    return {
        "aggregator": credentials.identity.name,
        "federation": credentials.identity.federation,
        "running": live is not None,
        "state": unanswered(home) if live is None else "running",
        "since": None if live is None else live.get("since"),
        "problems": [] if live is None else live.get("problems", []),
        "holders": {} if live is None else live.get("holders", {}),
        "membership": len(credentials.log),
        "certificate_days_left": round(days_left(credentials.certificate(), utc_now()), 1),
        "members": [
            {"name": one.name, "role": one.role, **({"connected": None} if one.role == "silo" else {})}
            | ({"connected": connected[one.name]} if one.name in connected else {})
            for one in membership.members
        ],
        "today": {
            "requests": dict(Counter(line.outcome for line in today)),
            "silos": dict(Counter(silo.status for line in today for silo in line.silos)),
        },
        "last": [_shown(line) for line in lines[-LAST:]],
        "free_bytes": free_bytes({"directory": home, "tmp": ray_directory.place()}),
        "stored": {name: dict(zip(("files", "bytes"), size_of(home / name, DATES), strict=True)) for name in PLACES},
    }


def _shown(line: RequestLine) -> dict[str, Any]:
    others = {one.silo: f"{one.status}: {one.said}".strip(": ") for one in line.silos if one.status != "answered"}
    return {
        "at": when(line.at),
        "request": line.request,
        "analyst": line.analyst,
        "purpose": line.purpose,
        "outcome": line.outcome,
        "seconds": line.took_ms / 1000,
        "reason": line.reason,
        "answered": sum(one.status == "answered" for one in line.silos),
        "others": others,
    }


def worded(found: dict[str, Any]) -> Iterator[str]:
    """Yield a status in words, for people."""
    state = f"running since {found['since']}" if found["running"] else found["state"]
    yield f"{found['aggregator']}, aggregator of {found['federation']}: {state}"
    for problem in found["problems"]:
        yield f"  problem      {problem}"
    yield f"  membership   version {found['membership']}; certificate: {found['certificate_days_left']:g} days left"
    for one in found["members"]:
        yield f"  {one['role']:<12} {one['name']}{_connection(one, found['running'])}"
    if holders := [one for one in found["holders"].items() if one[1]["closed"]]:
        shown = ", ".join(f"{who} {one['connections']} ({one['closed']} closed)" for who, one in holders[:LAST])
        yield f"  too many connections  {shown}"
    free = ", ".join(f"{room / 2**30:.1f} GiB ({what})" for what, room in found["free_bytes"].items())
    yield f"  free disk    {free}"
    sizes = [f"{name} in {one['files']} files, {one['bytes'] / 2**20:.1f} MiB" for name, one in found["stored"].items()]
    yield f"  stored       {'; '.join(sizes)}"
    for title, counted in found["today"].items():
        shown = ", ".join(f"{number} {what}" for what, number in sorted(counted.items())) or "none"
        yield f"  {f'today, {title}':<20} {shown}"
    for one in found["last"]:
        yield (
            f"  {one['at']}  {one['outcome']:<9} {one['seconds']:.1f} s  {one['analyst']} for {one['purpose']},"
            f" {one['answered']} answered{'; ' + one['reason'] if one['reason'] else ''}"
        )
        for silo, text in one["others"].items():
            yield f"      {silo}: {text}"


def _connection(one: dict[str, Any], is_running: bool) -> str:
    if one["role"] != "silo" or not is_running:
        return ""
    if one["connected"] is None:
        return "  not connected"
    since = one["connected"]
    return f"  connected since {since['since']}, {since['software']}, wire {since['wire']}"


def examine(home: Path) -> Iterator[Finding]:
    """Yield the checks of an aggregator's directory and disks."""
    try:
        credentials = read_credentials(home)
        yield Finding("membership", "ok", f"version {len(credentials.log)} of {credentials.identity.name}")
        yield from _member(credentials, home)
    except (AggregatorError, CryptoError) as err:
        yield Finding("aggregator", "FAIL", err.message, err.hint or "join the federation")
    yield closed_home(home)
    yield code()
    yield from ray_directory.findings(MIN_FREE_BYTES)
    for what, free in free_bytes({"reports": home}).items():
        yield Finding(f"free disk for {what}", ok_if(free >= MIN_FREE_BYTES), f"{free / 2**30:.1f} GiB", "free 1 GiB")
    try:
        state = "readable by its owner only" if check_token(home / RAY_TOKEN) else "none yet: made on the first start"
        yield Finding("token of the Ray cluster", "ok", state)
    except CryptoError as err:
        yield Finding("token of the Ray cluster", "FAIL", err.message, err.hint)
    state = "it answers" if ask_running(home) is not None else unanswered(home)
    was_killed = (home / NOTE).exists() and state != "it answers"
    yield Finding("running", "warn" if was_killed else "ok", state, f"consilo aggregator serve {home}")


def _member(credentials: Credentials, home: Path) -> Iterator[Finding]:
    certificate = credentials.certificate()
    yield certificate_expiry("certificate", certificate, utc_now())
    try:
        credentials.membership.peer(certificate)
        yield Finding("member", "ok", credentials.identity.uri)
    except CryptoError as err:
        yield Finding("member", "FAIL", err.message, err.hint)
    silos = [one.name for one in credentials.membership.of_role("silo")]
    yield Finding("silos", ok_if(bool(silos)), ", ".join(silos) or "none", "the authority admits them first")
    if silos:
        try:
            yield Finding("identity key", "ok", str(read_home(home).signing.public))
        except (AggregatorError, CryptoError) as err:
            yield Finding("identity key", "FAIL", err.message, err.hint or "restore identity.key")


def main(arguments: list[str]) -> int:
    """Run `status` or `doctor` on a directory."""
    parser = argparse.ArgumentParser(prog="python -m aggregator")
    parser.add_argument("command", choices=["status", "doctor"])
    parser.add_argument("home", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        if options.command == "doctor":
            return print_findings(examine(options.home))
        found = status(options.home, time.time())
    except (AggregatorError, CryptoError) as err:
        return fail("consilo", Failure(err.message, err.hint))
    text = [json.dumps(found, indent=2)] if options.json else [plain(line) for line in worded(found)]
    print("\n".join(text))  # noqa: T201
    return 0
