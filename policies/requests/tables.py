"""The table definition of a request: the columns, types, bounds and domains that all its silos use."""

from collections.abc import Mapping
from decimal import Decimal
from math import isqrt
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from crypto.wire import MAX_SILOS, Message, Name
from policies.arrays import Of, Shape, check_elements, check_shape
from policies.domains import LongDomain
from policies.units import MAX_DOMAIN, MAX_RANGE_STEPS

MAX_ROWS = 10_000  # of one person in one request
MAX_DIGITS, MAX_DECIMALS = 18, 9  # of a number in a filter
MAX_BESIDE = 3  # tables that are joined with one
MAX_TEXT = 200  # characters of a value
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Decimals = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?$")]


class TableColumn(Message):
    """A column as in the silos' catalogues: its bounds in whole steps, its closed domain."""

    name: Name
    # The values of a date are periods; an array is one cell of many numbers, of one shape.
    type: Literal["int", "decimal", "bool", "string", "date", "array"]
    low: Annotated[int, Field(ge=-(2**60), le=2**60)] | None = None
    high: Annotated[int, Field(ge=-(2**60), le=2**60)] | None = None
    step: Decimals | None = None
    domain: Annotated[
        Annotated[tuple[Text, ...], Field(max_length=MAX_DOMAIN)] | LongDomain, Field(union_mode="left_to_right")
    ] = ()
    unknown: Text | None = None
    # Whether a cell of a measure can be missing. If none can, rows count its cells: one statistic for both.
    can_be_missing: Annotated[bool, Field(default=True, exclude_if=lambda can: can)] = True
    shape: Annotated[Shape, Field(default=(), exclude_if=lambda shape: not shape)] = ()  # of each cell of an array
    # What the numbers of an array are: each has the column's bounds and step.
    of: Annotated[Of | None, Field(default=None, exclude_if=lambda of: of is None)] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_array()
        if (self.low is None) != (self.high is None) or (self.low is None) != (self.step is None):
            raise ValueError("low, high and step go together")
        if self.low is not None and self.high is not None and not 0 < self.high - self.low <= MAX_RANGE_STEPS:
            raise ValueError("low must be below high, and not too far")
        if self.step is not None and not float(self.step):
            raise ValueError("step must be above 0")
        if not self.can_be_missing and self.low is None:
            raise ValueError("only a measure, with bounds, can be defined as never missing")
        if isinstance(self.domain, LongDomain):
            if self.unknown is None or self.type not in ("string", "int"):
                raise ValueError("a long domain is of a string or an int column, with unknown")
        elif self.domain and (self.unknown not in self.domain or len(set(self.domain)) != len(self.domain)):
            raise ValueError("unknown must be in the domain, and no value twice")
        return self

    def _check_array(self) -> None:
        if self.type != "array":
            if self.shape or self.of is not None:
                raise ValueError(f"a {self.type} column has no shape, and is not of anything: an array is")
            return
        if not self.shape or self.of is None or self.step is None:
            raise ValueError("an array needs its shape, what it is of, and bounds with a step")
        if self.domain or self.unknown is not None or not self.can_be_missing:
            raise ValueError("an array has no domain, and its cells can be missing")
        check_shape(self.shape)
        check_elements(self.of, self.low or 0, self.high or 0, Decimal(self.step))

    @property
    def kind_in_words(self) -> str:
        """Its type, and of an array what it is of, and the shape of each cell."""
        of = "" if self.of is None else f" of {self.of}"
        return f"{self.type}{of}, shape {list(self.shape)}" if self.shape else f"{self.type}{of}"

    @property
    def range_steps(self) -> int:
        """The width of the bounds in steps: the largest magnitude of a centred value, which is doubled."""
        return 0 if self.low is None or self.high is None else self.high - self.low

    def resolved(self, domains: Mapping[bytes, LongDomain]) -> Self:
        """Return the same definition with the values of its long domain, if `domains` has them by its hash."""
        own = self.domain
        found = domains.get(own.digest) if isinstance(own, LongDomain) else None
        return self if found is None or found != own else self.model_copy(update={"domain": found})


class Table(Message):
    """The table definition of a request; all its silos use the same one."""

    name: Name
    max_rows: Annotated[int, Field(ge=1, le=MAX_ROWS)]
    max_silos: Annotated[int, Field(ge=1, le=MAX_SILOS)]
    columns: Annotated[tuple[TableColumn, ...], Field(max_length=64)]
    # Tables with one row a person: each row has the columns of the same person's row there too, named TABLE.COLUMN.
    # Who has no row in one of them has none here.
    beside: Annotated[
        tuple[Name, ...], Field(default=(), max_length=MAX_BESIDE, exclude_if=lambda names: not names)
    ] = ()
    # The most L2 norm of one person's rows over the groups of a question; None: `max_rows` alone bounds it.
    max_norm: Annotated[int | None, Field(default=None, ge=1, lt=MAX_ROWS, exclude_if=lambda norm: norm is None)] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_norm(self.max_rows, self.max_norm)
        if len({column.name for column in self.columns}) != len(self.columns):
            raise ValueError("a column is defined twice")  # the price and the query must read the same definition
        if len(set(self.names)) != len(self.names) or any("." in name for name in self.beside):
            raise ValueError("a table is joined with others, each once, whose names have no point")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The tables of which it has rows or columns."""
        return (self.name, *self.beside)

    @property
    def shown(self) -> str:
        """What it is, in words."""
        return self.name + (f" joined by person with {', '.join(self.beside)}" if self.beside else "")

    def origin(self, column: str) -> tuple[str, str]:
        """Return the table that a column is of, and its name there."""
        first, point, rest = column.partition(".")
        return (first, rest) if point and rest and first in self.beside else (self.name, column)

    def rule(self, column: str) -> str:
        """Return the place of a column in a policy."""
        table, name = self.origin(column)
        return f"sources.{table}.columns.{name}"

    def column(self, name: str) -> TableColumn:
        """Return the definition of a column; raises KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    @property
    def most_in_a_group(self) -> int:
        """The most rows of one person in one group, which is also the most L2 norm of their number by group.

        Rows of one group have their number as their norm, and no rows of several groups have a larger one.
        """
        return self.max_rows if self.max_norm is None else min(self.max_rows, self.max_norm)

    def most_rows(self, groups: int) -> int:
        """Return the most rows of one person that enter a question of so many groups."""
        if self.max_norm is None:
            return self.max_rows
        # Most fit where they are spread evenly: a further row of a group that has `each` takes 2 * each + 1.
        room = self.max_norm * self.max_norm
        each = isqrt(room // groups)
        return min(self.max_rows, groups * each + (room - groups * each * each) // (2 * each + 1))

    @property
    def unresolved(self) -> tuple[LongDomain, ...]:
        """The long domains whose values are not here."""
        domains = (column.domain for column in self.columns)
        return tuple(one for one in domains if isinstance(one, LongDomain) and one.values is None)

    def resolved(self, domains: Mapping[bytes, LongDomain]) -> Self:
        """Return the same definition with the values of every long domain that `domains` has, by its hash.

        It is the same message: values are no part of its encoding.
        """
        if not self.unresolved:
            return self
        return self.model_copy(update={"columns": tuple(column.resolved(domains) for column in self.columns)})


def check_norm(max_rows: int, max_norm: int | None) -> None:
    """Raise ValueError unless a norm bounds what `max_rows` does not: so many rows never have a longer one."""
    if max_norm is not None and max_norm >= max_rows:
        raise ValueError(f"max_norm {max_norm} bounds nothing, as {max_rows} rows have no larger norm; leave it out")


def is_number(text: str) -> bool:
    """Tell whether `text` is a number as the wire writes it: digits, and decimals after a point."""
    whole, dot, decimals = text.removeprefix("-").partition(".")
    return (
        text.isascii()
        and whole.isdigit()
        and len(whole) <= MAX_DIGITS
        and (not dot or (decimals.isdigit() and len(decimals) <= MAX_DECIMALS))
    )


def check_role(table: Table, role: str, name: str) -> None:
    """Raise ValueError unless a table defines a column with everything that its role needs."""
    if all(column.name != name for column in table.columns):
        raise ValueError(f"column {name!r} is not in the table definition")
    column = table.column(name)
    if column.type == "array" and role != "feature":
        raise ValueError(f"{name!r} is an array, which is a feature of a network and nothing else")
    if role == "dimension" and not column.domain:
        raise ValueError(f"dimension {name!r} has no domain")
    if role == "measure" and column.step is None:
        raise ValueError(f"measure {name!r} has no bounds")
    if role == "feature" and column.step is None and not column.domain:
        raise ValueError(f"feature {name!r} has neither bounds nor a domain")
    if role == "label" and column.type != "bool" and column.step is None and not column.domain:
        raise ValueError(f"label {name!r} has neither bounds nor a domain")
    if role == "audit" and column.type != "bool" and not column.domain:
        raise ValueError(f"{name!r} has no domain, so no groups to audit")
    if role == "held_out" and column.type != "bool":
        raise ValueError(f"{name!r} is a {column.type}; a bool says which rows are held out")
    if role == "key" and column.type != "string":
        raise ValueError(f"{name!r} has no keys, as it is no string")
