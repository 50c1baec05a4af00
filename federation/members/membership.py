"""Who may connect to a federation: an append-only log of its authority's decisions.

Every change is a new signed version that names the SHA-256 of the version before. Promise: each party keeps the whole
log and accepts only extensions of it, so nobody can show it a roster that is older than, or differs from, one that it
has seen. A version contains one change and the signature of the resulting roster, so the log grows with the number of
changes, not of members. docs/federated.md describes every field.

    anchor = TrustAnchor("health", authority_key)
    log = extend_log(anchor, read_log(path, anchor), envelopes)
    member = log.membership.peer(certificate)
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, ClassVar, Self

from cryptography import x509
from pydantic import AfterValidator, Field, model_validator

from crypto.errors import CryptoError, MembershipError
from crypto.keys import SigningKey, VerifyKey
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import MAX_SILOS, Digest, Message, Name, Seconds, Signed, attach, detach, sign, verify
from federation.members.certificates import Identity, Role, identity_of, pin_of
from federation.members.roster import AUTHORITY, JurisdictionOrNone, Party, Roster, SiloParty
from federation.transport.address import dialled

LOG = "membership.log"
MAX_LOG_BYTES = 64 << 20
MAX_VERSIONS = 10_000
KEPT_VERSIONS = 1_000  # the last ones, for revocations only
MAX_AGGREGATORS = 8
MAX_MEMBERS = 4 * MAX_SILOS
_START = bytes(32)  # the hash that the first version names
_LENGTH_BYTES = 4

KeyText = Annotated[str, Field(max_length=72, pattern=r"^ed25519:[0-9a-f]{64}$")]
Sealing = Annotated[bytes, Field(max_length=PUBLIC_BYTES)]


def _address(text: str) -> str:
    try:
        return dialled(text) if text else text
    except CryptoError as err:
        raise ValueError(err.message) from err


Address = Annotated[str, Field(max_length=260), AfterValidator(_address)]


def check_role(role: Role, sealing: bytes, address: str) -> None:
    """Raise ValueError unless a member has the keys and the address of its role, and no others."""
    has_sealing, has_address = role == "silo", role == "aggregator"
    if len(sealing) != (PUBLIC_BYTES if has_sealing else 0) or bool(address) != has_address:
        raise ValueError("a silo has a sealing key, an aggregator an address, and nobody else either")


class Member(Message):
    """One organisation in one role."""

    name: Name
    role: Role
    key: KeyText  # verifies its signatures
    sealing: Sealing  # of a silo: messages that only it may open are sealed to this key
    address: Address  # of an aggregator: the address that others dial
    pins: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=2)]  # of its transport keys, the newest first
    jurisdiction: JurisdictionOrNone = None  # of a silo or an aggregator, as the authority states it

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_role(self.role, self.sealing, self.address)
        if self.role == "analyst" and self.jurisdiction is not None:
            raise ValueError("an analyst's jurisdiction is set in each policy")
        return self


class Change(Message):
    """One version of the membership, signed by the authority: one member admitted, changed or removed."""

    KIND: ClassVar[str] = "membership"
    MAX_BYTES: ClassVar[int] = 4096  # ten thousand of them fit into a log and into an admission
    federation: Name
    version: Annotated[int, Field(ge=1, le=MAX_VERSIONS)]
    previous: Digest
    made_at: Seconds
    change: Annotated[str, Field(max_length=300)]
    member: Member | None  # replaces the member of that name
    removed: Name | None
    roster: Annotated[bytes, Field(max_length=64)]  # the authority's signature; empty before there is one

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.member is not None) + (self.removed is not None) != (self.version > 1):
            raise ValueError("every version but the first lists one member or removes one")
        return self


@dataclass(frozen=True, slots=True)
class Membership:
    """The members of a federation after all changes up to a version."""

    federation: str
    version: int = 0
    made_at: int = 0
    members: tuple[Member, ...] = ()  # by name
    revoked: frozenset[bytes] = frozenset()  # pins and identity keys that are never valid again
    roster: bytes = b""  # the signed `Roster` of silos and aggregators; empty before there are both

    def of_role(self, role: Role) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.role == role)

    def find(self, name: str) -> Member:
        """Return the member of that name; raises MembershipError."""
        for member in self.members:
            if member.name == name:
                return member
        known = ", ".join(member.name for member in self.members) or "nobody"
        raise MembershipError(f"{name!r} is no member of {self.federation}", f"members: {known}")

    def peer(self, certificate: x509.Certificate) -> Member:
        """Return the member whose certificate this is; raises MembershipError.

        The TLS handshake has proved that the peer has its private key and that the authority issued it.
        """
        identity, pin = identity_of(certificate), pin_of(certificate.public_key())
        if pin in self.revoked:
            raise MembershipError(f"the certificate of {identity.uri} is revoked", "ask the authority for a new one")
        for member in self.members:
            if Identity(self.federation, member.role, member.name) == identity:
                if pin not in member.pins:
                    break
                return member
        message = f"{identity.uri} is not a member with this certificate in version {self.version} of the membership"
        hint = "ask the authority to admit it, or give the aggregator the newest membership.log"
        raise MembershipError(message, hint)


@dataclass(frozen=True, slots=True)
class TrustAnchor:
    """What a party trusts first: the name of its federation and the key that signs the federation's log."""

    federation: str
    authority: VerifyKey


@dataclass(frozen=True, slots=True)
class MembershipLog:
    """All versions, in order, and the resulting membership."""

    versions: tuple[Signed[Change], ...]
    membership: Membership

    def __len__(self) -> int:
        return len(self.versions)

    @classmethod
    def empty(cls, anchor: TrustAnchor) -> "MembershipLog":
        return cls((), Membership(anchor.federation))


def extend_log(anchor: TrustAnchor, log: MembershipLog, envelopes: Iterable[bytes]) -> MembershipLog:
    """Return `log` extended by `envelopes`; versions that it has already are skipped.

    Raises MembershipError on a version that does not extend it: an older one, a gap, another history, or a change that
    contradicts the changes before it. Only the newest roster's signature is checked, as no other roster is used.
    """
    versions, state = list(log.versions), MembershipState(log.membership)
    known = {one.envelope for one in versions}
    for envelope in envelopes:
        if envelope in known:
            continue
        signed = verify(envelope, Change, {AUTHORITY: anchor.authority})
        one = signed.message
        if one.federation != anchor.federation:
            raise MembershipError(f"a membership of {one.federation!r}, expected {anchor.federation!r}")
        if one.version <= len(versions):
            raise MembershipError(
                f"version {one.version} of the membership differs from the one known here",
                "the authority, or who has its key, tells two stories: compare the logs before going on",
            )
        if one.version != len(versions) + 1 or one.previous != _digest_of(versions):
            raise MembershipError(f"version {one.version} of the membership does not follow version {len(versions)}")
        state.apply(one)
        versions.append(signed)
        known.add(envelope)
    if len(versions) == len(log):
        return log
    membership, signature = state.membership(versions[-1].message), versions[-1].message.roster
    listed = _listed(membership)
    roster = attach(listed, AUTHORITY, signature) if listed is not None else signature
    try:
        if roster:
            verify(roster, Roster, {AUTHORITY: anchor.authority})
    except CryptoError as err:
        message = f"version {len(versions)} of the membership does not sign the roster that follows from it"
        raise MembershipError(message, "ask the authority for the log anew") from err
    return MembershipLog(tuple(versions), replace(membership, roster=roster))


def _digest_of(versions: Sequence[Signed[Change]]) -> bytes:
    return sha256(versions[-1].envelope).digest() if versions else _START


class MembershipState:
    """The membership while changes are applied one by one; the cost of a change does not grow with their number."""

    def __init__(self, before: Membership) -> None:
        self._members = {one.name: one for one in before.members}
        self._taken = {key for one in before.members for key in _keys(one)} | before.revoked
        self._roles: Counter[str] = Counter(one.role for one in before.members)
        self._revoked = set(before.revoked)

    def apply(self, change: Change) -> None:
        """Apply a change; raises MembershipError if it contradicts the members before it.

        1. Only a member is removed. 2. No key or pin belongs to another member or was revoked. 3. There is room.
        A key or pin that a member loses is revoked.
        """
        new = change.member
        name = change.removed if new is None else new.name
        old = self._members.pop(name, None) if name is not None else None
        held = set(_keys(old)) if old is not None else set[bytes]()
        if old is not None:
            self._roles[old.role] -= 1
        # 1.
        elif change.removed is not None:
            raise MembershipError(f"version {change.version} of the membership removes {name!r}, who is no member")
        if new is None:
            self._revoked |= held
            return
        # 2.
        keys = _keys(new)
        if len(set(keys)) != len(keys) or any(key in self._taken and key not in held for key in keys):
            hint = "let it make new ones, and ask again"
            raise MembershipError(f"a key of {name!r} is another member's, or was revoked", hint)
        self._members[new.name] = new
        self._taken.update(keys)
        self._roles[new.role] += 1
        self._revoked |= held.difference(keys)
        # 3.
        for role, most in (("silo", MAX_SILOS), ("aggregator", MAX_AGGREGATORS)):
            if self._roles[role] > most:
                raise MembershipError(f"a federation has at most {most} members as {role}", "revoke one first")
        if len(self._members) > MAX_MEMBERS:
            raise MembershipError(f"a federation has at most {MAX_MEMBERS} members", "revoke one first")

    def membership(self, last: Change) -> Membership:
        """Return the membership after the last applied change."""
        members = tuple(sorted(self._members.values(), key=lambda one: one.name))
        return Membership(last.federation, last.version, last.made_at, members, frozenset(self._revoked))


def _keys(member: Member) -> list[bytes]:
    """Return the pins and the identity key of a member; once removed, none of them is listed again."""
    return [*member.pins, member.key.encode()]


def _listed(membership: Membership) -> Roster | None:
    """Return the roster that follows from a membership; None before there are silos and aggregators."""
    silos, aggregators = membership.of_role("silo"), membership.of_role("aggregator")
    if not silos or not aggregators:
        return None
    return Roster(
        federation=membership.federation,
        version=membership.version,
        silos=tuple(
            SiloParty(name=one.name, key=one.key, sealing=one.sealing, jurisdiction=one.jurisdiction) for one in silos
        ),
        aggregators=tuple(Party(name=one.name, key=one.key, jurisdiction=one.jurisdiction) for one in aggregators),
    )


def read_log(path: Path, anchor: TrustAnchor) -> MembershipLog:
    """Return the checked log of a file; raises CryptoError if it is absent, cut short or not one chain."""
    if not (log := extend_log(anchor, MembershipLog.empty(anchor), read_versions(path))):
        raise MembershipError(f"{path} is empty", "restore it; the authority and every member have it")
    return log


def read_versions(path: Path) -> list[bytes]:
    """Return the envelopes of a log's file, unchecked; raises MembershipError if it is absent or cut short."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LOG_BYTES + 1)
    except OSError as err:
        hint = "it comes with the admission, see `consilo join`; a lost one is copied from any other member"
        raise MembershipError(f"cannot read the membership log {path}", hint) from err
    if len(data) > MAX_LOG_BYTES:
        raise MembershipError(f"{path} is larger than {MAX_LOG_BYTES >> 20} MiB")
    envelopes, position = [], 0
    while position < len(data):
        start = position + _LENGTH_BYTES
        end = start + int.from_bytes(data[position:start], "big")
        if end > len(data):
            raise MembershipError(f"{path} is cut short", "restore it; the authority and every member have it")
        envelopes.append(data[start:end])
        position = end
    return envelopes


def append(path: Path, log: MembershipLog, known: int) -> None:
    """Append the versions of `log` after the first `known` to the file, durably, or leave the file as it was."""
    data = b"".join(len(one.envelope).to_bytes(_LENGTH_BYTES, "big") + one.envelope for one in log.versions[known:])
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    with os.fdopen(handle, "ab", buffering=0) as file:
        before = os.fstat(handle).st_size
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(handle)
        except BaseException:
            os.ftruncate(handle, before)  # a part of a version would make the whole log unreadable
            raise


def next_version(
    anchor: TrustAnchor, log: MembershipLog, key: SigningKey, change: str, now: int, who: Member | str | None
) -> MembershipLog:
    """Return `log` with one more version, signed by the authority's key; raises CryptoError.

    A member `who` is listed, a name is removed, and None founds the federation.
    """
    version = len(log) + 1
    most = MAX_VERSIONS - (KEPT_VERSIONS if isinstance(who, Member) and not _only_revokes(log.membership, who) else 0)
    if version > most:
        hint = f"the last {KEPT_VERSIONS} are kept for revocations: found the federation anew"
        raise MembershipError(f"the membership has {len(log)} versions, which is as many as a log takes", hint)
    made = Change(
        federation=anchor.federation,
        version=version,
        previous=_digest_of(log.versions),
        made_at=now,
        change=change,
        member=who if isinstance(who, Member) else None,
        removed=who if isinstance(who, str) else None,
        roster=b"",
    )
    state = MembershipState(log.membership)
    state.apply(made)
    if (listed := _listed(state.membership(made))) is not None:
        made = made.model_copy(update={"roster": detach(sign(listed, AUTHORITY, key), Roster).signature})
    return extend_log(anchor, log, [sign(made, AUTHORITY, key)])


def _only_revokes(before: Membership, after: Member) -> bool:
    """Return whether this change only takes a pin from a member that is listed already."""
    fewer = (one for one in before.members if set(after.pins) < set(one.pins))
    return any(one.model_copy(update={"pins": after.pins}) == after for one in fewer)
