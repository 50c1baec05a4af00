"""What a silo keeps for itself of a network: its control, the layers that stay, and a model of its own.

The control is kept as the recipients count it: times the silo's share of all rows, and rounded as it was sent. So the
sum of what silos keep is what the recipients hold, whatever was rounded and however rows change.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from policies.networks.algorithms.algorithm import CONTROL, OWN_CONTROL, OWN_LAYERS, OWN_MODEL
from policies.requests.families import Task
from policies.requests.networks import local_of, owns, shared_of, staying_of
from silo_node.training.family import Own, State
from silo_node.training.grid import Vector
from silo_node.training.networks.first import first_weights

RESTARTED = "restarted"  # the round whose sum said that a control was lost: those of rounds up to it count no more
SERVER_CONTROL = f"server_{CONTROL}"


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """What a silo trains with beside the weights of all."""

    own: Mapping[str, Vector] = field(default_factory=dict)  # its layers and its model, where it has them
    correction: Vector | None = None  # of each step: the control of all, less its own
    counted: Vector | None = None  # its control, as the recipients count it
    share: float = 1.0  # of its rows among those of the run
    is_lost: bool = False  # whether the recipients count a control that the silo has no more


class Changed(Protocol):
    """What a training found."""

    @property
    def vectors(self) -> Mapping[str, Vector]: ...  # the changes, by the names of the sums

    @property
    def way(self) -> float: ...  # the rates of all steps, added

    @property
    def own(self) -> Mapping[str, Vector]: ...  # what the silo keeps, but for its control


def beside(task: Task, state: State, own: Own, share: float) -> Beside:
    """Return what a silo with this share of all rows trains with in a round."""
    layers = {name: own.vectors[name] for name in (OWN_LAYERS, OWN_MODEL) if name in own.vectors}
    if not local_of(task).is_corrected:
        return Beside(layers, share=share)
    counted, is_lost = _counted(task, state, own)
    correction = state[SERVER_CONTROL] - counted / share
    # Without what the others' mean counts, a correction would be wrong; a plain training is right.
    return Beside(layers, np.zeros(len(counted)) if is_lost else correction, counted, share, is_lost)


def _counted(task: Task, state: State, own: Own) -> tuple[Vector, bool]:
    """Return a silo's control as the recipients count it, and whether they count one that is here no more."""
    nothing = np.zeros(len(state[SERVER_CONTROL]))
    since = state.one(RESTARTED) if RESTARTED in state.numbers else 0.0
    if own.step < 0 or (own.run == task.run and own.step <= since):
        return nothing, False
    found = own.vectors.get(OWN_CONTROL)
    if found is None or len(found) != len(nothing) or own.run != task.run:
        return nothing, True
    return found, False


def summed(task: Task, found: Changed, with_: Beside) -> dict[str, Vector]:
    """Return a silo's part of each sum, to be taken times its share: option II of SCAFFOLD for the control."""
    sums = dict(found.vectors)
    if with_.correction is not None and with_.counted is not None and sums:
        (change,) = found.vectors.values()
        sums[CONTROL] = -change / found.way - with_.correction - with_.counted / with_.share
    return sums


def kept(found: Changed, with_: Beside, sent: Mapping[str, Vector]) -> dict[str, Vector]:
    """Return what a silo keeps of a round; `sent` has its parts of the sums as they left it."""
    own = dict(found.own)
    if with_.counted is not None and CONTROL in sent:
        own[OWN_CONTROL] = with_.counted + sent[CONTROL]
    return own


def unmoved(task: Task, state: State, own: Own) -> dict[str, Vector]:
    """Return what a silo keeps of a round in which it does not train."""
    found = dict[str, Vector]()
    for name, length in owns(task).items():
        vector = own.vectors.get(name, np.zeros(0))
        if name == OWN_CONTROL:
            vector = _counted(task, state, own)[0] if SERVER_CONTROL in state.numbers else vector
        if len(vector) != length:
            vector = np.zeros(length) if name == OWN_CONTROL else first(task, state, name)
        found[name] = vector
    return found


def first(task: Task, state: State, name: str) -> Vector:
    """Return the layers, or the model, that a silo begins with: drawn from the run, and the weights of all."""
    layers = first_weights(task, staying_of(task))
    if name == OWN_LAYERS:
        return layers
    weights = state.numbers["weights"] if "weights" in state.numbers else first_weights(task, shared_of(task))
    return np.concatenate([weights, layers])
