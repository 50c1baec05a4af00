"""One block of the vector that a silo contributes: what its numbers mean, how many there are, what they reveal.

`Plan` of `SELECT sex, AVG(age) ...` has the statistics `present:age` and `total:age`, each of one number a group.
Promise: `Extent` is computed from the signed request alone, so all parties agree on it before a row is read.
"""

from typing import NamedTuple

CARRIED_ROWS = 10_000  # at the end of their bounds, or persons: a backend that carries less serves nobody
MIN_EXACT = 2**50  # of weights in units of 2^-30, times rows


class Statistic(NamedTuple):
    """Which numbers one block holds; `column` is the column that they are of, if it is one."""

    kind: str
    column: str | None = None

    @property
    def name(self) -> str:
        """The name of the block in the manifest."""
        return self.kind if self.column is None else f"{self.kind}:{self.column}"


class Extent(NamedTuple):
    """How large a statistic is, and how much one person can change it."""

    length: int  # slots
    sensitivity: int  # L2, of one person at one silo, in the statistic's whole numbers; 0 where there is no noise
    share: int  # of the price, in parts of the whole; 0 where there is no noise
    room: int  # magnitude at one silo that a backend must carry at least


def noised(length: int, sensitivity: int, share: int = 1) -> Extent:
    """Return the extent of a statistic that gets noise."""
    return Extent(length, sensitivity, share, CARRIED_ROWS * sensitivity)


def exact(length: int) -> Extent:
    """Return the extent of a statistic without noise; only a source that its policy declares exact gives one."""
    return Extent(length, 0, 0, MIN_EXACT)
