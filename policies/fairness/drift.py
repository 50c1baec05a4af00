"""How far a distribution over public bins has moved from that of a run: the population stability index.

The index is the sum over bins of (now - before) * ln(now / before), of shares; about 0.1 is a small change and 0.25 a
large one (Siddiqi, Credit Risk Scorecards, 2006). A chance change of n rows against m adds about
(bins - 1) * (1/n + 1/m) to it (Yurdakul, 2018), and noise more; `floor` is what is expected where nothing has moved.
"""

from dataclasses import dataclass

import numpy as np

from policies.fairness.shares import Floats

_LEAST = 0.5  # rows of an empty bin, so that no logarithm is infinite


@dataclass(frozen=True, slots=True)
class Drift:
    """An index, and what it is on average where the distribution is the same."""

    index: float
    floor: float


def drift(before: Floats, now: Floats, before_noise: float = 0.0, now_noise: float = 0.0) -> Drift:
    """Return the drift between two histograms over the same bins; the variances are of the noise of each bin.

    Raises ValueError for histograms of other lengths.
    """
    if before.shape != now.shape or before.ndim != 1:
        raise ValueError(f"histograms of {before.shape} and {now.shape} bins, expected one shape")
    (first, last), bins = (np.maximum(one, _LEAST) for one in (before, now)), len(before)
    old, new = first / first.sum(), last / last.sum()
    index = float(((new - old) * np.log(new / old)).sum())
    floor = (bins - 1) * (1 / first.sum() + 1 / last.sum())
    floor += float((before_noise / (first.sum() ** 2 * old) + now_noise / (last.sum() ** 2 * new)).sum())
    return Drift(index, floor)
