"""Turn a parsed question into a plan, by a tuple of named rules, each of which reads one part of the statement.

A rule takes the statement, the draft and the silos' offer, and returns a changed draft; a rule that does not accept the
statement raises SqlError with the position in the text. `tests/analyst/plans/` has examples of questions and plans.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from pydantic import ValidationError
from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.columns import define, measure
from analyst.sql.draft import PlanDraft, Planned, Rule
from analyst.sql.offer import Offer, suggest
from analyst.sql.parse import parse, sql_position, unsupported
from analyst.sql.persons import by_person, check_joins, is_count_of_persons, is_person
from analyst.sql.predicates import filters
from policies.requests.query import MAX_NAME, Aggregate, Plan, field_names

_READ_CLAUSES = {"expressions", "from_", "where", "group"}
# The aggregates, by sqlglot's class of expression.
_FUNCTIONS: Mapping[type[exp.Expr], str] = MappingProxyType(
    {
        exp.Count: "count",
        exp.Sum: "sum",
        exp.Avg: "avg",
    }
)


def plan(sql: str, offer: Offer, counts_cut: bool = False) -> Planned:
    """Return the plan of a question on the silos' offer; raises SqlError.

    With `counts_cut` the plan also counts the persons whose rows or values bounding cuts.
    """
    statement, seen, draft, inner = parse(sql), offer, PlanDraft(), None
    check_joins(statement, offer)
    persons = by_person(statement, offer)
    if persons is not None:
        statement, seen, inner = persons.outer.assert_is(exp.Select), persons.offer, persons.inner
    try:
        for rule in RULES:
            draft = rule(statement, draft, seen)
        finished = Plan(
            where=draft.where,
            group_by=draft.group_by,
            aggregates=draft.aggregates,
            counts_cut=counts_cut,
            inner=inner,
        )
    except ValidationError as err:  # a part exceeds a limit of the wire
        first = err.errors(include_url=False, include_input=False)[0]
        part = ".".join(str(key) for key in first["loc"])
        raise SqlError(f"the question is too large: {part}: {first['msg'][:200]}", "ask for less at once") from err
    used = [name for names in finished.uses().values() for name in names]
    names = {_output_name(projection): _column(projection).name for projection in _dimensions(statement)}
    output = tuple(_output_name(projection) for projection in statement.expressions)
    _check_names(output, names, finished)
    table = draft.table if persons is None else persons.table
    return Planned(offer.table(table, used), finished, output, names)


def _check_names(output: tuple[str, ...], names: Mapping[str, str], finished: Plan) -> None:
    """Raise SqlError unless the answer can be written: names that differ, also those of the ends of intervals."""
    unselected = [column for column in finished.group_by if column not in names.values()]
    fields = [name for shown in output for name in ((shown,) if shown in names else field_names(shown))]
    taken = set[str]()
    for field in (*fields, *unselected):
        if not field.isprintable() or len(field) > MAX_NAME:
            raise SqlError(f"an output name is no printable text of at most {MAX_NAME} characters", "name it with AS")
        if field in taken:
            hint = "give every column of the answer its own name with AS; an aggregate n also takes n_low, n_high, n_sd"
            raise SqlError(f"the output name {field!r} is used twice", hint)
        taken.add(field)


def known_clauses(statement: exp.Select, draft: PlanDraft, offer: Offer) -> PlanDraft:
    """Refuse every clause that a plan cannot express."""
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


def one_table(statement: exp.Select, draft: PlanDraft, offer: Offer) -> PlanDraft:
    """FROM must name one table that a silo opens."""
    source = statement.args.get("from_")
    table = source.this if source is not None else None
    extras = [key for key, value in table.args.items() if value and key != "this"] if table is not None else []
    if not isinstance(table, exp.Table) or extras:
        node = table if isinstance(table, exp.Expr) else statement
        raise unsupported(node, "FROM must name one table, without alias or schema")
    if table.name not in offer.tables:
        raise SqlError(f"unknown table {table.name!r}{sql_position(table)}", suggest(table.name, offer.tables))
    return replace(draft, table=table.name)


def one_definition(statement: exp.Select, draft: PlanDraft, offer: Offer) -> PlanDraft:
    """Refuse a question about columns that silos define differently."""
    known = offer.columns(draft.table)
    offer.check_is_one(draft.table, (node.name for node in statement.find_all(exp.Column) if node.name in known))
    return draft


def dimensions(statement: exp.Select, draft: PlanDraft, offer: Offer) -> PlanDraft:
    """GROUP BY takes columns with a closed domain; every other selected column must be an aggregate."""
    group = statement.args.get("group")
    if group is not None and any(group.args.get(key) for key in ("all", "rollup", "cube", "grouping_sets", "totals")):
        raise unsupported(group, "GROUP BY ALL, ROLLUP, CUBE and GROUPING SETS are not supported; name the columns")
    aliases = {projection.alias: projection.this for projection in statement.expressions if projection.alias}
    keys = []
    for node in group.expressions if group is not None else []:
        target = aliases.get(node.name, node) if isinstance(node, exp.Column) else node
        if not isinstance(target, exp.Column):
            raise unsupported(node, "GROUP BY takes columns only")
        column = define(target, draft.table, offer)
        if not column.domain:
            others = [name for name in offer.columns(draft.table) if offer.column(draft.table, name).domain]
            hint = f"columns with a domain: {', '.join(others) or 'none'}"
            raise SqlError(
                f"cannot group by {column.name!r}{sql_position(node)}: no policy gives it a closed domain", hint
            )
        keys.append(column.name)
    if len(set(keys)) != len(keys):
        raise unsupported(group or statement, "GROUP BY names a column twice")
    for projection in _dimensions(statement):
        name = _column(projection).name
        if name not in keys:
            define(_column(projection), draft.table, offer)
            raise SqlError(
                f"column {name!r}{sql_position(projection)} is neither grouped by nor aggregated",
                f"add GROUP BY {name}, or aggregate it: rows never leave a silo",
            )
    return replace(draft, group_by=tuple(keys))


def aggregates(statement: exp.Select, draft: PlanDraft, offer: Offer) -> PlanDraft:
    """COUNT, SUM and AVG take columns with bounds."""
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
        if is_count_of_persons(node, draft.table, offer):
            found.append(Aggregate(function="persons", column=None, alias=_output_name(projection)))
            continue
        if isinstance(argument, exp.Distinct) or node.expressions:
            raise unsupported(node, f"{function.upper()} takes one plain column")
        column: str | None = None
        if isinstance(argument, exp.Star) and any(argument.args.values()):
            raise unsupported(node, "COUNT(*) takes no EXCLUDE, REPLACE or RENAME")
        is_of_rows = isinstance(argument, exp.Star) or is_person(argument, draft.table, offer)
        if not (function == "count" and is_of_rows):
            if not isinstance(argument, exp.Column) or isinstance(argument.this, exp.Star):
                raise unsupported(node, f"{function.upper()} takes one plain column")
            column = measure(argument, draft.table, offer).name
        found.append(Aggregate(function=function, column=column, alias=_output_name(projection)))  # type: ignore[arg-type]
    if not found:
        raise SqlError("the question has no aggregate", "add COUNT(*), SUM(col) or AVG(col): rows never leave a silo")
    return replace(draft, aggregates=tuple(found))


RULES: tuple[Rule, ...] = (known_clauses, one_table, one_definition, dimensions, aggregates, filters)


def _function(node: exp.Expr) -> str:
    return _FUNCTIONS.get(type(node), "")


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
    if isinstance(node.this, exp.Distinct):
        argument = f"distinct_{node.this.expressions[0].name}"
    return f"{_function(node)}_{argument}"
