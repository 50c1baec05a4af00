"""The portable form of a model: all that a prediction needs, and nothing of rows. Schema "consilo-model/1".

A row's cell of a number or a bool is scaled to [-1, 1] by the bounds of its column; a value of a domain, and whether a
cell is missing, is 0 or 1. Each such term less its `mean`, divided by its `deviation`, times its weight is added to the
intercept (and the offset); a term whose deviation is 0 adds nothing. `link` says what the sum means. docs/training.md.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from crypto.wire import Message, Name
from policies.domains import LongDomain
from policies.requests.tables import MAX_TEXT, TableColumn

SCHEMA = "consilo-model/1"
Finite = Annotated[float, Field(allow_inf_nan=False)]
Finites = tuple[Finite, ...]
Text = Annotated[str, Field(max_length=MAX_TEXT)]
# What the sum of a row means: a number in units of the label, log-odds, log-odds of each class against the first, the
# logarithm of an expected count, or that of a relative hazard.
Link = Literal["identity", "logistic", "softmax", "log", "log-hazard"]
Missing = Literal["drop", "mean", "indicator"]


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a row: of a column, one value of its domain, or whether its cell is missing."""

    name: str
    column: TableColumn
    member: int | None = None  # the place in the domain that is 1
    is_indicator: bool = False  # 1 where the cell is missing


class Portable(Message):
    """A model of the linear families, to score rows with. The first weight of each output is the intercept."""

    MAX_BYTES: ClassVar[int] = 4 << 20
    MAX_COMMAS: ClassVar[int] = 2**18
    version: Literal["consilo-model/1"] = "consilo-model/1"
    model: Name
    label: Name | None
    classes: Annotated[tuple[Text, ...], Field(max_length=1000)] = ()  # of which the scores are shares, where several
    positive: Text = ""  # the value of a text label whose share a score is
    columns: Annotated[tuple[TableColumn, ...], Field(max_length=65)]  # the features, then the offset
    offset: Name | None = None
    missing: Missing = "drop"
    mean: Finites
    deviation: Finites
    weights: tuple[Finites, ...]  # of each output
    link: Link
    scale: Finite = 1.0  # of an identity: the label is shift + scale * sum
    shift: Finite = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(isinstance(column.domain, LongDomain) for column in self.columns):
            raise ValueError("a column has a long domain, which no portable form lists")
        width = sum(1 for _ in self._terms())
        if not len(self.mean) == len(self.deviation) == width or {len(own) for own in self.weights} != {1 + width}:
            raise ValueError(f"the columns have {width} terms, and the model has others")
        outputs = max(1, len(self.classes) - 1)
        if len(self.weights) != outputs or (self.link == "softmax") != bool(self.classes):
            raise ValueError(f"expected {outputs} outputs for {len(self.classes)} classes, found {len(self.weights)}")
        if self.offset is not None and self.offset not in {column.name for column in self.columns}:
            raise ValueError(f"the offset {self.offset!r} is none of the columns")
        return self

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms of a row, in the order of `mean`, `deviation` and the weights after the intercept."""
        return tuple(self._terms())

    def _terms(self) -> Iterator[Term]:
        for column in self.columns:
            if column.name == self.offset:
                continue
            if column.domain:
                for member, value in enumerate(column.domain[1:], 1):
                    yield Term(f"{column.name} = {value}", column, member)
                continue
            yield Term(column.name, column)
            if self.missing == "indicator":
                yield Term(f"{column.name} is missing", column, is_indicator=True)

    def coefficients(self) -> list[dict[str, float]]:
        """Return for each output what a unit of each column adds, in the columns' units, and the intercept at 0."""
        found = []
        for own in self.weights:
            intercept, named = own[0], dict[str, float]()
            for term, mean, deviation, weight in zip(self.terms, self.mean, self.deviation, own[1:], strict=True):
                if not deviation or not weight:
                    continue
                middle, half = span(term)
                named[term.name] = self.scale * weight / (deviation * half)
                intercept -= weight * (mean + middle / half) / deviation
            found.append({"(intercept)": self.shift + self.scale * intercept, **named})
        return found

    def exported(self) -> str:
        """Return the form as a JSON file, with the coefficients in the columns' units beside it."""
        fields = self.model_dump(mode="json", exclude={"version"})
        document = {"schema": SCHEMA, **fields, "terms": [term.name for term in self.terms]}
        return json.dumps({**document, "coefficients": self.coefficients()}, indent=1, ensure_ascii=False) + "\n"


def middle_and_half(column: TableColumn) -> tuple[float, float]:
    """Return the middle and half the width of the bounds of a number or a bool, in its own units."""
    if column.type == "bool":
        return 0.5, 0.5
    low, high, grain = column.low or 0, column.high or 0, float(Decimal(column.step or "1"))
    return (low + high) / 2 * grain, (high - low) / 2 * grain


def range_of(column: TableColumn) -> int:
    """Return the range of a number or a bool in steps."""
    return 1 if column.type == "bool" else column.range_steps


def span(term: Term) -> tuple[float, float]:
    """Return where a term's 0 lies in its column's units, and what 1 is there; 0 and 1 of what is 0 or 1 itself."""
    if term.member is not None or term.is_indicator:
        return 0.0, 1.0
    return middle_and_half(term.column)
