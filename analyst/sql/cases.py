"""GROUP BY of an expression: CASE, a bucket of a bounded number, a condition, or a function of a closed domain.

The groups are public: what the expression makes of each public value, or the labels of a CASE. A label is the result as
SQL has it, and NULL is one too.
"""

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.columns import define
from analyst.sql.evaluation import Kind
from analyst.sql.nodes import shown_as
from analyst.sql.offer import Offer
from analyst.sql.outcomes import Outcomes, any_of, check_listable, is_listable, one_of, only_column, outcomes
from analyst.sql.parse import sql_position
from analyst.sql.predicates import CONDITIONS, all_of, predicate
from analyst.sql.together import digits_of, runs_of
from policies.requests.cases import MAX_WHENS, Cases
from policies.requests.predicates import IsNull, Not, Predicate
from policies.requests.tables import MAX_TEXT, TableColumn, is_number

# What is NULL only where a cell is, unlike NULLIF or x % 0.
_NEVER_NULL = (
    exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Paren, exp.Neg, exp.Add, exp.Sub, exp.Mul, exp.Abs,
    exp.Floor, exp.Ceil, exp.Round, exp.Greatest, exp.Least, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.And,
    exp.Or, exp.Not, exp.Between, exp.In,
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+/-]{0,99}")
Branch = tuple[Predicate, str | None]


def case_of(node: exp.Expr, name: str, table: str, offer: Offer) -> Cases:
    """Return the case dimension of an expression that a question is grouped by; raises SqlError."""
    node = buckets_spelled_out(node.unnest())
    kind, branches, otherwise = _branches(node, table, offer)
    branches = list(merged(branches, otherwise))
    if len(branches) > MAX_WHENS:
        message = f"{len(branches):,} groups by {shown_as(node)}{sql_position(node)}, at most {MAX_WHENS} are made"
        raise SqlError(message, "take wider buckets, such as x // 20, or fewer conditions")
    if not branches and (conditions := digits_of(node)):
        is_true = "1" in (otherwise or "")
        message = f"{shown_as(conditions[0])}{sql_position(node)} is true of {'every row' if is_true else 'no row'}"
        raise SqlError(
            message, "leave the condition out" if is_true else "leave the aggregate out, or mend its condition"
        )
    if not branches:
        raise SqlError(f"{shown_as(node)}{sql_position(node)} is the same for every row", "leave it out of GROUP BY")
    wrong = next((label for _, label in branches if label is not None and not _can_be_label(label, kind)), None)
    if wrong is not None:
        hint = "round it: ROUND(x, 2)" if kind in ("int", "decimal") else "a label is printable text of 200 characters"
        raise SqlError(f"{wrong[:40]!r} is no label of {shown_as(node)}{sql_position(node)}", hint)
    return Cases(
        name=name,
        whens=tuple(when for when, _ in branches),
        labels=tuple(label for _, label in branches),
        otherwise=otherwise,
        type=kind,
    )


def name_of(alias: str, number: int, table: str, offer: Offer, taken: Iterable[str]) -> str:
    """Return the name of a case in the request: its alias where that can be one and is no column's, else a new one."""
    known = {name for columns in offer.holders(table).values() for name in columns}
    if _NAME.fullmatch(alias) and alias not in known:
        return alias
    known.update(taken)
    return next(one for one in _numbered(number) if one not in known)


def _can_be_label(label: str, kind: Kind) -> bool:
    return is_number(label) if kind in ("int", "decimal") else len(label) <= MAX_TEXT and label.isprintable()


def _numbered(number: int) -> Iterator[str]:
    yield f"group_{number}"
    while True:
        number += 1
        yield f"group_{number}_"


def _branches(node: exp.Expr, table: str, offer: Offer) -> tuple[Kind, list[Branch], str | None]:
    """Return the conditions of an expression's groups with their labels, and the label of all other rows."""
    target = only_column(node)
    column = None if target is None else define(target, table, offer)
    has_members = column is not None and (bool(column.domain) or column.type == "bool")
    if has_members and column is not None and (not isinstance(node, exp.Column) or column.domain):
        return _of_members(outcomes(node, table, offer))
    if column is not None and column.type in ("int", "decimal") and not has_members:
        conditions = digits_of(node)
        found = runs_of(conditions, column, table, offer) if len(conditions) > 1 else None
        if found is not None:
            return _of_runs(found)
    if isinstance(node, exp.Case | exp.If) and (column is None or _has_plain_labels(node)):
        return _of_case(node, table, offer)
    if isinstance(node, CONDITIONS) or (isinstance(node, exp.Column) and column is not None and column.type == "bool"):
        return _of_condition(node, column, table, offer)
    return _of_runs(outcomes(node, table, offer))


def _of_members(found: Outcomes) -> tuple[Kind, list[Branch], str | None]:
    """Return a condition for each result; a result of most members may be the one of all others."""
    name = found.column.name
    of_label = {label: found.members_of(label) for label in found.labels}
    rest: list[Branch] = []
    if not is_listable([member for member, _ in found.members]):  # the largest group is that of all others, unlisted
        largest = max(of_label, key=lambda label: len(of_label[label]))
        rest.append((Not(operand=IsNull(column=name)), largest))
        del of_label[largest]
        check_listable(found.column, [member for members in of_label.values() for member in members])
    branches = [(any_of(one_of(name, members)), label) for label, members in of_label.items()]
    return found.kind, [*branches, *rest], found.missing


def _of_runs(found: Outcomes) -> tuple[Kind, list[Branch], str | None]:
    """Return a condition for each run of numbers, in order: the first that ends above a number holds it."""
    name = found.column.name
    branches: list[Branch] = [
        (Not(operand=IsNull(column=name)) if end is None else end.below(name), label) for label, end in found.runs
    ]
    if not found.column.can_be_missing:
        return found.kind, branches[:-1], branches[-1][1]
    return found.kind, branches, found.missing


def _of_condition(
    node: exp.Expr, column: TableColumn | None, table: str, offer: Offer
) -> tuple[Kind, list[Branch], str | None]:
    true = predicate(node, table, offer)
    if column is not None and not column.can_be_missing and all(isinstance(one, _NEVER_NULL) for one in node.walk()):
        return "bool", [(true, "true")], "false"
    return "bool", [(true, "true"), (predicate(exp.Not(this=node.copy()), table, offer), "false")], None


def _of_case(node: exp.Case | exp.If, table: str, offer: Offer) -> tuple[Kind, list[Branch], str | None]:
    """Return the conditions and labels of a CASE, one inside another taken apart."""
    kinds, branches = set[Kind](), list[Branch]()
    for when, result in whens_of(node):
        condition = predicate(when, table, offer)
        inner = result.unnest()
        if isinstance(inner, exp.Case | exp.If):
            kind, deeper, rest = _of_case(inner, table, offer)
            kinds.add(kind)
            branches += [(all_of((condition, one)), label) for one, label in deeper]
            branches.append((condition, rest))
        else:
            branches.append((condition, _label(inner, kinds)))
    last = default_of(node)
    if isinstance(last, exp.Case | exp.If):
        kind, deeper, otherwise = _of_case(last, table, offer)
        kinds.add(kind)
        branches += deeper
    else:
        otherwise = None if last is None else _label(last, kinds)
    if kinds == {"int", "decimal"}:
        kinds = {"decimal"}
    if len(kinds) > 1:
        message = f"the results of a CASE are {' and '.join(sorted(kinds))}{sql_position(node)}"
        raise SqlError(message, "let all of its results be text, or all numbers")
    return next(iter(kinds), "string"), branches, otherwise


def _has_plain_labels(node: exp.Case | exp.If) -> bool:
    """Tell whether no result of a CASE is computed from a column."""
    last = default_of(node)
    ends = [result for _, result in whens_of(node)] + ([] if last is None else [last])
    return all(
        _has_plain_labels(inner) if isinstance(inner := end.unnest(), exp.Case | exp.If) else not inner.find(exp.Column)
        for end in ends
    )


def whens_of(node: exp.Case | exp.If) -> Iterator[tuple[exp.Expr, exp.Expr]]:
    """Yield the conditions and results of a CASE; `CASE x WHEN 1` compares x with 1."""
    if isinstance(node, exp.If):
        yield node.this, node.args["true"]
        return
    for one in node.args["ifs"]:
        subject = node.this
        yield (one.this if subject is None else exp.EQ(this=subject.copy(), expression=one.this)), one.args["true"]


def default_of(node: exp.Case | exp.If) -> exp.Expr | None:
    """Return the result of a CASE where no condition is true; None where it has none."""
    found = node.args.get("false" if isinstance(node, exp.If) else "default")
    return found.unnest() if isinstance(found, exp.Expr) else None


def _label(node: exp.Expr, kinds: set[Kind]) -> str | None:
    """Return a result of a CASE as a label, and add its kind."""
    match node:
        case exp.Null():
            return None
        case exp.Boolean():
            kinds.add("bool")
            return str(bool(node.this)).lower()
        case exp.Literal() if node.is_string:
            kinds.add("string")
            return str(node.this)
        case exp.Literal() | exp.Neg(this=exp.Literal(is_string=False)):
            number = Decimal(node.sql(dialect="duckdb").replace(" ", ""))
            whole = number == number.to_integral_value()
            kinds.add("int" if whole else "decimal")
            text = f"{number:f}"
            return text.rstrip("0").rstrip(".") if "." in text else text
    hint = "a result of CASE is a text in quotes, a number, TRUE, FALSE or NULL; group by the column beside it"
    raise SqlError(f"{shown_as(node)} is no label{sql_position(node)}", hint)


def merged(branches: list[Branch], otherwise: str | None) -> Iterator[Branch]:
    """Yield branches without those at the end that lead where all other rows go anyway."""
    last = next((at for at in range(len(branches), 0, -1) if branches[at - 1][1] != otherwise), 0)
    yield from branches[:last]


def buckets_spelled_out(node: exp.Expr) -> exp.Expr:
    """Return an expression with each `width_bucket(x, low, high, n)` as what it means; DuckDB has no such function."""
    return node.copy().transform(_bucket)


def _bucket(part: exp.Expr) -> exp.Expr:
    if not isinstance(part, exp.WidthBucket):
        return part
    x, low, high, count = (part.args[name] for name in ("this", "min_value", "max_value", "num_buckets"))
    try:
        numbers = [Decimal(one.sql(dialect="duckdb").replace(" ", "")) for one in (low, high, count)]
    except ArithmeticError:
        numbers = []
    if (
        len(numbers) < 3
        or not all(one.is_finite() for one in numbers)
        or numbers[1] <= numbers[0]
        or numbers[2] < 1
        or numbers[2] != numbers[2].to_integral_value()
    ):
        message = f"{shown_as(part)} has no buckets{sql_position(part)}"
        raise SqlError(message, "write width_bucket(x, low, high, n) with low below high, and n of at least 1")
    text = (
        f"CASE WHEN {{x}} < {numbers[0]:f} THEN 0 WHEN {{x}} >= {numbers[1]:f} THEN {numbers[2]:f} + 1"
        f" ELSE CAST(FLOOR(({{x}} - {numbers[0]:f}) * {numbers[2]:f} / {numbers[1] - numbers[0]:f}) AS BIGINT) + 1 END"
    )
    written: exp.Expr = exp.maybe_parse(text.replace("{x}", f"({x.sql(dialect='duckdb')})"), dialect="duckdb")
    return written
