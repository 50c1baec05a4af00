"""Bins of scores, by which the quality of predictions is told from counts: the same at every silo, from public numbers.

A probability is placed by its logarithm of odds, in bins of equal width between two ends: so rare outcomes, whose
probabilities lie near 0, are told apart as well as frequent ones, and the middle of the bins is a probability of 0.5.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LEAST = 1e-12  # of a probability, and from 1: what a logarithm is taken of


@dataclass(frozen=True, slots=True)
class Bins:
    """Bins of the logarithm of odds from -`end` to `end`; what lies beyond is in the outer ones."""

    count: int
    end: float

    def places(self, probabilities: Floats) -> npt.NDArray[np.int64]:
        """Return the bin of each probability; what is no number is in the first."""
        known = np.clip(np.nan_to_num(probabilities, nan=0.0), LEAST, 1 - LEAST)
        odds = np.log(known) - np.log1p(-known)
        places = np.floor((odds + self.end) * (self.count / (2 * self.end)))
        return np.asarray(np.clip(places, 0, self.count - 1), np.int64)

    @property
    def middles(self) -> Floats:
        """The probability in the middle of each bin."""
        width = 2 * self.end / self.count
        return np.asarray(1 / (1 + np.exp(-(np.arange(self.count) * width + width / 2 - self.end))), np.float64)

    @property
    def edges(self) -> Floats:
        """The probability at each edge, one more than bins: the outer bins reach to 0 and 1."""
        odds = np.arange(self.count + 1) * (2 * self.end / self.count) - self.end
        found = 1 / (1 + np.exp(-odds))
        found[0], found[-1] = 0.0, 1.0
        return np.asarray(found, np.float64)


FINE = Bins(512, 16.0)  # of sums without noise
COARSE = Bins(16, 4.0)  # of sums with noise, which each bin has
