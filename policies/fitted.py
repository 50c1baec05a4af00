"""What a model found, as its owners see it, and its analyst where the model is released: listings, figures, notes."""

import math
from collections.abc import Iterable
from typing import Annotated, ClassVar

from pydantic import Field

from crypto.wire import Message

Number = Annotated[float | None, Field(allow_inf_nan=False)]
MAX_TEXT = 400
Text = Annotated[str, Field(max_length=MAX_TEXT)]


class Line(Message):
    """One line of a listing: what it is of, and its numbers under the headings; None where there is none."""

    name: Text
    values: tuple[Number, ...]


class Listing(Message):
    """A table of what a model found, such as its coefficients."""

    name: Text
    headings: tuple[Text, ...]
    lines: tuple[Line, ...]


class Fitted(Message):
    """What a model's owners see of it."""

    MAX_BYTES: ClassVar[int] = 4 << 20
    MAX_COMMAS: ClassVar[int] = 2**18
    listings: tuple[Listing, ...]
    figures: tuple[Line, ...]  # of one number each, such as the rows
    notes: tuple[Text, ...] = ()  # such as the columns that were dropped


def known(value: float) -> float | None:
    """Return a number as a listing has it: None where it is not finite."""
    return float(value) if math.isfinite(value) else None


def line(name: str, values: Iterable[float]) -> Line:
    """Return a line with the finite ones among its numbers; a long name is cut."""
    return Line(name=name[:MAX_TEXT], values=tuple(map(known, values)))
