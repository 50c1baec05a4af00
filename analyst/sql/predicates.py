"""The rule of WHERE: turn an SQL condition into a predicate of the plan."""

from dataclasses import replace

from sqlglot import exp

from analyst.sql.columns import define
from analyst.sql.draft import PlanDraft
from analyst.sql.literals import literal
from analyst.sql.offer import Offer
from analyst.sql.parse import unsupported
from policies.requests.predicates import Both, Compare, Either, IsNull, Not, OneOf, Predicate

_OPERATORS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_FLIPPED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def filters(statement: exp.Select, draft: PlanDraft, offer: Offer) -> PlanDraft:
    """WHERE, with every literal read by its column's type."""
    where = statement.args.get("where")
    return draft if where is None else replace(draft, where=_predicate(where.this, draft.table, offer))


def condition(node: exp.Expr, table: str, offer: Offer) -> Predicate:
    """Return the predicate of an SQL condition on the columns of a table; raises SqlError."""
    return _predicate(node, table, offer)


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
            return IsNull(column=define(target, table, offer).name)
        case exp.Between(this=exp.Column() as target) if not node.args.get("symmetric"):
            column = define(target, table, offer)
            low, high = literal(node.args["low"], column, ">="), literal(node.args["high"], column, "<=")
            return Both(
                operands=(
                    Compare(column=column.name, op=">=", value=low),
                    Compare(column=column.name, op="<=", value=high),
                )
            )
        case exp.In(this=exp.Column() as target) if node.expressions:
            column = define(target, table, offer)
            return OneOf(column=column.name, values=tuple(literal(value, column, "=") for value in node.expressions))
        case exp.Column():
            column = define(node, table, offer)
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
    column = define(left, table, offer)
    if isinstance(right, exp.Null):
        raise unsupported(node, "nothing compares with NULL; use IS NULL or IS NOT NULL")
    return Compare(column=column.name, op=operator, value=literal(right, column, operator))  # type: ignore[arg-type]
