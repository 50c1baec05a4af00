"""A column that rises or falls with one figure, such as ROUND(AVG(x), 1), has that figure's own interval, ends and all.

Pure. So it holds given whatever let the figure be shown, which an interval of draws does not know of.
"""

import math
from collections.abc import Callable, Container
from dataclasses import dataclass

from sqlglot import exp

Function = Callable[[float], float]
_WHOLE = ("INT", "BIGINT", "SMALLINT", "TINYINT", "HUGEINT")
_REAL = ("DOUBLE", "FLOAT")


@dataclass(frozen=True, slots=True)
class Rising:
    """What is made of a figure of the core, by a function that only rises, or only falls."""

    figure: str
    function: Function
    falls: bool = False

    def ends(self, low: float, high: float) -> tuple[float, float]:
        """Return the ends of an interval after the function; infinite or NaN where it has no value there."""
        ends = [_tried(self.function, one) for one in (low, high)]
        return (ends[1], ends[0]) if self.falls else (ends[0], ends[1])


def read(node: exp.Expr | None, figures: Container[str]) -> Rising | None:
    """Return how an expression follows from one figure; None where it does not only rise or only fall with one."""
    if isinstance(node, exp.Column):
        return Rising(node.name, float) if node.name in figures else None
    if isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Div):
        return _arithmetic(node, figures)
    step = _STEPS.get(type(node)) if node is not None else None
    function = step(node) if step is not None and node is not None else None
    inner = read(node.this, figures) if node is not None and isinstance(node.this, exp.Expr) else None
    return None if function is None or inner is None else _after(inner, function, falls=isinstance(node, exp.Neg))


def _after(inner: Rising, function: Function, falls: bool = False) -> Rising:
    before = inner.function
    return Rising(inner.figure, lambda x: function(before(x)), inner.falls != falls)


def _arithmetic(node: exp.Binary, figures: Container[str]) -> Rising | None:
    left, right = _number(node.this), _number(node.expression)
    inner = read(node.expression if left is not None else node.this, figures)
    if inner is None or (left is None) == (right is None):
        return None
    by = left if left is not None else right if right is not None else 0.0
    match node:
        case exp.Add():
            return _after(inner, lambda x: x + by)
        case exp.Sub():
            return _after(inner, (lambda x: by - x) if left is not None else (lambda x: x - by), left is not None)
        case exp.Mul() if by:
            return _after(inner, lambda x: x * by, by < 0)
        case exp.Div() if by and left is None:
            return _after(inner, lambda x: x / by, by < 0)
    return None


def _number(node: exp.Expr) -> float | None:
    inner, sign = node.unnest(), 1.0
    while isinstance(inner, exp.Neg):
        inner, sign = inner.this.unnest(), -sign
    return sign * float(inner.this) if isinstance(inner, exp.Literal) and not inner.is_string else None


def _cast(node: exp.Expr) -> Function | None:
    kind = node.args["to"].sql(dialect="duckdb").upper()
    return float if kind in _REAL else (lambda x: float(round(x))) if kind in _WHOLE else None


def _round(node: exp.Expr) -> Function | None:
    decimals = node.args.get("decimals")
    places = 0.0 if decimals is None else _number(decimals)
    if places is None or not places.is_integer() or abs(places) > 15:
        return None
    unit = 10.0**places
    return lambda x: math.copysign(math.floor(abs(x) * unit + 0.5) / unit, x)


def _root(x: float) -> float:
    return math.sqrt(max(x, 0.0))


_LEAST = 1e-21  # of positive means: a step is 1e-9 or more, and rows are fewer than 1e12


def _logarithm(x: float) -> float:
    return math.log(max(x, _LEAST))


_STEPS: dict[type[exp.Expr], Callable[[exp.Expr], Function | None]] = {
    exp.Paren: lambda node: float,
    exp.Neg: lambda node: lambda x: -x,
    exp.Cast: _cast,
    exp.TryCast: _cast,
    exp.Round: _round,
    exp.Floor: lambda node: lambda x: float(math.floor(x)),
    exp.Ceil: lambda node: lambda x: float(math.ceil(x)),
    exp.Sqrt: lambda node: _root,
    exp.Ln: lambda node: _logarithm,
    exp.Exp: lambda node: math.exp,
}


def _tried(function: Function, value: float) -> float:
    try:
        return function(value)
    except (ArithmeticError, ValueError):
        return math.nan
