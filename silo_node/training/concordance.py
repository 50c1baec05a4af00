"""Harrell's concordance: of pairs of rows of which one is known to have its event first, how many scores tell which.

Harrell et al., JAMA 247 (1982). A pair is known where a row has its event and the other is still there after it, or
leaves at the same time without one.
"""

import numpy as np

from silo_node.training.family import Bools
from silo_node.training.grid import Integers, Vector


def pairs(times: Integers, happened: Bools, scores: Vector) -> Integers:
    """Return how many known pairs the scores tell, tell the wrong way round, and do not tell: shape (3,).

    Rows are in order of time, and of one time those with an event come first; the higher score is of the earlier event.
    """
    events = np.flatnonzero(happened)
    if not len(events):
        return np.zeros(3, np.int64)
    _, ranks = np.unique(scores, return_inverse=True)
    starts = np.flatnonzero(np.r_[True, times[1:] != times[:-1]])
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(times)]))
    after = (starts + np.add.reduceat(happened.astype(np.int64), starts))[group[events]]
    lower = _below(ranks, after, ranks[events])
    up_to = _below(ranks, after, ranks[events] + 1)
    told, known = int(lower.sum()), int((len(times) - after).sum())
    tied = int(up_to.sum()) - told
    return np.array([told, known - told - tied, tied], np.int64)


def _below(ranks: Integers, first: Integers, limit: Integers) -> Integers:
    """Return, for each query, how many of the ranks from the place `first` on are below its limit.

    A wavelet matrix, bit by bit from the highest: Claude, Navarro and Ordonez, Information Systems 47 (2015).
    """
    found, last = np.zeros(len(first), np.int64), np.full(len(first), len(ranks))
    for bit in reversed(range((int(ranks.max()) + 1).bit_length())):
        is_one = (ranks >> bit & 1).astype(np.bool_)
        zeros = np.r_[0, np.cumsum(~is_one)]
        low, high, takes_zeros = zeros[first], zeros[last], (limit >> bit & 1).astype(np.bool_)
        found += np.where(takes_zeros, high - low, 0)
        first = np.where(takes_zeros, zeros[-1] + first - low, low)
        last = np.where(takes_zeros, zeros[-1] + last - high, high)
        ranks = np.r_[ranks[~is_one], ranks[is_one]]
    return found
