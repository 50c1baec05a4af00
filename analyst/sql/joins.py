"""A join of the silos' own tables on the person becomes a question about one table with the columns of all.

    SELECT c.region, SUM(o.amount) FROM orders o JOIN customers c USING (customer_id) GROUP BY c.region
    SELECT "customers.region" AS region, SUM(amount) FROM orders GROUP BY "customers.region"

All tables but one have one row a person (`OpenTable.one_row`), so each row of that one stands beside one row of each
other. Silos that have all of the tables are asked. What cannot be joined is refused by `analyst.sql.join_hints`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.join_hints import ACROSS, both_kinds, check_joined_rows, no_silo_has_both, wrong_kind
from analyst.sql.offer import Offer
from analyst.sql.parse import sql_position, unsupported
from policies.requests.catalogue import OpenTable
from policies.requests.tables import MAX_BESIDE

_ONE_ROW = (
    "ask about each table alone; a table whose policy says that a person has one row in it (one_row = true)"
    " may stand beside another"
)


@dataclass(frozen=True, slots=True)
class Joined:
    """A question about one table, an offer in which it has the columns of the others too, and these."""

    query: exp.Query
    offer: Offer
    beside: tuple[str, ...] = ()


def joined(query: exp.Query, offer: Offer) -> Joined:
    """Return a question whose joins of the silos' tables are read as one table; raises SqlError."""
    ctes = {one.alias for one in query.find_all(exp.CTE)}
    check_joined_rows(query, offer, ctes)
    joins = [one for one in query.find_all(exp.Join) if _is_of_tables(one, ctes)]
    if not joins:
        return Joined(query, offer)
    query = query.copy()
    joins = [one for one in query.find_all(exp.Join) if _is_of_tables(one, ctes)]
    select = joins[0].find_ancestor(exp.Select)
    others = [one for one in joins if one.find_ancestor(exp.Select) is not select]
    if select is None or others:
        raise unsupported(others[0] if others else joins[0], "a second JOIN of tables is not supported")
    return _Join(query, select, offer).read()


def _is_of_tables(join: exp.Join, ctes: set[str]) -> bool:
    select = join.find_ancestor(exp.Select)
    source = None if select is None else select.args.get("from_")
    return source is not None and any(
        isinstance(one, exp.Table) and one.name not in ctes for one in (source.this, join.this)
    )


class _Join:
    """One SELECT that joins tables, as it becomes one of one table."""

    def __init__(self, query: exp.Query, select: exp.Select, offer: Offer) -> None:
        self._query, self._select = query, select
        self._joins: Sequence[exp.Join] = select.args.get("joins") or []
        self._tables: dict[str, str] = {}  # by the names that the question has for them, in order
        for node in (select.args["from_"].this, *(one.this for one in self._joins)):
            self._name(node, offer)
        names = tuple(self._tables.values())
        silos = offer.holders_of(names)
        if not silos:
            raise no_silo_has_both(self._joins[0], names)
        self._offer = replace(offer, silos={silo: offer.silos[silo] for silo in silos})
        self._persons = {name for table in names for name in self._offer.persons(table)}

    def _name(self, node: exp.Expr, offer: Offer) -> None:
        if not isinstance(node, exp.Table) or node.args.get("db") or node.name not in offer.tables:
            name = node.name if isinstance(node, exp.Table) else "a subquery"
            hint = f"{ACROSS}; tables that silos open: {', '.join(offer.tables)}"
            raise SqlError(f"{name!r} is no table to join{sql_position(node)}", hint)
        if node.name in self._tables.values():
            raise both_kinds(self._joins[0], self._select, node.name, offer)
        self._tables[node.alias or node.name] = node.name

    def read(self) -> Joined:
        """Return the question about one table; raises SqlError."""
        if len(self._joins) > MAX_BESIDE:
            raise unsupported(self._joins[MAX_BESIDE], f"more than {MAX_BESIDE} joins are not supported")
        rest = list(self._conditions())
        self._select.set("where", exp.Where(this=exp.and_(*rest, copy=False)) if rest else None)
        first, beside = self._sides()
        self._select.set("joins", None)
        self._select.set("from_", exp.From(this=exp.to_table(first)))
        for column in list(self._select.find_all(exp.Column)):
            if column.find_ancestor(exp.Select) is self._select and not isinstance(column.this, exp.Star):
                self._rename(column, first)
        for name in beside:
            self._check_is_one(name)
        return Joined(self._query, self._merged(first, beside), beside)

    def _sides(self) -> tuple[str, tuple[str, ...]]:
        """Return the table whose rows are counted, and those beside it, which have one row a person everywhere."""
        names, ones = tuple(self._tables.values()), set(self._tables.values())
        for silo in self._offer.silos.values():
            ones &= {one.name for one in silo.tables if one.one_row and "." not in one.name}
        several = [name for name in names if name not in ones]
        if len(several) > 1:
            what = f"{' and '.join(map(repr, several))} may both have several rows of a person"
            raise SqlError(unsupported(self._joins[0], what).message, _ONE_ROW)
        first = several[0] if several else names[0]
        return first, tuple(sorted(name for name in names if name != first))

    def _conditions(self) -> Iterator[exp.Expr]:
        """Yield what joins and WHERE ask beside that the persons are the same; raises SqlError for another join."""
        where, known = self._select.args.get("where"), [next(iter(self._tables))]
        loose = [] if where is None else list(where.this.flatten() if isinstance(where.this, exp.And) else [where.this])
        for join, alias in zip(self._joins, list(self._tables)[1:], strict=True):
            wrong_kind(join, self._tables[known[0]], self._tables[alias], min(self._persons, default="the person"))
            using, on = [one.name for one in join.args.get("using") or []], join.args.get("on")
            parts = [] if on is None else list(on.flatten() if isinstance(on, exp.And) else [on])
            same = [one for one in parts if self._is_same(one, alias, known)]
            if not same and not using:
                same = [one for one in loose if self._is_same(one, alias, known)]
                loose = [one for one in loose if one not in same]
            if (using and not set(using) <= self._persons) or not (same or using):
                person = min(self._persons, default="the person")
                named = f"{known[0]}.{person} = {alias}.{person}"
                message = f"tables are joined on the person alone{sql_position(join)}"
                raise SqlError(message, f"write ON {named}; who has what in both tables is a condition in WHERE")
            yield from (one.copy() for one in parts if one not in same)
            known.append(alias)
        yield from (one.copy() for one in loose)

    def _is_same(self, node: exp.Expr, alias: str, known: Sequence[str]) -> bool:
        """Tell whether a condition says that the person of one table is that of another before it."""
        node = node.unnest()
        if not isinstance(node, exp.EQ):
            return False
        sides = node.this.unnest(), node.expression.unnest()
        if not all(isinstance(one, exp.Column) and one.name in self._persons for one in sides):
            return False
        return {one.table for one in sides} in [{alias, other} for other in known]

    def _rename(self, column: exp.Column, first: str) -> None:
        """Name a column as the one table does."""
        name, qualifier = column.name, column.table
        if qualifier and qualifier not in self._tables and qualifier not in self._tables.values():
            return  # an unknown table, which is refused where columns are read
        if name in self._persons:
            column.set("table", None)
            return
        has = [self._tables.get(qualifier, qualifier)] if qualifier else self._having(name)
        if len(has) > 1:
            hint = f"write {' or '.join(f'{one}.{name}' for one in has)}"
            raise SqlError(f"column {name!r}{sql_position(column)} is in {len(has)} tables", hint)
        column.set("table", None)
        if not has or has[0] == first:
            return
        known = column.this.copy()  # with its place in the text
        known.set("this", f"{has[0]}.{name}")
        known.set("quoted", True)
        new: exp.Expr = exp.Column(this=known)
        is_shown = isinstance(column.parent, exp.Select) and column.arg_key == "expressions"
        column.replace(exp.alias_(new, name, quoted=True) if is_shown else new)

    def _having(self, name: str) -> list[str]:
        """Return the tables that have a column, unless the answer has one of that name which is computed."""
        found = [table for table in self._tables.values() if name in self._offer.columns(table)]
        computed = {one.alias for one in self._select.expressions if one.alias and not isinstance(one.this, exp.Column)}
        return [] if name in computed and not found else found

    def _check_is_one(self, table: str) -> None:
        """Raise SqlError unless all silos define the columns of another table that are used in the same way."""
        prefix = f"{table}."
        names = {
            one.name.removeprefix(prefix) for one in self._select.find_all(exp.Column) if one.name.startswith(prefix)
        }
        known = self._offer.columns(table)
        self._offer.check_is_one(table, [name for name in names if name in known])

    def _merged(self, first: str, beside: tuple[str, ...]) -> Offer:
        """Return an offer whose silos open one table with the columns of all."""
        silos = {}
        for silo, catalogue in self._offer.silos.items():
            by_name: Mapping[str, OpenTable] = {one.name: one for one in catalogue.tables}
            columns = [one for one in by_name[first].columns if one.column.name.partition(".")[0] not in beside]
            columns += [
                one.model_copy(update={"column": one.column.model_copy(update={"name": f"{name}.{one.column.name}"})})
                for name in beside
                for one in by_name[name].columns
                if one.column.type != "date"
            ]
            table = by_name[first].model_copy(update={"columns": tuple(columns)})
            silos[silo] = catalogue.model_copy(update={"tables": (table,)})
        using = f" USING ({min(self._persons)})"
        written = " ".join([first, *(f"JOIN {name}{using}" for name in beside)])
        return replace(self._offer, silos=silos, written={first: written})
