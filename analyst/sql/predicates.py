"""The rule of WHERE: turn an SQL condition into a predicate of the plan.

A comparison of a column with a literal is planned as it stands. Any other condition of one column is rewritten: a
number on both sides is moved to one, exactly, and what is left is computed for every public value of the column, whose
values that pass are then listed. A comparison of two columns is judged at the silo.
"""

from collections.abc import Sequence
from dataclasses import replace

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.arithmetic import moved
from analyst.sql.columns import define
from analyst.sql.draft import PlanDraft
from analyst.sql.literals import literal
from analyst.sql.offer import Offer
from analyst.sql.outcomes import outcomes, where_result
from analyst.sql.parse import sql_position, unsupported
from policies.requests.predicates import (
    MAX_OPERANDS,
    MAX_VALUES,
    Both,
    Compare,
    CompareColumns,
    Either,
    IsNull,
    Not,
    OneOf,
    Predicate,
    why_incomparable,
)
from policies.requests.tables import TableColumn

_OPERATORS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_FLIPPED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_OPPOSITE: dict[type[exp.Expr], type[exp.Binary]] = {
    exp.EQ: exp.NEQ,
    exp.NEQ: exp.EQ,
    exp.LT: exp.GTE,
    exp.LTE: exp.GT,
    exp.GT: exp.LTE,
    exp.GTE: exp.LT,
    exp.NullSafeEQ: exp.NullSafeNEQ,
    exp.NullSafeNEQ: exp.NullSafeEQ,
}
# What is a condition, and not only a value.
CONDITIONS = (
    exp.Predicate, exp.Not, exp.And, exp.Or, exp.Between, exp.In, exp.StartsWith, exp.EndsWith, exp.Contains,
)  # fmt: skip


def filters(statement: exp.Select, draft: PlanDraft, offer: Offer) -> PlanDraft:
    """WHERE, with every literal read by its column's type."""
    where = statement.args.get("where")
    return draft if where is None else replace(draft, where=predicate(where.this, draft.table, offer))


def predicate(node: exp.Expr, table: str, offer: Offer) -> Predicate:
    """Return a condition as the predicate that is true of the same rows; raises SqlError."""
    match node:
        case exp.Paren():
            return predicate(node.this, table, offer)
        case exp.And() | exp.Or():
            operands = tuple(predicate(operand, table, offer) for operand in _operands(node))
            return Both(operands=operands) if isinstance(node, exp.And) else Either(operands=operands)
        case exp.Not():
            return _negated(node.this, table, offer)
        case exp.Is(this=exp.Column() as target, expression=exp.Null()):
            return IsNull(column=define(target, table, offer).name)
        case exp.Column():
            column = define(node, table, offer)
            if column.type != "bool":
                raise unsupported(node, f"{column.name!r} is no condition: compare it with something")
            return Compare(column=column.name, op="=", value="true")
        case exp.NullSafeEQ(this=exp.Column()) | exp.NullSafeNEQ(this=exp.Column()) if isinstance(
            node.expression, exp.Literal
        ):
            return _never_unknown(node, table, offer)
        case exp.Between() if not node.args.get("symmetric"):
            return _between(node, table, offer)
        case exp.In(this=exp.Column() as target) if node.expressions:
            return _one_of(node, define(target, table, offer))
        case exp.EQ() | exp.NEQ() | exp.LT() | exp.LTE() | exp.GT() | exp.GTE():
            return _comparison(node, _OPERATORS[type(node)], table, offer)
    if isinstance(node, exp.Between):
        raise unsupported(node, "BETWEEN SYMMETRIC is not supported: write the lower end first")
    if node.find(exp.Column) is None or not isinstance(node, (*CONDITIONS, exp.Case, exp.Coalesce, exp.Escape)):
        raise unsupported(node, f"{node.sql(dialect='duckdb')[:60]} is not supported in WHERE")
    return _computed(node, table, offer)


def _operands(node: exp.And | exp.Or) -> list[exp.Expr]:
    """Return the conditions that AND or OR joins; raises SqlError for more than one request has."""
    found = list(node.flatten())
    if len(found) > MAX_OPERANDS:
        message = f"{node.key.upper()} joins {len(found):,} conditions{sql_position(node)}, at most {MAX_OPERANDS}"
        raise SqlError(message, "ask fewer conditions at once; a list of values is x IN (1, 2, 3)")
    return found


def _one_of(node: exp.In, column: TableColumn) -> OneOf:
    if len(node.expressions) > MAX_VALUES:
        message = f"IN lists {len(node.expressions):,} values{sql_position(node)}, at most {MAX_VALUES:,}"
        raise SqlError(message, f"list fewer, or write a range: {column.name} BETWEEN ... AND ...")
    return OneOf(column=column.name, values=tuple(literal(value, column, "=") for value in node.expressions))


def all_of(operands: Sequence[Predicate]) -> Predicate:
    """Return the predicate that is true where all of these are."""
    flat = [part for one in operands for part in (one.operands if isinstance(one, Both) else (one,))]
    return flat[0] if len(flat) == 1 else Both(operands=tuple(flat))


def _negated(inner: exp.Expr, table: str, offer: Offer) -> Predicate:
    """Return the predicate that is true where a condition is false; it is neither where the condition is neither."""
    node = inner.unnest()
    if _is_plain(node):
        return Not(operand=predicate(node, table, offer))
    match node:
        case exp.Not():
            return predicate(node.this, table, offer)
        case exp.And() | exp.Or():
            operands = tuple(_negated(operand, table, offer) for operand in _operands(node))
            return Either(operands=operands) if isinstance(node, exp.And) else Both(operands=operands)
        case exp.Between() if not node.args.get("symmetric"):
            return _negated(_as_two(node), table, offer)
        case _ if type(node) in _OPPOSITE:
            return predicate(
                _placed(_OPPOSITE[type(node)](this=node.this, expression=node.expression), node), table, offer
            )
    return _computed(exp.Not(this=exp.paren(node.copy())), table, offer)


def _never_unknown(node: exp.Binary, table: str, offer: Offer) -> Predicate:
    """Return `x IS [NOT] DISTINCT FROM literal`, to which a missing cell is one more value."""
    is_same = isinstance(node, exp.NullSafeEQ)
    compared = _comparison(node, "=" if is_same else "<>", table, offer)
    column = define(node.this, table, offer).name
    missing = IsNull(column=column)
    return Both(operands=(Not(operand=missing), compared)) if is_same else Either(operands=(missing, compared))


def _is_plain(node: exp.Expr) -> bool:
    """Tell whether a condition is planned as it stands, so that its opposite is the opposite of its predicate."""
    match node:
        case exp.Paren() | exp.Not():
            return _is_plain(node.this)
        case exp.And() | exp.Or():
            return all(_is_plain(operand) for operand in node.flatten())
        case exp.Column():
            return True
        case exp.Is(this=exp.Column(), expression=exp.Null()):
            return True
        case exp.In(this=exp.Column()):
            return bool(node.expressions)
        case exp.Between(this=exp.Column()) if not node.args.get("symmetric"):
            return node.args["low"].find(exp.Column) is None and node.args["high"].find(exp.Column) is None
        case exp.EQ() | exp.NEQ() | exp.LT() | exp.LTE() | exp.GT() | exp.GTE():
            sides = node.this.unnest(), node.expression.unnest()
            return any(isinstance(side, exp.Column) for side in sides) and all(
                isinstance(side, exp.Column) or side.find(exp.Column) is None for side in sides
            )
    return False


def _between(node: exp.Between, table: str, offer: Offer) -> Predicate:
    target = node.this
    if not isinstance(target, exp.Column) or any(node.args[end].find(exp.Column) for end in ("low", "high")):
        return predicate(_as_two(node), table, offer)
    column = define(target, table, offer)
    low, high = literal(node.args["low"], column, ">="), literal(node.args["high"], column, "<=")
    return Both(
        operands=(Compare(column=column.name, op=">=", value=low), Compare(column=column.name, op="<=", value=high))
    )


def _as_two(node: exp.Between) -> exp.Expr:
    low = exp.GTE(this=node.this.copy(), expression=node.args["low"].copy())
    high = exp.LTE(this=node.this.copy(), expression=node.args["high"].copy())
    return exp.And(this=low, expression=high)


def _placed(made: exp.Expr, origin: exp.Expr) -> exp.Expr:
    """Return what stands for a condition, with copies of its parts, which know their places in the text."""
    return made.__class__(this=origin.this.copy(), expression=origin.expression.copy())


def _comparison(node: exp.Expr, operator: str, table: str, offer: Offer) -> Predicate:
    left, right = node.args["this"].unnest(), node.args["expression"].unnest()
    if isinstance(left, exp.Column) and isinstance(right, exp.Column):
        return _of_columns(node, left, operator, right, table, offer)
    if not isinstance(left, exp.Column) and (isinstance(right, exp.Column) or left.find(exp.Column) is None):
        left, right, operator = right, left, _FLIPPED[operator]
    if isinstance(right, exp.Null):
        raise unsupported(node, "nothing compares with NULL; use IS NULL or IS NOT NULL")
    if isinstance(left, exp.Column) and right.find(exp.Column) is None:
        column = define(left, table, offer)
        if isinstance(right, exp.Func) and not isinstance(right, exp.Cast):
            return _computed(node, table, offer)
        if isinstance(right, exp.Binary) and (found := moved(left, operator, right, table, offer)) is not None:
            return found
        return Compare(column=column.name, op=operator, value=literal(right, column, operator))  # type: ignore[arg-type]
    if left.find(exp.Column) is None:
        raise unsupported(node, "a comparison needs a column on one side and a literal on the other")
    return moved(left, operator, right, table, offer) or _computed(node, table, offer)


def _of_columns(
    node: exp.Expr, left: exp.Column, operator: str, right: exp.Column, table: str, offer: Offer
) -> Predicate:
    one, other = define(left, table, offer), define(right, table, offer)
    if problem := why_incomparable(one, other):
        raise SqlError(f"{problem}{sql_position(node)}", "compare each with a literal, or columns of one type")
    return CompareColumns(column=one.name, op=operator, other=other.name)  # type: ignore[arg-type]


def _computed(node: exp.Expr, table: str, offer: Offer) -> Predicate:
    """Return the predicate that is true of the public values of one column of which a condition is."""
    found = outcomes(node, table, offer)
    if found.kind != "bool" and set(found.labels) != {None}:
        raise unsupported(node, f"{node.sql(dialect='duckdb')[:60]} is no condition")
    return where_result(found, "true")
