"""How often intervals cover what they say, of 500 runs or as many as are named.

Those of noised moments the fit of the pooled rows, those of a descent the same program without noise. The noise is that
of five silos of which one may collude, delta 1e-5.

Run: python -m tests.bench.noised_coverage [RUNS]
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes

from silo_node.training.family import Examples
from silo_node.training.noised.registry import NOISED_FAMILIES
from tests.bench import noised as sets
from tests.bench.figures import publish
from tests.harness import noised
from tests.harness.families import number

RUNS, SILOS = 500, 5


def diabetes(times: int) -> tuple[tuple[Any, ...], Examples]:
    """Return the rows of diabetes so many times, each of another person, in 1,000 steps of bounds of each column."""
    inputs, label = load_diabetes(return_X_y=True)
    inputs = inputs[:, [2, 3, 8]]  # body mass, pressure and a blood serum
    columns, cells = [], {}
    for name, values, low, high in (
        *((f"x{place}", inputs[:, place], -0.15, 0.2) for place in range(inputs.shape[1])),
        ("y", label, 0.0, 400.0),
    ):
        columns.append(number(name, 0, 1000))
        cells[name] = np.tile(2 * np.rint((np.clip(values, low, high) - low) / (high - low) * 1000) - 1000, times)
    rows = {name: values.astype(np.int64) for name, values in cells.items()}
    return tuple(columns), Examples(np.arange(times * len(label)), rows)


def parts(of: Examples) -> list[Examples]:
    return [
        Examples(np.arange(len(own)), {name: values[own] for name, values in of.cells.items()})
        for own in np.array_split(np.arange(of.rows), SILOS)
    ]


def moments(times: int, epsilon: float, runs: int = RUNS) -> float:
    """Return the share of intervals that cover the coefficient of the pooled fit."""
    columns, own = diabetes(times)
    names = tuple(column.name for column in columns[:-1])
    of, table = noised.step("linear-regression", columns, "y", names, method="moments")
    design = np.stack([np.ones(own.rows), *(own.cells[name] / 2 + 500 for name in names)], 1)
    fit = np.linalg.lstsq(design, own.cells["y"] / 2 + 500, rcond=None)[0]
    return share(of, table, parts(own), epsilon, fit, runs)


def descent(epsilon: float, runs: int = RUNS) -> float:
    """Return the share of intervals that cover the coefficient of the same program without noise, on breast cancer."""
    data = sets.breast_cancer()
    of, table = noised.step("logistic-regression", data.columns, "label", data.features)
    own = parts(data.examples(np.arange(len(data.label))))
    task, state, _ = noised.run(of, table, own, epsilon, noised.nothing)
    fitted = NOISED_FAMILIES[of.family].finish(task, state)
    wanted = [line.values[0] or 0.0 for line in fitted.listings[0].lines]
    return share(of, table, own, epsilon, wanted, runs)


def share(of: Any, table: Any, own: Sequence[Examples], epsilon: float, wanted: Any, runs: int) -> float:
    covered = []
    for seed in range(runs):
        _, _, fitted = noised.run(of, table, own, epsilon, noised.quickly(seed))
        if not fitted.listings:
            continue
        ends = [line.values[2:] for line in fitted.listings[0].lines]
        covered.append([low <= value <= high for (low, high), value in zip(ends, wanted, strict=True)])
    return float(np.mean(covered)) if covered else float("nan")


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    for times, epsilon in ((10, 2.0), (10, 8.0), (2, 8.0)):
        publish(f"covered_by_moments_{442 * times}_persons_epsilon_{epsilon:g}", [moments(times, epsilon, runs)], "")
    for epsilon in (1.0, 8.0):
        publish(f"covered_by_descent_epsilon_{epsilon:g}", [descent(epsilon, runs)], "")


if __name__ == "__main__":
    main()
