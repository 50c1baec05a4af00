"""A model on its way to the analyst whose request asked for it: docs/protocol.md section 11.4.

Each silo signs the model that it holds and seals that to the analyst's key, so that nobody between learns it or a hash
of it. The analyst takes what a quorum of silos signed alike.
"""

from hashlib import sha256
from typing import Annotated, ClassVar

from pydantic import Field

from crypto.rounds.messages import RunEnd
from crypto.sealing import OVERHEAD_BYTES
from crypto.wire import MAX_ENVELOPE_OVERHEAD, Digest, Message, Name, RoundId
from policies.fitted import Fitted
from policies.models.forms import AnyForm, Form
from policies.units import MAX_STEPS


class ReleasedModel(Message):
    """Silo to analyst, sealed: the model of a run at its end, the same at every silo of the run."""

    KIND: ClassVar[str] = "released-model"
    MAX_BYTES: ClassVar[int] = 6 << 20
    MAX_COMMAS: ClassVar[int] = 3 * 2**17  # of a form 2**17, of what was fitted 2**18
    federation: Name
    run: RoundId
    position: Digest  # SHA-256 of the encrypted report that was learned last
    job: Digest  # of what all requests of the run share
    family: Name
    done: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    ended: Annotated[RunEnd | None, Field(default=None, exclude_if=lambda ended: ended is None)] = None
    fitted: Fitted
    portable: Annotated[AnyForm | None, Field(default=None, exclude_if=lambda form: form is None)] = None


def why_too_large(model: ReleasedModel) -> str:
    """Return why a model cannot be sent, in words; empty if it can."""
    body = model.encode()
    numbers = body.count(b",")
    if len(body) <= ReleasedModel.MAX_BYTES and numbers <= ReleasedModel.MAX_COMMAS:
        return ""
    most = f"at most {ReleasedModel.MAX_BYTES:,} bytes and {ReleasedModel.MAX_COMMAS:,} numbers can be sent"
    return (
        f"too large to be released: {len(body):,} bytes with about {numbers:,} numbers, {most}; it stays at the silos"
    )


def digest_of_model(fitted: Fitted, portable: Form | None) -> str:
    """Return the SHA-256 by which a model is told from others, in hexadecimal; it is the same wherever the model is."""
    return sha256(fitted.encode() + (b"" if portable is None else portable.encode())).hexdigest()


MAX_SEALED_MODEL_BYTES = ReleasedModel.MAX_BYTES + MAX_ENVELOPE_OVERHEAD + OVERHEAD_BYTES


def sealing_context(federation: str, run: bytes, analyst: str) -> bytes:
    """Return the context in which silos seal a model to an analyst."""
    parts = (one.encode() for one in (federation, analyst))
    return b"consilo/1 released model" + run + b"".join(bytes([len(one)]) + one for one in parts)
