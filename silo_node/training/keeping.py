"""A silo's state of a run as its ledger keeps it: a signed header, and raw numbers; and as others get it.

Promise: a state that was altered, cut off, or is another silo's or another run's is refused, and the error says of
which run it is and what to do. docs/training.md, "What a silo keeps".
"""

import json

from crypto.errors import CryptoError, ProtocolError
from crypto.keys import SigningKey, VerifyKey
from crypto.wire import is_envelope, sign, verify
from policies.budget.ledger import KeptState
from silo_node.errors import SiloError
from silo_node.training.raw_numbers import Numbers
from silo_node.training.run import RunState

_LENGTH_BYTES = 8
_HINT = (
    "put the ledger and its folder of states back from a backup (`consilo-silo restore`); "
    "until then this silo takes no step of the run"
)


def kept(state: RunState, silo: str, key: SigningKey) -> KeptState:
    """Return a state as it is kept; raises CryptoError if it is larger than one that can be read back."""
    return KeptState(sign(state, silo, key), state.raw)


def read_state(run: bytes, found: KeptState, silo: str, key: VerifyKey) -> RunState:
    """Return the state of a run that this silo keeps; raises SiloError unless it is whole and the silo's own.

    A state of the ledger's format 7 and before is one JSON text without a signature, which the log has the SHA-256 of.
    """
    try:
        if is_envelope(found.header):
            state = verify(found.header, RunState, {silo: key}).message.with_raw(found.numbers)
        else:
            state = _of_json(found.header)
    except (CryptoError, ValueError, TypeError, KeyError, AttributeError) as err:
        told = err.message if isinstance(err, CryptoError) else "it is not a state"
        raise SiloError(f"the state of run {run.hex()} in the ledger is damaged: {told}", _HINT) from err
    if state.run != run:
        raise SiloError(f"the state of run {run.hex()} in the ledger is that of run {state.run.hex()}", _HINT)
    return state


def packed(state: RunState) -> bytes:
    """Return a state as bytes without a signature: the length of the header, the header, the numbers.

    So a worker of this silo gets it over its pipe, and another silo by a handover, which has a signed digest of it.
    """
    header = state.encode()
    return b"".join((len(header).to_bytes(_LENGTH_BYTES, "big"), header, state.raw))


def unpacked(data: bytes) -> RunState:
    """Return what `packed` packed; raises CryptoError on anything else."""
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
    if end > len(data):
        raise ProtocolError(f"a state of {len(data)} bytes, expected {end} of its header alone")
    return RunState.decode(data[_LENGTH_BYTES:end]).with_raw(data[end:])


def _of_json(data: bytes) -> RunState:
    """Return a state that was kept before numbers stood beside it: vectors as lists in the text."""
    fields = json.loads(data)
    vectors = [Numbers.of(name, fields.pop(name)) for name in ("velocity", "weights")]
    if (exact := fields.get("exact")) is not None:
        vectors = [Numbers.of(one["name"], one["values"]) for one in exact.pop("numbers")]
    fields["numbers"] = [json.loads(one.encode()) for one in vectors]
    state = RunState.model_validate_json(json.dumps(fields))
    return state.model_copy(update={"numbers": tuple(vectors)})
