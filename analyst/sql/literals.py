"""The literals of WHERE, each read by its column's type; a refusal says which literal to write instead.

Promise: a literal is planned only if it means exactly what is written, and what a hint proposes is accepted.
"""

import re
from decimal import ROUND_FLOOR, Decimal

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.nodes import in_digits
from analyst.sql.offer import suggest
from analyst.sql.parse import sql_position, unsupported
from policies.periods import span
from policies.requests.tables import MAX_DECIMALS, MAX_DIGITS, TableColumn, is_number

_KINDS = {"string": "text", "bool": "bool", "date": "text"}  # of the literal by the column's type; otherwise a number
_LEAST = Decimal(1).scaleb(-MAX_DECIMALS)
_NUMBER = "write a number in digits, such as 18 or 70.5, without quotes"


def literal(node: exp.Expr, column: TableColumn, op: str) -> str:
    """Return a literal in the wire's form; raises SqlError if the column cannot compare with it by `op`."""
    kind, text = _written(node, column)
    expected = _KINDS.get(column.type, "number")
    shown, place = node.sql(dialect="duckdb")[:60], sql_position(node)
    if not kind and column.type != "date":
        hint = _number_hint(text, column, op) if text and expected == "number" else ""
        if isinstance(node, exp.Placeholder | exp.Parameter):
            hint = "write the value itself in its place"
        if isinstance(node, exp.Column) and expected == "text":
            hint = f"a text stands in single quotes, as in {exp.Literal.string(node.name).sql()}"
        error = unsupported(node, f"{shown} is no literal")
        raise SqlError(error.message, hint) if hint else error
    if kind != expected:
        raise SqlError(
            f"column {column.name!r} compares with a {expected}, found {shown}{place}", _hint(kind, text, column, op)
        )
    if expected == "number":
        return _number(text, column, op, f"{shown}{place}")
    if column.domain and expected == "text" and text not in column.domain:
        raise SqlError(f"{text!r} is not in the domain of {column.name!r}{place}", _hint(kind, text, column, op))
    return text


def _written(node: exp.Expr, column: TableColumn) -> tuple[str, str]:
    """Return the kind of a literal and its text; no kind for what is none, with the text that may be meant."""
    match node:
        case exp.Paren():
            return _written(node.this, column)
        case exp.Neg():
            kind, text = _written(node.this, column)
            negated = text.removeprefix("-") if text.startswith("-") else f"-{text}"
            return (kind, negated) if kind == "number" else ("", "")
        case exp.Boolean():
            return "bool", str(bool(node.this)).lower()
        case exp.Literal():
            return "text" if node.is_string else "number", str(node.this)
        case exp.Cast(this=exp.Literal() as inner):
            is_date = column.type == "date" and inner.is_string  # DATE '2026-09-03'
            return "text" if is_date else "", str(inner.this)
    return "", re.sub(r"\s", "", node.sql(dialect="duckdb")) if column.type == "date" else ""  # 2026-09 is 2026 - 9


def _hint(kind: str, text: str, column: TableColumn, op: str) -> str:
    """Return which literal to write instead of one of another kind, or outside the domain."""
    match column.type:
        case "date":
            return _period_hint(text, column, op)
        case "bool":
            return "write TRUE or FALSE, without quotes"
        case "string":
            is_listed = not column.domain or text in column.domain
            return f"write it in quotes: '{text}'" if is_listed else suggest(text, column.domain)
    return _number_hint(text, column, op) if kind == "text" else _NUMBER


def _number_hint(text: str, column: TableColumn, op: str) -> str:
    """Return how to write the number that a text may mean; a comma before three digits may mean two of them."""
    meant = text.strip()
    if re.fullmatch(r"-?\d+,(\d{1,2}|\d{4,})", meant):
        meant = meant.replace(",", ".")
    try:
        return f"write {_number(meant, column, op, meant)}, without quotes or a cast"
    except SqlError as err:
        return err.hint


def _number(text: str, column: TableColumn, op: str, found: str) -> str:
    """Return a number as the wire writes it; raises SqlError where that would be another one."""
    try:
        value = Decimal(text)
    except ArithmeticError:
        value = Decimal("NaN")
    if not value.is_finite():
        raise SqlError(f"column {column.name!r} compares with a number, found {found}", _NUMBER)
    if value and value.adjusted() >= MAX_DIGITS:
        largest = f"{'-' if value < 0 else ''}{'9' * MAX_DIGITS}"
        raise SqlError(f"a number has up to {MAX_DIGITS} digits, found {found}", f"write {largest}, or leave it out")
    below = value.quantize(_LEAST, ROUND_FLOOR)
    if below != value:
        hint = f"write {in_digits(below)} or {in_digits(below + _LEAST)}"
        raise SqlError(f"a number has up to {MAX_DECIMALS} decimals, found {found}", hint)
    if op in ("=", "<>") and column.type == "int":
        _check_whole(value, column, found)
    return text if is_number(text) else in_digits(below)


def _check_whole(value: Decimal, column: TableColumn, found: str) -> None:
    """Raise SqlError if no cell of an int column can be equal to a number."""
    whole = int(value.to_integral_value(ROUND_FLOOR))
    if column.domain:
        if value == whole and str(whole) in column.domain:
            return
        known = [int(one) for one in column.domain if re.fullmatch(r"-?[0-9]{1,80}", one)]  # a silo wrote them
        below = max((one for one in known if one < value), default=None)
        above = min((one for one in known if one > value), default=None)
        nearest = " or ".join(str(one) for one in (below, above) if one is not None)
        hint = f"write {nearest}" if nearest else "ask the silos' owners for its values"
        raise SqlError(f"not in the domain of {column.name!r}: {found}", hint)
    if value != whole:
        raise SqlError(f"column {column.name!r} has whole numbers, found {found}", f"write {whole} or {whole + 1}")


def _period_hint(text: str, column: TableColumn, op: str) -> str:
    """Return which periods of a date column hold a date or another period, or which there are."""
    known = [one for one in column.domain if one != column.unknown]
    days = span(_label(text))
    if not known:
        return f"the only value is '{column.unknown}'"
    if days is None:
        return f"write a period from '{known[0]}' to '{known[-1]}'" + (
            f", or '{column.unknown}'" if column.unknown else ""
        )
    held = [one for one in known if (own := span(one)) is not None and own[0] <= days[1] and days[0] <= own[1]]
    if not held:
        return f"the periods go from '{known[0]}' to '{known[-1]}'"
    if len(held) == 1:
        return f"write '{held[0]}', the period of column {column.name!r} that holds it"
    match op:
        case "=":
            return f"write {column.name} BETWEEN '{held[0]}' AND '{held[-1]}'"
        case "<>":
            return f"write NOT {column.name} BETWEEN '{held[0]}' AND '{held[-1]}'"
        case ">=" | "<":
            return f"write '{held[0]}', its first period in column {column.name!r}"
    return f"write '{held[-1]}', its last period in column {column.name!r}"


def _label(text: str) -> str:
    """Return the label of the period that a text may mean; a time of day does not count."""
    day = r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})([-/.](?P<day>\d{1,2}))?([ T].*)?"
    found = re.fullmatch(day, text.strip()) or re.fullmatch(
        r"(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})", text.strip()
    )
    if found is None:
        return text.strip().upper()  # 2026-q3
    parts = (found["year"], *(part.zfill(2) for part in (found["month"], found["day"]) if part))
    return "-".join(parts)
