"""Hashed features: places that never change, a fit that interactions need, and what few bits and few weights cost."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize

from policies.requests.families import SHAPES, Task, check_task
from policies.requests.hashed import MOST_REACH, levels, most, values_in_row, weights_of
from policies.requests.sending import STATE_BYTES
from policies.requests.tables import TableColumn
from silo_node.training.families.hashed import odds_of, ordered_sum
from silo_node.training.family import Examples, State
from silo_node.training.hashing import CROSSED, MISSING, OWN, hash_of, hashed, placed
from silo_node.training.registry import FAMILIES
from tests.harness import families
from tests.harness.families import divided, examples, number, numbered, part, summed, task, text, truth

VALUES = 12  # of each of two features, whose pairs tell the label
COLUMNS = (
    text("a", *(f"v{place}" for place in range(VALUES)), "?"),
    text("b", *(f"v{place}" for place in range(VALUES)), "?"),
    number("x", 0, 100),
    truth("c"),
    truth("ok"),
)
FEATURES = ("a", "b", "x", "c")
FAMILY = FAMILIES["hashed-logistic"]
Rows = Mapping[str, npt.NDArray[Any]]


def planted(rows: int, seed: int) -> Rows:
    """Return rows whose label follows from pairs of values: an interaction that no sum of two effects has."""
    rng, effects = np.random.default_rng(seed), np.random.default_rng(5)
    a, b = rng.integers(0, VALUES, rows), rng.integers(0, VALUES, rows)
    x, c = rng.integers(0, 101, rows), rng.integers(0, 2, rows)
    odds = effects.normal(0, 1.5, (VALUES, VALUES))[a, b] + 0.02 * (x - 50) + 0.5 * c
    ok = (odds + rng.logistic(size=rows) > 0).astype(int)
    return {"a": np.array([f"v{one}" for one in a]), "b": np.array([f"v{one}" for one in b]), "x": x, "c": c, "ok": ok}


TRAIN, TEST = planted(8000, 1), planted(20_000, 2)


def of(crossed: str = "a*b", rounds: int = 80, family: str = "hashed-logistic", **options: str) -> Task:
    return task(family, COLUMNS, "ok", FEATURES, rounds=rounds, bits="12", crossed=crossed, **options)  # type: ignore[arg-type]


def accuracy(own: Task, state: State) -> float:
    judged = FAMILIES[own.family].judged
    assert judged is not None
    rows = examples(own, TEST)
    return float(((judged.scores(own, state, rows) > 0.5) == judged.outcomes(own, rows)).mean())


def fitted(own: Task, silos: int = 4) -> tuple[float, State, int]:
    state, _, rounds = families.run(own, divided(examples(own, TRAIN), silos))
    return accuracy(own, state), state, rounds


def test_values_have_the_same_places_in_every_version() -> None:
    """A model that was learned by one version is scored by another, so these numbers must never change."""
    found = [
        hash_of(OWN, "a", "v0"),
        hash_of(OWN, "a", "v1"),
        hash_of(CROSSED, "a", "v0"),
        hash_of(OWN, "x", None),
        hash_of(OWN, "x", MISSING),
    ]
    assert found == PINNED
    places, signs = placed(np.array(found, np.uint64), 4096)
    assert places.tolist() == [one // 2 % 4095 + 1 for one in found]
    assert signs.tolist() == [1.0 - 2 * (one % 2) for one in found]


PINNED = [
    7957196012128725734,
    16247206117829844625,
    5536017643918654554,
    12102500115746936567,
    479593175008510162,
]


def test_names_and_values_are_not_confused() -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("abc", ""), ("a=", "b"), ("a", "=b")]
    assert len({hash_of(OWN, name, value) for name, value in pairs} | {hash_of(OWN, "abc", None)}) == 6


def test_a_row_has_its_values_and_its_pairs_whatever_the_order_of_features() -> None:
    one, other = of("a*x; b*c"), replace(of("c*b; x*a"), features=("c", "x", "b", "a"))
    rows = examples(one, {name: values[:50] for name, values in TRAIN.items()})
    first, second = hashed(one, rows, slice(0, 50)), hashed(other, rows, slice(0, 50))
    assert first.places.shape == (values_in_row(one), 50) == (7, 50)
    for row in range(50):
        own = sorted(zip(first.places[:, row].tolist(), first.values[:, row].tolist(), strict=True))
        assert own == sorted(zip(second.places[:, row].tolist(), second.values[:, row].tolist(), strict=True))
    assert (first.places[0] == 0).all()
    assert (first.places[1:] > 0).all()
    # A pair of a text and a number has the number's value, with a sign.
    assert np.abs(first.values[5]) == pytest.approx(np.abs(TRAIN["x"][:50] / 50 - 1))


def test_missing_cells_have_a_value_of_their_own() -> None:
    own = of("all", missing="indicator")
    gap = {"x": np.array([True, False, True]), "c": np.array([True, False, False])}
    rows = examples(own, {name: values[:3] for name, values in TRAIN.items()}, gap)
    found = hashed(own, rows, slice(0, 3))
    x, is_missing = found.values[3], found.values[4]
    assert (x[gap["x"]] == 0).all()
    assert np.abs(is_missing).tolist() == [1.0, 0.0, 1.0]
    missing, _ = placed(np.array([hash_of(OWN, "c", MISSING)], np.uint64), weights_of(own))
    assert (found.places[5] == missing[0]).tolist() == [True, False, False]


def test_pairs_tell_what_plain_logistic_regression_cannot_and_without_pairs_it_is_as_good() -> None:
    plain, _, _ = families.run(task("logistic-regression", COLUMNS, "ok", FEATURES), [examples(of(), TRAIN)])
    without = accuracy(task("logistic-regression", COLUMNS, "ok", FEATURES), plain)
    crossed, state_of_crossed, rounds = fitted(of())
    assert (state_of_crossed.ended, rounds < 80) == ("complete", True)
    assert crossed > without + 0.1
    alone, _, _ = fitted(of("", ridge="0.001", tolerance="0"))
    assert alone == pytest.approx(without, abs=0.005)


def test_the_fit_is_the_maximum_that_another_program_finds() -> None:
    own = of(ridge="2", tolerance="0", rounds=400)
    rows = examples(own, {name: values[:1500] for name, values in TRAIN.items()})
    state, _, _ = families.run(own, [rows])
    found, label = hashed(own, rows, slice(0, 1500)), TRAIN["ok"][:1500]
    used, which = np.unique(found.places, return_inverse=True)
    which = which.reshape(found.places.shape)

    def loss(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        odds = (weights[which] * found.values).sum(0)
        slope = np.zeros(len(used))
        np.add.at(slope, which, found.values * (1 / (1 + np.exp(-odds)) - label))
        penalty = np.where(used == 0, 0.0, 2.0)
        value = (np.logaddexp(0, odds) - odds * label).sum() + (penalty * weights**2).sum() / 2
        return float(value), slope + penalty * weights

    best = minimize(
        loss, np.zeros(len(used)), jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 0, "gtol": 1e-7}
    )
    assert state["accepted"][used] == pytest.approx(best.x, abs=2e-4)
    assert not np.delete(state["accepted"], used).any()


def test_sums_and_the_model_are_the_same_for_every_split_of_the_rows() -> None:
    own = of(rounds=12)
    rows = examples(own, TRAIN)
    one, said, _ = families.run(own, [rows])
    apart = [part(rows, np.flatnonzero(TRAIN["ok"] == value)) for value in (0, 1)]  # each silo has one label alone
    for silos in (divided(rows, 2, 1), divided(rows, 5, 3), apart):
        other, same, _ = families.run(own, silos)
        assert said == same
        for name, values in one.numbers.items():
            assert other[name].tobytes() == values.tobytes(), name


@pytest.mark.parametrize("bits", ["8", "12", "16", "24"])
def test_few_bits_cost_less_than_half_a_point_of_accuracy(bits: str) -> None:
    exact, _, _ = fitted(of())
    few, state, _ = fitted(of(value_bits=bits), silos=10)
    assert few > exact - 0.005
    assert state.ended != "diverged"


@pytest.mark.parametrize("options", [{"keep": "0.1"}, {"keep": "0.1", "value_bits": "8"}])
def test_a_tenth_of_the_weights_a_round_comes_near_with_more_rounds(options: dict[str, str]) -> None:
    exact, _, _ = fitted(of())
    found, _, rounds = fitted(of(rounds=301, **options))
    assert found > exact - 0.01
    assert rounds == 301
    own = numbered(of(**options), 1)  # type: ignore[arg-type]
    assert SHAPES[own.family].blocks(own)["gradient"] == 409


def test_a_round_of_a_part_of_the_weights_never_raises_the_loss() -> None:
    own = replace(of(rounds=60, keep="0.05"), run=bytes([3] * 16))
    silos, state, losses = divided(examples(own, TRAIN), 3), State(), []
    for count in range(60):
        step = numbered(own, count)
        before = state
        state = FAMILY.update(step, state, summed(step, state, silos))
        if count:
            losses.append(_penalised(own, before, silos))
            moved = np.flatnonzero(state["accepted"] != before["accepted"])
            assert len(moved) <= SHAPES[own.family].blocks(step)["gradient"]
    assert all(later <= earlier + 1e-6 for earlier, later in pairwise(losses))
    assert losses[-1] < losses[0]


def _penalised(own: Task, state: State, silos: list[Examples]) -> float:
    total = float((state["accepted"][1:] ** 2).sum() / 2)
    for rows in silos:
        odds, label = odds_of(hashed(own, rows, slice(0, rows.rows)), state["accepted"]), rows.cells["ok"] > 0
        total += float((np.logaddexp(0, odds) - odds * label).sum())
    return total


def test_every_number_of_a_round_is_within_what_the_request_states() -> None:
    own, state = of(value_bits="8"), State()
    silos = divided(examples(own, TRAIN), 3)
    for count in range(6):
        step = numbered(own, count)
        bound = most(step)
        assert bound == (MOST_REACH if count == 0 else levels(8))
        assert all(extent.most == bound for extent in SHAPES[own.family].extents(step).values())
        for rows in silos:
            for block in FAMILY.statistics(step, state, rows):
                assert np.abs(block).max() <= bound
        state = FAMILY.update(step, state, summed(step, state, silos))
    assert most(numbered(of(), 1)) is None


def test_a_reach_beyond_its_bound_is_cut_and_the_owners_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("silo_node.training.families.hashed.MOST_REACH", 1000)
    state, said, _ = families.run(of(rounds=10), [examples(of(), TRAIN)])
    assert state["reach"].max() == 250
    assert any("a silo cut their number" in note for note in said.notes)


@pytest.mark.parametrize("label", [0, 1])
def test_a_label_that_is_the_same_everywhere_ends_the_run(label: int) -> None:
    rows = examples(of(), dict(TRAIN) | {"ok": np.full(8000, label)})
    state, said, rounds = families.run(of(), [rows])
    assert (state.ended, rounds) == ("no-maximum", 1)
    assert "ok, which is the same in all rows" in said.notes[0]


def test_a_run_without_rows_ends_and_a_silo_without_rows_takes_part() -> None:
    rows = examples(of(), TRAIN)
    nobody = part(rows, np.arange(0))
    state, _, _ = families.run(of(), [nobody, nobody])
    assert state.ended == "too-few-rows"
    state, _, _ = families.run(of(rounds=5), [nobody, rows])
    assert state.ended is None


def test_a_step_that_is_too_long_ends_the_run_and_the_last_good_model_stands() -> None:
    own = of(step="1000")
    state, said, _ = families.run(own, [examples(own, TRAIN)])
    assert state.ended == "diverged"
    assert np.isfinite(state["accepted"]).all()
    assert "smaller options.step" in said.notes[0]


def test_the_figures_are_few_however_many_weights_there_are() -> None:
    own = of("all", rounds=5)
    _, said, _ = families.run(own, [examples(own, TRAIN)])
    assert not said.listings
    found = {line.name: line.values[0] for line in said.figures}
    assert (found["rows"], found["weights"]) == (8000, 4096)
    assert found["rows with the positive value"] == TRAIN["ok"].sum()
    assert len(found) <= 8


@pytest.mark.parametrize("options", [{}, {"keep": "0.1"}, {"value_bits": "8"}])
def test_a_state_takes_no_more_room_than_policies_count_with(options: dict[str, str]) -> None:
    own = of("all", rounds=5, **options)
    state, _, _ = families.run(own, [examples(own, TRAIN)])
    held = SHAPES[own.family].held(own.options, sum(SHAPES[own.family].blocks(own).values()))
    assert 8 * sum(map(len, state.numbers.values())) <= STATE_BYTES * held


def test_a_sum_is_the_same_in_every_order() -> None:
    parts = np.random.default_rng(1).normal(size=10_001) * 10.0 ** np.random.default_rng(2).integers(-9, 9, 10_001)
    assert ordered_sum(parts) == ordered_sum(parts[::-1].copy()) == pytest.approx(parts.sum(), rel=1e-6)
    assert ordered_sum(np.zeros(3)) == 0


@pytest.mark.parametrize(
    ("options", "features", "says"),
    [
        ({"bits": "9"}, FEATURES, "bits: expected a whole number from 10 to 24"),
        ({"bits": "25"}, FEATURES, "bits: expected a whole number from 10 to 24"),
        ({"value_bits": "9"}, FEATURES, "value_bits: expected one of 8, 12, 16, 24"),
        ({"keep": "0"}, FEATURES, "keep: expected a number from 0.001 to 1"),
        ({"crossed": "a"}, FEATURES, "crossed: expected pairs of features"),
        ({"crossed": "a*x"}, ("a", "b"), "crossed: 'x' is no feature"),
        ({"crossed": "a*a"}, FEATURES, "crossed: 'a' with itself"),
        ({"crossed": "a*b; b*a"}, FEATURES, "crossed: a pair is named twice"),
        ({"positive": "yes"}, FEATURES, "which has no value to name"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_is_expected(
    options: dict[str, str], features: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ValueError, match=says.replace("*", r"\*")):
        task("hashed-logistic", COLUMNS, "ok", features, **options)  # type: ignore[arg-type]


def test_a_text_label_names_its_positive_value() -> None:
    grade = text("grade", "no", "yes", "?")
    own = task("hashed-logistic", (*COLUMNS, grade), "grade", FEATURES, bits="10", positive="yes")
    check_task(own)
    rows = dict(TRAIN) | {"grade": np.where(TRAIN["ok"] > 0, "yes", "no")}
    state, _, _ = families.run(replace(own, rounds=3), [examples(own, rows)])
    assert state.one("positive") == TRAIN["ok"].sum()


def test_no_hash_is_taken_of_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    column: TableColumn = text("only_here", "p", "q", "?")
    own = task("hashed-logistic", (column, truth("ok")), "ok", ("only_here",), bits="10")
    values = np.array(["p", "q"])[np.random.default_rng(1).integers(0, 2, 5000)]
    rows = examples(own, {"only_here": values, "ok": np.zeros(5000, int)})
    taken: list[str | None] = []

    def counted(use: bytes, name: str, value: str | None) -> int:
        taken.append(value)
        return hash_of(use, name, value)

    monkeypatch.setattr("silo_node.training.hashing.hash_of", counted)
    for _ in range(3):
        hashed(own, rows, slice(0, 5000))
    assert taken == ["p", "q", "?"]
