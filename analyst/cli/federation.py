"""The commands of federations between organisations: `consilo federation ...`, `consilo join` and `consilo aggregator`.

What an action did is printed with what comes next and who does it; keys are shown by their public halves only.
"""

import argparse
import os
import re
import sys
from functools import partial
from pathlib import Path

from rich.console import Console

from analyst.errors import AnalystError
from analyst.reports.report import iso
from crypto.wire import JURISDICTION_PATTERN
from federation.authority import admit, found_federation, invite, opened, revoke, rotate
from federation.errors import FederationError
from federation.joining import Joined, join, renew
from federation.members.certificates import MEMBER_DAYS, ROLES, utc_now
from federation.members.membership import LOG
from federation.terminal import Commands, add_command, add_group
from federation.transport.address import listened, port

INVITATION_DAYS = 7


def add_commands(commands: Commands) -> None:
    """Add the commands to `consilo`'s parser."""
    text = "the authority's commands: found a federation, and change who belongs to it"
    action = partial(add_command, add_group(commands, "federation", text))
    new = action("new", _new, "make the authority's directory: its keys and the first version of the membership")
    new.add_argument("directory", type=Path, metavar="DIR", help="where the authority's files are made")
    new.add_argument("--name", required=True, metavar="NAME", help="what the federation is called")
    text = "the certificate of an X.509 authority that the consortium has; it then issues the members' certificates"
    new.add_argument("--ca", type=Path, metavar="FILE", help=text)
    invited = action("invite", _invite, "write an invitation for one organisation, good for once")
    invited.add_argument("name", metavar="ORG", help="the name that it will have")
    invited.add_argument("--role", required=True, choices=ROLES, help="what it will be")
    invited.add_argument("--days", type=_days, default=INVITATION_DAYS, help="for how long the invitation is good")
    text = "where a silo or an aggregator is, such as NO or EU-DE: purposes may be kept in named places"
    invited.add_argument("--jurisdiction", type=jurisdiction, metavar="PLACE", help=text)
    admitted = action("admit", _admit, "admit who answered an invitation")
    rotated = action("rotate", _rotate, "give a member a certificate for its new transport key")
    for one in (admitted, rotated):
        one.add_argument("request", type=Path, metavar="REQUEST", help="the file that it sent")
        text = "what the consortium's own authority issued for it"
        one.add_argument("--certificate", type=Path, metavar="FILE", help=text)
        text = "for how long the certificate is valid, where it is issued here"
        one.add_argument("--days", type=_days, default=MEMBER_DAYS, help=text)
    revoked = action("revoke", _revoke, "remove a member, or the older of its two transport keys")
    revoked.add_argument("name", metavar="ORG", help="the member")
    revoked.add_argument("--old-key", action="store_true", help="only the key before its last rotation")
    shown = action("log", _log, "show every version of the membership, checked")
    for one in (invited, admitted, rotated, revoked, shown):
        text = "the authority's consilo.toml"
        one.add_argument("--federation", type=Path, default=Path("consilo.toml"), metavar="FILE", help=text)
    text = "become a member: answer an invitation, install an admission, or renew a transport key"
    joining = add_command(commands, "join", _join, text)
    joining.add_argument("file", type=Path, nargs="?", metavar="FILE", help="the invitation, or the admission")
    joining.add_argument("--out", type=Path, required=True, metavar="DIR", help="this organisation's directory")
    text = "of an aggregator: where others dial it"
    joining.add_argument("--address", default="", metavar="HOST:PORT", help=text)
    joining.add_argument("--renew", action="store_true", help="make a new transport key and the request for it")
    serving = add_group(commands, "aggregator", "run the aggregator")
    serve = add_command(serving, "serve", _serve, "listen for silos and analysts, and run their rounds")
    serve.add_argument("home", type=Path, metavar="DIR", help="the aggregator's directory")
    listen, text = "0.0.0.0:8443", "health and metrics, on loopback"
    serve.add_argument("--listen", type=listened, default=listen, metavar="HOST:PORT", help="where it listens")
    serve.add_argument("--monitor-port", type=port, default=9464, metavar="PORT", help=text)


def _days(text: str) -> int:
    days = int(text) if text.isdecimal() else 0
    if not 1 <= days <= 3650:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to 3650")
    return days


def jurisdiction(text: str) -> str:
    """Return a jurisdiction as it was typed; raises ArgumentTypeError."""
    if not re.fullmatch(JURISDICTION_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no place: give a code of ISO 3166, such as NO or EU-DE")
    return text


def _new(options: argparse.Namespace, notes: Console) -> int:
    signing = found_federation(options.directory, options.name, options.ca, utc_now())
    _say(f"{options.name} is founded in {options.directory}; keep it offline, and a copy of it")
    _say(f"authority {signing.public}")
    _say("publish that key where members can compare it; next: consilo federation invite ORG --role ROLE")
    return 0


def _invite(options: argparse.Namespace, notes: Console) -> int:
    with opened(options.federation) as authority:
        path = invite(authority, options.name, options.role, options.days, utc_now(), options.jurisdiction)
    _say(f"{path}: good for once, for {options.days} days; send it to {options.name} so that nobody else reads it")
    return 0


def _admit(options: argparse.Namespace, notes: Console) -> int:
    with opened(options.federation) as authority:
        path, member = admit(authority, options.request, options.certificate, options.days, utc_now())
    _say(f"{member.name} is admitted as {member.role}, with {member.key}")
    _say(f"send back {path}, and {options.federation.parent / LOG} to the aggregator")
    return 0


def _rotate(options: argparse.Namespace, notes: Console) -> int:
    with opened(options.federation) as authority:
        path, is_new = rotate(authority, options.request, options.certificate, options.days, utc_now())
    if not is_new:
        _say("that key is the newest already: its admission is written again, and the membership stays as it is")
    _say(f"send back {path}, and {options.federation.parent / LOG} to the aggregator")
    _say("once ORG has installed its admission: consilo federation revoke ORG --old-key")
    return 0


def _revoke(options: argparse.Namespace, notes: Console) -> int:
    with opened(options.federation) as authority:
        is_analyst = authority.membership.find(options.name).role == "analyst" and not options.old_key
        log = revoke(authority, options.name, "old key" if options.old_key else "member", utc_now())
    _say(f"membership version {len(log)}: {log.versions[-1].message.change}")
    _say(f"it holds from when the aggregator has {options.federation.parent / LOG}")
    if is_analyst:
        _say("silos know analysts by their policies: let them take its key out too")
    return 0


def _log(options: argparse.Namespace, notes: Console) -> int:
    with opened(options.federation) as authority:
        for signed in authority.log.versions:
            _say(f"{signed.message.version:>5}  {iso(signed.message.made_at)}  {signed.message.change}")
        for member in authority.membership.members:
            _say(f"{member.role:<10}  {member.name:<20}  {member.jurisdiction or '-':<6}  {member.key}")
    return 0


def _join(options: argparse.Namespace, notes: Console) -> int:
    if options.renew == (options.file is not None):
        raise AnalystError("give either the file that the authority sent, or --renew", "see `consilo join --help`")
    joined = renew(options.out) if options.renew else join(options.file, options.out, options.address, utc_now())
    for line in _next(joined, options.out):
        _say(line)
    return 0


def _next(joined: Joined, out: Path) -> list[str]:
    who = f"{joined.identity.name} ({joined.identity.role} of {joined.identity.federation})"
    if joined.request is not None:
        return [
            f"{who}: keys are in {out} and stay there",
            f"authority {joined.authority}: compare it with the key that the authority published",
            f"send {joined.request} to the authority",
        ]
    match joined.identity.role:
        case "silo":
            then = f"consilo-silo serve --policy {out / 'policy.toml'}"
        case "aggregator":
            then = f"consilo aggregator serve {out}"
        case "analyst":
            then = f"consilo silos --federation {out / 'consilo.toml'}"
    key = f"; its key for policies is {joined.key}" if joined.identity.role == "analyst" else ""
    return [f"{who} is a member{key}", f"next: {then}"]


def _serve(options: argparse.Namespace, notes: Console) -> int:
    if not options.home.is_dir():
        raise FederationError(f"there is no directory {options.home}", "make it with `consilo join`")
    # Another program: this package never imports the aggregator.
    command = [sys.executable, "-m", "aggregator", "serve", str(options.home), "--listen", options.listen]
    os.execv(sys.executable, [*command, "--monitor-port", str(options.monitor_port)])  # noqa: S606


def _say(line: str) -> None:
    Console(highlight=False, markup=False, soft_wrap=True).print(line)
