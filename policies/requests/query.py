"""A question: the typed plan of one SELECT. The plan travels; SQL never leaves the analyst.

Shape of a question: a block for each statistic, one number for each group of the closed domains. A silo's contribution
is computed in `silo_node/data/query.py`, the answer's estimates in `analyst/reports/estimates.py`;
`analyst/sql/plan.py` reads it from SQL.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from crypto.wire import Message, Name
from policies.requests.cases import MAX_CASES, Cases, Group, by_name, check_cases, columns_in
from policies.requests.expressions import MAX_DERIVED, Derived
from policies.requests.measures import (
    base_columns,
    check_derived,
    compared_by,
    crossed_by,
    thresholds_of,
    with_derived,
)
from policies.requests.moments import OPENED_AS, PAIRS, SPREADS, product_most, square_most
from policies.requests.persons import OF_PAIRS, PERSONS, Inner, of_persons
from policies.requests.predicates import Both, Predicate, check_predicates, columns_of, cost_of, in_words
from policies.requests.statistic import Extent, Statistic, noised
from policies.requests.survival import ROW, SURVIVAL, Width, check_curve, grid_of, of_curves
from policies.requests.tables import Table, TableColumn, check_role
from policies.requests.trees import QUANTILES, TREE, tree_over
from policies.units import ColumnRole, counted

MAX_NAME = 120  # characters of a column of the answer
ROWS = Statistic("rows")
QuantileAt = Annotated[str, Field(pattern=r"^0\.[0-9]{0,5}[1-9]$")]
# How many persons had nothing cut, rows only, values only, and both: once a question, not by group.
CUT = Statistic("cut")
CUT_SLOTS = 4
RANKED = "by how many rows lie below each of its values"  # the threshold that a quantile sets
_OTHERS = 15  # parts of the price, of 16, that go to the figures where a question also counts what was cut
OTHERWISE_OPENED: Mapping[str, str] = MappingProxyType({"persons": "count", **dict.fromkeys(QUANTILES, "quantile")})
# The statistics of its column that each figure is computed from, by kind.
AGGREGATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(QUANTILES, ("present", TREE)),
        "count": ("present",),
        "sum": ("present", "total"),
        "avg": ("present", "total"),
        **SPREADS,
    }
)
# The most that one row changes each kind of statistic, of a column and of another if it has one; the sums are computed
# in `silo_node/data/answer.py`.
PER_ROW: Mapping[str, Callable[[TableColumn, TableColumn | None], int]] = MappingProxyType(
    {
        TREE: lambda column, other: 1,
        SURVIVAL: lambda column, other: ROW,
        "present": lambda column, other: 1,
        "total": lambda column, other: column.range_steps,
        "square": lambda column, other: square_most(column),
        "product": lambda column, other: product_most(column, other or column),
    }
)


def opened_by(function: str) -> str:
    """Return the name in `disclosure.aggregates` that opens a function; a number of persons is a count."""
    return OTHERWISE_OPENED.get(function) or OPENED_AS.get(function, function)


def field_names(alias: str) -> tuple[str, ...]:
    """Return the names of an aggregate's columns where an answer is flat: value, ends of its interval, deviation."""
    return alias, f"{alias}_low", f"{alias}_high", f"{alias}_sd"


def statistic_of(kind: str, column: TableColumn, beside: TableColumn | None = None) -> Statistic:
    """Return the statistic of a kind of a column, over the rows where `beside` is present too.

    Where no cell can be missing, the rows count a column's cells, and being beside it is no condition: so figures share
    what is the same.
    """
    columns = [column] if beside is None else sorted((column, beside), key=lambda one: one.name)
    if kind == "product":
        return Statistic(kind, *(one.name for one in columns))
    missing = [one.name for one in columns if one.can_be_missing]
    if kind == "present":
        return Statistic(kind, *missing) if missing else ROWS
    return Statistic(kind, column.name, *(name for name in missing if name != column.name))


class Aggregate(Message):
    """function(column, other) AS alias; only figures of a pair, and of a time and an event, have another.

    `width` is that of a curve's bins, in steps. No column means COUNT(*), or of `persons` COUNT(DISTINCT person).
    """

    function: Literal[
        "count", "sum", "avg", "persons", "var_pop", "var_samp", "stddev_pop", "stddev_samp", "covar_pop", "covar_samp",
        "corr", "regr_slope", "regr_intercept", "regr_r2", "regr_count", "regr_avgx", "regr_avgy",
        "quantile", "quantile_disc", "survival",
    ]  # fmt: skip
    column: Name | None
    alias: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    other: Annotated[Name | None, Field(default=None, exclude_if=lambda name: name is None)] = None
    # Of a quantile, the share of the rows that lie below it.
    at: Annotated[QuantileAt | None, Field(default=None, exclude_if=lambda at: at is None)] = None
    width: Width = None

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for name in (self.column, self.other) if name is not None)

    @property
    def opened_as(self) -> str:
        """The name in `disclosure.aggregates` that opens it."""
        return opened_by(self.function)

    def statistics(self, table: Table) -> tuple[Statistic, ...]:
        """Return the statistics that this figure is computed from."""
        if self.column is None:
            return (PERSONS if self.function == "persons" else ROWS,)
        column = table.column(self.column)
        if self.other is not None and self.function == SURVIVAL:
            return statistic_of("present", column, table.column(self.other)), Statistic(SURVIVAL, *self.columns)
        if self.other is not None:
            return self._of_pair(column, table.column(self.other))
        kinds = AGGREGATES[self.function]
        return tuple(statistic_of(kind, column) for kind in kinds if PER_ROW[kind](column, None))

    def _of_pair(self, first: TableColumn, second: TableColumn) -> tuple[Statistic, ...]:
        parts = [
            (kind, *((second, first) if whose == "second" else (first, second))) for kind, whose in PAIRS[self.function]
        ]
        return tuple(statistic_of(kind, one, beside) for kind, one, beside in parts if PER_ROW[kind](one, beside))

    def check(self) -> None:
        """Raise ValueError unless the function has as many columns as it takes."""
        if self.function == "persons" and self.columns:
            raise ValueError("persons are counted without a column")
        wanted = 2 if self.function in PAIRS or self.function == SURVIVAL else 1
        is_fitting = len({self.column, self.other} - {None}) == wanted and self.column is not None
        if not is_fitting and (self.function not in ("count", "persons") or self.columns):
            raise ValueError(f"{self.function} takes {counted(wanted, 'column')}, each another one")
        if (self.at is not None) != (self.function in QUANTILES):
            raise ValueError("a quantile is at a share of the rows, and nothing else is")
        if self.width is not None and self.function != SURVIVAL:
            raise ValueError(f"{self.function} has no width")

    def in_words(self) -> str:
        """Return what it computes, in SQL's words."""
        if self.function == "persons":
            return "COUNT(DISTINCT person)"
        at = "" if self.at is None else f", {self.at}"
        width = "" if self.width is None else f", bins of {self.width} steps"
        return f"{self.function.upper()}({', '.join(self.columns) or '*'}{at}{width})"


def _extent(
    kind: str, columns: Sequence[TableColumn | None], width: int | None, length: int, most: int, share: int
) -> Extent:
    """Return the extent of a statistic of rows, of which a person has at most `most` in a group, or that norm.

    `columns` are those of the statistic, `width` that of a curve's bins.
    """
    first, second = columns
    if kind == SURVIVAL and first is not None:
        return of_curves(length, grid_of(first, width).bins, most, share)
    if kind == TREE and first is not None:
        return tree_over(first).extent(length, most, share)
    per_row = 1 if first is None else PER_ROW[kind](first, second)
    return noised(length, most * per_row, share, per_row)


class Plan(Message):
    """One grouped question about one table."""

    kind: Literal["query"] = "query"
    where: Predicate | None
    group_by: Annotated[tuple[Name, ...], Field(max_length=8)]
    aggregates: Annotated[tuple[Aggregate, ...], Field(min_length=1, max_length=32)]
    # Whether the answer also tells how many persons had rows left out or values clamped, for a sixteenth of the price.
    counts_cut: Annotated[bool, Field(default=False, exclude_if=lambda counts: not counts)] = False
    # The dimensions that are no column: `group_by` names them.
    cases: Annotated[
        tuple[Cases, ...], Field(default=(), max_length=MAX_CASES, exclude_if=lambda cases: not cases)
    ] = ()
    # What makes one row of all rows of a person; all else here is then about these rows.
    inner: Annotated[Inner | None, Field(default=None, exclude_if=lambda inner: inner is None)] = None
    # The measures that are no column, but computed of a row: `aggregates` name them.
    derived: Annotated[
        tuple[Derived, ...], Field(default=(), max_length=MAX_DERIVED, exclude_if=lambda derived: not derived)
    ] = ()

    release: ClassVar[Literal["private", "exact"]] = "private"
    result: ClassVar[Literal["query-result", "model", "metrics"]] = "query-result"
    approved_as: ClassVar[Literal["query", "training", "key-search"]] = "query"
    training: ClassVar[None] = None
    side: ClassVar[None] = None
    judged: ClassVar[None] = None
    reads_rows: ClassVar[bool] = True
    opened_as: ClassVar[str] = "query"
    search: ClassVar[None] = None
    part: ClassVar[None] = None
    portions: ClassVar[tuple[tuple[int, int], ...]] = ((1, 1),)

    @property
    def alone(self) -> tuple["Plan", ...]:
        return (self,)

    @property
    def blocks(self) -> tuple["Plan", ...]:
        return (self,)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The columns by which it is grouped; in the place of a case those that it reads."""
        known = by_name(self.all_cases)
        named = (known[name].columns if name in known else (name,) for name in self.group_by)
        return tuple(dict.fromkeys(column for columns in named for column in columns))

    @property
    def all_cases(self) -> tuple[Cases, ...]:
        """Its cases, and those of its inner question: what it is grouped by is one of them, or a column."""
        return self.cases if self.inner is None else (*self.cases, *self.inner.cases)

    @property
    def curve(self) -> Aggregate | None:
        """Its survival curve, if that is what it asks."""
        return next((one for one in self.aggregates if one.function == SURVIVAL), None)

    @property
    def coarsened(self) -> tuple[str, ...]:
        """The columns of which cases, and nothing else, ask which member of their closed domain they are."""
        if self.inner is not None:  # its conditions compare figures, which is more than to merge members
            return ()
        otherwise = {*columns_of(self.where), *(name for one in self.cases for name in one.ordered)}
        otherwise.update(compared_by(self.derived))
        return tuple(name for name in dict.fromkeys(columns_in(self.cases)) if name not in otherwise)

    @property
    def functions(self) -> tuple[str, ...]:
        """The names in `disclosure.aggregates` of what it computes; a number of persons is a count."""
        own = (aggregate.opened_as for aggregate in self.aggregates)
        return tuple(dict.fromkeys((*own, *(() if self.inner is None else self.inner.functions))))

    @property
    def has_own_noise(self) -> bool:
        return False

    @property
    def is_about_persons(self) -> bool:
        """Whether it counts persons, or makes figures of a row of each."""
        return self.inner is not None or any(one.function == "persons" for one in self.aggregates)

    def rows_in_words(self, table: Table) -> str:
        """Return how many rows of a person enter, in words."""
        if self.inner is not None and self.inner.keys:
            keys, most = ", ".join(self.inner.keys), self.seen(table).max_rows
            return f"at most {counted(most, 'row')}, each made of all rows at a silo of one {keys}"
        if self.inner is not None:
            return "one row made of all rows at a silo"
        if any(one.function != "persons" for one in self.aggregates):
            return f"at most {counted(table.max_rows, 'row')}"
        few = f" in at most {counted(table.max_rows, 'group')}"
        return f"one count{few if self.group_by else ''}"

    def thresholds(self, table: Table) -> Iterator[tuple[str, str]]:
        """Yield the columns inside whose values it sets a threshold, and how, but for those of its conditions."""
        spread = base_columns((str(one.column) for one in self.aggregates if one.at is not None), self.derived)
        found = dict.fromkeys(spread, RANKED)
        times = () if self.curve is None else base_columns(self.curve.columns[:1], self.derived)
        found |= dict.fromkeys(times, "by the bins of a survival curve")
        found |= thresholds_of(self.derived, self.row(table), self.where)
        if self.inner is not None:
            yield from self.inner.thresholds(table, {*self.compared, *found}, self.group_by)
        else:
            yield from found.items()

    @property
    def compared(self) -> tuple[str, ...]:
        """The columns that conditions read: of rows, of groups and of computed measures."""
        return (*dict.fromkeys((*columns_of(self.where), *columns_in(self.cases), *compared_by(self.derived))),)

    @property
    def conditions(self) -> tuple[Predicate, ...]:
        where = self.where if self.inner is None else self.inner.where  # what rows must meet, and not persons
        if where is None:
            return ()
        return where.operands if isinstance(where, Both) else (where,)

    def row(self, table: Table) -> Table:
        """Return the definition of a row: the table, or of an inner question its row of a person."""
        return table if self.inner is None else self.inner.table(table, self.group_by)

    def seen(self, table: Table) -> Table:
        """Return the definition of what the figures are of: a row, and the measures derived of it."""
        return with_derived(self.row(table), self.derived, self.where)

    @property
    def paired(self) -> tuple[str, ...]:
        pairs = [name for aggregate in self.aggregates if aggregate.other is not None for name in aggregate.columns]
        return (*base_columns(pairs, self.derived), *crossed_by(self.derived))

    def uses(self) -> Mapping[ColumnRole, tuple[str, ...]]:
        if self.inner is not None:
            return self.inner.uses()
        known = by_name(self.cases)
        measures = base_columns((name for one in self.aggregates for name in one.columns), self.derived)
        dimensions = tuple(name for name in self.group_by if name not in known)
        return {"dimension": dimensions, "filter": self.compared, "measure": measures}

    def valued(self, table: Table) -> tuple[str, ...]:
        """Return the columns of which values enter a figure, and not only their number."""
        valued = [one for one in self.statistics(table) if one.kind in PER_ROW and one.kind != "present"]
        names = (name for one in valued for name in (one.column, one.other if one.kind == "product" else None))
        return base_columns((name for name in names if name is not None), self.derived)

    def group_count(self, table: Table) -> int:
        count = 1
        for members in self._members(table):
            count *= len(members)
        return count

    def _members(self, table: Table) -> Iterator[Sequence[Group]]:
        """Yield the groups of each dimension, in the order of the slots."""
        known, seen = by_name(self.all_cases), self.seen(table)
        return (known[name].groups if name in known else seen.column(name).domain for name in self.group_by)

    def size(self, table: Table) -> int:
        """Return how much each row costs: columns read and the id, statistics, parts of the filter, and slots.

        A list of values and the slots count by the binary digits of their number: a row is looked up in them.
        """
        statistics = self.statistics(table)
        columns = {name for names in self.uses().values() for name in names}
        slots = sum(extent.length for extent in statistics.values())
        parts = cost_of(self.where) + sum(one.cost for one in self.cases) + sum(one.cost for one in self.derived)
        parts += 0 if self.inner is None else self.inner.size()
        parts += OF_PAIRS if self.group_by and PERSONS in statistics else 0
        pairs = sum(one.other is not None for one in statistics)  # each of which reads a second column
        return 1 + len(columns) + len(statistics) + pairs + parts + slots.bit_length()

    def groups(self, table: Table) -> Iterator[tuple[Group, ...]]:
        """Yield every group of the closed domains and cases, in the order of the slots; one without dimensions."""
        return product(*self._members(table))

    def statistics(self, table: Table) -> Mapping[Statistic, Extent]:
        """Return the rows, the rows where columns are present, centred totals and products: one number a group each.

        A total is in half steps (a centred value is doubled to stay whole), squares and products are in the units of
        `policies.requests.moments`, and the others count rows. The L2 norm of a person's rows by group is at most
        `most_in_a_group`, in the worst case of rows of one group, all at one end of the bounds. The last statistic, of
        what was cut, counts persons in four slots: each person is in one slot. A number of persons,
        and the row that an inner question makes of a person, are as `policies.requests.persons` has them.
        """
        length, found, seen = self.group_count(table), dict[Statistic, Extent](), self.seen(table)
        most, groups = seen.most_in_a_group, 1
        if self.inner is not None:
            most, groups = self.inner.most(seen, table, self.group_by)
        share = _OTHERS if self.counts_cut else 1
        for aggregate in self.aggregates:
            for statistic in aggregate.statistics(seen):
                if statistic == PERSONS:
                    found[statistic] = of_persons(length, seen.max_rows, share)
                    continue
                columns = (None if name is None else seen.column(name) for name in statistic[1:])
                extent = _extent(statistic.kind, tuple(columns), aggregate.width, length, most, share)
                found[statistic] = extent.in_groups(groups)
        if self.counts_cut:
            parts = sum(one.share for one in found.values()) // _OTHERS
            found[CUT] = noised(CUT_SLOTS, 1, share=parts)  # a sixteenth of the price, however many figures
        return found

    def check(self, table: Table, backend: str) -> None:
        fields = [name for aggregate in self.aggregates for name in field_names(aggregate.alias)]
        aliases = {aggregate.alias for aggregate in self.aggregates}
        if len(set(fields)) != len(fields) or len(aliases.union(self.group_by)) != len(aliases) + len(self.group_by):
            raise ValueError("an output name is used twice")
        for aggregate in self.aggregates:
            aggregate.check()
        if self.inner is not None:
            self._check_inner(self.inner, table)
        else:
            if self.where is not None:
                check_predicates((self.where,), table)
            check_cases(self.cases, self.group_by, table)
            check_derived(self, table)
        if self.curve is not None:
            self._check_curve(self.curve, table)

    def _check_curve(self, curve: Aggregate, table: Table) -> None:
        """Raise ValueError unless a survival curve stands alone, and can be computed."""
        if len(self.aggregates) > 1:
            raise ValueError("a survival curve is the only aggregate of its question")
        time, event = map(self.seen(table).column, curve.columns)
        check_curve(time, event, curve.width, self.group_count(table))

    def _check_inner(self, inner: Inner, table: Table) -> None:
        """Raise ValueError if an inner question contradicts the table definition, or the plan around it does."""
        if not inner.keys and any(one.function == "persons" for one in self.aggregates):
            raise ValueError("each row of an inner question is a person: COUNT(*) counts them")
        inner.check(table)
        seen, known = self.row(table), {one.name for one in inner.columns}
        measures = {*base_columns((name for one in self.aggregates for name in one.columns), self.derived)}
        if twice := by_name(self.cases).keys() & by_name(inner.cases):
            raise ValueError(f"{min(twice)!r} is a case inside and another one around it")
        grouped = [name for name in self.group_by if name not in by_name(self.all_cases)]
        if unknown := sorted({*grouped, *measures, *self.compared} - known):
            raise ValueError(f"there is no inner column {unknown[0]!r}")
        for role, names in (("dimension", grouped), ("measure", measures)):
            for name in names:
                check_role(seen, role, name)
        if self.where is not None:
            check_predicates((self.where,), inner.table(table))
        check_cases(self.cases, self.group_by, inner.table(table))
        check_derived(self, seen)

    def release_remedy(self, release: str) -> str:
        return "an exact source serves training only, never a question"

    def in_words(self, table_name: str) -> str:
        of = table_name if self.inner is None else self.inner.in_words(table_name)
        text = ", ".join(one.in_words() for one in self.aggregates) + f" of {of}"
        if self.where is not None:
            who = "" if self.inner is None else "; of these persons"
            text += f"{who} where {in_words(self.where)}"
        known = by_name(self.cases)  # those of an inner question are in its words
        named = (f"{name} ({known[name].in_words()})" if name in known else name for name in self.group_by)
        text += f" by {', '.join(named)}" if self.group_by else ""
        return text + "".join(f"; {one.in_words}" for one in self.derived)
