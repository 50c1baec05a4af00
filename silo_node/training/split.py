"""The secret of a split at a silo, which it keeps as it keeps a model: docs/protocol.md section 11.

Promise: all silos that have learned a split have one secret, which no sum shows and no command prints.
"""

from collections.abc import Callable
from hashlib import sha512

from crypto.errors import ProtocolError
from policies.requests.request import Request
from policies.requests.split import WORD_BITS
from silo_node.training.run import Opened, RunState, state_after

_CONTEXT = b"consilo/1 split of persons"


def made(state: RunState | None, request: Request, position: bytes, opened: Opened, now: int) -> RunState:
    """Return the state after the one round of a split: the secret that the sum of all words makes."""
    (words,) = opened.whole_blocks()
    secret = sha512(_CONTEXT + (words % 2**WORD_BITS).astype("<u4").tobytes()).digest()
    return state_after(request, position, now, (), {}).model_copy(update={"split": secret})


def split_of(request: Request, load_run: Callable[[bytes], RunState | None]) -> bytes | None:
    """Return the secret of the split that a request names, None if it names none; raises ProtocolError without it."""
    side = request.plan.side
    if side is None or side.split is None:
        return None
    state = load_run(side.split)
    if state is None or state.split is None:
        raise ProtocolError(f"this silo has not learned the split {side.split.hex()} by which persons are held out")
    return state.split
