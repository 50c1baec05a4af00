"""Several signed values in one element of Z_m: balanced digits to an odd base, so that sums need no offsets.

Values v_0 .. v_(k-1) become v_0 + v_1 * W + ... modulo m, with W = 2 * span + 1. While every sum of values is within
±span, adding the elements adds the values: the magnitude is at most (W^k - 1) / 2, and W^k <= m keeps that below m / 2.
Lane i of slot s holds value i * slots + s, so that packing is arithmetic on slices.
"""

from dataclasses import dataclass

import numpy as np

from crypto.backends.keystream import Elements
from crypto.backends.scheme import Shape, Units
from crypto.errors import RangeError


@dataclass(frozen=True, slots=True)
class Lanes:
    """How many values share a slot, for one modulus of at most 63 bits."""

    modulus: int
    base: int
    count: int

    @classmethod
    def fit(cls, modulus: int, shape: Shape) -> "Lanes":
        """Return the largest number of lanes that sums of this shape allow; raises RangeError if there is no room."""
        base, count = 2 * shape.span + 1, 0
        while base ** (count + 1) <= modulus:
            count += 1
        if not count:
            raise RangeError(f"sums of up to ±{shape.span} do not fit a modulus of {modulus.bit_length()} bits")
        return cls(modulus, base, count)

    def slots(self, values: int) -> int:
        return -(-values // self.count)

    def pack(self, units: Units) -> Elements:
        """Return elements of [0, modulus)."""
        slots = self.slots(units.size)
        packed = np.zeros(slots, np.int64)
        for lane in reversed(range(self.count)):
            packed *= self.base
            part = units[lane * slots : (lane + 1) * slots]
            packed[: part.size] += part
        packed[packed < 0] += self.modulus
        return packed.view(np.uint64)

    def unpack(self, elements: Elements, values: int) -> Units:
        """Return the `values` values in a sum of packed elements; raises RangeError if it is not such a sum."""
        slots, half = elements.size, self.base // 2
        rest = elements.astype(np.int64)
        rest[rest > self.modulus // 2] -= self.modulus
        units = np.zeros(slots * self.count, np.int64)
        for lane in range(self.count):
            upper, digit = np.divmod(rest + half, self.base)
            units[lane * slots : (lane + 1) * slots] = digit - half
            rest = upper
        if rest.any() or units[values:].any():
            raise RangeError("a sum outside its lanes: it was altered, or masks are left in it")
        return units[:values]
