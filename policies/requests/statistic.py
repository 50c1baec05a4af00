"""A statistic: one block of a silo's contribution, with its meaning, its length and its sensitivity.

`Plan` of `SELECT sex, AVG(age) ...` has the statistics `present:age` and `total:age`, each of one number a group.
Promise: `Extent` is computed from the signed request alone, so all parties agree on it before a row is read.
"""

from typing import NamedTuple

MAX_NARROW = 2**31 - 1  # a figure of 32 bits that is this one may have been greater
MIN_EXACT = 2**50  # of weights in units of 2^-30, times rows


class Statistic(NamedTuple):
    """The kind of one block's numbers, and their column if they have one.

    `other` is a second column: the one that is multiplied, or else one that must be present in the same row.
    """

    kind: str
    column: str | None = None
    other: str | None = None

    @property
    def name(self) -> str:
        """The name of the block in the manifest."""
        return ":".join(part for part in self if part is not None)

    def in_block(self, number: int) -> "Statistic":
        """Return it as a statistic of a request with several blocks, of the one with this number, from 1."""
        return Statistic(f"{number}/{self.kind}", self.column, self.other)


class Extent(NamedTuple):
    """The size of a statistic, and the most that one person can change it."""

    length: int  # slots
    # L2, of one person at one silo, in the statistic's whole numbers, in one of `groups`; 0 where there is no noise.
    sensitivity: int
    share: int  # of the price, in parts of the whole; 0 where there is no noise
    per_row: int  # the most that one row, or one person, adds to a number; 0 where no bound of rows bounds it
    room: int  # the magnitude at one silo that a backend must be able to carry in any case
    # Of one person, each of which may change so much, or levels of a tree: the L2 of all is its square root times that.
    # Of a trail it is the sum of squares of what a row adds to its numbers.
    groups: int = 1
    most: int | None = None  # the greatest magnitude at one silo, before scaling and noise; None: what is carried

    def of_share(self, share: int) -> "Extent":
        """Return it with another share of the price."""
        return self._replace(share=share)

    def up_to(self, most: int) -> "Extent":
        """Return it with the greatest magnitude that a number of one silo can have, by the request alone."""
        return self._replace(most=most)

    @property
    def word_bytes(self) -> int:
        """The bytes of a number of one silo, before noise: 4 if that holds what is stated, and more, else 8."""
        return 4 if self.most is not None and self.most < MAX_NARROW else 8

    @property
    def squared(self) -> int:
        """The square of the L2 sensitivity."""
        return self.sensitivity**2 * self.groups

    def in_groups(self, groups: int) -> "Extent":
        """Return the extent where one person may change so much in each of so many groups."""
        return self._replace(groups=groups * self.groups)


def noised(length: int, sensitivity: int, share: int = 1, per_row: int | None = None) -> Extent:
    """Return the extent of a statistic that gets noise; one row, or one person, adds at most `per_row`, or it all."""
    each = sensitivity if per_row is None else per_row
    return Extent(length, sensitivity, share, each, each)


def exact(length: int, per_row: int = 0) -> Extent:
    """Return the extent of a statistic without noise; only a source that its policy declares exact gives one."""
    return Extent(length, 0, 0, per_row, MIN_EXACT)
