"""Turn the core of a question into a plan, by a tuple of named rules, each of which reads one part of the statement.

What stands before are the stages of `analyst.sql.stages`. A rule takes the statement, the draft and the silos' offer,
and returns a changed draft; a rule that does not accept the statement raises SqlError with the position in the text.
`tests/analyst/plans/` has examples of questions and plans, `tests/analyst/splits/` of questions and their two parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.cases import case_of, name_of
from analyst.sql.columns import define, measure
from analyst.sql.draft import PlanDraft, Planned, Rule, check_fields
from analyst.sql.evaluation import bounded
from analyst.sql.inner_keys import check_uses
from analyst.sql.limits import too_large_refused
from analyst.sql.measures import expression_of, name_for
from analyst.sql.offer import Offer, suggest
from analyst.sql.parse import parse, sql_position, unsupported
from analyst.sql.persons import is_count_of_persons, is_person
from analyst.sql.places import placed
from analyst.sql.predicates import filters
from analyst.sql.quantiles import is_quantile, measured, name_of_quantile, quantile_of
from analyst.sql.refusals import group_of, refused_argument, refused_function, refused_rows
from analyst.sql.split import lenient, renamed
from analyst.sql.stages import select_of, staged
from analyst.sql.survival import Survival, check_groups, curve_instead, curve_of
from policies.requests.cases import Cases
from policies.requests.expressions import Cell, Derived
from policies.requests.moments import PAIRS
from policies.requests.query import Aggregate, Plan, field_names
from policies.requests.survival import BESIDE, SURVIVAL

_READ_CLAUSES = {"expressions", "from_", "where", "group"}
# The aggregates, by sqlglot's class of expression.
_FUNCTIONS: Mapping[type[exp.Expr], str] = MappingProxyType(
    {
        exp.Count: "count",
        exp.Sum: "sum",
        exp.Avg: "avg",
        exp.VariancePop: "var_pop",
        exp.Variance: "var_samp",
        exp.StddevPop: "stddev_pop",
        exp.StddevSamp: "stddev_samp",
        exp.Stddev: "stddev_samp",
        exp.CovarPop: "covar_pop",
        exp.CovarSamp: "covar_samp",
        exp.Corr: "corr",
        exp.RegrSlope: "regr_slope",
        exp.RegrIntercept: "regr_intercept",
        exp.RegrR2: "regr_r2",
        exp.RegrCount: "regr_count",
        exp.RegrAvgx: "regr_avgx",
        exp.RegrAvgy: "regr_avgy",
        Survival: "survival",
    }
)


def plan(sql: str, offer: Offer, counts_cut: bool = False) -> Planned:
    """Return the plan of a question on the silos' offer; raises SqlError, which says where in the text it is.

    With `counts_cut` the plan also counts the persons whose rows or values bounding cuts.
    """
    try:
        return plan_of(parse(sql), offer, counts_cut)
    except SqlError as err:
        raise placed(err, sql) from err


def plan_of(query: exp.Query, offer: Offer, counts_cut: bool = False) -> Planned:
    """Return the plan of a parsed question, as `plan` does, but for places of errors."""
    with too_large_refused():
        return _plan_of(query, offer, counts_cut)


def _plan_of(query: exp.Query, offer: Offer, counts_cut: bool) -> Planned:
    question = staged(query, offer)
    statement, persons, draft = select_of(question), question.persons, PlanDraft()
    with bounded():
        for rule in RULES:
            draft = rule(statement, draft, question.seen)
    if persons is not None:
        check_uses(persons.keys, draft)
    finished = Plan(
        where=draft.where,
        group_by=draft.group_by,
        aggregates=draft.aggregates,
        counts_cut=counts_cut,
        cases=draft.cases,
        inner=None if persons is None else persons.inner,
        derived=draft.derived,
    )
    used = [name for names in finished.uses().values() for name in names]
    names = dict(draft.names)
    output = tuple(_output_name(projection) for projection in statement.expressions)
    _check_names(output, names, finished)
    text = ""
    if question.after is not None:
        after = lenient(renamed(question.after, names), {one.alias for one in draft.aggregates})
        text = after.sql(dialect="duckdb", comments=False)
    table = question.offer.table(draft.table if persons is None else persons.table, used)
    check_groups(finished, table)
    if question.beside:
        table = table.model_copy(update={"beside": question.beside})
    return Planned(table, finished, output, names, text)


def _check_names(output: tuple[str, ...], names: Mapping[str, str], finished: Plan) -> None:
    """Raise SqlError unless the answer can be written: names that differ, also those of the ends of intervals."""
    unselected = [column for column in finished.group_by if column not in names.values()]
    beside = () if finished.curve is None else BESIDE[:2] + BESIDE[4:]
    figures = () if finished.curve is None else BESIDE[2:4]
    shown = [name for one in (*output, *figures) for name in ((one,) if one in names else field_names(one))]
    check_fields([*shown, *beside, *unselected])


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
        message = f"FROM must name one table, without schema{sql_position(node)}"
        raise SqlError(message, f"tables that silos open: {', '.join(offer.tables)}")
    if not table.name:
        message = f"a function is no table{sql_position(table)}"
        raise SqlError(message, f"tables that silos open: {', '.join(offer.tables)}")
    if table.name not in offer.tables:
        raise SqlError(f"unknown table {table.name!r}{sql_position(table)}", suggest(table.name, offer.tables))
    return replace(draft, table=table.name)


def one_definition(statement: exp.Select, draft: PlanDraft, offer: Offer) -> PlanDraft:
    """Refuse a question about columns that silos define differently."""
    known = offer.columns(draft.table)
    offer.check_is_one(draft.table, (node.name for node in statement.find_all(exp.Column) if node.name in known))
    return draft


def dimensions(statement: exp.Select, draft: PlanDraft, offer: Offer) -> PlanDraft:
    """GROUP BY takes columns with a closed domain and expressions with public groups; all else is aggregated."""
    group = statement.args.get("group")
    aliases = {projection.alias: projection.this for projection in statement.expressions if projection.alias}
    keys, cases = [], dict[str, Cases]()
    for node in group.expressions if group is not None else []:
        target = (aliases.get(node.name, node) if isinstance(node, exp.Column) and not node.table else node).unnest()
        if not isinstance(target, exp.Column) or _is_plain_bool(target, draft.table, offer):
            if target.find(exp.Column) is None or target.find(exp.AggFunc):
                raise unsupported(node, "GROUP BY takes columns, and expressions of columns")
            name = name_of(_alias_of(target, aliases), len(cases) + 1, draft.table, offer, aliases)
            cases[_written(target)] = case_of(target, name, draft.table, offer)
            keys.append(name)
            continue
        column = define(target, draft.table, offer)
        if not column.domain:
            others = [name for name in offer.columns(draft.table) if offer.column(draft.table, name).domain]
            hint = f"columns with a domain: {', '.join(others) or 'none'}"
            if bucket := group_of(column, draft.table, offer):
                hint = f"group by buckets, such as {bucket}; {hint}"
            if curve := curve_instead(statement, column, draft.table, offer):
                hint = f"{curve}; or {hint}"
            if offer.has_keys(draft.table, column.name):
                hint = f"`consilo find-keys {draft.table}.{column.name}` finds keys for one; {hint}"
            raise SqlError(
                f"cannot group by {column.name!r}{sql_position(node)}: no policy gives it a closed domain", hint
            )
        keys.append(column.name)
    if len(set(keys)) != len(keys):
        raise unsupported(group or statement, "GROUP BY names a column twice")
    names = [
        (_output_name(projection), _dimension(projection, keys, cases, draft.table, offer))
        for projection in _dimensions(statement)
    ]
    return replace(draft, group_by=tuple(keys), cases=tuple(cases.values()), names=tuple(names))


def _written(node: exp.Expr) -> str:
    """Return an expression as text, the same however its columns are qualified."""
    return node.transform(lambda part: exp.column(part.name) if isinstance(part, exp.Column) else part).sql()


def _is_plain_bool(node: exp.Expr, table: str, offer: Offer) -> bool:
    """Tell whether a column is a bool without a domain: it is grouped by as the condition that it is."""
    column = define(node, table, offer) if isinstance(node, exp.Column) else None
    return column is not None and column.type == "bool" and not column.domain


def _alias_of(target: exp.Expr, aliases: Mapping[str, exp.Expr]) -> str:
    return next((alias for alias, node in aliases.items() if node.unnest() == target), "")


def _dimension(projection: exp.Expr, keys: Sequence[str], cases: Mapping[str, Cases], table: str, offer: Offer) -> str:
    """Return the dimension that a selected expression is; raises SqlError if it is none."""
    node = projection.unalias().unnest()
    if cases and _written(node) in cases:
        return cases[_written(node)].name
    if not isinstance(node, exp.Column):
        raise SqlError(
            f"{node.sql(dialect='duckdb')[:60]}{sql_position(node)} is neither grouped by nor aggregated",
            "add it to GROUP BY as it stands here, or by its name: rows never leave a silo",
        )
    if node.name not in keys or node.name in {one.name for one in cases.values()}:
        key = group_of(define(node, table, offer), table, offer)
        hint = f"add GROUP BY {node.name}, or aggregate it: rows never leave a silo"
        if key != node.name:
            buckets = f"select and group by {key}, or " if key else ""
            hint = f"{buckets}aggregate it, as in AVG({node.name}): rows never leave a silo"
        message = f"column {node.name!r}{sql_position(projection)} is neither grouped by nor aggregated"
        select = projection.parent_select
        if select is not None and select.find(exp.AggFunc) is None:
            raise refused_rows(select, offer, message)
        raise SqlError(message, hint)
    return node.name


def aggregates(statement: exp.Select, draft: PlanDraft, offer: Offer) -> PlanDraft:
    """Every aggregate but COUNT(*) takes measures with bounds: one, or two others where it is of a pair."""
    found = []
    for projection in statement.expressions:
        node = projection.unalias()
        if _is_dimension(node):
            continue
        if isinstance(node, exp.Star) or (isinstance(getattr(node, "this", None), exp.Star) and not _function(node)):
            raise refused_rows(statement, offer, f"SELECT * is not supported{sql_position(node)}")
        if is_quantile(node):
            target = measured(node)
            name, draft = _measure(target, draft, offer)
            kind = offer.column(draft.table, name).type if isinstance(target, exp.Column) else "decimal"
            found.append(quantile_of(node, _output_name(projection), name, kind))
            continue
        function = _function(node)
        if not function:
            raise refused_function(node, draft.table, offer)
        if is_count_of_persons(node, draft.table, offer):
            found.append(Aggregate(function="persons", column=None, alias=_output_name(projection)))
            continue
        if isinstance(node, Survival):
            found.append(curve_of(node, _output_name(projection), draft.table, offer))
            continue
        columns, draft = _arguments(node, function, draft, offer)
        found.append(Aggregate(function=function, alias=_output_name(projection), **columns))  # type: ignore[arg-type]
    if not found:
        raise refused_rows(statement, offer)
    return replace(draft, aggregates=tuple(found))


def _arguments(
    node: exp.Expr, function: str, draft: PlanDraft, offer: Offer
) -> tuple[dict[str, str | None], PlanDraft]:
    """Return the column of an aggregate, none for COUNT(*), the other one of a pair, and the draft with both."""
    given, is_pair, table = [node.this, node.args.get("expression")], function in PAIRS, draft.table
    wanted = "two measures" if is_pair else "one measure"
    more = [one for key, one in node.args.items() if key not in ("this", "expression", "big_int") and one]
    if isinstance(node.this, exp.Distinct) or more or bool(given[1]) != is_pair:
        raise refused_argument(node, function, wanted, table, offer)
    if isinstance(node.this, exp.Star) and any(node.this.args.values()):
        raise unsupported(node, "COUNT(*) takes no EXCLUDE, REPLACE or RENAME")
    if function == "count" and (isinstance(node.this, exp.Star) or is_person(node.this, table, offer)):
        return {"column": None}, draft
    names = []
    for argument in given[: 1 + is_pair]:
        if not isinstance(argument, exp.Expr) or argument.find(exp.Star) or argument.find(exp.AggFunc):
            raise refused_argument(node, function, wanted, table, offer)
        name, draft = _measure(argument.unnest(), draft, offer)
        names.append(name)
    if len(set(names)) != len(names):
        hint = f"name two columns, or ask VAR_POP({node.this.sql(dialect='duckdb')[:60]})"
        raise SqlError(f"{function.upper()} names {names[0]!r} twice{sql_position(node)}", hint)
    return dict(zip(("column", "other"), names, strict=False)), draft


def _measure(node: exp.Expr, draft: PlanDraft, offer: Offer) -> tuple[str, PlanDraft]:
    """Return the name of a measure, a column or an expression of columns, and the draft with it."""
    if isinstance(node, exp.Column):
        return measure(node, draft.table, offer).name, draft
    expression = expression_of(node, draft.table, offer, draft.where)
    if isinstance(expression, Cell):
        return expression.column, draft
    known = {name for columns in offer.holders(draft.table).values() for name in columns}
    name = name_for(expression, draft.derived, known.union(draft.group_by))
    if any(one.name == name for one in draft.derived):
        return name, draft
    return name, replace(draft, derived=(*draft.derived, Derived(name=name, expression=expression)))


# The condition on rows comes before the measures, as it narrows the ranges of what they are computed of.
RULES: tuple[Rule, ...] = (known_clauses, one_table, one_definition, dimensions, filters, aggregates)


def _function(node: exp.Expr) -> str:
    return _FUNCTIONS.get(type(node), "")


def _dimensions(statement: exp.Select) -> list[exp.Expr]:
    return [projection for projection in statement.expressions if _is_dimension(projection.unalias())]


def _is_dimension(node: exp.Expr) -> bool:
    """Tell whether a selected expression is one of rows: a column, or computed from columns, and no aggregate."""
    if isinstance(node, exp.Column):
        return not isinstance(node.this, exp.Star)
    return node.find(exp.Column) is not None and not node.find(exp.AggFunc, exp.Star, exp.Anonymous)


def _output_name(projection: exp.Expr) -> str:
    if projection.alias:
        return str(projection.alias)
    node = projection.unalias()
    if isinstance(node, exp.Column):
        return str(node.name)
    if _is_dimension(node):
        return node.sql(dialect="duckdb")
    if is_quantile(node):
        return name_of_quantile(node)
    if isinstance(node.this, exp.Distinct):
        return f"{_function(node)}_distinct_{node.this.expressions[0].name}"
    if isinstance(node, Survival):
        return SURVIVAL
    arguments = [one for one in (node.this, node.args.get("expression")) if one is not None]
    if not all(isinstance(one, exp.Star | exp.Column) for one in arguments):
        return node.sql(dialect="duckdb", comments=False)[:60]
    named = ("star" if isinstance(one, exp.Star) else one.name.rpartition(".")[2] for one in arguments)
    return "_".join([_function(node), *named])
