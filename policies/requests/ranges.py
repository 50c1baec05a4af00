"""The range of an expression: the bounds and the step of a measure that is computed of the cells of a row.

Interval arithmetic over the columns' public bounds, narrowed by the conditions that a row meets. Promise: a range
follows from the signed request alone, to the same numbers on any machine: arithmetic is exact, and logarithms, roots
and exponentials are rounded outwards from correctly rounded decimals. A derived column has the sensitivity of a column
with these bounds and this step: a silo clamps what it computes to them (`silo_node/data/expressions.py`), so no error
of floating point can exceed it. Nor is such an error a threshold: it is bounded beside the range, and refused where it
is more than a small part of the step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor, lcm
from types import MappingProxyType

from policies.requests.expressions import Cell, Choose, Constant, Derived, Expression
from policies.requests.float_errors import (
    EXACT,
    FloatError,
    has_no_error,
    largest,
    of_exponential,
    of_logarithm,
    of_number,
    of_product,
    of_quotient,
    of_root,
    of_steps,
    of_sum,
    of_units,
    snapped,
)
from policies.requests.predicates import Both, Compare, Predicate
from policies.requests.tables import Table, TableColumn
from policies.units import MAX_RANGE_STEPS

STEPS = 2**20  # that a range without a step of its own is divided into, at least
_FEWEST = 2**16  # of them that are enough where the finest step is too coarse for STEPS, so that no step is a threshold
_OFF = Fraction(1, 4)  # of a step: a value that is off by less is rounded to its own step
_FINEST = Fraction(1, 10**9)
_MOST = Fraction(10**15)  # the magnitude of a value
_RESOLVED = 2**46  # of a value in steps, so that a float tells two steps apart
_LONG = 10**40
_ROUGH = 10**30
_MAX_POWER = 8
_DIGITS = Context(prec=30)
_LEAST_EXPONENT = 60
Values = Mapping[str, "Range"]


class NoRangeError(ValueError):
    """An expression without finite bounds: which bound it lacks, and the argument and the kind of remedy."""

    def __init__(self, message: str, lacks: str, argument: int = 0) -> None:
        super().__init__(message, lacks, argument)
        self.message, self.lacks, self.argument = message, lacks, argument

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Range:
    """The least and the greatest value; `grid`, of which all values are multiples, if there is one.

    `degree`: of the polynomial of cells that it is; `is_bent` where it is one of roots, logarithms, exponentials or
    inverses of cells, none of them steep. `steep` are the columns inside whose values it sets a threshold, or of which
    it tells about as much as one does. `error` is how far the values that a silo computes by floats are from the exact
    ones, which lie in the range.
    """

    low: Fraction
    high: Fraction
    grid: Fraction | None = None
    can_be_missing: bool = False
    degree: int = 0
    is_bent: bool = False
    columns: frozenset[str] = frozenset()
    steep: frozenset[str] = frozenset()
    error: FloatError = field(default=EXACT, compare=False)

    @property
    def most(self) -> Fraction:
        """The largest magnitude of a value."""
        return max(abs(self.low), abs(self.high))

    @property
    def cut(self) -> "Range":
        """The same with all of its columns steep."""
        return replace(self, degree=0, is_bent=False, steep=self.columns)

    def bent_by(self, function: Callable[[Fraction], Fraction]) -> "Range":
        """Return the same after a function that bends it one way: steep, unless it is bent once and slightly.

        Slightly: a hundredth of the width makes at most a quarter of the range of the results. A jump makes all of it,
        a square makes 2 %.
        """
        if self.low == self.high:
            return self
        part = (self.high - self.low) / 100
        ends = [function(at) for at in (self.low, self.low + part, self.high - part, self.high)]
        largest = max(abs(ends[1] - ends[0]), abs(ends[3] - ends[2]))
        is_slight = self.degree <= 1 and not self.is_bent and len(self.columns) == 1
        return replace(self, is_bent=True) if is_slight and 4 * largest <= abs(ends[3] - ends[0]) else self.cut

    def __str__(self) -> str:
        return f"{_shown(self.low)} to {_shown(self.high)}"


def _shown(value: Fraction) -> str:
    return f"{float(value):.10g}" if abs(value) < 10**6 or value.denominator > 1 else f"{value.numerator}"


def range_of_column(column: TableColumn) -> Range:
    """Return the range of a column with bounds."""
    step = Fraction(column.step or "1")
    low, high = (column.low or 0) * step, (column.high or 0) * step
    error = of_steps(step, max(abs(low), abs(high)))
    return Range(low, high, step, column.can_be_missing, 1, columns=frozenset((column.name,)), error=error)


def range_of(expression: Expression, table: Table, values: Values) -> Range:
    """Return the range of an expression, where its columns have these ranges; raises NoRangeError."""
    match expression:
        case Cell():
            return values[expression.column]
        case Constant():
            return constant(expression.value)
        case Choose():
            ranges = [
                range_of(result, table, narrowed(values, (when,), table))
                for when, result in zip(expression.whens, expression.results, strict=True)
            ]
            last = None if expression.otherwise is None else range_of(expression.otherwise, table, values)
            return chosen(ranges, last)
    return applied(expression.function, [range_of(one, table, values) for one in expression.arguments])


def constant(text: str) -> Range:
    """Return the range of a number."""
    value = Fraction(text)
    return Range(value, value, abs(value) or Fraction(1), error=of_number(value))


def chosen(results: Sequence[Range], otherwise: Range | None) -> Range:
    """Return the range of one of several results."""
    ranges = results if otherwise is None else [*results, otherwise]
    return replace(_joined(ranges), can_be_missing=otherwise is None or any(one.can_be_missing for one in ranges))


def applied(function: str, arguments: Sequence[Range]) -> Range:
    """Return the range of a function of values in these ranges; raises NoRangeError."""
    found = _tidied(_RANGES[function](arguments))
    if found.most > _MOST:
        raise NoRangeError(f"its values reach from {found}, beyond 1e15", "size")
    if not found.error.is_small:
        raise NoRangeError(f"its values from {found} are lost in the rounding of what they are computed of", "error")
    return found


def narrowed(values: Values, conditions: Sequence[Predicate], table: Table) -> Values:
    """Return the ranges of columns in rows that meet all of these conditions; contradictions change nothing.

    A number in a row is its cell rounded to steps, so a bound of the cell is rounded likewise.
    """
    found = dict(values)
    for one in (part for condition in conditions for part in bounding(condition)):
        if one.column in found and table.column(one.column).type in ("int", "decimal"):
            own = _compared(found[one.column], one, table.column(one.column))
            if own.low <= own.high:
                found[one.column] = replace(own, can_be_missing=False)
    return found


def _compared(own: Range, one: Compare, column: TableColumn) -> Range:
    value, is_int = Fraction(one.value), column.type == "int"
    least, most = own.low, own.high
    if one.op in (">", ">=", "="):
        bound = Fraction(floor(value) + 1) if one.op == ">" and is_int else value
        least = max(least, min(_rounded(bound, own), own.high) if one.op == "=" else _rounded(bound, own))
    if one.op in ("<", "<=", "="):
        bound = Fraction(ceil(value) - 1) if one.op == "<" and is_int else value
        most = min(most, max(_rounded(bound, own), own.low) if one.op == "=" else _rounded(bound, own))
    return replace(own, low=least, high=most)


def _rounded(bound: Fraction, own: Range) -> Fraction:
    """Return a bound of a cell as one of its whole steps, halves up."""
    step = own.grid or Fraction(1)
    return floor(bound / step + Fraction(1, 2)) * step


def defined(derived: Derived, table: Table, where: Predicate | None) -> TableColumn:
    """Return the definition of a derived measure as a column, with its bounds and its step; raises NoRangeError."""
    return _defined(derived, _read_by(derived, table), bounding(where))


def derived_range(derived: Derived, table: Table, where: Predicate | None) -> Range:
    """Return the range of a derived measure in rows that meet a condition; raises NoRangeError."""
    return _range(derived, _read_by(derived, table), bounding(where))


def values_of(derived: Derived, table: Table, where: Predicate | None) -> Values:
    """Return the ranges of the columns of which values enter a derived measure."""
    values = {name: range_of_column(table.column(name)) for name in derived.columns}
    return narrowed(values, bounding(where), table)


def bounding(where: Predicate | None) -> tuple[Compare, ...]:
    """Return the comparisons that all rows which meet a condition meet."""
    found, pending = list[Compare](), [] if where is None else [where]
    while pending:
        one = pending.pop()
        if isinstance(one, Both):
            pending += one.operands
        elif isinstance(one, Compare):
            found.append(one)
    return tuple(found)


def _read_by(derived: Derived, table: Table) -> tuple[TableColumn, ...]:
    return tuple(table.column(name) for name in derived.columns)


# A range is asked for again and again, by whoever reads a plan; what it follows from is small.
@lru_cache(maxsize=1024)
def _range(derived: Derived, columns: tuple[TableColumn, ...], bounds: tuple[Compare, ...]) -> Range:
    table = Table.model_construct(name="", max_rows=1, max_silos=1, max_norm=None, columns=columns)
    return range_of(derived.expression, table, values_of(derived, table, Both.model_construct(operands=bounds)))


@lru_cache(maxsize=1024)
def _defined(derived: Derived, columns: tuple[TableColumn, ...], bounds: tuple[Compare, ...]) -> TableColumn:
    found = _range(derived, columns, bounds)
    step = step_of(found)
    _check_told(found, step)
    low, high = floor(found.low / step), ceil(found.high / step)
    return TableColumn.model_construct(
        name=derived.name,
        type="int" if step.denominator == 1 else "decimal",
        low=low,
        high=max(high, low + 1),
        step=_decimal(step),
        domain=(),
        unknown=None,
        can_be_missing=found.can_be_missing,
    )


def _check_told(found: Range, step: Fraction) -> None:
    """Raise NoRangeError if rounding, of floats or to steps, is so coarse that it is a threshold among the values."""
    width, off = found.high - found.low, found.error.at(found.most)
    if step != found.grid and 0 < width < _FEWEST * step:
        if step == _FINEST:
            raise NoRangeError(f"its values are from {found}, and the finest step is 1e-9", "step")
        message = f"its values are from {found}, and numbers so large have steps of {_decimal(step)}"
        raise NoRangeError(message, "error")
    if off > _OFF * step:
        message = f"its values from {found} are computed to within {off:.1g} only, and have steps of {_decimal(step)}"
        raise NoRangeError(message, "error")


def step_of(found: Range) -> Fraction:
    """Return the step to which values of a range are rounded: their own, or one of at least STEPS of the range."""
    width, most = found.high - found.low, found.most
    if found.grid is not None and _is_natural(found.grid, width, most):
        return found.grid
    finest = max(width / STEPS, most / _RESOLVED, _FINEST)
    power = 0
    while Fraction(10) ** power > finest:
        power -= 1
    while Fraction(10) ** (power + 1) <= finest:
        power += 1
    # The largest of 1, 2 and 5 times a power of ten that is no larger, so that there are no fewer steps.
    unit = Fraction(10) ** power
    return max(max(digit * unit for digit in (1, 2, 5) if digit * unit <= finest), _FINEST)


def _is_natural(grid: Fraction, width: Fraction, most: Fraction) -> bool:
    is_decimal = (10**9) % grid.denominator == 0 and grid < 10**18
    return is_decimal and width / grid <= MAX_RANGE_STEPS - 2 and most / grid <= _RESOLVED


def _decimal(step: Fraction) -> str:
    text = f"{Decimal(step.numerator) / Decimal(step.denominator):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _tidied(found: Range) -> Range:
    """Return a range with numbers of bounded length, rounded outwards, and no grid too fine or coarse to be a step."""
    low, high, grid = found.low, found.high, found.grid
    if low.denominator > _LONG or high.denominator > _LONG:
        low, high = Fraction(floor(low * _ROUGH), _ROUGH), Fraction(ceil(high * _ROUGH), _ROUGH)
    if grid is not None and ((10**9) % grid.denominator or grid.numerator > _ROUGH):
        grid = None
    return replace(found, low=low, high=high, grid=grid)


def _common(*grids: Fraction | None) -> Fraction | None:
    """Return the largest number of which all of these are multiples."""
    found: Fraction | None = None
    for grid in grids:
        if grid is None:
            return None
        found = grid if found is None else _of_two(found, grid)
    return found


def _of_two(one: Fraction, other: Fraction) -> Fraction:
    below = lcm(one.denominator, other.denominator)
    left, right = int(one * below), int(other * below)
    while right:
        left, right = right, left % right
    return Fraction(left, below)


def _joined(ranges: Sequence[Range]) -> Range:
    """Return the range of what is one of several values."""
    return Range(
        min(one.low for one in ranges),
        max(one.high for one in ranges),
        _common(*(one.grid for one in ranges if not one.low == one.high == 0)) if ranges else None,
        any(one.can_be_missing for one in ranges),
        max(one.degree for one in ranges),
        any(one.is_bent for one in ranges),
        frozenset[str]().union(*(one.columns for one in ranges)),
        frozenset[str]().union(*(one.steep for one in ranges)),
        largest([one.error for one in ranges]),
    )


def _with(arguments: Sequence[Range], low: Fraction, high: Fraction, grid: Fraction | None) -> Range:
    """Return a range of what depends on these as a sum does."""
    return replace(_joined(arguments), low=low, high=high, grid=grid)


def _add(arguments: Sequence[Range]) -> Range:
    low, high = sum((one.low for one in arguments), Fraction(0)), sum((one.high for one in arguments), Fraction(0))
    errors, mosts = [one.error for one in arguments], [one.most for one in arguments]
    has_one_sign = all(one.low >= 0 for one in arguments) or all(one.high <= 0 for one in arguments)
    error = of_sum(errors, mosts, has_one_sign)
    if has_no_error(errors, _are_whole(arguments), sum(mosts, Fraction(0))):
        error = EXACT
    return replace(_with(arguments, low, high, _common(*(one.grid for one in arguments))), error=error)


def _are_whole(arguments: Sequence[Range]) -> bool:
    return all(one.grid is not None and one.grid.denominator == 1 for one in arguments)


def _negate(arguments: Sequence[Range]) -> Range:
    return replace(arguments[0], low=-arguments[0].high, high=-arguments[0].low)


def _subtract(arguments: Sequence[Range]) -> Range:
    return _add([arguments[0], _negate(arguments[1:])])


def _multiply(arguments: Sequence[Range]) -> Range:
    found = arguments[0]
    for other in arguments[1:]:
        ends = [left * right for left in (found.low, found.high) for right in (other.low, other.high)]
        grid = None if found.grid is None or other.grid is None else found.grid * other.grid
        errors, mosts = [found.error, other.error], [found.most, other.most]
        is_sure = has_no_error(errors, _are_whole((found, other)), mosts[0] * mosts[1])
        error = EXACT if is_sure else of_product(errors, mosts)
        product = replace(
            _with((found, other), min(ends), max(ends), grid), degree=found.degree + other.degree, error=error
        )
        # Variances and covariances tell as much of two columns; more factors count who has several of them.
        found = _tidied(product if product.degree <= 2 else product.cut)
        if found.most > _MOST:
            raise NoRangeError(f"its values reach from {found}, beyond 1e15", "size")
    return found


def _divide(arguments: Sequence[Range]) -> Range:
    above, below = arguments
    if below.low <= 0 <= below.high:
        raise NoRangeError(f"it divides by values from {below}, which may be 0", "divisor", 1)
    ends = [left / right for left in (above.low, above.high) for right in (below.low, below.high)]
    is_constant = below.low == below.high
    grid = above.grid / abs(below.low) if is_constant and above.grid is not None else None
    # A steep divisor tells who is at its end: 1 / (x + 0.001) counts where x is 0.
    bent = below.bent_by(lambda value: 1 / value)
    least = min(abs(below.low), abs(below.high))
    error = of_quotient(above.error, below.error, max(map(abs, ends)), least)
    found = replace(_with((above, bent), min(ends), max(ends), grid), degree=above.degree + bent.degree, error=error)
    return found if found.degree <= 2 else found.cut


def _power(arguments: Sequence[Range]) -> Range:
    base, exponent = arguments
    if exponent.low not in range(1, _MAX_POWER + 1):
        raise NoRangeError(f"a power is a whole number from 1 to {_MAX_POWER}", "power", 1)
    times = int(exponent.low)
    found = _multiply([base] * times)
    if times % 2 == 0:
        ends = (base.low**times, base.high**times)
        low = Fraction(0) if base.low <= 0 <= base.high else min(ends)
        found = replace(found, low=low, high=max(ends))
    return found


def _extreme(arguments: Sequence[Range], low: Fraction, high: Fraction) -> Range:
    """Return the range of LEAST or GREATEST; where one argument always is it, nothing is cut."""
    found = _with(arguments, low, high, _common(*(one.grid for one in arguments if not one.low == one.high == 0)))
    found = replace(found, can_be_missing=all(one.can_be_missing for one in arguments))
    always = [one for one in arguments if (one.low, one.high) == (low, high)]
    others = [one for one in arguments if not always or one is not always[0]]
    is_whole = bool(always) and all(one.low >= high or one.high <= low for one in others)
    return found if is_whole else found.cut


def _least(arguments: Sequence[Range]) -> Range:
    """Return the range of the least value; what is missing is passed over."""
    sure = [one for one in arguments if not one.can_be_missing]
    high = min(one.high for one in sure) if sure else max(one.high for one in arguments)
    return _extreme(arguments, min(one.low for one in arguments), high)


def _greatest(arguments: Sequence[Range]) -> Range:
    sure = [one for one in arguments if not one.can_be_missing]
    low = max(one.low for one in sure) if sure else min(one.low for one in arguments)
    return _extreme(arguments, low, max(one.high for one in arguments))


def _abs(arguments: Sequence[Range]) -> Range:
    (one,) = arguments
    if one.low >= 0:
        return one
    if one.high <= 0:
        return _negate(arguments)
    return replace(one, low=Fraction(0), high=max(-one.low, one.high)).cut


def _whole(round_to: Callable[[Fraction], int]) -> Callable[[Sequence[Range]], Range]:
    def of(arguments: Sequence[Range]) -> Range:
        (one,) = arguments
        _check_rounds(one, Fraction(1))
        if one.grid is not None and one.grid.denominator == 1:
            return _of_units(one, one.grid)
        low, high = Fraction(round_to(one.low)), Fraction(round_to(one.high))
        return _of_units(replace(one, low=low, high=high, grid=Fraction(1)).cut, Fraction(1))

    return of


def _check_rounds(one: Range, unit: Fraction) -> None:
    """Raise NoRangeError unless it is sure to which units, or which beside them, values are rounded."""
    if (off := one.error.at(one.most)) > _OFF * unit:
        raise NoRangeError(f"it rounds values from {one} that are computed to within {off:.1g} only", "error")


def _of_units(one: Range, unit: Fraction) -> Range:
    """Return the range of values that have just been rounded to units."""
    return replace(one, error=of_units(unit, one.most))


def _sign(arguments: Sequence[Range]) -> Range:
    (one,) = arguments
    low, high = (Fraction((end > 0) - (end < 0)) for end in (one.low, one.high))
    found = replace(one, low=low, high=high, grid=Fraction(1), error=EXACT)
    return replace(found, degree=0) if low == high else found.cut


def _round(arguments: Sequence[Range]) -> Range:
    one, digits = arguments
    if digits.low not in range(-15, 10):
        raise NoRangeError("ROUND takes from -15 to 9 decimals", "decimals", 1)
    unit = Fraction(10) ** -int(digits.low)
    _check_rounds(one, unit)
    if one.grid is not None and (one.grid / unit).denominator == 1:
        return _of_units(one, unit)
    low, high = (half_away(end / unit) * unit for end in (one.low, one.high))
    return _of_units(replace(one, low=low, high=high, grid=unit).cut, unit)


def half_away(value: Fraction) -> int:
    """Return the nearest whole number, of halves the one away from 0."""
    return floor(value + Fraction(1, 2)) if value >= 0 else ceil(value - Fraction(1, 2))


def _remainder(arguments: Sequence[Range]) -> Range:
    one, by = arguments
    if by.low <= 0 <= by.high:
        raise NoRangeError(f"it divides by values from {by}, which may be 0", "divisor", 1)
    if any(side.grid is None or side.grid.denominator > 1 for side in arguments):
        raise NoRangeError("% takes whole numbers", "whole")
    for side in arguments:
        _check_rounds(side, Fraction(1))
    most = by.most - 1
    low, high = min(max(one.low, -most), Fraction(0)), max(min(one.high, most), Fraction(0))
    return _of_units(_with((one.cut, by.cut), low, high, Fraction(1)), Fraction(1))


def _coalesce(arguments: Sequence[Range]) -> Range:
    read = []
    for one in arguments:
        read.append(one)
        if not one.can_be_missing:
            break
    return replace(_joined(read), can_be_missing=all(one.can_be_missing for one in read))


def _nullif(arguments: Sequence[Range]) -> Range:
    one, value = arguments[0], arguments[1].low
    if one.grid is not None:
        one = replace(one, error=snapped(one.error, one.grid, one.most))
    if not one.low <= value <= one.high:
        return one
    low, high = one.low, one.high
    if one.grid is not None and (value / one.grid).denominator == 1 and low < high:
        low = low + one.grid if value == low else low
        high = high - one.grid if value == high else high
    return replace(one, low=low, high=high, can_be_missing=True).cut


def _rising(
    function: Callable[[Decimal], Decimal],
    is_defined: Callable[[Range], str],
    lacks: str,
    error: Callable[[Range], FloatError],
) -> Callable[[Sequence[Range]], Range]:
    """Return how a function that rises changes a range, its ends rounded outwards."""

    def of(arguments: Sequence[Range]) -> Range:
        (one,) = arguments
        if problem := is_defined(one):
            raise NoRangeError(problem, lacks)
        low, high = _outwards(function, one.low, ROUND_FLOOR), _outwards(function, one.high, ROUND_CEILING)
        bent = one.bent_by(lambda value: _outwards(function, value, ROUND_FLOOR))
        return replace(bent, low=low, high=high, grid=None, error=error(one))

    return of


def _outwards(function: Callable[[Decimal], Decimal], value: Fraction, rounding: str) -> Fraction:
    at = Context(prec=30, rounding=rounding).divide(Decimal(value.numerator), Decimal(value.denominator))
    found = function(at)
    if not found:
        return Fraction(0)
    place = Decimal(1).scaleb(max(found.adjusted() - 14, -_LEAST_EXPONENT))
    return Fraction(found.quantize(place, rounding))


def _above_0(one: Range) -> str:
    return "" if one.low > 0 else f"a logarithm needs values above 0, and they are from {one}"


def _not_below_0(one: Range) -> str:
    return "" if one.low >= 0 else f"a root needs values of 0 and more, and they are from {one}"


def _not_large(one: Range) -> str:
    return "" if -_LEAST_EXPONENT <= one.low <= one.high <= 34 else f"EXP of values from {one} is out of reach"


def _of_log(factor: float) -> Callable[[Range], FloatError]:
    return lambda one: of_logarithm(one.error, one.low, factor)


_LN2 = _DIGITS.ln(Decimal(2))
_RANGES: Mapping[str, Callable[[Sequence[Range]], Range]] = MappingProxyType(
    {
        "add": _add,
        "subtract": _subtract,
        "multiply": _multiply,
        "divide": _divide,
        "negate": _negate,
        "least": _least,
        "greatest": _greatest,
        "abs": _abs,
        "sign": _sign,
        "floor": _whole(floor),
        "ceil": _whole(ceil),
        "trunc": _whole(int),
        "round": _round,
        "round_even": _whole(round),
        "remainder": _remainder,
        "power": _power,
        "ln": _rising(_DIGITS.ln, _above_0, "logarithm", _of_log(1.0)),
        "log2": _rising(lambda value: _DIGITS.divide(_DIGITS.ln(value), _LN2), _above_0, "logarithm", _of_log(1.4427)),
        "log10": _rising(_DIGITS.log10, _above_0, "logarithm", _of_log(0.4343)),
        "sqrt": _rising(_DIGITS.sqrt, _not_below_0, "root", lambda one: of_root(one.error, one.low)),
        "exp": _rising(_DIGITS.exp, _not_large, "exponent", lambda one: of_exponential(one.error, one.most)),
        "coalesce": _coalesce,
        "nullif": _nullif,
    }
)
