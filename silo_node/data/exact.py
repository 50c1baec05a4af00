"""Sums of whole numbers by group that are exact, as fast as floats are added."""

import numpy as np
import numpy.typing as npt

from silo_node.data.coded import Integers

_EXACT = 2**53  # below it a sum of whole numbers is exact in a float
_LIMB_BITS = 21


def sums(group: Integers, values: Integers, size: int, most: int) -> npt.NDArray[np.int64]:
    """Return the exact sum of the values of each of `size` groups; a value is at least 0 and at most `most`.

    The sums must fit 64 bits.
    """
    if size == 1:
        return np.array([values.sum(dtype=np.int64)])
    if most * len(values) < _EXACT:
        return np.bincount(group, values, size).astype(np.int64)
    # Floats add whole numbers exactly while they are small, so large ones are added in two parts.
    high, low = values >> _LIMB_BITS, values & ((1 << _LIMB_BITS) - 1)
    found = (np.bincount(group, part, size).astype(np.int64) for part in (high, low))
    return (next(found) << _LIMB_BITS) + next(found)
