"""How a silo trains a network on its own rows: some epochs of stochastic gradient descent in float32.

A pure function of weights, rows and the orders in which batches are taken; no generator of torch has a part in it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from policies.networks.demand import scored_at_once
from policies.networks.graph import Graph
from silo_node.training.networks.device import current, to_array, to_device
from silo_node.training.networks.inputs import Arrays
from silo_node.training.networks.interpreter import computed

Weights = Mapping[str, torch.Tensor]
Losses = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of the output and the targets, by row
Order = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A silo's rows as tensors, rows first."""

    inputs: Mapping[str, torch.Tensor]
    targets: torch.Tensor

    @property
    def count(self) -> int:
        return len(self.targets)

    def some(self, places: torch.Tensor | slice) -> "Rows":
        return Rows({name: one[places] for name, one in self.inputs.items()}, self.targets[places])


@dataclass(frozen=True, slots=True)
class Descent:
    """How the steps are taken."""

    rate: float
    batch: int  # rows of a step at most
    momentum: float = 0.0
    decay: float = 0.0  # of a weight, times the rate, in a step
    pull: float = 0.0  # towards other weights, times the distance: of FedProx, and of Ditto
    seed: int = 0  # of the generator that says which numbers a dropout drops


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What a training gave."""

    weights: Weights
    loss: float  # mean of the rows of the last epoch, each at the weights that its batch met


def rows_of(inputs: Arrays, targets: npt.NDArray[np.generic]) -> Rows:
    """Return rows as tensors."""
    return Rows({name: to_device(one) for name, one in inputs.items()}, to_device(targets))


def trained(
    graph: Graph,
    weights: Weights,
    moved: tuple[str, ...],
    rows: Rows,
    losses: Losses,
    descent: Descent,
    *orders: Order,
    correction: Weights | None = None,
    towards: Weights | None = None,
) -> Trained:
    """Return the weights after an epoch for each order, which has every row once. Only the weights `moved` move.

    A `correction` is added to the gradient of those weights that it has, in every step; the descent's pull is `towards`
    these weights, or those that it begins at.
    """
    generator = torch.Generator(current()).manual_seed(descent.seed)
    own = {name: one.clone() for name, one in weights.items()}
    free = [own[name].requires_grad_() for name in moved]
    added = (
        [
            torch.zeros_like(one) if name not in correction else correction[name]
            for name, one in zip(moved, free, strict=True)
        ]
        if correction
        else []
    )
    anchor = [(weights if towards is None else towards)[name] for name in moved]
    velocity = [torch.zeros_like(one) for one in free] if descent.momentum else []
    total = torch.zeros((), dtype=torch.float64, device=current())
    for order in orders:
        total = torch.zeros_like(total)
        for batch in torch.split(to_device(order), descent.batch):
            some = rows.some(batch)
            output = computed(graph, own, some.inputs, is_training=True, generator=generator)
            found = losses(output, some.targets)
            slopes = list(torch.autograd.grad(found.mean(), free))
            total += found.detach().sum()
            with torch.no_grad():
                _step(free, slopes, velocity, anchor, added, descent)
    for one in free:
        one.requires_grad_(False)
    return Trained(own, float(total) / max(1, rows.count))


def _step(
    free: list[torch.Tensor],
    slopes: list[torch.Tensor],
    velocity: list[torch.Tensor],
    anchor: list[torch.Tensor],
    added: list[torch.Tensor],
    descent: Descent,
) -> None:
    for place, (weight, slope) in enumerate(zip(free, slopes, strict=True)):
        if added:
            slope.add_(added[place])
        if descent.decay:
            slope.add_(weight, alpha=descent.decay)
        if descent.pull:
            slope.add_(weight - anchor[place], alpha=descent.pull)
        if velocity:
            slope = velocity[place].mul_(descent.momentum).add_(slope)
        weight.add_(slope, alpha=-descent.rate)


def outputs(graph: Graph, weights: Weights, inputs: Mapping[str, torch.Tensor]) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield the output of rows in blocks, and which rows they are."""
    count, at_once = len(next(iter(inputs.values()))), scored_at_once(graph)
    with torch.no_grad():
        for start in range(0, count, at_once):
            block = slice(start, min(start + at_once, count))
            yield block, computed(graph, weights, {name: one[block] for name, one in inputs.items()})


def loss_sum(graph: Graph, weights: Weights, rows: Rows, losses: Losses) -> float:
    """Return the sum of the losses of all rows, in doubles."""
    with torch.no_grad():
        found = (losses(out, rows.targets[block]) for block, out in outputs(graph, weights, rows.inputs))
        return float(sum(float(one.sum(dtype=torch.float64)) for one in found))


def doubled(known: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors whose reals are doubles."""
    return {name: one.double() if one.is_floating_point() else one for name, one in known.items()}


def tensors(graph: Graph, places: Mapping[str, slice], vector: npt.NDArray[np.float64]) -> dict[str, torch.Tensor]:
    """Return the weights that lie at these places of a vector, in float32."""
    shapes = {weight.name: weight.shape for weight in graph.weights}
    return {name: to_device(vector[place].astype(np.float32).reshape(shapes[name])) for name, place in places.items()}


def vector_of(places: Mapping[str, slice], weights: Weights) -> npt.NDArray[np.float64]:
    """Return weights as one vector, in the order of their places."""
    parts = [to_array(weights[name]).astype(np.float64).reshape(-1) for name in places]
    return np.concatenate([np.zeros(0), *parts])
