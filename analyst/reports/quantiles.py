"""Quantiles from noisy trees of counts, with 95 % intervals. docs/intervals.md, section 9.

Promise: quantiles of one tree are monotone; an interval holds the quantile of the rows that entered, as DuckDB's
QUANTILE_CONT or QUANTILE_DISC defines it, with probability 0.95 or more, whatever the rows; and it holds its own
figure. Assumes that a group is shown, and its figure hidden, by a count with noise of its own.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from analyst.reports.intervals import ALPHA, Z95, Figures, Noisy, holding, z_of
from analyst.reports.trees import Floats, Integers, consistent, prefixes
from policies.requests.tables import TableColumn
from policies.requests.trees import Tree, tree_over

Bools = npt.NDArray[np.bool_]
_ROUNDING = 1e-6  # rows
_LEAST = 1e-300  # of a deviation that is divided by
_OF_TWO = z_of(ALPHA) / z_of(ALPHA / 2)  # what a deviation is worth where two tests share the chance to miss


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
        rows, total = (
            np.sort(self.below, axis=1),
            self.below[:, -1],
        )  # in order they never fall, and are nearer the truth
        if is_discrete:
            rank = np.maximum(np.ceil(at * total - _ROUNDING) - 1, 0.0)
            return np.asarray(scale.middles[_first(rows >= rank[:, None] + 0.5)])
        place = np.maximum(at * (total - 1), 0.0)
        before = np.floor(place)
        lower, upper = (_first(rows >= rank[:, None] + 0.5) for rank in (before, np.ceil(place)))
        return np.asarray(scale.middles[lower] + (place - before) * (scale.middles[upper] - scale.middles[lower]))

    def moves(self, at: float, count: Noisy) -> tuple[Floats, Floats]:
        """Return how many deviations noise must have taken from a rank, or added, for the quantile to lie in each bin.

        (groups, bins): it takes so many at least to lie in the bin or before; (groups, bins - 1): and so many at most
        to lie behind the bin. In a bin it has less than 1 - at rows too many before the bin, and more than -at up to
        its end; and so with the run of bins in which the bin is. Both tests together are as sure as one.
        """
        excess, sds = self.excess(at), np.maximum(self.deviations(at), _LEAST)
        inside, behind = (-at - excess) / sds, (1 - at - excess[:, :-1]) / sds[:-1]
        inside[:, -1] = -np.inf  # up to the last bin there are all rows
        runs, bins = self._runs(float(sds.max()), count), np.arange(self.tree.bins)
        for run in set(runs.tolist()) - {1}:
            own, before = runs == run, bins[1:] // run * run - 1
            up_to = np.minimum(bins // run * run + run - 1, bins[-1])
            inside[own] = _OF_TWO * np.maximum(inside[own], inside[own][:, up_to])
            earlier = np.where(before >= 0, behind[own][:, before], np.inf)
            behind[own] = _OF_TWO * np.minimum(behind[own], earlier)
        return inside, behind

    def _runs(self, sd: float, count: Noisy) -> Integers:
        """Return how many bins the runs have that are tested too: about half of the noise of a rank in rows, if even.

        The noise of the count says nothing of that of the tree. In long runs fewer ends can be reached by chance.
        """
        wanted = np.log(np.maximum(2 * count.values / sd, 1.0))
        level = np.abs(np.log(self.tree.sizes) - wanted[:, None]).argmin(axis=1)
        return np.asarray(self.tree.children ** (self.tree.levels - 1 - level))


def _first(holds: Bools) -> Integers:
    """Return the first place of each row where it holds, or else the last place."""
    return np.asarray(np.where(holds.any(axis=1), holds.argmax(axis=1), holds.shape[1] - 1))


def _last(holds: Bools) -> Integers:
    """Return how many places there are up to the last of each row where it holds."""
    return np.asarray(np.where(holds.any(axis=1), holds.shape[1] - holds[:, ::-1].argmax(axis=1), 0))


def of_quantile(nodes: Noisy, count: Noisy, column: TableColumn, at: float, is_discrete: bool = False) -> Figures:
    """Return the quantiles of the groups, of rows or between two; hidden if a count is at most 1.96 deviations."""
    scale, ranks = Scale.of(column), Ranks.of(nodes, tree_over(column))
    inside, behind = ranks.moves(at, count)
    first, last = _first(inside <= z_of(nodes.alpha)), _last(behind >= -z_of(nodes.alpha))
    lows, highs = scale.firsts[first], scale.lasts[last]
    is_shown = count.values > Z95 * count.sd
    values = np.where(is_shown, ranks.values(at, scale, is_discrete), np.nan)
    sds = np.where(is_shown, (highs - lows) / (2 * z_of(nodes.alpha)), np.nan)
    return holding(values, lows, highs, scale.firsts[0], scale.lasts[-1], sds)
