"""`consilo-silo put-in-force`: turn a policy into the next version in production, with its signers and signatures.

It writes what people would write by hand: mode, version, the hash of the version before, who signs, and their keys.
Nothing is written unless the whole is in order, but the keys that it was told to make.
"""

import argparse
import os
import time
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from crypto.keys import Secret, SigningKey, VerifyKey, write_key_file
from federation.files import replace_file
from federation.members.credentials import hold
from federation.terminal import Commands, add_command
from policies.document.edit import edited, key_parts
from policies.document.load import PolicyFile, document_of, load
from policies.document.policy import Policy
from policies.document.signatures import (
    check_succession,
    in_words,
    quorums,
    read_signatures,
    signature,
    what_is_signed,
)
from policies.errors import PolicyError, PolicyFileError
from policies.units import UNDECLARED_S
from silo_node.doctor import enough_seconds
from silo_node.errors import SiloError
from silo_node.home import accepted_in, federation_of, write_signatures
from silo_node.owner.ledger_commands import person_key

_DRAFT = ".draft"


def add_commands(commands: Commands) -> None:
    """Add the command to the parser of `consilo-silo`."""
    text = "make a policy the next version in production: mode, version, signers and signatures in one step"
    force = partial(add_command, commands)("put-in-force", _put_in_force, text)
    force.add_argument("file", type=Path, metavar="FILE", help="the policy.toml in the silo's directory")
    text = "who signs it: a key file signs now; a verification key (ed25519:...) names who signs later; repeat it"
    force.add_argument("--signer", action="append", default=[], type=_named, metavar="NAME=KEY", help=text)
    text = "make the key files of --signer that are not there (mode 0600, without a passphrase)"
    force.add_argument("--make-keys", action="store_true", help=text)
    text = "how many of the signers must sign; default: as the policy says, else 1"
    force.add_argument("--need", type=int, metavar="N", help=text)
    force.add_argument("--federation", metavar="NAME", help="the one it is for; default: as silo.toml beside FILE says")
    text = "set a key of the policy too, such as protection.max_missing=0; repeat it"
    force.add_argument("--set", action="append", default=[], type=_named, metavar="KEY=VALUE", help=text)


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name.strip() and equals and value.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name.strip(), value.strip()


def _put_in_force(options: argparse.Namespace) -> int:
    path: Path = options.file
    accepted = accepted_in(path.resolve().parent)
    if not path.is_file():
        raise SiloError(f"there is no policy {path}", "draft one with `consilo-silo init`")
    federation = federation_of(path.resolve().parent, options.federation)
    secrets, public = _keys(options.signer, options.make_keys)
    document_of(path.read_bytes(), str(path))
    text = path.read_text()
    changes = {_path(key): _value(value) for key, value in options.set}
    changes |= _changes(text, accepted, public, options.need)
    text, told = _timed(path, edited(text, changes, str(path)))
    file, signatures = _signed(path, federation, text, accepted, secrets)
    found = quorums(file, federation, signatures, accepted)
    head = file.policy.policy
    if secrets:
        print("\n".join(what_is_signed(file, accepted)))
    if told:
        print(told)
    print(f"{path}: version {head.version if head else 0}, mode {file.policy.mode} (sha256 {file.digest.hex()})")
    print("\n".join(in_words(found)))
    if not all(quorum.is_met for quorum in found):
        print(f"then others sign, each with a key of their own: consilo-silo sign-policy {path} --key KEY --as NAME")
    elif (lock := hold(path.resolve().parent / "silo.lock")) is None:
        print("the silo runs under the version before: restart it, and what waits is judged anew by this one")
    else:
        lock.close()
        print(f"next: consilo-silo serve --policy {path}")
    return 0


def _keys(signers: list[tuple[str, str]], is_making: bool) -> tuple[Mapping[str, SigningKey], Mapping[str, VerifyKey]]:
    """Return the keys that sign now, and the verification keys of all signers, by name."""
    secrets: dict[str, SigningKey] = {}
    public: dict[str, VerifyKey] = {}
    for name, key in signers:
        if name in public:
            raise SiloError(f"--signer names {name!r} twice", "give each person one key")
        if key.startswith("ed25519:"):
            public[name] = VerifyKey.parse(key)
        else:
            if is_making and not os.path.lexists(key):
                write_key_file(Path(key), Secret.generate())
            secrets[name] = person_key(Path(key))
            public[name] = secrets[name].public
    return secrets, public


def _changes(
    text: str, accepted: PolicyFile | None, public: Mapping[str, VerifyKey], need: int | None
) -> dict[tuple[str, ...], Any]:
    """Return what makes this text the version after the one in force, signed by these people."""
    document: Mapping[str, Any] = tomllib.loads(text)
    head = document.get("policy", {})
    changes: dict[tuple[str, ...], Any] = {("mode",): "production"}
    if accepted is not None and accepted.policy.policy is not None:
        changes["policy", "version"] = accepted.policy.policy.version + 1
        changes["policy", "previous"] = f"sha256:{accepted.digest.hex()}"
    elif isinstance(head, dict) and "previous" not in head:
        changes["policy", "version"] = 1
    declared = head.get("signed_by", {}) if isinstance(head, dict) else {}
    of = list(dict.fromkeys((*declared.get("of", ()), *public)))
    if not of:
        raise SiloError("nobody signs this policy", "name who does: --signer NAME=KEYFILE")
    changes["policy", "signed_by"] = {"need": need or declared.get("need", 1), "of": of}
    people = document.get("people", {})
    for name, key in public.items():
        known = people.get(name, {}).get("key") if isinstance(people.get(name, {}), dict) else None
        if known not in (None, str(key)):
            raise SiloError(f"the policy has another key of {name!r}: {known}", "sign with that key, or mend [people]")
        if known is None:
            changes["people", name, "key"] = str(key)
    return changes


def _timed(path: Path, text: str) -> tuple[str, str]:
    """Return the policy with a time at which contributions leave, and what was added, in words, if it had none."""
    draft = path.with_name(path.name + _DRAFT)
    replace_file(draft, text.encode(), path.stat().st_mode & 0o777)
    try:
        policy = _loaded(draft, path).policy
    finally:
        draft.unlink(missing_ok=True)
    if policy.compute is not None and policy.compute.states_time:
        return text, ""
    key, value, why = _time_of(policy, path.resolve().parent)
    return edited(text, {("compute", key): value}, str(path)), f"added: compute.{key} = {value}: {why}"


def _signed(
    path: Path, federation: str, text: str, accepted: PolicyFile | None, secrets: Mapping[str, SigningKey]
) -> tuple[PolicyFile, tuple[bytes, ...]]:
    """Write the version and its signatures, or nothing; return them."""
    draft = path.with_name(path.name + _DRAFT)
    if accepted is not None and text.encode() == accepted.raw:
        raise SiloError("this version is in force already", "change something first")
    replace_file(draft, text.encode(), path.stat().st_mode & 0o777)
    try:
        file = _loaded(draft, path)
        if accepted is not None:
            check_succession(file, accepted)
        before = read_signatures(path) if path.read_bytes() == file.raw else ()
        made = [signature(file, federation, name, key, int(time.time())) for name, key in secrets.items()]
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    signatures = (*before, *made)
    write_signatures(path, signatures)
    return load(path), signatures


def _loaded(draft: Path, path: Path) -> PolicyFile:
    try:
        return load(draft)
    except PolicyFileError as err:
        raise PolicyFileError(err.message.replace(str(draft), str(path)), err.hint) from None


def _time_of(policy: Policy, home: Path) -> tuple[str, float, str]:
    """Return a key of [compute] that states when contributions leave, its value, and why it is this."""
    try:
        if (enough := enough_seconds(policy, home, int(time.time()))) is not None:
            why = "each contribution leaves then; twice the longest of the plans timed here"
            return "fixed_seconds", float(enough), why
        why = "nothing is open to be timed"
    except (SiloError, PolicyError) as err:
        why = f"no plan could be timed ({err.message}): with the rows in place, take it out and do this again"
    return (
        "seconds",
        UNDECLARED_S,
        f"each contribution leaves then; {why}; `consilo-silo doctor` proposes a shorter one",
    )


def _path(key: str) -> tuple[str, ...]:
    """Return the parts of a dotted key; raises SiloError."""
    parts = key_parts(key)
    if not parts:
        raise SiloError(f"--set {key!r} names no key", "write it as in protection.max_missing=0")
    return parts


def _value(text: str) -> Any:
    """Return a value as TOML reads it, else as a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
