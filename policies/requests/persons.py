"""Questions about persons: how many there are, and figures of what all the rows of each person come to.

`COUNT(DISTINCT person)` is a statistic of its own. An inner question makes one row of all rows of a person at a silo,
none left out: each of its columns is a figure of these rows, within bounds that the request states. The plan around it
then speaks of these columns as of a table with one row a person, so a person changes a sum as one row does.

An inner question may group by more than the person: it makes one row of all rows that a person has in each group. Of
these rows at most `max_rows` enter, of a norm of at most `max_norm`; in a group around them by the same keys there is
at most one of a person.
"""

from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from crypto.wire import Message, Name
from policies.requests.cases import MAX_CASES, Cases, by_name, check_cases, columns_in
from policies.requests.predicates import Predicate, check_predicates, columns_of, cost_of, in_words
from policies.requests.statistic import Extent, Statistic
from policies.requests.tables import Table, TableColumn
from policies.units import MAX_DOMAIN, MAX_RANGE_STEPS, ColumnRole

PERSONS = Statistic("persons")
OF_PAIRS = 8  # how much each row costs more where persons are counted by group: pairs of both are sorted
MAX_FIGURES = 16  # columns of one inner question
MAX_KEYS = 1_000_000  # groups of one person inside
MAX_COUNT = 1_000_000  # rows of one person that a count tells apart
_MOST = 10**18  # the magnitude of a bound, in the column's own units
_COUNTS = ("count", "distinct")
_WORDS = {"first": "MIN", "last": "MAX"}
Bound = Annotated[int | None, Field(default=None, ge=-(2**60), le=2**60, exclude_if=lambda bound: bound is None)]


def of_persons(length: int, max_rows: int, share: int) -> Extent:
    """Return the extent of the number of persons by group: one of them is in at most `max_rows` groups, once in each.

    So the L2 sensitivity is the square root of that number.
    """
    return Extent(length, 1, share, 1, 1, groups=min(max_rows, length))


class InnerColumn(Message):
    """One figure of a person's rows: function(column) FILTER (WHERE where), within its bounds.

    A count has the bounds 0 and `high`, and so has the number of different values of a dimension (distinct), none of
    which is `unknown`; those of a sum are in steps of its column. The least and the greatest value of a measure (min,
    max) have its bounds; the first and the last value of a dimension, in SQL's order, have its domain. So has a
    dimension that is grouped by beside the person (each).
    """

    name: Name
    function: Literal["count", "sum", "min", "max", "first", "last", "distinct", "each"]
    column: Name | None
    where: Annotated[Predicate | None, Field(default=None, exclude_if=lambda where: where is None)] = None
    low: Bound = None
    high: Bound = None
    # Of rows by group: whether the figure is of all rows of the person, and not of the group's.
    of_person: Annotated[bool, Field(default=False, exclude_if=lambda is_whole: not is_whole)] = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.column is None and self.function != "count":
            raise ValueError(f"{self.function} needs a column")
        if self.function == "each" and (self.where is not None or self.of_person):
            raise ValueError("what is grouped by beside the person is a column as it is")
        is_stated = {**dict.fromkeys(_COUNTS, (False, True)), "sum": (True, True)}.get(self.function, (False, False))
        if (self.low is not None, self.high is not None) != is_stated:
            raise ValueError("a count has high, a sum low and high, and nothing else has bounds")
        if self.high is None:
            return self
        if self.low is None and not 1 <= self.high <= MAX_COUNT:
            raise ValueError(f"a count has a bound from 1 to {MAX_COUNT:,}")
        if self.low is not None and not 0 < self.high - self.low <= MAX_RANGE_STEPS:
            raise ValueError("low must be below high, and not too far")
        return self

    @property
    def role(self) -> ColumnRole:
        """The role in which its column is used."""
        return "dimension" if self.function in ("first", "last", "distinct", "each") else "measure"

    def defined(self, table: Table, *, is_grouped: bool) -> TableColumn:
        """Return its definition as a column of a table with one row a person; raises ValueError."""
        base = None if self.column is None else table.column(self.column)
        always = self.where is None and base is not None and not base.can_be_missing
        if base is None or self.function in _COUNTS:
            least = 1 if base is None and self.where is None else 0
            values = tuple(map(str, range(least, (self.high or 0) + 1))) if is_grouped else ()
            if len(values) > MAX_DOMAIN:
                raise ValueError(f"{self.name!r} has {len(values):,} values, at most {MAX_DOMAIN:,} are groups")
            return TableColumn(
                name=self.name,
                type="int",
                low=0,
                high=self.high,
                step="1",
                domain=values,
                unknown=values[0] if values else None,  # no person lacks a count
                can_be_missing=False,
            )
        if self.role == "dimension":
            return base.model_copy(
                update={"name": self.name, "low": None, "high": None, "step": None, "can_be_missing": True}
            )
        if self.function != "sum":
            return base.model_copy(update={"name": self.name, "can_be_missing": not always})
        kind = "int" if base.type == "bool" else base.type
        return base.model_copy(
            update={
                "name": self.name,
                "type": kind,
                "low": self.low,
                "high": self.high,
                "can_be_missing": not always,
            }
        )

    def check(self, table: Table) -> None:
        """Raise ValueError if it contradicts the table definition, whose columns have their roles."""
        if self.column is None:
            return
        base = table.column(self.column)
        if self.role == "measure" and (base.domain or base.step is None or base.type in ("string", "date")):
            raise ValueError(f"{self.function} takes a measure, and {self.column!r} has a domain, or no bounds")
        if self.high is not None and self.low is not None and max(-self.low, self.high) * _step(base) > _MOST:
            raise ValueError("the bounds of a sum lie beyond 1e18")
        if self.role == "dimension" and not base.domain:
            raise ValueError(f"dimension {self.column!r} has no domain")

    @property
    def in_words(self) -> str:
        """What it is, in SQL's words, with its bounds as the wire has them."""
        if self.function == "each":
            return f"{self.name} = {self.column}"
        text = f"{_WORDS.get(self.function, self.function.upper())}({self.column or '*'})"
        text = text if self.function != "distinct" else f"COUNT(DISTINCT {self.column})"
        if self.where is not None:
            text += f" of rows where {in_words(self.where)}"
        text += " of all rows of the person" if self.of_person else ""
        text += "" if self.low is None else f" from {self.low}"
        text += "" if self.high is None else f" up to {self.high}"
        text += " steps" if self.function == "sum" else ""
        return f"{self.name} = {text}"


class Inner(Message):
    """The inner question: one row of all rows of a person where `where` holds, or one for each group of them.

    What is grouped by beside the person are the columns of the function `each`, and the cases.
    """

    where: Predicate | None
    columns: Annotated[tuple[InnerColumn, ...], Field(max_length=MAX_FIGURES)]
    cases: Annotated[
        tuple[Cases, ...], Field(default=(), max_length=MAX_CASES, exclude_if=lambda cases: not cases)
    ] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [*(one.name for one in self.columns), *(one.name for one in self.cases)]
        if len(set(names)) != len(names):
            raise ValueError("an inner column is named twice")
        if not self.keys and any(one.of_person for one in self.columns):
            raise ValueError("a figure of all rows of the person stands beside groups of them")
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of what is grouped by beside the person."""
        return (*(one.name for one in self.columns if one.function == "each"), *by_name(self.cases))

    def key_sizes(self, table: Table) -> Mapping[str, int]:
        """Return how many groups each key has; a column's are the values of its domain."""
        columns = {
            one.name: len(table.column(one.column or "").domain) for one in self.columns if one.name in self.keys
        }
        return columns | {one.name: len(one.groups) for one in self.cases}

    def most_a_person(self, table: Table) -> int:
        """Return the most rows that it makes of one person."""
        return prod(self.key_sizes(table).values())

    def most(self, seen: Table, table: Table, group_by: Collection[str]) -> tuple[int, int]:
        """Return the most rows of a person in one group around them, and in how many groups so many can be.

        Rows of a group by a key have that key in common, so that the other keys tell them apart. `seen` bounds a
        person's rows by number and norm: the sum of squares over groups is at most that of full groups and a rest.
        """
        others = prod(size for name, size in self.key_sizes(table).items() if name not in group_by)
        each = min(others, seen.most_in_a_group)
        full, rest = divmod(seen.max_rows, each)
        squares = full * each * each + rest * rest
        if seen.max_norm is not None:
            squares = min(squares, seen.max_norm * seen.max_norm)
        return each, -(-squares // (each * each))

    def table(self, table: Table, grouped: Collection[str] = ()) -> Table:
        """Return the definition of its rows; a count in `grouped` has its numbers as a domain. Raises ValueError.

        Cases are no columns of it.
        """
        columns = tuple(one.defined(table, is_grouped=one.name in grouped) for one in self.columns)
        rows = min(table.max_rows, self.most_a_person(table))
        norm = None if table.max_norm is None or table.max_norm >= rows else table.max_norm
        return table.model_copy(update={"max_rows": rows, "max_norm": norm, "columns": columns})

    def uses(self) -> Mapping[ColumnRole, tuple[str, ...]]:
        """Return the columns that it reads of a person's rows, by their roles."""
        filters = [*(name for where in self.conditions for name in columns_of(where)), *columns_in(self.cases)]
        of = {role: [one.column for one in self.columns if one.role == role] for role in ("dimension", "measure")}
        return {
            "dimension": tuple(dict.fromkeys(name for name in of["dimension"] if name is not None)),
            "filter": tuple(dict.fromkeys(filters)),
            "measure": tuple(dict.fromkeys(name for name in of["measure"] if name is not None)),
        }

    @property
    def conditions(self) -> Iterator[Predicate]:
        """Every condition on single rows: its own, then those of its columns."""
        yield from (where for where in (self.where, *(one.where for one in self.columns)) if where is not None)

    @property
    def functions(self) -> Iterator[str]:
        """The names in `disclosure.aggregates` of what it computes."""
        yield from ("sum" if one.function == "sum" else "count" for one in self.columns if one.high is not None)

    def thresholds(
        self, table: Table, compared: Collection[str], grouped: Collection[str]
    ) -> Iterator[tuple[str, str]]:
        """Yield the columns inside whose values it sets a threshold, and how, where `compared` meet a condition.

        A figure of a column that is compared does so, and a sum within bounds that one row can exceed; so does the
        number of a measure's cells that is `grouped` by, which tells apart who has one.
        """
        for one in self.columns:
            if one.column is None:
                continue
            base = table.column(one.column)
            cuts = one.function == "sum" and (
                base.low is None or base.high is None or (one.low or 0) > base.low or (one.high or 0) < base.high
            )
            if cuts or one.name in compared or (one.role == "measure" and one.name in grouped):
                yield one.column, f"by what all rows of a person come to, {one.in_words}"

    def size(self) -> int:
        """Return how much each row costs beside the columns that are read: two for each figure of a person."""
        keys = OF_PAIRS if self.keys else 0
        parts = sum(cost_of(where) for where in self.conditions) + sum(one.cost for one in self.cases)
        return 2 * len(self.columns) + parts + keys

    def check(self, table: Table) -> None:
        """Raise ValueError if it contradicts the table definition."""
        check_predicates(self.conditions, table)
        check_cases(self.cases, by_name(self.cases), table)
        for one in self.columns:
            one.check(table)
        if (most := self.most_a_person(table)) > MAX_KEYS:
            raise ValueError(f"a person has up to {most:,} groups inside, at most {MAX_KEYS:,} are possible")

    def in_words(self, table_name: str) -> str:
        """Return it in words, for the people who approve it."""
        by = f" by {', '.join(self.keys)}" if self.keys else ""
        text = f"persons of {table_name}{by}, each with all rows"
        if self.where is not None:
            text += f" where {in_words(self.where)}"
        text += "".join(f", {one.in_words}" for one in self.columns)
        return text + "".join(f", {one.name} ({one.in_words()})" for one in self.cases)


def _step(column: TableColumn) -> Decimal:
    return Decimal(column.step or "1")
