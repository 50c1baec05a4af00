"""Consistent counts from noisy trees, and the variances of sums over ranges of bins. docs/intervals.md, section 9.

Pure. The noise of every node has the same deviation, and is independent. Promise: the counts of bins are those with the
least squares over all nodes (Hay et al., VLDB 2010), so every sum of them is unbiased, and has the least variance of
all linear estimates. Variances are in units of a node's own; trees of many groups are the rows of an array.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.requests.trees import Tree

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """One level above the bins: variances of what its children say of each node, and of what both say."""

    starts: Integers  # the first child of each node
    parent: Integers  # the node of each child
    own: Floats  # of each child, from all that is at it and below
    of_children: Floats
    both: Floats


@lru_cache(maxsize=32)
def _levels(tree: Tree) -> tuple[_Level, ...]:
    """Return the levels of a tree from the finest on, without that of the bins."""
    own, found = np.ones(tree.bins), list[_Level]()
    for size in tree.sizes[:0:-1]:
        starts = np.arange(0, size, tree.children)
        of_children = np.add.reduceat(own, starts)
        both = 1 / (1 + 1 / of_children)
        found.append(_Level(starts, np.arange(size) // tree.children, own, of_children, both))
        own = both
    return tuple(found)


def consistent(nodes: Floats, tree: Tree) -> Floats:
    """Return the counts of the bins of each group, from an array (groups, nodes); they may be below 0."""
    noisy = np.split(nodes, np.cumsum(tree.sizes)[:-1], axis=1)
    levels = _levels(tree)
    found, sums = [noisy[-1]], list[Any]()
    for level, above in zip(levels, noisy[-2::-1], strict=True):
        below = np.add.reduceat(found[-1], level.starts, axis=1)
        sums.append(below)
        found.append((above + below / level.of_children) * level.both)
    counts = found[-1]
    for level, own, below in zip(levels[::-1], found[-2::-1], sums[::-1], strict=True):
        # What a node has more than its children is theirs, by their variances.
        shared = (counts - below) / level.of_children
        counts = own + level.own * shared[:, level.parent]
    return np.asarray(counts)


def covariance(first: Floats, second: Floats, tree: Tree) -> Floats:
    """Return the covariance of two sums of bins with these weights; arrays (..., bins) broadcast."""
    one, other, total = np.asarray(first, np.float64), np.asarray(second, np.float64), np.zeros(())
    for level in _levels(tree):
        (one, other), own = (one * level.own, other * level.own), (one * other * level.own)
        one, other = (np.add.reduceat(part, level.starts, axis=-1) / level.of_children for part in (one, other))
        # Children differ from their share of the node independently of the node.
        total = total + own.sum(axis=-1) - (one * other * level.of_children).sum(axis=-1)
    return np.asarray(total + (one * other * _top(tree)).sum(axis=-1))


def _top(tree: Tree) -> Floats:
    levels = _levels(tree)
    return levels[-1].both if levels else np.ones(tree.bins)


@dataclass(frozen=True, slots=True, eq=False)
class Prefixes:
    """What the noise does to the sums of all bins up to each one: arrays of a number a bin."""

    variances: Floats
    with_all: Floats  # covariances with the sum of all bins

    def of_ranks(self, share: float) -> Floats:
        """Return the variance of each prefix less a share of all."""
        return np.asarray(self.variances - 2 * share * self.with_all + share**2 * self.with_all[-1])


@lru_cache(maxsize=32)
def prefixes(tree: Tree) -> Prefixes:
    """Return the variances of the prefix sums of a tree."""
    place, weight, variance = np.arange(tree.bins), np.ones(tree.bins), np.zeros(tree.bins)
    for level in _levels(tree):
        before, own = _before(level.own)[place], level.own[place]
        node = level.parent[place]
        first = before - _before(level.own)[level.starts][node] + weight * own
        second = first - weight * own + weight**2 * own
        variance += second - first**2 / level.of_children[node]
        place, weight = node, first / level.of_children[node]
    top = _top(tree)
    before, own = _before(top)[place], top[place]
    return Prefixes(variance + before + weight**2 * own, before + weight * own)


def _before(values: Floats) -> Floats:
    return np.concatenate([np.zeros(1), np.cumsum(values)[:-1]])


def evenly(rows: Floats, tree: Tree) -> Floats:
    """Return the nodes of groups of so many rows that are spread evenly over the bins."""
    share = np.concatenate([np.bincount(place) for place in leaves_below(tree)]) / tree.bins
    return np.asarray(rows[:, None] * share)


def leaves_below(tree: Tree) -> Iterator[Integers]:
    """Yield for each level, the coarsest first, the node in which each bin is."""
    for above in range(tree.levels - 1, -1, -1):
        yield np.arange(tree.bins) // tree.children**above
