"""Questions about persons: an inner question that makes one row of each, and what of it cannot be asked.

    SELECT cohort, COUNT(*) FROM (SELECT customer_id, MIN(quarter) AS cohort FROM purchases GROUP BY customer_id)
    GROUP BY cohort

The inner question becomes `Plan.inner`, and in the statement around it stands a table of its rows, which the rules of
`analyst.sql.plan` read as any other one. An inner question that groups by more than the person makes a row for each
group of a person (`analyst.sql.inner_keys`). A person is named by the silos' `id_column`, which no silo opens.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.columns import by_each
from analyst.sql.draft import PlanDraft
from analyst.sql.inner_keys import InnerKeys, check_grouped, keys_of
from analyst.sql.inside import Figure, bounded, figure
from analyst.sql.nodes import has_figure, number, written_keys
from analyst.sql.offer import Offer
from analyst.sql.parse import sql_position, unsupported
from analyst.sql.predicates import filters
from analyst.sql.row_bounds import MAX_GROUPS
from policies.requests.catalogue import OpenColumn, OpenTable
from policies.requests.persons import MAX_FIGURES, Inner, InnerColumn
from policies.requests.predicates import Predicate
from policies.requests.tables import Table, TableColumn
from policies.units import MAX_RANGE_STEPS

ROWS = "persons"  # the table of the inner rows, in the statement around them
_COMPARISONS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE)
_INNER = {"expressions", "from_", "where", "group", "having", "distinct"}
_SWAPS = 10_000


@dataclass(frozen=True, slots=True)
class ByPerson:
    """A question about rows of persons: the statement around them, what makes them, and the offer to ask about them."""

    outer: exp.Query
    table: str  # of the rows that they are made of
    inner: Inner
    offer: Offer
    keys: InnerKeys  # what it groups by beside the person


def by_person(query: exp.Query, offer: Offer) -> ByPerson | None:
    """Return a question about rows of persons in its parts; None for any other one. Raises SqlError."""
    if not any(_person_of(one, offer) for one in query.find_all(exp.Select)):
        return None
    query = query.copy()
    found = ((one, named) for one in query.find_all(exp.Select) if (named := _person_of(one, offer)) is not None)
    inside, named = next(found, (None, None))
    if inside is None or named is None:
        return None
    around, qualifiers = _replaced(query, inside, named)
    return _Reading(query, inside, around, qualifiers, offer).read()


def is_count_of_persons(node: exp.Expr, table: str, offer: Offer) -> bool:
    """Tell whether an expression is COUNT(DISTINCT person)."""
    match node:
        case exp.Count(this=exp.Distinct(expressions=[exp.Column() as target])) if not node.expressions:
            return is_person(target, table, offer)
    return False


def is_person(node: exp.Expr, table: str, offer: Offer) -> bool:
    """Tell whether an expression is the column of the person: every row that counts has one."""
    return isinstance(node, exp.Column) and node.name in offer.persons(table)


def _base(select: exp.Select) -> exp.Table | None:
    source = select.args.get("from_")
    table = None if source is None else source.this
    return table if isinstance(table, exp.Table) else None


def _person_of(select: exp.Select, offer: Offer) -> tuple[str, str] | None:
    """Return the name of the person that a SELECT groups rows of a table by, and the table; None where it does not."""
    table = _base(select)
    if table is None or table.name not in offer.tables:
        return None
    persons = offer.persons(table.name)
    keys = (key.name for key in written_keys(select) if isinstance(key, exp.Column) and key.name in persons)
    return next(((key, table.name) for key in keys), None)


def _replaced(query: exp.Query, inside: exp.Select, named: tuple[str, str]) -> tuple[exp.Select, set[str]]:
    """Put the table of rows in the place of the inner question; return the SELECT that reads it, and its other names.

    Raises SqlError where the inner question is the whole question, or is read twice.
    """
    holder, rows = inside.parent, exp.to_table(ROWS)
    if isinstance(holder, exp.Subquery):
        place: exp.Expr = holder
        names = {holder.alias} if holder.alias else set()
    elif isinstance(holder, exp.CTE):
        readers = [one for one in query.find_all(exp.Table) if one.name == holder.alias]
        if len(readers) != 1:
            raise unsupported(inside, f"{holder.alias!r} is read {len(readers)} times, an inner question is read once")
        place, with_ = readers[0], holder.parent
        names = {place.name, place.alias} - {""}
        holder.pop()
        if with_ is not None and not with_.expressions:
            with_.pop()
    else:
        where = f"the question lists single persons{sql_position(inside)}, and no row leaves a silo"
        raise SqlError(where, f"ask about all of them, as in {by_each(*named)}")
    around = place.find_ancestor(exp.Select)
    if around is None or not isinstance(place.parent, exp.From):
        raise unsupported(inside, "an inner question by person stands in FROM only")
    place.replace(rows)
    return around, names


class _Reading:
    """Reads one inner question, and the statement around it."""

    def __init__(
        self, query: exp.Query, inside: exp.Select, around: exp.Select, qualifiers: set[str], offer: Offer
    ) -> None:
        self._query, self._inside, self._around, self._offer = query, inside, around, offer
        self._qualifiers, self._text = qualifiers, inside.sql(dialect="duckdb", comments=False)
        table = _base(inside)
        self._table = "" if table is None else table.name
        self._persons, self._figures = set[str](), dict[str, tuple[Figure, exp.Expr]]()
        self._keys = InnerKeys()

    def read(self) -> ByPerson:
        """Return the parts of the question; raises SqlError."""
        self._check_clauses()
        self._columns()
        having = self._inside.args.get("having")
        if having is not None:
            self._hidden(having.this)
            own = self._around.args.get("where")
            both = having.this if own is None else exp.and_(having.this, own.this, copy=False)
            self._around.set("where", exp.Where(this=both))
        self._check_around()
        self._name_persons()
        self._keys.rename(self._around)
        check_grouped(self._keys, self._around)
        self._bounded_outside()
        where, columns = self._where(), self._counted(self._inner_columns())
        cases = tuple(self._keys.cases.values())
        inner = Inner(where=where, columns=columns, cases=cases)
        return ByPerson(self._query, self._table, inner, self._seen(columns), self._keys)

    def _check_clauses(self) -> None:
        for clause, node in self._inside.args.items():
            if node and clause not in _INNER:
                raise unsupported(self._inside, f"{clause.rstrip('_').upper()} is not supported inside")
        table = _base(self._inside)
        known = {self._table, "" if table is None else table.alias}
        for column in self._inside.find_all(exp.Column):
            if column.table in known:
                column.set("table", None)
        if table is not None:
            table.set("alias", None)
        keys = written_keys(self._inside)
        others = [one for one in keys if not (isinstance(one, exp.Column) and one.name in self._names)]
        self._keys = keys_of(self._inside, others, self._table, self._offer)
        self._figures.update(self._keys.columns)

    def _check_around(self) -> None:
        """Refuse a statement around rows by group that groups by the person again."""
        again = [key for key in written_keys(self._around) if isinstance(key, exp.Column) and key.name in self._persons]
        if again and self._keys:
            person, keys = self._names[0], list(self._keys.columns)
            key = keys[0] if len(keys) == 1 else "x"
            inner = f"SELECT {person}, COUNT(DISTINCT {key}) AS n FROM {self._table} GROUP BY {person}"  # noqa: S608
            raise SqlError(
                f"the rows of a person are made one twice{sql_position(again[0])}",
                f"make them one at once, with each figure of all of them: SELECT n, COUNT(*) FROM ({inner}) GROUP BY n",  # noqa: S608
            )

    @property
    def _names(self) -> tuple[str, ...]:
        return self._offer.persons(self._table)

    def _where(self) -> Predicate | None:
        return filters(self._inside, PlanDraft(table=self._table), self._offer).where

    def _columns(self) -> None:
        """Read the columns of the inner question."""
        for projection in self._inside.expressions:
            node = projection.unalias()
            if isinstance(node, exp.Column) and node.name in self._names:
                self._persons.add(projection.alias or node.name)
                continue
            if self._keys.name(node) is not None:
                continue
            if isinstance(node, exp.Column | exp.Star):
                raise SqlError(
                    f"{node.sql(dialect='duckdb')[:60]}{sql_position(node)} differs between the rows of a person",
                    "take its least or greatest value, MIN or MAX, or ANY_VALUE; or group by it too",
                )
            name = projection.alias or _default(node)
            if name in self._figures or name in self._keys:
                raise SqlError(f"the name {name!r} is used twice inside", "give every column its own name with AS")
            self._figures[name] = self._figure(node), node

    def _figure(self, node: exp.Expr) -> Figure:
        found = figure(node, self._table, self._offer)
        if not found.of_person:
            return found
        place, person = sql_position(node), self._names[0]
        if not self._keys:
            hint = f"group by {person} and something else; without, there is one row of each person"
            raise SqlError(f"a window inside reads several groups of a person{place}", hint)
        window = node.find(exp.Window)
        figure_of = None if window is None else window.this
        of = None if figure_of is None else figure_of.this
        if figure_of is not None and isinstance(of, exp.Column) and self._keys.name(of) is None:
            again = type(figure_of)(this=figure_of.copy()).sql(dialect="duckdb")
            hint = f"read the figure of each group: {again} OVER (PARTITION BY {person})"
            raise SqlError(f"{of.name!r} is no group that a window inside can read{place}", hint)
        if self._inside.args.get("having") is not None:
            hint = "write the condition outside, in WHERE, by the name of what it compares"
            raise SqlError(f"a window inside reads what HAVING leaves{place}", hint)
        return found

    def _hidden(self, node: exp.Expr) -> None:
        """Put a column in the place of every figure of HAVING."""
        for one in _figures_of(node):
            found = figure(one, self._table, self._offer)
            fresh = (name for place in range(1, _SWAPS) if (name := f"having_{place}") not in self._figures)
            known = (name for name, (own, _) in self._figures.items() if own == found and name.startswith("having_"))
            name = next(known, None) or next(fresh)
            self._figures[name] = found, one.copy()
            one.replace(exp.column(name))

    def _name_persons(self) -> None:
        """Take the qualifiers off, and let a count of the persons be the count of their rows."""
        for column in list(self._around.find_all(exp.Column)):
            if column.table in self._qualifiers:
                column.set("table", None)
            if self._keys:  # a person has several rows, which COUNT(DISTINCT person) tells from persons
                if column.name in self._persons and not column.table:
                    column.set("this", exp.to_identifier(min(self._persons)))
                continue
            counted = column.parent
            if isinstance(counted, exp.Distinct) and len(counted.expressions) == 1:
                counted = counted.parent
            if column.name in self._persons and isinstance(counted, exp.Count) and not column.table:
                counted.set("this", exp.Star())

    def _inner_columns(self) -> Iterator[InnerColumn]:
        """Yield the inner columns that the statement around reads, each with its bounds."""
        for name, (found, node) in self._figures.items():
            uses = [one for one in self._around.find_all(exp.Column) if one.name == name and not one.table]
            if not uses and name not in self._keys:
                continue
            within = self._within(name, found, uses)
            try:
                yield within.inner(name, node)
            except ValueError as err:
                hint = "name it with AS, in letters, digits and _"
                raise SqlError(f"the column {name!r} inside cannot be asked{sql_position(node)}", hint) from err

    def _counted(self, columns: Iterable[InnerColumn]) -> tuple[InnerColumn, ...]:
        """Return the inner columns; raises SqlError for more than one request has."""
        found = tuple(columns)
        if len(found) > MAX_FIGURES:
            _, node = self._figures[found[MAX_FIGURES].name]
            message = f"{len(found)} figures inside, at most {MAX_FIGURES} are asked{sql_position(node)}"
            raise SqlError(message, "ask fewer at once, and the others in a second question")
        return found

    def _within(self, name: str, found: Figure, uses: Sequence[exp.Column]) -> Figure:
        """Return a figure within public bounds: those of the question, of its comparisons, or of the policy's rows."""
        compared = [_compared_with(use) for use in uses] if found.needs_bounds else []
        values = [value for each in compared for value in each]
        if values and all(compared) and found.low is None:
            return found.compared(values)
        where = f"{found.text} of a person{sql_position(self._figures[name][1])}"
        alias = "" if name.startswith("having_") else f" AS {name}"
        hint = f"write {found.example()}{alias}: the most that may count of one person"
        is_count = found.function == "count" and found.needs_bounds
        if is_count and self._max_rows > MAX_GROUPS and self._is_group(name):
            raise SqlError(f"{where} has as many groups as a person has rows, up to {self._max_rows:,}", hint)
        within = found.within(self._max_rows, values)
        if within.steps > MAX_RANGE_STEPS:
            raise SqlError(f"{where} has {within.steps:,} steps, at most {MAX_RANGE_STEPS:,} are added", hint)
        return within

    def _is_group(self, name: str) -> bool:
        return any(isinstance(key, exp.Column) and key.name == name for key in written_keys(self._around))

    @property
    def _max_rows(self) -> int:
        return min(self._offer.silos[silo].max_rows for silo in self._offer.holders(self._table))

    def _bounded_outside(self) -> None:
        """Let LEAST(n, 20) of a figure without bounds, in the statement around, be a figure inside."""
        for _ in range(2):  # GREATEST(LEAST(...), ...)
            for node in list(self._around.find_all(exp.Least, exp.Greatest)):
                parts = [node.this, *node.expressions]
                named = [one for one in parts if isinstance(one, exp.Column) and one.name in self._figures]
                bounds = [bound for one in parts if (bound := number(one)) is not None]
                if len(parts) != 2 or len(named) != 1 or len(bounds) != 1:
                    continue
                found, at = self._figures[named[0].name]
                if found.function in ("count", "sum"):
                    word = "up_to" if isinstance(node, exp.Least) else "from"
                    name = f"{named[0].name}_{word}_{bounds[0]:f}"
                    self._figures[name] = bounded(found, bounds[0], is_least=isinstance(node, exp.Least)), at
                    node.replace(exp.column(name, quoted=True))

    def _seen(self, columns: tuple[InnerColumn, ...]) -> Offer:
        """Return the offer in which the rows of persons are a table, also with columns that are not read."""
        more = list[InnerColumn]()
        for name, (found, node) in self._figures.items():
            with suppress(SqlError, ValueError):
                if name not in {one.name for one in columns}:
                    more.append(self._within(name, found, ()).inner(name, node))
        inner = Inner(where=None, columns=(*columns, *more)[:MAX_FIGURES])
        offer, used = self._offer, [name for names in inner.uses().values() for name in names]
        offer.check_is_one(self._table, used)
        read = tuple(offer.with_values(offer.column(self._table, name)) for name in dict.fromkeys(used))
        base = Table.model_construct(name=self._table, max_rows=1, max_silos=1, columns=read)
        grouped = {key.name for key in written_keys(self._around) if isinstance(key, exp.Column)}
        try:
            defined = inner.table(base, grouped).columns
        except ValueError as err:
            raise SqlError(f"too many groups: {err}", "write a smaller bound, as in LEAST(COUNT(*), 20)") from err
        person = min(self._persons) if self._keys and self._persons else None
        closed = {name for name, (found, _) in self._figures.items() if self._is_closed(found)}
        rows = _offer_of(offer, self._table, (*defined, *self._keys.opened()), person, closed)
        return replace(rows, written={ROWS: f"({self._text})"})

    def _is_closed(self, figure: Figure) -> bool:
        """Tell whether some silo lets no threshold be set inside the values that a figure is of."""
        holders, column = self._offer.holders(self._table).values(), figure.column
        opened = [columns[column.name] for columns in holders if column is not None and column.name in columns]
        return not all(one.is_narrowable for one in opened)


def _offer_of(
    offer: Offer, table: str, columns: tuple[TableColumn, ...], person: str | None, closed: Collection[str]
) -> Offer:
    """Return an offer whose silos with a table have the rows of persons instead, named by `person` if at all.

    The columns in `closed` are none for conditions.
    """
    opened = tuple(
        OpenColumn.model_construct(
            column=one,
            roles=("dimension", "measure") if one.name in closed else ("dimension", "measure", "filter"),
            unit=None,
            narrow=False,
        )
        for one in columns
    )
    rows = OpenTable.model_construct(name=ROWS, columns=opened, definition=bytes(32), rows_up_to=None)
    silos = {
        silo: offer.silos[silo].model_copy(update={"tables": (rows,), "id_column": person})
        for silo in offer.holders(table)
    }
    return replace(offer, silos=silos, is_chosen=True)


def _compared_with(use: exp.Column) -> list[Decimal]:
    """Return the numbers that a use of a column compares it with; nothing where it does anything else."""
    parent, values = use.parent, list[exp.Expr]()
    while isinstance(parent, exp.Paren):
        parent = parent.parent
    match parent:
        case exp.Between():
            values = [parent.args["low"], parent.args["high"]]
        case exp.In() if parent.expressions:
            values = parent.expressions
        case _ if isinstance(parent, _COMPARISONS):
            sides = [parent.args["this"].unnest(), parent.args["expression"].unnest()]
            values = [side for side in sides if side is not use]
    numbers = [one for value in values if (one := number(value)) is not None]
    return numbers if len(numbers) == len(values) else []


def _figures_of(node: exp.Expr) -> list[exp.Expr]:
    """Return the figures of a condition: the sides of its comparisons that have an aggregate."""
    found, pending = list[exp.Expr](), [node]
    while pending:
        one = pending.pop()
        if isinstance(one, (exp.And, exp.Or, exp.Not, exp.Paren, exp.Between, exp.In, exp.Is, *_COMPARISONS)):
            pending += reversed(list(one.iter_expressions()))
        elif has_figure(one):
            found.append(one)
    return found


def _default(node: exp.Expr) -> str:
    inner = node.find(exp.AggFunc)
    target = None if inner is None else inner.find(exp.Column)
    return f"{'figure' if inner is None else inner.key}_{'star' if target is None else target.name}"
