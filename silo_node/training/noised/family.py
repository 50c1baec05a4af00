"""The interface of a model family with noise: as `silo_node.training.family.Family`, of sums that have noise.

Nothing that `update` or `finish` decides depends on rows but by the opened sums, which have noise and are paid for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from policies.requests.families import Task
from silo_node.training.family import Examples, Fitted, Judged, State
from silo_node.training.grid import Integers, Vector


@dataclass(frozen=True, slots=True, eq=False)
class Noisy:
    """An opened block: its numbers, in the units of its statistic, and the standard deviation of the noise in each."""

    values: Vector
    deviation: float

    @property
    def one(self) -> float:
        return float(self.values[0])


Sums = Mapping[str, Noisy]


@dataclass(frozen=True, slots=True)
class NoisedFamily:
    """The computation of a family, whose shape is in `policies.requests.noised_families.NOISED` under the same name."""

    init: Callable[[Task], State]
    statistics: Callable[[Task, State, Examples], list[Integers]]  # one array a block, in the order of the shape
    update: Callable[[Task, State, Sums], State]  # by the opened blocks; pure, the same everywhere
    finish: Callable[[Task, State], Fitted]
    judged: Judged | None
