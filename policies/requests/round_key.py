"""How the secret of a round's homomorphic key travels to the recipients of a request."""

from hashlib import sha256

from crypto.errors import ProtocolError
from crypto.keys import Secret, derive
from crypto.rounds.manifest import Recipient
from crypto.sealing import SealingKey, seal
from policies.requests.request import Request


def round_key_info(nonce: bytes, recipient: str) -> bytes:
    """Return the context that the secret of a round's key is sealed in, for a recipient of the request."""
    return derive(sha256(nonce).digest(), "round key", recipient)


def sealed_secret(nonce: bytes, recipient: Recipient, secret: Secret) -> bytes:
    """Return the secret of a round's key as it is sealed to a recipient of the request with this nonce."""
    return seal(recipient.key, secret.raw, round_key_info(nonce, recipient.name))


def round_secret(request: Request, recipient: str, key: SealingKey) -> Secret | None:
    """Open the sealed secret of the round key for one recipient; None if the backend has no key.

    Raises SealError if it does not open, ProtocolError if the request does not name this recipient.
    """
    if not request.sealed_secrets:
        return None
    for one, sealed in zip(request.recipients, request.sealed_secrets, strict=True):
        if one.name == recipient:
            return Secret(key.open(sealed, round_key_info(request.nonce, recipient)))
    raise ProtocolError(f"{recipient!r} is not a recipient of the request")
