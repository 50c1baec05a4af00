"""The first weights of a run, and whatever else in it is drawn at random in public: by a hash stream from its id.

Promise: whoever knows the run has the same numbers to the last bit, on every machine. No generator of numpy or torch
has a part in it. SHAKE128, FIPS 202.
"""

from collections.abc import Sequence
from hashlib import shake_128

import numpy as np
import numpy.typing as npt

from policies.networks.graph import Weight

_CONTEXT = b"consilo/1 network"
Vector = npt.NDArray[np.float64]


def words(run: bytes, use: str, count: int) -> npt.NDArray[np.uint32]:
    """Return so many uniform words of 32 bits, of a run and a use: other uses have others."""
    seed = _CONTEXT + len(run).to_bytes(1, "big") + run + use.encode()
    return np.frombuffer(shake_128(seed).digest(4 * count), "<u4")


def order(run: bytes, use: str, count: int) -> npt.NDArray[np.int64]:
    """Return the places from 0 to below `count` in an order that the run and the use draw."""
    return np.argsort(words(run, f"order {use}", count), kind="stable")


def initial(run: bytes, weights: Sequence[Weight]) -> Vector:
    """Return the first numbers of weights, one weight after another; each is a float32."""
    return np.concatenate([np.zeros(0), *(_of(run, weight) for weight in weights)])


def _of(run: bytes, weight: Weight) -> Vector:
    if weight.initial != "uniform":
        return np.full(weight.count, 0.0 if weight.initial == "zeros" else 1.0)
    # Odd multiples of 2^-32 between -1 and 1: exact doubles.
    uniform = (words(run, f"weight {weight.name}", weight.count).astype(np.float64) + 0.5) * 2.0**-31 - 1.0
    return (uniform * float(weight.bound or 0)).astype(np.float32).astype(np.float64)
