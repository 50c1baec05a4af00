"""How a message becomes bytes, and how bytes become a message again or are refused.

A message is a frozen pydantic model written as JSON with bytes in URL-safe base64. There is one encoding only: what
does not re-encode to the same bytes is refused, so a repeated key, a stray space or trailing bytes never pass.
A signed message is an envelope around those exact bytes, and nothing of the body is parsed before its signature holds:

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
MAX_SILOS = 400
MAX_RECIPIENTS = 100
ROUND_ID_BYTES = 16
MAX_ENVELOPE_OVERHEAD = len(_MAGIC) + 2 + 2 * 255 + _SIGNATURE_BYTES

Digest = Annotated[bytes, Field(min_length=32, max_length=32)]
RoundId = Annotated[bytes, Field(min_length=ROUND_ID_BYTES, max_length=ROUND_ID_BYTES)]
SignatureBytes = Annotated[bytes, Field(min_length=_SIGNATURE_BYTES, max_length=_SIGNATURE_BYTES)]
Name = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+/-]*$")]
Count = Annotated[int, Field(ge=0, le=2**31)]
Seconds = Annotated[int, Field(ge=0, le=2**40)]  # since 1970-01-01 UTC
# ISO 3166: a country, or one of its parts. EU is the union, EU-DE a member of it.
JURISDICTION_PATTERN = r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$"
Jurisdiction = Annotated[str, Field(pattern=JURISDICTION_PATTERN)]


class Message(BaseModel):
    """Root of everything that crosses a boundary: immutable, strict, closed, and bounded in size."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"
    )
    KIND: ClassVar[str] = ""
    MAX_BYTES: ClassVar[int] = 64 * 1024
    MAX_COMMAS: ClassVar[int] = 2**14  # what stands between them costs a parser up to 4 KiB, however short it is

    def encode(self) -> bytes:
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the message that `data` is the encoding of; raises WireError."""
        _check_size(cls, data)
        try:
            message = cls.model_validate_json(data)
            canonical = message.encode()
        except ValidationError as err:
            if err.error_count() > _MAX_ERRORS:  # to list them all costs more than to find them
                raise WireError(f"not a {cls.__name__}: it is wrong in {err.error_count()} places") from None
            first = err.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])[:200]
            text = f"{where or 'the message'}: {first['msg'][:200]}"  # may quote a stranger
            if not text.isprintable():
                text = "".join(character if character.isprintable() else "?" for character in text)
            raise WireError(f"not a {cls.__name__}: {text}") from None
        except (ValueError, RecursionError):
            raise WireError(f"not a {cls.__name__}: it cannot be encoded again") from None
        if canonical != data:
            raise WireError(f"not a {cls.__name__} in its one encoding")
        return message


def check_name(name: str, what: str) -> None:
    """Raise WireError unless `name` can be that of `what`."""
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
    """A message whose signature held, with the exact bytes it came in."""

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
    head = _head(type(message).KIND, signer)
    return _MAGIC + head + key.sign(_DOMAIN + head + body) + body


def is_envelope(data: bytes) -> bool:
    """Tell whether `data` begins like a signed message; says nothing of its signature."""
    return data.startswith(_MAGIC)


def signer_of(envelope: bytes, kind: type[Message]) -> str:
    """Return who an envelope says signed it, before anything is verified; raises WireError."""
    return _parse_envelope(envelope, kind)[0]


def body_digest(envelope: bytes, kind: type[Message]) -> bytes:
    """Return the SHA-256 of an envelope's body, before anything is verified; raises WireError."""
    return sha256(_parse_envelope(envelope, kind)[2]).digest()


def unverified(envelope: bytes, kind: type[M]) -> M:
    """Return a message whose signer this party has no key of; only for what harms nobody if forged."""
    return kind.decode(_parse_envelope(envelope, kind)[2])


def verify(envelope: bytes, kind: type[M], keys: Mapping[str, VerifyKey]) -> Signed[M]:
    """Return the signed message if a key in `keys` of its named signer verifies it.

    Raises WireError on bytes that are no such envelope and SignatureError on an unknown signer or a bad signature.
    """
    signer, signature, body = _parse_envelope(envelope, kind)
    _verify(signer, signature, body, kind, keys)
    return Signed(kind.decode(body), signer, envelope, sha256(body).digest())


class Signature(Message):
    """A signature that travels apart from its message, where many sign the same one."""

    signer: Name
    signature: SignatureBytes


def detach(envelope: bytes, kind: type[Message]) -> Signature:
    """Return an envelope's signature without its body; raises WireError. Nothing is verified."""
    signer, signature, _ = _parse_envelope(envelope, kind)
    try:
        return Signature(signer=signer, signature=signature)
    except ValidationError:
        raise WireError(f"a {kind.KIND} envelope names a signer that is no name") from None


def attach(message: Message, signer: str, signature: bytes) -> bytes:
    """Return the envelope of a message and a signature that travelled apart; nothing is verified."""
    return _MAGIC + _head(type(message).KIND, signer) + signature + message.encode()


def verify_detached(signature: Signature, body: bytes, kind: type[Message], keys: Mapping[str, VerifyKey]) -> None:
    """Raise SignatureError unless a key in `keys` of the named signer verifies the signature over `body`."""
    _verify(signature.signer, signature.signature, body, kind, keys)


def _verify(signer: str, signature: bytes, body: bytes, kind: type[Message], keys: Mapping[str, VerifyKey]) -> None:
    if signer not in keys:
        raise SignatureError(f"{kind.KIND} signed by {signer!r}, who is not expected to sign it")
    keys[signer].verify(signature, _DOMAIN + _head(kind.KIND, signer) + body)


def _head(kind: str, signer: str) -> bytes:
    parts = kind.encode(), signer.encode()
    if not all(1 <= len(part) <= 255 for part in parts):
        raise WireError("a kind or signer is empty or longer than 255 bytes")
    return b"".join(len(part).to_bytes(1, "big") + part for part in parts)


def _parse_envelope(envelope: bytes, kind: type[Message]) -> tuple[str, bytes, bytes]:
    if len(envelope) > kind.MAX_BYTES + MAX_ENVELOPE_OVERHEAD:
        raise WireError(f"a {kind.KIND} envelope of {len(envelope)} bytes is too large")
    head = len(_MAGIC) + 1 + len(kind.KIND.encode())
    if envelope[:head] != _MAGIC + len(kind.KIND.encode()).to_bytes(1, "big") + kind.KIND.encode():
        raise WireError(f"not an envelope of kind {kind.KIND!r}")
    body = head + 1 + (envelope[head] if len(envelope) > head else 0) + _SIGNATURE_BYTES
    if len(envelope) <= body:
        raise WireError(f"a {kind.KIND} envelope is cut short")
    try:
        signer = envelope[head + 1 : body - _SIGNATURE_BYTES].decode()
    except UnicodeDecodeError:
        raise WireError(f"the signer of a {kind.KIND} envelope is not UTF-8") from None
    return signer, envelope[body - _SIGNATURE_BYTES : body], envelope[body:]
