"""95 % intervals of figures that are shown only because a noisy count was large enough. docs/intervals.md.

Promise: of the intervals that are shown, each holds the truth with probability 0.95 or more, whatever the size of the
group and its mean, and each holds its own figure. Everything is computed from released sums, so it costs no privacy.
Assumes: normal noise, which the discrete Gaussian of a large deviation equals, independent from sum to sum; sizes are 0
or more; a value is within its public bounds.

Counts are in rows, totals in steps of their column, both with their standard deviations. A threshold is the least noisy
count that was shown; of a count that was not what selected its group, it is minus infinity. Sources: Lee, Sun, Sun and
Taylor, Annals of Statistics 2016 (tests given a selection); Fieller, JRSS B 1954 (a quotient of two normal variables).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_NORMAL = NormalDist()
ALPHA = 0.05
SHARE_SIZE = 0.04  # of alpha, for a figure from a selected count and a total: sizes left out; the rest is the figure's
Z95 = _NORMAL.inv_cdf(1 - ALPHA / 2)
_FAR = 8.0  # deviations above the threshold at which its effect is below 1e-15
_DEEP = -36.0  # deviations below the threshold at which a probability is hardly a float any more


@dataclass(frozen=True, slots=True)
class Noisy:
    """One noisy sum for each shown group, the deviation of its noise, and the threshold that it passed, if any.

    An interval of it misses with probability `alpha` at most.
    """

    values: Floats
    sd: float
    threshold: float = -math.inf
    alpha: float = ALPHA

    @property
    def is_selected(self) -> bool:
        return self.threshold > -math.inf

    @property
    def z_figure(self) -> float:
        """Deviations on both sides of a figure, given the size of its group."""
        return z_of((1 - SHARE_SIZE) * self.alpha)


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of the shown groups, their intervals and their deviations; a figure that the noise hides is NaN."""

    values: Floats
    lows: Floats
    highs: Floats
    sds: Floats

    def scaled(self, scale: float, offset: float = 0.0) -> "Figures":
        """Return offset + scale * figure, for a scale above 0."""
        values, lows, highs = (offset + scale * one for one in (self.values, self.lows, self.highs))
        return Figures(values, lows, highs, scale * self.sds)


@lru_cache(maxsize=64)
def z_of(alpha: float) -> float:
    """Return how many deviations on both sides of a normal figure its interval has that misses with this chance."""
    return _NORMAL.inv_cdf(1 - alpha / 2)


def of_normal(values: Floats, sds: Floats | float, least: float, most: float, alpha: float = ALPHA) -> Figures:
    """Return figures that no threshold selected; intervals are cut to the possible values, and hold the figure."""
    slack = z_of(alpha) * sds
    return holding(values, values - slack, values + slack, least, most, sds)


def of_count(count: Noisy) -> Figures:
    """Return the figures of a count: the sizes of 0 or more that a test given the selection does not reject."""
    if not count.is_selected:
        return of_normal(count.values, count.sd, 0.0, math.inf, count.alpha)
    lows, highs = _sizes(count, count.alpha)
    return holding(count.values, lows, highs, 0.0, math.inf, count.sd)


def of_total(count: Noisy, centred: Noisy, low: float, high: float) -> Figures:
    """Return the figures of a total of values from `low` to `high`.

    `centred` is the total of their distances from the middle of these bounds, with noise of its own.
    """
    middle = (low + high) / 2
    values, sd = middle * count.values + centred.values, math.hypot(middle * count.sd, centred.sd)
    if not count.is_selected or middle == 0:
        return of_normal(values, sd, 0.0 if low >= 0 else -math.inf, 0.0 if high <= 0 else math.inf, count.alpha)
    least_size, most_size = _sizes(count, SHARE_SIZE * count.alpha)
    ends = middle * least_count(count, 0.0) + centred.values, values
    slack = count.z_figure * sd
    lows, highs = np.minimum(*ends) - slack, np.maximum(*ends) + slack
    least = np.minimum(low * least_size, low * most_size)
    most = np.maximum(high * least_size, high * most_size)
    return holding(values, lows, highs, least, most, sd)


def of_mean(count: Noisy, centred: Noisy, half: float) -> Figures:
    """Return the figures of a mean, as distances from the middle of the bounds, which is at most `half`.

    The noise hides a mean, which is then NaN, if the count is at most 1.96 deviations.
    """
    z = count.z_figure
    count = Noisy(count.values, count.sd, max(count.threshold, Z95 * count.sd), count.alpha)
    is_shown = count.values > Z95 * count.sd
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(is_shown, np.clip(centred.values / count.values, -half, half), np.nan)
        plain = _quotients(count.values, count.sd, centred, Z95)
        sds = np.where(is_shown, (plain[1] - plain[0]) / (2 * Z95), np.nan)
        few = _quotients(least_count(count, 1.0), count.sd, centred, z)
        many = _quotients(count.values, count.sd, centred, z)
    # An end on the far side of 0 is furthest for the least count, one on the near side for the largest.
    slack = z * centred.sd
    lows = np.where(centred.values <= slack, few[0], many[0])
    highs = np.where(centred.values >= -slack, few[1], many[1])
    return holding(values, lows, highs, -half, half, sds)


def surely(groups: int) -> float:
    """Return how many deviations above the minimum cohort a noisy count must be to be sure of so many groups.

    With probability 0.95, no group below the minimum is shown; for more than 170,000 groups the 5 deviations, which a
    smaller group passes with probability 3e-7, are not exceeded, or groups of a hundred persons would disappear too.
    """
    return min(_NORMAL.inv_cdf(1 - ALPHA / groups), 5.0)


def holding(
    values: Floats, lows: Floats, highs: Floats, least: Floats | float, most: Floats | float, sds: Floats | float
) -> Figures:
    """Cut intervals to what is possible, then widen them to hold their figure; a hidden figure gets all of it."""
    lows, highs = (np.minimum(np.maximum(ends, least), most) for ends in (lows, highs))
    is_hidden = np.isnan(values)
    lows = np.where(is_hidden, least, np.minimum(lows, values))
    highs = np.where(is_hidden, most, np.maximum(highs, values))
    return Figures(values, lows, highs, np.broadcast_to(sds, values.shape))


def fieller(
    top: Floats | float,
    bottom: Floats | float,
    variances: tuple[Floats | float, Floats | float],
    covariance: Floats | float,
    z: Floats | float,
) -> tuple[Floats, Floats]:
    """Return both ends of the quotients that two normal variables allow; they are infinite where the divisor may be 0.

    All q for which top - q * bottom is within z of its deviations of 0 (Fieller, 1954); `variances` are of both.
    """
    leading, middle = np.square(bottom) - z * z * variances[1], top * bottom - z * z * covariance
    root = np.sqrt(np.maximum(0.0, middle**2 - leading * (np.square(top) - z * z * variances[0])))
    is_bounded = leading > 0
    divisor = np.where(is_bounded, leading, 1.0)
    return np.where(is_bounded, (middle - root) / divisor, -np.inf), np.where(
        is_bounded, (middle + root) / divisor, np.inf
    )


def _quotients(counts: Floats, count_sd: float, centred: Noisy, z: float) -> tuple[Floats, Floats]:
    """Return both ends of Fieller's interval; they are infinite where the count may be zero."""
    lows, highs = fieller(centred.values, counts, (centred.sd**2, count_sd**2), 0.0, z)
    return np.where(counts > 0, lows, -np.inf), np.where(counts > 0, highs, np.inf)


def _sizes(count: Noisy, alpha: float) -> tuple[Floats, Floats]:
    """Return the least and the largest size, 0 or more, for which a shown noisy count is not unusual at `alpha`.

    The test accepts the shortest range that has 1 - alpha of a normal cut at the threshold. Both ends of that range
    grow with the size, so the sizes that it accepts are an interval; and it always has the mode of the cut normal, so
    the noisy count is one of them.
    """
    passed = np.maximum((count.values - count.threshold) / count.sd, 0.0)
    (low_at, below), (high_at, above) = _ends(alpha)
    lows = count.values - count.sd * np.interp(passed, low_at, below, left=np.inf)
    return np.maximum(lows, 0.0), count.values + count.sd * np.interp(passed, high_at, above)


@lru_cache(maxsize=8)
def _ends(alpha: float) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Return two tables: how far a count is above the threshold, and how far the least (the largest) size is from it.

    All is in deviations. A normal of mean d is cut at 0. Up to `turn` the shortest range begins at 0, and ends where a
    share of alpha is left; above, it is symmetric about d.
    """
    turn = _NORMAL.inv_cdf(1 / (1 + alpha))
    cut, symmetric = np.arange(_DEEP, turn, 0.01), np.arange(turn, _FAR, 0.01)
    half = _each(lambda d: _NORMAL.inv_cdf((1 + (1 - alpha) * _cdf(d)) / 2), symmetric)
    reach = _each(lambda d: d - _NORMAL.inv_cdf(alpha * _cdf(d)), cut)
    counts, sizes = np.concatenate([reach, symmetric + half]), np.concatenate([cut, symmetric])
    return (counts, counts - sizes), (symmetric - half, half)


def least_count(count: Noisy, least: float) -> Floats:
    """Return the noisy counts as the least size that they allow, `least` or more, makes them.

    A noisy count that is unusually large among those that a size lets pass is worth less than it looks: n + sd * U,
    where U is the normal quantile of the probability with which a shown count of a group of size n is smaller. It grows
    with n, and is at most the noisy count.
    """
    passed = np.maximum((count.values - count.threshold) / count.sd, 0.0)
    at, excess = _excess((least - count.threshold) / count.sd, SHARE_SIZE * count.alpha)
    return count.values - count.sd * np.interp(passed, at, excess)


@lru_cache(maxsize=8)
def _excess(least: float, alpha: float) -> tuple[Floats, Floats]:
    """Return a table: how far a count is above the threshold, and how much of that its least size takes away.

    In deviations; `least` is the smallest size that is possible, as its distance from the threshold; sizes are left out
    with probability `alpha`.
    """
    at = np.concatenate([np.geomspace(1e-6, 0.05, 400), np.arange(0.05, 12.0, 0.005)])
    low_at, below = _ends(alpha)[0]
    sizes = np.maximum(at - np.interp(at, low_at, below, left=np.inf), least)
    return at, np.array([one - _adjusted(one, size) for one, size in zip(at.tolist(), sizes.tolist(), strict=True)])


def _adjusted(count: float, size: float) -> float:
    """Return `size` plus the normal quantile of the probability of fewer than `count`, for a normal cut at 0."""
    if size >= _FAR:
        return count
    log_more = min(_log_cdf(size - count) - _log_cdf(size), -1e-300)  # of a larger count, given that it is above 0
    if log_more < -math.log(2):
        return size - _NORMAL.inv_cdf(max(math.exp(log_more), 1e-300))
    return size + _NORMAL.inv_cdf(-math.expm1(log_more))


def _cdf(z: float) -> float:
    return math.erfc(-z / math.sqrt(2)) / 2  # NormalDist.cdf loses the lower tail


def _log_cdf(z: float) -> float:
    """Return the logarithm of the normal distribution function, by its asymptotic series where that is exact enough."""
    if z > _DEEP:
        return math.log(_cdf(z))
    return -z * z / 2 - math.log(-z * math.sqrt(2 * math.pi)) - 1 / (z * z)


def _each(function: Callable[[float], float], arguments: Floats) -> Floats:
    return np.array([function(one) for one in arguments.tolist()])
