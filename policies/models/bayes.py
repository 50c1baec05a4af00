"""The form of a naive Bayes model, to score rows with. Schema "consilo-bayes/1".

Each class begins at its `prior`, the logarithm of its share. A number or a bool of `numbers` is normal in each class,
in the column's units: it adds the logarithm of its density, and nothing where the variance is 0. A column of `values`
adds what its cell's value says. A missing cell adds nothing. The score of a class is its share of the exponentials of
these sums; a class without a prior has 0. Hastie, Tibshirani and Friedman (2009), section 6.6.3. docs/training.md.
"""

import json
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from crypto.wire import Message, Name
from policies.models.portable import Finite, Finites, Text, middle_and_half, range_of
from policies.models.scores import RowCells, Vector
from policies.requests.families import values_of
from policies.requests.tables import TableColumn

SCHEMA = "consilo-bayes/1"


class Normal(Message):
    """A column that is normal in each class: its means and variances, one for each class with a prior."""

    column: TableColumn
    mean: Finites
    variance: Finites


class Values(Message):
    """A column whose values are counted: for each class with a prior, the logarithm of the share of each value."""

    column: TableColumn
    logs: tuple[Finites, ...]


class Bayes(Message):
    """A naive Bayes model."""

    MAX_BYTES: ClassVar[int] = 4 << 20
    MAX_COMMAS: ClassVar[int] = 2**18
    version: Literal["consilo-bayes/1"] = "consilo-bayes/1"
    model: Name
    label: Name
    classes: Annotated[tuple[Text, ...], Field(max_length=1000)] = ()  # of a text label; none of a bool
    missing: Literal["drop", "skip"] = "drop"
    priors: tuple[Finite | None, ...]  # of each class, or of false and true; None of one that is left out
    numbers: tuple[Normal, ...] = ()
    values: tuple[Values, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.priors) != (len(self.classes) or 2) or not self.shown:
            raise ValueError(f"expected a prior for each of {len(self.classes) or 2} classes, and at least one")
        shown = len(self.shown)
        for number in self.numbers:
            if not len(number.mean) == len(number.variance) == shown or min(number.variance) < 0:
                raise ValueError(f"{number.column.name} has no mean and variance of each of {shown} classes")
        for one in self.values:
            if {len(own) for own in one.logs} != {len(values_of(one.column))} or len(one.logs) != shown:
                raise ValueError(f"{one.column.name} has no share of each value in each of {shown} classes")
        return self

    @property
    def shown(self) -> tuple[int, ...]:
        """The places of the classes that have a prior."""
        return tuple(place for place, prior in enumerate(self.priors) if prior is not None)

    @property
    def columns(self) -> tuple[TableColumn, ...]:
        """The features."""
        return (*(one.column for one in self.numbers), *(one.column for one in self.values))

    @property
    def filled(self) -> tuple[str, ...]:
        """The columns that may lack a cell; a domain has its own value for that."""
        return () if self.missing == "drop" else tuple(one.name for one in self.columns if not one.domain)

    def exported(self) -> str:
        """Return the form as a JSON file."""
        fields = self.model_dump(mode="json", exclude={"version"})
        return json.dumps({"schema": SCHEMA, **fields}, indent=1, ensure_ascii=False) + "\n"


def bayes_scores(model: Bayes, rows: RowCells) -> Vector:
    """Return the probability of true, of shape (rows,), or of each class, of shape (rows, classes)."""
    shown = list(model.shown)
    found = np.tile(np.array([prior for prior in model.priors if prior is not None])[:, None], rows.rows)
    for number in model.numbers:
        (middle, half), gap = middle_and_half(number.column), rows.missing.get(number.column.name)
        cells = middle + half * (rows.cells[number.column.name] / float(range_of(number.column)))
        for place, (mean, variance) in enumerate(zip(number.mean, number.variance, strict=True)):
            if variance > 0:
                distance = cells - mean
                part = -0.5 * (np.log(2 * np.pi * variance) + distance * distance / variance)
                found[place] += part if gap is None else np.where(gap, 0.0, part)
    for one in model.values:
        own, gap = rows.cells[one.column.name], rows.missing.get(one.column.name)
        part = np.array(one.logs)[:, own if one.column.domain else (own > 0).astype(np.int64)]
        found += part if gap is None else np.where(gap, 0.0, part)
    shares = np.exp(found - found.max(0))
    scored = np.zeros((rows.rows, len(model.priors)))
    scored[:, shown] = (shares / shares.sum(0)).T
    return scored if model.classes else np.asarray(scored[:, 1])
