"""A silo whose rows have one value of the label, or no event, takes part in every exact family like any other."""

import numpy as np
import pytest

from policies.networks.names import NETWORKS
from policies.requests.families import SHAPES
from tests.harness.families import divided, examples, number, part, run, task, text, truth

COLUMNS = (
    number("age", 18, 99), text("kind", "a", "b", "?"), truth("owner"), number("days", 1, 200),
    truth("ok"), text("grade", "low", "mid", "high", "?"), number("visits", 0, 9),
)  # fmt: skip
OF_LABEL = {
    "linear-regression": "visits",
    "ridge-regression": "ok",
    "logistic-regression": "ok",
    "multinomial-regression": "grade",
    "hashed-logistic": "ok",
    "poisson-regression": "visits",
    "naive-bayes": "grade",
    "welch-t": "ok",
    "anova": "grade",
    "chi-square": "grade",
    "audit": "ok",
    "kaplan-meier": "ok",  # the event
}


def rows() -> dict[str, np.ndarray]:
    numbers, count = np.random.default_rng(3), 400
    age, owner = numbers.integers(18, 100, count), numbers.integers(0, 2, count)
    odds = 0.03 * age - 2 + owner + numbers.logistic(size=count)
    return {
        "age": age,
        "kind": numbers.choice(["a", "b"], count),
        "owner": owner,
        "days": numbers.integers(1, 200, count),
        "ok": (odds > 0).astype(np.int64),
        "grade": np.array(["low", "mid", "high"])[np.digitize(odds, (-0.5, 1.0))],
        "visits": np.minimum(9, numbers.poisson(np.exp(odds / 4))),
    }


@pytest.mark.parametrize("family", sorted(OF_LABEL))
def test_silos_with_one_value_of_the_label_each_give_the_model_of_the_pooled_rows(family: str) -> None:
    features = {"chi-square": ("kind", "owner"), "welch-t": ("age", "owner"), "anova": ("age", "owner")}
    further = {"kaplan-meier": {"time": "days", "event": "ok"}, "audit": {"group": "kind"}}
    parts = further.get(family)
    chosen = features.get(family, () if parts else ("age", "kind", "owner"))
    label = None if family == "kaplan-meier" else OF_LABEL[family]
    own = task(family, COLUMNS, label, chosen, parts)
    of, whole = rows()[OF_LABEL[family]], examples(own, rows())
    apart = [part(whole, np.flatnonzero(of == value)) for value in np.unique(of)]
    assert len(apart) > 1
    state, fitted, rounds = run(own, apart)
    pooled, expected, _ = run(own, divided(whole, 3))
    assert state.ended == pooled.ended == "complete"
    assert fitted == expected
    assert fitted.listings or (family == "hashed-logistic" and fitted.figures)
    assert rounds >= 1


def test_every_family_with_a_label_is_tried() -> None:
    # Networks have silos of two classes each in tests/silo_node/test_network_own.py.
    with_label = {name for name, shape in SHAPES.items() if shape.labels and name not in NETWORKS}
    assert with_label <= set(OF_LABEL)
    # Of cox, whose strata are silos, tests/silo_node/test_cox.py has silos without events.
    assert {name for name, shape in SHAPES.items() if "event" in shape.parts} == {"cox", "kaplan-meier"}
