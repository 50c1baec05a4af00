"""Bounding one person's part in a grouped answer by its length: the L2 norm of the person's rows over the groups.

A person's rows are taken in the order of their lots. A row is in if the squares of the person's rows in each group,
added over the groups, stay within `norm` squared with it; else it is passed over, and a later one of another group may
still fit. The n-th row of a group adds 2n - 1 to that sum, whatever the other groups hold, so each row has a fixed
weight. Only rows of persons who have more are drawn by lot, and the choice of one never depends on another's rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from silo_node.data.bounding import by_lot
from silo_node.data.coded import Bools, Integers
from silo_node.data.lots import Words


class Owned(NamedTuple):
    """Rows of persons in groups: both of each row, from 0, and how many there are."""

    person: Integers
    persons: int
    group: Integers
    groups: int


def within_norm(rows: Owned, most: int, norm: int, lots: Callable[[Bools], Words]) -> Bools:
    """Return which rows are in: of each person at most `most`, with an L2 norm of at most `norm` over the groups.

    `lots` returns the lots of the rows that a mask picks.
    """
    is_over = has_more(rows, most, norm)
    if not is_over.any():
        return np.ones(len(rows.person), np.bool_)
    is_drawn = is_over[rows.person]
    places = np.flatnonzero(is_drawn)
    rank = (np.cumsum(is_over) - 1)[rows.person[places]]
    order = by_lot(rank, lots(is_drawn))
    of = rank[order]
    weight = _weights(of.astype(np.int64) * rows.groups + rows.group[places[order]])
    is_in = ~is_drawn
    is_in[places[order[_fitting(of, int(is_over.sum()), weight, most, norm)]]] = True
    return is_in


def has_more(rows: Owned, most: int, norm: int) -> Bools:
    """Return who has more than `most` rows, or rows of an L2 norm above `norm` over the groups."""
    counts = np.bincount(rows.person, minlength=rows.persons)
    is_over = counts > most
    places = np.flatnonzero((counts > norm)[rows.person])  # nobody else's can be as long
    if len(places):
        pairs = rows.person[places].astype(np.int64) * rows.groups + rows.group[places]
        pairs, each = np.unique(pairs, return_counts=True)
        owner = pairs // rows.groups
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        is_over[owner[first]] |= np.add.reduceat(each * each, first) > norm * norm
    return is_over


def _weights(pair: Integers) -> Integers:
    """Return what each row adds to its person's sum of squares, if all rows of its group before it are in."""
    order = np.argsort(pair, kind="stable")
    starts = _starts(pair[order])
    found: Integers = np.empty(len(pair), np.int64)
    found[order] = 2 * (np.arange(len(pair)) - starts) + 1
    return found


def _starts(owner: Integers) -> Integers:
    """Return the place of the first item of each item's owner; the items of an owner follow each other."""
    is_first = np.diff(owner, prepend=-1) != 0
    found: Integers = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    return found


def _fitting(of: Integers, owners: int, weight: Integers, most: int, norm: int) -> Integers:
    """Return the places of the items that are in: each owner's in their order, while the weights fit into norm squared.

    At most `most` of an owner. An item that does not fit is passed over. Each turn takes of every owner the items up to
    the first that does not fit, and drops all that never will, so an owner with items left has one more in at each.
    """
    room, count = np.full(owners, norm * norm, np.int64), np.full(owners, most, np.int64)
    left, found = np.flatnonzero(weight <= norm * norm), []
    while len(left):
        owner, weights = of[left], weight[left]
        starts = _starts(owner)
        sums = np.cumsum(weights)
        sums -= (sums - weights)[starts]
        fits = (sums <= room[owner]) & (np.arange(len(left)) - starts < count[owner])
        found.append(left[fits])
        room -= np.bincount(owner[fits], weights[fits], owners).astype(np.int64)
        count -= np.bincount(owner[fits], minlength=owners)
        left = left[~fits & (weights <= room[owner]) & (count[owner] > 0)]
    return np.concatenate(found)
