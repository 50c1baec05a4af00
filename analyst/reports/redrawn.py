"""Quantiles as the noise could have made them, for what is computed after the answer. docs/intervals.md, section 9.

A quantile is no linear function of the noise. Each is drawn anew from what its tree tells of it: the rank at which it
lies is moved by so many deviations of its noise, those of one tree together, by their covariances. So the middle 95 %
of the draws of one are its interval, but for the ends of bins, of which each draw takes one by lot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analyst.reports.intervals import Z95, Floats, Noisy
from analyst.reports.quantiles import Ranks, Scale
from analyst.reports.trees import covariance
from policies.requests.query import Aggregate, statistic_of
from policies.requests.statistic import Statistic
from policies.requests.tables import Table
from policies.requests.trees import TREE, tree_over

_LEAST = 1e-300  # of a deviation that is divided by
_RIDGE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class _One:
    """One quantile of every group: as it is, and the deviations of its rank at which it comes to each bin."""

    count: Statistic
    scale: Scale
    points: Floats
    begins: Floats  # (groups, bins), falling: from which on it lies in the bin or before
    ends: Floats  # (groups, bins - 1), falling: up to which it lies behind the bin

    def drawn(self, group: int, moved: Floats, lots: Floats) -> Floats:
        """Return the quantile of a group whose rank is moved by so many deviations; lots below 0 take the first end."""
        first = np.searchsorted(-self.begins[group], -moved, "left")
        last = np.searchsorted(-self.ends[group], -moved, "right")
        low = self.scale.firsts[np.minimum(first, len(self.scale.firsts) - 1)]
        high = np.maximum(self.scale.lasts[last], low)
        found = np.where(lots < 0, low, np.where(lots > 0, high, (low + high) / 2))
        return np.asarray(np.where((lots == 0) & (moved == 0), self.points[group], found))


class Redrawn:
    """The quantiles of a question: how many numbers of noise move them, and what they then are."""

    def __init__(self, aggregates: Sequence[Aggregate], table: Table, sums: Mapping[Statistic, Noisy]) -> None:
        """`sums` have the trees of all groups."""
        self._of: dict[str, _One] = {}
        self._trees: dict[str, list[str]] = {}  # the aliases of the quantiles of each column
        self._roots: dict[str, Floats] = {}  # (groups, quantiles, quantiles): of the correlations of their ranks
        asked = dict[str, tuple[float, bool]]()
        for one in aggregates:
            if one.at is not None and one.column is not None:
                self._trees.setdefault(one.column, []).append(one.alias)
                asked[one.alias] = float(one.at), one.function == "quantile_disc"
        for name, aliases in self._trees.items():
            column = table.column(name)
            ranks, scale = Ranks.of(sums[statistic_of(TREE, column)], tree_over(column)), Scale.of(column)
            count = statistic_of("present", column)
            for alias in aliases:
                at, is_discrete = asked[alias]
                found = _falling(*ranks.moves(at, sums[count]))
                self._of[alias] = _One(count, scale, ranks.values(at, scale, is_discrete), *found)
            self._roots[name] = _roots(ranks, [asked[alias][0] for alias in aliases], scale)

    @property
    def rows(self) -> int:
        """How many numbers of noise of each group move them: a rank and a lot for each."""
        return 2 * len(self._of)

    def values(self, steps: Floats, counts: Mapping[Statistic, Noisy]) -> Mapping[str, Floats]:
        """Return every quantile by its alias, for each scenario and group, one after the other.

        `steps` (scenarios, rows, groups) has the noise, and `counts` the sums of the same scenarios and groups.
        """
        found, place, groups = dict[str, Floats](), 0, range(steps.shape[2])
        for name, aliases in self._trees.items():
            ranks = steps[:, place : place + len(aliases)]
            moved = np.einsum("gij,sjg->sig", self._roots[name], ranks)
            lots = steps[:, place + len(aliases) : place + 2 * len(aliases)]
            place += 2 * len(aliases)
            for index, alias in enumerate(aliases):
                one = self._of[alias]
                columns = [one.drawn(group, moved[:, index, group], lots[:, index, group]) for group in groups]
                count = counts[one.count]
                values = np.stack(columns, axis=1).ravel()
                found[alias] = np.where(count.values > Z95 * count.sd, values, np.nan)
        return found


def _falling(inside: Floats, behind: Floats) -> tuple[Floats, Floats]:
    """Return the least of what it takes up to each bin, and the most of what it takes from each bin on."""
    return np.minimum.accumulate(inside, axis=1), np.maximum.accumulate(behind[:, ::-1], axis=1)[:, ::-1]


def _roots(ranks: Ranks, ats: Sequence[float], scale: Scale) -> Floats:
    """Return matrices whose product with independent noise has the correlations of the ranks of each group."""
    found = []
    last = max(ranks.tree.bins - 2, 0)  # up to the last bin there is no rank that could move
    places = [np.minimum(np.searchsorted(scale.lasts, ranks.values(at, scale, False)), last) for at in ats]
    for group in range(len(ranks.below)):
        upto = [np.arange(ranks.tree.bins) <= place[group] for place in places]
        weights = np.stack([one - at for one, at in zip(upto, ats, strict=True)])
        both = covariance(weights[:, None], weights[None], ranks.tree)
        sds = np.sqrt(np.maximum(np.diag(both), _LEAST))
        # A little more on the diagonal, or two equal quantiles had no root; any other root would differ by machine.
        found.append(np.linalg.cholesky(both / sds / sds[:, None] + _RIDGE * np.eye(len(ats))))
    return np.stack(found)
