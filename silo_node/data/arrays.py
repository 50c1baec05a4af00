"""Columns of arrays: a list of numbers in each cell, which the engine checks, and this process turns into steps.

A cell is stored as lists within lists, one level for each axis of the policy's shape, or as one flat list in row-major
order. It cannot be read if a length differs, if a number in it is missing or not finite, and, in an array of int, if
one is not whole; then the whole cell counts as missing. A number outside the bounds is clamped to them.

Promise: beside the steps themselves, of one byte a number where they fit, a block of rows is in memory at a time.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from policies.array_steps import Unsigned, kind_of_steps, steps_in
from policies.document.columns import STORED_TYPES, Column
from policies.document.stored_lists import Lists, lists_in
from policies.requests.tables import TableColumn
from silo_node.errors import SourceError

BLOCK_ROWS = 2048  # the engine's own; it has no smaller one
_BLOCK = 2**20  # numbers that are turned into steps at a time
_WIDE = ("UBIGINT", "HUGEINT", "UHUGEINT", "DECIMAL")  # read as doubles
# As doubles too beside other files: where one of them stores floats, the engine takes a FLOAT, of 24 bits, for both.
_LONG = ("INTEGER", "UINTEGER", "BIGINT")
_WITH_DECIMALS = ("FLOAT", "DOUBLE", "DECIMAL")
_NUMBERS = (*STORED_TYPES["int"], *STORED_TYPES["decimal"])
_EMPTY = '"NULL"'  # of the numbers of lists that are all missing or empty


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """Cells of arrays in whole steps above `low`, from 0 to `range_steps`; of a missing one all are 0."""

    steps: Unsigned  # shape (rows, *shape)
    is_there: npt.NDArray[np.bool_]
    low: int  # in steps
    range_steps: int

    def at(self, places: Any) -> "Arrays":
        """Return the cells at some places, or within a slice."""
        return Arrays(self.steps[places], self.is_there[places], self.low, self.range_steps)

    def without(self, is_out: npt.NDArray[np.bool_]) -> "Arrays":
        """Return the same cells, of which those of a mask are missing."""
        if not is_out.any():
            return self
        steps = self.steps.copy()
        steps[is_out] = 0
        return Arrays(steps, self.is_there & ~is_out, self.low, self.range_steps)


def joined(parts: list[Arrays]) -> Arrays:
    """Return the cells of several lists of rows as those of one."""
    steps, is_there = (np.concatenate([getattr(one, name) for one in parts]) for name in ("steps", "is_there"))
    return Arrays(steps, is_there, parts[0].low, parts[0].range_steps)


def check_stored(what: str, column: Column, stored: str) -> None:
    """Raise SourceError unless cells of a column's shape can be read from this stored type."""
    shape, found = column.shape or (), lists_in(stored)
    if found is None:
        hint = "write the table as Parquet, with a list of numbers in each cell, or mend the column's type"
        raise SourceError(f"{what} is {stored[:60]}, expected lists of numbers, as it is declared an array", hint)
    if _kind(found.item) not in (*_NUMBERS, _EMPTY):
        raise SourceError(f"{what} has lists of {found.item[:60]}, expected lists of numbers", "store numbers in them")
    axes, levels = _axes(shape, found), len(found.lengths)
    if axes is None:
        hint = f"store lists of {len(shape)} levels, or one flat list of {prod(shape)} numbers in each cell"
        text = f"{what} has lists of {levels} levels, but shape = {list(shape)} has {len(shape)}"
        raise SourceError(text, f"{hint}; or mend shape")
    if any(size not in (None, axis) for size, axis in zip(found.lengths, axes, strict=True)):
        sizes = [size or "any" for size in found.lengths]
        raise SourceError(f"{what} has arrays of {sizes}, expected {list(axes)}", "mend shape, or store the others")


def in_words(column: Column) -> str:
    """Return what a cell of a column is stored as, in words."""
    *outer, last = column.shape or (0,)
    numbers = f"{last} {'whole numbers' if column.of == 'int' else 'numbers'}"
    return f"{' lists of '.join(map(str, outer))} lists of {numbers}" if outer else f"a list of {numbers}"


def value_of(cell: str, column: Column, stored: str, *, has_other_files: bool = False) -> str:
    """Return the SQL of the numbers of a cell as one list in row-major order; NULL where it cannot be read."""
    found = lists_in(stored)
    axes = None if found is None else _axes(column.shape or (), found)
    if found is None or axes is None:  # `check_stored` says why
        return "CAST(NULL AS DOUBLE[])"
    levels = len(axes)
    wide = (*_WIDE, *_LONG) if has_other_files else _WIDE
    kind = "DOUBLE" if _kind(found.item) in wide else "TINYINT" if found.item == _EMPTY else found.item
    flat = cell if kind == found.item and not any(found.lengths) else f"CAST({cell} AS {kind}{'[]' * levels})"
    conditions = [f"len({flat}) = {axes[0]}"]
    for level in range(1, levels):
        lengths = f"[len(one) for one in {flat}]"
        conditions.append(f"list_aggregate({flat}, 'count') = {prod(axes[:level])}")
        conditions += [f"list_aggregate({lengths}, '{end}') = {axes[level]}" for end in ("min", "max")]
        flat = f"flatten({flat})"
    conditions.append(f"list_aggregate({flat}, 'count') = {prod(axes)}")
    if _kind(found.item) in _WITH_DECIMALS:
        conditions += [f"isfinite(list_aggregate({flat}, '{end}'))" for end in ("min", "max")]
        if column.of == "int":
            conditions.append(f"list_aggregate([one = trunc(one) for one in {flat}], 'bool_and')")
    return f"CASE WHEN {' AND '.join(conditions)} THEN {flat} END"


def limits(value: str, low: str, high: str) -> tuple[str, str]:
    """Return the SQL conditions of a cell with a number below the bounds, and above them."""
    return f"list_aggregate({value}, 'min') < {low}", f"list_aggregate({value}, 'max') > {high}"


def streamed(
    relation: duckdb.DuckDBPyRelation, columns: Mapping[str, TableColumn]
) -> tuple[pa.Table, dict[str, Arrays]]:
    """Return the columns of a relation that are no arrays, and by its name there each array, in steps.

    `columns` has the arrays. Raises duckdb.Error.
    """
    reader = relation.to_arrow_reader(BLOCK_ROWS)
    others = [index for index, name in enumerate(reader.schema.names) if name not in columns]
    growing = {name: _Growing(column) for name, column in columns.items()}
    batches = []
    for batch in reader:
        for name, one in growing.items():
            one.add(batch.column(name))
        batches.append(batch.select(others))
    schema = pa.schema([reader.schema.field(index) for index in others])
    return pa.Table.from_batches(batches, schema), {name: one.whole() for name, one in growing.items()}


class _Growing:
    """The cells of a column as they are read, in one array that grows in its place."""

    def __init__(self, column: TableColumn) -> None:
        self._column, self._rows = column, 0
        self._steps: Unsigned = np.zeros((0, prod(column.shape)), kind_of_steps(column.range_steps))
        self._is_there: list[npt.NDArray[np.bool_]] = []

    def add(self, cells: pa.Array) -> None:
        """Take the cells of further rows: flat lists of numbers, NULL where one is missing."""
        end, size = self._rows + len(cells), self._steps.shape[1]
        if end > len(self._steps):
            self._steps.resize((max(end, self._rows * 5 // 4), size), refcheck=False)  # in its place, where it is large
        is_there = np.asarray(np.from_dlpack(pc.cast(cells.is_valid(), pa.uint8()))).astype(np.bool_)
        self._is_there.append(is_there)
        rows, few = self._rows + np.flatnonzero(is_there), max(1, _BLOCK // size)
        numbers = cells.flatten()  # of the cells that are there
        for first in range(0, len(rows), few):
            some = rows[first : first + few]
            part = np.asarray(np.from_dlpack(numbers[first * size : (first + len(some)) * size]))
            self._steps[some] = steps_in(part, self._column).reshape(len(some), size)
        self._rows = end

    def whole(self) -> Arrays:
        """Return all cells; nothing more is added."""
        column = self._column
        self._steps.resize((self._rows, self._steps.shape[1]), refcheck=False)
        is_there = np.concatenate(self._is_there) if self._is_there else np.zeros(0, np.bool_)
        return Arrays(self._steps.reshape(-1, *column.shape), is_there, column.low or 0, column.range_steps)


def _axes(shape: tuple[int, ...], found: Lists) -> tuple[int, ...] | None:
    """Return the length of each level of lists; None if there are neither as many as axes, nor one."""
    if len(found.lengths) == len(shape):
        return shape
    return (prod(shape),) if len(found.lengths) == 1 else None


def _kind(item: str) -> str:
    return re.sub(r"\(.*\)$", "", item)
