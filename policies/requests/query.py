"""A question: the typed plan of one SELECT. The plan travels; SQL never leaves the analyst.

Shape of a question: a block for each statistic, one number for each group of the closed domains. A silo's contribution
is computed in `silo_node/data/query.py`, the answer's estimates in `analyst/reports/estimates.py`;
`analyst/sql/plan.py` reads it from SQL.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from crypto.wire import Message, Name
from policies.requests.persons import OF_PAIRS, PERSONS, Inner, of_persons
from policies.requests.predicates import Both, Predicate, check_predicates, columns_of, cost_of
from policies.requests.predicates import in_words as predicate_in_words
from policies.requests.statistic import Extent, Statistic, noised
from policies.requests.tables import Table, TableColumn, check_role
from policies.units import ColumnRole

MAX_NAME = 120  # characters of a column of the answer
ROWS = Statistic("rows")
# How many persons had nothing cut, rows only, values only, and both: once a question, not by group.
CUT = Statistic("cut")
CUT_SLOTS = 4
_OTHERS = 15  # parts of the price, of 16, that go to the figures where a question also counts what was cut
# The statistics of its column that each figure is computed from, by kind.
AGGREGATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "count": ("present",),
        "sum": ("present", "total"),
        "avg": ("present", "total"),
    }
)
# The most that one row changes each kind of statistic; `silo_node/data/query.py` computes the sums.
PER_ROW: Mapping[str, Callable[[TableColumn], int]] = MappingProxyType(
    {
        "present": lambda column: 1,
        "total": lambda column: column.range_steps,
    }
)


def field_names(alias: str) -> tuple[str, ...]:
    """Return the names of an aggregate's columns where an answer is flat: value, ends of its interval, deviation."""
    return alias, f"{alias}_low", f"{alias}_high", f"{alias}_sd"


def statistic_of(kind: str, column: TableColumn) -> Statistic:
    """Return the statistic of a kind of a column; where no cell can be missing, the rows count its cells."""
    return ROWS if kind == "present" and not column.can_be_missing else Statistic(kind, column.name)


class Aggregate(Message):
    """function(column) AS alias; no column means COUNT(*), or of `persons` COUNT(DISTINCT person)."""

    function: Literal["count", "sum", "avg", "persons"]
    column: Name | None
    alias: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]

    def statistics(self, table: Table) -> tuple[Statistic, ...]:
        """Return the statistics that this figure is computed from."""
        if self.column is None:
            return (PERSONS if self.function == "persons" else ROWS,)
        column = table.column(self.column)
        return tuple(statistic_of(kind, column) for kind in AGGREGATES[self.function])

    @property
    def in_words(self) -> str:
        """What it computes, in SQL's words."""
        return (
            "COUNT(DISTINCT person)" if self.function == "persons" else f"{self.function.upper()}({self.column or '*'})"
        )


class Plan(Message):
    """One grouped question about one table."""

    kind: Literal["query"] = "query"
    where: Predicate | None
    group_by: Annotated[tuple[Name, ...], Field(max_length=8)]
    aggregates: Annotated[tuple[Aggregate, ...], Field(min_length=1, max_length=32)]
    # Whether the answer also tells how many persons had rows left out or values clamped, for a sixteenth of the price.
    counts_cut: Annotated[bool, Field(default=False, exclude_if=lambda counts: not counts)] = False
    # What makes one row of all rows of a person; all else here is then about these rows.
    inner: Annotated[Inner | None, Field(default=None, exclude_if=lambda inner: inner is None)] = None

    release: ClassVar[Literal["private", "exact"]] = "private"
    result: ClassVar[Literal["query-result", "model"]] = "query-result"
    approved_as: ClassVar[Literal["query", "training"]] = "query"
    training: ClassVar[None] = None

    @property
    def dimensions(self) -> tuple[str, ...]:
        return self.group_by

    @property
    def functions(self) -> tuple[str, ...]:
        """The names in `disclosure.aggregates` of what it computes; a number of persons is a count."""
        own = ("count" if aggregate.function == "persons" else aggregate.function for aggregate in self.aggregates)
        return tuple(dict.fromkeys((*own, *(() if self.inner is None else self.inner.functions))))

    @property
    def is_about_persons(self) -> bool:
        """Whether it counts persons, or makes figures of a row of each."""
        return self.inner is not None or any(one.function == "persons" for one in self.aggregates)

    def rows_in_words(self, table: Table) -> str:
        """Return how many rows of a person enter, in words."""
        if self.inner is not None:
            return "one row made of all rows at a silo"
        if any(one.function != "persons" for one in self.aggregates):
            return f"at most {table.max_rows} rows"
        few = f" in at most {table.max_rows} group{'s' if table.max_rows > 1 else ''}"
        return f"one count{few if self.group_by else ''}"

    def thresholds(self, table: Table) -> Iterator[tuple[str, str]]:
        """Yield the columns inside whose values it sets a threshold, and how, but for those of its conditions."""
        if self.inner is not None:
            yield from self.inner.thresholds(table, set(columns_of(self.where)))

    @property
    def conditions(self) -> tuple[Predicate, ...]:
        where = self.where if self.inner is None else self.inner.where  # what rows must meet, and not persons
        if where is None:
            return ()
        return where.operands if isinstance(where, Both) else (where,)

    def seen(self, table: Table) -> Table:
        """Return the definition of what the figures are of: the table, or of an inner question its row of a person."""
        return table if self.inner is None else self.inner.table(table, self.group_by)

    def uses(self) -> Mapping[ColumnRole, tuple[str, ...]]:
        if self.inner is not None:
            return self.inner.uses()
        filters = dict.fromkeys(columns_of(self.where))
        measures = dict.fromkeys(aggregate.column for aggregate in self.aggregates if aggregate.column is not None)
        return {"dimension": self.group_by, "filter": tuple(filters), "measure": tuple(measures)}

    def valued(self, table: Table) -> tuple[str, ...]:
        """Return the columns of which values enter a figure, and not only their number."""
        kinds = self.statistics(table)
        return tuple(dict.fromkeys(one.column for one in kinds if one.column is not None and one.kind != "present"))

    def group_count(self, table: Table) -> int:
        count = 1
        seen = self.seen(table)
        for name in self.group_by:
            count *= len(seen.column(name).domain)
        return count

    def size(self, table: Table) -> int:
        """Return how much each row costs: columns read and the id, statistics, parts of the filter, and slots.

        A list of values and the slots count by the binary digits of their number: a row is looked up in them.
        """
        statistics = self.statistics(table)
        columns = {name for names in self.uses().values() for name in names}
        slots = sum(extent.length for extent in statistics.values())
        parts = OF_PAIRS if self.group_by and PERSONS in statistics else 0
        parts += cost_of(self.where) + (0 if self.inner is None else self.inner.size())
        return 1 + len(columns) + len(statistics) + parts + slots.bit_length()

    def groups(self, table: Table) -> Iterator[tuple[str, ...]]:
        """Yield every group of the closed domains, in the order of the slots; one without dimensions."""
        seen = self.seen(table)
        return product(*(seen.column(name).domain for name in self.group_by))

    def statistics(self, table: Table) -> Mapping[Statistic, Extent]:
        """Return the rows, the rows where a column is present, and centred totals: one number a group each.

        A total is in half steps (a centred value is doubled to stay whole), the others count rows. At most `max_rows`
        rows of a person enter, in the worst case all into one group and all at one end of the bounds. The last
        statistic, of what was cut, counts persons in four slots: each person is in one slot. A number of persons, and
        the row that an inner question makes of a person, are as `policies.requests.persons` has them.
        """
        length, found, seen = self.group_count(table), dict[Statistic, Extent](), self.seen(table)
        share = _OTHERS if self.counts_cut else 1
        for aggregate in self.aggregates:
            for statistic in aggregate.statistics(seen):
                kind, column = statistic
                if statistic == PERSONS:
                    found[statistic] = of_persons(length, table.max_rows, share)
                    continue
                per_row = 1 if column is None else PER_ROW[kind](seen.column(column))
                found[statistic] = noised(length, seen.max_rows * per_row, share, per_row)
        if self.counts_cut:
            found[CUT] = noised(CUT_SLOTS, 1, share=len(found))  # a sixteenth of the price, however many figures
        return found

    def check(self, table: Table, backend: str) -> None:
        fields = [name for aggregate in self.aggregates for name in field_names(aggregate.alias)]
        aliases = {aggregate.alias for aggregate in self.aggregates}
        if len(set(fields)) != len(fields) or len(aliases.union(self.group_by)) != len(aliases) + len(self.group_by):
            raise ValueError("an output name is used twice")
        if any(one.function == "persons" and (one.column or self.inner) for one in self.aggregates):
            raise ValueError("persons are counted without a column, and each row of an inner question is one")
        if self.inner is not None:
            self._check_inner(self.inner, table)
        elif self.where is not None:
            check_predicates((self.where,), table)

    def _check_inner(self, inner: Inner, table: Table) -> None:
        """Raise ValueError if an inner question contradicts the table definition, or the plan around it does."""
        inner.check(table)
        seen, known = self.seen(table), {one.name for one in inner.columns}
        measures = {one.column for one in self.aggregates if one.column is not None}
        if unknown := sorted({*self.group_by, *measures, *columns_of(self.where)} - known):
            raise ValueError(f"there is no inner column {unknown[0]!r}")
        for role, names in (("dimension", self.group_by), ("measure", measures)):
            for name in names:
                check_role(seen, role, name)
        if self.where is not None:
            check_predicates((self.where,), inner.table(table))

    def release_remedy(self, release: str) -> str:
        return "an exact source serves training only, never a question"

    def in_words(self, table_name: str) -> str:
        of = table_name if self.inner is None else self.inner.in_words(table_name)
        text = ", ".join(one.in_words for one in self.aggregates) + f" of {of}"
        if self.where is not None:
            who = "" if self.inner is None else "; of these persons"
            text += f"{who} where {predicate_in_words(self.where)}"
        return text + (f" by {', '.join(self.group_by)}" if self.group_by else "")
