"""What a request says of the earlier ones that it replaces: docs/protocol.md section 3.7."""

from typing import Annotated

from pydantic import Field

from crypto.wire import MAX_SILOS, Digest, Message, Name, RoundId

MAX_REPLACED = 8


class Replaced(Message):
    """An earlier request for the same, which no silo that accepts the later one accepts any more."""

    nonce: RoundId
    request_hash: Digest


class Replaces(Message):
    """The requests that a later one replaces, the first one first, and the silos of the first that it leaves out."""

    requests: Annotated[tuple[Replaced, ...], Field(min_length=1, max_length=MAX_REPLACED)]
    left_out: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_SILOS)]
    # Of each silo that is left out: its signed Refusal of one of these requests, or an aggregator's Away that names it.
    evidence: Annotated[tuple[bytes, ...], Field(min_length=1, max_length=MAX_SILOS)]

    @property
    def first(self) -> bytes:
        """The hash of the first request, which people may have approved."""
        return self.requests[0].request_hash

    @property
    def nonces(self) -> tuple[bytes, ...]:
        return tuple(one.nonce for one in self.requests)
