"""Score rows by the portable form of a model: the same numbers as at a silo, by the same arithmetic in one order.

numpy alone. Pure: arrays in, arrays out. Rows are whole steps and places of a domain: `RowCells`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from policies.array_steps import Unsigned
from policies.models.portable import Portable, Term, middle_and_half, range_of

Vector = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class RowCells:
    """Rows as whole numbers, by column. Shapes (rows,).

    A number or a bool: 2 * (steps above the lower bound) - (range in steps). A text: its place in the domain.
    """

    cells: Mapping[str, Integers]
    missing: Mapping[str, Bools] = field(default_factory=dict)  # of numbers and bools: where there is none
    arrays: Mapping[str, Unsigned] = field(default_factory=dict)  # in steps above the lower bound: (rows, *shape)

    @property
    def rows(self) -> int:
        return next((len(own) for each in (self.cells, self.arrays) for own in each.values()), 0)


def scores(model: Portable, rows: RowCells) -> Vector:
    """Return what the model says of each row, of shape (rows,), with classes (rows, classes).

    That is the mean of the label: a number, a share, the share of each class, or a count; of `cox` the logarithm of the
    hazard relative to a row of mean features.
    """
    return linked(model, predictors(model, rows))


def predictors(model: Portable, rows: RowCells) -> Vector:
    """Return the sums of the rows' terms, of shape (outputs, rows), added in the order of the terms."""
    found = np.zeros((len(model.weights), rows.rows))
    if model.offset is not None:
        found += _offset(model, rows)
    found += np.array([own[0] for own in model.weights])[:, None]
    for place, term in enumerate(model.terms, 1):
        weights = [own[place] for own in model.weights]
        if any(weights):
            column = _standardised(term, model.mean[place - 1], model.deviation[place - 1], rows)
            for output, weight in enumerate(weights):
                if weight:
                    found[output] += column * weight
    return found


def linked(model: Portable, found: Vector) -> Vector:
    """Return the scores that linear predictors stand for; no exponential of a share overflows."""
    match model.link:
        case "identity":
            return np.asarray(model.shift + model.scale * found[0])
        case "logistic":
            small = np.exp(-np.abs(found[0]))
            return np.asarray(np.where(found[0] >= 0, 1.0, small) / (1.0 + small))
        case "softmax":
            top = np.maximum(found.max(0), 0.0)
            shares, whole = np.exp(found - top), np.exp(-top)
            for each in shares:
                whole = whole + each
            return np.vstack([np.exp(-top) / whole, shares / whole]).T
        case "log":
            return np.asarray(np.exp(found[0]))
        case "log-hazard":
            return np.asarray(found[0])


def _offset(model: Portable, rows: RowCells) -> Vector:
    column = next(one for one in model.columns if one.name == model.offset)
    middle, half = middle_and_half(column)
    return np.asarray(rows.cells[column.name] / float(range_of(column)) * half + middle)


def _scaled(term: Term, rows: RowCells) -> Vector:
    """Return a term of each row before it is standardised, 0 where the cell is missing."""
    if term.factors:
        one, other = (_scaled(factor, rows) for factor in term.factors)
        return np.asarray(one * other)
    gap = rows.missing.get(term.column.name)
    if term.is_indicator:
        return np.zeros(rows.rows) if gap is None else gap.astype(np.float64)
    cells = rows.cells[term.column.name]
    if term.member is not None:
        return np.asarray((cells == term.member).astype(np.float64))
    found = cells / float(range_of(term.column))
    return np.asarray(found if gap is None else np.where(gap, 0.0, found))


def _gap(term: Term, rows: RowCells) -> Bools | None:
    """Return where a cell of a term is missing; None if all are there."""
    if not term.factors:
        return None if term.is_indicator else rows.missing.get(term.column.name)
    gaps = [gap for factor in term.factors if (gap := _gap(factor, rows)) is not None]
    return np.logical_or.reduce(gaps) if gaps else None


def _standardised(term: Term, mean: float, deviation: float, rows: RowCells) -> Vector:
    if deviation == 0:
        return np.zeros(rows.rows)
    found, gap = (_scaled(term, rows) - mean) / deviation, _gap(term, rows)
    return np.asarray(found if gap is None else np.where(gap, 0.0, found))
