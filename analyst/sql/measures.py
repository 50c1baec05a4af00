"""Measures that are expressions: from SQL to the expression of a plan, or why it has no finite public bounds.

    SELECT AVG(loan / NULLIF(income, 0)) FROM loans

Read from the innermost part out, so that a refusal names the part that lacks a bound. What bounds it is in
`policies.requests.ranges`: silos derive the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import floor, log10
from types import MappingProxyType
from typing import Literal

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.cases import default_of, whens_of
from analyst.sql.columns import measure
from analyst.sql.nodes import shown_as
from analyst.sql.offer import Offer
from analyst.sql.parse import sql_position
from analyst.sql.predicates import CONDITIONS, predicate
from policies.requests.expressions import (
    MAX_DEPTH,
    MAX_PARTS,
    Apply,
    Cell,
    Choose,
    Constant,
    Derived,
    Expression,
    Function,
    check_size,
)
from policies.requests.predicates import Predicate
from policies.requests.ranges import NoRangeError, Range, Values, applied, chosen, constant, defined, narrowed
from policies.requests.ranges import range_of_column as range_of_own
from policies.requests.tables import Table

_MOST_NODES = 600  # of the SQL of one expression
_MOST_NESTED = 60
_CHUNK = 16
_MOST_PLACES = 30  # before or after the point of a literal, to be looked at
Kind = Literal["int", "decimal", "double"]
_SMALLER = "leave out numbers so much larger than the result, or add them to the figure: AVG(x) + 1000000000000000"
HINT = (
    "a measure is computed of a row by + - * / %, ABS, SIGN, FLOOR, CEIL, ROUND, TRUNC, LEAST, GREATEST, COALESCE,"
    " NULLIF, CASE, SQRT, LN, LOG, EXP, POWER(x, 2), CAST"
)
_SIMPLE: Mapping[type[exp.Expr], Function] = MappingProxyType(
    {
        exp.Abs: "abs",
        exp.Sign: "sign",
        exp.Floor: "floor",
        exp.Ceil: "ceil",
        exp.Trunc: "trunc",
        exp.Sqrt: "sqrt",
        exp.Exp: "exp",
        exp.Ln: "ln",
    }
)
_OF_MANY: Mapping[type[exp.Expr], Function] = MappingProxyType(
    {exp.Least: "least", exp.Greatest: "greatest", exp.Coalesce: "coalesce"}
)
_WHOLE = frozenset({"TINYINT", "SMALLINT", "INT", "BIGINT", "INT128", "UTINYINT", "USMALLINT", "UINT", "UBIGINT"})
_REAL = frozenset({"DOUBLE", "FLOAT"})
_DECIMALS = 3  # of DECIMAL without a scale, as DuckDB has it
_NOTHING = Apply(function="nullif", arguments=(Constant(value="0"), Constant(value="0")))  # SQL's NULL


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of an expression: what it is in the plan, its range, and DuckDB's kind of number."""

    expression: Expression
    range: Range
    kind: Kind


def expression_of(node: exp.Expr, table: str, offer: Offer, where: Predicate | None) -> Expression:
    """Return an expression of the cells of a row that meets a condition; raises SqlError."""
    shown, place = shown_as(node), sql_position(node)
    if sum(1 for _ in node.walk()) > _MOST_NODES or _depth(node) > _MOST_NESTED:
        message = f"{shown} has too many parts{place}, or is nested too deeply"
        raise SqlError(message, f"a measure has at most {MAX_PARTS} parts, and is nested at most {MAX_DEPTH} deep")
    reading = _Reading(table, offer, node)
    found = reading.of(node, reading.values(where))
    try:
        check_size((found.expression,))
    except ValueError as err:
        raise SqlError(f"{shown} is too large{place}: {err}", "ask for its parts in columns of their own") from err
    if not found.range.columns and not any(True for _ in _compared(found.expression)):
        raise SqlError(f"{shown} reads no column{place}", "count rows with COUNT(*), and multiply the figure")
    _check_steps(node, found, reading.table, where)
    return found.expression


def name_for(expression: Expression, known: Sequence[Derived], taken: Iterable[str]) -> str:
    """Return the name of a derived measure in the plan: the one it has there already, or a new one."""
    same = next((one.name for one in known if one.expression == expression), None)
    numbers = (f"measure_{place}" for place in range(len(known) + 1, 10_000))
    names = {*taken, *(one.name for one in known)}
    return same or next(name for name in numbers if name not in names)


def _compared(expression: Expression) -> Iterable[str]:
    return Derived(name="measure", expression=expression).compared


def _check_steps(node: exp.Expr, found: _Part, table: Table, where: Predicate | None) -> None:
    """Raise SqlError where the range is so narrow, or its numbers so large, that a step says little of a value."""
    try:
        defined(Derived(name="measure", expression=found.expression), table, where)
    except NoRangeError as err:
        if err.lacks != "step":
            raise SqlError(f"{shown_as(node)}{sql_position(node)}: {err.message}", _SMALLER) from err
        message = f"{shown_as(node)}{sql_position(node)} has values from {found.range}, and the finest step is 1e-9"
        raise SqlError(message, "multiply it, as in 1000000 * x, and divide the figure by it") from err


def _depth(node: exp.Expr) -> int:
    """Return how deep an expression is nested, a chain of + - or * counting as one."""
    deepest, pending = 0, [(node, 1)]
    while pending:
        one, depth = pending.pop()
        deepest = max(deepest, depth)
        for child in one.iter_expressions():
            is_chain = isinstance(one, exp.Add | exp.Sub | exp.Mul) and isinstance(child, exp.Add | exp.Sub | exp.Mul)
            pending.append((child, depth if is_chain else depth + 1))
    return deepest


class _Reading:
    """Reads one expression of a table."""

    def __init__(self, name: str, offer: Offer, node: exp.Expr) -> None:
        self._name, self._offer = name, offer
        known = set(offer.columns(name))
        named = dict.fromkeys(one.name for one in node.find_all(exp.Column) if one.name in known)
        columns = tuple(column for one in named if (column := offer.column(name, one)).step is not None)
        self.table = Table.model_construct(name=name, max_rows=1, max_silos=1, max_norm=None, columns=columns)

    def values(self, where: Predicate | None) -> Values:
        """Return the ranges of the columns in rows that meet a condition."""
        found = {one.name: range_of_own(one) for one in self.table.columns}
        return found if where is None else narrowed(found, (where,), self.table)

    def of(self, node: exp.Expr, values: Values) -> _Part:
        node = node.unnest()
        if isinstance(node, exp.Column) and not isinstance(node.this, exp.Star):
            column = measure(node, self._name, self._offer)
            kind: Kind = "decimal" if column.type == "decimal" else "int"
            return _Part(Cell(column=column.name), values[column.name], kind)
        if isinstance(node, exp.Literal | exp.Boolean | exp.Null):
            return _constant(node)
        if isinstance(node, exp.Case | exp.If):
            return self._chosen(node, values)
        if isinstance(node, CONDITIONS):
            return self._condition(node)
        if isinstance(node, exp.Cast | exp.TryCast):
            return self._cast(node, values)
        if isinstance(node, exp.Add | exp.Sub | exp.Mul):
            return self._chain(node, values)
        found = self._function(node, values)
        if found is None:
            raise SqlError(f"{shown_as(node)} is not supported in a measure{sql_position(node)}", HINT)
        return found

    def _function(self, node: exp.Expr, values: Values) -> _Part | None:
        """Return a function of other parts; None for an unknown one."""
        more = {key for key, one in node.args.items() if one not in (None, False, [])}
        if type(node) in _SIMPLE and more == {"this"}:
            function, inner = _SIMPLE[type(node)], self.of(node.this, values)
            is_real = function in ("sqrt", "exp", "ln")
            return self._applied(node, function, [inner], "double" if is_real else inner.kind)
        if type(node) in _OF_MANY:
            parts = [self.of(one, values) for one in (node.this, *node.expressions)]
            return self._applied(node, _OF_MANY[type(node)], parts, _common_kind(parts))
        match node:
            case exp.Neg():
                inner = self.of(node.this, values)
                return self._applied(node, "negate", [inner], inner.kind)
            case exp.Div():
                parts = [self.of(node.this, values), self.of(node.expression, values)]
                return self._applied(node, "divide", parts, "double")
            case exp.IntDiv() | exp.Mod():
                return self._whole(node, values)
            case exp.Round() if more <= {"this", "decimals"}:
                digits = node.args.get("decimals") or exp.Literal.number(0)
                parts = [self.of(node.this, values), self.of(digits, values)]
                return self._applied(node, "round", parts, parts[0].kind)
            case exp.Nullif():
                parts = [self.of(node.this, values), self.of(node.expression, values)]
                return self._applied(node, "nullif", parts, parts[0].kind)
            case exp.Pow():
                parts = [self.of(node.this, values), self.of(node.expression, values)]
                return self._applied(node, "power", parts, "double")
            case exp.Log():
                return self._logarithm(node, values)
        return None

    def _applied(self, node: exp.Expr, function: Function, parts: Sequence[_Part], kind: Kind) -> _Part:
        """Return a function of parts; raises SqlError where it has no finite bounds."""
        if function in ("round", "nullif", "power") and not isinstance(parts[1].expression, Constant):
            message = f"{shown_as(node)} is not supported in a measure{sql_position(node)}"
            raise SqlError(message, f"the second argument of {function.upper()} is a number here")
        try:
            found = applied(function, [one.range for one in parts])
        except NoRangeError as err:
            lacks = "digits left" if err.lacks == "error" else "public bounds"
            message = f"{shown_as(node)} has no {lacks}{sql_position(node)}: {_lacking(node, err, parts)}"
            raise SqlError(message, _remedy(node, err, parts)) from err
        if not found.columns and function != "nullif" and (folded := _folded(found)) is not None:
            return _Part(folded, constant(folded.value), kind)
        return _Part(Apply(function=function, arguments=tuple(one.expression for one in parts)), found, kind)

    def _chain(self, node: exp.Expr, values: Values) -> _Part:
        """Return a chain of + and -, or of *, as one sum or product, from left to right."""
        kinds = (exp.Mul,) if isinstance(node, exp.Mul) else (exp.Add, exp.Sub)
        terms, at = list[tuple[exp.Expr, bool]](), node
        while isinstance(at, kinds):
            terms.append((at.expression, isinstance(at, exp.Sub)))
            at = at.this.unnest() if isinstance(at.this, exp.Paren) else at.this
        terms.append((at, False))
        parts = [self._term(node, one, is_negative, values) for one, is_negative in reversed(terms)]
        function: Function = "multiply" if isinstance(node, exp.Mul) else "add"
        kind = _common_kind(parts)
        if len(parts) == 2 and isinstance(node, exp.Sub):
            plain = [parts[0], self.of(node.expression, values)]
            return self._applied(node, "subtract", plain, kind)
        while len(parts) > _CHUNK:
            parts = [self._applied(node, function, parts[:_CHUNK], kind), *parts[_CHUNK:]]
        return self._applied(node, function, parts, kind)

    def _term(self, node: exp.Expr, one: exp.Expr, is_negative: bool, values: Values) -> _Part:
        found = self.of(one, values)
        return self._applied(node, "negate", [found], found.kind) if is_negative else found

    def _whole(self, node: exp.Expr, values: Values) -> _Part:
        parts = [self.of(node.this, values), self.of(node.expression, values)]
        if {one.kind for one in parts} != {"int"}:
            message = f"{shown_as(node)} is not supported in a measure{sql_position(node)}: it is of whole numbers"
            raise SqlError(message, "write FLOOR(x / y)")
        if isinstance(node, exp.Mod):
            return self._applied(node, "remainder", parts, "int")
        return self._applied(node, "trunc", [self._applied(node, "divide", parts, "double")], "int")

    def _logarithm(self, node: exp.Log, values: Values) -> _Part:
        """Return LOG(x), of base 10, or LOG(base, x)."""
        if node.expression is None:
            return self._applied(node, "log10", [self.of(node.this, values)], "double")
        inner, base = self.of(node.expression, values), _folded(self.of(node.this, values).range)
        functions: Mapping[str, Function] = {"2": "log2", "10": "log10"}
        if base is not None and base.value in functions:
            return self._applied(node, functions[base.value], [inner], "double")
        parts = [inner, self.of(node.this, values)]
        logarithms = [self._applied(node, "ln", [one], "double") for one in parts]
        return self._applied(node, "divide", logarithms, "double")

    def _cast(self, node: exp.Expr, values: Values) -> _Part:
        inner, kind = self.of(node.this, values), node.args["to"].this.name
        if kind in _WHOLE:
            if inner.kind == "int":
                return inner
            if inner.kind == "double":
                return self._applied(node, "round_even", [inner], "int")
            return self._rounded(node, inner, 0, "int")
        if kind in _REAL:
            return replace(inner, kind="double")
        if kind == "DECIMAL":
            scale = [one.this.this for one in node.args["to"].expressions[1:2]]
            digits = int(scale[0]) if scale else 0 if node.args["to"].expressions else _DECIMALS
            return self._rounded(node, inner, digits, "decimal")
        message = f"{shown_as(node)} is not supported in a measure{sql_position(node)}"
        raise SqlError(message, "cast to a number: INT, BIGINT, DOUBLE or DECIMAL(18, 2)")

    def _rounded(self, node: exp.Expr, inner: _Part, digits: int, kind: Kind) -> _Part:
        text = str(digits)
        return self._applied(node, "round", [inner, _Part(Constant(value=text), constant(text), "int")], kind)

    def _chosen(self, node: exp.Case | exp.If, values: Values) -> _Part:
        whens = [(predicate(when, self._name, self._offer), result) for when, result in whens_of(node)]
        if len(whens) > 2 * _CHUNK:
            message = f"a CASE has {len(whens)} conditions{sql_position(node)}, a measure has at most {2 * _CHUNK}"
            raise SqlError(message, "group by the CASE instead, or take fewer conditions")
        parts = [self.of(result, narrowed(values, (when,), self.table)) for when, result in whens]
        last = default_of(node)
        otherwise = None if last is None or isinstance(last, exp.Null) else self.of(last, values)
        found = chosen([one.range for one in parts], None if otherwise is None else otherwise.range)
        expression = Choose(
            whens=tuple(when for when, _ in whens),
            results=tuple(one.expression for one in parts),
            otherwise=None if otherwise is None else otherwise.expression,
        )
        return _Part(expression, found, _common_kind([*parts, *([] if otherwise is None else [otherwise])]))

    def _condition(self, node: exp.Expr) -> _Part:
        """Return a condition as 1 where it is true, 0 where it is false, and missing elsewhere."""
        true, false = (predicate(one, self._name, self._offer) for one in (node, exp.Not(this=exp.paren(node.copy()))))
        one, zero = Constant(value="1"), Constant(value="0")
        return _Part(
            Choose(whens=(true, false), results=(one, zero), otherwise=None),
            chosen([constant("1"), constant("0")], None),
            "int",
        )


def _constant(node: exp.Expr) -> _Part:
    if isinstance(node, exp.Null):
        return _Part(_NOTHING, applied("nullif", [constant("0"), constant("0")]), "int")
    if isinstance(node, exp.Boolean):
        text = "1" if node.this else "0"
        return _Part(Constant(value=text), constant(text), "int")
    place, hint = sql_position(node), "write a number in digits, with up to 18 before the point and 9 after it"
    if node.is_string:
        raise SqlError(f"{shown_as(node)} is no number{place}", hint)
    try:
        written = Decimal(str(node.this))
        is_huge = not written.is_finite() or not -_MOST_PLACES < written.adjusted() < _MOST_PLACES
        number = Fraction(0) if is_huge else Fraction(written)
    except (InvalidOperation, ValueError, OverflowError) as err:
        raise SqlError(f"{shown_as(node)} is no number{place}", hint) from err
    found = _folded(Range(number, number))
    if found is None or is_huge:
        raise SqlError(f"{shown_as(node)} is too large or too fine{place}", hint)
    is_real, is_whole = "e" in str(node.this).lower(), "." not in str(node.this)
    return _Part(found, constant(found.value), "double" if is_real else "int" if is_whole else "decimal")


def _folded(found: Range) -> Constant | None:
    """Return what has one value as a constant; None where it has several, or has none that can be written."""
    value = found.low
    if found.low != found.high or (10**9) % value.denominator or abs(value) >= 10**18 or found.can_be_missing:
        return None
    text = f"{Decimal(value.numerator) / Decimal(value.denominator):f}"
    if Fraction(text) != value:
        return None
    return Constant(value=text.rstrip("0").rstrip(".") if "." in text else text)


def _common_kind(parts: Sequence[_Part]) -> Kind:
    kinds = {one.kind for one in parts}
    return "double" if "double" in kinds else "decimal" if "decimal" in kinds else "int"


def _lacking(node: exp.Expr, err: NoRangeError, parts: Sequence[_Part]) -> str:
    """Return which bound a part lacks, in words."""
    if err.lacks != "divisor":
        return err.message
    below, found = node.expression.unnest(), parts[1].range
    if found.low == found.high:
        return "it divides by 0"
    whose = f"the bounds of {below.name!r} are" if isinstance(below, exp.Column) else "its values are from"
    return f"it divides by {_inner_text(below)}, which may be 0: {whose} {found}"


def _remedy(node: exp.Expr, err: NoRangeError, parts: Sequence[_Part]) -> str:
    """Return what to write instead of a part without bounds; whatever is proposed has bounds."""
    if err.lacks == "divisor":
        return _of_divisor(node, parts)
    inner = node.this if not isinstance(node, exp.Log) or node.expression is None else node.expression
    text, found = _inner_text(inner), parts[0].range
    name = shown_as(node).partition("(")[0]
    remedies: Mapping[str, Callable[[], str]] = {
        "logarithm": lambda: _above_0(inner, found, lambda one: f"{name}({one})"),
        "root": lambda: f"write SQRT(GREATEST({text}, 0)), or SQRT(ABS({text}))",
        "exponent": lambda: f"write EXP(LEAST(GREATEST({text}, -10), 10))",
        "size": lambda: "divide before you multiply, as in (x / 1000000) * y",
        "power": lambda: "write POWER(x, 2), x * x, or SQRT(x)",
        "decimals": lambda: "write ROUND(x, 2)",
        "error": lambda: _SMALLER,
        "whole": lambda: "take whole numbers, as in CAST(x AS INT) % 7",
    }
    return remedies[err.lacks]()


def _inner_text(node: exp.Expr) -> str:
    return str(node.unnest().sql(dialect="duckdb"))[:60]


def _of_divisor(node: exp.Expr, parts: Sequence[_Part]) -> str:
    """Return how to divide by something else than 0."""
    below, found = node.expression.unnest(), parts[1].range
    if found.low == found.high == 0:
        return "write a number above 0"
    above = node.this.sql(dialect="duckdb")[:60]
    operator = "//" if isinstance(node, exp.IntDiv) else "%" if isinstance(node, exp.Mod) else "/"

    def divided(text: str) -> str:
        return f"{above} {operator} {text}"

    hint = _above_0(below, found, divided)
    if not isinstance(below, exp.Column) or 0 not in (found.low, found.high):
        return hint
    own = f"leave out rows of 0, by {divided(f'NULLIF({_inner_text(below)}, 0)')}"
    return f"{own}, or {hint}" if found.high > 0 else own


def _above_0(inner: exp.Expr, found: Range, written: Callable[[str], str]) -> str:
    """Return how to keep a value above 0: by a condition where it is a column, or by its least value."""
    text = _inner_text(inner)
    if found.high <= 0:
        return "take a column with values above 0: the policies bound it by 0 from above"
    least = Fraction(1)
    if found.high < least:
        least = Fraction(10) ** floor(log10(found.high))
    least = max(least, found.grid) if found.grid is not None else least
    plain = _folded(Range(least, least))
    number = "1" if plain is None else plain.value
    clamped = written(f"GREATEST({text}, {number})")
    if isinstance(inner.unnest(), exp.Column):
        grid = found.grid or least
        step = _folded(Range(grid, grid))
        return f"WHERE {text} >= {number if step is None else step.value}, or count such rows as {number}: {clamped}"
    return f"count such rows as {number}: {clamped}"
