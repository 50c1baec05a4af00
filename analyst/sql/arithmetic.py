"""Comparisons of a number that is computed from one column, with the constants moved to the other side, exactly.

`x * 2 + 1 <= 10` becomes `x <= 4.5`. Rational numbers are exact, and a bound with more decimals than a cell has is
rounded to where no cell lies between.
"""

from decimal import Decimal
from fractions import Fraction

from sqlglot import exp

from analyst.sql.columns import define
from analyst.sql.offer import Offer
from analyst.sql.outcomes import never
from policies.requests.predicates import Compare, Either, IsNull, Not, Predicate
from policies.requests.tables import MAX_DECIMALS, MAX_DIGITS, TableColumn

_UNIT = 10**MAX_DECIMALS
_FLIPPED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_BEYOND = 10**MAX_DIGITS
_ROUNDED_DOWN = {"<": "<=", "<=": "<=", ">": ">", ">=": ">"}  # x < 1/3 is x <= 0.333333333
Line = tuple[Fraction, Fraction]  # slope and intercept


def moved(left: exp.Expr, operator: str, right: exp.Expr, table: str, offer: Offer) -> Predicate | None:
    """Return `left operator right` as a comparison of a column with a number; None where it is none.

    Both sides are lines over the same column of numbers without a closed domain.
    """
    column = _column(left, right, table, offer)
    if column is None:
        return None
    if (coalesced := _coalesced(left, operator, right, column, table, offer)) is not None:
        return coalesced
    one, other = _line(left), _line(right)
    if one is None or other is None:
        return None
    slope, constant = one[0] - other[0], other[1] - one[1]
    if not slope:
        return None
    return _compared(column, _FLIPPED[operator] if slope < 0 else operator, constant / slope)


def _column(left: exp.Expr, right: exp.Expr, table: str, offer: Offer) -> TableColumn | None:
    found = [*left.find_all(exp.Column), *right.find_all(exp.Column)]
    columns = {one.name: define(one, table, offer) for one in found}
    if len(columns) != 1:
        return None
    (column,) = columns.values()
    return column if column.type in ("int", "decimal") and not column.domain else None


def _coalesced(
    left: exp.Expr, operator: str, right: exp.Expr, column: TableColumn, table: str, offer: Offer
) -> Predicate | None:
    """Return `COALESCE(x, c) op v` as `x op v`, or also where the cell is missing."""
    target = left.this.unnest() if isinstance(left, exp.Coalesce) else None
    if target is None or len(left.expressions) != 1:
        return None
    instead, other = _line(left.expressions[0]), _line(right)
    if instead is None or other is None or instead[0] or other[0]:
        return None
    inner = moved(target, operator, right, table, offer)
    if inner is None:
        return None
    return Either(operands=(inner, IsNull(column=column.name))) if _holds(instead[1], operator, other[1]) else inner


def _holds(one: Fraction, operator: str, other: Fraction) -> bool:
    return {
        "=": one == other,
        "<>": one != other,
        "<": one < other,
        "<=": one <= other,
        ">": one > other,
        ">=": one >= other,
    }[operator]


def _line(node: exp.Expr) -> Line | None:
    """Return an expression as a line over its column; None if it is none."""
    match node:
        case exp.Paren():
            return _line(node.this)
        case exp.Column():
            return Fraction(1), Fraction(0)
        case exp.Literal() if not node.is_string:
            return Fraction(0), Fraction(Decimal(str(node.this)))
        case exp.Neg():
            inner = _line(node.this)
            return None if inner is None else (-inner[0], -inner[1])
        case exp.Add() | exp.Sub() | exp.Mul() | exp.Div():
            one, other = _line(node.this), _line(node.expression)
            return None if one is None or other is None else _combined(node, one, other)
    return None


def _combined(node: exp.Expr, one: Line, other: Line) -> Line | None:
    match node:
        case exp.Add():
            return one[0] + other[0], one[1] + other[1]
        case exp.Sub():
            return one[0] - other[0], one[1] - other[1]
        case exp.Mul() if not other[0]:
            return one[0] * other[1], one[1] * other[1]
        case exp.Mul() if not one[0]:
            return one[1] * other[0], one[1] * other[1]
        case exp.Div() if not other[0] and other[1]:
            return one[0] / other[1], one[1] / other[1]
    return None


def _compared(column: TableColumn, operator: str, bound: Fraction) -> Predicate:
    """Return `column operator bound` for cells of at most `MAX_DECIMALS` decimals."""
    units = bound * _UNIT
    has_literal = units.denominator == 1 and (
        column.type != "int" or operator not in ("=", "<>") or bound.denominator == 1
    )
    if not has_literal and operator == "=":
        return never(column)
    if not has_literal and operator == "<>":
        return Not(operand=never(column))
    if abs(bound) >= _BEYOND and operator in ("=", "<>"):
        return never(column) if operator == "=" else Not(operand=never(column))
    if abs(bound) >= _BEYOND:  # beyond any number that a filter knows
        bound = Fraction(_BEYOND - 1 if bound > 0 else 1 - _BEYOND)
        units = bound * _UNIT
    below = units.numerator // units.denominator
    op = operator if units.denominator == 1 else _ROUNDED_DOWN[operator]
    text = f"{Decimal(below).scaleb(-MAX_DECIMALS):f}"
    text = text.rstrip("0").rstrip(".")
    return Compare(column=column.name, op=op, value="0" if text in ("", "-0", "-") else text)  # type: ignore[arg-type]
