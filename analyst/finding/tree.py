"""Read one round of a key search: which prefixes survive it, and which keys enter the domain.

Promise: with probability 1 - BETA or more, no key enters in the whole search that nobody has. A candidate that nobody
has is counted as noise alone, which is normal with the deviation of all noise together; it enters with probability
BETA / (rounds * candidates of its round) at most, and the noise of a round is independent of what was asked before. So
the chances add up to BETA at most, whatever the rounds ask. Which prefixes survive changes what is found, never what
is promised: of those that nobody has, one a round survives on average.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from analyst.reports.intervals import Floats, Noisy, of_count
from policies.requests.key_search import MAX_PREFIXES, KeySearch, KeyShape
from policies.requests.request import MAX_SLOTS, OTHER_SLOTS

BETA = 1e-3  # that a key enters which nobody has, over all candidates of all rounds
MISSED = 0.05  # that a key of as many persons as `surely_found` is missed
_MOST_EMPTY = 1.0  # of the prefixes that nobody has, as many survive a round on average
_EVEN_CHANCE = 0.1  # that one of them survives, where a round has few
_WANTED = 0.01  # that a prefix of as many persons as the minimum cohort does not survive, for that minimum alone
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Limits:
    """The least noised numbers of persons of one round with which a prefix survives, and a key enters, if any can."""

    survive: float | None  # None in the last round
    enter: float | None  # None in the first one, if keys may have more than one symbol


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key that entered, its noised number of persons, and the 95 % interval of that number, given that it entered."""

    key: str
    count: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ReadRound:
    """What one round has told."""

    limits: Limits
    found: tuple[FoundKey, ...]
    survivors: tuple[str, ...]  # in order; none after the last round


def limits_of(search: KeySearch, sd: float, min_cohort: int) -> Limits:
    """Return the limits of a round whose sums have noise of this deviation; no key enters below `min_cohort`."""
    is_last = search.step + 1 == search.steps
    keys = search.slots if is_last else len(search.prefixes) * (1 if search.step else 0)
    prefixes = 0 if is_last else len(search.prefixes) * len(search.shape.alphabet)
    enter = survive = None
    if keys:
        enter = max(float(min_cohort), -_NORMAL.inv_cdf(BETA / (search.steps * keys)) * sd)
    if prefixes:
        chance = min(_EVEN_CHANCE, _MOST_EMPTY / prefixes)
        survive = max(-_NORMAL.inv_cdf(chance) * sd, min_cohort + _NORMAL.inv_cdf(_WANTED) * sd)
    return Limits(survive, enter)


def read_round(search: KeySearch, counts: Floats, sd: float, min_cohort: int, most: int) -> ReadRound:
    """Return what the noised counts of a round tell, one a slot; at most `most` prefixes survive, the largest."""
    limits, keys, prefixes = limits_of(search, sd, min_cohort), list[tuple[str, float]](), list[tuple[str, float]]()
    for (text, is_key), count in zip(search.extensions(), counts.tolist(), strict=True):
        least, entered = (limits.enter, keys) if is_key else (limits.survive, prefixes)
        if least is not None and count >= least:
            entered.append((text, count))
    prefixes.sort(key=lambda one: (-one[1], one[0]))
    figures = of_count(Noisy(np.array([count for _, count in keys], np.float64), sd, limits.enter or 0.0))
    ends = zip(figures.lows.tolist(), figures.highs.tolist(), strict=True)
    found = tuple(FoundKey(key, count, low, high) for (key, count), (low, high) in zip(keys, ends, strict=True))
    return ReadRound(limits, found, tuple(sorted(text for text, _ in prefixes[:most])))


def next_round(search: KeySearch, read: ReadRound) -> KeySearch | None:
    """Return the round after one; None at the end of the search."""
    return search.following(read.survivors) if read.survivors and search.step + 1 < search.steps else None


def most_prefixes(shape: KeyShape, max_groups: int, backend: str) -> int:
    """Return how many prefixes a round can have: its slots count as the groups of an answer; 0 if too few for any."""
    slots = min(max_groups, MAX_SLOTS if backend == "masking" else OTHER_SLOTS)
    return min(MAX_PREFIXES, slots // (len(shape.alphabet) + 1))


def surely_found(shape: KeyShape, sd: float, min_cohort: int, most: int) -> float:
    """Return how many persons a key must have to be found with probability 1 - MISSED, if a round has `most` prefixes.

    If nobody has more keys than count, and no more prefixes survive than a round can have.
    """
    slots = most * (len(shape.alphabet) + 1)
    enter = max(float(min_cohort), -_NORMAL.inv_cdf(BETA / (shape.length * slots)) * sd)
    survive = max(-_NORMAL.inv_cdf(min(_EVEN_CHANCE, _MOST_EMPTY / slots)) * sd, float(min_cohort))
    return max(enter, survive) - _NORMAL.inv_cdf(MISSED / shape.length) * sd
