"""Plan a script: one statement, or several as one request, with a table of the answer for each.

Promise: each statement is read as if it stood alone; an error says which one it is in, and where in the whole text. A
UNION ALL of questions becomes one statement for each, whose rows stand below each other in one table of the answer.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from analyst.errors import SqlError
from analyst.sql.draft import Planned, Script
from analyst.sql.evaluation import bounded
from analyst.sql.limits import too_large_refused
from analyst.sql.offer import Offer
from analyst.sql.parse import MAX_CHARACTERS, parse, sql_position
from analyst.sql.places import placed
from analyst.sql.plan import plan_of
from policies.requests.statements import MAX_STATEMENTS, MAX_WEIGHT, Statements
from policies.requests.tables import Table

T = TypeVar("T")
_BLANK = re.compile(r"[^\n]")


def statements_of(sql: str) -> tuple[Sequence[sqlglot.Token], ...]:
    """Return the tokens of each statement of a text, at their places; a statement without any is none. Raises SqlError.

    Of a text that holds one statement, or that cannot be divided, it returns no tokens.
    """
    if len(sql) > MAX_CHARACTERS:
        return ((),)  # to be refused
    try:
        tokens = sqlglot.tokenize(sql, dialect="duckdb")
    except SqlglotError:
        return ((),)
    found = [list[sqlglot.Token]()]
    for token in tokens:
        if token.token_type.name == "SEMICOLON":
            found.append([])
        else:
            found[-1].append(token)
    statements = tuple(one for one in found if one)
    if len(statements) < 2:
        return ((),)
    if len(statements) > MAX_STATEMENTS:
        message = f"{len(statements):,} statements, one request has at most {MAX_STATEMENTS}"
        raise SqlError(message, "ask the others in a second request")
    return statements


def texts_of(sql: str) -> tuple[str, ...]:
    """Return each statement of a text at its place: the text, in which all other statements are blanks."""
    spans = [(found[0].start, found[-1].end + 1) for found in statements_of(sql) if found] or [(0, len(sql))]
    return tuple(f"{_BLANK.sub(' ', sql[:first])}{sql[first:end]}{_BLANK.sub(' ', sql[end:])}" for first, end in spans)


def queries_of(sql: str) -> tuple[exp.Query, ...]:
    """Return each statement of a text, parsed; raises SqlError, which says in which statement it is broken."""
    found = statements_of(sql)
    return tuple(_located(place, len(found), partial(parse, sql, tokens)) for place, tokens in enumerate(found, 1))


def _located(place: int, count: int, read: Callable[[], T]) -> T:
    """Return what is read of a statement; an error of one of several says which one it is."""
    try:
        return read()
    except SqlError as err:
        if count == 1:
            raise
        raise SqlError(f"statement {place} of {count}: {err.message}", err.hint) from err


def script(sql: str, offer: Offer, counts_cut: bool = False, weights: Sequence[int] = ()) -> Script:
    """Return the plan of all statements of a text, as `analyst.sql.plan.plan` plans each; raises SqlError."""
    queries, texts = queries_of(sql), texts_of(sql)
    found, tables = list[Planned](), list[tuple[int, ...]]()
    with bounded():
        for place, (query, text) in enumerate(zip(queries, texts, strict=True), 1):
            planned = _located(place, len(queries), partial(_planned, query, text, offer, counts_cut))
            tables.append(tuple(range(len(found), len(found) + len(planned))))
            found += planned
            _check_table(found, [place for place, of in enumerate(tables, 1) for _ in of])
    if weights and (len(weights) != len(queries) or not all(1 <= weight <= MAX_WEIGHT for weight in weights)):
        given, most = ",".join(map(str, weights)), f"{MAX_WEIGHT:,}"
        hint = f"give as many whole numbers from 1 to {most} as there are statements, such as --weights 2,1,1"
        raise SqlError(f"the weights {given} are not those of {len(queries)} statements", hint)
    if len(found) == 1:
        return Script.of(found[0])
    if len(found) > MAX_STATEMENTS:
        message = f"{len(found)} questions, one request has at most {MAX_STATEMENTS}"
        raise SqlError(message, "ask the others in a second request")
    plans = tuple(one.plan for one in found)
    plan = Statements(plans=plans, weights=_weights(weights, tables))
    table = _united(found)
    return Script(table, plan, tuple(replace(one, table=table) for one in found), tuple(tables))


def _planned(query: exp.Query, sql: str, offer: Offer, counts_cut: bool) -> list[Planned]:
    try:
        with too_large_refused():
            return [plan_of(one, offer, counts_cut) for one in _branches(query)]
    except SqlError as err:
        raise placed(err, sql) from err


def _check_table(found: Sequence[Planned], places: Sequence[int]) -> None:
    """Raise SqlError unless all statements so far are about one table."""
    first, last = found[0].table.name, found[-1].table.name
    if first != last:
        if len(set(places)) == 1:
            message = f"UNION ALL of questions about {first!r} and {last!r} is not supported"
            raise SqlError(message, "ask about each table in a request of its own, and compare the answers")
        message = f"statement {places[-1]} is about {last!r}, and statement {places[0]} about {first!r}"
        raise SqlError(message, f"one request is about one table: ask about {last!r} in a second one")


def _united(found: Sequence[Planned]) -> Table:
    """Return the definition of the table that all statements read, with the columns of each."""
    first = found[0].table
    columns = {column.name: column for one in found for column in one.table.columns}
    if any(one.table.beside != first.beside for one in found):
        raise SqlError("the statements join different tables", "ask in a second request what joins other tables")
    return first.model_copy(update={"columns": tuple(columns.values())})


def _weights(weights: Sequence[int], tables: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the weight of each question; those of a union share the weight of their statement equally."""
    if not weights and len({len(of) for of in tables}) == 1:
        return ()
    whole, given = 1, weights or [1] * len(tables)
    for of in tables:
        whole = whole if whole % len(of) == 0 else whole * len(of)
    found = tuple(weight * whole // len(of) for weight, of in zip(given, tables, strict=True) for _ in of)
    if max(found) > MAX_WEIGHT:
        raise SqlError("the weights of a UNION ALL cannot be divided among its questions", "give smaller --weights")
    return found


def _branches(query: exp.Query) -> list[exp.Query]:
    """Return the questions of a UNION ALL of several; of any other query, and of readings of one question, itself."""
    ctes = {cte.alias for cte in query.find_all(exp.CTE)}
    tables = [one for one in query.find_all(exp.Table) if one.name not in ctes]
    if not isinstance(query, exp.Union) or len(tables) < 2 or any(one.args.get("joins") for one in _selects(query)):
        return [query]
    for union in _unions(query):
        if union.args.get("distinct"):
            hint = "write UNION ALL: the rows of noisy figures are hardly ever the same"
            raise SqlError(f"UNION of two questions is not supported{sql_position(query)}", hint)
        if any(union.args.get(clause) for clause in ("order", "limit", "offset", "by_name")):
            hint = "leave it out, or order the rows of each question: (SELECT ... ORDER BY ...) UNION ALL (SELECT ...)"
            raise SqlError(
                f"ORDER BY and LIMIT of a UNION ALL of questions are not supported{sql_position(query)}", hint
            )
    found = [_with(one, query.args.get("with_")) for one in _leaves(query)]
    for star in (column for one in found for column in one.expressions if column.find(exp.Star)):
        if not star.find(exp.Count):
            raise SqlError(f"SELECT * in a UNION ALL of questions{sql_position(star)}", "name the columns")
    counts = [len(one.expressions) for one in found]
    if len(set(counts)) > 1:
        message = f"the questions of a UNION ALL have {' and '.join(map(str, counts))} columns{sql_position(query)}"
        raise SqlError(message, "give all of them the same columns, such as 'all' AS sex for a row of the total")
    names = [one.alias_or_name or f"column_{place}" for place, one in enumerate(found[0].expressions, 1)]
    for later in found[1:]:  # whose own names do not count
        for name, one in zip(names, list(later.expressions), strict=True):
            if not isinstance(one, exp.Alias | exp.Column):
                one.replace(exp.alias_(one.copy(), name, quoted=True))
    return found


def _unions(query: exp.Expr) -> Iterator[exp.Union]:
    if isinstance(query, exp.Union):
        yield query
        for side in (query.left, query.right):
            yield from _unions(side)


def _leaves(query: exp.Expr) -> Iterator[exp.Query]:
    if isinstance(query, exp.Union):
        for side in (query.left, query.right):
            yield from _leaves(side)
    elif isinstance(query, exp.Query):
        inner = query.unnest()
        yield inner if isinstance(inner, exp.Query) else query


def _selects(query: exp.Query) -> Iterator[exp.Select]:
    return (one for one in _leaves(query) if isinstance(one, exp.Select))


def _with(query: exp.Query, ctes: object) -> exp.Query:
    """Return a question of a union by itself, with those of the union's CTEs that it reads."""
    found = query.copy()
    if not isinstance(ctes, exp.With):
        return found
    kept, known = ctes.copy(), {one.name for one in found.find_all(exp.Table)}
    for cte in reversed(list(kept.expressions)):
        if cte.alias in known:
            known |= {one.name for one in cte.find_all(exp.Table)}
        else:
            cte.pop()
    if kept.expressions:
        found.set("with_", kept)
    return found
