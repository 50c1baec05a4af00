"""The commands of federations between organisations: `consilo federation ...`, `consilo join` and `consilo aggregator`.

Each action prints its result, and the next action with the party that must do it. Only public keys are shown.
"""

import argparse
import os
import re
import sys
from functools import partial
from pathlib import Path

from rich.console import Console

from analyst.errors import AnalystError
from crypto.errors import CryptoError
from crypto.wire import JURISDICTION_PATTERN
from federation.authority import (
    Guest,
    admit,
    found_federation,
    guests_in,
    invite_all,
    opened,
    push,
    renew_admission,
    revoke,
    rotate,
)
from federation.backups import passphrase_option
from federation.errors import FederationError
from federation.files import replace_file
from federation.joining import Joined, install, join, renew
from federation.members.certificates import MEMBER_DAYS, ROLES, utc_now
from federation.members.membership import LOG
from federation.operations import background
from federation.terminal import Commands, add_command, add_group, plain, whole
from federation.transport.address import listened, port
from policies.units import counted, when

INVITATION_DAYS = 7
WAIT_S = 120.0  # for an aggregator that was started to listen


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
    invited.add_argument("name", nargs="?", metavar="ORG", help="the name that it will have")
    invited.add_argument("--role", choices=ROLES, help="what it will be")
    text = 'invite all of these: tables [silos], [aggregators] and [analysts] with lines such as aspen = "NO"'
    invited.add_argument("--from", dest="members", type=Path, metavar="FILE", help=text)
    invited.add_argument("--days", type=_days, default=INVITATION_DAYS, help="for how long the invitation is good")
    text = "where a silo or an aggregator is, such as NO or EU-DE: purposes may be kept in named places"
    invited.add_argument("--jurisdiction", type=jurisdiction, metavar="PLACE", help=text)
    admitted = action("admit", _admit, "admit who answered an invitation")
    rotated = action("rotate", _rotate, "give a member a certificate for its new transport key")
    admitted.add_argument("request", type=Path, nargs="+", metavar="REQUEST", help="the file that it sent; repeat it")
    rotated.add_argument("request", type=Path, metavar="REQUEST", help="the file that it sent")
    for one in (admitted, rotated):
        text = "what the consortium's own authority issued for it"
        one.add_argument("--certificate", type=Path, metavar="FILE", help=text)
        text = "for how long the certificate is valid, where it is issued here"
        one.add_argument("--days", type=_days, default=MEMBER_DAYS, help=text)
    revoked = action("revoke", _revoke, "remove a member, or the older of its two transport keys")
    revoked.add_argument("name", metavar="ORG", help="the member")
    revoked.add_argument("--old-key", action="store_true", help="only the key before its last rotation")
    shown = action("log", _log, "show every version of the membership, checked")
    pushed = action("push", _push, "bring the newest membership into directories: of an aggregator, a silo, or shared")
    pushed.add_argument("directory", type=Path, nargs="+", metavar="DIR", help="where its membership.log belongs")
    for one in (invited, admitted, rotated, revoked, shown, pushed):
        text = "the authority's consilo.toml"
        one.add_argument("--federation", type=Path, default=Path("consilo.toml"), metavar="FILE", help=text)
    text = "become a member: answer an invitation, install an admission, or renew a transport key"
    joining = add_command(commands, "join", _join, text)
    joining.add_argument("file", type=Path, nargs="?", metavar="FILE", help="the invitation, or the admission")
    joining.add_argument("--out", type=Path, required=True, metavar="DIR", help="this organisation's directory")
    text = "of an aggregator: where others dial it"
    joining.add_argument("--address", default="", metavar="HOST:PORT", help=text)
    joining.add_argument("--renew", action="store_true", help="make a new transport key and the request for it")
    text = "also copy what is to be sent to this directory, such as a share"
    for one in (invited, admitted, joining):
        one.add_argument("--post", type=Path, metavar="DIR", help=text)
    serving = add_group(commands, "aggregator", "run the aggregator")
    serve = add_command(serving, "serve", _serve, "listen for silos and analysts, and run their rounds")
    serve.add_argument("home", type=Path, metavar="DIR", help="the aggregator's directory")
    listen, text = "0.0.0.0:8443", "health and metrics, on loopback"
    serve.add_argument("--listen", type=listened, default=listen, metavar="HOST:PORT", help="where it listens")
    serve.add_argument("--monitor-port", type=port, default=9464, metavar="PORT", help=text)
    text = "install the admission that the authority sent, before anything else"
    serve.add_argument("--admission", type=Path, metavar="FILE", help=text)
    text = "start it in the background, with serve.log in DIR, and return once it listens"
    serve.add_argument("--wait", action="store_true", help=text)
    text = "how long encrypted reports are kept; default: %(default)s"
    serve.add_argument("--keep-reports", type=_days, default=90, metavar="DAYS", help=text)
    text = "how many GiB of them; the oldest are erased first; default: %(default)s"
    serve.add_argument("--reports-gib", type=_gib, default=16, metavar="GIB", help=text)
    text = "how long masked inputs are kept, by which answers are checked; default: %(default)s"
    serve.add_argument("--keep-contributions", type=_days, default=90, metavar="DAYS", help=text)
    text = "how many GiB of them; the oldest are erased first; default: %(default)s"
    serve.add_argument("--contributions-gib", type=_gib, default=16, metavar="GIB", help=text)
    text = "how many megabytes of long vectors it takes in and adds a second, of all silos; default: %(default)s"
    serve.add_argument("--megabytes-per-second", type=_mb, default=100, metavar="MB", help=text)
    text = "the Ray cluster of its own organisation, to which it attaches; default: one that it starts on this machine"
    serve.add_argument("--ray", default=None, metavar="HOST:PORT", help=text)
    text = "node.key, node.pem and ca.pem, where that cluster has several machines"
    serve.add_argument("--ray-tls", type=Path, default=None, metavar="DIR", help=text)
    text = "the address of this machine in that cluster"
    serve.add_argument("--node-address", default="", metavar="ADDRESS", help=text)
    text = "among how many processes a long sum is divided; default: as many as the cluster has machines"
    serve.add_argument("--shards", type=_shards, default=None, metavar="COUNT", help=text)
    text = "also answer /live, /ready and /metrics there, for probes from other machines"
    serve.add_argument("--probes", type=listened, metavar="HOST:PORT", help=text)
    text = "write its keys, checkpoints and reports into one archive under a passphrase, also while it is served"
    backup = add_command(serving, "backup", _keep, text)
    backup.add_argument("source", type=Path, metavar="DIR", help="the aggregator's directory")
    backup.add_argument("--out", type=Path, required=True, metavar="ARCHIVE", help="a new file, which it makes")
    restore = add_command(serving, "restore", _keep, "make an aggregator's directory from a backup")
    restore.add_argument("source", type=Path, metavar="ARCHIVE", help="what `backup` has written")
    restore.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new directory, which it makes")
    for name, parser in (("backup", backup), ("restore", restore)):
        passphrase_option(parser)
        parser.set_defaults(keeping=name)


_gib, _mb, _shards = whole(1, 1 << 20), whole(1, 1_000_000), whole(1, 64)


def _days(text: str) -> int:
    days = int(text) if text.isdecimal() else 0
    if not 1 <= days <= 3650:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to 3650")
    return days


def jurisdiction(text: str) -> str:
    """Parse a jurisdiction; raises ArgumentTypeError."""
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
    own = (options.name, options.role, options.jurisdiction)
    one = options.name is not None and options.role is not None
    if one == (options.members is not None) or (options.members is not None and own != (None, None, None)):
        raise AnalystError("give either ORG and --role, or --from FILE alone", "see `consilo federation invite --help`")
    guests = [Guest(options.name, options.role, options.jurisdiction)] if one else guests_in(options.members)
    with opened(options.federation) as authority:
        for guest, path in invite_all(authority, guests, options.days, utc_now()):
            place = _posted(path, options.post)
            _say(f"{place}: good for once, for {options.days} days; send it to {guest} so that nobody else reads it")
    return 0


def _admit(options: argparse.Namespace, notes: Console) -> int:
    if options.certificate is not None and len(options.request) > 1:
        raise AnalystError("--certificate is of one request", "admit the others apart")
    admitted: list[str] = []
    refused: list[FederationError | CryptoError] = []
    for request in options.request:
        with opened(options.federation) as authority:
            known = authority.membership.members
            try:
                _, member = admit(authority, request, options.certificate, options.days, utc_now())
            except (FederationError, CryptoError) as err:
                refused.append(err)
                _say(f"{request} is not admitted: {plain(err.message)}; {plain(err.hint)}".removesuffix("; "))
                continue
        admitted.append(member.name)
        what = f"is a member already, as {member.role}" if member in known else f"is admitted as {member.role}"
        _say(f"{member.name} {what}, with {member.key}")
    with opened(options.federation) as authority:
        for name in admitted:
            path = renew_admission(authority, name)  # with the members that were admitted after it
            _say(f"send back {_posted(path, options.post)}")
    if refused and len(options.request) == 1:
        raise refused[0]
    if admitted:
        _say(f"an aggregator that was a member before needs {options.federation.parent / LOG}")
    if refused:
        hint = "give the same command again once they are mended: who is admitted stays so"
        raise FederationError(
            f"{len(refused)} of {counted(len(options.request), 'request')} are not admitted, see above", hint
        )
    return 0


def _posted(path: Path, post: Path | None) -> Path:
    """Copy a file to where others find it, and return that place; its own if there is none."""
    if post is None:
        return path
    replace_file(post / path.name, path.read_bytes())
    return post / path.name


def _push(options: argparse.Namespace, notes: Console) -> int:
    with opened(options.federation) as authority:
        for directory in options.directory:
            added = push(authority, directory)
            _say(f"{directory / LOG}: version {len(authority.log)}, {added} new")
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
            _say(f"{signed.message.version:>5}  {when(signed.message.made_at)}  {signed.message.change}")
        for member in authority.membership.members:
            _say(f"{member.role:<10}  {member.name:<20}  {member.jurisdiction or '-':<6}  {member.key}")
    return 0


def _join(options: argparse.Namespace, notes: Console) -> int:
    if options.renew == (options.file is not None):
        raise AnalystError("give either the file that the authority sent, or --renew", "see `consilo join --help`")
    joined = renew(options.out) if options.renew else join(options.file, options.out, options.address, utc_now())
    for line in _next(joined, options.out):
        _say(line)
    if joined.request is not None and options.post is not None:
        _say(f"copied to {_posted(joined.request, options.post)}")
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
    if options.admission is not None:
        install(options.admission, options.home, utc_now())
    # Another program: this package never imports the aggregator.
    command = [sys.executable, "-P", "-m", "aggregator", "serve", str(options.home), "--listen", options.listen]
    command += ["--monitor-port", str(options.monitor_port)]
    command += ["--keep-reports", str(options.keep_reports), "--reports-gib", str(options.reports_gib)]
    command += ["--keep-contributions", str(options.keep_contributions)]
    command += ["--contributions-gib", str(options.contributions_gib)]
    command += ["--megabytes-per-second", str(options.megabytes_per_second)]
    command += [] if options.ray is None else ["--ray", options.ray]
    command += [] if options.ray_tls is None else ["--ray-tls", str(options.ray_tls)]
    command += [f"--node-address={options.node_address}"] if options.node_address else []
    command += [] if options.shards is None else ["--shards", str(options.shards)]
    command += [] if options.probes is None else ["--probes", options.probes]
    if not options.wait:
        os.execv(sys.executable, command)  # noqa: S606
    process = background.start(options.home, command, options.monitor_port, WAIT_S)
    log = options.home / background.LOG
    _say(f"the aggregator listens on {options.listen}, as process {process}; its log is {log}")
    _say(f"to stop it: kill {process}")
    return 0


def _keep(options: argparse.Namespace, notes: Console) -> int:
    # Another program: this package never imports the aggregator.
    command = [
        sys.executable,
        "-P",
        "-m",
        "aggregator",
        options.keeping,
        str(options.source),
        "--out",
        str(options.out),
    ]
    if options.passphrase_file is not None:
        command += ["--passphrase-file", str(options.passphrase_file)]
    os.execv(sys.executable, command)  # noqa: S606


def _say(line: str) -> None:
    Console(highlight=False, markup=False, soft_wrap=True).print(line)
