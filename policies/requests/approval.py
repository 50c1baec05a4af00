"""A person's signed verdict on a request that needs approval."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from crypto.errors import CryptoError, WireError
from crypto.keys import SigningKey, VerifyKey
from crypto.wire import Digest, Message, Name, Seconds, sign, signer_of, verify


class Verdict(Message):
    """The message that one person signs: approve or reject one request at one silo.

    The subject is the hash of a request, or of a run's job, that has the federation's name; the silo has the request.
    """

    KIND: ClassVar[str] = "verdict"
    MAX_BYTES: ClassVar[int] = 4096
    silo: Name
    subject: Digest  # `subject_of` the request
    decision: Literal["approve", "reject"]
    at: Seconds


@dataclass(frozen=True, slots=True)
class StoredVerdict:
    """A stored verdict; `decide` trusts its fields only if the signed `envelope` says the same."""

    who: str
    subject: bytes
    decision: Literal["approve", "reject"]
    at: int  # seconds since 1970
    envelope: bytes  # the signed `Verdict`

    @classmethod
    def signed(
        cls, who: str, key: SigningKey, silo: str, subject: bytes, decision: Literal["approve", "reject"], at: int
    ) -> "StoredVerdict":
        """Return the verdict of `who`, signed."""
        verdict = Verdict(silo=silo, subject=subject, decision=decision, at=at)
        return cls(who, subject, decision, at, sign(verdict, who, key))

    @classmethod
    def read(cls, envelope: bytes, silo: str, keys: Mapping[str, VerifyKey]) -> "StoredVerdict":
        """Read a signed verdict; raises CryptoError unless it is one for this silo, signed with one of `keys`."""
        found = verify(envelope, Verdict, keys)
        if found.message.silo != silo:
            raise WireError(f"the verdict is for the silo {found.message.silo!r}, this is {silo!r}")
        return cls(found.signer, found.message.subject, found.message.decision, found.message.at, envelope)

    @property
    def signer(self) -> str:
        """The signer that the envelope names, unchecked; empty if it is not an envelope."""
        try:
            return signer_of(self.envelope, Verdict)
        except CryptoError:
            return ""

    def is_genuine(self, silo: str, keys: Mapping[str, VerifyKey]) -> bool:
        """Tell whether the envelope is signed by the named person, and agrees with the other fields."""
        try:
            return self == StoredVerdict.read(self.envelope, silo, keys)
        except CryptoError:
            return False
