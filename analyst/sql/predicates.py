"""WHERE: from an SQL condition to a predicate of the plan."""

from dataclasses import replace

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.columns import define
from analyst.sql.draft import Draft
from analyst.sql.offer import Offer, suggest
from analyst.sql.parse import place, unsupported
from policies.requests.query import Both, Compare, Either, IsNull, Not, OneOf, Predicate
from policies.requests.tables import TableColumn, is_number

_OPERATORS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_FLIPPED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def filters(statement: exp.Select, draft: Draft, offer: Offer) -> Draft:
    """WHERE, with every literal read by its column's type."""
    where = statement.args.get("where")
    return draft if where is None else replace(draft, where=_predicate(where.this, draft.table, offer))


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
            low, high = literal(node.args["low"], column), literal(node.args["high"], column)
            return Both(
                operands=(
                    Compare(column=column.name, op=">=", value=low),
                    Compare(column=column.name, op="<=", value=high),
                )
            )
        case exp.In(this=exp.Column() as target) if node.expressions:
            column = define(target, table, offer)
            return OneOf(column=column.name, values=tuple(literal(value, column) for value in node.expressions))
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
    return Compare(column=column.name, op=operator, value=literal(right, column))  # type: ignore[arg-type]


def literal(node: exp.Expr, column: TableColumn) -> str:
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
