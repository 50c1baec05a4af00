"""Measures that are computed of the cells of a row, in whole steps of their public bounds.

Pure, and a total function of each row: what is no number counts as missing, and a value outside the derived bounds as
the bound. Each row is rounded to the nearest step before anything is added, so sums are the same to the bit however
rows are divided. `+ - * /` and roots are exact to the last bit of a float on any machine; a logarithm or an exponential
may differ in that bit, which changes a row only where its value lies halfway between two steps.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.requests.expressions import Cell, Choose, Constant, Derived, Expression
from policies.requests.predicates import Predicate
from policies.requests.ranges import Range, Values, narrowed, range_of, values_of
from policies.requests.tables import Table, TableColumn
from silo_node.data.coded import BELOW, NO_STEPS, Integers, Rows, Steps, steps_of
from silo_node.data.predicates import holds_each

Floats = npt.NDArray[np.float64]
_MOST_NARROW = 2**31 - 2  # steps that fit 32 bits, with one beyond either bound


def with_derived(
    rows: Rows, derived: Iterable[Derived], where: Predicate | None, seen: Table, compared: Table, kept: Integers
) -> Rows:
    """Return the rows with the cells of derived measures, which are missing in all rows but the kept ones.

    The kept rows meet `where`. `seen` defines the derived columns, `compared` the columns by which conditions compare.
    """
    cells = dict(rows.cells)
    for one in derived:
        column = seen.column(one.name)
        evaluation = _Evaluation(rows, seen, compared, kept)
        with np.errstate(all="ignore"):
            found = evaluation.of(one.expression, values_of(one, seen, where))
            width = np.dtype(np.int32 if column.range_steps < _MOST_NARROW else np.int64)
            steps: Integers = np.full(len(rows.person), NO_STEPS, width)
            steps[kept] = in_steps(found, column)
        cells["steps", one.name] = Steps(steps, column.low or 0, column.range_steps)
    return replace(rows, cells=cells) if len(cells) > len(rows.cells) else rows


def in_steps(values: Floats, column: TableColumn) -> npt.NDArray[np.int64]:
    """Return values as whole steps above the lower bound, to the nearest one, as `Steps` has them."""
    step, low, high = Fraction(column.step or "1"), column.low or 0, column.high or 0
    nearest = np.clip(np.rint(_scaled(values, 1 / step)), low - 1, high + 1)
    is_number = np.isfinite(values)
    return np.where(is_number, np.where(is_number, nearest, low).astype(np.int64) - low, NO_STEPS)


def _scaled(values: Floats, factor: Fraction) -> Floats:
    """Return values times a fraction; exact where the result is a whole number that a float holds."""
    return values * float(factor.numerator) / float(factor.denominator)


@dataclass(frozen=True, slots=True, eq=False)
class _Evaluation:
    """Computes expressions of the kept rows; NaN is missing."""

    rows: Rows
    table: Table
    compared: Table
    kept: Integers

    def of(self, expression: Expression, values: Values) -> Floats:
        match expression:
            case Cell():
                return self._cells(self.table.column(expression.column))
            case Constant():
                return np.array(float(expression.value))  # of all rows
            case Choose():
                return self._chosen(expression, values)
        arguments = [self.of(one, values) for one in expression.arguments]
        if expression.function in _SNAPPED or expression.function in _KEPT:
            ranges = [range_of(one, self.table, values) for one in expression.arguments]
            if expression.function == "nullif" and not ranges[0].low <= ranges[1].low <= ranges[0].high:
                return arguments[0]
            if expression.function in _SNAPPED:
                arguments = [_snapped(found, one.grid) for one, found in zip(ranges, arguments, strict=True)]
            if expression.function in _KEPT:
                arguments = [_kept(found, one) for one, found in zip(ranges, arguments, strict=True)]
        found = _FUNCTIONS[expression.function](arguments)
        return np.where(np.isfinite(found), found, np.nan)

    def _cells(self, column: TableColumn) -> Floats:
        steps = steps_of(self.rows, column, self.kept).astype(np.int64)
        number = np.clip(steps, BELOW + 1, column.range_steps) + (column.low or 0)
        return np.where(steps == NO_STEPS, np.nan, _scaled(number.astype(np.float64), Fraction(column.step or "1")))

    def _chosen(self, one: Choose, values: Values) -> Floats:
        found = np.array(np.nan) if one.otherwise is None else self.of(one.otherwise, values)
        truths = [truth.true[self.kept] for truth in holds_each(self.rows, self.compared, one.whens)]
        for when, result, true in reversed(list(zip(one.whens, one.results, truths, strict=True))):
            found = np.where(true, self.of(result, narrowed(values, (when,), self.table)), found)
        return found


def _snapped(values: Floats, grid: Fraction | None) -> Floats:
    """Return values that are multiples of a number without the error of floating point."""
    return values if grid is None else _scaled(np.rint(_scaled(values, 1 / grid)), grid)


def _kept(values: Floats, inside: Range) -> Floats:
    """Return values without what the error of floating point adds to their range, such as a divisor of 0."""
    return np.clip(values, float(inside.low), float(inside.high))


def _half_away(values: Floats, digits: int) -> Floats:
    """Return values to so many decimals, halves away from 0."""
    unit, is_below = 10.0 ** abs(digits), digits < 0
    scaled = values / unit if is_below else values * unit
    nearest = np.copysign(np.floor(np.abs(scaled) + 0.5), values)
    return nearest * unit if is_below else nearest / unit


def _reduced(of_two: Callable[[Any, Any], Any]) -> Callable[[list[Floats]], Floats]:
    def of(arguments: list[Floats]) -> Floats:
        found = arguments[0]
        for other in arguments[1:]:
            found = of_two(found, other)
        return found

    return of


def _powered(arguments: list[Floats]) -> Floats:
    base, times = arguments[0], int(arguments[1])
    found = base
    for _ in range(times - 1):
        found = found * base
    return found


# Where a function jumps, the error of a float would put a value on the other side.
_SNAPPED = frozenset({"floor", "ceil", "trunc", "round", "round_even", "sign", "remainder", "nullif"})
# These are not defined everywhere, or have one value where the range says so.
_KEPT = frozenset({"divide", "remainder", "ln", "log2", "log10", "sqrt", "exp", "sign"})
_FUNCTIONS: Mapping[str, Callable[[list[Floats]], Floats]] = MappingProxyType(
    {
        "add": _reduced(np.add),
        "subtract": _reduced(np.subtract),
        "multiply": _reduced(np.multiply),
        "divide": _reduced(np.divide),
        "negate": lambda of: -of[0],
        "least": _reduced(np.fmin),
        "greatest": _reduced(np.fmax),
        "abs": lambda of: np.abs(of[0]),
        "sign": lambda of: np.sign(of[0]),
        "floor": lambda of: np.floor(of[0]),
        "ceil": lambda of: np.ceil(of[0]),
        "trunc": lambda of: np.trunc(of[0]),
        "round": lambda of: _half_away(of[0], int(of[1])),
        "round_even": lambda of: np.rint(of[0]),
        "remainder": _reduced(np.fmod),
        "power": _powered,
        "ln": lambda of: np.log(of[0]),
        "log2": lambda of: np.log2(of[0]),
        "log10": lambda of: np.log10(of[0]),
        "sqrt": lambda of: np.sqrt(of[0]),
        "exp": lambda of: np.exp(of[0]),
        "coalesce": _reduced(lambda one, other: np.where(np.isnan(one), other, one)),
        "nullif": lambda of: np.where(of[0] == of[1], np.nan, of[0]),
    }
)
