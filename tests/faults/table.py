"""The table of faults: who, what, and at which state of a round.

A round is held at a state by holding one message. At the steps of a silo it is the message to CEDAR, just before that
silo takes the step, or just after it has taken it and before the reply leaves. At `evidence` it is the analyst's call
for the masked inputs, at the aggregator.
"""

from dataclasses import dataclass
from typing import Literal

Party = Literal["silo", "aggregator", "analyst", "second aggregator"]
When = Literal["before", "after"]
CEDAR = "cedar"  # the silo that faults befall, and at which rounds are held
SILOS = ("aspen", "birch", CEDAR, "maple", "rowan")
STEPS = ("propose", "share", "ready", "contribute", "agree", "open_shares")


@dataclass(frozen=True, slots=True)
class State:
    """A point of a question: before or after a step."""

    step: str
    when: When = "before"

    def __str__(self) -> str:
        return self.step if self.when == "before" else f"after {self.step}"


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls a party. `is_served`: only the commands with their Ray clusters show it."""

    party: Party
    kind: str
    is_served: bool = False

    def __str__(self) -> str:
        return f"{self.party}: {self.kind}"


@dataclass(frozen=True, slots=True)
class Case:
    """A fault at a state."""

    fault: Fault
    state: State

    def __str__(self) -> str:
        return f"{self.fault}, {self.state}"


BEFORE = tuple(State(step) for step in ("catalogue", *STEPS))
AFTER = tuple(State(step, "after") for step in STEPS)
EVIDENCE = State("evidence")

LINK = ("link cut 5 s", "link cut 120 s", "link 0.4 s late")
DISK = ("disk full", "disk read-only")
CLOCK = ("clock 10 minutes ahead", "clock 10 minutes behind")
EVERYBODY = ("kill -9", "stopped for a minute", *LINK, *DISK, *CLOCK, "certificate expired")
SILO = ("source down", "worker killed", "memory limit met", "consent file replaced")

FAULTS = (
    *(Fault("silo", kind) for kind in (*EVERYBODY, *SILO)),
    Fault("silo", "actor killed", is_served=True),
    Fault("silo", "raylet killed", is_served=True),
    *(Fault("aggregator", kind) for kind in (*EVERYBODY, "gone")),
    Fault("aggregator", "raylet killed", is_served=True),
    *(Fault("analyst", kind) for kind in EVERYBODY),
    Fault("second aggregator", "dead, and none may be away"),
    Fault("second aggregator", "dead, and one may be away"),
)


def states_of(fault: Fault) -> tuple[State, ...]:
    """Return the states at which a fault can befall its party."""
    if fault.party == "silo":
        return (*BEFORE, *AFTER) if fault.kind == "kill -9" else BEFORE
    return BEFORE if fault.party == "second aggregator" or fault.is_served else (*BEFORE, EVIDENCE)


CASES = tuple(Case(fault, state) for fault in FAULTS for state in states_of(fault))

# What `make check` runs: each party, each way of judging, and nothing that lasts a minute.
SHARE = (
    Case(Fault("silo", "kill -9"), State("contribute", "after")),
    Case(Fault("silo", "link cut 5 s"), State("contribute")),
    Case(Fault("silo", "disk full"), State("contribute")),
    Case(Fault("silo", "worker killed"), State("propose")),
    Case(Fault("silo", "consent file replaced"), State("ready")),
    Case(Fault("aggregator", "kill -9"), State("share")),
    Case(Fault("aggregator", "disk full"), State("ready")),
    Case(Fault("analyst", "kill -9"), State("contribute")),
    Case(Fault("analyst", "disk read-only"), EVIDENCE),
)
