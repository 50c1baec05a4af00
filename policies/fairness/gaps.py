"""How far the groups of an audit are apart, by the measures that have names: each a figure with its interval.

The definitions are fairlearn's (0.15): differences are the largest between two groups, ratios the smallest of two, and
equalized odds the worse of the true and the false positive rates. Hardt, Price and Srebro, NIPS 2016; Feldman et al.,
KDD 2015, for disparate impact. A gap is 0 where the groups are alike, so that of a ratio is 1 less the ratio.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from policies.fairness.counts import NO, YES, Counts
from policies.fairness.shares import ALPHA, Floats, Interval, Shares, least_ratio, widest_difference, z_of


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure: whether it needs what was true, and what it makes of counts, with the share of misses `alpha`."""

    needs_truth: bool
    gap: Callable[[Counts, float], Interval]
    needs_scores: bool = False


def demographic_parity(counts: Counts, alpha: float = ALPHA) -> Interval:
    """Return the largest difference of selection rates."""
    return widest_difference(counts.selection, alpha)


def disparate_impact(counts: Counts, alpha: float = ALPHA) -> Interval:
    """Return the smallest ratio of selection rates, which the four-fifths rule compares with 0.8."""
    return least_ratio(counts.selection, alpha)


def equal_opportunity(counts: Counts, alpha: float = ALPHA) -> Interval:
    """Return the largest difference of true positive rates."""
    return widest_difference(counts.true_positives, alpha)


def equalized_odds(counts: Counts, alpha: float = ALPHA) -> Interval:
    """Return the larger of the differences of true and of false positive rates; both intervals hold at once.

    Where one of them is unknown, so is the larger.
    """
    both = [widest_difference(one, alpha / 2) for one in (counts.true_positives, counts.false_positives)]
    values = [one.value for one in both]
    value = math.nan if any(map(math.isnan, values)) else max(values)
    return Interval(value, max(one.low for one in both), max(one.high for one in both))


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """By group, what scores promised and what was true: arrays of shape (groups,)."""

    promised: Floats  # the mean score, at the middles of the bins
    happened: Floats  # the share of rows where the positive value was true
    errors: Floats  # the standard deviation of their difference, with the noise


def calibration_of(counts: Counts) -> Calibration:
    """Return the calibration of each group, to the width of the bins; raises ValueError where there are no scores."""
    if counts.bins is None:
        raise ValueError("calibration needs scores, found counts of decisions alone")
    even = (np.arange(counts.bins.shape[2]) + 0.5) / counts.bins.shape[2]
    middles = even if counts.middles is None else counts.middles
    rows, true = counts.bins.sum(1), counts.bins[:, YES]
    with np.errstate(divide="ignore", invalid="ignore"):
        total = rows.sum(1)
        promised, happened = (rows * middles).sum(1) / total, true.sum(1) / total
        off = (counts.bins[:, NO] * middles**2 + true * (1 - middles) ** 2).sum(1) / total
        own = np.maximum(off - (happened - promised) ** 2, 0.0) * counts.rows_per_person / total
        # Noise of a bin's rows changes the mean difference by its distance from that, over the rows.
        apart = happened - promised
        reach = ((middles + apart[:, None]) ** 2 + (1 - middles - apart[:, None]) ** 2).sum(1)
        errors = np.sqrt(own + counts.bin_noise * reach / total**2)
        return Calibration(
            np.where(total > 0, promised, np.nan),
            np.where(total > 0, happened, np.nan),
            np.where(total > 0, errors, np.inf),
        )


def calibration_gap(counts: Counts, alpha: float = ALPHA) -> Interval:
    """Return the largest difference between groups of what happened less what the scores promised.

    Normal intervals of all pairs at once (Bonferroni); they miss more often where a group has few rows.
    """
    found, groups = calibration_of(counts), len(counts.groups)
    if groups < 2:
        return Interval(float("nan"), 0.0, 1.0)
    apart, z = found.happened - found.promised, z_of(2 * alpha / (groups * (groups - 1)))
    low, high = 0.0, 0.0
    for one in range(groups):
        for other in range(groups):
            difference, slack = apart[one] - apart[other], z * float(np.hypot(found.errors[one], found.errors[other]))
            if one != other and np.isfinite(difference):
                low, high = max(low, float(difference) - slack), max(high, float(difference) + slack)
            elif one != other:
                high = 2.0
    known = apart[np.isfinite(apart)]
    return Interval(float(known.max() - known.min()) if len(known) > 1 else float("nan"), low, min(high, 2.0))


def _of_ratio(ratio: Callable[[Counts, float], Interval]) -> Callable[[Counts, float], Interval]:
    def gap(counts: Counts, alpha: float) -> Interval:
        found = ratio(counts, alpha)
        return Interval(1 - found.value, max(0.0, 1 - found.high), 1 - found.low)

    return gap


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "demographic-parity": Measure(False, demographic_parity),
        "disparate-impact": Measure(False, _of_ratio(disparate_impact)),
        "equal-opportunity": Measure(True, equal_opportunity),
        "equalized-odds": Measure(True, equalized_odds),
        "calibration": Measure(True, calibration_gap, needs_scores=True),
    }
)


def measured(counts: Counts) -> tuple[str, ...]:
    """Return the measures that can be computed of these counts."""
    return tuple(
        name
        for name, one in MEASURES.items()
        if (counts.has_truth or not one.needs_truth) and (counts.bins is not None or not one.needs_scores)
    )


def rates_of(counts: Counts) -> Mapping[str, Shares]:
    """Return the shares by group that an audit shows, by their names."""
    found = {"selection rate": counts.selection}
    if counts.has_truth:
        found |= {
            "true positive rate": counts.true_positives,
            "false positive rate": counts.false_positives,
            "accuracy": counts.right,
        }
    return found
