"""What an analyst says of a packed network before a run: these silos may take it from me, in frames, by its hash.

The aggregator relays the frames and keeps none; the hash in the signed offer protects the bytes, so nobody needs to
trust it. docs/networks.md, "What a policy says".
"""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from crypto.wire import MAX_SILOS, Digest, Message, Name, Seconds
from policies.networks.packed import MAX_BYTES as MOST_BYTES

FRAME_BYTES = 1 << 20
INDEX_BYTES = 8
TAKEN_MAGIC = b"CSN2"
MAX_REPLY_BYTES = 4096
_ALL = 2**64 - 1


class NetworkOffer(Message):
    """Analyst to silos, signed: take this packed network from me, if your policy trains it."""

    KIND: ClassVar[str] = "network-offer"
    MAX_BYTES: ClassVar[int] = 256 << 10
    federation: Name
    analyst: Name
    silos: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_SILOS)]
    network: Digest  # the name of the graph and its weights
    size: Annotated[int, Field(ge=1, le=MOST_BYTES)]  # of the file
    created_at: Seconds

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.silos) != sorted(set(self.silos)):
            raise ValueError("the silos must be sorted and distinct")
        return self

    @property
    def frames(self) -> int:
        return -(-self.size // FRAME_BYTES)


def index_of(index: int) -> bytes:
    """Return the number of a frame as a step's argument; frames count from 0."""
    return index.to_bytes(INDEX_BYTES, "big")


def wants(index: int | None) -> bytes:
    """Return a silo's reply: which frame it takes next; None once it has the whole."""
    return TAKEN_MAGIC + (_ALL if index is None else index).to_bytes(INDEX_BYTES, "big")


def wanted(reply: bytes) -> int | None:
    """Return which frame a silo takes next, None if it has the whole; raises ValueError on anything else."""
    if len(reply) != len(TAKEN_MAGIC) + INDEX_BYTES or not reply.startswith(TAKEN_MAGIC):
        raise ValueError("no reply to an offer")
    index = int.from_bytes(reply[len(TAKEN_MAGIC) :], "big")
    return None if index == _ALL else index
