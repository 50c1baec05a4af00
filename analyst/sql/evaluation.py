"""SQL expressions over the public values of one column, computed by DuckDB itself: what an expression makes of each.

No row and no file is read: the values are those of a closed domain, or the steps between public bounds. Promise: only
functions of `PURE` are computed, within `SECONDS` each, `SECONDS_IN_ALL` for a question, and `MEMORY`.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

import duckdb
from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.database import KeptDatabase
from analyst.sql.nodes import shown_as
from analyst.sql.parse import sql_position
from analyst.sql.simple import Compute, NotSimpleError, Value, computed, read, takes_null

Kind = Literal["string", "int", "decimal", "bool"]
SECONDS = 2.0  # of one expression
SECONDS_IN_ALL = 10.0  # of one question
MEMORY = "256MB"
MOST_CHARACTERS = 1 << 26  # of one step's results for all values together, as nothing interrupts a step
MOST_CHANGES = 5_000  # places between steps at which an expression has another result
# The functions and operators of one row that are computed; sqlglot's classes.
PURE: frozenset[type[exp.Expr]] = frozenset(
    {
        exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null, exp.Paren, exp.DataType, exp.Var,
        exp.Neg, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod, exp.Abs, exp.Sign, exp.Floor, exp.Ceil,
        exp.Round, exp.Greatest, exp.Least,
        exp.Substring, exp.Left, exp.Right, exp.Upper, exp.Lower, exp.Length, exp.DPipe, exp.Concat, exp.Trim,
        exp.Replace, exp.SplitPart, exp.StartsWith, exp.EndsWith, exp.Contains,
        exp.Like, exp.ILike, exp.Escape, exp.In, exp.Between, exp.Is, exp.NullSafeEQ, exp.NullSafeNEQ,
        exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.And, exp.Or, exp.Not,
        exp.Case, exp.If, exp.Coalesce, exp.Nullif, exp.Cast, exp.TryCast,
        exp.Year, exp.Quarter, exp.Month, exp.Week, exp.Day, exp.DayOfWeek, exp.Extract, exp.TimestampTrunc,
        exp.DateTrunc, exp.TimeToStr,
    }
)  # fmt: skip
_DATED = (
    exp.Year, exp.Quarter, exp.Month, exp.Week, exp.Day, exp.DayOfWeek, exp.Extract, exp.TimestampTrunc, exp.DateTrunc,
    exp.TimeToStr,
)  # fmt: skip
_CASTS = frozenset({"INT", "BIGINT", "SMALLINT", "TINYINT", "DOUBLE", "FLOAT", "DECIMAL", "VARCHAR", "TEXT", "BOOLEAN"})
_COLUMN = "v"
_NUMBER_LENGTH = 64  # characters of a number, a date or a condition as text, at most
_until: ContextVar[float] = ContextVar("until", default=math.inf)  # on the monotonic clock
# What was computed for the same request: the same expressions stand in several statements.
_computed_before: ContextVar[dict[str, list[Any]] | None] = ContextVar("computed_before", default=None)
HINT = (
    "over public values: arithmetic, FLOOR, ROUND, ABS, SUBSTR, LEFT, RIGHT, UPPER, LOWER, LENGTH, ||, REPLACE, LIKE,"
    " ILIKE, IN, BETWEEN, CASE, COALESCE, NULLIF, CAST, and of dates year(), quarter(), month(), date_trunc()"
)
_CONFIG: Mapping[str, Any] = MappingProxyType(
    {"enable_external_access": False, "memory_limit": MEMORY, "threads": 1, "lock_configuration": True}
)
_KEPT = KeptDatabase(_CONFIG)
_VECTOR = 2_048  # values that DuckDB computes at once
_FEW_STEPS = 2_000  # that are computed one by one
_PARTS = (512, 64)  # of the bounds, and of each part in which a result changes


@contextmanager
def bounded() -> Iterator[None]:
    """Let all expressions that are computed meanwhile take `SECONDS_IN_ALL` together."""
    before = _until.set(min(_until.get(), time.monotonic() + SECONDS_IN_ALL))  # several questions share it
    found = _computed_before.get()
    known = _computed_before.set({} if found is None else found)
    try:
        yield
    finally:
        _until.reset(before)
        _computed_before.reset(known)


@dataclass(frozen=True, slots=True)
class Result:
    """What an expression makes of a value: its kind, and its text; None is NULL."""

    kind: Kind
    text: str | None


def is_dated(node: exp.Expr) -> bool:
    """Tell whether an expression takes parts of a date."""
    return node.find(*_DATED) is not None


def check_pure(node: exp.Expr) -> None:
    """Raise SqlError unless all of an expression can be computed over public values."""
    for part in node.walk():
        if type(part) not in PURE or (isinstance(part, exp.In) and not part.expressions):
            raise SqlError(f"{shown_as(part)} is not supported{sql_position(part)}", HINT)
        if isinstance(part, exp.Cast) and part.to.this.name not in _CASTS:
            hint = f"cast to one of {', '.join(sorted(_CASTS))}"
            raise SqlError(f"{shown_as(part)} is not supported{sql_position(part)}", hint)
        if isinstance(part, exp.Div | exp.IntDiv | exp.Mod) and _is_zero(part.expression):
            hint = "write a width above 0, such as x // 10"
            raise SqlError(f"{shown_as(part)} divides by 0{sql_position(part)}", hint)


def results(node: exp.Expr, type_name: str, values: Sequence[str | None]) -> list[Result]:
    """Return what an expression of one column makes of each value; raises SqlError.

    `type_name` is DuckDB's type of the column, and values are its texts; None is NULL.
    """
    _seconds_left(node)
    with suppress(NotSimpleError):
        if (simple := computed(node, type_name)) is not None:
            kind = type_name.partition("(")[0]
            return [_simply(node, simple, None if one is None else read(one, kind)) for one in values]
    longest = max((len(one) for one in values if one is not None), default=0)
    _check_length(node, max(longest, _NUMBER_LENGTH), len(values))
    sql = f"SELECT {_text(node)} FROM (SELECT unnest($1::VARCHAR[])::{type_name} AS {_COLUMN})"  # noqa: S608
    return [_result(*row) for row in _computed(node, sql, [list(values)])]


def changes(node: exp.Expr, scale: int, low: int, high: int, step: Decimal) -> list[tuple[int, Result]]:
    """Return the steps, from `low` to `high`, at which an expression of one number has another result than before.

    The first is `low`. A number has `scale` decimals. Raises SqlError, also where there are too many.
    """
    number = f"(i * {step:f})::DECIMAL(18, {scale})" if scale else f"(i * {step:f})::BIGINT"
    _seconds_left(node)
    simple = computed(node, "DECIMAL" if scale else "BIGINT") if is_monotonic(node) else None
    found: list[tuple[int, Result]] | None = None
    if simple is not None:
        with suppress(NotSimpleError):
            found = _simple_changes(node, simple, scale, low, high, step)
    if found is None:
        _check_length(node, _NUMBER_LENGTH, min(high - low + 1, _VECTOR))
        is_long = high - low > _FEW_STEPS and is_monotonic(node)
        found = (_changes_between if is_long else _changes_at)(node, number, low, high)
    if len(found) > MOST_CHANGES:
        raise _too_many(node)
    return found


def _check_length(node: exp.Expr, of_value: int, values: int) -> None:
    """Raise SqlError where an expression of so many values may make longer texts than fit into memory."""
    if _length(node, of_value) * min(values, _VECTOR) > MOST_CHARACTERS:
        message = f"{shown_as(node)} may make texts that are too long{sql_position(node)}"
        raise SqlError(message, "replace texts by shorter ones, and in fewer steps")


def _length(node: exp.Expr, of_value: int) -> int:
    """Return how many characters the text of an expression has at most, for a value of so many."""
    parts = [_length(one, of_value) for one in node.iter_expressions()]
    match node:
        case exp.DataType() | exp.Identifier() | exp.Var():
            return 0
        case exp.Column():
            return of_value
        case exp.Literal():
            return len(str(node.this))
        case exp.Replace(expression=exp.Literal() as old) if len(parts) == 3:
            return parts[0] * max(1, -(-parts[2] // max(1, len(str(old.this)))))
        case exp.Replace() if len(parts) == 3:
            return parts[0] * max(1, parts[2])
        case exp.TimeToStr():
            return _NUMBER_LENGTH * max(1, *parts)
    return max(_NUMBER_LENGTH, sum(parts))


def _too_many(node: exp.Expr) -> SqlError:
    message = f"{node.sql(dialect='duckdb')[:60]} has more than {MOST_CHANGES:,} results{sql_position(node)}"
    hint = "take wider buckets, such as FLOOR(x / 100), or conditions: CASE WHEN x < 5 THEN ... END"
    return SqlError(message, hint)


def _simply(node: exp.Expr, simple: tuple[str, Compute], value: Value) -> Result:
    """Return what a simple expression makes of a value, as `_result` has it of DuckDB."""
    kind, compute = simple
    found = None if value is None and not takes_null(node) else compute(value)
    if kind == "VARCHAR":
        return Result("string", found)
    if kind == "BOOLEAN":
        return Result("bool", None if found is None else str(found).lower())
    return _result(None if found is None else str(found), kind)


def _simple_changes(
    node: exp.Expr, simple: tuple[str, Compute], scale: int, low: int, high: int, step: Decimal
) -> list[tuple[int, Result]]:
    """Find the changes of a simple monotonic expression: from each, by doubling and halving, the next one."""
    unit = Decimal(1).scaleb(-scale)

    def at(place: int) -> Result:
        return _simply(node, simple, (place * step).quantize(unit) if scale else int(place * step))

    found, width = [(low, at(low))], 1
    while found[-1][0] < high and len(found) <= MOST_CHANGES:
        place, result = found[-1]
        # The last width is likely the next one too: `same` has this result, `other` another one.
        same, reach = place, max(1, width - 1)
        while same + reach <= high and at(same + reach) == result:
            same, reach = same + reach, 1 if reach == width - 1 else 2 * reach
        other = min(same + reach, high + 1)
        while other - same > 1:
            middle = (same + other) // 2
            same, other = (middle, other) if at(middle) == result else (same, middle)
        if other > high:
            break
        width = other - place
        found.append((other, at(other)))
    return found


def _changes_at(node: exp.Expr, number: str, low: int, high: int) -> list[tuple[int, Result]]:
    """Compute an expression of every step."""
    sql = (
        f"WITH steps AS (SELECT i, {number} AS {_COLUMN} FROM range({low}, {high + 1}) AS steps(i)),"  # noqa: S608
        f" found AS (SELECT i, ({_sql(node)}) AS result FROM steps),"
        " beside AS (SELECT i, result, lag(result) OVER (ORDER BY i) AS before FROM found)"
        f" SELECT i, result::VARCHAR, typeof(result) FROM beside WHERE i = {low} OR result IS DISTINCT FROM before"
        f" ORDER BY i LIMIT {MOST_CHANGES + 1}"
    )
    return [(int(at), _result(text, kind)) for at, text, kind in _computed(node, sql, [])]


def _changes_between(node: exp.Expr, number: str, low: int, high: int) -> list[tuple[int, Result]]:
    """Compute a monotonic expression of some steps, and of more only where those beside each other differ."""
    sql = f"SELECT {_text(node)} FROM (SELECT {number} AS {_COLUMN} FROM unnest($1::BIGINT[]) AS steps(i))"  # noqa: S608
    parts, known, open_ = _PARTS[0], dict[int, Result](), [(low, high)]
    while open_:
        points = sorted({at for first, last in open_ for at in _spread(first, last, parts)} - known.keys())
        known |= zip(points, (_result(*row) for row in _computed(node, sql, [points])), strict=True)
        inner = [pair for first, last in open_ for pair in pairwise(_spread(first, last, parts))]
        changed = [(one, other) for one, other in inner if known[one] != known[other]]
        if len(changed) > MOST_CHANGES:
            raise _too_many(node)
        open_ = [(one, other) for one, other in changed if other - one > 1]
        parts = _PARTS[1]
    at = sorted(known)
    return [(low, known[low]), *((other, known[other]) for one, other in pairwise(at) if known[one] != known[other])]


def _spread(first: int, last: int, parts: int) -> list[int]:
    """Return whole numbers from the first to the last, which cut what lies between into so many parts."""
    return sorted({first + (last - first) * place // parts for place in range(parts + 1)})


def is_monotonic(node: exp.Expr) -> bool:
    """Tell whether an expression of one number never falls, or never rises, as that number rises."""
    match node:
        case exp.Column():
            return True
        case exp.Paren() | exp.Neg() | exp.Floor() | exp.Ceil() if len([one for one in node.args.values() if one]) == 1:
            return is_monotonic(node.this)
        case exp.Round():
            return is_monotonic(node.this) and (node.args.get("decimals") is None or _is_number(node.args["decimals"]))
        case exp.Add() | exp.Sub() | exp.Mul() | exp.Div() | exp.IntDiv():
            if _is_number(node.expression):
                return is_monotonic(node.this)
            return (
                not isinstance(node, exp.Div | exp.IntDiv) and _is_number(node.this) and is_monotonic(node.expression)
            )
        case exp.LT() | exp.LTE() | exp.GT() | exp.GTE():
            return _is_number(node.expression) and is_monotonic(node.this)
    return False


def _is_number(node: exp.Expr) -> bool:
    inner = node.unnest()
    inner = inner.this if isinstance(inner, exp.Neg) else inner
    return isinstance(inner, exp.Literal) and not inner.is_string


def _is_zero(node: exp.Expr) -> bool:
    inner = node.unnest()
    return isinstance(inner, exp.Literal) and not inner.is_string and not Decimal(str(inner.this) or "1")


def _sql(node: exp.Expr) -> str:
    renamed = node.copy().transform(_named)
    return renamed.sql(dialect="duckdb")


def _named(part: exp.Expr) -> exp.Expr:
    return exp.column(_COLUMN) if isinstance(part, exp.Column) else part


def _text(node: exp.Expr) -> str:
    return f"({_sql(node)})::VARCHAR, typeof({_sql(node)})"


def _seconds_left(node: exp.Expr) -> float:
    """Return how long an expression may be computed; raises SqlError where the question's time is over."""
    seconds = min(SECONDS, _until.get() - time.monotonic())
    if seconds <= 0:
        message = f"the expressions of a question take more than {SECONDS_IN_ALL:g} s to compute{sql_position(node)}"
        raise SqlError(message, "ask simpler conditions, or fewer")
    return seconds


def _computed(node: exp.Expr, sql: str, parameters: Sequence[Any]) -> list[Any]:
    shown, known, key = f"{node.sql(dialect='duckdb')[:60]}", _computed_before.get(), f"{sql} {parameters!r}"
    if known is not None and key in known:
        return known[key]
    try:
        with _KEPT.used(_seconds_left(node)) as database:
            found = database.execute(sql, parameters).fetchall()
    except duckdb.InterruptException as err:
        raise SqlError(f"{shown} takes too long to compute{sql_position(node)}", "ask a simpler expression") from err
    except duckdb.Error as err:
        raise SqlError(f"{shown} cannot be computed{sql_position(node)}: {reason_of(err)}", HINT) from err
    if known is not None:
        known[key] = found
    return found


def reason_of(error: duckdb.Error) -> str:
    """Return in one line why DuckDB computes nothing: without the kind of its error, and without what it would do."""
    first = str(error).partition("\n")[0]
    _, colon, reason = first.partition("Error: ")
    return (reason if colon else first).partition(" You might need")[0].partition(" Use TRY")[0][:160]


def _result(text: str | None, type_name: str) -> Result:
    """Return a result as a label: whole numbers as such, whatever the type in which they were computed."""
    kind = type_name.partition("(")[0]
    if kind == "BOOLEAN":
        return Result("bool", text)
    if kind.endswith("INT") or kind.endswith("INTEGER"):
        return Result("int", text)
    if kind in ("DECIMAL", "DOUBLE", "FLOAT"):
        if text is None:
            return Result("int", None)
        number = Decimal(text)
        if not number.is_finite():
            return Result("int", None)
        plain = f"{number:f}"
        plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
        plain = "0" if plain == "-0" else plain
        return Result("decimal" if "." in plain else "int", plain)
    if kind.startswith("TIMESTAMP") and text is not None:
        return Result("string", text.removesuffix(" 00:00:00"))
    return Result("int" if kind == '"NULL"' else "string", text)
