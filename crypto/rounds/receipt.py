"""What a silo signs of its own part in a request, for whoever compares it with what an aggregator says.

Promise: of what the aggregator signed, a receipt has the very bytes. So if an aggregator signs that a silo's masked
input is in the sum, and says elsewhere that the silo was missing, its own two signatures contradict each other.
docs/protocol.md section 7.7.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from crypto.wire import Digest, Message, Name, RoundId, Seconds

Step = Literal["ready", "contributed", "agreed", "opened"]
MAX_ROUNDS = 64  # of one request


class RoundReceipt(Message):
    """How far a silo came in one round of a request, and the signed messages that it keeps of it.

    `manifest` and `survivors` are envelopes as the aggregator signed them, `contribution` is the silo's own header.
    Each is empty where the silo has not come so far, or keeps it no more.
    """

    round_id: RoundId
    step: Step
    at: Seconds
    manifest: bytes
    contribution: bytes
    survivors: bytes


class Receipt(Message):
    """Silo to analyst: what I did for this request, by my log."""

    KIND: ClassVar[str] = "receipt"
    MAX_BYTES: ClassVar[int] = 16 << 20
    federation: Name
    request_hash: Digest
    made_at: Seconds
    accepted_at: Seconds  # 0 if never
    refused: Annotated[tuple[Annotated[str, Field(max_length=40)], ...], Field(max_length=64)]  # by these codes, last
    rounds: Annotated[tuple[RoundReceipt, ...], Field(max_length=MAX_ROUNDS)]
