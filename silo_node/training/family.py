"""The interface of an exact model family's computation: a program of rounds, all pure.

`init` makes the state before the first round; `statistics` returns a silo's part of the sum of a round, computed on its
own rows; `update` sees the opened sum alone, so that all silos have the same state; `finish` says what the state means,
in the units of the columns. Arrays in, arrays out: no clock, no randomness, no file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crypto.rounds.messages import RunEnd
from policies.fitted import Fitted as Fitted
from policies.fitted import Line as Line
from policies.fitted import Listing as Listing
from policies.fitted import known as known
from policies.fitted import line as line
from policies.requests.families import Task
from silo_node.training.grid import Integers, Vector

Bools = npt.NDArray[np.bool_]
Unsigned = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Rows that a family learns from, bounded by `max_rows` of a person, every needed cell of which is there."""

    person: Integers  # shape (rows,): the place of each row's person, from 0
    # Shape (rows,) each. A number or bool: 2 * (steps above low) - (range in steps), a text: its place in the domain.
    cells: Mapping[str, Integers]
    missing: Mapping[str, Bools] = field(default_factory=dict)  # of the columns that may be filled: where there is none
    left_out: int = 0  # rows that lack a needed cell
    persons_left_out: int = 0  # persons with such a row
    # Shape (rows, *column.shape) each: steps above low, from 0 to the range in steps, in as few unsigned bytes as fit.
    arrays: Mapping[str, Unsigned] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.person)

    def at(self, places: Integers) -> "Examples":
        """Return the rows at some places, in the order of these, with all that they have."""
        return replace(
            self,
            person=self.person[places],
            cells={name: cells[places] for name, cells in self.cells.items()},
            missing={name: gap[places] for name, gap in self.missing.items()},
            arrays={name: steps[places] for name, steps in self.arrays.items()},
        )


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What all silos of a run hold after a round: vectors by name, of finite doubles."""

    numbers: Mapping[str, Vector] = field(default_factory=dict)
    ended: RunEnd | None = None
    why: str = ""  # for the owners of the silos alone: which term has no maximum

    def __getitem__(self, name: str) -> Vector:
        return self.numbers[name]

    def one(self, name: str) -> float:
        """Return the only number of a vector."""
        return float(self.numbers[name][0])

    def with_(self, **numbers: npt.ArrayLike) -> "State":
        """Return the state with other vectors; a scalar becomes a vector of one number."""
        made = {name: np.atleast_1d(np.asarray(value, np.float64)) for name, value in numbers.items()}
        return replace(self, numbers={**self.numbers, **made})

    def at_end(self, ended: RunEnd, why: str = "") -> "State":
        return replace(self, ended=ended, why=why)


@dataclass(frozen=True, slots=True, eq=False)
class Own:
    """What a silo keeps for itself of a run, as the last round that counted it left it. It never leaves the silo."""

    run: bytes = b""  # that it was made in: this one, or the one that this one continues
    step: int = -1  # of the round that it was made in; -1 where there was none
    vectors: Mapping[str, Vector] = field(default_factory=dict)  # none where there was none, or it was dropped

    @property
    def is_lost(self) -> bool:
        """Whether there was something that is not here any more."""
        return self.step >= 0 and not self.vectors


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """A silo's part of the sum of a round, and what it keeps of the round for itself."""

    blocks: Sequence[Integers]  # one array a block, in the order of the shape
    own: Mapping[str, Vector] = field(default_factory=dict)  # of the lengths that the shape's `owns` has


@dataclass(frozen=True, slots=True)
class Keeping:
    """The computation of a family whose silos keep something for themselves from one round to the next."""

    contribution: Callable[[Task, State, Examples, Own], Contribution]  # in the place of `Family.statistics`
    scores: Callable[[Task, State, Examples, Own], Vector]  # as `Judged.scores`, by what the silo keeps


@dataclass(frozen=True, slots=True)
class Family:
    """The computation of one family, whose shape is in `policies.requests.families.SHAPES` under the same name."""

    init: Callable[[Task], State]
    statistics: Callable[[Task, State, Examples], list[Integers]]  # one array a block, in the order of the shape
    update: Callable[[Task, State, Mapping[str, Integers]], State]  # by the opened blocks; pure, the same everywhere
    finish: Callable[[Task, State], Fitted]
    judged: "Judged | None" = None  # how its predictions are compared with the labels; None where it predicts nothing
    keeping: Keeping | None = None  # None where silos keep nothing for themselves


@dataclass(frozen=True, slots=True)
class Judged:
    """What a model says of each row, and what is true of it, in the same unit.

    A score needs the features (and the offset) alone, so rows without a label have one too. That of a bool or of a
    named value is its probability, of a text the probability of each of `task.classes`, of a number or a count its
    mean in the label's units, and of a time to an event the log of its relative hazard.
    """

    scores: Callable[[Task, State, Examples], Vector]  # shape (rows,), of a text (rows, classes)
    outcomes: Callable[[Task, Examples], Vector]  # shape (rows,): 0 or 1, the place of the class, or the number


def figure(name: str, value: float) -> Line:
    """Return a figure; a number that is not finite is left out."""
    return Line(name=name, values=(known(value),))
