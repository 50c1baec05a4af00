"""What every call of a graph has: its name, what it reads, the shape of its result, what it takes, and words for it.

A call names the nodes, inputs and weights that it reads. `result` raises ValueError where their shapes do not fit it;
the graph puts the call's name before the reason.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from crypto.wire import Message
from policies.networks.values import FLOAT_BYTES, MAX_AXES, Cost, Shape, Tensor

# Of an input, a weight or a node. Weights have the names of the module's parameters, such as `layers.0.weight`.
Ref = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$")]
# A plain decimal in its one spelling: no exponent, no zero at its end, no -0.
Number = Annotated[
    str, Field(pattern=r"^-?([1-9][0-9]{0,8}|0\.[0-9]{0,23}[1-9]|[1-9][0-9]{0,8}\.[0-9]{0,23}[1-9])$|^0$")
]
Size = Annotated[int, Field(ge=1, le=2**24)]
Axis = Annotated[int, Field(ge=0, lt=MAX_AXES)]  # of a row, from 0: the rows of a batch are no axis
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
        """Return what it takes forward for one row: at least what torch computes, and holds for the way back."""

    @abstractmethod
    def in_words(self, known: Known, result: Tensor) -> str:
        """Return what it computes, for the owner of a silo."""


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


def fitting(known: Known, name: str | None, shape: Shape) -> None:
    """Raise ValueError unless a weight, where there is one, has a shape."""
    if name is not None and known[name].shape != shape:
        raise ValueError(f"the weight {name} has the shape {list(known[name].shape)}, expected {list(shape)}")


def named(*names: str | None) -> tuple[str, ...]:
    """Return those names that are there."""
    return tuple(name for name in names if name is not None)


def has_axis(tensor: Tensor, axis: int) -> int:
    """Return the size of an axis; raises ValueError if there is none."""
    if axis >= len(tensor.shape):
        raise ValueError(f"axis {axis} of a row of the shape {list(tensor.shape)}, count axes of a row from 0")
    return tensor.shape[axis]


def each(tensor: Tensor, flops: int, kept: int = 1) -> Cost:
    """Return the cost of so many operations for each element, with so many copies held."""
    return Cost(flops * tensor.elements, FLOAT_BYTES * kept * tensor.elements)


def sizes(shape: Shape) -> str:
    """Return a shape as people write it, such as 8 x 8 x 64."""
    return " x ".join(f"{size:,}" for size in shape) or "1 number"
