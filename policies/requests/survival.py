"""Survival curves: SURVIVAL(time, event), of the rows of each group, on a grid of the time's steps.

A row counts in one bin of the grid: as an event, or as censored (it left without one). What crosses is not these counts
but their *trails*, from the last bin to the first: number i of a trail is the sum of r[i - m] times the count of the
m-th bin from the end, where r[k] is about binom(2k, k) / 4^k. Promise: a row changes one of its group's two trails, by
the norm of r at most, which is 1.8 rows for 1,000 bins. The number at risk at any time, a sum over all later bins,
follows from a trail with 1.8 times the noise of one of its numbers; from counts by bin it would have the noise of a
thousand bins. Fichtenberger, Henzinger and Upadhyay, ICML 2023 (a square root of the matrix of all sums).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Annotated

from pydantic import Field

from policies.requests.statistic import Extent
from policies.requests.tables import TableColumn

SURVIVAL = "survival"  # the function, and the kind of its statistic
ROW = 1024  # of a trail's unit: what a row adds at its own bin
MAX_BINS = 2048
SHARE = 4  # of the price, of 5: the rest goes to the number of rows, by which groups are shown
# The columns of a curve in an answer: four before its own, and two behind it.
BESIDE = ("time", "until", "at_risk", "events", "population_low", "population_high")
TRAILS = 2  # of each group: of events, and of censored rows
MOST_WORK = 2**28  # multiplications of one silo: groups times the square of the bins
_SHOWN = 30  # rows of a curve, at most, where the question states no grid
Width = Annotated[int | None, Field(default=None, ge=1, le=2**60, exclude_if=lambda width: width is None)]


@dataclass(frozen=True, slots=True)
class Grid:
    """Bins of so many steps of a column; the first one has the number of the lower bound divided by them."""

    width: int  # steps of a bin
    first: int
    bins: int
    shown: int  # bins that one row of the answer has

    def of(self, bound: int) -> int:
        """Return the bin of a value in steps."""
        return bound // self.width - self.first

    @property
    def rows(self) -> Sequence[tuple[int, int]]:
        """The first and the last bin of each row of the answer."""
        starts = [0, *(one for one in range(1, self.bins) if not (self.first + one) % self.shown)]
        return [(start, end - 1) for start, end in zip(starts, [*starts[1:], self.bins], strict=True)]

    def ends(self, column: TableColumn, first: int, last: int) -> tuple[Decimal, Decimal]:
        """Return the first and the last value in bins of a column, within its bounds."""
        step, low, high = Decimal(column.step or 1), column.low or 0, column.high or 0
        start, end = (self.first + first) * self.width, (self.first + last + 1) * self.width - 1
        return max(start, low) * step, min(end, high) * step


def grid_of(column: TableColumn, width: int | None) -> Grid:
    """Return the grid of a time; without a width it is the finest round one, and a row shows several bins.

    Raises ValueError if it has no bounds, or too many bins.
    """
    if column.low is None or column.high is None or column.type in ("bool", "string", "date") or column.domain:
        raise ValueError(f"{column.name!r} is no time: a number with bounds, and without a domain")
    if width is not None:
        bins = _bins(column.low, column.high, width)
        if bins > MAX_BINS:
            raise ValueError(f"a curve of {bins:,} bins, at most {MAX_BINS:,} are computed")
        return Grid(width, column.low // width, bins, 1)
    fine = next(one for one in _round() if _bins(column.low, column.high, one) <= MAX_BINS)
    coarse = next(one for one in _round() if not one % fine and _bins(column.low, column.high, one) <= _SHOWN)
    return Grid(fine, column.low // fine, _bins(column.low, column.high, fine), coarse // fine)


def number(value: Decimal) -> int | float:
    """Return a time as an answer has it."""
    return int(value) if value == value.to_integral_value() else float(value)


def _bins(low: int, high: int, width: int) -> int:
    return high // width - low // width + 1


def _round() -> Sequence[int]:
    return [digit * 10**power for power in range(19) for digit in (1, 2, 5)]


@cache
def kernel(bins: int) -> tuple[int, ...]:
    """Return r: what a row adds to the numbers of its trail, from its own bin on, in units of 1 / ROW."""
    found, exact = list[int](), 1.0
    for place in range(bins):
        found.append(max(1, round(ROW * exact)))
        exact *= (2 * place + 1) / (2 * place + 2)
    return tuple(found)


def of_curves(groups: int, bins: int, rows: int, share: int) -> Extent:
    """Return the extent of the trails of all groups, where a person has at most `rows` rows, or that L2 norm of them.

    Each row changes one trail by the numbers of r, shifted and cut: no more than the norm of r. Several rows of a
    person add up where they are in one group, and are apart where they are in several.
    """
    return Extent(TRAILS * bins * groups, rows, SHARE * share, ROW, ROW, groups=sum(one * one for one in kernel(bins)))


def check_curve(time: TableColumn, event: TableColumn, width: int | None, groups: int) -> None:
    """Raise ValueError unless a curve of these columns can be computed."""
    grid = grid_of(time, width)
    if event.type != "bool":
        raise ValueError(f"{event.name!r} is no event: a bool")
    if groups * grid.bins**2 > MOST_WORK:
        raise ValueError(f"curves of {groups:,} groups on {grid.bins:,} bins are too many")
