"""The encoding of messages and of signed messages: docs/protocol.md sections 2.1 and 2.2.

A message is a frozen pydantic model, written as JSON with bytes in URL-safe base64. There is one encoding only: bytes
that decode to a message with another encoding are refused, so a repeated key, a stray space or trailing bytes never
pass. A signed message is an envelope around those exact bytes; the body is parsed only after its signature is verified:

    "CSL1" | kind length (1) | kind | signer length (1) | signer | Ed25519 signature (64) | body

The signature covers "consilo/1 envelope", the kind and signer with their length bytes, and the body.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from crypto.errors import SignatureError, WireError
from crypto.keys import SigningKey, VerifyKey

_MAGIC = b"CSL1"
_DOMAIN = b"consilo/1 envelope"
_SIGNATURE_BYTES = 64
_MAX_ERRORS = 64
MAX_SILOS = 1000
MAX_RECIPIENTS = 100
ROUND_ID_BYTES = 16
SHARE_BYTES = 32  # of a shared secret
MAX_ENVELOPE_OVERHEAD = len(_MAGIC) + 2 + 2 * 255 + _SIGNATURE_BYTES

Digest = Annotated[bytes, Field(min_length=32, max_length=32)]
RoundId = Annotated[bytes, Field(min_length=ROUND_ID_BYTES, max_length=ROUND_ID_BYTES)]
SignatureBytes = Annotated[bytes, Field(min_length=_SIGNATURE_BYTES, max_length=_SIGNATURE_BYTES)]
Name = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+/-]*$")]
Count = Annotated[int, Field(ge=0, le=2**31)]
Seconds = Annotated[int, Field(ge=0, le=2**40)]  # since 1970-01-01 UTC
# ISO 3166: a country, or one of its parts. EU is the European Union, EU-DE a member of it.
JURISDICTION_PATTERN = r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$"
Jurisdiction = Annotated[str, Field(pattern=JURISDICTION_PATTERN)]


class Message(BaseModel):
    """Root of all messages between parties: immutable, strict, without unknown fields, and bounded in size."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"
    )
    KIND: ClassVar[str] = ""
    MAX_BYTES: ClassVar[int] = 64 * 1024
    MAX_COMMAS: ClassVar[int] = 2**14  # a value between two commas, however short, costs a parser up to 4 KiB

    def encode(self) -> bytes:
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the message with the encoding `data`; raises WireError."""
        _check_size(cls, data)
        try:
            message = cls.model_validate_json(data)
            canonical = message.encode()
        except ValidationError as err:
            if err.error_count() > _MAX_ERRORS:  # listing them all costs more than finding them
                raise WireError(f"not a {cls.__name__}: it is wrong in {err.error_count()} places") from None
            first = err.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])[:200]
            text = f"{where or 'the message'}: {first['msg'][:200]}"  # may quote text of another party
            if not text.isprintable():
                text = "".join(character if character.isprintable() else "?" for character in text)
            raise WireError(f"not a {cls.__name__}: {text}") from None
        except (ValueError, RecursionError):
            raise WireError(f"not a {cls.__name__}: it cannot be encoded again") from None
        if canonical != data:
            raise WireError(f"not a {cls.__name__} in its one encoding")
        return message


def check_name(name: str, what: str) -> None:
    """Raise WireError unless `name` is a valid name; `what` names the party in the error."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        hint = "use letters, digits and ._@+/-, a letter or digit first, at most 120"
        raise WireError(f"{name[:200]!r} cannot be the name of {what}", hint) from None


def _check_size(kind: type[Message], data: bytes) -> None:
    if len(data) > kind.MAX_BYTES:
        raise WireError(f"a {kind.__name__} of {len(data)} bytes, at most {kind.MAX_BYTES} are read")
    if data.count(b",") > kind.MAX_COMMAS:
        raise WireError(f"a {kind.__name__} with {data.count(b',')} commas, at most {kind.MAX_COMMAS} are read")


M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Signed(Generic[M]):
    """A message with a verified signature, and the exact bytes of its envelope."""

    message: M
    signer: str
    envelope: bytes
    digest: bytes  # SHA-256 of the body


def digest_of(message: Message) -> bytes:
    """Return the SHA-256 of the message's encoding."""
    return sha256(message.encode()).digest()


def sign(message: Message, signer: str, key: SigningKey) -> bytes:
    """Return the envelope of `message`, signed by `signer`; raises WireError if it is too large to be read."""
    body = message.encode()
    _check_size(type(message), body)
    header = _header(type(message).KIND, signer)
    return _MAGIC + header + key.sign(_DOMAIN + header + body) + body


def is_envelope(data: bytes) -> bool:
    """Tell whether `data` begins like a signed message; the signature is not checked."""
    return data.startswith(_MAGIC)


def signer_of(envelope: bytes, kind: type[Message]) -> str:
    """Return the signer that an envelope names, without verifying it; raises WireError."""
    return _parse_envelope(envelope, kind)[0]


def body_digest(envelope: bytes, kind: type[Message]) -> bytes:
    """Return the SHA-256 of an envelope's body, without verifying it; raises WireError."""
    return sha256(_parse_envelope(envelope, kind)[2]).digest()


def unverified(envelope: bytes, kind: type[M]) -> M:
    """Return a message without verifying it; only where this party lacks the key and a forgery does no harm."""
    return kind.decode(_parse_envelope(envelope, kind)[2])


def verify(envelope: bytes, kind: type[M], keys: Mapping[str, VerifyKey]) -> Signed[M]:
    """Return the signed message if a key in `keys` of its named signer verifies it.

    Raises WireError on bytes that are not such an envelope, SignatureError on an unknown signer or a bad signature.
    """
    signer, signature, body = _parse_envelope(envelope, kind)
    _verify(signer, signature, body, kind, keys)
    return Signed(kind.decode(body), signer, envelope, sha256(body).digest())


class Signature(Message):
    """A signature that travels apart from its message, because many parties sign the same message."""

    signer: Name
    signature: SignatureBytes


def detach(envelope: bytes, kind: type[Message]) -> Signature:
    """Return the signature of an envelope, without verifying it; raises WireError."""
    signer, signature, _ = _parse_envelope(envelope, kind)
    try:
        return Signature(signer=signer, signature=signature)
    except ValidationError:
        raise WireError(f"a {kind.KIND} envelope names a signer that is no name") from None


def attach(message: Message, signer: str, signature: bytes) -> bytes:
    """Return the envelope of a message and its detached signature, without verifying it."""
    return _MAGIC + _header(type(message).KIND, signer) + signature + message.encode()


def verify_detached(signature: Signature, body: bytes, kind: type[Message], keys: Mapping[str, VerifyKey]) -> None:
    """Raise SignatureError unless a key in `keys` of the named signer verifies the signature over `body`."""
    _verify(signature.signer, signature.signature, body, kind, keys)


def _verify(signer: str, signature: bytes, body: bytes, kind: type[Message], keys: Mapping[str, VerifyKey]) -> None:
    if signer not in keys:
        raise SignatureError(f"{kind.KIND} signed by {signer!r}, who is not expected to sign it")
    keys[signer].verify(signature, _DOMAIN + _header(kind.KIND, signer) + body)


def _header(kind: str, signer: str) -> bytes:
    parts = kind.encode(), signer.encode()
    if not all(1 <= len(part) <= 255 for part in parts):
        raise WireError("a kind or signer is empty or longer than 255 bytes")
    return b"".join(len(part).to_bytes(1, "big") + part for part in parts)


def _parse_envelope(envelope: bytes, kind: type[Message]) -> tuple[str, bytes, bytes]:
    if len(envelope) > kind.MAX_BYTES + MAX_ENVELOPE_OVERHEAD:
        raise WireError(f"a {kind.KIND} envelope of {len(envelope)} bytes is too large")
    start = len(_MAGIC) + 1 + len(kind.KIND.encode())
    if envelope[:start] != _MAGIC + len(kind.KIND.encode()).to_bytes(1, "big") + kind.KIND.encode():
        raise WireError(f"not an envelope of kind {kind.KIND!r}")
    body = start + 1 + (envelope[start] if len(envelope) > start else 0) + _SIGNATURE_BYTES
    if len(envelope) <= body:
        raise WireError(f"a {kind.KIND} envelope is cut short")
    try:
        signer = envelope[start + 1 : body - _SIGNATURE_BYTES].decode()
    except UnicodeDecodeError:
        raise WireError(f"the signer of a {kind.KIND} envelope is not UTF-8") from None
    return signer, envelope[body - _SIGNATURE_BYTES : body], envelope[body:]
