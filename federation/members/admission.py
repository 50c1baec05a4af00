"""How an organisation becomes a member: three signed messages, which travel as text files.

    authority: Invitation --> organisation: new keys, JoinRequest --> authority: Change n + 1, Admission

Promises: only a holder of the invitation's code can make the join request that answers it, and the proof does not fit a
changed request. A certificate request travels (PKCS #10, RFC 2986), a private key never. Text files are armored as in
RFC 7468: base64 between a BEGIN and an END line. docs/federated.md describes every field.

    path.write_text(to_armor(JoinRequest, sign(message, "aspen", signing)))
    kind, envelope = from_armor(path, JoinRequest)
    check_join(read_join(envelope), invitation.code)
"""

import base64
from hmac import compare_digest
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from crypto.errors import MembershipError, WireError
from crypto.keys import VerifyKey, derive
from crypto.wire import Message, Name, Seconds, Signed, unverified, verify
from federation.members.certificates import Role
from federation.members.membership import MAX_VERSIONS, Address, KeyText, Sealing, check_role
from federation.members.roster import AUTHORITY, JurisdictionOrNone

CODE_BYTES = 16


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
    jurisdiction: JurisdictionOrNone = None


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

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_role(self.role, self.sealing, self.address)
        return self

    def proof_by(self, code: bytes) -> bytes:
        """Return what `proof` must be for the holder of `code`: it binds the code to every other field."""
        return derive(code, "join", self.model_copy(update={"proof": b""}).encode())


class Admission(Message):
    """Authority to an organisation: its certificate, and the log up to its admission."""

    KIND: ClassVar[str] = "admission"
    MAX_BYTES: ClassVar[int] = 64 << 20
    federation: Name
    name: Name
    certificate: Annotated[bytes, Field(max_length=64 * 1024)]  # in PEM, with intermediates if there are any
    log: Annotated[tuple[bytes, ...], Field(min_length=1, max_length=MAX_VERSIONS)]


def check_join(signed: Signed[JoinRequest], code: bytes) -> None:
    """Raise MembershipError unless the holder of an invitation's `code` made this very request."""
    if not compare_digest(signed.message.proof, signed.message.proof_by(code)):
        raise MembershipError("the request does not prove the invitation's code", "invite the organisation anew")


def read_join(envelope: bytes) -> Signed[JoinRequest]:
    """Return a join request, if the key that it contains signed it; raises CryptoError."""
    claimed = unverified(envelope, JoinRequest)
    return verify(envelope, JoinRequest, {claimed.name: VerifyKey.parse(claimed.key)})


def read_invitation(envelope: bytes) -> Invitation:
    """Return an invitation signed by the authority that it names; a person compares whether that is the right one."""
    claimed = unverified(envelope, Invitation)
    return verify(envelope, Invitation, {AUTHORITY: VerifyKey.parse(claimed.authority)}).message


def to_armor(kind: type[Message], envelope: bytes) -> str:
    """Return an envelope as text that survives being mailed."""
    text = base64.b64encode(envelope).decode()
    lines = (text[start : start + 76] for start in range(0, len(text), 76))
    return (
        f"-----BEGIN CONSILO {kind.KIND.upper()}-----\n"
        + "\n".join(lines)
        + f"\n-----END CONSILO {kind.KIND.upper()}-----\n"
    )


def from_armor(path: Path, *kinds: type[Message]) -> tuple[type[Message], bytes]:
    """Return the kind (one of `kinds`) and the envelope of a text file of `to_armor`; raises WireError."""
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
        begin, end = f"-----BEGIN CONSILO {kind.KIND.upper()}-----", f"-----END CONSILO {kind.KIND.upper()}-----"
        if joined.startswith(begin) and joined.endswith(end):
            try:
                return kind, base64.b64decode("".join(joined[len(begin) : -len(end)].split()), validate=True)
            except ValueError:
                break
    expected = " or ".join(kind.KIND for kind in kinds)
    raise WireError(f"{path} is not a consilo {expected} file", "ask for it to be sent again, unchanged")
