"""The shapes of tensors in a graph, and what a call takes to compute: whole numbers, from the graph alone.

A shape leaves out the rows of a batch, which are the first axis of every tensor that depends on an input. Promise:
nothing here reads a row, and no shape has more elements than `MAX_ELEMENTS`.
"""

from dataclasses import dataclass
from math import prod

Shape = tuple[int, ...]
MAX_AXES = 6
MAX_ELEMENTS = 2**32  # of one tensor for one row
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is known of a node before a row is read."""

    shape: Shape  # of one row
    is_whole: bool = False  # whether its elements are whole numbers, which nothing but an embedding takes

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Cost:
    """What something takes for one row: floating-point operations, and bytes that are held for the way back."""

    flops: int
    held: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.held + other.held)


def checked(shape: Shape) -> Shape:
    """Return a shape; raises ValueError if it has an axis below 1, too many axes or too many elements."""
    if len(shape) > MAX_AXES or any(size < 1 for size in shape):
        raise ValueError(f"a tensor of shape {list(shape)}, expected at most {MAX_AXES} axes of 1 or more")
    if prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"a tensor of {prod(shape):,} elements a row, at most {MAX_ELEMENTS:,} are computed")
    return shape
