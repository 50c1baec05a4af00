"""Networks with noise: neither a person nor a silo moves a sum by more than is declared, whatever rows and weights are.

By brute force over neighbouring data sets, in whole units, as the silos contribute them.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.networks.calls import AnyCall
from policies.networks.calls.axes import Flatten
from policies.networks.calls.elements import Elementwise
from policies.networks.calls.images import Conv2d
from policies.networks.calls.products import Embedding, Linear
from policies.networks.graph import Graph, Input, Weight
from policies.requests.families import Task
from policies.requests.noised import NoisedStep
from policies.requests.noised_networks import LEAST_UNITS, units_of
from policies.requests.tables import Table
from silo_node.training.family import Examples, State
from silo_node.training.grid import Integers
from silo_node.training.networks.interpreter import computed
from silo_node.training.noised import whole
from silo_node.training.noised.family import Noisy
from silo_node.training.noised.person_gradients import Bound, People, Tensors, summed
from silo_node.training.noised.registry import NOISED_FAMILIES
from tests.harness import noised
from tests.harness.families import examples, number, part, text, truth

pytestmark = pytest.mark.torch
torch.set_num_threads(1)

COLUMNS = (number("a", -5, 5), number("b", 0, 1000), truth("c"), text("kind", "red", "green", "blue", "unknown"))
FAMILY = NOISED_FAMILIES["mlp"]
NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-3, 3) | st.sampled_from([0.0, 1e308, -1e308])
NOT_FINITE = (np.nan, np.inf, 1e300)


def of(rounds: int = 10, max_rows: int = 4, **options: str) -> tuple[NoisedStep, Table]:
    own = {"hidden": "3"} | options
    return noised.step("mlp", COLUMNS, "kind", ("a", "b", "c"), rounds, max_rows=max_rows, **own)  # type: ignore[arg-type]


def squared(values: npt.NDArray[np.int64]) -> int:
    return sum(int(one) ** 2 for one in values)


@settings(max_examples=200)
@given(st.lists(st.lists(NUMBERS, min_size=5, max_size=5), min_size=1, max_size=8), st.floats(1e-3, 1e3))
def test_no_vector_is_longer_than_its_units_whatever_its_numbers_are(numbers: list[list[float]], clip: float) -> None:
    units = whole.bounded(np.array(numbers), clip, LEAST_UNITS)
    assert all(squared(one) <= LEAST_UNITS**2 for one in units)


@pytest.mark.parametrize("count", [1, 10, 1000, 100_000])
def test_a_long_vector_is_as_long_as_the_clip_and_keeps_its_direction(count: int) -> None:
    rng, units = np.random.default_rng(1), units_of(count)
    parts = rng.normal(size=(5, count)) * [[1e-3], [1.0], [1e3], [1e20], [1e-12]]
    parts[4] = 0.9 * parts[0] / np.linalg.norm(parts[0])
    found = whole.bounded(parts, 1.0, units)
    norms = np.linalg.norm(parts, axis=1)
    for own, given_, norm in zip(found, parts, norms, strict=True):
        assert squared(own) <= units**2
        wanted = given_ / max(1.0, norm) * units
        assert np.linalg.norm(own - wanted) <= 0.03 * units
    assert (np.abs(found[4] - parts[4] * units) <= 0.5).all(), "within the clip it is rounded and nothing more"


def test_rounding_that_makes_a_vector_too_long_is_undone() -> None:
    """Each of so many numbers is half a unit and a little: rounded, the vector is twice as long."""
    shares = np.full((1, LEAST_UNITS**2 * 2), 0.5000001)
    assert squared(np.rint(shares[0]).astype(np.int64)) > LEAST_UNITS**2
    assert squared(whole.rounded(shares, LEAST_UNITS)[0]) <= LEAST_UNITS**2


def people(own: Task, seed: int = 1, persons: int = 12) -> Examples:
    """Return rows of persons, one to four each, some at the ends of all bounds."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(persons), rng.integers(1, 5, persons))
    rows = {
        "a": rng.choice([-5, 0, 5], len(person)),
        "b": rng.integers(0, 1001, len(person)),
        "c": rng.random(len(person)) < 0.5,
        "kind": rng.choice(["red", "green", "blue"], len(person)),
    }
    return replace(examples(own, rows), person=person, persons_left_out=3)


def states(own: Task, count: int, seed: int = 1) -> list[State]:
    """Return states of a run: small and large weights, and such as no run has, that are not finite."""
    rng = np.random.default_rng(seed)
    found = [np.zeros(count), rng.normal(0, 0.5, count), rng.normal(0, 30, count), np.full(count, 100.0)]
    found += [np.where(rng.random(count) < 0.3, bad, rng.normal(0, 1, count)) for bad in NOT_FINITE]
    clip = float(own.options["clip"])
    return [State().with_(at=one, weights=one, clip=clip * factor) for one in found for factor in (1.0, 0.01)]


def with_somebody(rows: Examples, other: Examples, count: int = 4) -> Examples:
    """Return the rows with somebody who comes with the first rows of others."""
    who = int(rows.person.max()) + 1
    return replace(
        rows,
        person=np.r_[rows.person, np.full(count, who)],
        cells={name: np.r_[cells, other.cells[name][:count]] for name, cells in rows.cells.items()},
    )


@pytest.mark.parametrize("options", [{}, {"clip": "0.05", "quantile": "0.5"}, {"clip": "40", "hidden": ""}])
def test_no_person_moves_a_sum_by_more_than_is_declared(options: dict[str, str]) -> None:
    step, table = of(**options)  # type: ignore[arg-type]
    own, longest = step.task(table), 0
    rows, other = people(own), people(own, 2)
    length = noised.at(step, 1).statistics(table)
    count = max(extent.length for extent in length.values())
    for round_number, state in [(0, State()), *((1, one) for one in states(own, count))]:
        task = replace(own, number=round_number)
        extents = list(noised.at(step, round_number).statistics(table).values())
        all_of = FAMILY.statistics(task, state, rows)
        assert [block.shape for block in all_of] == [(extent.length,) for extent in extents]
        assert all(np.abs(block).max() <= (extent.most or 0) for block, extent in zip(all_of, extents, strict=True))
        neighbours = [replace(part(rows, np.flatnonzero(rows.person != who)), persons_left_out=3) for who in range(12)]
        neighbours.append(with_somebody(rows, other))
        for neighbour in neighbours:
            found = FAMILY.statistics(task, state, neighbour)
            for extent, one, block in zip(extents, all_of, found, strict=True):
                assert squared(one - block) <= extent.squared
                longest = max(longest, squared(one - block) if extent.length > 1 else 0)
    assert longest > 0.9 * units_of(count) ** 2 or float(own.options["clip"]) > 1, "the bound is reached"


def test_a_person_without_a_finite_gradient_counts_as_nothing() -> None:
    step, table = of(quantile="0.5")
    own = replace(step.task(table), number=1)
    count = next(iter(noised.at(step, 1).statistics(table).values())).length
    rows = people(own)
    gradient, within = FAMILY.statistics(own, State().with_(at=np.full(count, np.nan), clip=1.0), rows)
    assert not gradient.any()
    assert within.tolist() == [-12]


def test_what_persons_add_up_to_is_the_sum_of_what_each_adds_alone() -> None:
    """Nobody's part depends on who is computed beside: in the last bits it would, by the orders of additions."""
    step, table = of(hidden="16")
    own = replace(step.task(table), number=1)
    count = next(iter(noised.at(step, 1).statistics(table).values())).length
    rows = people(own, persons=150)
    for state in states(own, count)[:4]:
        (whole_sum,) = FAMILY.statistics(own, state, rows)
        alone = sum(
            FAMILY.statistics(own, state, part(rows, np.flatnonzero(rows.person == who)))[0] for who in range(150)
        )
        assert (whole_sum == alone).all()


def test_whoever_is_near_a_tie_is_computed_alone() -> None:
    shares = np.array([[0.1, 3.5 + 1e-9], [0.1, 3.4], [0.0, 0.0], [-2.5 - 1e-9, 0.0]])
    parts = shares / 256
    assert whole.doubtful(shares, parts, 1.0, 2.0**-26).tolist() == [True, False, False, True]
    near_the_clip = np.array([[1.0 - 1e-12, 0.0], [np.nan, 0.0]])
    assert whole.doubtful(np.zeros((2, 2)), near_the_clip, 1.0, 2.0**-26).tolist() == [True, True]


def graph_of(inputs: Sequence[Input], weights: Sequence[Weight], calls: Sequence[AnyCall]) -> Graph:
    return Graph(inputs=tuple(inputs), weights=tuple(weights), calls=tuple(calls), output=calls[-1].name)


def words() -> Graph:
    """Return a graph that looks up three words, with a hidden layer."""
    weights = [
        Weight(name="words.weight", shape=(7, 4), initial="zeros"),
        Weight(name="out.weight", shape=(3, 12), initial="zeros"),
    ]
    calls: list[AnyCall] = [
        Embedding(name="words", of="x", weight="words.weight", padding=None),
        Flatten(name="flat", of="words"),
        Elementwise(call="tanh", name="tanh", of="flat"),
        Linear(name="out", of="tanh", weight="out.weight", bias=None),
    ]
    return graph_of([Input(name="x", shape=(3,), below=7)], weights, calls)


def images() -> Graph:
    """Return a graph of one convolution of 4 x 4 images, and a linear layer."""
    weights = [
        Weight(name="conv.weight", shape=(2, 1, 3, 3), initial="zeros"),
        Weight(name="out.weight", shape=(3, 8), initial="zeros"),
        Weight(name="out.bias", shape=(3,), initial="zeros"),
    ]
    calls: list[AnyCall] = [
        Conv2d(
            name="conv",
            of="x",
            weight="conv.weight",
            bias=None,
            stride=(1, 1),
            padding=(0, 0),
            dilation=(1, 1),
            groups=1,
        ),
        Elementwise(call="relu", name="relu", of="conv"),
        Flatten(name="flat", of="relu"),
        Linear(name="out", of="flat", weight="out.weight", bias="out.bias"),
    ]
    return graph_of([Input(name="x", shape=(1, 4, 4))], weights, calls)


@pytest.mark.parametrize("graph", [words(), images()], ids=["embedding", "convolution"])
@pytest.mark.parametrize("clip", [0.1, 3.0])
def test_no_person_moves_a_sum_of_other_calls_either(graph: Graph, clip: float) -> None:
    rng, persons = np.random.default_rng(3), 9
    person = rng.permutation(np.repeat(np.arange(persons), rng.integers(1, 4, persons)))
    rows = len(person)
    shape = graph.inputs[0].shape
    x = torch.from_numpy(
        rng.integers(0, 7, (rows, *shape)) if graph.inputs[0].below else rng.normal(0, 50, (rows, *shape))
    )
    targets = torch.from_numpy(rng.integers(0, 3, rows))

    def loss(weights: Tensors, inputs: Tensors, wanted: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(computed(graph, weights, inputs, is_training=True), wanted)

    units = units_of(graph.count)
    for scale in (0.0, 1.0, 1e4, np.nan, np.inf):
        weights = {one.name: torch.from_numpy(rng.normal(0, 1, one.shape) * scale) for one in graph.weights}

        def total(places: Integers, weights: Tensors = weights) -> Integers:
            some = torch.from_numpy(places)
            of_some = People(person[places], {"x": x[some]}, targets[some])
            return summed(loss, weights, of_some, Bound(clip, units), 50).units

        of_all = total(np.arange(rows))
        for who in range(persons):
            assert squared(of_all - total(np.flatnonzero(person != who))) <= units**2


@pytest.mark.parametrize("options", [{}, {"algorithm": "fedprox"}, {"rate": "1000", "epochs": "3"}])
def test_no_silo_moves_a_sum_by_more_than_twice_its_clip(options: dict[str, str]) -> None:
    """Any rows of a silo against any other: none at all, opposite ones, one person less, other persons."""
    step, table = of(unit="silo", silos="5", clip="0.2", batch="4", **options)  # type: ignore[arg-type]
    own, (extent,) = step.task(table), step.statistics(table).values()
    rows = [people(own), people(own, 2), people(own, 5, persons=40), part(people(own), np.arange(0))]
    rows.append(part(rows[0], np.flatnonzero(rows[0].person != 3)))
    opposite = replace(rows[0], cells={**rows[0].cells, "kind": (rows[0].cells["kind"] + 1) % 3})
    longest = 0
    for state in states(own, extent.length):
        found = [FAMILY.statistics(own, state, one)[0] for one in (*rows, opposite)]
        assert all(squared(one) <= (extent.sensitivity // 2) ** 2 for one in found)
        assert all(np.abs(one).max() <= (extent.most or 0) for one in found)
        for one in found:
            for other in found:
                assert squared(one - other) <= extent.squared
                longest = max(longest, squared(one - other))
    assert longest > 0.3 * extent.squared or "rate" in options, "no single clip would bound it"
    assert longest > 1.2 * (extent.sensitivity // 2) ** 2 or "rate" in options


def test_a_silo_counts_the_same_however_many_rows_it_has() -> None:
    step, table = of(unit="silo", silos="2", clip="100", epochs="1", batch="65536")
    own = step.task(table)
    state = FAMILY.init(own)
    rows = people(own)
    twice = part(rows, np.repeat(np.arange(rows.rows), 3))
    one, other = (FAMILY.statistics(own, state, some)[0] for some in (rows, twice))
    assert np.abs(one - other).max() <= 1


def test_the_clip_follows_the_quantile_by_opened_sums_and_never_exceeds_the_job() -> None:
    step, table = of(quantile="0.5", clip="2")
    own = replace(step.task(table), number=1)
    count = next(iter(noised.at(step, 1).statistics(table).values())).length
    state = FAMILY.update(step.task(table), State(), {"persons": Noisy(np.array([1000.0]), 10.0),
                                                      "left-out": Noisy(np.array([0.0]), 10.0)})  # fmt: skip
    nothing = Noisy(np.zeros(count), 1.0)
    assert state.one("clip") == 2.0
    low = FAMILY.update(own, state, {"gradient": nothing, "within": Noisy(np.array([1000.0]), 1.0)})
    assert low.one("clip") == 1.5
    high = FAMILY.update(own, low, {"gradient": nothing, "within": Noisy(np.array([-9e9]), 1.0)})
    assert high.one("clip") == 1.875
    for _ in range(5):
        high = FAMILY.update(own, high, {"gradient": nothing, "within": Noisy(np.array([-1000.0]), 1.0)})
    assert high.one("clip") == 2.0
    for _ in range(200):
        low = FAMILY.update(own, low, {"gradient": nothing, "within": Noisy(np.array([1e9]), 1.0)})
    assert low.one("clip") == 2.0 * 2.0**-20


def test_the_first_step_has_noise_as_the_count_of_persons_says() -> None:
    for options in ({}, {"quantile": "0.5"}):
        step, table = of(**options)  # type: ignore[arg-type]
        own = step.task(table)
        rows = replace(people(own, persons=200), persons_left_out=0)
        opened = noised.opened(step, table, State(), [rows] * 5, 50_000, noised.quickly(1))
        state = FAMILY.update(own, State(), opened)
        later = noised.opened(noised.at(step, 1), table, state, [rows] * 5, 50_000, noised.quickly(2))
        length = len(state["weights"])
        relative = later["gradient"].deviation / units_of(length) / state.one("persons") * np.sqrt(length / 9)
        assert state.one("noise") == pytest.approx(relative, rel=1e-3)


def test_weights_without_end_and_too_few_persons_stop_a_run() -> None:
    step, table = of(rate="1000")
    rows = people(step.task(table))
    _, state, said = noised.run(step, table, [rows] * 40, 8.0, noised.quickly(1))
    assert state.ended == "diverged"
    assert np.abs(state["weights"]).max() <= 100
    assert "smaller rate" in said.notes[0]
    _, state, said = noised.run(*of(), [rows] * 3, 0.3, noised.quickly(1))
    assert state.ended == "too-few-rows"
    assert "too few persons" in said.notes[0]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"epochs": "2"}, 'by person a round is one step on all rows; remove it, or take unit = "silo"'),
        ({"silos": "5"}, "divided by the count of persons"),
        ({"unit": "silo"}, "silos: name by how many"),
        ({"unit": "silo", "silos": "2.5"}, "silos: name by how many"),
        ({"unit": "silo", "silos": "5", "quantile": "0.5"}, "one vector, whatever its persons are"),
        ({"unit": "silo", "silos": "5", "algorithm": "scaffold"}, "has more than a sum of changes"),
        ({"most_change": "5"}, "for exact sources alone"),
        ({"unit": "row"}, "expected one of person, silo"),
        ({"hidden": "0"}, "a size is from 1"),
        ({"clip": "0"}, "expected a number from 0.000001"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        of(**options)  # type: ignore[arg-type]


def test_words_say_whom_the_noise_hides() -> None:
    assert "silo" not in of()[0].in_words("rows")
    by_silo = of(unit="silo", silos="5")[0]
    assert "the unit is the silo" in by_silo.in_words("rows")
    assert "only as a part of them" in by_silo.in_words("rows")
    own = of(noise="own")[0]
    assert "the whole noise of its own" in own.in_words("rows")
    assert (own.has_own_noise, by_silo.has_own_noise, by_silo.unit, own.unit) == (True, False, "silo", "person")
