"""The calls that a graph may have, each a strict message: its arguments, the shape of its result and what it takes.

A call names the nodes, inputs and weights that it reads. `result` raises ValueError where their shapes do not fit it.
Whatever packed a graph, a silo decodes it into these messages and nothing else, and checks each again. The names and
arguments are those of torch.nn.functional; `silo_node.training.networks.interpreter` computes them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import prod
from typing import Annotated, Literal

from pydantic import Field

from crypto.wire import Message
from policies.networks.values import FLOAT_BYTES, Cost, Tensor, checked

# Of an input, a weight or a node. Weights have the names of the module's parameters, such as `layers.0.weight`.
Ref = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$")]
Known = Mapping[str, Tensor]  # of every node, input and weight so far


class Call(Message, ABC):
    """One node of a graph."""

    call: str  # each call names its own
    name: Ref
    of: Ref

    @property
    def reads(self) -> tuple[str, ...]:
        """The nodes and inputs that it reads."""
        return (self.of,)

    @property
    def weights(self) -> tuple[str, ...]:
        """The weights that it reads."""
        return ()

    @abstractmethod
    def result(self, known: Known) -> Tensor:
        """Return what it computes of one row; raises ValueError where the shapes do not fit."""

    @abstractmethod
    def cost(self, known: Known, result: Tensor) -> Cost:
        """Return what it takes forward for one row."""

    @abstractmethod
    def in_words(self, known: Known, result: Tensor) -> str:
        """Return what it computes, for the owner of a silo."""


class Elementwise(Call):
    """An activation: a function of each number."""

    call: Literal["relu", "tanh", "sigmoid", "gelu"]

    def result(self, known: Known) -> Tensor:
        return reals(known, self.of)

    def cost(self, known: Known, result: Tensor) -> Cost:
        return Cost(8 * result.elements, FLOAT_BYTES * result.elements)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"{self.call} of each of {result.elements:,} numbers"


class Linear(Call):
    """A product with a weight of the shape (out, in) over the last axis, and a bias."""

    call: Literal["linear"] = "linear"
    weight: Ref
    bias: Ref | None

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.weight, *(() if self.bias is None else (self.bias,)))

    def result(self, known: Known) -> Tensor:
        found, weight = reals(known, self.of), weight_of(known, self.weight, 2)
        if not found.shape or found.shape[-1] != weight.shape[1]:
            raise ValueError(f"{self.name}: {list(found.shape)} does not fit a weight of {list(weight.shape)}")
        if self.bias is not None and weight_of(known, self.bias, 1).shape != weight.shape[:1]:
            raise ValueError(f"{self.name}: its bias has not the {weight.shape[0]:,} numbers of its weight")
        return Tensor(checked((*found.shape[:-1], weight.shape[0])))

    def cost(self, known: Known, result: Tensor) -> Cost:
        return Cost(2 * result.elements * known[self.weight].shape[1], FLOAT_BYTES * result.elements)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"linear, {known[self.weight].shape[1]:,} to {known[self.weight].shape[0]:,} numbers"


class Flatten(Call):
    """All axes of a row as one."""

    call: Literal["flatten"] = "flatten"

    def result(self, known: Known) -> Tensor:
        found = known[self.of]
        return Tensor((prod(found.shape),), found.is_whole)

    def cost(self, known: Known, result: Tensor) -> Cost:
        return Cost(0, 0)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"the same {result.elements:,} numbers in one row"


def reals(known: Known, name: str) -> Tensor:
    """Return what is known of a node of reals; raises ValueError for one of whole numbers."""
    found = known[name]
    if found.is_whole:
        raise ValueError(f"{name} has whole numbers, which an embedding alone takes")
    return found


def weight_of(known: Known, name: str, axes: int) -> Tensor:
    """Return what is known of a weight; raises ValueError unless it has so many axes."""
    found = known[name]
    if len(found.shape) != axes:
        raise ValueError(f"the weight {name} has {len(found.shape)} axes, expected {axes}")
    return found


AnyCall = Annotated[Elementwise | Linear | Flatten, Field(discriminator="call")]
