"""Bounding one person's part in an answer: at most so many rows, and rows of at most so many groups.

Only rows of persons who have more are drawn by lot, and the choice of one person never depends on another's rows.
"""

from collections.abc import Callable

import numpy as np

from silo_node.data.coded import Bools, Integers
from silo_node.data.lots import Words

PairLots = Callable[[Integers, Integers], Words]  # of pairs of a person and a group
_LEAST_LOT_BITS = 20  # of a lot that is sorted together with the person and the place of its row


def chosen(owner: Integers, owners: int, most: int, lots: Callable[[Bools], Words]) -> Bools:
    """Return which items are in: all of an owner who has at most `most`, else `most` of them, drawn by lot.

    `owner` is each item's owner, from 0 to `owners`; `lots` returns the lots of the items that a mask picks.
    """
    counts = np.bincount(owner, minlength=owners)
    is_over = counts > most
    if not is_over.any():
        return np.ones(len(owner), np.bool_)
    is_drawn = is_over[owner]
    places = np.flatnonzero(is_drawn)
    rank = (np.cumsum(is_over) - 1)[owner[places]]
    order = by_lot(rank, lots(is_drawn))
    sizes = counts[is_over]
    starts = np.cumsum(sizes) - sizes
    winners = order[(starts[:, None] + np.arange(most)).ravel()]
    is_in = ~is_drawn
    is_in[places[winners]] = True
    return is_in


def of_few_groups(person: Integers, persons: int, group: Integers, groups: int, most: int, draw: PairLots) -> Bools:
    """Return which rows are in: those of at most `most` groups of each person, drawn by lot."""
    has_many = np.bincount(person, minlength=persons) > most  # rows; nobody else can have more groups
    is_in = np.ones(len(person), np.bool_)
    rows = np.flatnonzero(has_many[person])
    pairs, pair_of = np.unique(person[rows].astype(np.int64) * groups + group[rows], return_inverse=True)
    owner, of = pairs // groups, pairs % groups
    is_in[rows] = chosen(owner, persons, most, lambda mask: draw(owner[mask], of[mask]))[pair_of]
    return is_in


def groups_of_each(person: Integers, persons: int, group: Integers, groups: int, most: int) -> Integers:
    """Return how many groups the rows of each person are in; 0 for who has at most `most` rows, so no more groups."""
    rows = np.flatnonzero((np.bincount(person, minlength=persons) > most)[person])
    pairs = different(person[rows].astype(np.int64) * groups + group[rows])
    return np.bincount(pairs // groups, minlength=persons)


def different(numbers: Integers) -> Integers:
    """Return the different ones of many numbers, in order: sorting is ten times as fast as `np.unique`."""
    ordered = np.sort(numbers)
    is_new = np.ones(len(ordered), np.bool_)
    is_new[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_new]


def by_lot(rank: Integers, lots: Words) -> Integers:
    """Return the places of items by rank, and within a rank by lot; equal lots by place."""
    places = len(rank)
    place_bits, rank_bits = places.bit_length(), int(rank.max()).bit_length() or 1
    lot_bits = 64 - place_bits - rank_bits
    if lot_bits < _LEAST_LOT_BITS:
        return np.lexsort((lots, rank))
    # Each item becomes one word, because numpy sorts plain words fastest.
    words = rank.astype(np.uint64) << np.uint64(64 - rank_bits)
    words |= lots >> np.uint64(64 - lot_bits) << np.uint64(place_bits)
    words |= np.arange(places, dtype=np.uint64)
    words.sort()
    if (words[1:] >> np.uint64(place_bits) == words[:-1] >> np.uint64(place_bits)).any():
        # Lots that differ only in bits left out: the order must not depend on how many there are beside these items.
        return np.lexsort((lots, rank))
    return (words & np.uint64((1 << place_bits) - 1)).astype(np.int64)
