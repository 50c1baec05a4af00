"""The definition of a table that all silos answer by."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from crypto.wire import MAX_SILOS, Message, Name
from policies.units import MAX_DOMAIN, MAX_RANGE_STEPS

Text = Annotated[str, Field(max_length=200)]
Decimals = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?$")]


class TableColumn(Message):
    """A column as the analyst took it from the silos' catalogues: its bounds in whole steps, its closed domain."""

    name: Name
    type: Literal["int", "decimal", "bool", "string", "date"]  # the values of a date are periods
    low: Annotated[int, Field(ge=-(2**60), le=2**60)] | None = None
    high: Annotated[int, Field(ge=-(2**60), le=2**60)] | None = None
    step: Decimals | None = None
    domain: Annotated[tuple[Text, ...], Field(max_length=MAX_DOMAIN)] = ()
    unknown: Text | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.low is None) != (self.high is None) or (self.low is None) != (self.step is None):
            raise ValueError("low, high and step go together")
        if self.low is not None and self.high is not None and not 0 < self.high - self.low <= MAX_RANGE_STEPS:
            raise ValueError("low must be below high, and not too far")
        if self.step is not None and not float(self.step):
            raise ValueError("step must be above 0")
        if self.domain and (self.unknown not in self.domain or len(set(self.domain)) != len(self.domain)):
            raise ValueError("unknown must be in the domain, and no value twice")
        return self

    @property
    def range_steps(self) -> int:
        """The width of the bounds in steps: the largest magnitude of a centred value, which is doubled."""
        return 0 if self.low is None or self.high is None else self.high - self.low


class Table(Message):
    """The one definition of a table that all silos answer by."""

    name: Name
    max_rows: Annotated[int, Field(ge=1, le=10_000)]
    max_silos: Annotated[int, Field(ge=1, le=MAX_SILOS)]
    columns: Annotated[tuple[TableColumn, ...], Field(max_length=64)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({column.name for column in self.columns}) != len(self.columns):
            raise ValueError("a column is defined twice")  # the price and the query must read the same definition
        return self

    def column(self, name: str) -> TableColumn:
        """Return the definition of a column; raises KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


def is_number(text: str) -> bool:
    """Tell whether `text` is a number as the wire writes it: up to 18 digits, up to 9 decimals."""
    whole, dot, decimals = text.removeprefix("-").partition(".")
    return (
        text.isascii()
        and whole.isdigit()
        and len(whole) <= 18
        and (not dot or (decimals.isdigit() and len(decimals) <= 9))
    )


def check_role(table: Table, role: str, name: str) -> None:
    """Raise ValueError unless a table defines a column, and all that a role needs of it."""
    if all(column.name != name for column in table.columns):
        raise ValueError(f"column {name!r} is not in the table definition")
    column = table.column(name)
    if role == "dimension" and not column.domain:
        raise ValueError(f"dimension {name!r} has no domain")
    if role == "measure" and column.step is None:
        raise ValueError(f"measure {name!r} has no bounds")
    if role == "feature" and column.step is None and not column.domain:
        raise ValueError(f"feature {name!r} has neither bounds nor a domain")
    if role == "label" and column.type != "bool":
        raise ValueError(f"label {name!r} is no bool")
