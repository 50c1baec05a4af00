"""`consilo-silo model`: packed networks that silos are to train: add, list, show, approve, remove.

Trained models are `consilo-silo models`. An approval is a verdict that a person of [people] signs with their own key.
"""

import argparse
import time
from pathlib import Path

from crypto.errors import WireError
from federation.terminal import Commands, add_command, add_group, plain
from policies.decision.network_approvals import subject_of_network
from policies.document.load import load
from policies.document.policy import Policy
from policies.networks.names import digest_named
from policies.networks.packed import MAX_BYTES, Packed, decoded
from policies.requests.approval import StoredVerdict
from policies.units import when
from silo_node.errors import SiloError
from silo_node.graphs import words
from silo_node.graphs.kept import KeptNetworks
from silo_node.home import LEDGER, federation_of
from silo_node.ledger.store import LedgerStore
from silo_node.owner.ledger_commands import ledger_path, person_key, signer_of
from silo_node.owner.pending import Decision, check_person

_LEAST_DIGITS = 12


def add_graph_commands(commands: Commands) -> None:
    """Add the group `model`."""
    text = "packed networks that this silo may train, as analysts pack them; what was trained is in `models`"
    actions = add_group(commands, "model", text)
    add = add_command(actions, "add", _add, "keep a packed network here, checked; that alone approves nothing")
    add.add_argument("file", type=Path, metavar="FILE", help="the file, from `consilo model pack`")
    _policy(add)
    _policy(add_command(actions, "list", _list, "list the packed networks here, and who has approved each"))
    show = add_command(actions, "show", _show, "show a packed network: its layers, what it takes, what it could reveal")
    show.add_argument("network", metavar="FILE|HASH", help="a file, or a hash from `model list`, or its beginning")
    _policy(show)
    approve = add_command(actions, "approve", _approve, "sign that this silo may train a packed network that is here")
    approve.add_argument("network", metavar="HASH", help="its hash from `model list`, or its beginning")
    approve.add_argument("--as", dest="who", metavar="NAME", required=True, help="who you are in the policy's [people]")
    approve.add_argument("--key", type=Path, metavar="FILE", required=True, help="your key file")
    text = "sign that it may not be trained any more, whoever has approved it"
    approve.add_argument("--withdraw", action="store_true", help=text)
    _policy(approve)
    remove = add_command(actions, "remove", _remove, "remove a packed network's file; what people signed of it stays")
    remove.add_argument("network", metavar="HASH", help="its hash from `model list`, or its beginning")
    _policy(remove)


def _policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml of the silo")


def _opened(options: argparse.Namespace) -> tuple[Policy, KeptNetworks]:
    home = options.policy.resolve().parent
    return load(options.policy).policy, KeptNetworks(home, home / LEDGER)


def _add(options: argparse.Namespace) -> int:
    policy, kept = _opened(options)
    found = kept.add(_read(options.file))
    print(f"{found.name}  {words.brief(found.graph)}")
    allowed = None if policy.training is None else policy.training.networks
    if allowed is None or allowed.allow == "registered":
        print('the policy does not train packed networks: it needs [training.networks] allow = "approved"')
    print(f"to look at it: consilo-silo model show {found.name} --policy {options.policy}")
    return 0


def _list(options: argparse.Namespace) -> int:
    policy, kept = _opened(options)
    federation, found, now = federation_of(options.policy.resolve().parent), kept.listed(), int(time.time())
    for one in found:
        status = kept.status(policy, federation, one.name, now)
        said = [f"approved by {who}" for who in status.approved if not status.rejected]
        said += [f"withdrawn by {who}" for who in status.rejected]
        print(f"{one.name}  {', '.join(said) or 'approved by nobody'}")
        source = f"sent by an analyst, used {when(one.used_at)}" if one.is_sent else f"added {when(one.used_at)}"
        print(f"  {one.size:,} bytes, {source}")
        try:
            print(f"  {words.brief(kept.checked(one.name).graph)}")
        except SiloError as err:
            print(f"  damaged: {err.message}; {err.hint}")
    if not found:
        print("no packed network here")
    return 0


def _show(options: argparse.Namespace) -> int:
    policy, kept = _opened(options)
    found = _of_file(Path(options.network)) if Path(options.network).is_file() else _named(kept, options.network)
    print(found.name)
    for heading, lines in (
        ("computes", words.layers(found)),
        ("takes", words.taken(policy, found)),
        ("could reveal", words.reveals(found)),
    ):
        print(f"{heading}:")
        for line in lines:
            print(f"  {plain(line)}")
    return 0


def _approve(options: argparse.Namespace) -> int:
    policy, kept = _opened(options)
    key, now = person_key(options.key), int(time.time())
    check_person(policy, options.who, key)
    found = _named(kept, options.network)
    federation = federation_of(options.policy.resolve().parent)
    subject = subject_of_network(federation, found.name)
    decision: Decision = "reject" if options.withdraw else "approve"
    verdict = StoredVerdict.signed(options.who, key, policy.silo.id, subject, decision, now)
    store = LedgerStore(ledger_path(options.policy), signer_of(options.policy))
    try:
        kept.add_verdict(verdict, store.put_in_force)
    finally:
        store.close()
    status = kept.status(policy, federation, found.name, now)
    if options.withdraw:
        print(f"{options.who} has withdrawn {found.name}: it is not trained here any more")
    else:
        others = f", but {', '.join(status.rejected)} has withdrawn it" if status.rejected else ""
        print(f"{options.who} has approved {found.name}{others}")
    return 0


def _remove(options: argparse.Namespace) -> int:
    policy, kept = _opened(options)
    (name,) = _names(kept, options.network)
    kept.remove(name)
    print(f"{name} is removed")
    status = kept.status(policy, federation_of(options.policy.resolve().parent), name, int(time.time()))
    if status.is_given:
        again = "an analyst may send it again; `model approve --withdraw`, before it is removed, ends that"
        print(f"{', '.join(status.approved)} approved it: {again}")
    return 0


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise SiloError(f"there is no file {path}", "check the path")
    if path.stat().st_size > MAX_BYTES:
        raise WireError(f"{path} has {path.stat().st_size:,} bytes, at most {MAX_BYTES:,} are read")
    return path.read_bytes()


def _of_file(path: Path) -> Packed:
    return decoded(_read(path))


def _names(kept: KeptNetworks, named: str) -> tuple[str]:
    """Return the only name that begins so; raises SiloError."""
    digits = named.removeprefix("sha256:")
    hint = "take its whole hash from `consilo-silo model list`"
    if len(digits) < _LEAST_DIGITS:
        raise SiloError(f"a network is named by {_LEAST_DIGITS} digits or more, found {named[:80]!r}", hint)
    found = sorted({one.name for one in kept.listed() if one.name.removeprefix("sha256:").startswith(digits)})
    if len(found) != 1:
        raise SiloError(f"{len(found) or 'no'} packed networks here are named {named[:80]!r}", hint)
    digest_named(found[0])
    return (found[0],)


def _named(kept: KeptNetworks, named: str) -> Packed:
    (name,) = _names(kept, named)
    return kept.checked(name)
