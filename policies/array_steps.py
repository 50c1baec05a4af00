"""Turn the numbers of arrays into whole steps above the lower bound of their column, clamped to its bounds.

Promise: a number takes the same step here, in a silo and in a file that a model scores. It is rounded to units of 1e-9
first, and then to a whole step, halves up, as one number of a column is. All of it is exact in 64 bits, as
`policies.arrays` bounds what a column says.
"""

from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.arrays import MAX_NUMBER
from policies.requests.tables import TableColumn

Unsigned = npt.NDArray[np.unsignedinteger[Any]]
_UNITS = 10**9  # in 1


def kind_of_steps(range_steps: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the smallest type of unsigned whole numbers that holds every step from 0 to `range_steps`."""
    found: np.dtype[np.unsignedinteger[Any]] = np.min_scalar_type(range_steps)
    return found


def steps_in(numbers: npt.NDArray[Any], column: TableColumn) -> Unsigned:
    """Return numbers as steps of a column, in their own shape. Every number is finite."""
    step, low, width = Decimal(column.step or 1), column.low or 0, column.range_steps
    kind = kind_of_steps(width)
    if numbers.dtype.kind in "iu" and step == 1:
        if low == 0 and numbers.dtype.kind == "u" and np.iinfo(numbers.dtype).max <= width:
            return numbers.astype(kind)
        return (np.clip(_within(numbers), low, low + width) - low).astype(kind)
    if numbers.dtype.kind in "iu":
        units = _within(numbers) * _UNITS
    else:
        units = np.rint(np.clip(numbers.astype(np.float64), -2 * MAX_NUMBER, 2 * MAX_NUMBER) * _UNITS).astype(np.int64)
    size, least = int(step * _UNITS), int(low * step * _UNITS)
    above = np.clip(units - least, 0, width * size)
    return ((2 * above + size) // (2 * size)).clip(0, width).astype(kind)


def _within(numbers: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return whole numbers of any type in 64 bits, those beyond twice the largest bound as that."""
    if numbers.dtype.itemsize < 4:
        return numbers.astype(np.int64)
    least = 0 if numbers.dtype.kind == "u" else -2 * MAX_NUMBER
    found: npt.NDArray[np.int64] = np.clip(numbers, least, 2 * MAX_NUMBER).astype(np.int64)
    return found
