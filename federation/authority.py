"""The authority of a federation: founds it, invites, admits, revokes and rotates; every change is one signed version.

The authority's directory holds `consilo.toml`, `authority.key` (the key that signs the membership), the X.509
authority (`authority.pem`, and `authority-tls.key` unless a consortium's own authority issues the certificates),
`membership.log`, and the open invitations. It is needed for changes only, so it may be kept offline.
"""

import fcntl
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from crypto.errors import CertificateError
from crypto.keys import Secret, SigningKey, read_key_file, write_key_file
from crypto.randomness import token
from crypto.sealing import check_public
from crypto.wire import JURISDICTION_PATTERN, check_name, sign, verify
from federation.config import read_trust_anchor
from federation.directory import made_or_undone
from federation.errors import FederationError
from federation.files import replace_file
from federation.members.admission import (
    CODE_BYTES,
    Admission,
    Invitation,
    JoinRequest,
    check_join,
    from_armor,
    read_invitation,
    read_join,
    to_armor,
)
from federation.members.certificates import (
    MEMBER_DAYS,
    Identity,
    Role,
    check_issued,
    host_of,
    issue,
    new_authority,
    new_transport_key,
    only_certificates,
    read_authority,
    read_certificate,
    read_certificate_request,
    read_transport_key,
)
from federation.members.credentials import AUTHORITY_CERTIFICATE, ROSTER
from federation.members.membership import (
    LOG,
    Member,
    Membership,
    MembershipLog,
    TrustAnchor,
    append,
    next_version,
    read_log,
    read_versions,
)
from federation.members.roster import AUTHORITY

AUTHORITY_KEY, AUTHORITY_TLS_KEY, INVITATIONS = "authority.key", "authority-tls.key", "invitations"
FEDERATION_SETTINGS = "consilo.toml"


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority's directory, opened for one change."""

    path: Path
    anchor: TrustAnchor
    signing: SigningKey
    log: MembershipLog

    @property
    def membership(self) -> Membership:
        return self.log.membership

    def next(self, who: Member | str, change: str, now: datetime) -> MembershipLog:
        """Return the log with the next version; nothing is written. Raises CryptoError beyond what a log may hold."""
        return next_version(self.anchor, self.log, self.signing, change, int(now.timestamp()), who)

    def write(self, log: MembershipLog) -> MembershipLog:
        """Append the new versions of `log` to the file, durably, and return `log`."""
        append(self.path / LOG, log, len(self.log))
        if log.membership.roster:
            replace_file(self.path / ROSTER, log.membership.roster)
        return log


def found_federation(path: Path, federation: str, consortium: Path | None, now: datetime) -> SigningKey:
    """Make an authority's directory; raises FederationError, CryptoError or OSError, and then leaves nothing behind.

    `consortium` is the certificate of an existing X.509 authority that issues the members' certificates.
    """
    check_name(federation, "a federation")
    certificate = None if consortium is None else read_authority(_read(consortium), now)
    root = Secret.generate()
    signing = SigningKey(root)
    anchor = TrustAnchor(federation, signing.public)
    log = next_version(anchor, MembershipLog.empty(anchor), signing, "found", int(now.timestamp()), None)
    with made_or_undone(path):
        if any(path.iterdir()):
            raise FederationError(f"{path} is not empty", "name a directory that is not there yet")
        if certificate is None:
            certificate = new_authority(new_transport_key(path / AUTHORITY_TLS_KEY), federation, now)
        replace_file(path / AUTHORITY_CERTIFICATE, certificate)
        write_key_file(path / AUTHORITY_KEY, root)
        (path / INVITATIONS).mkdir(mode=0o700)
        append(path / LOG, log, 0)
        settings = f'mode = "federated"\nfederation = "{federation}"\nauthority = "{signing.public}"\n'
        replace_file(path / FEDERATION_SETTINGS, f'schema = "consilo/1"\n{settings}'.encode())
    return signing


@contextmanager
def opened(path: Path) -> Iterator[Authority]:
    """Open the directory of `consilo.toml` for one change, one process at a time; raises FederationError."""
    anchor, home = read_trust_anchor(path), path.resolve().parent
    signing = SigningKey(read_key_file(home / AUTHORITY_KEY))
    if signing.public != anchor.authority:
        raise FederationError(f"{home / AUTHORITY_KEY} is not the key that {path} names", "restore it")
    with (home / LOG).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            raise FederationError("the membership is being changed by another command", "try again") from err
        yield Authority(home, anchor, signing, read_log(home / LOG, anchor))


def invite(
    authority: Authority, name: str, role: Role, days: int, now: datetime, jurisdiction: str | None = None
) -> Path:
    """Write an invitation for one organisation and return its path; raises FederationError if it is a member.

    `jurisdiction` is that of a silo or an aggregator; without one, a purpose that is limited to jurisdictions excludes
    the member.
    """
    _check_guest(authority, Guest(name, role, jurisdiction))
    invitation = Invitation(
        federation=authority.anchor.federation,
        name=name,
        role=role,
        authority=str(authority.anchor.authority),
        certificates=(authority.path / AUTHORITY_CERTIFICATE).read_bytes(),
        code=token(CODE_BYTES),
        expires_at=int((now + timedelta(days=days)).timestamp()),
        jurisdiction=jurisdiction,
    )
    path = _place(authority, name, "invitation")
    envelope = sign(invitation, AUTHORITY, authority.signing)
    replace_file(path, to_armor(Invitation, envelope).encode(), 0o600)
    return path


@dataclass(frozen=True, slots=True)
class Guest:
    """Who is to be invited, and as what."""

    name: str
    role: Role
    jurisdiction: str | None = None


_TABLES: Mapping[str, Role] = {"silos": "silo", "aggregators": "aggregator", "analysts": "analyst"}


def guests_in(path: Path) -> list[Guest]:
    """Return the guests that a file of members names, each with its role; raises FederationError."""
    hint = 'write [silos], [aggregators] and [analysts], each with lines such as aspen = "NO", or ana = ""'
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, ValueError) as err:
        raise FederationError(f"{path} cannot be read ({err})", hint) from err
    found: list[Guest] = []
    for table, members in document.items():
        if table not in _TABLES or not isinstance(members, dict):
            raise FederationError(f"{path}: {table!r} is no table of members", hint)
        for name, place in members.items():
            is_place = isinstance(place, str) and (not place or re.fullmatch(JURISDICTION_PATTERN, place))
            if not is_place:
                raise FederationError(f"{path}: {table}.{name} = {place!r} is no place", f"{hint}; NO or EU-DE")
            found.append(Guest(name, _TABLES[table], place or None))
    if not found:
        raise FederationError(f"{path} names nobody", hint)
    return found


def invite_all(authority: Authority, guests: Sequence[Guest], days: int, now: datetime) -> Iterator[tuple[str, Path]]:
    """Write an invitation for each guest, or none if one of them cannot be invited; raises what `invite` raises."""
    for number, guest in enumerate(guests):
        if any(guest.name == other.name for other in guests[:number]):
            raise FederationError(f"{guest.name!r} is named twice", "give every member a name of its own")
        _check_guest(authority, guest)
    for guest in guests:
        yield guest.name, invite(authority, guest.name, guest.role, days, now, guest.jurisdiction)


def push(authority: Authority, directory: Path) -> int:
    """Bring the newest membership into a directory; return how many versions are new there.

    Raises FederationError or CryptoError if the log there is not the beginning of this one: nothing is taken back.
    """
    target = directory / LOG
    if not directory.is_dir():
        raise FederationError(f"there is no directory {directory}", "name the directory of a member, or a share")
    held = read_versions(target) if target.exists() else []
    known = [one.envelope for one in authority.log.versions]
    if held != known[: len(held)]:
        raise FederationError(f"{target} does not continue as the log of this authority does", "compare the two")
    if len(held) < len(known):
        replace_file(target, (authority.path / LOG).read_bytes())
    return len(known) - len(held)


def admit(authority: Authority, path: Path, issued: Path | None, days: int, now: datetime) -> tuple[Path, Member]:
    """Admit the sender of a join request; return the path of its admission and the new member.

    1. The request is signed by its own key. 2. Of a member with that very key, the admission is written again, without
    a new version. 3. It proves the code of an open invitation to that name and role, which becomes invalid. 4. Its
    certificate request has the same name and role. Raises FederationError or CryptoError.
    """
    # 1.
    request = read_join(from_armor(path, JoinRequest)[1])
    message = request.message
    # 2.
    place = _place(authority, message.name, "invitation")
    before = next((one for one in authority.membership.members if one.name == message.name), None)
    if before is not None:
        posted = _admitted_again(authority, before, message, issued, days, now)
        place.unlink(missing_ok=True)  # where a process ended before it was removed
        return posted, before
    # 3.
    if not place.exists():
        raise FederationError(f"there is no open invitation to {message.name!r}", "invite it; a code is good for once")
    invitation = read_invitation(from_armor(place, Invitation)[1])
    if invitation.expires_at <= now.timestamp():
        raise FederationError(f"the invitation to {message.name!r} has expired", "invite it anew")
    if (invitation.federation, invitation.name, invitation.role) != (
        message.federation,
        message.name,
        message.role,
    ):
        raise FederationError(f"the invitation is to {invitation.name!r} as {invitation.role}, the request is another")
    check_join(request, invitation.code)
    if message.sealing:
        check_public(message.sealing)
    # 4.
    certificate = _certificate(authority, message, issued, days, now)
    member = Member(
        name=message.name,
        role=message.role,
        key=message.key,
        sealing=message.sealing,
        address=message.address,
        pins=(read_certificate_request(message.request).pin,),
        jurisdiction=invitation.jurisdiction,
    )
    log = authority.next(member, f"admit {member.name}", now)
    admission = _admission(authority, log, message.name, certificate)  # may be too large: before anything is written
    authority.write(log)
    posted = _posted(authority, message.name, admission)
    place.unlink()  # last: if the process ends before this, the request can be admitted again
    return posted, member


def _admitted_again(
    authority: Authority, member: Member, message: JoinRequest, issued: Path | None, days: int, now: datetime
) -> Path:
    """Write the admission of a member again, to the very keys that the membership has; raises FederationError."""
    asked = (message.key, message.role, message.sealing, read_certificate_request(message.request).pin)
    if asked != (member.key, member.role, member.sealing, member.pins[0]):
        raise FederationError(
            f"{member.name!r} is a member already, with another key",
            "leave this request away; one of `consilo join --renew` is for `consilo federation rotate`",
        )
    certificate = _certificate(authority, message, issued, days, now, _pins_of(authority.log, member))
    return _posted(authority, member.name, _admission(authority, authority.log, member.name, certificate))


def renew_admission(authority: Authority, name: str) -> Path:
    """Write the admission of a member that was just admitted once more, with the newest membership; return its path."""
    place = _place(authority, name, "admission")
    envelope = from_armor(place, Admission)[1]
    before = verify(envelope, Admission, {AUTHORITY: authority.anchor.authority}).message
    return _posted(authority, name, _admission(authority, authority.log, name, before.certificate))


def rotate(authority: Authority, path: Path, issued: Path | None, days: int, now: datetime) -> tuple[Path, bool]:
    """Give a member a certificate for another key; return the path of its admission, and whether a version was made.

    1. The member's own identity key signed the request. 2. It names the key that the member uses now; that may be any
    key it has had, as an admission may have been lost. 3. If the new key is the newest already, it is admitted again,
    without a new version. 4. Otherwise it is listed together with the key in use, unless that is revoked. All other
    keys are revoked, such as one whose admission was never installed. Raises FederationError or CryptoError.
    """
    # 1.
    request = read_join(from_armor(path, JoinRequest)[1])
    message, before = request.message, authority.membership
    member = before.find(message.name)
    if (member.key, member.role, member.sealing) != (message.key, message.role, message.sealing):
        raise FederationError(
            f"the request is not signed by the identity key of {member.name!r}",
            "a lost identity key needs `revoke` and a new invitation",
        )
    asked = read_certificate_request(message.request)
    if asked.pin in member.pins[1:]:
        raise FederationError("the request is of the key before the last rotation", "make a new one with --renew")
    # 2.
    certificate = _certificate(authority, message, issued, days, now, _pins_of(authority.log, member))
    # 3.
    if asked.pin == member.pins[0]:
        return _posted(authority, member.name, _admission(authority, authority.log, member.name, certificate)), False
    # 4.
    if not asked.older:
        raise FederationError("the certificate request names no key that it replaces", "make one with --renew")
    replaced = [pin for pin in member.pins if host_of(pin) == asked.older]
    renewed = member.model_copy(update={"pins": (asked.pin, *replaced), "address": message.address})
    log = authority.next(renewed, f"rotate {member.name}", now)
    admission = _admission(authority, log, member.name, certificate)
    authority.write(log)
    return _posted(authority, member.name, admission), True


def revoke(authority: Authority, name: str, what: Literal["member", "old key"], now: datetime) -> MembershipLog:
    """Remove a member, or only the older of its two transport keys; a revoked key never becomes valid again."""
    member = authority.membership.find(name)
    if what == "member":
        return authority.write(authority.next(name, f"revoke {name}", now))
    if len(member.pins) == 1:
        raise FederationError(f"{name!r} has one transport key only", "let it rotate first, or revoke the member")
    kept = member.model_copy(update={"pins": member.pins[:1]})
    return authority.write(authority.next(kept, f"revoke the old key of {name}", now))


def _check_guest(authority: Authority, guest: Guest) -> None:
    check_name(guest.name, f"{'a' if guest.role == 'silo' else 'an'} {guest.role}")
    if guest.name == AUTHORITY:
        raise FederationError(f"{guest.name!r} is what the authority signs as", "choose another name")
    if any(member.name == guest.name for member in authority.membership.members):
        raise FederationError(f"{guest.name!r} is a member already", "revoke it first, or let it rotate its keys")
    if guest.role == "analyst" and guest.jurisdiction is not None:
        raise FederationError("an analyst's jurisdiction is set in each policy", "give none")


def _pins_of(log: MembershipLog, member: Member) -> set[bytes]:
    """Return every pin that a member has had under its present identity key."""
    listed = (signed.message.member for signed in log.versions)
    return {pin for one in listed if one and (one.name, one.key) == (member.name, member.key) for pin in one.pins}


def _certificate(
    authority: Authority, message: JoinRequest, issued: Path | None, days: int, now: datetime, own: Iterable[bytes] = ()
) -> bytes:
    """Return the certificate for a join request, issued here or by the consortium's authority.

    `own` are the sender's pins: the request may name one of them as the key that it replaces, and no other pin.
    """
    asked = read_certificate_request(message.request)
    if asked.identity != Identity(authority.anchor.federation, message.role, message.name):
        raise FederationError(f"the certificate request is of {asked.identity.uri}, not of who asks")
    if asked.pin in authority.membership.revoked:
        raise FederationError("the request is of a key that was revoked", "make a new one with --renew")
    if asked.older and asked.older not in map(host_of, own):
        raise FederationError("the certificate request names an older key that is not its own")
    trusted = (authority.path / AUTHORITY_CERTIFICATE).read_bytes()
    if issued is not None:
        certificate = only_certificates(_read(issued))  # the file may contain a private key too, which must not travel
        check_issued(read_certificate(certificate), trusted, message.request, now)
        return certificate
    key = authority.path / AUTHORITY_TLS_KEY
    if not key.exists():
        place = _place(authority, message.name, "csr")
        replace_file(place, message.request)
        raise FederationError(
            "the consortium's own authority issues the certificates here",
            f"let it sign {place}, and give the certificate with --certificate",
        )
    return issue(trusted, read_transport_key(key), message.request, now, days or MEMBER_DAYS)


def _read(certificate: Path) -> bytes:
    try:
        pem = certificate.read_bytes()
        read_certificate(pem)
    except OSError as err:
        message = f"cannot read the certificate {certificate} ({err.strerror})"
        raise FederationError(message, "name a file in PEM that is there") from err
    except CertificateError as err:
        raise FederationError(f"{certificate}: {err.message}", err.hint) from err
    return pem


def _admission(authority: Authority, log: MembershipLog, name: str, certificate: bytes) -> bytes:
    admission = Admission(
        federation=authority.anchor.federation,
        name=name,
        certificate=certificate,
        log=tuple(signed.envelope for signed in log.versions),
    )
    return to_armor(Admission, sign(admission, AUTHORITY, authority.signing)).encode()


def _posted(authority: Authority, name: str, admission: bytes) -> Path:
    path = _place(authority, name, "admission")
    replace_file(path, admission)
    return path


def _place(authority: Authority, name: str, ending: str) -> Path:
    return authority.path / INVITATIONS / f"{name.replace('/', '%2F')}.{ending}"
