"""Which sums each figure of moments is estimated from: sums to half ranges, figures back to the units of columns."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from analyst.reports.intervals import Figures, Noisy, of_count, of_mean
from analyst.reports.moments import (
    Moments,
    Side,
    of_correlation,
    of_covariance,
    of_determination,
    of_deviation,
    of_intercept,
    of_slope,
    of_variance,
)
from policies.requests.moments import product_shift, square_most, square_shift
from policies.requests.tables import TableColumn

Sums = Callable[[str, TableColumn, TableColumn | None], Noisy]  # of a statistic by kind, column, and column beside it
_Pair = tuple[TableColumn, TableColumn]  # the first and the second column of a figure: y and x
_SLACK = 1.9  # deviations, fewer than any interval has: what rounding adds is less than this many of what is added


def of_column(function: str, column: TableColumn, of: Sums) -> Figures:
    """Return the figures of one column, in its own units."""
    return _SPREADS[function](column, Moments.of(of("present", column, None), _side(column, None, of)))


def of_pair(function: str, pair: _Pair, of: Sums) -> Figures:
    """Return the figures of two columns, the first by the second, in their own units."""
    return _PAIRS[function](pair, of)


def _half(column: TableColumn) -> float:
    """Return half of the range of a column, in its own units."""
    return float(column.step or 1) * column.range_steps / 2


def _middle(column: TableColumn) -> float:
    """Return the middle of the bounds of a column, in its own units."""
    return float(column.step or 1) * ((column.low or 0) + (column.high or 0)) / 2


def _scaled(noisy: Noisy, scale: float, rounding: float = 0.0, count: Noisy | None = None) -> Noisy:
    """Return a sum times a scale; its deviation is enlarged by what rounding each row may have added to it."""
    most = 0.0 if count is None or not len(count.values) else max(0.0, float(count.values.max()) + 8 * count.sd)
    return Noisy(scale * noisy.values, abs(scale) * noisy.sd + rounding * most / _SLACK)


def _total(column: TableColumn, beside: TableColumn | None, of: Sums) -> Noisy:
    return _scaled(of("total", column, beside), 1 / column.range_steps)


def _side(column: TableColumn, beside: TableColumn | None, of: Sums) -> Side:
    """Return a column's total and squares: a square is 1 where a cell is at an end of its bounds, 0 in the middle."""
    total, most, shift = _total(column, beside, of), square_most(column), square_shift(column)
    if not most:
        return Side(total, None, 1.0)
    unit = 2.0 ** (shift + 1) / column.range_steps**2
    rounding = unit if shift else 0.0
    square = _scaled(of("square", column, beside), -unit, rounding, of("present", column, beside))
    return Side(total, square, 1 - unit * most)


def _product(pair: _Pair, of: Sums) -> Noisy:
    shift = product_shift(*pair)
    unit = 2.0**shift / (pair[0].range_steps * pair[1].range_steps)
    return _scaled(of("product", *pair), unit, unit / 2 if shift else 0.0, of("present", *pair))


def _crossed(pair: _Pair, of: Sums) -> Moments:
    y, x = pair
    return Moments.of(of("present", y, x), Side(_total(x, y, of)), Side(_total(y, x, of)), _product(pair, of))


def _line(pair: _Pair, of: Sums) -> Moments:
    y, x = pair
    return Moments.of(of("present", y, x), _side(x, y, of), Side(_total(y, x, of)), _product(pair, of))


def _whole(pair: _Pair, of: Sums) -> Moments:
    y, x = pair
    return Moments.of(of("present", y, x), _side(x, y, of), _side(y, x, of), _product(pair, of))


def _covariance(pair: _Pair, of: Sums, is_sample: bool) -> Figures:
    return of_covariance(_crossed(pair, of), is_sample).scaled(_half(pair[0]) * _half(pair[1]))


def _steepest(pair: _Pair) -> float:
    """Return the largest slope that is possible, in half ranges: a line is a weighted mean of lines between two rows.

    Two rows that differ in x differ by a step at least, and in y by the range at most.
    """
    return float(pair[1].range_steps)


def _slope(pair: _Pair, of: Sums) -> Figures:
    return of_slope(_line(pair, of), _steepest(pair)).scaled(_half(pair[0]) / _half(pair[1]))


def _intercept(pair: _Pair, of: Sums) -> Figures:
    y, x = pair
    found = of_intercept(_line(pair, of), -_middle(x) / _half(x), _steepest(pair))
    return found.scaled(_half(y), _middle(y))


def _average(column: TableColumn, beside: TableColumn, of: Sums) -> Figures:
    found = of_mean(of("present", column, beside), _total(column, beside, of), 1.0)
    return found.scaled(_half(column), _middle(column))


_SPREADS: Mapping[str, Callable[[TableColumn, Moments], Figures]] = MappingProxyType(
    {
        "var_pop": lambda column, sums: of_variance(sums, False).scaled(_half(column) ** 2),
        "var_samp": lambda column, sums: of_variance(sums, True).scaled(_half(column) ** 2),
        "stddev_pop": lambda column, sums: of_deviation(sums, False).scaled(_half(column)),
        "stddev_samp": lambda column, sums: of_deviation(sums, True).scaled(_half(column)),
    }
)
_PAIRS: Mapping[str, Callable[[_Pair, Sums], Figures]] = MappingProxyType(
    {
        "covar_pop": lambda pair, of: _covariance(pair, of, False),
        "covar_samp": lambda pair, of: _covariance(pair, of, True),
        "corr": lambda pair, of: of_correlation(_whole(pair, of)),
        "regr_slope": _slope,
        "regr_intercept": _intercept,
        "regr_r2": lambda pair, of: of_determination(_whole(pair, of)),
        "regr_count": lambda pair, of: of_count(of("present", *pair)),
        "regr_avgx": lambda pair, of: _average(pair[1], pair[0], of),
        "regr_avgy": lambda pair, of: _average(pair[0], pair[1], of),
    }
)
