"""Hashed features: what pairs of values tell, and what few bits, a part of the weights, and noise cost in accuracy.

Rows are planted: two texts of 30 values each, of which every pair has an effect of its own, a number and a bool. Four
silos have them, 4,096 weights are learned, and 20,000 other rows are judged. Whoever knew the effects would be right in
76.2 % of these. With noise one silo may collude, delta is 1e-5, and a figure is the median of three draws.
Run: python -m tests.bench.hashed
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from silo_node.training.family import State
from silo_node.training.registry import FAMILIES
from tests.bench.figures import publish
from tests.harness import families, noised
from tests.harness.families import divided, examples, number, task, text, truth

VALUES, SILOS, DRAWS, EPSILONS = 30, 4, 3, (1, 4, 8)
COLUMNS = (
    text("a", *(f"v{place}" for place in range(VALUES)), "?"),
    text("b", *(f"v{place}" for place in range(VALUES)), "?"),
    number("x", 0, 100),
    truth("c"),
    truth("ok"),
)
FEATURES = ("a", "b", "x", "c")
TABLE = {"bits": "12", "crossed": "a*b"}
# By the figure's name, the further options and the rounds of a run without noise.
EXACT: Mapping[str, tuple[dict[str, str], int]] = {
    "pairs": ({}, 60),
    "16_bits": ({"value_bits": "16"}, 60),
    "12_bits": ({"value_bits": "12"}, 60),
    "8_bits": ({"value_bits": "8"}, 60),
    "keep_0.1_200_rounds": ({"keep": "0.1"}, 200),
    "keep_0.1_8_bits_200_rounds": ({"keep": "0.1", "value_bits": "8"}, 200),
}
Rows = Mapping[str, npt.NDArray[Any]]


def planted(rows: int, seed: int) -> Rows:
    rng, effects = np.random.default_rng(seed), np.random.default_rng(5)
    a, b = rng.integers(0, VALUES, rows), rng.integers(0, VALUES, rows)
    x, c = rng.integers(0, 101, rows), rng.random(rows) < 0.4
    one, other = effects.normal(0, 0.5, VALUES), effects.normal(0, 0.5, VALUES)
    odds = one[a] + other[b] + effects.normal(0, 1.5, (VALUES, VALUES))[a, b] + 0.02 * (x - 50) + 0.5 * c
    ok = (odds + rng.logistic(size=rows) > 0).astype(int)
    texts = {"a": np.array([f"v{place}" for place in a]), "b": np.array([f"v{place}" for place in b])}
    return texts | {"x": x, "c": c.astype(int), "ok": ok}


def accuracy(family: str, of: Any, state: State, test: Rows) -> float:
    judged, rows = FAMILIES[family].judged, examples(of, test)
    assert judged is not None
    return float(((judged.scores(of, state, rows) > 0.5) == judged.outcomes(of, rows)).mean())


def main() -> None:
    test, train = planted(20_000, 2), planted(20_000, 1)
    of = task("logistic-regression", COLUMNS, "ok", FEATURES)
    state, _, _ = families.run(of, divided(examples(of, train), SILOS))
    publish("accuracy_plain_logistic_regression", [accuracy("logistic-regression", of, state, test)], "")
    for name, (options, rounds) in EXACT.items():
        of = task("hashed-logistic", COLUMNS, "ok", FEATURES, rounds=rounds, **TABLE, **options)  # type: ignore[arg-type]
        state, _, _ = families.run(of, divided(examples(of, train), SILOS))
        publish(f"accuracy_{name}", [accuracy("hashed-logistic", of, state, test)], "")
    for rows in (20_000, 100_000):
        train = planted(rows, 1)
        for epsilon in EPSILONS:
            step, table = noised.step("hashed-logistic", COLUMNS, "ok", FEATURES, **TABLE)  # type: ignore[arg-type]
            silos, found = divided(examples(step.task(table), train), SILOS), []
            for seed in range(DRAWS):
                own, state, _ = noised.run(step, table, silos, epsilon, noised.quickly(seed))
                found.append(accuracy("hashed-logistic", own, state, test))
            publish(f"accuracy_{rows}_persons_epsilon_{epsilon}", found, "")


if __name__ == "__main__":
    main()
