"""Parse one question; errors name the position of the invalid or unsupported part."""

import logging
import re
from collections.abc import Sequence

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from analyst.errors import SqlError

SUPPORTED = (
    "supported: SELECT dimensions and COUNT(*), COUNT(col), SUM(col), AVG(col), VAR_* and STDDEV_*(col),"
    " COVAR_*, CORR and REGR_*(col, col) FROM one table WHERE comparisons, IN, BETWEEN, LIKE, IS NULL, AND, OR, NOT"
    " GROUP BY dimensions, CASE, buckets such as x // 10; and whatever is computed from their figures"
)
MAX_CHARACTERS = 20_000  # of all statements
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
    except (TokenError, RecursionError) as err:
        hint = "end a text with a single quote, a name with a double one, and /* with */"
        raise SqlError("broken SQL: a quote or comment is not closed, or it is nested too deeply", hint) from err
    if not statements:
        raise SqlError("the question is empty", SUPPORTED)
    if len(statements) > 1:
        raise SqlError(f"{len(statements)} statements, where one question is read", SUPPORTED)
    statement = statements[0]
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
