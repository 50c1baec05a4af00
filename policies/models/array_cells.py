"""Read the arrays of a Parquet file's column as a silo reads its own: the same shapes, clamps and steps.

A cell is lists within lists, one level for each axis, or one flat list in row-major order. One that is missing is
missing; one that cannot be read is an error, with its row.
"""

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.array_steps import Unsigned, kind_of_steps, steps_in
from policies.requests.tables import TableColumn

Bools = npt.NDArray[np.bool_]


class ArrayCellError(Exception):
    """A cell that is no array of its column: the place of its row in what was read, and what was found."""

    def __init__(self, row: int, text: str) -> None:
        super().__init__(row, text)
        self.row, self.text = row, text


def read_arrays(cells: Any, column: TableColumn) -> tuple[Unsigned, Bools]:
    """Return the cells of an Arrow array in steps, of shape (rows, *shape), and which of them are there.

    A missing one has 0 in each place. Raises ArrayCellError.
    """
    import pyarrow as pa  # heavy: only where a Parquet file is read
    import pyarrow.compute as pc

    if isinstance(cells, pa.ExtensionArray):
        cells = cells.storage
    is_there = np.asarray(np.from_dlpack(pc.cast(cells.is_valid(), pa.uint8()))).astype(np.bool_)
    rows, axes = np.flatnonzero(is_there), _axes(cells.type, column)
    found: Unsigned = np.zeros((len(cells), prod(column.shape)), kind_of_steps(column.range_steps))
    level, outer = cells.drop_null(), 1
    for axis in axes if len(rows) else ():
        lengths = np.asarray(np.from_dlpack(pc.cast(pc.fill_null(pc.list_value_length(level), -1), pa.int64())))
        if wrong := np.flatnonzero(lengths != axis)[:1].tolist():
            count = int(lengths[wrong[0]])
            text = f"a list of {count}" if count >= 0 else "no list"
            raise ArrayCellError(int(rows[wrong[0] // outer]), f"found {text}, expected {axis} in shape {list(axes)}")
        level, outer = level.flatten(), outer * axis
    if len(rows):
        numbers = _numbers(level, column, rows, outer)
        found[rows] = steps_in(numbers, column).reshape(len(rows), outer)
    return found.reshape(-1, *column.shape), is_there


def _axes(kind: Any, column: TableColumn) -> tuple[int, ...]:
    """Return the length of each level of a type of lists; raises ArrayCellError if it is none of a column's shape."""
    import pyarrow as pa

    levels = 0
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        levels, kind = levels + 1, kind.value_type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not levels or not is_number:
        raise ArrayCellError(0, f"found {'lists of ' * bool(levels)}{kind}, expected lists of numbers")
    if levels not in (1, len(column.shape)):
        raise ArrayCellError(
            0, f"found lists of {levels} levels, expected the shape {list(column.shape)}, or flat lists"
        )
    return column.shape if levels == len(column.shape) else (prod(column.shape),)


def _numbers(values: Any, column: TableColumn, rows: npt.NDArray[np.int64], size: int) -> npt.NDArray[Any]:
    """Return the numbers of the rows at some places, `size` of each; raises ArrayCellError for one that is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    is_missing = np.asarray(np.from_dlpack(pc.cast(values.is_null(), pa.uint8())))
    if missing := np.flatnonzero(is_missing)[:1].tolist():
        raise ArrayCellError(int(rows[missing[0] // size]), "a number is missing in it")
    if not pa.types.is_integer(values.type):
        values = pc.cast(values, pa.float64())
    numbers = np.asarray(np.from_dlpack(values))
    if numbers.dtype.kind == "f":
        is_wrong = ~np.isfinite(numbers)
        if column.of == "int":
            is_wrong |= numbers != np.trunc(numbers)
        if wrong := np.flatnonzero(is_wrong)[:1].tolist():
            kind = "a whole number" if column.of == "int" else "a finite number"
            raise ArrayCellError(int(rows[wrong[0] // size]), f"found {numbers[wrong[0]]:g} in it, expected {kind}")
    return numbers
