"""What silos say to each other, through an aggregator, so that one that missed reports of a run catches up at once.

Promise: the aggregator learns neither a state, nor a hash of one. A frame or a statement that is sealed to one silo, of
one run at one position, opens for no other. docs/protocol.md section 11.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from crypto.sealing import OVERHEAD_BYTES
from crypto.wire import MAX_ENVELOPE_OVERHEAD, Digest, Message, Name, RoundId

FRAME_BYTES = (4 << 20) - OVERHEAD_BYTES  # of a state in one frame: sealed it is as long as one of a masked input
MAX_STATEMENT_BYTES = 1024 + MAX_ENVELOPE_OVERHEAD + OVERHEAD_BYTES  # what a silo says of its state, sealed
MAX_HANDED_BYTES = 2**34 + 2**25  # the numbers of a state, and its header
_NUMBER_BYTES = 8


class HandoverAsked(Message):
    """Aggregator to a silo of a run, signed: say to this other silo of it what state you hold, and hand it over."""

    KIND: ClassVar[str] = "handover-asked"
    MAX_BYTES: ClassVar[int] = 1 << 20
    federation: Name
    receiver: Name  # the silo that missed reports
    position: Digest  # SHA-256 of the encrypted report that was learned last
    request: bytes  # the signed request of the step that it answers


class HeldState(Message):
    """Silo to another silo of a run, signed and sealed: the state that I hold, which is the same at every silo.

    `digest` is the BLAKE3 of its encoding without what differs between silos, and `size` its bytes.
    """

    KIND: ClassVar[str] = "held-state"
    MAX_BYTES: ClassVar[int] = 1024
    federation: Name
    run: RoundId
    job: Digest  # of what all requests of the run share
    position: Digest
    done: Annotated[int, Field(ge=1, le=2**31)]
    size: Annotated[int, Field(ge=1, le=MAX_HANDED_BYTES)]
    digest: Digest


def statement_context(asked: HandoverAsked) -> bytes:
    """Return the context in which a HeldState is sealed to the silo that missed reports."""
    return b"consilo/1 held state" + _of(asked)


def frame_context(asked: HandoverAsked, index: int) -> bytes:
    """Return the context in which a frame of a state is sealed; frames count from 0."""
    return b"consilo/1 handed state" + _of(asked) + index.to_bytes(_NUMBER_BYTES, "big")


def _of(asked: HandoverAsked) -> bytes:
    names = (one.encode() for one in (asked.federation, asked.receiver))
    return asked.position + b"".join(bytes([len(one)]) + one for one in names)


def frames_of(size: int) -> int:
    """Return in how many frames a state of this many bytes is handed over."""
    return -(-size // FRAME_BYTES)


def number(index: int) -> bytes:
    """Return the number of a frame as a step's argument."""
    return index.to_bytes(_NUMBER_BYTES, "big")
