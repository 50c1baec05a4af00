"""Simple expressions of one column, computed as DuckDB computes them but without asking it, which takes longer.

Numbers in buckets (`age // 10`, `FLOOR(cost / 100) * 100`, `x >= 5`), parts of plain texts (`SUBSTR`, `LIKE`), and the
digits of conditions. Promise: what is computed here is what DuckDB gives, type by type; all else is not computed here.
`tests/analyst/test_simple.py` compares both.
"""

import math
import re
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from operator import add, ge, gt, le, lt, mul, sub
from types import MappingProxyType
from typing import Any

from sqlglot import exp

Value = int | float | Decimal | str | bool | None  # BIGINT, DOUBLE, DECIMAL, VARCHAR, BOOLEAN; None is NULL
Compute = Callable[[Any], Any]  # of a value, which is not NULL but where `takes_null` says so
_MOST = 2**31  # magnitude of a whole number whose products are exact in all types
_MOST_UNITS = 2**53  # of a decimal in its last place, which a float holds
_NUMBERS = frozenset({"BIGINT", "DECIMAL", "DOUBLE"})
_ARITHMETIC: Mapping[type[exp.Expr], Callable[[Any, Any], Any]] = MappingProxyType(
    {exp.Add: add, exp.Sub: sub, exp.Mul: mul}
)
_COMPARED: Mapping[type[exp.Expr], Callable[[Any, Any], Any]] = MappingProxyType(
    {exp.LT: lt, exp.LTE: le, exp.GT: gt, exp.GTE: ge}
)


# What a part may have; any other argument changes what it means.
_KNOWN = frozenset(
    {"this", "expression", "expressions", "ifs", "default", "true", "false", "start", "length", "decimals"}
    | {"is_string", "safe", "quoted", "to"}
)


class NotSimpleError(Exception):
    """A value, or a part of an expression, that is not computed here."""


def computed(node: exp.Expr, type_name: str) -> tuple[str, Compute] | None:
    """Return DuckDB's type of an expression of one column, and what computes it; None where that is not simple.

    Computing raises NotSimpleError for a value whose result might be another one in DuckDB.
    """
    if any(value and key not in _KNOWN for part in node.walk() for key, value in part.args.items()):
        return None
    try:
        kind, compute = _of(node, type_name.partition("(")[0])
    except NotSimpleError:
        return None
    return kind, compute


def read(text: str, type_name: str) -> Value:
    """Return a value of a column from its text; raises NotSimpleError."""
    if type_name == "VARCHAR":
        if not text.isascii():  # characters, and their cases, are another matter there
            raise NotSimpleError(text)
        return text
    if type_name == "BOOLEAN":
        return text == "true"
    number = Decimal(text)
    if type_name == "BIGINT":
        if number != number.to_integral_value() or abs(number) >= _MOST:
            raise NotSimpleError(text)
        return int(number)
    return number


def takes_null(node: exp.Expr) -> bool:
    """Tell whether NULL makes of a simple expression what its computation says, and not NULL."""
    return isinstance(node.unnest(), exp.Case | exp.If | exp.DPipe)


def _of(node: exp.Expr, column: str) -> tuple[str, Compute]:
    match node:
        case exp.Paren():
            return _of(node.this, column)
        case exp.Column():
            if column not in ("BIGINT", "DECIMAL", "VARCHAR", "BOOLEAN"):
                raise NotSimpleError(column)
            return column, lambda value: value
        case exp.Case() | exp.If():
            return "VARCHAR", _case(node, column)
        case exp.DPipe() if takes_null(node.this) and takes_null(node.expression):
            (_, one), (_, other) = _of(node.this, column), _of(node.expression, column)
            return "VARCHAR", lambda value: one(value) + other(value)
        case exp.Not() | exp.And() | exp.Or() | exp.EQ() | exp.NEQ() | exp.In():
            return "BOOLEAN", _condition(node, column)
        case exp.Substring() | exp.Left() | exp.Like():
            return _text(node, column)
    if type(node) in _COMPARED:
        return _comparison(node, column)
    return _numeric(node, column)


def _numeric(node: exp.Expr, column: str) -> tuple[str, Compute]:
    match node:
        case exp.Neg():
            kind, inner = _number(node.this, column)
            return kind, lambda value: -inner(value)
        case exp.Floor() | exp.Ceil() if not node.args.get("decimals"):
            return _whole(node, column)
        case exp.Round():
            return _rounded(node, column)
        case exp.IntDiv() | exp.Div():
            return _quotient(node, column)
    if type(node) in _ARITHMETIC:
        return _arithmetic(node, column)
    raise NotSimpleError(node)


def _quotient(node: exp.Expr, column: str) -> tuple[str, Compute]:
    (kind, inner), by = _number(node.this, column), _literal(node.expression)
    if not by:
        raise NotSimpleError(node)
    if isinstance(node, exp.Div):
        below = _float(by)
        return "DOUBLE", lambda value: _float(inner(value)) / below
    if kind != "BIGINT" or not isinstance(by, int) or by <= 0:
        raise NotSimpleError(node)
    return kind, lambda value: -(-found // by) if (found := inner(value)) < 0 else found // by


def _number(node: exp.Expr, column: str) -> tuple[str, Compute]:
    kind, compute = _of(node, column)
    if kind not in _NUMBERS:
        raise NotSimpleError(node)
    return kind, compute


def _literal(node: exp.Expr) -> int | Decimal:
    """Return a short literal, with its sign; raises NotSimpleError for anything else."""
    inner = node.unnest()
    if isinstance(inner, exp.Neg):
        return -_literal(inner.this)
    if not isinstance(inner, exp.Literal) or inner.is_string or not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", inner.this):
        raise NotSimpleError(node)
    return Decimal(inner.this) if "." in inner.this else int(inner.this)


def _float(value: Any) -> float:
    """Return a number as a DOUBLE; a DECIMAL is its units by a power of ten there."""
    if isinstance(value, Decimal):
        exponent = -int(value.as_tuple().exponent)
        units = int(value.scaleb(exponent)) if exponent > 0 else int(value)
        if abs(units) >= _MOST_UNITS:
            raise NotSimpleError(value)
        return float(units) / 10.0 ** max(exponent, 0)
    return float(value)


def _arithmetic(node: exp.Expr, column: str) -> tuple[str, Compute]:
    is_first = node.this.find(exp.Column) is not None
    kind, inner = _number(node.this if is_first else node.expression, column)
    other = _literal(node.expression if is_first else node.this)
    operate = _ARITHMETIC[type(node)]
    if kind == "DOUBLE":
        by = _float(other)
        return kind, lambda value: operate(inner(value), by) if is_first else operate(by, inner(value))
    if isinstance(other, Decimal):
        kind = "DECIMAL"
    in_decimals = kind == "DECIMAL"

    def compute(value: Any) -> Any:
        found = Decimal(inner(value)) if in_decimals else inner(value)
        return operate(found, other) if is_first else operate(other, found)

    return kind, compute


def _comparison(node: exp.Expr, column: str) -> tuple[str, Compute]:
    kind, inner = _number(node.this, column)
    other, compare = _literal(node.expression), _COMPARED[type(node)]
    if kind == "DOUBLE":
        by = _float(other)
        return "BOOLEAN", lambda value: compare(inner(value), by)
    return "BOOLEAN", lambda value: compare(inner(value), other)


def _whole(node: exp.Expr, column: str) -> tuple[str, Compute]:
    kind, inner = _number(node.this, column)
    round_to = math.floor if isinstance(node, exp.Floor) else math.ceil
    if kind == "DOUBLE":
        return kind, lambda value: float(round_to(inner(value)))
    return kind, lambda value: round_to(inner(value))


def _rounded(node: exp.Round, column: str) -> tuple[str, Compute]:
    """Return ROUND of a whole number or a decimal, halves away from 0."""
    kind, inner = _number(node.this, column)
    digits = _literal(node.args.get("decimals") or exp.Literal.number(0))
    if kind == "DOUBLE" or not isinstance(digits, int) or not -9 <= digits <= 6 or node.args.get("truncate"):
        raise NotSimpleError(node)
    unit = Decimal(1).scaleb(-digits)

    def compute(value: Any) -> Any:
        found = Decimal(inner(value))
        rounded = (found / unit).to_integral_value(ROUND_HALF_UP) * unit
        return int(rounded) if kind == "BIGINT" else rounded

    return kind, compute


def _text(node: exp.Expr, column: str) -> tuple[str, Compute]:
    kind, inner = _of(node.this, column)
    if kind != "VARCHAR":
        raise NotSimpleError(node)
    match node:
        case exp.Like() if isinstance(node.expression, exp.Literal) and node.expression.is_string:
            pattern = _pattern(str(node.expression.this))
            return "BOOLEAN", lambda value: pattern.fullmatch(inner(value)) is not None
        case exp.Left():
            length = _literal(node.expression)
            return kind, lambda value: inner(value)[: _positive(length)]
        case exp.Substring() if node.args.get("length") is not None:
            start, size = _positive(_literal(node.args["start"])), _positive(_literal(node.args["length"]))
            return kind, lambda value: inner(value)[start - 1 : start - 1 + size]
    raise NotSimpleError(node)


def _pattern(text: str) -> re.Pattern[str]:
    if "\\" in text or not text.isascii() or text.count("%") > 2:
        raise NotSimpleError(text)
    parts = (".*" if one == "%" else "." if one == "_" else re.escape(one) for one in text)
    return re.compile("".join(parts), re.DOTALL)


def _positive(value: int | Decimal) -> int:
    if not isinstance(value, int) or value < 1:
        raise NotSimpleError(value)
    return value


def _case(node: exp.Expr, column: str) -> Compute:
    """Return a CASE of conditions with texts as results, the last of which it has where none is true."""
    whens, last = ([node], node.args.get("false")) if isinstance(node, exp.If) else (node.args["ifs"], None)
    last = node.args.get("default") if isinstance(node, exp.Case) else last
    if last is None or (isinstance(node, exp.Case) and node.this is not None):
        raise NotSimpleError(node)
    branches = [(_condition(one.this, column), _written(one.args["true"])) for one in whens]
    otherwise = _written(last)

    def compute(value: Any) -> str:
        if value is None:
            return otherwise
        return next((result for is_true, result in branches if is_true(value)), otherwise)

    return compute


def _written(node: exp.Expr) -> str:
    if not isinstance(node, exp.Literal) or not node.is_string:
        raise NotSimpleError(node)
    return str(node.this)


def _condition(node: exp.Expr, column: str) -> Compute:
    """Return a condition on a value that is not NULL, so that it is true or false."""
    match node:
        case exp.Paren():
            return _condition(node.this, column)
        case exp.Not():
            inner = _condition(node.this, column)
            return lambda value: not inner(value)
        case exp.And() | exp.Or():
            one, other = _condition(node.this, column), _condition(node.expression, column)
            if isinstance(node, exp.And):
                return lambda value: one(value) and other(value)
            return lambda value: one(value) or other(value)
        case exp.EQ() | exp.NEQ() | exp.In():
            return _equal(node, column)
    kind, compute = _of(node, column)
    if kind != "BOOLEAN":
        raise NotSimpleError(node)
    return compute


def _equal(node: exp.Expr, column: str) -> Compute:
    kind, inner = _of(node.this, column)
    given = node.expressions if isinstance(node, exp.In) else [node.expression]
    if kind == "VARCHAR":
        known: set[Any] = {_written(one) for one in given}
    elif kind in ("BIGINT", "DECIMAL"):
        known = {_literal(one) for one in given}
    else:
        raise NotSimpleError(node)
    if isinstance(node, exp.NEQ):
        return lambda value: inner(value) not in known
    return lambda value: inner(value) in known
