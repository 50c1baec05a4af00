"""Figures of the same groups that are joined: two grouped readings of one table become one, with conditions.

    WITH a AS (SELECT sex, COUNT(*) AS n FROM lung WHERE died GROUP BY sex),
         b AS (SELECT sex, COUNT(*) AS m FROM lung GROUP BY sex)
    SELECT a.sex, n / m AS rate FROM a JOIN b ON a.sex = b.sex      as
    SELECT sex, n / m AS rate
    FROM (SELECT sex, COUNT(*) FILTER (WHERE died) AS n, COUNT(*) AS m FROM lung GROUP BY sex)

The answer has every group of a closed domain, so an inner join and a left one have the same rows. What does not fit
stays, and is refused as a join. Pure: it knows no silo.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from analyst.sql.offer import Offer
from analyst.sql.readings import (
    Kept,
    Sources,
    conditions_of,
    figures_of,
    is_plain,
    shared,
    sources_of,
    text_of,
    under,
    unqualified,
    without_unread,
)
from analyst.sql.split import grouped_by

_KINDS = ("", "INNER", "CROSS", "LEFT", "LEFT OUTER", "FULL", "FULL OUTER")
_MERGED = "beside"


def with_joined_figures(query: exp.Query, offer: Offer) -> exp.Query:
    """Return a question in which grouped readings of a table that are joined on the groups are one, where that fits."""
    if query.find(exp.Join) is None:
        return query
    try:
        changed = query.copy()
        for select in list(changed.find_all(exp.Select)):
            _without_single(select, sources_of(changed, offer))
            if select.args.get("joins") and select.args.get("from_"):
                _merge(select, sources_of(changed, offer), changed)
                without_unread(changed)
    except Kept:
        return query
    return changed


@dataclass(frozen=True, slots=True)
class _Side:
    """A grouped reading that is joined: its name, SELECT, conditions, and the names of its columns by their keys."""

    name: str
    select: exp.Select
    conditions: Sequence[exp.Expr]
    keys: dict[str, str]  # text of what is grouped by -> the name that it is shown by


def _without_single(select: exp.Select, sources: Sources) -> None:
    """Write the columns of a reading of one row that stands beside a grouped one as subqueries, in place."""
    joins: list[exp.Join] = list(select.args.get("joins") or [])
    source = select.args.get("from_")
    inner = None if source is None else sources.select_of(source.this)
    if not joins or inner is None or inner.args.get("group") is None or not sources.table_of(inner):
        return
    known = {one.alias_or_name for one in inner.expressions}
    for join in list(joins):
        single = sources.select_of(join.this)
        kind = " ".join(str(join.args[key]).upper() for key in ("side", "kind", "method") if join.args.get(key))
        is_loose = kind in ("", "CROSS", "INNER") and not join.args.get("using")
        if single is None or single.args.get("group") or not is_plain(single) or not sources.table_of(single):
            continue
        if not is_loose or join.args.get("on") not in (None, exp.true()) or not figures_of(single):
            continue
        shown = {one.alias_or_name: one for one in single.expressions}
        for column in list(select.find_all(exp.Column)):
            is_its = column.table == join.this.alias_or_name or (not column.table and column.name not in known)
            if column.find_ancestor(exp.Select) is select and is_its and column.name in shown:
                value = single.copy()
                value.set("expressions", [shown[column.name].copy()])
                new: exp.Expr = exp.Subquery(this=value)
                if isinstance(column.parent, exp.Select) and column.arg_key == "expressions":
                    new = exp.Alias(this=new, alias=exp.to_identifier(column.name, quoted=True))
                column.replace(new)
        joins.remove(join)
        select.set("joins", joins or None)


def _merge(select: exp.Select, sources: Sources, query: exp.Query) -> None:
    """Let a SELECT read one grouped reading in place of several that are joined, in place; raises Kept."""
    joins: Sequence[exp.Join] = select.args["joins"]
    sides = [_side(one, sources, query) for one in (select.args["from_"].this, *(one.this for one in joins))]
    first = sides[0]
    tables = {sources.table_of(one.select) for one in sides}
    if len(tables) != 1 or any(set(one.keys) != set(first.keys) for one in sides):
        raise Kept
    if len({one.name for one in sides}) != len(sides) or "" in {one.name for one in sides}:
        raise Kept
    rest = _check_joined(select, joins, sides)
    everywhere = shared([list(one.conditions) for one in sides])
    inner = exp.Select(expressions=[], from_=first.select.args["from_"].copy())
    kept = [one for one in first.conditions if text_of(one) in everywhere]
    if kept:
        inner.set("where", exp.Where(this=exp.and_(*(one.copy() for one in kept))))
    if first.keys:
        inner.set("group", exp.Group(expressions=[one.copy() for one in grouped_by(first.select)]))
    names: dict[tuple[str, str], str] = {}
    for side in sides:
        residual = [one for one in side.conditions if text_of(one) not in everywhere]
        _add(inner, side, first, residual, names)
    select.set("from_", exp.From(this=exp.Subquery(this=inner, alias=exp.TableAlias(this=exp.to_identifier(_MERGED)))))
    select.set("joins", None)
    select.set("where", exp.Where(this=exp.and_(*rest)) if rest else None)
    _rename(select, names)


def _side(source: exp.Expr, sources: Sources, query: exp.Query) -> _Side:
    """Return one of the readings that are joined; raises Kept for anything else."""
    inner = sources.select_of(source)
    if inner is None or not sources.table_of(inner) or not is_plain(inner):
        raise Kept
    if isinstance(source, exp.Table) and (
        source.name in sources.rows or sum(1 for one in query.find_all(exp.Table) if one.name == source.name) != 1
    ):
        raise Kept
    written = unqualified(inner)
    texts = [text_of(one) for one in grouped_by(written)]
    shown = {text_of(one.unalias()): one.alias_or_name for one in written.expressions}
    keys = {text: shown.get(text, "") for text in texts}
    figures = [one for one in written.expressions if text_of(one.unalias()) not in keys]
    if not all(keys.values()) or not all(one.alias and figures_of(one) for one in figures):
        raise Kept
    return _Side(source.alias_or_name, written, conditions_of(written), keys)


def _check_joined(select: exp.Select, joins: Sequence[exp.Join], sides: Sequence[_Side]) -> list[exp.Expr]:
    """Check that every reading is joined on all keys, and return what else stands in WHERE; raises Kept."""
    rest = conditions_of(select)
    for join, side in zip(joins, sides[1:], strict=True):
        kind = " ".join(str(join.args[key]).upper() for key in ("method", "side", "kind") if join.args.get(key))
        on = join.args.get("on")
        parts = [] if on is None else [one.unnest() for one in (on.flatten() if isinstance(on, exp.And) else [on])]
        using = {one.name for one in join.args.get("using") or []}
        joined = {key for key, name in side.keys.items() if name in using and sides[0].keys[key] == name}
        if kind not in _KINDS or len(joined) != len(using):
            raise Kept
        for one in parts:
            if (key := _key_of(one, side, sides)) is None:
                raise Kept
            joined.add(key)
        for one in list(rest):
            if joined != set(side.keys) and (key := _key_of(one, side, sides)) is not None:
                joined.add(key)
                rest = [other for other in rest if other is not one]
        if joined != set(side.keys):
            raise Kept
    return rest


def _key_of(condition: exp.Expr, side: _Side, sides: Sequence[_Side]) -> str | None:
    """Return the key that a condition says to be the same in a reading and in another; None for any other condition."""
    if not isinstance(condition, exp.EQ):
        return None
    found = {}
    for column in (condition.this, condition.expression):
        if not isinstance(column, exp.Column):
            return None
        of = next((one for one in sides if one.name == column.table), None)
        found[column.table] = None if of is None else next((k for k, n in of.keys.items() if n == column.name), None)
    keys = set(found.values())
    return keys.pop() if len(found) == 2 and side.name in found and len(keys) == 1 else None


def _add(
    inner: exp.Select, side: _Side, first: _Side, conditions: Sequence[exp.Expr], names: dict[tuple[str, str], str]
) -> None:
    """Add the columns of a reading to the one reading, and note by which name each is found there."""
    taken = {one.alias_or_name for one in inner.expressions}
    for one in side.select.expressions:
        shown = one.alias_or_name
        if (text := text_of(one.unalias())) in side.keys:
            names[side.name, shown] = first.keys[text]
            if side is first:
                inner.append("expressions", one.copy())
            continue
        name = shown if shown not in taken else f"{side.name}_{shown}"
        if name in taken:
            raise Kept
        taken.add(name)
        names[side.name, shown] = name
        figure = exp.alias_(one.unalias().copy(), name, quoted=True)
        for part in figures_of(figure):
            part.replace(under(part, conditions))
        inner.append("expressions", figure)


def _rename(select: exp.Select, names: dict[tuple[str, str], str]) -> None:
    """Write the columns of a SELECT as those of the one reading; raises Kept for one that several have."""
    shown = {one.alias for one in select.expressions if one.alias}
    for column in list(select.find_all(exp.Column)):
        if column.find_ancestor(exp.Select) is not select:
            continue
        if isinstance(column.this, exp.Star):
            raise Kept
        found = {new for (side, old), new in names.items() if old == column.name and column.table in ("", side)}
        if not found and not column.table and column.name in shown:
            continue
        if len(found) != 1:
            raise Kept
        new: exp.Expr = exp.column(found.pop(), quoted=True)
        if isinstance(column.parent, exp.Select) and column.arg_key == "expressions" and new.name != column.name:
            new = exp.alias_(new, column.name, quoted=True)
        new.meta.update(column.meta)
        column.replace(new)
    if any(isinstance(one, exp.Star) for one in select.expressions):
        raise Kept
