"""Where in a question the thing stands that a refusal names, also where it was found after the text was taken apart.

Pure. An error that has its place keeps it. Else the first word of the text is looked for that the message names: a
function, a name in quotes, a clause; what stands inside a text in quotes or a comment is none.
"""

import re
from collections.abc import Iterable, Iterator

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.parse import parse, sql_position

_PLACED = re.compile(r" at line \d+, column \d+")
_HIDDEN = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_TWICE = re.compile(r"is used twice|names .* twice")


def placed(error: SqlError, sql: str, node: exp.Expr | None = None) -> SqlError:
    """Return an error whose message says where in the question it is, if that can be found.

    `node` is the part of the question's rest that failed; its place is that of the first such part of the question.
    """
    if _PLACED.search(error.message) or "\n" in error.message:  # as where silos define a table in several ways
        return error
    where = _place_of(node, sql) if node is not None else ""
    where = where or _found(error.message, sql) or _renamed(error.message, sql)
    head, colon, rest = error.message.partition(": ")
    return SqlError(f"{head}{where}{colon}{rest}", error.hint)


def _renamed(message: str, sql: str) -> str:
    """Return the place of a function that is written otherwise in the question, as DuckDB has many names for some."""
    name = re.match(r"(\w+)(?:\(.*)? is not supported|what is computed after the answer fails", message)
    if name is None:
        return ""
    try:
        query = parse(sql)
    except SqlError:
        return ""
    called = [one for one in query.find_all(exp.Func) if one.sql(dialect="duckdb").upper().startswith(f"{name[1]}(")]
    for node in called:
        for text in (*type(node).sql_names(), node.key):
            if found := _search([rf"\b{text}\s*\("], sql):
                return found
    computed = [one for one in query.selects if not isinstance(one.unalias(), exp.Column)]
    return next((place for one in (*called, *computed, query) if (place := sql_position(one))), "")


def _place_of(node: exp.Expr, sql: str) -> str:
    """Return the place of the first part of a question that is the same function or operator."""
    try:
        found = [one for one in parse(sql).find_all(type(node), bfs=False) if _named(one) == _named(node)]
    except SqlError:
        return ""
    return next((place for one in found if (place := sql_position(one))), "")


def _named(node: exp.Expr) -> str:
    return str(node.this).casefold() if isinstance(node, exp.Anonymous) else node.key


def _found(message: str, sql: str) -> str:
    return _search(_patterns(message), sql, is_second=_TWICE.search(message) is not None)


def _search(patterns: Iterable[str], sql: str, is_second: bool = False) -> str:
    """Return the place of the first match, or the second one, of the first of these patterns that has any."""
    shown = _HIDDEN.sub(lambda found: " " * len(found[0]), sql)
    for pattern in patterns:
        matches = list(re.finditer(pattern, shown, re.IGNORECASE))
        if matches:
            before = shown[: matches[:2][-1 if is_second else 0].start()].split("\n")
            return f" at line {len(before)}, column {len(before[-1]) + 1}"
    return ""


def _patterns(message: str) -> Iterator[str]:
    """Yield what to look for, the surest first."""
    for name in re.findall(r"\b([A-Za-z_]\w*)(?:\(| is not supported)", message):
        yield rf"\b{name}\s*\("
    for name in re.findall(r"'([^']+)'", message):
        yield rf"(?<!\w){re.escape(name)}(?!\w)"
    for name in re.findall(r"\b(?!SELECT\b)[A-Z][A-Z_]{2,}\b", message):
        yield rf"\b{name}\b"
