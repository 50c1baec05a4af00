"""The messages of a refusal on the wire. The rules in `policies.decision` write the text of each denial."""

from typing import Annotated, ClassVar

from pydantic import Field

from crypto.wire import Digest, Message, Name

NOT_AN_ANALYST = "you are not an analyst here"  # for an analyst that the silo's policy does not name
MAX_DENIALS = 64
MAX_MESSAGE = 1000  # characters


class Denial(Message):
    """One reason for a refusal; it never contains a number computed from rows."""

    code: Annotated[str, Field(max_length=40)]
    rule: Annotated[str, Field(max_length=300)]
    message: Annotated[str, Field(max_length=MAX_MESSAGE)]
    remedy: Annotated[str, Field(max_length=1000)]


class Refusal(Message):
    """Silo to analyst: no, with every reason."""

    KIND: ClassVar[str] = "refusal"
    MAX_BYTES: ClassVar[int] = 256 * 1024
    federation: Name
    request_hash: Digest
    policy_hash: Digest
    denials: Annotated[tuple[Denial, ...], Field(min_length=1, max_length=MAX_DENIALS)]
