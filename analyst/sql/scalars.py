"""Figures of all rows beside others: a scalar subquery of the same table becomes an aggregate with a condition.

    SELECT COUNT(*) / (SELECT COUNT(*) FROM lung) AS share FROM lung WHERE died      as
    SELECT COUNT(*) FILTER (WHERE died) / COUNT(*) AS share FROM lung

    SELECT sex, COUNT(*) / (SELECT COUNT(*) FROM lung) AS share FROM lung GROUP BY sex      as
    SELECT sex, COUNT(*) / SUM(COUNT(*)) OVER () AS share FROM lung GROUP BY sex

So the table is read once, and the question has one price. What does not fit stays, and is refused as a second reading.
Pure: it knows no silo.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from analyst.sql.offer import Offer
from analyst.sql.readings import (
    Kept,
    Sources,
    conditions_of,
    figures_of,
    is_plain,
    put,
    shared,
    sources_of,
    text_of,
    under,
    unqualified,
    without_unread,
)
from analyst.sql.split import default_name, grouped_by

_ADDED = (exp.Count, exp.CountIf, exp.Sum, exp.Avg)


def with_scalars(query: exp.Query, offer: Offer) -> exp.Query:
    """Return a question in which figures of several readings of a table are those of one, where that fits."""
    if len(list(query.find_all(exp.Select))) < 2:
        return query
    try:
        changed = query.copy()
        for select in list(changed.find_all(exp.Select)):
            if _scalars(select):
                select = _with_figures(select, sources_of(changed, offer))
                _Outer(select, sources_of(changed, offer), offer).rewrite()
                without_unread(changed)
    except Kept:
        return query
    return changed


def _scalars(select: exp.Select) -> list[exp.Subquery]:
    """Return the subqueries of a SELECT that stand for one value."""
    found = []
    for one in select.find_all(exp.Subquery):
        outside = isinstance(one.parent, exp.From | exp.Join | exp.In | exp.CTE)
        if not outside and isinstance(one.this, exp.Select) and one.find_ancestor(exp.Select) is select:
            found.append(one)
    return found


def _with_figures(select: exp.Select, sources: Sources) -> exp.Select:
    """Move subqueries of a table to the SELECT below that has the table's figures, and return it; or else the same.

    SELECT sex, n / (SELECT COUNT(*) FROM lung) FROM (SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex)
    """
    source = select.args.get("from_")
    inner = None if source is None else sources.select_of(source.this)
    if source is None or inner is None or source.this.name in sources.rows or not (table := sources.table_of(inner)):
        return select
    moved = [one for one in _scalars(select) if _reads(one, table, sources)]
    if not moved or figures_of(select) or select.args.get("group") or select.args.get("joins"):
        return select
    if len(select.expressions) == 1 and isinstance(select.expressions[0], exp.Star):
        select.set("expressions", [exp.column(one.alias_or_name, quoted=True) for one in inner.expressions])
    if any(isinstance(one, exp.Star) for shown in select.root().find_all(exp.Select) for one in shown.expressions):
        raise Kept  # it would show the totals too
    taken = {one.name for one in select.find_all(exp.Column)} | {one.alias_or_name for one in inner.expressions}
    names = (name for place in range(1, 10_000) if (name := f"total{place}") not in taken)
    for one in list(select.expressions):
        if not one.alias and not isinstance(one, exp.Column | exp.Star):
            one.replace(exp.Alias(this=one.copy(), alias=exp.to_identifier(default_name(one), quoted=True)))
    known: dict[str, str] = {}
    for one in [one for one in _scalars(select) if _reads(one, table, sources)]:
        if (text := text_of(one)) not in known:
            known[text] = next(names)
            inner.append("expressions", exp.Alias(this=one.copy(), alias=exp.to_identifier(known[text])))
        one.replace(exp.column(known[text]))
    return inner


def _reads(node: exp.Subquery, table: str, sources: Sources) -> bool:
    """Tell whether a subquery is of the rows of a table, itself or by a CTE of one row."""
    select = node.this
    source = select.args.get("from_")
    inner = None if source is None or select.args.get("joins") else sources.select_of(source.this)
    if inner is not None and source.this.name not in sources.rows and inner.args.get("group") is None:
        select = inner if not figures_of(select) else select
    return sources.table_of(select) == table


@dataclass(frozen=True, slots=True)
class _Scalar:
    """A subquery of one value: what it shows, of the rows that meet its conditions."""

    node: exp.Subquery
    shown: exp.Expr
    conditions: Sequence[exp.Expr]
    of_groups: bool  # a figure of the groups' figures


class _Outer:
    """A SELECT that has scalar subqueries of the table that it reads."""

    def __init__(self, select: exp.Select, sources: Sources, offer: Offer) -> None:
        self._select, self._sources, self._offer = select, sources, offer
        self._table = sources.table_of(select)
        self._keys: tuple[exp.Expr, ...] = ()

    def rewrite(self) -> None:
        """Put aggregates in the place of the subqueries, in place; raises Kept where that does not fit."""
        nodes = _scalars(self._select)
        has_rows = bool(self._table)
        if not has_rows:
            if self._select.args.get("from_") is not None or not self._reads_rows(nodes):
                return  # figures of released figures
            self._read_first(nodes)
        if self._select.args.get("joins") or self._select.find(exp.Rollup, exp.Cube, exp.GroupingSets):
            raise Kept
        self._keys = tuple(one.copy() for one in grouped_by(self._select))
        persons = self._offer.persons(self._table) if self._table in self._offer.tables else ()
        if any(column.name in persons for key in self._keys for column in key.find_all(exp.Column)):
            raise Kept
        scalars = [self._scalar(one) for one in nodes]
        if not self._keys and not figures_of(self._select) and (has_rows or self._loose()):
            raise Kept  # rows
        self._named()
        own = conditions_of(self._select)
        everywhere = shared([own, *(list(one.conditions) for one in scalars)])
        kept = [one for one in own if text_of(one) in everywhere]
        self._select.set("where", exp.Where(this=exp.and_(*kept)) if kept else None)
        self._narrow([one for one in own if text_of(one) not in everywhere])
        for one in scalars:
            self._put(one, [held for held in one.conditions if text_of(held) not in everywhere])

    def _reads_rows(self, nodes: Sequence[exp.Subquery]) -> bool:
        """Tell whether every subquery reads the rows of a table, itself or by a CTE."""
        return all(self._sources.table_of(self._direct(one.this)) for one in nodes)

    def _read_first(self, nodes: Sequence[exp.Subquery]) -> None:
        """Let a SELECT without FROM read what its first subquery reads."""
        first = self._direct(nodes[0].this)
        self._table = self._sources.table_of(first)
        self._select.set("from_", first.args["from_"].copy())

    def _loose(self) -> list[exp.Column]:
        """Return the columns of the SELECT outside its subqueries."""
        return [one for one in self._select.find_all(exp.Column) if one.find_ancestor(exp.Select) is self._select]

    def _named(self) -> None:
        """Let what is shown keep the names that it has now."""
        for one in list(self._select.expressions):
            if not one.alias and not isinstance(one, exp.Column | exp.Star):
                one.replace(exp.Alias(this=one.copy(), alias=exp.to_identifier(default_name(one), quoted=True)))

    def _resolved(self, select: exp.Select) -> exp.Select:
        """Return a SELECT of one value with what it shows of a CTE of one row written out; raises Kept."""
        for _ in range(len(self._sources.ctes) + 2):
            source = select.args.get("from_")
            others = [key for key, one in select.args.items() if one and key not in ("expressions", "from_")]
            if source is None or others or len(select.expressions) != 1 or figures_of(select):
                break
            inner = None if source.this.name in self._sources.rows else self._sources.select_of(source.this)
            if inner is None or inner.args.get("group") or not figures_of(inner):
                break
            shown = {one.alias_or_name: one.unalias() for one in inner.expressions}
            result = inner.copy()
            result.set("expressions", [_written(select.expressions[0].unalias(), shown)])
            select = result
        return select

    def _direct(self, select: exp.Select) -> exp.Select:
        """Return a SELECT of one value that reads a table by itself; raises Kept."""
        select = self._resolved(select)
        if len(select.expressions) != 1 or not is_plain(select) or select.args.get("group"):
            raise Kept
        if not self._sources.table_of(select):
            raise Kept
        return unqualified(select)

    def _scalar(self, node: exp.Subquery) -> _Scalar:
        """Return what a subquery shows, of which rows; raises Kept unless it is a figure of the same table."""
        if node.find_ancestor(exp.AggFunc, exp.Group, exp.Select) is not self._select:
            raise Kept
        select = self._resolved(node.this)
        source = select.args.get("from_")
        inner = None if source is None else self._sources.select_of(source.this)
        is_grouped = inner is not None and inner.args.get("group") is not None
        if source is not None and inner is not None and is_grouped and source.this.name not in self._sources.rows:
            return self._of_groups(node, select, inner)
        select = self._direct(select)
        if self._sources.table_of(select) != self._table:
            raise Kept
        shown = select.expressions[0].unalias()
        figures = figures_of(shown)
        outside = [one for one in shown.find_all(exp.Column) if not any(_is_in(one, figure) for figure in figures)]
        if not figures or outside:
            raise Kept
        return _Scalar(node, shown, conditions_of(select), of_groups=False)

    def _of_groups(self, node: exp.Subquery, select: exp.Select, inner: exp.Select) -> _Scalar:
        """Return a figure of the figures of the same groups, such as their average; raises Kept."""
        others = [key for key, one in select.args.items() if one and key not in ("expressions", "from_")]
        if others or len(select.expressions) != 1 or not is_plain(inner):
            raise Kept
        if self._sources.table_of(inner) != self._table or not self._keys:
            raise Kept
        inner = unqualified(inner)
        keys = {text_of(_bare(one)) for one in grouped_by(inner)}
        if keys != {text_of(_bare(one)) for one in self._keys}:
            raise Kept
        conditions = conditions_of(inner)
        if {text_of(one) for one in conditions} != {text_of(one) for one in conditions_of(unqualified(self._select))}:
            raise Kept
        shown = _written(
            select.expressions[0].unalias(), {one.alias_or_name: one.unalias() for one in inner.expressions}
        )
        if not figures_of(select.expressions[0]):
            raise Kept
        return _Scalar(node, shown, conditions, of_groups=True)

    def _narrow(self, conditions: Sequence[exp.Expr]) -> None:
        """Let the SELECT's own figures be of the rows that meet conditions, and its groups those that do."""
        own_windows = any(one.find_ancestor(exp.Select) is self._select for one in self._select.find_all(exp.Window))
        having = self._select.args.get("having")
        if self._keys and own_windows and having is not None:
            raise Kept  # these windows are over the groups that HAVING leaves, and totals are not
        groups = [] if own_windows else [one for one in conditions if self._is_of_groups(one)]
        rows = [one for one in conditions if one not in groups]
        for figure in figures_of(self._select):
            figure.replace(under(figure, rows))
        if not self._keys or not (groups or having):
            return
        chosen = [*groups, *([having.this] if having is not None else [])]
        if (qualify := self._select.args.get("qualify")) is not None:
            chosen.append(qualify.this)
        self._select.set("having", None)
        self._select.set("qualify", exp.Qualify(this=exp.and_(*chosen, copy=False)))

    def _is_of_groups(self, condition: exp.Expr) -> bool:
        """Tell whether a condition says the same of a group as of its rows: which of its listed values it has."""
        if isinstance(condition, exp.And | exp.Or):
            return all(map(self._is_of_groups, condition.flatten()))
        if isinstance(condition, exp.Paren):
            return self._is_of_groups(condition.this)
        if isinstance(condition, exp.EQ):
            values = [condition.expression]
        elif isinstance(condition, exp.In) and not condition.args.get("query"):
            values = condition.expressions
        else:
            return False
        column = condition.this
        if not isinstance(column, exp.Column) or self._table not in self._offer.tables:
            return False
        if column.name not in {one.name for one in self._keys if isinstance(one, exp.Column)}:
            return False
        if column.name not in self._offer.columns(self._table):
            return False
        domain = self._offer.column(self._table, column.name).domain
        known = domain if isinstance(domain, tuple) else ()
        return bool(values) and all(isinstance(one, exp.Literal) and one.name in known for one in values)

    def _put(self, scalar: _Scalar, conditions: Sequence[exp.Expr]) -> None:
        """Put what a subquery shows in its place, as figures of all groups where there are several."""
        shown = exp.Paren(this=scalar.shown.copy())
        if scalar.of_groups:
            for one in figures_of(shown):
                one.replace(exp.Window(this=one.copy()))
        else:
            for figure in figures_of(shown):
                put(figure, self._total(figure, conditions) if self._keys else under(figure, conditions))
        put(scalar.node, shown.this if isinstance(shown.this, exp.AggFunc | exp.Filter | exp.Window) else shown)
        if self._keys and self._select.args.get("qualify") is not None and not _has_window(self._select):
            raise Kept  # DuckDB's QUALIFY wants a window that is shown or compared

    def _total(self, figure: exp.Expr, conditions: Sequence[exp.Expr]) -> exp.Expr:
        """Return a figure of the rows of all groups."""
        aggregate = figure.this if isinstance(figure, exp.Filter) else figure
        if not isinstance(aggregate, _ADDED) or isinstance(aggregate.this, exp.Distinct):
            raise Kept
        if not isinstance(aggregate, exp.Avg):
            return self._sum(figure, conditions)
        sums = []
        for part in (exp.Sum(this=aggregate.this.copy()), exp.Count(this=aggregate.this.copy(), big_int=True)):
            one: exp.Expr = part
            if isinstance(figure, exp.Filter):
                one = exp.Filter(this=part, expression=figure.expression.copy())
            sums.append(self._sum(one, conditions))
        return exp.Div(this=sums[0], expression=sums[1], typed=False, safe=False)

    def _sum(self, figure: exp.Expr, conditions: Sequence[exp.Expr]) -> exp.Expr:
        """Return the sum of a figure over the groups; a condition that groups meet or not chooses among them."""
        groups = [one for one in conditions if self._is_of_groups(one)]
        rows = [one for one in conditions if one not in groups]
        total: exp.Expr = exp.Sum(this=under(figure, rows))
        if groups:
            total = exp.Filter(this=total, expression=exp.Where(this=exp.and_(*(one.copy() for one in groups))))
        return exp.Window(this=total)


def _is_in(node: exp.Expr, whole: exp.Expr) -> bool:
    return any(one is node for one in whole.walk())


def _has_window(select: exp.Select) -> bool:
    clauses = [*select.expressions, select.args["qualify"]]
    return any(one.find(exp.Window) is not None for one in clauses)


def _bare(node: exp.Expr) -> exp.Expr:
    """Return an expression without the names of tables before its columns."""
    return node.copy().transform(lambda one: exp.column(one.this.copy()) if isinstance(one, exp.Column) else one)


def _written(shown: exp.Expr, meanings: Mapping[str, exp.Expr]) -> exp.Expr:
    """Return an expression of the columns of another SELECT with what these are in their place; raises Kept."""
    holder = exp.Paren(this=shown.copy())
    for column in list(holder.find_all(exp.Column)):
        meaning = meanings.get(column.name)
        if meaning is None or isinstance(column.this, exp.Star):
            raise Kept
        put(column, meaning.copy())
    return holder.unnest()
