"""Sums of real numbers that are the same to the last bit however the rows are divided among silos and blocks.

Each row's number is rounded to a grid of 2^-bits, half to even, and the whole numbers are added: no order and no split
changes the sum. Reals are doubles; a number beyond `most` is not added: its row is outside, which the caller counts.
"""

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Vector = npt.NDArray[np.float64]

LEAST_BITS, MOST_BITS = 24, 40  # of the grid, in fractional bits
_MANTISSA_BITS = 52
_SUM_BITS = 55
MOST_UNITS = (
    2**_SUM_BITS
)  # in magnitude, of a silo's sum: with so many silos as a model may have nothing wraps in 64 bits


def bits_for(rows: int, columns: int) -> int:
    """Return the fractional bits of the grid for columns of unit variance over so many rows of all silos.

    The square of such a column is at most `rows` in a row and adds up to `rows`, so that a row's number fits; and so
    does the sum over rows of the largest square of each, which is at most `rows` times `columns`.
    """
    room = min(_MANTISSA_BITS - 1, _SUM_BITS - (columns - 1).bit_length())
    return min(MOST_BITS, max(LEAST_BITS, room - (rows - 1).bit_length()))


def most(bits: int) -> float:
    """Return the largest magnitude that can be rounded to a grid: 2^51 of its units."""
    return float(2.0 ** (_MANTISSA_BITS - 1 - bits))


def row_sums(values: Vector, bits: int) -> Integers:
    """Return the sum of each row's numbers in units of 2^-bits: over the last axis. `values` is overwritten.

    Each number must be at most `most(bits)` in magnitude. The constant that is added moves the point, so that the low
    bits of the double are the whole number, rounded half to even; the sum of constants is taken away modulo 2^64.
    """
    shift = np.float64(1.5 * 2.0 ** (_MANTISSA_BITS - bits))
    values += shift
    count = values.shape[-1]
    total = values.view(np.int64).sum(-1, dtype=np.int64)
    constant = (int(shift.view(np.int64)) * count) % 2**64
    found: Integers = total - np.int64(constant - 2**64 if constant >= 2**63 else constant)
    return found


def reals(units: Integers, bits: int) -> Vector:
    """Return opened whole numbers of a grid as reals."""
    return np.ldexp(units.astype(np.float64), -bits)


def add_products(total: Integers, block: Vector, weight: Vector | float, bits: int, room: Vector) -> None:
    """Add to an upper triangle the weighted products of the columns of a block, each row's rounded.

    `block` and `room`, which is overwritten, have the shape (width, rows), `weight` that of a row of them.
    """
    width, rows = block.shape
    first = 0
    for column in range(width):
        products = room[: width - column, :rows]
        np.multiply(block[column:], block[column] * weight, out=products)
        total[first : first + width - column] += row_sums(products, bits)
        first += width - column
