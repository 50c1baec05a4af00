"""What an inner question groups by beside the person: a column with a closed domain, or a case with public groups.

SELECT customer_id, quarter, SUM(amount) AS spent FROM purchases GROUP BY customer_id, quarter
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.cases import case_of, name_of
from analyst.sql.columns import define
from analyst.sql.draft import PlanDraft
from analyst.sql.inside import Figure
from analyst.sql.nodes import has_figure
from analyst.sql.offer import Offer
from analyst.sql.parse import sql_position, unsupported
from analyst.sql.refusals import group_of
from policies.requests.cases import NULL, Cases, columns_in
from policies.requests.predicates import columns_of
from policies.requests.tables import TableColumn


@dataclass(frozen=True, slots=True)
class InnerKeys:
    """The keys of an inner question by their names: figures that are a column as it is, and cases.

    `written` has the name of each key by its expression, `renamed` the names that the question gives to some cases.
    """

    columns: dict[str, tuple[Figure, exp.Expr]] = field(default_factory=dict)
    cases: dict[str, Cases] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.written)

    def name(self, node: exp.Expr) -> str | None:
        """Return the name of the key that an expression is; None if it is none."""
        return self.written.get(_text(node))

    def __contains__(self, name: str) -> bool:
        return name in self.columns or name in self.cases

    def rename(self, around: exp.Select) -> None:
        """Let the statement around name the cases as the request does, and its answer as it was written."""
        for column in list(around.find_all(exp.Column)):
            name = self.renamed.get(column.name)
            if name is None or column.table:
                continue
            new: exp.Expr = exp.column(name)
            if isinstance(column.parent, exp.Select) and column.arg_key == "expressions":
                new = exp.alias_(new, column.name, quoted=True)
            column.replace(new)

    def opened(self) -> Iterable[TableColumn]:
        """Yield a definition of each case, by which the statement around can group by it."""
        for name, one in self.cases.items():
            values = tuple(NULL if group is None else group for group in one.groups)
            kind = one.type if one.type == "int" and NULL not in values else "string"
            yield TableColumn(name=name, type=kind, domain=values, unknown=values[0])


def keys_of(inside: exp.Select, nodes: Iterable[exp.Expr], table: str, offer: Offer) -> InnerKeys:
    """Return the keys of an inner question, of which `nodes` are the expressions; raises SqlError."""
    found, names = InnerKeys(), {_text(one.unalias()): one.alias_or_name for one in inside.expressions}
    for node in nodes:
        target, given = node.unnest(), names.get(_text(node), "")
        if _text(target) in found.written:
            continue
        if isinstance(target, exp.Column) and not isinstance(target.this, exp.Star):
            column = define(target, table, offer)
            if column.domain:
                name = given or column.name
                found.columns[name], found.written[_text(target)] = (Figure("each", column, None), target), name
                continue
            if column.type != "bool":
                raise _no_domain(column, target, table, offer)
        elif target.find(exp.Column) is None or has_figure(target):
            raise unsupported(node, "GROUP BY takes the person, columns, and expressions of columns")
        name = name_of(given, len(found.cases) + 1, table, offer, found.written.values())
        if given and given != name:  # the name of a column, or none that the wire has room for
            found.renamed[given] = name
        found.cases[name], found.written[_text(target)] = case_of(target, name, table, offer), name
    return found


def check_grouped(keys: InnerKeys, around: exp.Select) -> None:
    """Raise SqlError where the statement around does more with a case than to group by it."""
    for column in around.find_all(exp.Column):
        if column.name in keys.cases and column.find_ancestor(exp.AggFunc, exp.Where, exp.Case) is not None:
            raise _only_grouped(column.name, sql_position(column))


def check_uses(keys: InnerKeys, draft: PlanDraft) -> None:
    """Raise SqlError where the statement around groups by what it cannot."""
    compared = {*columns_of(draft.where), *columns_in(draft.cases)}
    for name in keys.cases:
        if name in compared:
            raise _only_grouped(name, "")
    for one in draft.cases:
        if twice := sorted(set(one.columns).intersection(draft.group_by).difference(keys.columns)):
            hint = "group by it alone, and add up its groups afterwards"
            raise SqlError(f"{twice[0]!r} is grouped by, and compared in another group", hint)


def _only_grouped(name: str, where: str) -> SqlError:
    hint = "group by it as it is; a condition on what it is made of stands inside, in WHERE"
    return SqlError(f"{name!r} is a group that is made inside, and nothing else around it{where}", hint)


def _no_domain(column: TableColumn, node: exp.Expr, table: str, offer: Offer) -> SqlError:
    bucket = group_of(column, table, offer)
    hint = f"group by buckets, such as {bucket} AS {column.name}_from" if bucket else "group by the person alone inside"
    return SqlError(f"cannot group by {column.name!r}{sql_position(node)}: no policy gives it a closed domain", hint)


def _text(node: exp.Expr) -> str:
    """Return an expression as text, the same however its columns are qualified."""
    plain = node.unnest().transform(lambda part: exp.column(part.name) if isinstance(part, exp.Column) else part)
    return plain.sql(dialect="duckdb", normalize_functions="upper").casefold()
