"""Sums over persons of the gradients of their mean losses, each bounded in whole units of a clip.

Promise: a person's part is a function of that person's rows and of the weights alone, and no longer than the bound.
Persons with as many rows as each other are computed together, in doubles, each with a batch of their own
(`torch.func.vmap` over `torch.func.grad`; Abadi et al., CCS 2016). In which company somebody is computed can change the
last bits of a double, and where a number is nearly a tie between two units, how it is rounded: whoever has such a
number is computed once more, alone, so that nobody's part depends on who else is there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from silo_node.training.grid import Integers, Vector
from silo_node.training.noised import whole
from silo_node.training.noised.clipped import BLOCK_CELLS

MARGIN = 2.0**-26  # of a unit: a hundred times what another order of additions changes in a sum of doubles

Tensors = Mapping[str, torch.Tensor]
Loss = Callable[[Tensors, Tensors, torch.Tensor], torch.Tensor]  # of weights, inputs and targets: the mean of the rows
Gradient = Callable[[Tensors, Tensors, torch.Tensor], Tensors]


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """The rows of a silo's persons, in any order."""

    person: Integers  # shape (rows,)
    inputs: Tensors  # rows first
    targets: torch.Tensor  # rows first


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """To what a person's gradient is shortened: a clip, which is so many units."""

    clip: float
    units: int


@dataclass(frozen=True, slots=True, eq=False)
class Summed:
    """What a silo's persons add up to."""

    units: Integers  # shape (numbers,), in clip / units
    persons: int
    within: int  # persons whose gradient was no longer than the clip


def summed(loss: Loss, weights: Tensors, people: People, bound: Bound, row_cells: int) -> Summed:
    """Return the sum over persons of their bounded gradients by `weights`, in the order of these.

    `row_cells` is about how many numbers a row holds until its gradient is there.
    """
    doubles = {name: one.to(torch.float64) for name, one in weights.items()}
    numbers = sum(one.numel() for one in doubles.values())
    total, persons, within = np.zeros(numbers, np.int64), 0, 0
    gradient: Gradient = torch.func.grad(loss)
    for places in _together(people.person, numbers, row_cells):
        inputs, targets = _gathered(people, places)
        parts = _of_all(gradient, doubles, inputs, targets)
        shares, is_within = whole.scaled(parts, bound.clip, bound.units)
        for one in np.flatnonzero(whole.doubtful(shares, parts, bound.clip, MARGIN)):
            own = _of_one(gradient, doubles, *_gathered(people, places[one]))[None]
            shares[one], is_within[one] = (found[0] for found in whole.scaled(own, bound.clip, bound.units))
        total += whole.rounded(shares, bound.units).sum(0)
        persons, within = persons + len(places), within + int(is_within.sum())
    return Summed(total, persons, within)


def _together(person: Integers, numbers: int, row_cells: int) -> Iterator[Integers]:
    """Yield the places of rows, of shape (persons, rows of each): persons with as many rows, a few at a time."""
    order = np.argsort(person, kind="stable")
    _, starts, counts = np.unique(person[order], return_index=True, return_counts=True)
    for rows in np.unique(counts):
        first = starts[counts == rows]
        most = max(1, BLOCK_CELLS // max(numbers, int(rows) * row_cells))
        for begin in range(0, len(first), most):
            yield order[first[begin : begin + most, None] + np.arange(rows)]


def _gathered(people: People, places: npt.NDArray[np.int64]) -> tuple[Tensors, torch.Tensor]:
    """Return the rows at these places, in doubles where they are real; shapes begin as that of `places`."""
    at = torch.from_numpy(np.ascontiguousarray(places))
    return {name: _double(one[at]) for name, one in people.inputs.items()}, _double(people.targets[at])


def _double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.float64) if tensor.is_floating_point() else tensor


def _of_all(gradient: Gradient, weights: Tensors, inputs: Tensors, targets: torch.Tensor) -> Vector:
    """Return the gradients of persons, of shape (persons, numbers)."""
    together = torch.func.vmap(gradient, in_dims=(None, 0, 0), randomness="different")
    try:
        found: Tensors = together(weights, inputs, targets)
    except (NotImplementedError, RuntimeError):  # a call that has no form for many batches at once
        each = ({name: one[place] for name, one in inputs.items()} for place in range(len(targets)))
        return np.stack([_of_one(gradient, weights, own, target) for own, target in zip(each, targets, strict=True)])
    parts = [found[name].reshape(len(targets), -1) for name in weights]
    return np.asarray(torch.cat(parts, 1).numpy())


def _of_one(gradient: Gradient, weights: Tensors, inputs: Tensors, targets: torch.Tensor) -> Vector:
    """Return the gradient of one person, of shape (numbers,)."""
    found = gradient(weights, inputs, targets)
    return np.asarray(torch.cat([found[name].reshape(-1) for name in weights]).numpy())
