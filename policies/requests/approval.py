"""What a person says about a request that waits for people, signed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from crypto.errors import CryptoError, WireError
from crypto.keys import SigningKey, VerifyKey
from crypto.wire import Digest, Message, Name, Seconds, sign, signer_of, verify


class Verdict(Message):
    """What one person signs: yes or no to one request at one silo."""

    KIND: ClassVar[str] = "verdict"
    MAX_BYTES: ClassVar[int] = 4096
    silo: Name
    subject: Digest  # `subject_of` the request
    decision: Literal["approve", "reject"]
    at: Seconds


@dataclass(frozen=True, slots=True)
class Approval:
    """A verdict as it is stored and handed to `decide`, which believes it only if `envelope` says the same."""

    who: str
    subject: bytes
    decision: Literal["approve", "reject"]
    at: int  # seconds since 1970
    envelope: bytes  # the signed `Verdict`

    @classmethod
    def signed(
        cls, who: str, key: SigningKey, silo: str, subject: bytes, decision: Literal["approve", "reject"], at: int
    ) -> "Approval":
        """Return the verdict of `who`, signed."""
        verdict = Verdict(silo=silo, subject=subject, decision=decision, at=at)
        return cls(who, subject, decision, at, sign(verdict, who, key))

    @classmethod
    def read(cls, envelope: bytes, silo: str, keys: Mapping[str, VerifyKey]) -> "Approval":
        """Return what a signed verdict says; raises CryptoError if it is not one, to this silo, by one of `keys`."""
        found = verify(envelope, Verdict, keys)
        if found.message.silo != silo:
            raise WireError(f"the verdict is for the silo {found.message.silo!r}, this is {silo!r}")
        return cls(found.signer, found.message.subject, found.message.decision, found.message.at, envelope)

    @property
    def signer(self) -> str:
        """Who the envelope says has signed it, unchecked; nobody if it is none."""
        try:
            return signer_of(self.envelope, Verdict)
        except CryptoError:
            return ""

    def is_genuine(self, silo: str, keys: Mapping[str, VerifyKey]) -> bool:
        """Tell whether the envelope is signed by who is named, and says what the other fields say."""
        try:
            return self == Approval.read(self.envelope, silo, keys)
        except CryptoError:
            return False
