"""SQL expressions over the public values of one column, computed by DuckDB itself: what an expression makes of each.

No row and no file is read: the values are those of a closed domain, or the steps between public bounds. Promise: only
functions of `PURE` are computed, within `SECONDS` each, `SECONDS_IN_ALL` for a question, and `MEMORY`.
"""

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal

import duckdb
from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.parse import sql_position

Kind = Literal["string", "int", "decimal", "bool"]
SECONDS = 2.0  # of one expression
SECONDS_IN_ALL = 10.0  # of one question
MEMORY = "256MB"
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
_until: ContextVar[float] = ContextVar("until", default=math.inf)  # on the monotonic clock
HINT = (
    "over public values: arithmetic, FLOOR, ROUND, ABS, SUBSTR, LEFT, RIGHT, UPPER, LOWER, LENGTH, ||, REPLACE, LIKE,"
    " ILIKE, IN, BETWEEN, CASE, COALESCE, NULLIF, CAST, and of dates year(), quarter(), month(), date_trunc()"
)
_CONFIG: Mapping[str, Any] = MappingProxyType(
    {"enable_external_access": False, "memory_limit": MEMORY, "threads": 1, "lock_configuration": True}
)


@contextmanager
def bounded() -> Iterator[None]:
    """Let all expressions that are computed meanwhile take `SECONDS_IN_ALL` together."""
    before = _until.set(time.monotonic() + SECONDS_IN_ALL)
    try:
        yield
    finally:
        _until.reset(before)


@contextmanager
def interrupted_after(database: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """Interrupt whatever a database still computes after so many seconds."""
    timer = threading.Timer(seconds, database.interrupt)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


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
        shown, place = part.sql(dialect="duckdb")[:60], sql_position(part)
        if type(part) not in PURE or (isinstance(part, exp.In) and not part.expressions):
            raise SqlError(f"{shown} is not supported{place}", HINT)
        if isinstance(part, exp.Cast) and part.to.this.name not in _CASTS:
            raise SqlError(f"{shown} is not supported{place}", f"cast to one of {', '.join(sorted(_CASTS))}")
        if isinstance(part, exp.Div | exp.IntDiv | exp.Mod) and _is_zero(part.expression):
            raise SqlError(f"{shown} divides by 0{place}", "write a width above 0, such as x // 10")


def results(node: exp.Expr, type_name: str, values: Sequence[str | None]) -> list[Result]:
    """Return what an expression of one column makes of each value; raises SqlError.

    `type_name` is DuckDB's type of the column, and values are its texts; None is NULL.
    """
    sql = f"SELECT {_text(node)} FROM (SELECT unnest($1::VARCHAR[])::{type_name} AS {_COLUMN})"  # noqa: S608
    return [_result(*row) for row in _computed(node, sql, [list(values)])]


def changes(node: exp.Expr, scale: int, low: int, high: int, step: Decimal) -> list[tuple[int, Result]]:
    """Return the steps, from `low` to `high`, at which an expression of one number has another result than before.

    The first is `low`. A number has `scale` decimals. Raises SqlError, also where there are too many.
    """
    number = f"(i * {step:f})::DECIMAL(18, {scale})" if scale else f"(i * {step:f})::BIGINT"
    sql = (
        f"WITH steps AS (SELECT i, {number} AS {_COLUMN} FROM range({low}, {high + 1}) AS steps(i)),"  # noqa: S608
        f" found AS (SELECT i, ({_sql(node)}) AS result FROM steps),"
        " beside AS (SELECT i, result, lag(result) OVER (ORDER BY i) AS before FROM found)"
        f" SELECT i, result::VARCHAR, typeof(result) FROM beside WHERE i = {low} OR result IS DISTINCT FROM before"
        f" ORDER BY i LIMIT {MOST_CHANGES + 1}"
    )
    found = [(int(at), _result(text, kind)) for at, text, kind in _computed(node, sql, [])]
    if len(found) > MOST_CHANGES:
        message = f"{node.sql(dialect='duckdb')[:60]} has more than {MOST_CHANGES:,} results{sql_position(node)}"
        raise SqlError(
            message, "take wider buckets, such as FLOOR(x / 100), or conditions: CASE WHEN x < 5 THEN ... END"
        )
    return found


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


def _computed(node: exp.Expr, sql: str, parameters: Sequence[Any]) -> list[Any]:
    shown = f"{node.sql(dialect='duckdb')[:60]}"
    seconds = min(SECONDS, _until.get() - time.monotonic())
    if seconds <= 0:
        message = f"the expressions of a question take more than {SECONDS_IN_ALL:g} s to compute{sql_position(node)}"
        raise SqlError(message, "ask simpler conditions, or fewer")
    try:
        with duckdb.connect(config=dict(_CONFIG)) as database, interrupted_after(database, seconds):
            return database.execute(sql, parameters).fetchall()
    except duckdb.InterruptException as err:
        raise SqlError(f"{shown} takes too long to compute{sql_position(node)}", "ask a simpler expression") from err
    except duckdb.Error as err:
        raise SqlError(f"{shown} cannot be computed{sql_position(node)}: {reason_of(err)}", HINT) from err


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
