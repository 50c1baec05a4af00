"""Quantiles from noisy trees of counts, with 95 % intervals. docs/intervals.md, section 9.

Promise: quantiles of one tree are monotone; an interval holds the quantile of the rows that entered, as DuckDB's
QUANTILE_CONT or QUANTILE_DISC defines it, with probability 0.95 or more, whatever the rows; and it holds its own
figure. Assumes that a group is shown, and its figure hidden, by a count with noise of its own.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from analyst.reports.intervals import Z95, Figures, Noisy, holding, z_of
from analyst.reports.trees import Floats, Integers, consistent, prefixes
from policies.requests.tables import TableColumn
from policies.requests.trees import Tree, tree_over

Bools = npt.NDArray[np.bool_]
_ROUNDING = 1e-6  # rows


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """The bins of a column's tree in the column's own units: the first, the middle and the last value of each."""

    firsts: Floats
    middles: Floats
    lasts: Floats

    @classmethod
    def of(cls, column: TableColumn) -> Self:
        tree, step = tree_over(column), float(column.step or 1)
        first = np.arange(tree.bins, dtype=np.float64) * tree.width
        last = np.minimum(first + tree.width - 1, column.range_steps)
        firsts, lasts = ((one + float(column.low or 0)) * step for one in (first, last))
        return cls(firsts, (firsts + lasts) / 2, lasts)


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """The noisy rows of each group up to each bin (groups, bins), and the deviation of the noise of one node."""

    tree: Tree
    below: Floats
    sd: float

    @classmethod
    def of(cls, nodes: Noisy, tree: Tree) -> Self:
        return cls(tree, np.cumsum(consistent(nodes.values, tree), axis=1), nodes.sd)

    def excess(self, at: float) -> Floats:
        """Return the rows up to each bin, less what they are if the quantile is at its end."""
        return np.asarray(self.below - at * self.below[:, -1:])

    def deviations(self, at: float) -> Floats:
        """Return the deviation of the noise of `excess`, of each bin."""
        return np.asarray(self.sd * np.sqrt(np.maximum(prefixes(self.tree).of_ranks(at), 0.0)))

    def values(self, at: float, scale: Scale, is_discrete: bool) -> Floats:
        """Return the quantile of each group: between two middles of bins, or the first; monotone in `at`."""
        most = np.maximum.accumulate(self.below, axis=1)
        least = np.minimum.accumulate(self.below[:, ::-1], axis=1)[:, ::-1]
        rows = (most + least) / 2  # of 0 noise it is what it was, and never falls
        if is_discrete:
            rank = np.maximum(np.ceil(at * rows[:, -1] - _ROUNDING) - 1, 0.0)
            return np.asarray(scale.middles[_first(rows >= rank[:, None] + 0.5)])
        place = np.maximum(at * (rows[:, -1] - 1), 0.0)
        before = np.floor(place)
        lower, upper = (_first(rows >= rank[:, None] + 0.5) for rank in (before, np.ceil(place)))
        return np.asarray(scale.middles[lower] + (place - before) * (scale.middles[upper] - scale.middles[lower]))

    def ends(self, at: float, slack: Floats) -> tuple[Integers, Integers]:
        """Return the first and the last bin that may hold the quantile, if ranks are off by `slack` (bins) at most.

        In a bin it has less than 1 - at rows too many before the bin, and more than -at rows up to its end.
        """
        excess = self.excess(at)
        can_end, can_begin = excess >= -at - slack, excess <= 1 - at + slack
        first = _first(can_end)
        last = self.tree.bins - 1 - _first(can_begin[:, -2::-1])
        return first, np.where(can_begin[:, :-1].any(axis=1), last, 0)


def _first(holds: Bools) -> Integers:
    """Return the first place of each row where it holds, or else the last place."""
    return np.asarray(np.where(holds.any(axis=1), holds.argmax(axis=1), holds.shape[1] - 1))


def of_quantile(nodes: Noisy, count: Noisy, column: TableColumn, at: float, is_discrete: bool = False) -> Figures:
    """Return the quantiles of the groups, of rows or between two; hidden if a count is at most 1.96 deviations."""
    scale, ranks = Scale.of(column), Ranks.of(nodes, tree_over(column))
    first, last = ranks.ends(at, z_of(nodes.alpha) * ranks.deviations(at))
    lows, highs = scale.firsts[first], scale.lasts[last]
    is_shown = count.values > Z95 * count.sd
    values = np.where(is_shown, ranks.values(at, scale, is_discrete), np.nan)
    sds = np.where(is_shown, (highs - lows) / (2 * z_of(nodes.alpha)), np.nan)
    return holding(values, lows, highs, scale.firsts[0], scale.lasts[-1], sds)
