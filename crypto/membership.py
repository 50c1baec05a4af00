"""Who may connect to a federation: an append-only log of its authority's decisions, and how one becomes a member.

Every change is a new signed version that names the SHA-256 of the one before. Each party keeps the whole log and takes
only what continues it, so nobody can be shown an older roster, or a different one, than it has already seen.

    authority: Invitation --> organisation: keys, JoinRequest --> authority: Membership n + 1, Admission

An invitation's code proves a join request once; a certificate request travels and a private key never does.
docs/federated.md describes every field.
"""

import base64
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Annotated, ClassVar, Self

from cryptography import x509
from pydantic import Field, model_validator

from crypto.certificates import Identity, Role, identity_of, pin_of
from crypto.errors import MembershipError, WireError
from crypto.keys import SigningKey, VerifyKey, derive
from crypto.roster import AUTHORITY, Party, PlaceOrNone, Roster, SiloParty
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import MAX_SILOS, Digest, Message, Name, Seconds, Signed, sign, unverified, verify

LOG = "membership.log"
CODE_BYTES = 16
MAX_LOG_BYTES = 64 << 20
MAX_VERSIONS = 10_000
_START = bytes(32)  # what the first version follows
_LENGTH_BYTES = 4

KeyText = Annotated[str, Field(max_length=72, pattern=r"^ed25519:[0-9a-f]{64}$")]
Address = Annotated[str, Field(max_length=260, pattern=r"^$|^[A-Za-z0-9.:\[\]_-]+:[0-9]{1,5}$")]
Sealing = Annotated[bytes, Field(max_length=PUBLIC_BYTES)]


class Member(Message):
    """One organisation in one role."""

    name: Name
    role: Role
    key: KeyText  # what it signs with
    sealing: Sealing  # of a silo; what it alone may open is sealed to it
    address: Address  # of an aggregator: where it is dialled
    pins: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=2)]  # of its transport keys, the newest first
    jurisdiction: PlaceOrNone = None  # of a silo or an aggregator, as the authority has found it

    @model_validator(mode="after")
    def _check(self) -> Self:
        is_silo, is_aggregator = self.role == "silo", self.role == "aggregator"
        if len(self.sealing) != (PUBLIC_BYTES if is_silo else 0) or bool(self.address) != is_aggregator:
            raise ValueError("a silo has a sealing key, an aggregator an address, and nobody else either")
        if self.role == "analyst" and self.jurisdiction is not None:
            raise ValueError("where an analyst is, each policy says")
        return self


class Membership(Message):
    """One version of who belongs to the federation, signed by its authority."""

    KIND: ClassVar[str] = "membership"
    MAX_BYTES: ClassVar[int] = 1 << 20
    federation: Name
    version: Annotated[int, Field(ge=1, le=MAX_VERSIONS)]
    previous: Digest
    made_at: Seconds
    change: Annotated[str, Field(max_length=300)]
    members: Annotated[tuple[Member, ...], Field(max_length=4 * MAX_SILOS)]
    revoked: Annotated[tuple[Digest, ...], Field(max_length=2000)]  # pins that stood once
    roster: bytes  # the signed roster of silos and aggregators; empty before there are both

    @model_validator(mode="after")
    def _check(self) -> Self:
        pins = [pin for member in self.members for pin in member.pins]
        names = [member.name for member in self.members]
        keys = [member.key for member in self.members]
        if any(len(set(one)) != len(one) for one in (pins, names, keys)) or set(pins) & set(self.revoked):
            raise ValueError("a name, a key or a pin stands twice, or stands and is revoked")
        return self

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
        raise MembershipError(f"{identity.uri} is not a member with this certificate", "ask the authority to admit it")


class Invitation(Message):
    """Authority to an organisation: join under this name and role, once, until then."""

    KIND: ClassVar[str] = "invitation"
    MAX_BYTES: ClassVar[int] = 256 * 1024
    federation: Name
    name: Name
    role: Role
    authority: KeyText
    certificates: Annotated[bytes, Field(max_length=64 * 1024)]  # of the X.509 authority, in PEM
    code: Annotated[bytes, Field(min_length=CODE_BYTES, max_length=CODE_BYTES, repr=False)]
    expires_at: Seconds
    jurisdiction: PlaceOrNone = None


class JoinRequest(Message):
    """An organisation to the authority, signed by its new identity key: my public keys and a certificate request."""

    KIND: ClassVar[str] = "join"
    federation: Name
    name: Name
    role: Role
    key: KeyText
    sealing: Sealing
    address: Address
    request: Annotated[bytes, Field(max_length=16 * 1024)]  # PKCS #10, in DER
    proof: Annotated[bytes, Field(max_length=32)]  # of the invitation's code; empty when a member rotates

    def proof_by(self, code: bytes) -> bytes:
        """Return what `proof` must be for the holder of `code`: it binds the code to every other field."""
        return derive(code, "join", self.model_copy(update={"proof": b""}).encode())


class Admission(Message):
    """Authority to an organisation: its certificate, and the log up to its admission."""

    KIND: ClassVar[str] = "admission"
    MAX_BYTES: ClassVar[int] = 32 << 20
    federation: Name
    name: Name
    certificate: Annotated[bytes, Field(max_length=64 * 1024)]  # in PEM, with intermediates if there are any
    log: Annotated[tuple[bytes, ...], Field(min_length=1, max_length=MAX_VERSIONS)]


Log = tuple[Signed[Membership], ...]


@dataclass(frozen=True, slots=True)
class Keeper:
    """The authority's two names: what the log is signed with, and of which federation it is."""

    federation: str
    authority: VerifyKey


def follow(keeper: Keeper, log: Log, envelopes: Iterable[bytes]) -> Log:
    """Return `log` continued by `envelopes`; those it has already are passed over.

    Raises MembershipError on a version that does not continue it: an older one, a gap, or another history.
    """
    for envelope in envelopes:
        signed = verify(envelope, Membership, {AUTHORITY: keeper.authority})
        one = signed.message
        if one.federation != keeper.federation:
            raise MembershipError(f"a membership of {one.federation!r}, expected {keeper.federation!r}")
        if one.version <= len(log):
            if log[one.version - 1].envelope != envelope:
                raise MembershipError(
                    f"version {one.version} of the membership differs from the one known here",
                    "the authority, or who has its key, tells two stories: compare the logs before going on",
                )
            continue
        before = sha256(log[-1].envelope).digest() if log else _START
        if one.version != len(log) + 1 or one.previous != before:
            raise MembershipError(f"version {one.version} of the membership does not follow version {len(log)}")
        if one.roster and _members_of(verify(one.roster, Roster, {AUTHORITY: keeper.authority}).message) != {
            (member.name, member.key, member.sealing, member.jurisdiction)
            for member in one.members
            if member.role != "analyst"
        }:
            raise MembershipError(f"version {one.version} of the membership and its roster name different parties")
        log = (*log, signed)
    return log


def read_log(path: Path, keeper: Keeper) -> Log:
    """Return the checked log of a file; raises CryptoError if it is absent, cut short or not one chain."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LOG_BYTES + 1)
    except OSError as err:
        raise MembershipError(f"cannot read the membership log {path}", "restore it, or join anew") from err
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
    if not (log := follow(keeper, (), envelopes)):
        raise MembershipError(f"{path} is empty", "restore it; the authority and every member have it")
    return log


def append(path: Path, log: Log, known: int) -> None:
    """Write the versions of `log` after the first `known` to the end of the file, durably, or leave it as it was."""
    data = b"".join(len(one.envelope).to_bytes(_LENGTH_BYTES, "big") + one.envelope for one in log[known:])
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    with os.fdopen(handle, "ab", buffering=0) as file:
        before = os.fstat(handle).st_size
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, before)  # a part of a version would make the whole log unreadable
            raise


def next_version(
    keeper: Keeper,
    log: Log,
    key: SigningKey,
    members: Sequence[Member],
    revoked: Sequence[bytes],
    change: str,
    now: int,
) -> Log:
    """Return `log` with one more version, signed by the authority's key; raises CryptoError."""
    version = len(log) + 1
    silos = sorted((one for one in members if one.role == "silo"), key=lambda one: one.name)
    aggregators = sorted((one for one in members if one.role == "aggregator"), key=lambda one: one.name)
    roster = b""
    if silos and aggregators:
        listed = Roster(
            federation=keeper.federation,
            version=version,
            silos=tuple(
                SiloParty(name=one.name, key=one.key, sealing=one.sealing, jurisdiction=one.jurisdiction)
                for one in silos
            ),
            aggregators=tuple(Party(name=one.name, key=one.key, jurisdiction=one.jurisdiction) for one in aggregators),
        )
        roster = sign(listed, AUTHORITY, key)
    membership = Membership(
        federation=keeper.federation,
        version=version,
        previous=sha256(log[-1].envelope).digest() if log else _START,
        made_at=now,
        change=change,
        members=tuple(sorted(members, key=lambda one: one.name)),
        revoked=tuple(revoked),
        roster=roster,
    )
    return follow(keeper, log, [sign(membership, AUTHORITY, key)])


def check_join(signed: Signed[JoinRequest], code: bytes) -> None:
    """Raise MembershipError unless the holder of an invitation's `code` made this very request."""
    if not compare_digest(signed.message.proof, signed.message.proof_by(code)):
        raise MembershipError("the request does not prove the invitation's code", "invite the organisation anew")


def read_join(envelope: bytes) -> Signed[JoinRequest]:
    """Return a join request whose signature by the key that it states holds; raises CryptoError."""
    claimed = unverified(envelope, JoinRequest)
    return verify(envelope, JoinRequest, {claimed.name: VerifyKey.parse(claimed.key)})


def read_invitation(envelope: bytes) -> Invitation:
    """Return an invitation signed by the authority that it names; whether that is the right one, a person compares."""
    claimed = unverified(envelope, Invitation)
    return verify(envelope, Invitation, {AUTHORITY: VerifyKey.parse(claimed.authority)}).message


def armour(kind: type[Message], envelope: bytes) -> str:
    """Return an envelope as text that survives being mailed."""
    text = base64.b64encode(envelope).decode()
    lines = (text[start : start + 76] for start in range(0, len(text), 76))
    return (
        f"-----BEGIN CONSILO {kind.KIND.upper()}-----\n"
        + "\n".join(lines)
        + f"\n-----END CONSILO {kind.KIND.upper()}-----\n"
    )


def disarm(path: Path, *kinds: type[Message]) -> tuple[type[Message], bytes]:
    """Return what a text file of `armour` holds, and which of `kinds` it says it is; raises WireError."""
    most = max(kind.MAX_BYTES for kind in kinds) * 2
    try:
        with path.open("rb") as file:
            text = file.read(most + 1).decode("ascii")
    except OSError as err:
        raise WireError(f"cannot read {path}", "name the file that you were sent") from err
    except UnicodeDecodeError:
        text = ""
    lines = text.split()
    joined = " ".join(lines)
    for kind in kinds:
        head, foot = f"-----BEGIN CONSILO {kind.KIND.upper()}-----", f"-----END CONSILO {kind.KIND.upper()}-----"
        if joined.startswith(head) and joined.endswith(foot):
            try:
                return kind, base64.b64decode("".join(joined[len(head) : -len(foot)].split()), validate=True)
            except ValueError:
                break
    expected = " or ".join(kind.KIND for kind in kinds)
    raise WireError(f"{path} is not a consilo {expected} file", "ask for it to be sent again, unchanged")


def _members_of(roster: Roster) -> set[tuple[str, str, bytes, str | None]]:
    silos = {(silo.name, silo.key, silo.sealing, silo.jurisdiction) for silo in roster.silos}
    return silos | {(party.name, party.key, b"", party.jurisdiction) for party in roster.aggregators}
