"""Hashed features with noise: no person moves a sum by more than its bound, and what the noise costs in accuracy."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.noise import discrete_gaussian
from crypto.ring import Ring
from crypto.table_noise import TABLE_TV_BITS
from policies.budget.accountant import micro_rho_of
from policies.budget.ledger import ATTO
from policies.budget.sampler import LOSS_BITS, sampler_delta
from policies.decision.run_price import run_price
from policies.requests.capacity import carried_rows
from policies.requests.computations import slot_count
from policies.requests.families import Task
from policies.requests.noised import NoisedStep
from policies.requests.noised_families import PERSON_UNITS
from policies.requests.sending import STATE_BYTES
from policies.requests.tables import Table
from policies.requests.terms import terms_of
from silo_node.training.family import Examples, State
from silo_node.training.few_bits import fresh_words, rounded
from silo_node.training.noised.hashed import bounded, parts_of
from silo_node.training.noised.registry import NOISED_FAMILIES
from tests.harness import families, noised
from tests.harness.example_policy import request
from tests.harness.families import divided, examples, part
from tests.silo_node.test_hashed import COLUMNS, FEATURES, TEST, TRAIN, planted

FAMILY = NOISED_FAMILIES["hashed-logistic"]
BOUND = PERSON_UNITS * PERSON_UNITS
NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-3, 3) | st.sampled_from([0.0, 1e308, -1e308])


def of(rounds: int = 50, max_rows: int = 4, **options: str) -> tuple[NoisedStep, Table]:
    options = {"bits": "12", "crossed": "a*b"} | options
    return noised.step("hashed-logistic", COLUMNS, "ok", FEATURES, rounds, max_rows=max_rows, **options)  # type: ignore[arg-type]


def squared_norm(values: npt.NDArray[np.int64]) -> int:
    return sum(int(one) ** 2 for one in values)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), NUMBERS), max_size=60), st.floats(1e-3, 1e3))
def test_whole_units_of_a_person_are_within_the_bound_whatever_their_numbers_are(
    numbers: list[tuple[int, int, float]], clip: float
) -> None:
    numbers = sorted(numbers, key=lambda one: one[0])
    person = np.array([one[0] for one in numbers], np.int64)
    places = np.array([[one[1] for one in numbers]], np.int64)
    parts = parts_of(person, places, np.array([[one[2] for one in numbers]], np.float64), 1024)
    units = bounded(parts, clip)
    for own in range(parts.persons):
        assert squared_norm(units[parts.person == own]) <= BOUND


def test_rounding_that_makes_a_person_too_long_is_undone() -> None:
    """Each of so many numbers is 2.5 units and a little, so rounding makes the norm longer by a fifth."""
    count = int(PERSON_UNITS**2 / 2.5001**2)
    parts = parts_of(
        np.zeros(1, np.int64), np.arange(count)[:, None], np.full((count, 1), 2.5001 / PERSON_UNITS), 2**20
    )
    norm = np.sqrt(count) * 2.5001 / PERSON_UNITS
    assert norm <= 1
    assert squared_norm(np.rint(parts.value * PERSON_UNITS).astype(np.int64)) > 1.4 * BOUND
    units = bounded(parts, 1.0)
    assert 0 < squared_norm(units) <= BOUND


def test_a_part_within_the_bound_is_rounded_to_the_nearest_unit_and_nothing_more() -> None:
    parts = parts_of(np.array([0, 0, 1]), np.array([[3, 5, 3]]), np.array([[0.1, -0.2, 0.3]]), 1024)
    assert bounded(parts, 1.0).tolist() == [round(one * PERSON_UNITS) for one in (0.1, -0.2, 0.3)]
    assert (parts.person.tolist(), parts.place.tolist()) == ([0, 0, 1], [3, 5, 3])


def people(own: Task, seed: int = 1) -> Examples:
    """Return rows of 12 persons, one to five each, some of whom lack cells."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(12), rng.integers(1, 6, 12))
    rows = {name: values[: len(person)] for name, values in TRAIN.items()}
    gaps = {"x": rng.random(len(person)) < 0.2, "c": rng.random(len(person)) < 0.2}
    found = examples(own, rows, gaps if own.options["missing"] == "indicator" else None)
    return replace(found, person=person, persons_left_out=3)


def states(own: Task, seed: int = 1) -> list[State]:
    """Return models, as large as a run can have them: with more than that a run is at its end."""
    rng = np.random.default_rng(seed)
    weights = 1 << int(own.options["bits"])
    found = [np.zeros(weights), rng.normal(0, 3, weights), rng.uniform(-100, 100, weights), np.full(weights, 100.0)]
    return [State().with_(weights=one) for one in found]


@pytest.mark.parametrize(
    "options",
    [
        {"crossed": "all", "clip": "0.1"},
        {"crossed": "all", "clip": "1"},
        {"crossed": "", "clip": "50", "bits": "10"},
        {"crossed": "a*x; b*c", "missing": "indicator", "bits": "10"},
    ],
)
def test_no_person_moves_a_sum_by_more_than_its_bound(options: dict[str, str]) -> None:
    """Brute force over all neighbours: each person away, and each person with other rows of theirs, in every block."""
    step, table = of(**options)  # type: ignore[arg-type]
    own, longest = step.task(table), 0
    rows, other = people(own), people(own, 2)
    for number, state in [(0, State()), *((1, state) for state in states(own))]:
        task = replace(own, number=number)
        extents = list(noised.at(step, number).statistics(table).values())
        whole = FAMILY.statistics(task, state, rows)
        assert [block.shape for block in whole] == [(extent.length,) for extent in extents]
        for person in range(12):
            rest = np.flatnonzero(rows.person != person)
            without = replace(part(rows, rest), persons_left_out=rows.persons_left_out)
            for extent, one, neighbour in zip(extents, whole, FAMILY.statistics(task, state, without), strict=True):
                moved = squared_norm(one - neighbour)
                assert moved <= extent.squared
                longest = max(longest, moved if extent.length > 1 else 0)
        # Somebody who comes with rows like nobody's.
        more = replace(
            other,
            person=np.r_[rows.person, np.full(4, 12)],
            cells={name: np.r_[cells, other.cells[name][:4]] for name, cells in rows.cells.items()},
            missing={name: np.r_[gap, other.missing[name][:4]] for name, gap in rows.missing.items()},
            persons_left_out=rows.persons_left_out,
        )
        for extent, one, neighbour in zip(extents, whole, FAMILY.statistics(task, state, more), strict=True):
            assert squared_norm(one - neighbour) <= extent.squared
    if float(own.options["clip"]) <= 1:
        assert longest > 0.9 * BOUND, "the bound is reached, so it is no larger than it must be"


def test_rounding_the_sum_of_a_silo_instead_would_exceed_the_bound() -> None:
    """What the issue warns of: a sum that is rounded moves by up to a unit in every weight when a person leaves."""
    rng, weights = np.random.default_rng(1), 2**16
    sums, person = rng.uniform(-1, 1, weights), np.zeros(weights)
    person[:4] = 0.5  # of length 1
    one, other = (rounded(values, np.full(weights, 4.0), 127, fresh_words(weights)) for values in (sums, sums - person))
    level = 4.0 / 127
    assert np.sqrt(squared_norm(one - other)) * level > 2.6


def test_rows_of_a_person_count_as_their_mean_and_their_order_does_not_matter() -> None:
    step, table = of(crossed="all")
    own = replace(step.task(table), number=1)
    (_, state, *_) = states(own)
    rows = people(own)
    (one,) = FAMILY.statistics(own, state, rows)
    order = np.random.default_rng(4).permutation(rows.rows)
    (other,) = FAMILY.statistics(own, state, part(rows, order))
    assert (one == other).all()
    twice = part(rows, np.repeat(np.arange(rows.rows), 2))
    (same,) = FAMILY.statistics(own, state, twice)
    assert np.abs(one - same).max() <= 1  # a mean of floats, in another order


def test_a_silo_without_rows_contributes_nothing() -> None:
    step, table = of()
    own = step.task(table)
    nobody = part(people(own), np.arange(0))
    assert [block.any() for block in FAMILY.statistics(own, State(), replace(nobody, persons_left_out=0))] == [
        False
    ] * 3
    assert not FAMILY.statistics(replace(own, number=1), states(own)[1], nobody)[0].any()


def accuracy(rows: int, epsilon: float, silos: int = 4, draw: noised.Draw = discrete_gaussian, **options: str) -> float:
    step, table = of(max_rows=1, **options)  # type: ignore[arg-type]
    train = examples(step.task(table), TRAIN if rows == 8000 else planted(rows, 1))
    task, state, _ = noised.run(step, table, divided(train, silos), epsilon, draw)
    assert state.ended is None
    assert FAMILY.judged is not None
    test = examples(task, TEST)
    return float(((FAMILY.judged.scores(task, state, test) > 0.5) == FAMILY.judged.outcomes(task, test)).mean())


def test_a_state_takes_no_more_room_than_policies_count_with() -> None:
    step, table = of(rounds=8, max_rows=1)
    train = examples(step.task(table), TRAIN)
    _, state, _ = noised.run(step, table, divided(train, 4), 8.0, noised.quickly(1))
    assert {"weights", "velocity", "averaged"} <= set(state.numbers), "it has begun to average"
    assert 8 * sum(map(len, state.numbers.values())) <= STATE_BYTES * step.state_values(slot_count(step, table))


@pytest.mark.slow
def test_the_accuracy_grows_with_epsilon_and_beats_what_no_pair_tells() -> None:
    found = {epsilon: accuracy(8000, epsilon) for epsilon in (1, 4, 8)}
    exact, state, _ = families.run(
        families.task("hashed-logistic", COLUMNS, "ok", FEATURES, rounds=80, bits="12", crossed="a*b"),
        [examples(of()[0].task(of()[1]), TRAIN)],
    )[0:3]
    assert found[1] < found[4] <= found[8] + 0.005
    assert found[8] > 0.7
    assert found[1] > 0.62
    assert exact.ended == "complete", state


def test_too_few_persons_and_weights_without_end_stop_a_run() -> None:
    step, table = of(rounds=6)
    own = step.task(table)
    _, state, said = noised.run(step, table, [people(own), people(own)], 0.5, noised.quickly(1))
    assert state.ended == "too-few-rows"
    assert "too few persons" in said.notes[0]
    step, table = of(rounds=6, rate="100000")
    rows = examples(step.task(table), TRAIN)
    _, state, said = noised.run(step, table, divided(rows, 2), 8, noised.quickly(1))
    assert state.ended == "diverged"
    assert np.abs(state["weights"]).max() <= 100
    assert "smaller rate" in said.notes[0]


def asked(rounds: int = 50, rows_up_to: int = 500_000, epsilon: float = 4, **options: str):  # type: ignore[no-untyped-def]
    step, table = of(rounds=rounds, max_rows=1, rows_up_to=str(rows_up_to), **options)
    silos = ("east", "north", "south", "west")
    return request(table=table, plan=step, silos=silos, micro_rho=micro_rho_of(epsilon, 1e-6) // rounds)


def test_the_delta_of_table_noise_is_charged_for_every_round_of_a_run() -> None:
    first = asked(bits="17")
    for number in (0, 1):
        own = first.model_copy(update={"plan": noised.at(first.plan, number)})
        slots = 2**17 + (2 if number == 0 else 0)
        cost = Fraction(slots * 4 * 2**LOSS_BITS, 2**TABLE_TV_BITS) * ATTO
        assert 0 <= sampler_delta(own) - cost < 1
    price = run_price(first, first.table.max_silos)
    assert (price.parts, price.atto_delta) == (50, 50 * sampler_delta(first))


def test_the_sum_of_all_persons_and_the_noise_fits_words_of_32_bits() -> None:
    for silos_rows in (500_000, 2_000_000):
        own = asked(rows_up_to=silos_rows, bits="17")
        for number in (0, 1):
            step = own.model_copy(update={"plan": noised.at(own.plan, number)})
            limit = terms_of(step, bytes(32)).limit
            assert PERSON_UNITS * silos_rows < limit < 1.01 * PERSON_UNITS * silos_rows
            assert Ring((2 * 4 * limit + 1).bit_length()).word_bytes == 4
            assert carried_rows(step.table, step.plan, step.micro_rho, "masking", 4) == silos_rows


@pytest.mark.parametrize("option", ["value_bits", "keep"])
def test_few_bits_are_refused_on_private_sources_with_the_reason(option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option}: for exact sources alone.*every weight.*remove it"):
        of(**{option: "8"})  # type: ignore[arg-type]
