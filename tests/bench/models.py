"""What a round of an exact family costs at the silos, beside one step of a program that has all rows in one place.

Run: python -m tests.bench.models
"""

import time
import warnings
from collections.abc import Callable

import numpy as np

from silo_node.training.registry import FAMILIES
from tests.bench.figures import publish
from tests.harness.families import examples, number, numbered, summed, task, truth

SILOS, ROWS, FEATURES, RUNS = 5, 200_000, 20, 5


def main() -> None:
    logistic_round()


def logistic_round() -> None:
    """Publish the CPU of one round of logistic regression at all silos, without loading, beside one Newton step."""
    from sklearn.linear_model import LogisticRegression

    numbers = np.random.default_rng(1)
    names = tuple(f"x{place}" for place in range(FEATURES))
    inputs = numbers.integers(0, 10_001, (SILOS * ROWS, FEATURES))
    odds = (inputs / 5000 - 1) @ numbers.normal(size=FEATURES)
    label = (odds + numbers.logistic(size=len(odds)) > 0).astype(np.int64)
    columns = [*(number(name, 0, 10_000) for name in names), truth("label")]
    own = task("logistic-regression", columns, "label", names)
    whole = examples(own, {**dict(zip(names, inputs.T, strict=True)), "label": label})
    cells = [{name: values[part] for name, values in whole.cells.items()} for part in parts()]
    silos = [type(whole)(np.arange(ROWS), one) for one in cells]
    family = FAMILIES[own.family]
    state = family.update(own, family.init(own), summed(own, family.init(own), silos))
    round_ = numbered(own, 1)
    pooled = np.ascontiguousarray(inputs / 5000 - 1)
    step = LogisticRegression(solver="newton-cholesky", C=np.inf, max_iter=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one step does not converge
        found, base = pairs(
            lambda: family.update(round_, state, summed(round_, state, silos)), lambda: step.fit(pooled, label)
        )
    publish(
        "logistic_round_5_silos_2e5_rows",
        found,
        "s",
        "one Newton step of scikit-learn on the pooled rows",
        base,
        "ratio 3",
    )


def parts() -> list[slice]:
    return [slice(silo * ROWS, (silo + 1) * ROWS) for silo in range(SILOS)]


def pairs(one: Callable[[], object], other: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Return seconds of CPU of two computations, in turn, after one of each."""
    one()
    other()
    found = [(cpu_s(one), cpu_s(other)) for _ in range(RUNS)]
    return [first for first, _ in found], [second for _, second in found]


def cpu_s(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


if __name__ == "__main__":
    main()
