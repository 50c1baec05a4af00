"""What makes groups less unlike: weights for rows before a model is trained, thresholds by group for its scores.

Kamiran and Calders, Knowl. Inf. Syst. 33 (2012), for reweighing; Hardt, Price and Srebro, NIPS 2016, for thresholds.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from policies.fairness.counts import YES
from policies.fairness.shares import Floats

Target = Literal["demographic-parity", "equal-opportunity"]
TARGETS: tuple[Target, ...] = ("demographic-parity", "equal-opportunity")


def reweighing(cells: Floats) -> Floats:
    """Return the weight of the rows of each cell, with which group and label are independent; same shape as `cells`.

    `cells` has the rows of each group and label, of shape (groups, labels). A cell without rows has the weight 0. The
    weighted rows of all cells add up to the rows, but for those that empty cells would have.
    """
    rows = np.maximum(np.asarray(cells, np.float64), 0.0)
    whole = rows.sum()
    expected = np.outer(rows.sum(1), rows.sum(0))
    found: Floats = np.divide(expected, whole * rows, out=np.zeros_like(rows), where=rows > 0)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Thresholds:
    """The least score of each group for which the positive value is decided, and the rate that they aim at."""

    values: Floats  # shape (groups,), each an edge of a bin
    rates: Floats  # what each group has at its threshold
    aim: float


def thresholds(bins: Floats, target: Target, base: float = 0.5, edges: Floats | None = None) -> Thresholds:
    """Return the thresholds that bring all groups nearest to the rate that all rows together have at `base`.

    `bins` has the rows of each group by truth and score, of shape (groups, 2, bins): the rate is that of all rows, or
    for equal opportunity of those where the positive value was true. Of equally near thresholds the one nearest to
    `base` is taken, and a group without such rows keeps `base`. `edges` are those of the bins, one more than bins; None
    is for bins of equal width in [0, 1].
    """
    counted = np.maximum(np.asarray(bins, np.float64), 0.0)
    rows = counted.sum(1) if target == "demographic-parity" else counted[:, YES]
    edges = np.arange(rows.shape[1] + 1) / rows.shape[1] if edges is None else edges
    above = np.concatenate([np.cumsum(rows[:, ::-1], 1)[:, ::-1], np.zeros((len(rows), 1))], 1)
    whole, start = above[:, 0], int(np.argmin(np.abs(edges - base)))
    aim = float(above[:, start].sum() / whole.sum()) if whole.sum() > 0 else float("nan")
    values, rates = np.full(len(rows), edges[start]), np.full(len(rows), np.nan)
    for group in np.flatnonzero(whole > 0):
        own = above[group] / whole[group]
        best = min(range(len(edges)), key=lambda edge: (abs(own[edge] - aim), abs(edge - start)))
        values[group], rates[group] = edges[best], own[best]
    return Thresholds(values, rates, aim)
