"""Shares of counts by group, and their intervals, of counts that may have noise.

Promise: an interval misses the share behind the counts with the probability that its z stands for; where noise is
larger than a count, it is all of [0, 1]. Assumes: rows of different persons are independent, those of one person may be
alike, and noise is normal with the stated variance. Wilson, JASA 22 (1927); Newcombe, Statist. Med. 17 (1998), method
10; Donner and Zou, Statist. Methods Med. Res. 21 (2012), for ratios.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_Ends = tuple[float, float, float]  # a share, and both ends of its interval
ALPHA = 0.05


@lru_cache(maxsize=256)
def z_of(alpha: float) -> float:
    """Return how many deviations on both sides an interval has that misses with this chance."""
    return NormalDist().inv_cdf(1 - alpha / 2)


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """Hits among trials of each group: arrays of shape (groups,), with the variances of their noise."""

    hits: Floats
    rest: Floats  # trials that are no hits
    hit_noise: Floats
    rest_noise: Floats
    rows_per_person: int = 1  # at most; so many times larger a variance is where all rows of a person are alike

    @property
    def trials(self) -> Floats:
        return self.hits + self.rest

    @property
    def values(self) -> Floats:
        """The share of each group, in [0, 1]; NaN of a group without trials."""
        trials = self.trials
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(trials > 0, self.hits / trials, np.nan)
        return np.clip(found, 0.0, 1.0)

    def ends(self, z: float) -> tuple[Floats, Floats]:
        """Return both ends of each share's interval, of shape (groups,) each.

        All p for which hits - p * trials is within z of its deviations of 0: with binomial variance, which without
        noise is Wilson's interval, and the noise of both counts. A group without trials has [0, 1].
        """
        hits, trials, square = self.hits, self.trials, z * z
        spread = square * self.rows_per_person * np.maximum(trials, 0.0)
        leading = trials * trials + spread - square * (self.hit_noise + self.rest_noise)
        middle = hits * trials + spread / 2 - square * self.hit_noise
        last = hits * hits - square * self.hit_noise
        inside = middle * middle - leading * last
        is_bounded = (leading > 0) & (inside >= 0) & (trials > 0)
        root, divisor = np.sqrt(np.maximum(inside, 0.0)), np.where(is_bounded, leading, 1.0)
        lows = np.where(is_bounded, np.clip((middle - root) / divisor, 0.0, 1.0), 0.0)
        highs = np.where(is_bounded, np.clip((middle + root) / divisor, 0.0, 1.0), 1.0)
        values = self.values
        return np.fmin(lows, values), np.fmax(highs, values)


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the ends of its interval; the figure is NaN where no two groups have one."""

    value: float
    low: float
    high: float


def widest_difference(shares: Shares, alpha: float = ALPHA) -> Interval:
    """Return the largest difference between two groups' shares; its interval holds all pairs at once (Bonferroni)."""
    if len(shares.hits) < 2:
        return Interval(float("nan"), 0.0, 1.0)
    lows, highs = zip(*(_difference(one, other) for one, other in _pairs(shares, alpha)), strict=True)
    known = shares.values[~np.isnan(shares.values)]
    value = float(known.max() - known.min()) if len(known) > 1 else float("nan")
    return Interval(value, max(0.0, *lows), min(max(0.0, *highs), 1.0))


def _pairs(shares: Shares, alpha: float) -> Iterator[tuple[_Ends, _Ends]]:
    """Yield the shares of each two groups, both ways, with the ends of intervals that hold for all pairs at once."""
    groups = len(shares.hits)
    lows, highs = shares.ends(z_of(2 * alpha / (groups * (groups - 1))))
    return permutations(zip(shares.values, lows, highs, strict=True), 2)


def _difference(one: _Ends, other: _Ends) -> tuple[float, float]:
    """Return both ends of a difference of two shares, each with both of its ends: Newcombe's method 10."""
    (first, first_low, first_high), (second, second_low, second_high) = one, other
    if np.isnan(first) or np.isnan(second):
        return first_low - second_high, first_high - second_low
    down = np.hypot(first - first_low, second_high - second)
    up = np.hypot(first_high - first, second - second_low)
    return float(first - second - down), float(first - second + up)


def least_ratio(shares: Shares, alpha: float = ALPHA) -> Interval:
    """Return the smallest ratio of two groups' shares, at most 1; its interval holds all pairs at once."""
    if len(shares.hits) < 2:
        return Interval(float("nan"), 0.0, 1.0)
    lows, highs = zip(*(_ratio(one, other) for one, other in _pairs(shares, alpha)), strict=True)
    known = shares.values[~np.isnan(shares.values)]
    value = float(known.min() / known.max()) if len(known) > 1 and known.max() > 0 else float("nan")
    return Interval(value, min(1.0, *lows), min(1.0, *highs))


def _ratio(one: _Ends, other: _Ends) -> tuple[float, float]:
    """Return both ends of a ratio of two shares: by the logarithms of the shares' own intervals (Donner and Zou).

    Where a share is 0, or unknown, its logarithm has no distance from an end: the ends are those of the shares.
    """
    (top, top_low, top_high), (bottom, bottom_low, bottom_high) = one, other
    if not (top > 0 and bottom > 0):
        least = top_low / bottom_high if bottom_high > 0 else 0.0
        return float(least), float(top_high / bottom_low) if bottom_low > 0 else float("inf")
    with np.errstate(divide="ignore"):
        down = np.hypot(np.log(top) - np.log(top_low), np.log(bottom_high) - np.log(bottom))
        up = np.hypot(np.log(top_high) - np.log(top), np.log(bottom) - np.log(bottom_low))
        return float(top / bottom * np.exp(-down)), float(top / bottom * np.exp(up))
