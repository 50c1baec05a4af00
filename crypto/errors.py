"""The errors of this package. Every error is a CryptoError with a message and a hint.

CryptoError
├── WireError        bytes that are not the message they claim to be
├── SignatureError   an invalid signature, or an unknown signer
├── SealError        a sealed message that this key does not open
├── RangeError       a value that the ring, the codec or the field cannot carry
├── PassphraseNeededError   an encrypted key file, read without a way to ask for its passphrase
├── CertificateError a certificate, a certificate request or a transport key that breaks its rules
├── MembershipError  a peer that is not a member, or a membership that does not continue the known one
├── LinkError        a connection that was lost, refused or answered against its rules
└── ProtocolError    a message that is well formed but must not be followed
    ├── ClockError   a round that is over when it begins, or would last too long, by the clock of this machine
    ├── ExpiredError a round whose time was over before its next step
    └── AccusedError an invalid message that a named silo signed
"""


class CryptoError(Exception):
    """Root of this package's errors; `hint` is a remedy."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # everything in args, or Ray cannot rebuild it
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return self.message


class WireError(CryptoError):
    """Bytes that are not the message they claim to be."""


class SignatureError(CryptoError):
    """An invalid signature, or a signer that the roster does not name."""


class SealError(CryptoError):
    """A sealed message that this key does not open, or a key that must not be sealed to."""


class RangeError(CryptoError):
    """A value that the ring, the codec or the field cannot carry."""


class ProtocolError(CryptoError):
    """A well-formed message that must not be followed; docs/protocol.md names the rule."""


class ClockError(ProtocolError):
    """A round that is over when it begins, or would last too long, by the clock of this machine."""


class ExpiredError(ProtocolError):
    """A round whose time was over before its next step."""


class AccusedError(ProtocolError):
    """A silo signed something invalid; `accused` names that silo, and `accusation` is the encoded Accusation."""

    def __init__(self, message: str, accused: str, accusation: bytes) -> None:
        super().__init__(message)
        self.args = (message, accused, accusation)
        self.accused, self.accusation = accused, accusation


class PassphraseNeededError(CryptoError):
    """An encrypted key file, read without a way to ask for its passphrase."""


class CertificateError(CryptoError):
    """A certificate, a certificate request or a transport key that breaks its rules."""


class MembershipError(CryptoError):
    """A peer that is not a member, or a membership that does not continue the one known here."""


class LinkError(CryptoError):
    """A connection that was lost or refused, or whose peer could not answer."""
