"""The portable form of a model: all that a prediction needs, and nothing of rows. Schema "consilo-model/1".

A row's cell of a number or a bool is scaled to [-1, 1] by the bounds of its column; a value of a domain, and whether a
cell is missing, is 0 or 1. Each such term less its `mean`, divided by its `deviation`, times its weight is added to the
intercept (and the offset); a term whose deviation is 0 adds nothing. `link` says what the sum means. docs/training.md.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
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
    """One term of a row: of a column, one value of its domain, whether its cell is missing, or a product of two."""

    name: str
    column: TableColumn
    member: int | None = None  # the place in the domain that is 1
    is_indicator: bool = False  # 1 where the cell is missing
    factors: tuple["Term", ...] = ()  # of a product, whose column is that of the first


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
    # Pairs of features whose products are terms too; left out where there are none.
    interactions: Annotated[
        tuple[tuple[Name, Name], ...], Field(default=(), max_length=16, exclude_if=lambda pairs: not pairs)
    ] = ()
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
        names = {column.name for column in self.columns} - {self.offset}
        if strange := {name for pair in self.interactions for name in pair} - names:
            raise ValueError(f"a product of {', '.join(sorted(strange))}, not among the features")
        width = len(self.terms)
        if not len(self.mean) == len(self.deviation) == width or {len(own) for own in self.weights} != {1 + width}:
            raise ValueError(f"the columns have {width} terms, and the model has others")
        outputs = max(1, len(self.classes) - 1)
        if len(self.weights) != outputs or (self.link == "softmax") != bool(self.classes):
            raise ValueError(f"expected {outputs} outputs for {len(self.classes)} classes, found {len(self.weights)}")
        if self.offset is not None and self.offset not in {column.name for column in self.columns}:
            raise ValueError(f"the offset {self.offset!r} is none of the columns")
        return self

    @property
    def filled(self) -> tuple[str, ...]:
        """The columns that may lack a cell; a domain has its own value for that."""
        numbers = (column.name for column in self.columns if not column.domain and column.name != self.offset)
        return () if self.missing == "drop" else tuple(numbers)

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms of a row, in the order of `mean`, `deviation` and the weights after the intercept."""
        plain = list(self._terms())
        own = {
            name: [one for one in plain if one.column.name == name and not one.is_indicator]
            for pair in self.interactions
            for name in pair
        }
        pairs = (both for one, other in self.interactions for both in product(own[one], own[other]))
        return (*plain, *(Term(f"{a.name} * {b.name}", a.column, factors=(a, b)) for a, b in pairs))

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
            named = {"(intercept)": self.shift + self.scale * own[0]}
            for term, mean, deviation, weight in zip(self.terms, self.mean, self.deviation, own[1:], strict=True):
                if deviation and weight:
                    slope = self.scale * weight / deviation
                    named["(intercept)"] -= slope * mean
                    for name, share in _natural(term).items():
                        named[name] = named.get(name, 0.0) + slope * share
            found.append(named)
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


def _natural(term: Term) -> dict[str, float]:
    """Return a scaled term as a sum of terms in the columns' units, by their names."""
    if not term.factors:
        middle, half = span(term)
        return {"(intercept)": -middle / half, term.name: 1 / half}
    (one, other), ((m, h), (n, k)) = term.factors, map(span, term.factors)
    shares = {"(intercept)": m * n, one.name: -n, other.name: -m, term.name: 1.0}
    return {name: share / (h * k) for name, share in shares.items() if share}


def span(term: Term) -> tuple[float, float]:
    """Return where a term's 0 lies in its column's units, and what 1 is there; 0 and 1 of what is 0 or 1 itself."""
    if term.member is not None or term.is_indicator:
        return 0.0, 1.0
    return middle_and_half(term.column)
