"""Several conditions on one column of numbers, judged together: the runs of numbers in which all of them stay the same.

As in WHERE, a condition compares the number as it is in the file: also beyond the bounds, and between two steps.
"""

from collections.abc import Sequence
from decimal import Decimal

from sqlglot import exp

from analyst.sql.offer import Offer
from analyst.sql.outcomes import Edge, Outcomes
from analyst.sql.predicates import predicate
from policies.requests.cases import MAX_WHENS
from policies.requests.predicates import Both, Compare, Either, IsNull, Not, OneOf, Predicate, parts_of
from policies.requests.tables import TableColumn

Truth = bool | None  # None is neither
_OPERATORS = {
    "=": Decimal.__eq__, "<>": Decimal.__ne__, "<": Decimal.__lt__, "<=": Decimal.__le__, ">": Decimal.__gt__,
    ">=": Decimal.__ge__,
}  # fmt: skip


def digits_of(node: exp.Expr) -> list[exp.Expr]:
    """Return the conditions of which an expression writes a digit each, 1 where it is true and else 0; none for others.

    `analyst.sql.conditions` makes such expressions of the conditions in aggregates.
    """
    parts = list(node.flatten()) if isinstance(node, exp.DPipe) else [node]
    found = []
    for part in parts:
        case = part.unnest()
        if not isinstance(case, exp.Case) or case.this is not None or len(case.args["ifs"]) != 1:
            return []
        (only,) = case.args["ifs"]
        ends = [only.args["true"], case.args.get("default")]
        if [one.sql() if isinstance(one, exp.Literal) else "" for one in ends] != ["'1'", "'0'"]:
            return []
        found.append(only.this)
    return found


def runs_of(conditions: Sequence[exp.Expr], column: TableColumn, table: str, offer: Offer) -> Outcomes | None:
    """Return the digits of conditions on a column of numbers by runs; None where there are too many runs.

    Raises SqlError for what is no condition.
    """
    predicates = [predicate(one, table, offer) for one in conditions]
    ends = sorted({value for one in predicates for value in _literals(one)})
    runs: list[tuple[str, Edge | None]] = []
    for value, edge in _intervals(ends, is_whole=column.type == "int"):
        digits = _digits(predicates, value)
        if runs and runs[-1][0] == digits:
            runs[-1] = digits, edge
        else:
            runs.append((digits, edge))
    if len(runs) > MAX_WHENS:
        return None
    return Outcomes(column, "string", _digits(predicates, None), (), tuple(runs))


def _literals(one: Predicate) -> list[Decimal]:
    texts = [
        text
        for part in parts_of(one)
        for text in ((part.value,) if isinstance(part, Compare) else part.values if isinstance(part, OneOf) else ())
    ]
    return [Decimal(text) for text in texts]


def _intervals(ends: Sequence[Decimal], is_whole: bool) -> list[tuple[Decimal, Edge | None]]:
    """Return a number of each interval between these ends and of each end itself, in order, with where it ends."""
    if not ends:
        return [(Decimal(0), None)]
    found: list[tuple[Decimal, Edge | None]] = [(ends[0] - 1, Edge("<", f"{ends[0]:f}"))]
    for place, end in enumerate(ends):
        found.append((end, Edge("<=", f"{end:f}")))
        behind = ends[place + 1] if place + 1 < len(ends) else None
        if behind is None:
            found.append((end + 1, None))
        elif not is_whole or end // 1 + 1 < behind:
            between = (end + behind) / 2
            found.append((between // 1 if is_whole and between // 1 > end else between, Edge("<", f"{behind:f}")))
    return found


def _digits(predicates: Sequence[Predicate], value: Decimal | None) -> str:
    return "".join("1" if _truth(one, value) else "0" for one in predicates)


def _truth(one: Predicate, value: Decimal | None) -> Truth:
    """Return whether a predicate of one column is true of a number; None is a missing cell."""
    match one:
        case Both() | Either():
            found = [_truth(part, value) for part in one.operands]
            decisive = isinstance(one, Either)
            return decisive if decisive in found else None if None in found else not decisive
        case Not():
            inner = _truth(one.operand, value)
            return None if inner is None else not inner
        case IsNull():
            return value is None
        case Compare():
            return None if value is None else _OPERATORS[one.op](value, Decimal(one.value))
        case OneOf():
            return None if value is None else value in map(Decimal, one.values)
    raise ValueError(f"{one.kind} is no predicate of one column")
