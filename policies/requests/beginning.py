"""The model that a run of a network begins with: one that all silos of the run hold, named by its run and last report.

Promise: the request says which model it is, so every silo begins with the same weights or takes no part.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from crypto.wire import Digest, Message, RoundId

Vector = npt.NDArray[np.float64]


class Begins(Message):
    """A model that has been trained: its run, and the SHA-256 of the encrypted report that it was learned from last."""

    run: RoundId
    position: Digest

    def __str__(self) -> str:
        return f"the model of run {self.run.hex()}, after the report {self.position.hex()}"


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """The weights of that model, as a silo holds them; one after another, as a network's shared weights are."""

    weights: Vector = field(repr=False)
