"""Aggregates from moments: variances, deviations, covariances, correlations and regressions.

Each is computed from sums of the centred, doubled distance z = 2 * m - R of a cell, where m is its steps above the
lower bound and R the range in steps: the sum of z (`total`), of what z lacks to be at an end of its bounds (`square`),
and of the product of two columns' (`product`), over the rows where all columns of the figure are present.

Promise: one row changes a sum by no more than `square_most` or `product_most`, which follow from the table definition
alone. Sums are exact in whole units: a unit is 1 where a row's largest figure is at most MOST, else a power of two, to
which each row's figure is rounded, so that no sum of 2^34 rows exceeds 64 bits. docs/privacy-promise.md section 4.1.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from policies.requests.tables import TableColumn

MOST = 2**28  # of one row
# The statistics of one column beside its count and its total, for the figures of its spread.
SPREADS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    dict.fromkeys(("var_pop", "var_samp", "stddev_pop", "stddev_samp"), ("present", "total", "square"))
)
Part = tuple[str, Literal["first", "second", "both"]]  # a kind of statistic, and the column, or both, that it is of
_COUNT: tuple[Part, ...] = (("present", "both"),)
_SECOND: tuple[Part, ...] = (*_COUNT, ("total", "second"))
_CROSSED: tuple[Part, ...] = (*_COUNT, ("total", "first"), ("total", "second"), ("product", "both"))
_LINE: tuple[Part, ...] = (*_CROSSED, ("square", "second"))
_WHOLE: tuple[Part, ...] = (*_LINE, ("square", "first"))
# The statistics of a pair of columns that each figure is computed from: regr_slope(y, x) has y first.
PAIRS: Mapping[str, tuple[Part, ...]] = MappingProxyType(
    {
        "covar_pop": _CROSSED,
        "covar_samp": _CROSSED,
        "corr": _WHOLE,
        "regr_slope": _LINE,
        "regr_intercept": _LINE,
        "regr_r2": _WHOLE,
        "regr_count": _COUNT,
        "regr_avgx": _SECOND,
        "regr_avgy": (*_COUNT, ("total", "first")),
    }
)
# The name in `disclosure.aggregates` of a policy of each function that has not its own.
OPENED_AS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(SPREADS, "var")
    | {name: "regr" if name.startswith("regr_") else name.removesuffix("_pop").removesuffix("_samp") for name in PAIRS}
)


def square_shift(column: TableColumn) -> int:
    """Return the number of binary digits that the figure of a row in `square` is rounded by: its unit is 2^shift."""
    return _shift(column.range_steps**2 // 4)


def square_most(column: TableColumn) -> int:
    """Return the most that one row adds to `square`, in units; 0 where every cell is at an end of its bounds.

    A row has m * (R - m), from 0 at either end to R^2 / 4 in the middle. Twice that, less the most, adds up: so both
    ends of a row's figure are equally far from 0.
    """
    return _rounded(column.range_steps**2 // 4, square_shift(column))


def product_shift(one: TableColumn, other: TableColumn) -> int:
    """Return the number of binary digits that the figure of a row in `product` is rounded by: its unit is 2^shift."""
    return _shift(one.range_steps * other.range_steps)


def product_most(one: TableColumn, other: TableColumn) -> int:
    """Return the most that one row adds to `product`, in units: both cells at an end of their bounds."""
    return _rounded(one.range_steps * other.range_steps, product_shift(one, other))


def _shift(most: int) -> int:
    return max(0, (most - 1).bit_length() - (MOST - 1).bit_length())


def _rounded(figure: int, shift: int) -> int:
    """Return a figure in units of 2^shift, halves up."""
    return (figure + (1 << shift >> 1)) >> shift
