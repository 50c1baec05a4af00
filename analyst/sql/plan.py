"""From a parsed question to a plan: a tuple of named rules, each reading one part of the statement.

A rule takes the statement and what the silos offer and returns a changed draft; the first that cannot raises SqlError
with the place in the text. `tests/plans/` holds pairs of question and plan.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from pydantic import ValidationError
from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.catalogue import Offer, suggest
from analyst.sql.parse import parse, place, unsupported
from policies.request import (
    Aggregate,
    Both,
    Compare,
    Either,
    IsNull,
    Not,
    OneOf,
    Plan,
    Predicate,
    Table,
    TableColumn,
    is_number,
    uses,
)

_OPERATORS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_FLIPPED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_READ_CLAUSES = {"expressions", "from_", "where", "group"}


@dataclass(frozen=True, slots=True)
class Draft:
    """A plan in the making."""

    table: str = ""
    group_by: tuple[str, ...] = ()
    aggregates: tuple[Aggregate, ...] = ()
    where: Predicate | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A question ready to be signed; `output` is the order of its columns."""

    table: Table
    plan: Plan
    output: tuple[str, ...]
    names: dict[str, str]  # output name of each dimension, by column


def plan(sql: str, offer: Offer) -> Planned:
    """Return the plan of a question over what the silos offer; raises SqlError."""
    statement = parse(sql)
    draft = Draft()
    try:
        for rule in RULES:
            draft = rule(statement, draft, offer)
        finished = Plan(where=draft.where, group_by=draft.group_by, aggregates=draft.aggregates)
    except ValidationError as err:  # a part that is beyond what the wire carries
        first = err.errors(include_url=False, include_input=False)[0]
        part = ".".join(str(key) for key in first["loc"])
        raise SqlError(f"the question is too large: {part}: {first['msg'][:200]}", "ask for less at once") from err
    used = [name for names in uses(finished).values() for name in names]
    names = {_column(projection).name: projection.alias_or_name for projection in _dimensions(statement)}
    output = tuple(_output_name(projection) for projection in statement.expressions)
    if len(set(output)) != len(output):
        raise SqlError("an output name is used twice", "give each aggregate its own name with AS")
    return Planned(offer.table(draft.table, used), finished, output, names)


def known_clauses(statement: exp.Select, draft: Draft, offer: Offer) -> Draft:
    """Refuse every clause that the plan has no room for."""
    for clause, node in statement.args.items():
        if node and clause not in _READ_CLAUSES:
            inner = node[0] if isinstance(node, list) else node
            name = {"with_": "WITH", "joins": "JOIN", "order": "ORDER BY", "windows": "WINDOW"}.get(
                clause, clause.upper()
            )
            raise unsupported(inner if isinstance(inner, exp.Expr) else statement, f"{name} is not supported")
    for node in statement.find_all(exp.Subquery, exp.Window, exp.Select):
        if node is not statement:
            raise unsupported(node, f"a {'window' if isinstance(node, exp.Window) else 'subquery'} is not supported")
    return draft


def one_table(statement: exp.Select, draft: Draft, offer: Offer) -> Draft:
    """FROM names one table that a silo opens."""
    source = statement.args.get("from_")
    table = source.this if source is not None else None
    extras = [key for key, value in table.args.items() if value and key != "this"] if table is not None else []
    if not isinstance(table, exp.Table) or extras:
        node = table if isinstance(table, exp.Expr) else statement
        raise unsupported(node, "FROM must name one table, without alias or schema")
    if table.name not in offer.tables:
        raise SqlError(f"unknown table {table.name!r}{place(table)}", suggest(table.name, offer.tables))
    return replace(draft, table=table.name)


def dimensions(statement: exp.Select, draft: Draft, offer: Offer) -> Draft:
    """GROUP BY columns with a closed domain; every other selected column is an aggregate."""
    group = statement.args.get("group")
    if group is not None and any(group.args.get(key) for key in ("all", "rollup", "cube", "grouping_sets", "totals")):
        raise unsupported(group, "GROUP BY ALL, ROLLUP, CUBE and GROUPING SETS are not supported; name the columns")
    aliases = {projection.alias: projection.this for projection in statement.expressions if projection.alias}
    keys = []
    for node in group.expressions if group is not None else []:
        target = aliases.get(node.name, node) if isinstance(node, exp.Column) else node
        if not isinstance(target, exp.Column):
            raise unsupported(node, "GROUP BY takes columns only")
        column = _define(target, draft.table, offer)
        if not column.domain:
            others = [name for name in offer.columns(draft.table) if offer.column(draft.table, name).domain]
            hint = f"columns with a domain: {', '.join(others) or 'none'}"
            raise SqlError(f"cannot group by {column.name!r}{place(node)}: no policy gives it a closed domain", hint)
        keys.append(column.name)
    if len(set(keys)) != len(keys):
        raise unsupported(group or statement, "GROUP BY names a column twice")
    for projection in _dimensions(statement):
        name = _column(projection).name
        if name not in keys:
            _define(_column(projection), draft.table, offer)
            raise SqlError(
                f"column {name!r}{place(projection)} is neither grouped by nor aggregated",
                f"add GROUP BY {name}, or aggregate it: rows never leave a silo",
            )
    return replace(draft, group_by=tuple(keys))


def aggregates(statement: exp.Select, draft: Draft, offer: Offer) -> Draft:
    """COUNT, SUM and AVG of columns that have bounds."""
    found = []
    for projection in statement.expressions:
        node = projection.unalias()
        if isinstance(node, exp.Column) and not isinstance(node.this, exp.Star):
            continue
        if isinstance(node, exp.Star) or (isinstance(getattr(node, "this", None), exp.Star) and not _function(node)):
            raise unsupported(node, "SELECT * is not supported, rows never leave a silo")
        function = _function(node)
        if not function:
            raise unsupported(node, f"{node.sql(dialect='duckdb')[:60]} is not supported")
        argument = node.this
        if isinstance(argument, exp.Distinct) or node.expressions:
            raise unsupported(node, f"{function.upper()} takes one plain column")
        column: str | None = None
        if isinstance(argument, exp.Star) and any(argument.args.values()):
            raise unsupported(node, "COUNT(*) takes no EXCLUDE, REPLACE or RENAME")
        if not (function == "count" and isinstance(argument, exp.Star)):
            if not isinstance(argument, exp.Column) or isinstance(argument.this, exp.Star):
                raise unsupported(node, f"{function.upper()} takes one plain column")
            column = _measure(argument, draft.table, offer).name
        found.append(Aggregate(function=function, column=column, alias=_output_name(projection)))  # type: ignore[arg-type]
    if not found:
        raise SqlError("the question has no aggregate", "add COUNT(*), SUM(col) or AVG(col): rows never leave a silo")
    return replace(draft, aggregates=tuple(found))


def filters(statement: exp.Select, draft: Draft, offer: Offer) -> Draft:
    """WHERE, with every literal read by its column's type."""
    where = statement.args.get("where")
    return draft if where is None else replace(draft, where=_predicate(where.this, draft.table, offer))


Rule = Callable[[exp.Select, Draft, Offer], Draft]
RULES: tuple[Rule, ...] = (known_clauses, one_table, dimensions, aggregates, filters)


def _function(node: exp.Expr) -> str:
    kinds: dict[type[exp.Expr], str] = {exp.Count: "count", exp.Sum: "sum", exp.Avg: "avg"}
    return kinds.get(type(node), "")


def _dimensions(statement: exp.Select) -> list[exp.Expr]:
    return [
        projection
        for projection in statement.expressions
        if isinstance(projection.unalias(), exp.Column) and not isinstance(projection.unalias().this, exp.Star)
    ]


def _column(projection: exp.Expr) -> exp.Column:
    node = projection.unalias()
    if not isinstance(node, exp.Column):
        raise unsupported(node, "a plain column is expected here")
    return node


def _output_name(projection: exp.Expr) -> str:
    if projection.alias:
        return str(projection.alias)
    node = projection.unalias()
    if isinstance(node, exp.Column):
        return str(node.name)
    argument = "star" if isinstance(node.this, exp.Star) else str(node.this.name)
    return f"{_function(node)}_{argument}"


def _define(node: exp.Column, table: str, offer: Offer) -> TableColumn:
    if node.args.get("db") or (node.table and node.table != table):
        named = ".".join(part.name for part in node.parts[:-1])
        raise SqlError(f"unknown table {named!r}{place(node)}", f"the question is about {table!r}")
    columns = offer.columns(table)
    if node.name not in columns:
        raise SqlError(f"unknown column {node.name!r}{place(node)}", suggest(node.name, columns))
    return offer.column(table, node.name)


def _measure(node: exp.Column, table: str, offer: Offer) -> TableColumn:
    column = _define(node, table, offer)
    if column.type in ("string", "date"):
        held = "text" if column.type == "string" else "dates"
        raise SqlError(f"cannot aggregate {column.name!r}{place(node)}: it holds {held}", "COUNT(*) counts rows")
    if column.step is None:
        raise SqlError(f"cannot aggregate {column.name!r}{place(node)}: no policy gives it bounds", "choose a measure")
    return column


def _predicate(node: exp.Expr, table: str, offer: Offer) -> Predicate:
    match node:
        case exp.Paren():
            return _predicate(node.this, table, offer)
        case exp.And() | exp.Or():
            operands = tuple(_predicate(operand, table, offer) for operand in node.flatten())
            return Both(operands=operands) if isinstance(node, exp.And) else Either(operands=operands)
        case exp.Not():
            return Not(operand=_predicate(node.this, table, offer))
        case exp.Is(this=exp.Column() as target, expression=exp.Null()):
            return IsNull(column=_define(target, table, offer).name)
        case exp.Between(this=exp.Column() as target) if not node.args.get("symmetric"):
            column = _define(target, table, offer)
            low, high = _literal(node.args["low"], column), _literal(node.args["high"], column)
            return Both(
                operands=(
                    Compare(column=column.name, op=">=", value=low),
                    Compare(column=column.name, op="<=", value=high),
                )
            )
        case exp.In(this=exp.Column() as target) if node.expressions:
            column = _define(target, table, offer)
            return OneOf(column=column.name, values=tuple(_literal(value, column) for value in node.expressions))
        case exp.Column():
            column = _define(node, table, offer)
            if column.type != "bool":
                raise unsupported(node, f"{column.name!r} is no condition: compare it with something")
            return Compare(column=column.name, op="=", value="true")
        case exp.EQ() | exp.NEQ() | exp.LT() | exp.LTE() | exp.GT() | exp.GTE():
            return _comparison(node, _OPERATORS[type(node)], table, offer)
    raise unsupported(node, f"{node.sql(dialect='duckdb')[:60]} is not supported in WHERE")


def _comparison(node: exp.Expr, operator: str, table: str, offer: Offer) -> Predicate:
    left, right = node.args["this"], node.args["expression"]
    if not isinstance(left, exp.Column) and isinstance(right, exp.Column):
        left, right, operator = right, left, _FLIPPED[operator]
    if not isinstance(left, exp.Column):
        raise unsupported(node, "a comparison needs a column on one side and a literal on the other")
    column = _define(left, table, offer)
    if isinstance(right, exp.Null):
        raise unsupported(node, "nothing compares with NULL; use IS NULL or IS NOT NULL")
    return Compare(column=column.name, op=operator, value=_literal(right, column))  # type: ignore[arg-type]


def _literal(node: exp.Expr, column: TableColumn) -> str:
    """Return a literal as the wire writes it, after checking that it is of the column's type and domain."""
    text = node.this.this if isinstance(node, exp.Neg) and isinstance(node.this, exp.Literal) else node.name
    kind = "text"
    if isinstance(node, exp.Neg) and isinstance(node.this, exp.Literal) and not node.this.is_string:
        text, kind = f"-{text}", "number"
    elif isinstance(node, exp.Boolean):
        text, kind = str(bool(node.this)).lower(), "bool"
    elif isinstance(node, exp.Literal):
        kind = "text" if node.is_string else "number"
    else:
        raise unsupported(node, f"{node.sql(dialect='duckdb')[:60]} is no literal")
    expected = {"string": "text", "bool": "bool", "date": "text"}.get(column.type, "number")
    if kind != expected or (kind == "number" and not is_number(text)):
        raise SqlError(
            f"column {column.name!r} compares with a {expected}, found {node.sql(dialect='duckdb')[:60]}{place(node)}",
            f"write a {expected} literal",
        )
    if column.type in ("string", "date") and column.domain and text not in column.domain:
        known = column.domain if column.type == "string" else (*column.domain[:1], "...", *column.domain[-2:])
        raise SqlError(f"{text!r} is not in the domain of {column.name!r}{place(node)}", suggest(text, known))
    return str(text)
