"""95 % intervals of variances, deviations, covariances, correlations and regressions. docs/intervals.md, section 6.

Promise: that of `analyst.reports.intervals`: of the intervals that are shown, each holds the truth with probability
0.95 or more, and its own figure. Assumes the same.

Each figure f is the root of a form A - f * B of the sums, whose coefficients are unknown means, variances or slopes. It
is chosen so that it does not change, to first order, with any of these at their true values. Given them it is a normal
variable around 0, so Fieller's set of its quotient holds f; the interval is the union of these sets over a confidence
box of the unknowns, and over what the count can be given that it was shown. All is in units of half a range, from the
middle of the bounds: a cell is between -1 and 1. Sources: Fieller, JRSS B 1954; Berger and Boos, JASA 1994 (the union).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt

from analyst.reports.intervals import SHARE_SIZE, Z95, Figures, Floats, Noisy, fieller, holding, least_count, z_of

_SHARE_UNKNOWN = 0.04  # of alpha, of each unknown: that it is outside of the box
_POINTS = 5  # of each unknown's range, at which the union is taken
_FLAT = 4e-15  # a variance below this is that of rounding
_COUNT, _X, _XX, _Y, _YY, _XY = range(6)  # the sums, in their order
Form = dict[int, Floats | float]  # the coefficient of each sum; of 1 under _ONE
_ONE = 6
Ends = tuple[Floats, Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One column: its total, and its squares less `rest` each; a column that is always at an end has no noise there."""

    total: Noisy
    square: Noisy | None = None
    rest: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """The six sums of the shown groups, in half ranges: `values` and `sds` by sum, and the count's threshold."""

    values: tuple[Floats, ...]
    sds: tuple[float, ...]
    rests: tuple[float, float]
    count: Noisy

    @classmethod
    def of(cls, count: Noisy, x: Side, y: Side | None = None, product: Noisy | None = None) -> "Moments":
        """Return the sums that a figure needs; those that it does not need are 0 and have no noise."""
        none = Noisy(np.zeros_like(count.values), 0.0)
        y = Side(none) if y is None else y
        sums = (count, x.total, x.square or none, y.total, y.square or none, product or none)
        return cls(tuple(one.values for one in sums), tuple(one.sd for one in sums), (x.rest, y.rest), count)

    def selected(self, least: float) -> "Moments":
        """Return the same, where the count must also have been above `least` and above 1.96 deviations."""
        threshold = max(self.count.threshold, Z95 * self.count.sd, least)
        return replace(self, count=replace(self.count, threshold=threshold))

    def counted(self, counts: Floats) -> "Moments":
        return replace(self, values=(counts, *self.values[1:]))

    def at(self, form: Form) -> Floats:
        """Return the value of a form at the noisy sums."""
        found = np.zeros_like(self.count.values)
        for index, one in form.items():
            found += one if index == _ONE else one * self.values[index]
        return found

    def covariance(self, one: Form, other: Form) -> Floats:
        """Return the covariance of two forms, by the noise of the sums that both have."""
        found = np.zeros_like(self.count.values)
        for index in one.keys() & other.keys() - {_ONE}:
            found += one[index] * other[index] * self.sds[index] ** 2
        return found

    # The forms. Each is, at the true means, a sum over rows of what its name says.

    def squares(self, mean: Floats | float, *, of: int = _X) -> Form:
        """Return the squared distances of a column from a mean."""
        rest = self.rests[0 if of == _X else 1]
        return {_COUNT: rest + mean * mean, of: -2 * mean, of + 1: 1.0}

    @staticmethod
    def products(mean_x: Floats | float, mean_y: Floats | float) -> Form:
        """Return the products of the distances of both columns from their means."""
        return {_COUNT: mean_x * mean_y, _X: -mean_y, _Y: -mean_x, _XY: 1.0}


_ROWS: Form = {_COUNT: 1.0}
_OTHER_ROWS: Form = {_COUNT: 1.0, _ONE: -1.0}  # all but one, by which a sample's variance is divided


def of_variance(sums: Moments, is_sample: bool) -> Figures:
    """Return the variance of x, in squared half ranges."""
    sums, divisor = sums.selected(float(is_sample)), _divisor(is_sample)
    means, z = _means(sums, _X), _z(sums, 1)

    def sets(given: Moments) -> Iterator[Ends]:
        for mean in _spread(_interval(given, {_X: 1.0}, _ROWS, _z_unknown(given), -1, 1)):
            yield _quotient(given, given.squares(mean), divisor, z)

    values, sds = _estimate(sums, sums.squares(means), divisor)
    most = _most_variance(sums, is_sample)
    return _figures(sums, np.clip(values, 0.0, most), sds, sets, 0.0, 2.0 if is_sample else 1.0, least=1.0 + is_sample)


def of_deviation(sums: Moments, is_sample: bool) -> Figures:
    """Return the standard deviation of x, in half ranges."""
    squared = of_variance(sums, is_sample)
    values, lows, highs = np.sqrt(squared.values), np.sqrt(squared.lows), np.sqrt(squared.highs)
    return Figures(values, lows, highs, squared.sds / (2 * np.sqrt(np.maximum(squared.values, squared.sds))))


def of_covariance(sums: Moments, is_sample: bool) -> Figures:
    """Return the covariance of x and y, in half ranges of each."""
    sums, divisor, z = sums.selected(float(is_sample)), _divisor(is_sample), _z(sums, 2)

    def sets(given: Moments) -> Iterator[Ends]:
        for mean_x, mean_y in _mean_pairs(given):
            yield _quotient(given, given.products(mean_x, mean_y), divisor, z)

    values, sds = _estimate(sums, sums.products(_means(sums, _X), _means(sums, _Y)), divisor)
    most = _most_variance(sums, is_sample)
    whole = 2.0 if is_sample else 1.0
    return _figures(sums, np.clip(values, -most, most), sds, sets, -whole, whole, least=1.0 + is_sample)


def of_slope(sums: Moments, most: float) -> Figures:
    """Return the slope of y by x, in half ranges of y for one of x; no slope is beyond `most`."""
    return _slope(sums.selected(1.0), most, _z(sums, 2))


def of_intercept(sums: Moments, origin: float, most_slope: float) -> Figures:
    """Return where the line of y by x is at x = `origin`, in half ranges from the middle; no slope is beyond a most."""
    sums = sums.selected(1.0)
    slopes = _slope(sums, most_slope, _z_unknown(sums))
    z, most = _z(sums, 5), 1 + most_slope * (abs(origin) + 1)

    def line(given: Moments, mean: Floats, variance: Floats, slope: Floats) -> tuple[Form, Form]:
        away, rest = mean - origin, given.rests[0]
        # Of residuals r = y - f - slope * (x - origin): variance * sum(r) - away * sum(r * (x - mean)).
        above: Form = {
            _COUNT: variance * slope * origin + away * slope * (rest + mean * origin),
            _X: -variance * slope - away * slope * (origin + mean),
            _XX: away * slope,
            _Y: variance + away * mean,
            _XY: -away,
        }
        return above, {_COUNT: variance + away * mean, _X: -away}

    def sets(given: Moments) -> Iterator[Ends]:
        for mean in _spread(_interval(given, {_X: 1.0}, _ROWS, _z_unknown(given), -1, 1)):
            variances = _interval(given, given.squares(mean), _ROWS, _z_unknown(given), 0, 1)
            for variance, slope in product(_spread(variances, 3), _spread((slopes.lows, slopes.highs), 3)):
                yield _quotient(given, *line(given, mean, variance, slope), z)

    mean = _means(sums, _X)
    with np.errstate(divide="ignore", invalid="ignore"):  # of no rows, of which the figure is hidden
        variance = sums.at(sums.squares(mean)) / sums.count.values
        slope = np.where(np.isnan(slopes.values), 0.0, slopes.values)
        values, sds = _estimate(sums, *line(sums, mean, variance, slope))
    is_wide = (slopes.lows <= -most_slope) & (slopes.highs >= most_slope)
    values = np.where(np.isnan(slopes.values), np.nan, np.clip(values, -most, most))
    return _figures(sums, values, sds, sets, -most, most, is_wide)


def of_correlation(sums: Moments) -> Figures:
    """Return the correlation of x and y."""
    sums, z = sums.selected(1.0), _z(sums, 3)

    def form(given: Moments, mean_x: Floats, mean_y: Floats, ratio: Floats) -> tuple[Form, Form]:
        # 2 * ratio * (products) - f * (ratio^2 * (squares of x) + (squares of y)), for the ratio of deviations y / x.
        above: Form = {index: 2 * ratio * one for index, one in given.products(mean_x, mean_y).items()}
        of_x, of_y = given.squares(mean_x), given.squares(mean_y, of=_Y)
        below: Form = {index: ratio**2 * one for index, one in of_x.items()}
        return above, {**below, **of_y, _COUNT: below[_COUNT] + of_y[_COUNT]}

    def sets(given: Moments) -> Iterator[Ends]:
        for mean_x, mean_y in _mean_pairs(given):
            of_x, of_y = given.squares(mean_x), given.squares(mean_y, of=_Y)
            ratios = _quotient(given, of_y, of_x, _z_unknown(given))
            is_known = (ratios[0] > 0) & np.isfinite(ratios[1])
            low, high = (np.sqrt(np.where(is_known, one, 1.0)) for one in ratios)
            for ratio in _spread((low, high)):
                lows, highs = _quotient(given, *form(given, mean_x, mean_y, ratio), z)
                yield np.where(is_known, lows, -np.inf), np.where(is_known, highs, np.inf)

    mean_x, mean_y = _means(sums, _X), _means(sums, _Y)
    of_x, of_y = _positive(sums, sums.squares(mean_x)), _positive(sums, sums.squares(mean_y, of=_Y))
    values, sds = _estimate(sums, *form(sums, mean_x, mean_y, np.sqrt(of_y / of_x)))
    return _figures(sums, np.clip(values, -1.0, 1.0), sds, sets, -1.0, 1.0)


def of_determination(sums: Moments) -> Figures:
    """Return the share of the variance of y that a line by x explains: the square of the correlation."""
    one = of_correlation(sums)
    lows, highs = one.lows**2, one.highs**2
    has_zero = (one.lows <= 0) & (one.highs >= 0)
    sds = 2 * np.abs(one.values) * one.sds + one.sds**2
    return Figures(one.values**2, np.where(has_zero, 0.0, np.minimum(lows, highs)), np.maximum(lows, highs), sds)


def _slope(sums: Moments, most: float, z: float) -> Figures:
    def sets(given: Moments) -> Iterator[Ends]:
        for mean_x, mean_y in _mean_pairs(given):
            yield _quotient(given, given.products(mean_x, mean_y), given.squares(mean_x), z)

    mean_x, mean_y = _means(sums, _X), _means(sums, _Y)
    values, sds = _estimate(sums, sums.products(mean_x, mean_y), sums.squares(mean_x))
    return _figures(sums, np.clip(values, -most, most), sds, sets, -most, most)


def _figures(
    sums: Moments,
    values: Floats,
    sds: Floats,
    sets: Callable[[Moments], Iterator[Ends]],
    low: float,
    high: float,
    is_wide: npt.NDArray[np.bool_] | bool = False,
    least: float = 1.0,
) -> Figures:
    """Return figures, hidden where their count is too small, with the union of sets over counts from `least` rows."""
    values = np.where(sums.count.values > sums.count.threshold * (1 - 1e-12), values, np.nan)
    lows, highs = np.full(values.shape, np.inf), np.full(values.shape, -np.inf)
    fewest = least_count(sums.count, least)
    for part in (1.0,) if np.all(sums.count.values - fewest < 1e-6 * sums.count.sd) else (0.0, 0.5, 1.0):
        for ends in sets(sums.counted(fewest + part * (sums.count.values - fewest))):
            lows, highs = np.fmin(lows, ends[0]), np.fmax(highs, ends[1])
    is_whole = np.isnan(lows) | np.isnan(highs) | is_wide
    lows, highs = np.where(is_whole, low, lows), np.where(is_whole, high, highs)
    return holding(values, lows, highs, low, high, np.where(np.isnan(values), np.nan, sds))


def _z(sums: Moments, unknowns: int) -> float:
    """Return the deviations of a form given so many unknowns, which each may be outside of the box."""
    return z_of(sums.count.alpha * (1 - SHARE_SIZE - unknowns * _SHARE_UNKNOWN))


def _z_unknown(sums: Moments) -> float:
    return z_of(sums.count.alpha * _SHARE_UNKNOWN)


def _divisor(is_sample: bool) -> Form:
    return _OTHER_ROWS if is_sample else _ROWS


def _most_variance(sums: Moments, is_sample: bool) -> Floats | float:
    counts = sums.count.values
    return np.maximum(counts, 2.0) / np.maximum(counts - 1, 1.0) if is_sample else 1.0


def _means(sums: Moments, of: int) -> Floats:
    """Return the means of a column, at least -1 and at most 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(np.clip(sums.values[of] / sums.count.values, -1.0, 1.0))


def _mean_pairs(given: Moments) -> Iterator[tuple[Floats, Floats]]:
    """Yield the means of x and of y that are possible, pair by pair."""
    of_x, of_y = (_spread(_interval(given, {of: 1.0}, _ROWS, _z_unknown(given), -1, 1)) for of in (_X, _Y))
    return product(of_x, of_y)


def _spread(ends: Ends, points: int = _POINTS) -> Sequence[Floats]:
    low, high = ends
    return [low + (high - low) * part for part in np.linspace(0, 1, points).tolist()]


def _positive(sums: Moments, form: Form) -> Floats:
    """Return the values of a form that is a sum of squares; NaN where the noise hides that it is above 0."""
    values = sums.at(form)
    return np.where(values > _FLAT * np.maximum(sums.count.values, 1.0), values, np.nan)


def _estimate(sums: Moments, above: Form, below: Form) -> Ends:
    """Return the quotient of two forms, and its deviation; NaN where the divisor is not above 0."""
    divisor = _positive(sums, below)
    values = sums.at(above) / divisor
    parts = sums.covariance(above, above), sums.covariance(above, below), sums.covariance(below, below)
    squared = parts[0] - 2 * values * parts[1] + values**2 * parts[2]
    return values, np.sqrt(np.maximum(squared, 0.0)) / divisor


def _quotient(sums: Moments, above: Form, below: Form, z: float) -> Ends:
    """Return the ends of Fieller's set of a quotient of two forms, at z deviations; infinite where it has none."""
    variances = sums.covariance(above, above), sums.covariance(below, below)
    return fieller(sums.at(above), sums.at(below), variances, sums.covariance(above, below), z)


def _interval(sums: Moments, above: Form, below: Form, z: float, low: float, high: float) -> Ends:
    """Return Fieller's set within what is possible."""
    lows, highs = _quotient(sums, above, below, z)
    return np.clip(lows, low, high), np.clip(highs, low, high)
