"""What a row adds to a square or to a product: exact whole numbers in units that the table definition fixes.

Pure, and the same to the bit however the rows are divided. `policies/requests/moments.py` says what is computed.
"""

import numpy as np
import numpy.typing as npt

from policies.requests.moments import product_most, product_shift, square_shift
from policies.requests.tables import TableColumn

Whole = npt.NDArray[np.int64]
_LOW_BITS = 16


def squares(steps: Whole, column: TableColumn) -> Whole:
    """Return m * (R - m) of cells in steps above the lower bound, 0 to R, in units: 0 to `square_most`."""
    figures = steps * (column.range_steps - steps)  # up to 2^62
    shift = square_shift(column)
    return (figures + (1 << shift >> 1)) >> shift


def products(first: Whole, second: Whole, columns: tuple[TableColumn, TableColumn]) -> Whole:
    """Return the product of centred, doubled cells of two columns, in units: at most `product_most` on either side.

    The product of two ranges of 2^32 steps exceeds 64 bits, so a large one is made of two parts: with a = h * 2^16 + l,
    a * b rounded at 2^s is (h * b + (l * b + 2^(s-1)) // 2^16) // 2^(s-16), as floors nest.
    """
    shift = product_shift(*columns)
    half = 1 << shift >> 1
    if product_most(*columns) << shift < 2**61:
        return (first * second + half) >> shift
    high, low = first >> _LOW_BITS, first & ((1 << _LOW_BITS) - 1)
    return (high * second + ((low * second + half) >> _LOW_BITS)) >> (shift - _LOW_BITS)
