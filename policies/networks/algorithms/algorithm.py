"""The interface of an algorithm that trains one network at unlike silos: which sums a round has, and what follows.

`init` makes what all recipients hold beside the weights; `apply` moves weights and that by the opened sums alone. Both
are pure and add, multiply, divide and take roots of doubles number by number, so that all recipients have the same to
the last bit. `local` says how a silo trains between the two, and what it keeps for itself. Nobody has a single silo's
update, so no algorithm may need one: medians and Krum (Blanchard et al., NeurIPS 2017) are not possible here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from policies.networks.graph import Graph
from policies.options import Option

Vector = npt.NDArray[np.float64]
Options = Mapping[str, str]  # with the defaults of what a job leaves out
UPDATE = "update"  # the sum that every algorithm has: of the silos' changes of the shared weights
CONTROL = "control"  # of SCAFFOLD: of the changes of the silos' controls
# What a silo keeps for itself: its control, the weights that never leave it, and a model of its own.
OWN_CONTROL, OWN_LAYERS, OWN_MODEL = "control", "layers", "model"


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What all recipients hold: the shared weights, and the algorithm's own vectors, each of the same length."""

    weights: Vector
    more: Mapping[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What a round opened: the mean over silos, weighted by their rows, of each vector that the algorithm sums."""

    means: Mapping[str, Vector]
    rows: float  # of the silos that took part
    share: float  # of all rows of the run, that these are
    number: int  # of the round of training, from 0
    lost: int = 0  # silos that have lost the control that they had


@dataclass(frozen=True, slots=True)
class Local:
    """How a silo trains: the terms that are added to its own gradient, and what it keeps for itself."""

    pull: float = 0.0  # towards the shared weights, times the distance: of FedProx
    is_corrected: bool = False  # by the difference of the recipients' control and its own: of SCAFFOLD
    personal_pull: float | None = None  # of a model of its own towards the shared one: of Ditto
    own_epochs: int | None = None  # of a model of its own, after the last round: of local fine-tuning


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One algorithm. `stays` returns which weights of a graph never leave a silo; it raises ValueError without any."""

    paper: str
    init: Callable[[Options, Vector], Held]  # from the first weights
    apply: Callable[[Options, Held, Sums], Held]
    sums: tuple[str, ...] = (UPDATE,)
    options: Mapping[str, Option] = field(default_factory=dict)
    local: Callable[[Options], Local] = lambda options: Local()
    stays: Callable[[Graph, Options], frozenset[str]] = lambda graph, options: frozenset()
    trains: Callable[[Graph, Options], Graph] = lambda graph, options: graph  # which network, in the place of a job's
    moves: Callable[[Graph], frozenset[str]] | None = None  # which weights of it; None: all that the job names
