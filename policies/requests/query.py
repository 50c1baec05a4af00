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
from policies.requests.predicates import Both, OneOf, Predicate, check_predicate, columns_of, parts_of
from policies.requests.predicates import in_words as predicate_in_words
from policies.requests.statistic import Extent, Statistic, noised
from policies.requests.tables import Table, TableColumn
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
    """function(column) AS alias; no column means COUNT(*)."""

    function: Literal["count", "sum", "avg"]
    column: Name | None
    alias: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]

    def statistics(self, table: Table) -> tuple[Statistic, ...]:
        """Return the statistics that this figure is computed from."""
        if self.column is None:
            return (ROWS,)
        column = table.column(self.column)
        return tuple(statistic_of(kind, column) for kind in AGGREGATES[self.function])


class Plan(Message):
    """One grouped question about one table."""

    kind: Literal["query"] = "query"
    where: Predicate | None
    group_by: Annotated[tuple[Name, ...], Field(max_length=8)]
    aggregates: Annotated[tuple[Aggregate, ...], Field(min_length=1, max_length=32)]
    # Whether the answer also tells how many persons had rows left out or values clamped, for a sixteenth of the price.
    counts_cut: Annotated[bool, Field(default=False, exclude_if=lambda counts: not counts)] = False

    release: ClassVar[Literal["private", "exact"]] = "private"
    result: ClassVar[Literal["query-result", "model"]] = "query-result"
    approved_as: ClassVar[Literal["query", "training"]] = "query"
    training: ClassVar[None] = None

    @property
    def dimensions(self) -> tuple[str, ...]:
        return self.group_by

    @property
    def functions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(aggregate.function for aggregate in self.aggregates))

    @property
    def conditions(self) -> tuple[Predicate, ...]:
        if self.where is None:
            return ()
        return self.where.operands if isinstance(self.where, Both) else (self.where,)

    def uses(self) -> Mapping[ColumnRole, tuple[str, ...]]:
        filters = dict.fromkeys(columns_of(self.where))
        measures = dict.fromkeys(aggregate.column for aggregate in self.aggregates if aggregate.column is not None)
        return {"dimension": self.group_by, "filter": tuple(filters), "measure": tuple(measures)}

    def valued(self, table: Table) -> tuple[str, ...]:
        """Return the columns of which values enter a figure, and not only their number."""
        kinds = self.statistics(table)
        return tuple(dict.fromkeys(one.column for one in kinds if one.column is not None and one.kind != "present"))

    def group_count(self, table: Table) -> int:
        count = 1
        for name in self.group_by:
            count *= len(table.column(name).domain)
        return count

    def size(self, table: Table) -> int:
        """Return how much each row costs: columns read and the id, statistics, parts of the filter, and slots.

        A list of values and the slots count by the binary digits of their number: a row is looked up in them.
        """
        statistics = self.statistics(table)
        columns = {name for names in self.uses().values() for name in names}
        slots = sum(extent.length for extent in statistics.values())
        parts = sum(len(part.values).bit_length() if isinstance(part, OneOf) else 1 for part in parts_of(self.where))
        return 1 + len(columns) + len(statistics) + parts + slots.bit_length()

    def groups(self, table: Table) -> Iterator[tuple[str, ...]]:
        """Yield every group of the closed domains, in the order of the slots; one without dimensions."""
        return product(*(table.column(name).domain for name in self.group_by))

    def statistics(self, table: Table) -> Mapping[Statistic, Extent]:
        """Return the rows, the rows where a column is present, and centred totals: one number a group each.

        A total is in half steps (a centred value is doubled to stay whole), the others count rows. At most `max_rows`
        rows of a person enter, in the worst case all into one group and all at one end of the bounds. The last
        statistic, of what was cut, counts persons in four slots: each person is in one slot.
        """
        length, found = self.group_count(table), dict[Statistic, Extent]()
        share = _OTHERS if self.counts_cut else 1
        for aggregate in self.aggregates:
            for statistic in aggregate.statistics(table):
                kind, column = statistic
                per_row = 1 if column is None else PER_ROW[kind](table.column(column))
                found[statistic] = noised(length, table.max_rows * per_row, share, per_row)
        if self.counts_cut:
            found[CUT] = noised(CUT_SLOTS, 1, share=len(found))  # a sixteenth of the price, however many figures
        return found

    def check(self, table: Table, backend: str) -> None:
        fields = [name for aggregate in self.aggregates for name in field_names(aggregate.alias)]
        aliases = {aggregate.alias for aggregate in self.aggregates}
        if len(set(fields)) != len(fields) or len(aliases.union(self.group_by)) != len(aliases) + len(self.group_by):
            raise ValueError("an output name is used twice")
        if self.where is not None:
            check_predicate(self.where, table)

    def release_remedy(self, release: str) -> str:
        return "an exact source serves training only, never a question"

    def in_words(self, table_name: str) -> str:
        text = (
            ", ".join(f"{one.function.upper()}({one.column or '*'})" for one in self.aggregates) + f" of {table_name}"
        )
        if self.where is not None:
            text += f" where {predicate_in_words(self.where)}"
        return text + (f" by {', '.join(self.group_by)}" if self.group_by else "")
