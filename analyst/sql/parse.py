"""Parse one question; errors name the position of the invalid or unsupported part.

Promise: what is parsed is nested so little that whatever walks it ends, and its numbers have so few digits that exact
arithmetic with them is quick.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from analyst.errors import SqlError

SUPPORTED = (
    "supported: SELECT dimensions and COUNT(*), COUNT(col), SUM(col), AVG(col), COUNT(DISTINCT person), MEDIAN and"
    " QUANTILE_CONT, VAR_* and STDDEV_*(col), COVAR_*, CORR and REGR_*(col, col), HISTOGRAM, SURVIVAL, FROM one table"
    " or tables joined on the person WHERE comparisons, IN, BETWEEN, LIKE, IS NULL, AND, OR, NOT"
    " GROUP BY dimensions, CASE, buckets such as x // 10; and whatever is computed from their figures"
)
MAX_CHARACTERS = 20_000  # of all statements
MAX_DEPTH = 128  # of a statement's tree, in which a chain of n ANDs is n deep
_MOST_WRITTEN = 5_000  # nodes of an expression once each CASE x WHEN, NULLIF and BETWEEN repeats what it compares
_MOST_PLACES = 400  # before or after the point of a number
_EXPONENT = re.compile(r"[eE][+-]?0*(\d*)$")
_OPENING, _CLOSING = frozenset({"(", "[", "CASE"}), frozenset({")", "]", "END"})
_PREFIXES = frozenset({"NOT", "-", "+", "~"})
# What opens a question of another kind or of another dialect, and what to write instead.
_ELSEWHERE = {
    "EXPLAIN": "`consilo explain` shows what a question computes, and `consilo query --preview` what it costs",
    **dict.fromkeys(("DESCRIBE", "SHOW", "SUMMARIZE"), "`consilo silos` shows the tables and their columns"),
}
_DIALECT = (
    (re.compile("`"), 'a name stands in double quotes, as in "sex"'),
    (re.compile(r"\bSELECT\s+TOP\b", re.IGNORECASE), "write LIMIT at the end of the question, as in LIMIT 3"),
)
_DUCKDB = sqlglot.Dialect.get_or_raise("duckdb")
logging.getLogger("sqlglot").setLevel(logging.CRITICAL)  # an error is one line and one hint, without its warnings
_FOREIGN = re.compile(r"\d,\d|0[xXbBoO]\w")  # a number with a decimal comma, or not in decimal digits
_NUMBERS = "write numbers in decimal digits, with a point, such as 70.5 or 16"


def parse(sql: str, tokens: Sequence[sqlglot.Token] = ()) -> exp.Query:
    """Return the one query in `sql`, or of several statements there the one with these tokens; raises SqlError."""
    if len(sql) > MAX_CHARACTERS:
        raise SqlError(f"the question has {len(sql)} characters, at most {MAX_CHARACTERS} are read", "shorten it")
    try:
        read = _DUCKDB.parser().parse(list(tokens), sql) if tokens else sqlglot.parse(sql, dialect="duckdb")
        # A comment after the last mark is read as a statement of its own.
        statements = [one for one in read if one is not None and not isinstance(one, exp.Semicolon)]
    except ParseError as err:
        detail = err.errors[0] if err.errors else {}
        token = str(detail.get("highlight") or "")
        column = max(1, detail.get("col", 1) - len(token) + 1)  # sqlglot gives the token's end
        where = f" at line {detail['line']}, column {column}" if detail.get("line") else ""
        near = f" near {token!r}" if token else ""
        line = sql.split("\n")[detail.get("line", 1) - 1 :][:1]
        is_mark = bool(line) and _FOREIGN.search(line[0][max(0, column - 3) : column + 1]) is not None
        found = next((hint for mark, hint in _DIALECT if mark.search(sql)), SUPPORTED)
        raise SqlError(f"broken SQL{where}{near}", _NUMBERS if is_mark else found) from err
    except TokenError as err:
        hint = "end a text with a single quote, a name with a double one, and /* with */"
        raise SqlError("broken SQL: a quote or comment is not closed", hint) from err
    except RecursionError as err:
        raise _nested(tokens or sqlglot.tokenize(sql, dialect="duckdb")) from err
    if not statements:
        raise SqlError("the question is empty", SUPPORTED)
    if len(statements) > 1:
        raise SqlError(f"{len(statements)} statements, where one question is read", SUPPORTED)
    statement = statements[0]
    check_extent(statement)
    if not isinstance(statement, exp.Select | exp.SetOperation):
        if isinstance(statement, exp.DML | exp.DDL | exp.Drop | exp.Alter | exp.TruncateTable):
            raise unsupported(
                statement,
                f"{statement.sql(dialect='duckdb').split()[0].upper()} is not supported: nothing can be written",
            )
        word = tokens[0].text if tokens else sql.split()[0]
        if (instead := _ELSEWHERE.get(word.upper())) is not None:
            raise SqlError("the question does not begin with SELECT", instead)
        raise unsupported(statement, "the question does not begin with SELECT")
    for count in statement.find_all(exp.Count):
        if isinstance(count.this, exp.Literal):  # COUNT(1) counts rows, as in SQL
            count.set("this", exp.Star())
    for total in statement.find_all(exp.Sum):
        if isinstance(total.this, exp.Literal) and total.this.sql() == "1":  # so does SUM(1)
            count = exp.Count(this=exp.Star())
            count.meta.update(total.meta)
            total.replace(count)
    return statement


def _nested(tokens: Sequence[sqlglot.Token]) -> SqlError:
    """Return the error for what is nested too deeply to be parsed, with the place where it is nested most."""
    opened = run = most = 0
    place = ""
    for token in tokens:
        word = token.text.upper()
        run = run + 1 if word in _PREFIXES else 0
        opened += (word in _OPENING) - (word in _CLOSING)
        if opened + run > most:
            most = opened + run
            place = f" at line {token.line}, column {max(1, token.col - (token.end - token.start))}"
    what = f"{most} brackets, CASE or NOT inside each other" if most > 1 else "too many parts inside each other"
    return SqlError(f"the question is nested too deeply: {what}{place}", "take brackets off, or ask simpler parts")


def check_extent(statement: exp.Expr) -> None:
    """Raise SqlError for a statement that is nested too deeply, or that has a number beyond all that is read."""
    pending, walked = [(statement, 1)], list[exp.Expr]()
    while pending:
        node, depth = pending.pop()
        walked.append(node)
        if depth > MAX_DEPTH:
            raise _chained(node)
        if isinstance(node, exp.Literal) and not node.is_string:
            _check_places(node)
        pending += [(child, depth + 1) for child in node.iter_expressions()]
    _check_written(walked)


def _check_written(nodes: Sequence[exp.Expr]) -> None:
    """Raise SqlError where what is compared is repeated too often, as databases do; a parent stands before its parts.

    Without it, each CASE x WHEN inside another one multiplies what is computed.
    """
    sizes = dict[int, int]()
    for node in reversed(nodes):
        size = 1 + sum(sizes[id(one)] for one in node.iter_expressions())
        compared = node.args.get("this")
        if isinstance(node, exp.Case | exp.Nullif | exp.Between) and isinstance(compared, exp.Expr):
            size += sizes[id(compared)] * (len(node.args["ifs"]) if isinstance(node, exp.Case) else 1)
            if size > _MOST_WRITTEN:
                message = f"{node.key.upper()} compares too large a part{sql_position(node)}: written out, it has"
                raise SqlError(
                    f"{message} more than {_MOST_WRITTEN:,} parts", "compare a column, or a short expression"
                )
        sizes[id(node)] = size


def _chained(node: exp.Expr) -> SqlError:
    """Return the error for a node that is too deep, which names what it is most often inside of."""
    around, parent = list[exp.Expr](), node.parent
    while parent is not None:
        around.append(parent)
        parent = parent.parent
    kind = Counter(type(one) for one in around if not isinstance(one, exp.Paren)).most_common(1)[0][0]
    first = next(one for one in reversed(around) if type(one) is kind)
    hint = "ask for less at once, or compute it in steps: WITH t AS (SELECT ...) SELECT ... FROM t"
    if issubclass(kind, exp.SetOperation):
        hint = "ask the others in a second request"
    elif issubclass(kind, exp.Connector):
        hint = "ask fewer conditions at once; a list of values is x IN (1, 2, 3)"
    message = f"the question is nested too deeply: more than {MAX_DEPTH} parts inside each other, most of them"
    return SqlError(f"{message} {kind.key.upper()}{sql_position(first)}", hint)


def _check_places(node: exp.Literal) -> None:
    """Raise SqlError for a number whose digits, once written out, are too many to compute with."""
    text = str(node.this)
    exponent = _EXPONENT.search(text)
    places = exponent[1] if exponent is not None else ""
    if len(text) > _MOST_PLACES or len(places) > len(str(_MOST_PLACES)) or int(places or 0) > _MOST_PLACES:
        shown = text if len(text) <= 60 else f"{text[:40]}..."
        hint = "write a number in digits, with up to 18 before the point and 9 after it"
        raise SqlError(f"{shown} is too large or too fine a number{sql_position(node)}", hint)


def unsupported(node: exp.Expr, message: str) -> SqlError:
    """Return an error with `message` and the position of `node` in the text."""
    return SqlError(f"{message}{sql_position(node)}", SUPPORTED)


def sql_position(node: exp.Expr) -> str:
    """Return ` at line L, column C` of the first token that sqlglot located in `node`, or nothing."""
    found = [
        (inner.meta["line"], inner.meta["col"] - (inner.meta["end"] - inner.meta["start"]))
        for inner in node.walk()
        if {"line", "col", "start", "end"} <= set(inner.meta)
    ]
    return " at line {}, column {}".format(*min(found)) if found else ""
