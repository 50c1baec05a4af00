"""What noise costs a silo: a long answer from tables against numpy's floats, a table, and OpenDP.

Run: python -m tests.bench noise

numpy.random is the baseline here and nowhere else: its floats are no noise for a release.
"""

import math
import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from crypto.noise import TABLE_SLOTS, discrete_gaussian, exact_gaussian
from crypto.table_noise import alias_table, weights_of
from tests.bench.figures import publish

SLOTS = 1_000_000
PAIRS = 9
ROUNDED = "numpy.random.normal, rounded"


def main() -> None:
    for sigma, name, aim in ((724, "724", "ratio 8"), (10**6, "1e6", "ratio 16")):
        drawn, floats = long_answer(sigma)
        publish(f"noise_1e6_slots_sigma_{name}", drawn, "ms", ROUNDED, floats, aim)
    publish(
        "noise_table_sigma_724", [cpu(lambda: alias_table(weights_of(Fraction(724**2)))) for _ in range(PAIRS)], "ms"
    )
    exact_gaussian(1, 724**2, 1)  # the import of OpenDP
    table, exact = [], []
    for number in range(PAIRS):  # each with a variance that no table was made for
        variance = 724**2 + number
        table.append(cpu(lambda variance=variance: discrete_gaussian(TABLE_SLOTS, variance, 7)))  # type: ignore[misc]
        exact.append(cpu(lambda variance=variance: exact_gaussian(TABLE_SLOTS, variance, 7)))  # type: ignore[misc]
    publish(f"noise_{TABLE_SLOTS}_slots_new_table", table, "ms", "OpenDP", exact)


def long_answer(sigma: int) -> tuple[list[float], list[float]]:
    """Return milliseconds of the noise of a long answer with its table at hand, and of numpy's, in turn."""
    variance = sigma**2
    discrete_gaussian(TABLE_SLOTS, variance, 1)
    drawn, floats = [], []
    for _ in range(PAIRS):
        floats.append(cpu(lambda: np.rint(np.random.normal(0, math.sqrt(variance), SLOTS)).astype(np.int64)))
        drawn.append(cpu(lambda: discrete_gaussian(SLOTS, variance, 1)))
    return drawn, floats


def cpu(work: Callable[[], object]) -> float:
    """Return the CPU time of one call, in milliseconds."""
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


if __name__ == "__main__":
    main()
