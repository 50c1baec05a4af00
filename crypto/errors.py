"""What can go wrong on the ground floor.

CryptoError
├── WireError        bytes that are not the message they claim to be
├── SignatureError   a signature that does not hold, or a signer nobody knows
├── SealError        a sealed message that this key does not open
├── RangeError       a value that the ring, the codec or the field cannot carry
├── PassphraseNeededError   a key file that is encrypted, read without a way to ask
├── CertificateError a certificate, or a request for one, that says or proves something else than it must
├── MembershipError  a peer that is no member, or a membership that does not continue the known one
├── LinkError        a connection that was lost, refused or answered against its rules
└── ProtocolError    a message that is well formed but must not be followed
    └── AccusedError what a named silo signed does not hold
"""


class CryptoError(Exception):
    """Root of this package's errors; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # everything in args, or Ray cannot rebuild it
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return self.message


class WireError(CryptoError):
    """Bytes that are not the message they claim to be."""


class SignatureError(CryptoError):
    """A signature that does not hold, or a signer that the roster does not name."""


class SealError(CryptoError):
    """A sealed message that this key does not open, or a key that must not be sealed to."""


class RangeError(CryptoError):
    """A value that the ring, the codec or the field cannot carry."""


class ProtocolError(CryptoError):
    """A well-formed message that must not be followed; docs/protocol.md names the rule."""


class AccusedError(ProtocolError):
    """What a silo signed does not hold; `accused` names it."""

    def __init__(self, message: str, accused: str) -> None:
        super().__init__(message)
        self.args = (message, accused)
        self.accused = accused


class PassphraseNeededError(CryptoError):
    """A key file that is encrypted, read without a way to ask for its passphrase."""


class CertificateError(CryptoError):
    """A certificate, a request for one or a transport key that is not what it must be."""


class MembershipError(CryptoError):
    """A peer that is no member, or a membership that does not continue the one known here."""


class LinkError(CryptoError):
    """A connection that was lost or refused, or whose peer could not answer."""
