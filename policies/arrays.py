"""The limits of columns of arrays: their axes, their elements, and their numbers, the same in a policy and on the wire.

An array is one cell: all rows of a column have the same shape, and every element the same bounds and step. Its numbers
are whole steps above the lower bound, which are exact in 64 bits and stored in as few as hold them.
"""

from decimal import Decimal
from math import prod
from typing import Annotated, Literal

from pydantic import Field

MAX_AXES = 4
MAX_CELL = 2**20  # elements of one cell
MAX_NUMBER = 400_000_000  # of an element, and of its lower bound: in units of 1e-9 it is exact in 64 bits
MAX_ARRAY_STEPS = 2**32 - 1  # of an element above its lower bound
Shape = Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_CELL)], ...], Field(max_length=MAX_AXES)]
Of = Literal["int", "decimal"]


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise ValueError if a cell of this shape has too many elements."""
    if prod(shape) > MAX_CELL:
        raise ValueError(f"an array of shape {list(shape)} has {prod(shape):,} elements, at most {MAX_CELL:,} are read")


def check_elements(of: Of, low: int, high: int, step: Decimal) -> None:
    """Raise ValueError unless elements between two bounds (in steps) are exact in 64 bits, and in as few as fit."""
    if of == "int" and step % 1:
        raise ValueError(f'an array of int has a whole step, not {step}; take of = "decimal", or another step')
    if max(-low, high) * step > MAX_NUMBER:
        raise ValueError(f"the numbers of an array lie between -{MAX_NUMBER:,} and {MAX_NUMBER:,}; take such bounds")
    if high - low > MAX_ARRAY_STEPS:
        raise ValueError(f"an array has at most {MAX_ARRAY_STEPS:,} steps between its bounds; take a longer step")
