"""Aggregates with conditions of their own, such as `COUNT(*) FILTER (WHERE c)`, as sums over groups that c makes.

The conditions become hidden dimensions of the question, one for each column that they read, so that each row stays in
one group and the price is that of one figure. A figure is then added up over the groups in which its condition holds.
`conditions_of` only rewrites the statement: it knows no silo.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.parse import sql_position

MAX_CONDITIONS = 8
_NAMED = "hidden"
Function = Literal["count", "sum", "avg", "share"]


@dataclass(frozen=True, slots=True)
class Held:
    """Where a condition holds: where the group of a hidden dimension has a 1 at a place."""

    dimension: str
    place: int

    def is_in(self, group: Mapping[str, object]) -> bool:
        """Tell whether the rows of a group, by its names of dimensions, meet the condition."""
        return str(group[self.dimension])[self.place] == "1"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the question: core figures that are added over the groups where `held`, or over all.

    A count and a sum are of the core figure `of`. An average divides the sum by the count `by`; a share divides the
    count of the groups where the condition holds by that of all.
    """

    function: Function
    of: str
    by: str | None = None
    held: Held | None = None


@dataclass(frozen=True, slots=True)
class Conditioned:
    """A statement without conditions in aggregates, its hidden dimensions, and each figure by its name."""

    core: exp.Select
    hidden: tuple[str, ...]
    figures: Mapping[str, Figure]


def conditions_of(statement: exp.Select) -> Conditioned | None:
    """Return a statement whose aggregates have no conditions; None where none of them has any. Raises SqlError.

    All of its projections are dimensions or single aggregates, each with a name of its own; the group by names
    dimensions or their aliases.
    """
    found = {projection.alias_or_name: _conditional(projection.unalias()) for projection in statement.expressions}
    conditions = [one.condition for one in found.values() if one is not None and one.condition is not None]
    if not conditions:
        return None
    for projection in statement.expressions:
        if found[projection.alias_or_name] is None and projection.find(exp.AggFunc):
            shown = projection.unalias().sql(dialect="duckdb")[:60]
            message = f"{shown} is not supported beside aggregates with conditions{sql_position(projection)}"
            raise SqlError(message, "ask for it in a question of its own, with the condition in WHERE")
    held = _Hidden(statement)
    core = statement.copy()
    dimensions = [one for one in core.expressions if found[one.alias_or_name] is None]
    figures, aggregates = dict[str, Figure](), dict[str, exp.Expr]()
    for name, one in found.items():
        if one is not None:
            figures[name] = _figure(one, aggregates, None if one.condition is None else held.of(one.condition))
    hidden = held.dimensions()
    core.set("expressions", [*dimensions, *hidden, *(exp.alias_(node, name) for name, node in aggregates.items())])
    group = core.args.get("group") or exp.Group(expressions=[])
    group.set("expressions", [*group.expressions, *(exp.column(one.alias) for one in hidden)])
    core.set("group", group)
    return Conditioned(core, tuple(one.alias for one in hidden), figures)


@dataclass(frozen=True, slots=True)
class _Aggregate:
    """An aggregate apart from its condition; no argument means rows."""

    function: Function
    argument: exp.Expr | None
    condition: exp.Expr | None


def _conditional(node: exp.Expr) -> _Aggregate | None:
    """Return an aggregate with its condition taken out; None for what is no aggregate that is known here."""
    if isinstance(node, exp.Filter):
        inner = _conditional(node.this)
        where = node.expression.this
        if inner is None or (inner.function == "share" and inner.condition is not None):
            hint = "put it after COUNT, SUM or AVG"
            if isinstance(node.this, exp.AggFunc):
                hint = "ask for it in a question of its own, with the condition in WHERE"
            raise SqlError(f"FILTER is not supported here{sql_position(node)}", hint)
        both = where if inner.condition is None else exp.and_(inner.condition, where)
        return _Aggregate(inner.function, inner.argument, both)
    if node.this is None:  # COUNT()
        return None
    match node:
        case exp.CountIf():
            return _Aggregate("count", None, node.this)
        case exp.Count(this=exp.Star()):
            return _Aggregate("count", None, None)
        case exp.Count() | exp.Sum() | exp.Avg() if not node.expressions and not isinstance(node.this, exp.Distinct):
            function: Function = (
                "count" if isinstance(node, exp.Count) else "sum" if isinstance(node, exp.Sum) else "avg"
            )
            return _of_case(node, function)
    return None


def _of_case(node: exp.Expr, function: Function) -> _Aggregate:
    """Return an aggregate of `CASE WHEN c THEN x [ELSE 0] END` as one of x under the condition c."""
    case = node.this.unnest()
    plain = _Aggregate(function, node.this, None)
    if isinstance(case, exp.If):
        condition, result, otherwise = case.this, case.args["true"].unnest(), case.args.get("false")
    elif isinstance(case, exp.Case) and case.this is None and len(case.args["ifs"]) == 1:
        (only,) = case.args["ifs"]
        condition, result, otherwise = only.this, only.args["true"].unnest(), case.args.get("default")
    else:
        return plain
    last = exp.Null() if otherwise is None else otherwise.unnest()
    is_null, is_zero = isinstance(last, exp.Null), _is_number(last, 0)
    is_one = _is_number(result, 1)
    match function:
        case "count" if is_null and (isinstance(result, exp.Column | exp.Literal | exp.Boolean)):
            return _Aggregate("count", result if isinstance(result, exp.Column) else None, condition)
        case "sum" if is_null or is_zero:
            if is_one:
                return _Aggregate("count", None, condition)
            return _Aggregate("sum", result, condition) if isinstance(result, exp.Column) else plain
        case "avg" if is_one and is_zero:
            return _Aggregate("share", None, condition)
        case "avg" if is_null and isinstance(result, exp.Column):
            return _Aggregate("avg", result, condition)
    return plain


def _is_number(node: exp.Expr, value: int) -> bool:
    return isinstance(node, exp.Literal) and not node.is_string and float(str(node.this)) == value


def _figure(one: _Aggregate, aggregates: dict[str, exp.Expr], held: Held | None) -> Figure:
    """Return how a figure is added up, and note the core figures that it needs."""
    if one.function in ("count", "share"):
        return Figure(one.function, _core("count", one.argument, aggregates), None, held)
    total = _core("sum", one.argument, aggregates)
    return Figure(
        one.function, total, _core("count", one.argument, aggregates) if one.function == "avg" else None, held
    )


def _core(function: str, argument: exp.Expr | None, aggregates: dict[str, exp.Expr]) -> str:
    """Return the name of a core figure, which is asked once however many figures need it."""
    what: exp.Expr = exp.Star() if argument is None else argument.copy()
    node = exp.Count(this=what, big_int=True) if function == "count" else exp.Sum(this=what)
    known = next((name for name, other in aggregates.items() if other == node), None)
    if known is not None:
        return known
    name = f"{_NAMED}_{function}_{len(aggregates) + 1}"
    aggregates[name] = node
    return name


class _Hidden:
    """The hidden dimensions: the conditions on one column make one, and any other condition one of its own."""

    def __init__(self, statement: exp.Select) -> None:
        self._taken = {one.alias_or_name.lower() for one in statement.expressions}
        self._taken |= {one.name.lower() for one in statement.find_all(exp.Column)}
        self._of: dict[str, tuple[str, list[exp.Expr]]] = {}

    def of(self, condition: exp.Expr) -> Held:
        """Return where a condition holds; a condition that is written the same twice is one."""
        condition = condition.unnest()
        columns = sorted({one.name for one in condition.find_all(exp.Column)})
        if not columns:
            raise SqlError(f"a condition reads no column{sql_position(condition)}", "write it without the condition")
        key = columns[0] if len(columns) == 1 else condition.sql()
        name, known = self._of.setdefault(key, (self._name(), []))
        if condition not in known:
            known.append(condition)
            if sum(len(conditions) for _, conditions in self._of.values()) > MAX_CONDITIONS:
                message = f"more than {MAX_CONDITIONS} conditions in aggregates{sql_position(condition)}"
                raise SqlError(message, "ask two questions, or group by what the conditions are about")
        return Held(name, known.index(condition))

    def _name(self) -> str:
        number = len(self._of) + 1
        while f"{_NAMED}_{number}" in self._taken:
            number += 100
        return f"{_NAMED}_{number}"

    def dimensions(self) -> list[exp.Expr]:
        """Return each hidden dimension: a digit for each of its conditions, 1 where it is true."""
        return [exp.alias_(_digits(conditions), name) for name, conditions in self._of.values()]


def _digits(conditions: list[exp.Expr]) -> exp.Expr:
    found: exp.Expr | None = None
    for one in conditions:
        digit = exp.Case().when(one.copy(), exp.Literal.string("1")).else_(exp.Literal.string("0"))
        found = digit if found is None else exp.DPipe(this=found, expression=digit, safe=True)
    assert found is not None  # noqa: S101  a dimension has a condition
    return found
