"""Sums over persons of parts that are clipped to an L2 norm, in whole units.

Promise: no person changes a sum by more than `UNITS` in L2 norm, whatever their rows are. A part is truncated towards
zero to whole units after it is clipped, and its norm is checked again in integers; one that is not finite counts as 0.
"""

from collections.abc import Iterator

import numpy as np

from policies.requests.noised_families import UNITS
from silo_node.training.family import Examples
from silo_node.training.grid import Integers, Vector

BLOCK_CELLS = 1 << 21  # rows times numbers; a few times 16 MiB are held for them


def by_person(examples: Examples) -> Examples:
    """Return the same rows in the order of their persons."""
    return examples.at(np.argsort(examples.person, kind="stable"))


def blocks(examples: Examples, numbers: int) -> Iterator[slice]:
    """Yield the rows in blocks of about BLOCK_CELLS numbers, with all rows of a person in one block.

    The rows must be in the order of their persons.
    """
    most, first, person = max(1, BLOCK_CELLS // numbers), 0, examples.person
    while first < len(person):
        end = min(first + most, len(person))
        if end < len(person):
            begins = int(np.searchsorted(person, person[end]))
            end = begins if begins > first else int(np.searchsorted(person, person[first], "right"))
        yield slice(first, end)
        first = end


def persons_in(examples: Examples) -> int:
    """Return how many persons have a row."""
    return len(np.unique(examples.person))


def clipped_sum(parts: Vector, person: Integers, clip: float) -> Integers:
    """Return the sum over persons of their clipped parts, in units of clip / UNITS, of shape (numbers,).

    `parts` has the shape (rows, numbers); a person's part is the sum of their rows, which follow one another.
    """
    if not len(parts):
        return np.zeros(parts.shape[1], np.int64)
    starts = np.flatnonzero(np.r_[True, person[1:] != person[:-1]])
    with np.errstate(all="ignore"):
        summed = np.add.reduceat(parts, starts, axis=0)
        longest = np.maximum(np.sqrt((summed * summed).sum(1, keepdims=True)), clip)
        shares = np.trunc(summed / longest * UNITS)
    # What is not finite must not become the least integer, whose square wraps to 0.
    units = np.where(np.isfinite(shares).all(1, keepdims=True), shares, 0.0).astype(np.int64)
    is_within = (units * units).sum(1) <= UNITS * UNITS
    found: Integers = units[is_within].sum(0)
    return found
