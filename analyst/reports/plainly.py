"""Which SQL after the answer surely computes, by its form alone, so that it needs no trial run.

Promise: what is plain here has a result for any released figures: one row for each group, or one row of sums, each
column a number, a text or a truth value. All else is tried on made-up figures (`analyst.reports.rehearsal`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sqlglot import exp

from analyst.reports.afterwards import WITHHELD, Afterwards
from analyst.reports.estimates import groups_of
from analyst.sql.split import RELEASED
from policies.requests.query import Plan
from policies.requests.tables import Table

Kind = Literal["double", "whole", "text", "bool"]
_CLAUSES = {"expressions", "from_", "where", "group", "having", "order", "limit"}
_COMPARISONS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE)
_ARITHMETIC = (exp.Add, exp.Sub, exp.Mul, exp.Div)
_NUMBERS = ("double", "whole")
_MOST_DIGITS = 9  # of a literal, which fits every type
_MOST_DECIMALS = 15


@dataclass(frozen=True, slots=True)
class Fields:
    """The columns of a plain result, and which of them have no interval: groups, and what no figure is in."""

    columns: tuple[str, ...]
    labels: frozenset[str]


def fields_of(after: Afterwards, plan: Plan, table: Table) -> Fields | None:
    """Return the columns of a result that surely computes; None where its form does not tell."""
    query = after.query
    if not isinstance(query, exp.Select) or any(node and key not in _CLAUSES for key, node in query.args.items()):
        return None
    source = query.args["from_"].this if query.args.get("from_") is not None else None
    if not isinstance(source, exp.Table) or source.name != RELEASED or any(True for _ in query.find_all(exp.Subquery)):
        return None
    reading = _Reading(plan, table, query, after.is_whole)
    return reading.fields() if reading.is_plain() else None


class _Reading:
    """Reads one SELECT on released figures."""

    def __init__(self, plan: Plan, table: Table, query: exp.Select, is_whole: bool) -> None:
        self._query, self._is_whole = query, is_whole
        self._figures = {one.alias for one in plan.aggregates}
        self._kinds: dict[str, Kind] = dict.fromkeys(self._figures, "double")
        self._kinds[WITHHELD] = "bool"
        groups = list(zip(*groups_of(plan, table), strict=True))
        for name, values in zip(plan.group_by, groups, strict=True):
            found = {type(one) for one in values} - {type(None)}
            known: Mapping[type, Kind] = {str: "text", int: "whole", float: "double", bool: "bool"}
            self._kinds[name] = known[next(iter(found))] if len(found) == 1 else "text"
        group = query.args.get("group")
        nodes = [] if group is None else group.expressions
        self._keys = {one.name for one in nodes if isinstance(one, exp.Column) and one.name in plan.group_by}
        self._keys = self._keys if len(self._keys) == len(nodes) else set()
        self._aliases = {one.alias: one.this for one in query.expressions if one.alias}

    def is_plain(self) -> bool:
        query = self._query
        if any(node.args.get("negate") for node in query.walk()):
            return False
        where, order, limit = (query.args.get(clause) for clause in ("where", "order", "limit"))
        if limit is not None and not _is_small(limit.expression):
            return False
        if where is not None and (not self._is_whole or self._kind(where.this) != "bool"):
            return False
        keys = [] if order is None else order.expressions
        if not all(isinstance(one, exp.Ordered) and self._can_be_sorted(one.this) for one in keys):
            return False
        having = query.args.get("having")
        if having is not None and self._kind(having.this) != "bool":
            return False
        inner = [*query.expressions, *keys, *([] if having is None else [having.this])]
        if not self._is_whole and not (self._has_keys() and all(map(self._is_sum, inner))):
            return False
        return all(self._kind(one.unalias()) is not None for one in query.expressions)

    def fields(self) -> Fields:
        columns = [(one.alias_or_name, one.unalias()) for one in self._query.expressions]
        labels = [name for name, node in columns if self._kind(node) in ("text", "bool") or not self._has_figure(node)]
        return Fields(tuple(name for name, _ in columns), frozenset(labels))

    def _has_figure(self, node: exp.Expr) -> bool:
        return any(one.name in self._figures for one in node.find_all(exp.Column))

    def _can_be_sorted(self, node: exp.Expr) -> bool:
        meant = self._aliases.get(node.name) if isinstance(node, exp.Column) and node.name not in self._kinds else node
        if isinstance(node, exp.Literal):
            return _is_small(node) and 1 <= int(node.this) <= len(self._query.expressions)
        return meant is not None and self._kind(meant) is not None

    def _has_keys(self) -> bool:
        """Tell whether each row of sums says which one it is, by the groups that it is of."""
        shown = {one.unalias().name for one in self._query.expressions if isinstance(one.unalias(), exp.Column)}
        return self._query.args.get("group") is None or (bool(self._keys) and shown >= self._keys)

    def _is_sum(self, node: exp.Expr) -> bool:
        """Tell whether an expression is made of sums and of what rows are grouped by."""
        columns = list(node.find_all(exp.Column))
        known = self._keys | set(self._aliases)
        return bool(columns) and all(
            one.name in known or one.find_ancestor(exp.Sum, exp.Filter) is not None for one in columns
        )

    def _kind(self, node: exp.Expr) -> Kind | None:
        """Return the kind of an expression that surely computes; None for any other one."""
        match node:
            case exp.Paren():
                return self._kind(node.this)
            case exp.Column():
                return None if node.table or isinstance(node.this, exp.Star) else self._kinds.get(node.name)
            case exp.Literal():
                return (
                    "text"
                    if node.is_string
                    else ("whole" if _is_small(node) else "double" if _is_point(node) else None)
                )
            case exp.Boolean():
                return "bool"
            case exp.Neg() | exp.Abs():
                return "double" if self._kind(node.this) == "double" else None
            case exp.Round():
                digits = node.args.get("decimals") or exp.Literal.number(0)
                is_known = _is_small(digits) and int(digits.this) <= _MOST_DECIMALS and not node.args.get("truncate")
                return "double" if is_known and self._kind(node.this) == "double" else None
            case exp.Substring():
                places = (node.args.get("start"), node.args.get("length"))
                return "text" if self._kind(node.this) == "text" and all(map(_is_small, places)) else None
            case exp.Coalesce() | exp.Greatest() | exp.Least():
                return self._common(node.this, *node.expressions)
            case exp.Nullif():
                return self._common(node.this, node.expression)
            case exp.Case() | exp.If():
                return self._case(node)
            case exp.Window() | exp.Sum() | exp.Filter():
                return self._of_groups(node)
        if isinstance(node, _ARITHMETIC):
            kinds = {self._kind(node.this), self._kind(node.expression)}
            return "double" if "double" in kinds and kinds <= set(_NUMBERS) else None
        return "bool" if self._is_condition(node) else None

    def _is_condition(self, node: exp.Expr) -> bool:
        match node:
            case exp.And() | exp.Or():
                return self._kind(node.this) == self._kind(node.expression) == "bool"
            case exp.Not():
                return self._kind(node.this) == "bool"
            case exp.Is(expression=exp.Null()):
                return self._kind(node.this) is not None
        return isinstance(node, _COMPARISONS) and self._common(node.this, node.expression) is not None

    def _common(self, *nodes: exp.Expr) -> Kind | None:
        """Return the one kind of several expressions; of numbers, that which holds all."""
        kinds = {self._kind(one) for one in nodes}
        if kinds == {"double", "whole"}:
            return "double"
        return next(iter(kinds)) if len(kinds) == 1 else None

    def _case(self, node: exp.Expr) -> Kind | None:
        whens = [node] if isinstance(node, exp.If) else node.args["ifs"]
        last = node.args.get("false" if isinstance(node, exp.If) else "default")
        if node.args.get("this") is not None and isinstance(node, exp.Case):
            return None
        if not all(self._kind(one.this) == "bool" for one in whens):
            return None
        return self._common(*(one.args["true"] for one in whens), *([] if last is None else [last]))

    def _of_groups(self, node: exp.Expr) -> Kind | None:
        """Return the kind of a sum over groups, of all of them or within a window, or of a rank."""
        match node:
            case exp.Filter():
                is_bool = self._is_condition(node.expression.this)
                return self._of_groups(node.this) if is_bool and isinstance(node.this, exp.Sum) else None
            case exp.Sum():
                has_place = not self._is_whole or isinstance(node.parent, exp.Window)
                return "double" if has_place and self._kind(node.this) == "double" else None
        if not self._is_whole or node.args.get("spec") or node.args.get("alias") or node.args.get("first") is False:
            return None
        order, partition = node.args.get("order"), node.args.get("partition_by") or []
        keys = [] if order is None else [one.this for one in order.expressions if isinstance(one, exp.Ordered)]
        if any(self._kind(one) is None for one in (*keys, *partition)):
            return None
        if isinstance(node.this, exp.Rank | exp.DenseRank | exp.RowNumber):
            return "whole" if keys and not any(True for _ in node.this.iter_expressions()) else None
        return self._of_groups(node.this) if isinstance(node.this, exp.Sum) else None


def _is_small(node: exp.Expr | None) -> bool:
    is_number = isinstance(node, exp.Literal) and not node.is_string
    return is_number and node is not None and str(node.this).isdigit() and len(str(node.this)) <= _MOST_DIGITS


def _is_point(node: exp.Literal) -> bool:
    """Tell whether a literal is a short number with a point."""
    whole, _, rest = str(node.this).partition(".")
    return (whole + rest).isdigit() and len(whole) + len(rest) <= _MOST_DIGITS
