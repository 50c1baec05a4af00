"""Which persons a model does not learn from, so that it is judged by rows that it has never seen.

A person is on one side as a whole. A column of the role `held_out` says it: who has a row where it is true is held out.
Or a split does: a pseudorandom function of the person's id, under a secret that a round of its own has made
(`policies/requests/split.py`). A split has no column, so nobody chooses who is held out. docs/protocol.md 11.
"""

from typing import Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from crypto.wire import Message, Name, RoundId

PARTS = 1000  # of the whole, in which a share is stated
STEP = 50  # of these parts, by which shares differ


class HeldOut(Message):
    """The persons who are held out: those that a column names, or a share of all by a split."""

    column: Annotated[Name | None, Field(default=None, exclude_if=lambda name: name is None)] = None
    # The run that made the split's secret, and how many of 1,000 persons are held out on the average. By whole 50: a
    # larger share holds out the same persons and more, and between two shares there are never one or two alone.
    split: Annotated[RoundId | None, Field(default=None, exclude_if=lambda run: run is None)] = None
    parts: Annotated[
        int | None, Field(default=None, ge=STEP, lt=PARTS, multiple_of=STEP, exclude_if=lambda parts: parts is None)
    ] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.column is None) == (self.split is None) or (self.split is None) != (self.parts is None):
            raise ValueError("rows are held out by a column, or by a split and its share")
        return self

    def __str__(self) -> str:
        return self.in_words if self.split is None else f"{self.in_words}, by the split {self.split.hex()}"

    @property
    def in_words(self) -> str:
        """Who is held out, in words."""
        if self.parts is None:
            return f"those that {self.column} marks"
        return f"{self.parts / PARTS:g} of all persons"


def marks_of(held_out: HeldOut | None) -> tuple[Name, ...]:
    """Return the column that says who is held out, if one does."""
    return () if held_out is None or held_out.column is None else (held_out.column,)


class Side(NamedTuple):
    """The persons whose rows a computation takes: those who are held out, or all others."""

    held_out: HeldOut
    is_held_out: bool

    @property
    def split(self) -> bytes | None:
        """The run whose secret divides the persons; None where a column does."""
        return self.held_out.split
