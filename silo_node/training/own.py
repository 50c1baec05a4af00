"""What a silo keeps for itself of a run: made in a round, and in force once that round is learned with the silo in it.

It is a control, personal layers or a model of the silo alone. It lies beside the ledger, signed, and in no message but
that to the silo's own process. It is of the rows that it was made from: where these are others now, as consent or a
cell has changed, it is dropped. docs/networks.md, "Algorithms".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from crypto.errors import ProtocolError
from crypto.keys import SigningKey, VerifyKey
from crypto.wire import Digest, Message, RoundId, sign, verify
from policies.requests.request import Request
from policies.units import MAX_STEPS
from silo_node.training.family import Examples, Own
from silo_node.training.grid import Vector
from silo_node.training.raw_numbers import MAX_VECTORS, Numbers, joined, parted

_LENGTH_BYTES = 8
_CONTEXT = b"consilo/1 rows of what a silo keeps"


class OwnState(Message):
    """What a silo keeps for itself of a run. Its numbers and the request of its round stand beside the message."""

    KIND: ClassVar[str] = "own-state"
    run: RoundId
    step: Annotated[int, Field(ge=0, lt=MAX_STEPS)]
    round: RoundId
    rows: Digest  # of the rows that it was made from, see `digest_of`
    request: Digest  # SHA-256 of the request of its round
    numbers: Annotated[tuple[Numbers, ...], Field(max_length=MAX_VECTORS)]


@dataclass(frozen=True, slots=True)
class KeptOwn:
    """What a silo keeps for itself, with the request by which the rows behind it can be read anew."""

    state: OwnState
    request: bytes = field(repr=False)

    @property
    def own(self) -> Own:
        """What a family's computation gets of it."""
        return Own(self.state.run, self.state.step, {one.name: one.values for one in self.state.numbers})


def digest_of(examples: Examples) -> bytes:
    """Return a digest of rows: of every cell and array, of which person each row is, and of which cells are missing."""
    found = sha256(_CONTEXT)
    parts: dict[str, npt.NDArray[Any]] = {"person": examples.person}
    parts |= {f"cells {name}": cells for name, cells in examples.cells.items()}
    parts |= {f"missing {name}": is_missing for name, is_missing in examples.missing.items()}
    parts |= {f"array {name}": array for name, array in examples.arrays.items()}
    for name, array in sorted(parts.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return found.digest()


def made(request: Request, round_id: bytes, rows: bytes, vectors: Mapping[str, Vector]) -> KeptOwn:
    """Return what a silo keeps of a round of this request; raises ProtocolError if a number is not finite."""
    step, body = request.plan.training, request.encode()
    if step is None:
        raise ProtocolError("the request is not for a step of a training run")
    numbers = tuple(Numbers.of(name, values) for name, values in sorted(vectors.items()))
    digest = sha256(body).digest()
    return KeptOwn(
        OwnState(run=step.run, step=step.step, round=round_id, rows=rows, request=digest, numbers=numbers), body
    )


def lost(run: bytes, step: int) -> KeptOwn:
    """Return what stands for something that was dropped: it has no vectors, and is of no rows."""
    nothing = bytes(32)
    state = OwnState(run=run, step=step, round=bytes(16), rows=nothing, request=sha256(b"").digest(), numbers=())
    return KeptOwn(state, b"")


def kept(own: KeptOwn, silo: str, key: SigningKey) -> bytes:
    """Return what is kept as bytes, signed."""
    return _framed(sign(own.state, silo, key), own)


def read_kept(data: bytes, silo: str, key: VerifyKey) -> KeptOwn:
    """Return what `kept` wrote; raises CryptoError unless it is whole and this silo's."""
    header, request, raw = _parts(data)
    return _with(verify(header, OwnState, {silo: key}).message, request, raw)


def packed(own: KeptOwn) -> bytes:
    """Return what is kept as bytes without a signature, as a process of this silo gets it over its pipe."""
    return _framed(own.state.encode(), own)


def unpacked(data: bytes) -> KeptOwn:
    """Return what `packed` packed; raises CryptoError on anything else."""
    header, request, raw = _parts(data)
    return _with(OwnState.decode(header), request, raw)


def for_rows(found: KeptOwn | None, rows: bytes) -> Own:
    """Return what may be used with the rows of this digest: nothing that was made from others."""
    if found is None:
        return Own()
    return found.own if found.state.rows == rows else replace(found.own, vectors={})


def _framed(header: bytes, own: KeptOwn) -> bytes:
    parts = (header, own.request)
    lengths = b"".join(len(one).to_bytes(_LENGTH_BYTES, "big") for one in parts)
    return b"".join((lengths, *parts, joined(own.state.numbers)))


def _parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    lengths = [int.from_bytes(data[start : start + _LENGTH_BYTES], "big") for start in (0, _LENGTH_BYTES)]
    first = 2 * _LENGTH_BYTES
    second, third = first + lengths[0], first + sum(lengths)
    if third > len(data):
        raise ProtocolError(f"what a silo keeps has {len(data)} bytes, expected {third} and its numbers")
    return data[first:second], data[second:third], data[third:]


def _with(state: OwnState, request: bytes, raw: bytes) -> KeptOwn:
    if sha256(request).digest() != state.request:
        raise ProtocolError("the request beside what a silo keeps is another one")
    return KeptOwn(state.model_copy(update={"numbers": parted(state.numbers, raw)}), request)
