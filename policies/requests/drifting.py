"""The public bins of scores and features, by which it is told how far they have moved: from the request alone."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.domains import LongDomain
from policies.requests.families import SHAPES
from policies.requests.metrics import prediction_of
from policies.requests.scores import COARSE
from policies.requests.shapes import Task
from policies.requests.tables import TableColumn

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
_TENTHS = 10  # of the bounds of a number
_PARTS = 100  # of a long domain, whose values are too many to be counted one by one
_MOST_HAZARD, _HAZARDS = 4.0, 16  # of the logarithm of a relative hazard, and the bins between


@dataclass(frozen=True, slots=True)
class ScoreBins:
    """The bins of a model's scores: their names, and the bin of each score."""

    names: tuple[str, ...]
    places: Callable[[Floats], Integers]  # of scores of shape (rows,) or (rows, classes)

    @property
    def count(self) -> int:
        return len(self.names)


def score_bins(task: Task) -> ScoreBins:
    """Return the bins of what a family predicts; raises ValueError where it predicts nothing.

    Of a chance by its log-odds, of classes the one of the greatest chance, of a number tenths of the label's bounds and
    what lies beyond them, of a relative hazard by its logarithm.
    """
    match prediction_of(task):
        case "chance":
            return ScoreBins(tuple(f"from {edge:.4g}" for edge in COARSE.edges[:-1]), COARSE.places)
        case "classes":
            return ScoreBins(tuple(task.groups), _likeliest)
        case "number":
            column = task.label_column
            grain = Decimal(column.step or "1")
            low, high = (Decimal(0), Decimal(1)) if column.type == "bool" else _bounds(column, grain)
            edges = [low + (high - low) * place / _TENTHS for place in range(_TENTHS + 1)]
            return _between(tuple(map(float, edges)))
        case "order":
            return _between(tuple(np.linspace(-_MOST_HAZARD, _MOST_HAZARD, _HAZARDS + 1).tolist()))
        case None if (
            SHAPES[task.family].predicts == "label"
        ):  # inputs again: how far they are from usual, within 0 and 1
            return ScoreBins(tuple(f"from {edge:.4g}" for edge in COARSE.edges[:-1]), COARSE.places)
        case None:
            raise ValueError(f"{task.family} predicts nothing of a row, so no scores can move")


def _bounds(column: TableColumn, grain: Decimal) -> tuple[Decimal, Decimal]:
    return (column.low or 0) * grain, (column.high or 0) * grain


def _likeliest(scores: Floats) -> Integers:
    return np.asarray(np.nan_to_num(scores, nan=-1.0).argmax(1) if len(scores) else np.zeros(0), np.int64)


def _between(edges: tuple[float, ...]) -> ScoreBins:
    """Return the bins between edges, of what is below the first, and from the last on; what is no number is below."""

    def places(scores: Floats) -> Integers:
        return np.searchsorted(np.array(edges), np.nan_to_num(scores, nan=-np.inf), "right").astype(np.int64)

    return ScoreBins((f"below {edges[0]:.6g}", *(f"from {edge:.6g}" for edge in edges)), places)


def feature_bins(column: TableColumn) -> tuple[str, ...]:
    """Return the bins of a feature: its values, or tenths of its bounds, then the missing.

    Of an array the mean of its numbers is counted, in tenths of its bounds. A domain has its own value for a missing
    cell. The values of a long one are counted in a hundred parts, in order.
    """
    if isinstance(column.domain, LongDomain):
        return tuple(f"from value {place * len(column.domain) // _PARTS + 1}" for place in range(_PARTS))
    if column.domain:
        return tuple(column.domain)
    if column.type == "bool":
        return ("false", "true", "missing")
    if column.type == "array":
        return tuple(f"mean from {place / _TENTHS:g} of its bounds" for place in range(_TENTHS))
    grain, low, steps = Decimal(column.step or 1), column.low or 0, column.range_steps + 1
    count = min(_TENTHS, steps)
    edges = [(low - -steps * place // count) * grain for place in range(count)]
    return (*(f"from {edge:f}" for edge in edges), "missing")


def feature_places(column: TableColumn, cells: Integers, missing: npt.NDArray[np.bool_] | None) -> Integers:
    """Return the bin of each cell, coded as `silo_node.training.family.Examples` has it."""
    count = len(feature_bins(column))
    if column.type == "bool":
        places = np.asarray(cells > 0, np.int64)
    elif isinstance(column.domain, LongDomain):
        # The first value of a part is at the floor of its share of the domain: the part of a value follows from it.
        places = ((cells + 1) * _PARTS - 1) // len(column.domain)
    elif column.domain:
        places = cells
    else:
        steps = (cells + column.range_steps) // 2
        places = steps * (count - 1) // (column.range_steps + 1)
    return np.asarray(places if missing is None else np.where(missing, count - 1, places), np.int64)


def array_places(column: TableColumn, steps: npt.NDArray[np.unsignedinteger[Any]]) -> Integers:
    """Return the bin of each row's array, of shape (rows, *column.shape), in steps above its lower bound."""
    total = steps.reshape(len(steps), prod(column.shape)).sum(1, dtype=np.int64)
    most = column.range_steps * prod(column.shape)
    return np.asarray(np.minimum(total * _TENTHS // most, _TENTHS - 1), np.int64)
