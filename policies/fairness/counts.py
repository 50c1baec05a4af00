"""Counts by group: of decisions, and where it is known what was true, of true and false ones. Scores in bins, too.

A group is a value of one column with the role `audit`, or of two. Groups of fewer persons than `min_cohort` are added
to the group "other", which is left out where it is too small itself. It is judged by opened counts, so on private
sources by noisy ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from policies.fairness.shares import Floats, Shares

OTHER = "other"
NO, YES = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Rows of each group by what was true and what was decided, and the persons of each group.

    Where only decisions are known, no row has anything that was true, and there are no errors.
    """

    groups: tuple[str, ...]
    persons: Floats  # shape (groups,)
    rows: Floats  # shape (groups, 2, 2): by truth, then by decision; of decisions alone (groups, 1, 2)
    noise: Floats  # the variance of each number in `rows`
    rows_per_person: int = 1
    # Scores of the rows: how many of each truth lie in each bin, shape (groups, 2, bins); None without scores.
    bins: Floats | None = None
    middles: Floats | None = None  # the score that stands for each bin; None: of bins of equal width in [0, 1]
    bin_noise: float = 0.0  # the variance of each number in `bins`

    @property
    def has_truth(self) -> bool:
        return bool(self.rows.shape[1] > 1)

    @property
    def selection(self) -> Shares:
        """The rows of which the positive value was decided, among all."""
        rows, noise = self.rows.sum(1), self.noise.sum(1)
        return Shares(rows[:, YES], rows[:, NO], noise[:, YES], noise[:, NO], self.rows_per_person)

    @property
    def true_positives(self) -> Shares:
        """The rows of which the positive value was decided, among those where it was true."""
        return self._of(YES)

    @property
    def false_positives(self) -> Shares:
        """The rows of which the positive value was decided, among those where it was not true."""
        return self._of(NO)

    @property
    def right(self) -> Shares:
        """The rows of which what was decided was true, among all."""
        hits, noise = (one[:, YES, YES] + one[:, NO, NO] for one in (self.rows, self.noise))
        wrong, more = (one[:, YES, NO] + one[:, NO, YES] for one in (self.rows, self.noise))
        return Shares(hits, wrong, noise, more, self.rows_per_person)

    def _of(self, truth: int) -> Shares:
        rows, noise = self.rows[:, truth], self.noise[:, truth]
        return Shares(rows[:, YES], rows[:, NO], noise[:, YES], noise[:, NO], self.rows_per_person)

    def only(self, places: Sequence[int]) -> "Counts":
        """Return the counts of some groups, in order."""
        chosen = list(places)
        return replace(
            self,
            groups=tuple(self.groups[place] for place in chosen),
            persons=self.persons[chosen],
            rows=self.rows[chosen],
            noise=self.noise[chosen],
            bins=None if self.bins is None else self.bins[chosen],
        )


def merged(counts: Counts, min_cohort: int) -> tuple[Counts, tuple[str, ...]]:
    """Return the counts with groups of fewer than `min_cohort` persons as one, and the groups that went into it.

    "other" is left out where it has fewer persons itself. A domain's own value of that name stays what it is.
    """
    is_large = counts.persons >= min_cohort
    large, small = np.flatnonzero(is_large), np.flatnonzero(~is_large)
    kept, names = counts.only(large.tolist()), tuple(counts.groups[place] for place in small)
    rest = counts.only(small.tolist())
    if not len(small) or rest.persons.sum() < min_cohort:
        return kept, names
    name = OTHER if OTHER not in kept.groups else "other (merged)"
    together = replace(
        kept,
        groups=(*kept.groups, name),
        persons=np.append(kept.persons, rest.persons.sum()),
        rows=np.concatenate([kept.rows, rest.rows.sum(0, keepdims=True)]),
        noise=np.concatenate([kept.noise, rest.noise.sum(0, keepdims=True)]),
        bins=None if kept.bins is None or rest.bins is None
        else np.concatenate([kept.bins, rest.bins.sum(0, keepdims=True)]),
    )  # fmt: skip
    return together, names
