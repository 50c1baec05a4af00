"""Survival curves (Kaplan and Meier, 1958) from noisy trails, with intervals; the median, and the log-rank test.

Pure: trails in, figures out. docs/intervals.md, section 10. A trail is as `policies/requests/survival.py` has it: the
sums of counts by bin that follow from it, from the last bin backwards, have noise of a known covariance. They are made
to rise from 0 (isotonic regression), so that no bin has a negative count and no curve rises; without noise that changes
nothing. Intervals of the noise follow from how each count moves a figure, at the estimate.

Assumes: a curve is told only while more are left than the noise hides (1.96 deviations); from there on it is known to
be no higher than before. Sources: Greenwood, 1926 (the variance of a curve of a sample); Mantel, 1966 (log-rank).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from analyst.reports.intervals import Z95, Floats
from policies.requests.survival import kernel

HALF = 0.5
_Z = 2.2  # deviations of a curve's interval: more than a normal figure has, as its variance is estimated
_FAR = 3.0  # deviations of those left, from which their number is hardly what made the curve be told
_CHUNK = 256  # figures that are transformed at once
_MOST_GROUPS = 24  # of a log-rank test
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """How counts follow from a trail of so many bins: the inverse of its kernel, and of the sums of it."""

    counts: Floats  # (bins): of one number of the trail, by how far back its bin is
    sums: Floats  # (bins): the same, added up

    @property
    def bins(self) -> int:
        return len(self.counts)

    def totals(self, trail: Floats) -> Floats:
        """Return the noisy counts of each bin and all behind it, from the last one backwards."""
        return np.convolve(trail, self.sums)[: self.bins]

    def moved(self, weights: Floats) -> Floats:
        """Return by how much each number of a trail moves what has these weights of counts, from the first bin on.

        Both are of shape (bins, figures), a trail from the last bin backwards.
        """
        size = 1 << (2 * self.bins - 1).bit_length()  # so that nothing wraps
        kernel = np.conj(np.fft.rfft(self.counts, size))
        # Number k of a trail is in the count of every bin from it on: a correlation, by Fourier's transform.
        parts = [weights[::-1, start : start + _CHUNK].T for start in range(0, weights.shape[1], _CHUNK)]
        found = [np.fft.irfft(kernel * np.fft.rfft(part, size), size)[:, : self.bins].T for part in parts]
        return np.concatenate(found, axis=1)

    def deviation_of_totals(self) -> Floats:
        """Return the deviation of the count from each bin on, in that of a number of the trail, from the first bin."""
        return np.sqrt(np.cumsum(self.sums**2))[::-1]


@lru_cache(maxsize=4)
def reading(bins: int) -> Reading:
    """Return how counts follow from trails of so many bins."""
    r, found = np.array(kernel(bins), np.float64), np.zeros(bins)
    found[0] = 1 / r[0]
    for place in range(1, bins):
        found[place] = -float(r[1 : place + 1] @ found[place - 1 :: -1][:place]) / r[0]
    return Reading(found, np.cumsum(found))


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Estimated counts of one group by bin, from the first one; `raw` are the noisy sums from each bin on."""

    events: Floats
    censored: Floats
    raw: tuple[Floats, Floats]  # of events, and of censored rows
    sd: float  # of the noise of a number of the trails

    @property
    def at_risk(self) -> Floats:
        """The rows whose time is in the bin, or later."""
        return np.cumsum((self.events + self.censored)[::-1])[::-1]

    @property
    def bins(self) -> int:
        return len(self.events)

    @property
    def hidden(self) -> Floats:
        """The number at risk that the noise hides, from each bin on."""
        return Z95 * math.sqrt(2) * self.sd * reading(self.bins).deviation_of_totals()

    @property
    def is_told(self) -> Bools:
        """Where the noise does not hide who is left; from the first bin where it does, nothing is told."""
        return np.logical_and.accumulate(self.at_risk - self.events > self.hidden)

    @property
    def is_far(self) -> Bools:
        """Where so many are left that being told says little of the noise; else a share may be as low as 0."""
        return np.logical_and.accumulate(self.at_risk - self.events > _FAR / Z95 * self.hidden)


def counts_of(events: Floats, censored: Floats, sd: float) -> Counts:
    """Return the counts that two trails say, each made to be 0 or more; `sd` is of the noise of their numbers."""
    read = reading(len(events))
    raw = tuple(read.totals(trail) for trail in (events, censored))
    whole = [np.diff(np.maximum(_rising(totals), 0.0), prepend=0.0)[::-1] for totals in raw]
    return Counts(whole[0], whole[1], (raw[0][::-1], raw[1][::-1]), sd)


def _rising(values: Floats) -> Floats:
    """Return the nearest values that nowhere fall (pool adjacent violators: Ayer et al., 1955)."""
    means, sizes = list[float](), list[int]()
    for value in values.tolist():
        means.append(value)
        sizes.append(1)
        while len(means) > 1 and means[-2] >= means[-1]:
            mean, size = means.pop(), sizes.pop()
            means[-1] = (means[-1] * sizes[-1] + mean * size) / (sizes[-1] + size)
            sizes[-1] += size
    return np.repeat(np.array(means, np.float64), sizes)


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The share that is left at the end of each bin, in figures of the same length; NaN where it is not told.

    `lows` and `highs` are of the noise: they hold the share of the rows that the silos have. `least` and `most` are of
    the population too, from which the rows are a sample.
    """

    shares: Floats
    lows: Floats
    highs: Floats
    sds: Floats
    least: Floats
    most: Floats


def kaplan_meier(events: Floats, at_risk: Floats) -> Floats:
    """Return the share that is left at the end of each bin; nobody leaves where nobody is at risk."""
    rates = np.divide(events, at_risk, out=np.zeros_like(events), where=at_risk > 0)
    return np.asarray(np.cumprod(1 - np.minimum(rates, 1.0)))


def greenwood(events: Floats, at_risk: Floats) -> Floats:
    """Return the variance of the logarithm of the share at the end of each bin, of a sample (Greenwood, 1926)."""
    left = at_risk - events
    parts = np.divide(events, at_risk * left, out=np.zeros_like(events), where=(at_risk > 0) & (left > 0))
    return np.asarray(np.cumsum(parts))


def curve_of(counts: Counts, ends: Sequence[int] | None = None) -> Curve:
    """Return the curve at the ends of these bins, or of all."""
    places = np.arange(counts.bins) if ends is None else np.array(ends, np.int64)
    events, at_risk, told = counts.events, counts.at_risk, counts.is_told[places]
    shares, sampled = kaplan_meier(events, at_risk)[places], greenwood(events, at_risk)[places]
    noise = counts.sd**2 * _variances(events, at_risk, places)
    sds = shares * np.sqrt(noise)
    is_far = counts.is_far[places]
    lows = np.where(is_far, np.maximum(shares - _Z * sds, 0.0), 0.0)
    highs = np.minimum(np.where(told, shares + _Z * sds, np.inf), 1.0)
    # Nobody comes back: an end that holds later on holds before, and the reverse.
    lows = np.minimum.accumulate(lows)
    whole = np.maximum.accumulate(np.where(told, highs, 0.0)[::-1])[::-1]
    last = float(whole[told][-1]) if told.any() else 1.0
    highs = np.where(told, whole, last)
    spread = np.exp(np.minimum(Z95 * np.sqrt(noise + sampled), 50.0))
    hidden = np.where(told, 1.0, np.nan)
    return Curve(
        shares * hidden,
        lows,
        highs,
        sds * hidden,
        np.minimum(shares / spread, lows) * hidden,
        np.clip(shares * spread, highs, 1.0) * hidden,
    )


def _variances(events: Floats, at_risk: Floats, places: npt.NDArray[np.int64]) -> Floats:
    """Return the variance of the logarithm of the share at the ends of some bins, for noise of deviation 1.

    An event in bin k takes 1 / left(k) from it if k is not later. It adds to it, as everybody in bin k does, by being
    at risk until then: the sum of events / (at_risk * left) up to there.
    """
    left = at_risk - events
    sampled = greenwood(events, at_risk)
    of_event = np.divide(1.0, left, out=np.zeros_like(left), where=left > 0)
    bins = np.arange(len(events))
    present = sampled[np.minimum(bins[:, None], places[None, :])]
    gone = np.where(bins[:, None] <= places[None, :], of_event[:, None], 0.0)
    read = reading(len(events))
    moved = read.moved(present - gone), read.moved(present)
    return np.asarray((moved[0] ** 2).sum(axis=0) + (moved[1] ** 2).sum(axis=0))


@dataclass(frozen=True, slots=True)
class Median:
    """The first bin at whose end half or fewer are left, and those that this may be; None: not before the last one.

    `low` and `high` are of the noise, `least` and `most` of a larger population.
    """

    bin: int | None
    low: int | None
    high: int | None
    least: int | None
    most: int | None


def median_of(curve: Curve) -> Median:
    """Return the median of a curve of all bins, by the intervals of its shares (Brookmeyer and Crowley, 1982)."""
    is_hidden = np.isnan(curve.shares)
    least, most = np.where(is_hidden, 0.0, curve.least), np.where(is_hidden, 1.0, curve.most)
    shares = np.where(is_hidden, 1.0, curve.shares)
    return Median(*(_first_half(one) for one in (shares, curve.lows, curve.highs, least, most)))


def _first_half(shares: Floats) -> int | None:
    """Return the first bin where half or fewer are left, to a billionth: rounding must not move it."""
    found = np.flatnonzero(shares <= HALF + 1e-9)
    return int(found[0]) if len(found) else None


@dataclass(frozen=True, slots=True)
class LogRank:
    """A test of whether groups have one curve: the noise of the counts is allowed for."""

    chi2: float
    freedom: int
    p: float


def log_rank(groups: Sequence[Counts]) -> LogRank | None:
    """Compare the curves of groups (Mantel, 1966); None where there are too few, too many, or nothing is told.

    Under one curve for all, observed less expected events have the hypergeometric variance, and that of the noise.
    """
    if not 2 <= len(groups) <= _MOST_GROUPS:
        return None
    events, at_risk = (np.array([getattr(one, name) for one in groups]) for name in ("events", "at_risk"))
    hidden = np.sqrt(np.sum([one.hidden**2 for one in groups], axis=0))
    is_told = np.logical_and.accumulate(at_risk.sum(axis=0) > hidden)
    if not is_told.any():
        return None
    all_events, everybody = events.sum(axis=0), at_risk.sum(axis=0)
    divisor = np.where(is_told, everybody, 1.0)
    shares, rates = np.where(is_told, at_risk / divisor, 0.0), np.where(is_told, all_events / divisor, 0.0)
    observed = np.where(is_told, events - at_risk * rates, 0.0).sum(axis=1)
    left = np.where(is_told & (everybody > 1), (everybody - all_events) / np.maximum(everybody - 1, 1e-9), 0.0)
    scale = np.where(is_told, all_events * np.clip(left, 0.0, 1.0), 0.0)
    spread = np.diag((scale * shares).sum(axis=1)) - (scale * shares) @ shares.T
    spread += _noise_of(groups, shares, rates, is_told)
    own, whole = observed[:-1], spread[:-1, :-1]
    rank = int(np.linalg.matrix_rank(whole, tol=1e-9 * max(1.0, float(np.abs(whole).max(initial=0.0)))))
    if not rank:
        return None
    chi2 = max(0.0, float(own @ np.linalg.pinv(whole, hermitian=True) @ own))
    return LogRank(chi2, rank, chi2_above(chi2, rank))


def _noise_of(groups: Sequence[Counts], shares: Floats, rates: Floats, is_told: Bools) -> Floats:
    """Return the covariance, by noise, of observed less expected events of every two groups."""
    count, bins = shares.shape
    read, covariance = reading(bins), np.zeros((count, count))
    for whose, one in enumerate(groups):
        own = np.eye(count)[whose][:, None] - shares
        until = -np.cumsum(own * rates, axis=1)  # of being at risk until then
        for weights in (own * is_told + until, until):
            moved = read.moved(weights.T)
            covariance += one.sd**2 * moved.T @ moved
    return covariance


def chi2_above(value: float, freedom: int) -> float:
    """Return the probability of a larger value of chi-square with so many degrees of freedom, 1 or more."""
    half = value / 2
    if freedom % 2:
        found, term = math.erfc(math.sqrt(half)), math.sqrt(half) * math.exp(-half) * 2 / math.sqrt(math.pi)
        for place in range(1, freedom, 2):
            found += term
            term *= value / (place + 2)
        return found
    found, term = 0.0, math.exp(-half)
    for place in range(2, freedom + 2, 2):
        found += term
        term *= value / place
    return found
