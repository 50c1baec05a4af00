"""Become a member of a federation: make keys here, send a join request, install the authority's admission.

    invitation --join--> directory with keys, NAME.request --(authority admits)--> NAME.admission --join--> ready

The directory is the one that the role runs from: a silo's directory with its policy.toml, the aggregator's, or the
analyst's with consilo.toml. Promise: no private key leaves it.
"""

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from crypto.errors import MembershipError
from crypto.keys import Secret, SigningKey, VerifyKey, read_key_file, write_key_file
from crypto.sealing import SealingKey
from crypto.wire import sign, verify
from federation.directory import made_or_undone
from federation.errors import FederationError
from federation.files import replace_file
from federation.founding import TICK_MS
from federation.members.admission import Admission, Invitation, JoinRequest, from_armor, read_invitation, to_armor
from federation.members.certificates import (
    Identity,
    Role,
    identity_of,
    new_certificate_request,
    new_transport_key,
    pin_of,
    read_certificate,
    read_transport_key,
)
from federation.members.credentials import (
    AUTHORITY_CERTIFICATE,
    CERTIFICATE,
    IDENTITY_KEY,
    TRANSPORT_KEY,
    Credentials,
)
from federation.members.membership import LOG, MembershipLog, TrustAnchor, append, extend_log, read_log
from federation.members.roster import AUTHORITY
from federation.transport.address import dialled

MEMBER_SETTINGS, NEW = "member.toml", ".new"
_NEVER_OVERWRITTEN = (IDENTITY_KEY, TRANSPORT_KEY, "authority.key", "consilo.toml")  # of a member, or of a federation


@dataclass(frozen=True, slots=True)
class Joined:
    """The result of one step of joining."""

    identity: Identity
    authority: VerifyKey
    request: Path | None  # the file to send to the authority; None once this party is a member
    key: VerifyKey


def join(path: Path, out: Path, address: str, now: datetime, passphrase: Callable[[], str] | None = None) -> Joined:
    """Answer an invitation, or install an admission; raises FederationError or CryptoError.

    An invitation that cannot be answered leaves nothing behind.
    """
    kind, envelope = from_armor(path, Invitation, Admission)
    if kind is Admission:
        if address:
            raise FederationError("the answer to the invitation has the address already", "leave --address away")
        return _install(envelope, out, now)
    invitation = read_invitation(envelope)
    if invitation.expires_at <= now.timestamp():
        raise FederationError(f"the invitation to {invitation.name!r} has expired", "ask the authority for another")
    _check_address(invitation.role, address)
    identity = Identity(invitation.federation, invitation.role, invitation.name)
    root, settings = Secret.generate(), _settings_of(identity, invitation.authority, address)
    with made_or_undone(out, 0o700):
        if taken := [name for name in _NEVER_OVERWRITTEN if os.path.lexists(out / name)]:
            hint = "nothing is overwritten: name another --out, or move it away"
            raise FederationError(f"{out / taken[0]} exists", hint)
        write_key_file(out / IDENTITY_KEY, root, passphrase)
        transport = new_transport_key(out / TRANSPORT_KEY)
        replace_file(out / AUTHORITY_CERTIFICATE, invitation.certificates)
        for name, text in settings.items():
            replace_file(out / name, text.encode())
        message = _request(identity, root, address, new_certificate_request(transport, identity))
        message = message.model_copy(update={"proof": message.proof_by(invitation.code)})
        return _asked(out, identity, VerifyKey.parse(invitation.authority), root, message)


def install(path: Path, out: Path, now: datetime) -> Joined:
    """Install an admission, as `join` does, before its member serves; raises FederationError or CryptoError."""
    return _install(from_armor(path, Admission)[1], out, now)


def renew(out: Path, passphrase: Callable[[], str] | None = None) -> Joined:
    """Make a second transport key, next to the one in use, and the request to rotate to it."""
    identity, anchor, address = _settings(out)
    root = read_key_file(out / IDENTITY_KEY, passphrase)
    fresh = out / (TRANSPORT_KEY + NEW)
    fresh.unlink(missing_ok=True)  # of a renewal that was never answered
    older = pin_of(read_transport_key(out / TRANSPORT_KEY).public_key())
    request = new_certificate_request(new_transport_key(fresh), identity, older)
    return _asked(out, identity, anchor.authority, root, _request(identity, root, address, request))


def _request(identity: Identity, root: Secret, address: str, request: bytes) -> JoinRequest:
    return JoinRequest(
        federation=identity.federation,
        name=identity.name,
        role=identity.role,
        key=str(SigningKey(root).public),
        sealing=SealingKey(root).public if identity.role == "silo" else b"",
        address=address,
        request=request,
        proof=b"",
    )


def _asked(out: Path, identity: Identity, authority: VerifyKey, root: Secret, message: JoinRequest) -> Joined:
    signing = SigningKey(root)
    place = out / _place(identity)
    replace_file(place, to_armor(JoinRequest, sign(message, identity.name, signing)).encode())
    return Joined(identity, authority, place, signing.public)


def _install(envelope: bytes, out: Path, now: datetime) -> Joined:
    """Install an admission in the directory that asked for it.

    1. The authority of the invitation signed it. 2. Its log continues the known log and lists this member. 3. Its
    certificate belongs to this party and to a key in this directory. Nothing is written before these checks.
    """
    identity, anchor, _ = _settings(out)
    # 1.
    admission = verify(envelope, Admission, {AUTHORITY: anchor.authority}).message
    if (admission.federation, admission.name) != (identity.federation, identity.name):
        raise FederationError(f"the admission is of {admission.name!r}, here is {identity.name!r}", "name its --out")
    # 2.
    known = read_log(out / LOG, anchor) if (out / LOG).exists() else MembershipLog.empty(anchor)
    log = extend_log(anchor, known, admission.log)
    certificate = read_certificate(admission.certificate)
    member = log.membership.peer(certificate)
    # 3.
    if identity_of(certificate) != identity:
        raise MembershipError(f"the certificate is of {identity_of(certificate).uri}, not of {identity.uri}")
    wanted = pin_of(certificate.public_key())
    keys = [place for place in (out / TRANSPORT_KEY, out / (TRANSPORT_KEY + NEW)) if place.exists()]
    matching = [place for place in keys if pin_of(read_transport_key(place).public_key()) == wanted]
    if not matching:
        raise FederationError("the certificate is of a key that is not here", "name the --out that made the request")
    if matching[0].name != TRANSPORT_KEY:
        os.replace(matching[0], out / TRANSPORT_KEY)
    replace_file(out / CERTIFICATE, admission.certificate)
    if not known:
        append(out / LOG, log, 0)
    Credentials(out, anchor, identity).extend(admission.log)
    return Joined(identity, anchor.authority, None, VerifyKey.parse(member.key))


def _check_address(role: Role, address: str) -> None:
    if bool(address) != (role == "aggregator"):
        hint = "give where others dial it, as in --address aggregator.example:8443"
        raise FederationError(
            "an aggregator, and nobody else, needs an address", hint if not address else "leave --address away"
        )
    if address:
        dialled(address)


def _place(identity: Identity) -> str:
    return f"{identity.name.replace('/', '%2F')}.request"


def _settings_of(identity: Identity, authority: str, address: str) -> dict[str, str]:
    """Return the settings file of the role, and member.toml, which names the member of this directory."""
    common = f'federation = "{identity.federation}"\nauthority = "{authority}"\n'
    member = f'{common}name = "{identity.name}"\nrole = "{identity.role}"\naddress = "{address}"\n'
    match identity.role:
        case "silo":
            return {MEMBER_SETTINGS: member, "silo.toml": f"{common}tick_ms = {TICK_MS}\n"}
        case "aggregator":
            return {MEMBER_SETTINGS: member, "aggregator.toml": f'name = "{identity.name}"\n{common}'}
        case "analyst":
            analysts = f'\n[analysts]\n"{identity.name}" = "{IDENTITY_KEY}"\n'
            return {
                MEMBER_SETTINGS: member,
                "consilo.toml": f'schema = "consilo/1"\nmode = "federated"\n{common}{analysts}',
            }


def _settings(out: Path) -> tuple[Identity, TrustAnchor, str]:
    try:
        settings = tomllib.loads((out / MEMBER_SETTINGS).read_text())
        role: Role = settings["role"]
        identity = Identity(settings["federation"], role, settings["name"])
        Identity.parse(identity.uri)
        anchor, address = TrustAnchor(identity.federation, VerifyKey.parse(settings["authority"])), settings["address"]
    except (OSError, ValueError, KeyError) as err:
        hint = "name the directory that `consilo join INVITATION` made, with --out"
        raise FederationError(f"{out} has not asked to join a federation", hint) from err
    _check_address(role, address)
    return identity, anchor, address
