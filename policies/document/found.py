"""What a draft knows of a table: its columns' names, the type of each, and how the cells are written.

Promise: no value of a row is in it. Of a CSV file it has marks from fixed lists only: the texts that mean a missing
cell, the marks in numbers, the formats of dates, the words for true and false; and a remark where a type is in doubt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from policies.arrays import MAX_AXES, Of
from policies.document.cells import Csv
from policies.document.columns import STORED_TYPES
from policies.document.stored_lists import lists_in
from policies.units import counted

PLAIN = Csv()
_STRENGTH = ("bool", "date", "int", "decimal", "string", "array")
_READABLE = {  # the types that cells of a type can be read as
    "int": ("int", "decimal", "string"),
    "decimal": ("decimal", "string"),
    "bool": ("bool", "string"),
    "date": ("date", "string"),
    "string": ("string",),
    "array": ("array",),
}


@dataclass(frozen=True, slots=True)
class FoundColumn:
    """A column: the type that a draft proposes, the types that its cells can be read as, and how they are written."""

    type: str | None  # None: a stored type that no policy can carry
    readable: frozenset[str] = frozenset()
    stored: str = "VARCHAR"
    is_empty: bool = False
    dates: tuple[str, ...] = ()
    decimal: str = "."
    thousands: str = ""
    true: tuple[str, ...] = ()  # empty: as every policy has them
    false: tuple[str, ...] = ()
    remark: str = ""  # why this type, where another is possible
    of: Of | None = None  # of an array: what its numbers are
    shape: tuple[int, ...] | None = None  # of an array, where what is stored fixes it


@dataclass(frozen=True, slots=True)
class FoundTable:
    """The columns of a table by their names, and what the source of a policy declares of all of them."""

    columns: Mapping[str, FoundColumn]
    csv: Csv = PLAIN
    missing: tuple[str, ...] = ("",)
    decimal: str = "."
    thousands: str = ""


@dataclass(frozen=True, slots=True)
class Joined:
    """The type that columns of one key share, and each type that was found, with the silos where it was."""

    type: str
    found: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def differs(self) -> bool:
        return len(self.found) > 1


def stored_table(types: Mapping[str, str]) -> FoundTable:
    """Return a table of Parquet, DuckDB or PostgreSQL: each column keeps the type that it is stored with."""
    columns = {}
    for name, stored in types.items():
        kind = stored.partition("(")[0]
        type_ = next((type_ for type_, known in STORED_TYPES.items() if kind in known), None)
        array = _array(stored)
        columns[name] = array or FoundColumn(type_, frozenset(_READABLE.get(type_ or "", ())), kind)
    return FoundTable(columns)


def _array(stored: str) -> FoundColumn | None:
    """Return a column of lists of numbers; None if it is none."""
    lists = lists_in(stored)
    kind = None if lists is None else lists.item.partition("(")[0]
    of: Of | None = "int" if kind in STORED_TYPES["int"] else "decimal" if kind in STORED_TYPES["decimal"] else None
    if lists is None or of is None:
        return None
    shape = lists.shape if lists.shape is not None and len(lists.shape) <= MAX_AXES else None
    remark = "" if shape else f"lists of numbers, {counted(len(lists.lengths), 'level')} deep, of no fixed lengths"
    return FoundColumn("array", readable_as("array"), stored, remark=remark, of=of, shape=shape)


def readable_as(*types: str) -> frozenset[str]:
    """Return the types that cells can be read as which can be read as each of these."""
    return frozenset(one for type_ in types for one in _READABLE[type_])


def joined(columns: Sequence[tuple[str, FoundColumn]]) -> Joined:
    """Return one type for columns of the same key at several silos: the strongest as which all cells can be read."""
    carried = [(silo, column) for silo, column in columns if column.type is not None and not column.is_empty]
    found: dict[str, tuple[str, ...]] = {}
    for silo, column in carried:
        found[str(column.type)] = (*found.get(str(column.type), ()), silo)
    common = [type_ for type_ in _STRENGTH if all(type_ in column.readable for _, column in carried)]
    shared = next((type_ for type_ in common if type_ in found), "string")
    return Joined(shared, MappingProxyType(found))
