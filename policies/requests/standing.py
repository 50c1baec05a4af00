"""Where an analyst stands at a silo: what is left of each budget, and what the silo would say to a request now.

A part of a catalogue, if its request asks for it. docs/protocol.md section 7.5. Nothing here is computed from rows,
nothing is reserved, and the same request may be judged otherwise when it is sent.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from crypto.wire import Count, Message, Name, RoundId, Seconds
from policies.requests.denials import MAX_DENIALS, Denial
from policies.requests.tables import Text

LIFETIME = "lifetime"
MAX_RUNS = 100


class Left(Message):
    """What is left of one budget, in micro-rho: to everybody, and to this analyst, where that is limited too."""

    purpose: Name | None = None  # None: a lifetime budget is that of all purposes
    window: Text
    limit: Count
    everybody: Count
    analyst: Count | None = None


def scarcest(left: Sequence[Left]) -> tuple[int, Left] | None:
    """Return what is left to the analyst in the budget where least is left, and that budget."""
    rests = [(one.everybody if one.analyst is None else min(one.everybody, one.analyst), one) for one in left]
    return min(rests, key=lambda one: one[0], default=None)


class ReservedRun(Message):
    """What a training run of this analyst has reserved for its steps that have not begun, in micro-rho."""

    run: RoundId
    purpose: Name
    steps: Count
    parts: Count  # of its steps, those that have not begun
    micro_rho: Count
    until: Seconds  # when it ends, if no step is taken before


class Standing(Message):
    """What is left to an analyst at a silo; and of a request, its price, the time it takes, and why it is refused."""

    left: Annotated[tuple[Left, ...], Field(max_length=1000)]
    micro_rho: Count = 0
    compute_ms: Count = 0
    denials: Annotated[tuple[Denial, ...], Field(max_length=MAX_DENIALS)] = ()
    runs: Annotated[tuple[ReservedRun, ...], Field(max_length=MAX_RUNS, exclude_if=lambda runs: not runs)] = ()
    # What one training run may cost a person, in micro-rho; only where the request is a step of one.
    run_limit: Annotated[int | None, Field(default=None, ge=0, le=2**31, exclude_if=lambda limit: limit is None)] = None
    # How long sending may take; left out where the vector is short.
    send_ms: Annotated[Count, Field(exclude_if=lambda time: not time)] = 0
