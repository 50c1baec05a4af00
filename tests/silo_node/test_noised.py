"""Families with noise: what one person changes, what rows that overflow do, and how often intervals cover.

Neighbours are data sets of which one has a person more, with up to `max_rows` rows, and every block is compared.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from policies.networks.names import NETWORKS
from policies.requests.noised import NoisedStep
from policies.requests.noised_families import NOISED, UNITS, most_moments
from policies.requests.tables import Table, TableColumn
from silo_node.training.family import Examples, State
from silo_node.training.noised import chosen, rows
from silo_node.training.noised.clipped import clipped_sum
from silo_node.training.noised.descent import update
from silo_node.training.noised.family import Noisy
from silo_node.training.noised.linear import OF_POOLED
from silo_node.training.noised.registry import NOISED_FAMILIES
from silo_node.training.noised.shown import carried
from tests.harness import noised
from tests.harness.families import number, text, truth

MAX_ROWS = 3
KIND = text("kind", "a", "b", "c", "?")
COLUMNS = (
    number("age", 0, 10),
    number("debt", -3, 3, "0.5"),
    KIND,
    truth("owner"),
    truth("ok"),
    number("visits", 0, 9),
)
FEATURES = ("age", "debt", "kind", "owner")
JOBS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("logistic-regression", "ok", {}),
    ("logistic-regression", "ok", {"missing": "mean", "clip": "0.3"}),
    ("logistic-regression", "ok", {"missing": "indicator"}),
    ("multinomial-regression", "kind", {}),
    ("linear-regression", "visits", {"clip": "4"}),
    ("linear-regression", "visits", {"method": "moments"}),
    ("linear-regression", "visits", {"method": "moments", "missing": "indicator"}),
    ("poisson-regression", "visits", {}),
)


def job(family: str, label: str, options: dict[str, str]) -> tuple[NoisedStep, Table]:
    features = tuple(name for name in FEATURES if name != label)
    return noised.step(family, COLUMNS, label, features, None, None, MAX_ROWS, **options)


def coded(persons: list[list[dict[str, int]]], left_out: int = 0) -> Examples:
    """Return persons' rows as a silo codes them, in an order that is not theirs; None is a cell that is missing."""
    flat = [(person, row) for person, own in enumerate(persons) for row in own][::-1]
    cells: dict[str, Any] = {}
    missing: dict[str, Any] = {}
    for column in COLUMNS:
        values = [row.get(column.name) for _, row in flat]
        width = 0 if column.domain else column.range_steps
        cells[column.name] = np.array(
            [0 if one is None else one if column.domain else 2 * one - width for one in values]
        )
        missing[column.name] = np.array([one is None for one in values], np.bool_)
    person = np.unique([person for person, _ in flat], return_inverse=True)[1].astype(np.int64)
    return Examples(person, {name: one.astype(np.int64) for name, one in cells.items()}, missing, 0, left_out)


def anybody(numbers: np.random.Generator) -> list[dict[str, int]]:
    return [
        {
            column.name: int(numbers.integers(len(column.domain) - 1 if column.domain else column.range_steps + 1))
            for column in COLUMNS
            if column.name == "kind" or column.name in ("ok", "visits") or numbers.random() > 0.2
        }
        for _ in range(numbers.integers(1, MAX_ROWS + 1))
    ]


def extremes() -> Iterator[list[dict[str, int]]]:
    """Yield persons at the ends of all bounds, with as many rows as may enter: who changes a sum the most."""
    for age, debt, kind, owner, ok, visits in product((0, 10), (0, 12), (0, 2), (0, 1), (0, 1), (0, 9)):
        row = {"age": age, "debt": debt, "kind": kind, "owner": owner, "ok": ok, "visits": visits}
        yield [row] * MAX_ROWS


def states(of: NoisedStep, table: Table) -> Iterator[tuple[int, State]]:
    """Yield rounds with the weights that a run could have there: at its start, ordinary, and far out."""
    family, first = NOISED_FAMILIES[of.family], of.task(table)
    yield 0, family.init(first)
    if of.steps == 1:
        return
    sums = {name: Noisy(np.full(length, 1000.0 if name == "persons" else 3.0), 1.0)
            for name, length in NOISED[of.family].shape.blocks(first).items()}  # fmt: skip
    begun = family.update(first, family.init(first), sums)
    assert begun.ended is None
    width = len(begun["weights"])
    for weights in (np.zeros(width), np.linspace(-1.5, 2, width), np.full(width, 99.0), np.full(width, 1e300)):
        yield 1, begun.with_(weights=weights)


@pytest.mark.parametrize(("family", "label", "options"), JOBS)
def test_no_person_changes_a_block_by_more_than_its_sensitivity(
    family: str, label: str, options: dict[str, str]
) -> None:
    of, table = job(family, label, options)
    numbers = np.random.default_rng(3)
    base = [anybody(numbers) for _ in range(5)]
    others = [*(anybody(numbers) for _ in range(10)), *extremes()]
    for number_, state in states(of, table):
        task = noised.at(of, number_).task(table)
        extents = list(NOISED[family].extents(task).values())
        without = NOISED_FAMILIES[family].statistics(task, state, coded(base))
        reached = [0.0] * len(extents)
        for person in others:
            found = NOISED_FAMILIES[family].statistics(task, state, coded([*base, person], 1))
            for place, (one, other, extent) in enumerate(zip(found, without, extents, strict=True)):
                assert one.dtype == np.dtype(np.int64)
                assert one.shape == (extent.length,)
                squared = sum((int(a) - int(b)) ** 2 for a, b in zip(one, other, strict=True))
                assert squared <= extent.squared, (family, number_, place)
                reached[place] = max(reached[place], squared / extent.squared)
        if number_ == 0:
            assert reached[0] == 1
            products = "method" in options
            assert max(reached[1:]) > (0.9 if products else 0.3), "the bound is not far from what a person can do"


def test_a_gradient_that_is_not_finite_counts_as_nothing_and_a_long_one_is_clipped() -> None:
    person = np.array([0, 1, 2, 3, 3, 4], np.int64)
    parts = np.array([[np.nan, 1.0], [np.inf, 0.0], [1e300, -1e300], [3.0, 0.0], [0.0, 4.0], [0.3, -0.4]])
    found = clipped_sum(parts, person, 1.0)
    expected = np.trunc(np.array([0.6, 0.8]) * UNITS) + np.trunc(np.array([0.3, -0.4]) * UNITS)
    assert np.abs(found - expected).max() <= 2
    assert (clipped_sum(parts[:3], person[:3], 1.0) == 0).all()
    assert (clipped_sum(np.zeros((0, 2)), person[:0], 1.0) == 0).all()


def test_long_rows_of_many_persons_are_summed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    of, table = job("logistic-regression", "ok", {"missing": "mean"})
    numbers = np.random.default_rng(5)
    own = coded([anybody(numbers) for _ in range(50)])
    for number_, state in states(of, table):
        task = noised.at(of, number_).task(table)
        whole = NOISED_FAMILIES[of.family].statistics(task, state, own)
        monkeypatch.setattr("silo_node.training.noised.clipped.BLOCK_CELLS", 7)
        parts = NOISED_FAMILIES[of.family].statistics(task, state, own)
        monkeypatch.undo()
        for one, other in zip(whole, parts, strict=True):
            assert (one == other).all()


def people(count: int, seed: int) -> tuple[tuple[TableColumn, ...], Examples, npt.NDArray[np.float64]]:
    """Return rows of one person each, of which a bool, a number and a count follow from three columns."""
    numbers = np.random.default_rng(seed)
    columns = (
        number("x", 0, 100),
        number("y", 0, 100),
        truth("z"),
        truth("ok"),
        number("paid", 0, 1000),
        number("n", 0, 20),
    )
    x, y, z = numbers.integers(0, 101, count), numbers.integers(0, 101, count), numbers.integers(0, 2, count)
    line = 0.8 * (x / 50 - 1) - 0.5 * (y / 50 - 1) + 0.4 * (2 * z - 1)
    values = {
        "x": 2 * x - 100, "y": 2 * y - 100, "z": 2 * z - 1,
        "ok": 2 * (line + numbers.logistic(size=count) > 0) - 1,
        "paid": 2 * np.clip(np.rint(500 + 120 * line + 60 * numbers.normal(size=count)), 0, 1000) - 1000,
        "n": 2 * np.clip(numbers.poisson(np.exp(0.5 + 0.5 * line)), 0, 20) - 20,
    }  # fmt: skip
    cells = {name: np.asarray(one, np.int64) for name, one in values.items()}
    design = np.stack([np.ones(count), cells["x"] / 100, cells["y"] / 100, cells["z"] / 1.0], 1)
    return columns, Examples(np.arange(count), cells), design


def silos(of: Examples, count: int = 5) -> list[Examples]:
    parts = np.array_split(np.arange(of.rows), count)
    return [Examples(np.arange(len(own)), {name: cells[own] for name, cells in of.cells.items()}) for own in parts]


@pytest.mark.parametrize(
    ("family", "label"), [("logistic-regression", "ok"), ("poisson-regression", "n"), ("linear-regression", "paid")]
)
def test_a_descent_is_near_the_pooled_fit_and_its_interval_covers_the_program_without_noise(
    family: str, label: str
) -> None:
    import statsmodels.api as sm

    columns, own, design = people(3000, 1)
    of, table = noised.step(family, columns, label, ("x", "y", "z"))
    label_, parts = rows.outcomes(of.task(table), own), silos(own)
    fit = {
        "logistic-regression": lambda: sm.Logit(label_, design).fit(disp=0),
        "poisson-regression": lambda: sm.Poisson(label_, design).fit(disp=0),
        "linear-regression": lambda: sm.OLS((label_ - 500) / 500, design).fit(),
    }[family]().params
    _, without, _ = noised.run(of, table, parts, 4, noised.nothing)
    assert np.abs(without["accepted"] - fit).max() < 0.25, "clip, decay and rounds change a coefficient"
    scale = np.array([1, 1, 1, 1.0])
    covered = []
    for seed in range(25):
        task, state, fitted = noised.run(of, table, parts, 4, noised.quickly(seed))
        assert state.ended is None
        (listing,) = fitted.listings
        with_noise, clean = state["accepted"] * scale, without["accepted"] * scale
        change = np.array([line.values[1] or 0.0 for line in listing.lines])
        natural = np.array([line.values[0] or 0.0 for line in listing.lines])
        exact = NOISED_FAMILIES[family].finish(task, state.with_(accepted=clean)).listings[0]
        wanted = np.array([line.values[0] or 0.0 for line in exact.lines])
        covered.append(np.abs(natural - wanted) <= 1.96 * change)
        assert np.abs(with_noise - clean).max() < 1
    assert np.mean(covered) >= 0.93


def test_intervals_of_noised_moments_cover_the_pooled_coefficients() -> None:
    columns, own, _design = people(3000, 2)
    of, table = noised.step("linear-regression", columns, "paid", ("x", "y", "z"), method="moments")
    label = rows.outcomes(of.task(table), own)
    natural = np.stack(
        [np.ones(own.rows), own.cells["x"] / 2 + 50, own.cells["y"] / 2 + 50, (own.cells["z"] + 1) / 2], 1
    )
    fit = np.linalg.lstsq(natural, label, rcond=None)[0]
    covered = []
    for seed in range(100):
        _, state, fitted = noised.run(of, table, silos(own), 1, noised.quickly(seed))
        assert state.ended is None
        assert fitted.notes == (OF_POOLED,)
        lines = fitted.listings[0].lines
        covered.append([line.values[2] <= value <= line.values[3] for line, value in zip(lines, fit, strict=True)])
    assert 0.92 <= np.mean(covered) <= 0.98
    _, state, fitted = noised.run(of, table, silos(own), 0.02, noised.quickly(1))
    assert (state.ended, fitted.listings) == ("too-few-rows", ())


def test_without_noise_the_moments_are_the_pooled_fit() -> None:
    columns, own, design = people(400, 3)
    of, table = noised.step("linear-regression", columns, "paid", ("x", "y", "z"), method="moments")
    label = (rows.outcomes(of.task(table), own) - 500) / 500
    task = of.task(table)
    sums = noised.opened(of, table, State(), silos(own), 10**6, noised.nothing)
    state = NOISED_FAMILIES[of.family].update(
        task, State(), sums | {"products": replace(sums["products"], deviation=0.0)}
    )
    assert state["accepted"] == pytest.approx(np.linalg.lstsq(design, label, rcond=None)[0], abs=1e-4)


def test_weights_that_leave_the_bound_end_the_run_and_the_last_good_model_stands() -> None:
    columns, own, _ = people(500, 4)
    of, table = noised.step("logistic-regression", columns, "ok", ("x", "y", "z"), rate="3000")
    task, state, fitted = noised.run(of, table, silos(own), 4, noised.quickly(1))
    assert state.ended == "diverged"
    assert task.number < of.steps - 1
    assert np.abs(state["weights"]).max() <= 100
    assert "smaller rate" in fitted.notes[0]
    still = update(replace(task, number=task.number + 1), state, {"gradient": Noisy(np.zeros(4), 1.0)})
    assert still is state
    slow, _ = noised.step("logistic-regression", columns, "ok", ("x", "y", "z"), rate="0.5")
    begun = noised.run(slow, table, silos(own), 4, noised.quickly(1))[1]
    broken = update(replace(task, number=2), begun, {"gradient": Noisy(np.array([np.nan, 0, 0, 0]), 1.0)})
    assert broken.ended == "diverged"
    assert (broken["accepted"] == begun["accepted"]).all()


def test_too_few_persons_for_a_price_end_the_run_by_the_noised_count() -> None:
    columns, own, _ = people(4, 4)
    of, table = noised.step("logistic-regression", columns, "ok", ("x", "y", "z"))
    _, state, fitted = noised.run(of, table, silos(own), 0.1, noised.nothing)
    assert state.ended == "too-few-rows"
    assert fitted.listings == ()


def test_many_persons_are_preconditioned_once_and_arrive_where_few_do_not() -> None:
    columns, own, design = people(40_000, 6)
    of, table = noised.step("logistic-regression", columns, "ok", ("x", "y", "z"), clip="3")  # as long as any gradient
    _, state, _ = noised.run(of, table, silos(own), 8, noised.quickly(1))
    assert len(state["factor"]) == 16
    few = silos(Examples(own.person[:400], {name: cells[:400] for name, cells in own.cells.items()}))
    assert not len(noised.run(of, table, few, 1, noised.quickly(1))[1]["factor"])
    import statsmodels.api as sm

    fit = sm.Logit((own.cells["ok"] > 0).astype(float), design).fit(disp=0)
    assert np.abs(state["accepted"] - fit.params).max() < 0.03


def test_a_missing_cell_is_filled_by_a_noised_mean_and_persons_left_out_are_counted() -> None:
    columns, own, _ = people(2000, 7)
    gap = np.random.default_rng(1).random(own.rows) < 0.3
    own = Examples(own.person, own.cells, {name: gap & (name == "x") for name in ("x", "y", "z")}, 9, 7)
    of, table = noised.step("logistic-regression", columns, "ok", ("x", "y", "z"), missing="mean")
    task, first = of.task(table), State()
    state = update(
        task,
        first,
        noised.opened(
            of,
            table,
            first,
            [
                own,
                Examples(
                    own.person[:0],
                    {name: one[:0] for name, one in own.cells.items()},
                    {name: one[:0] for name, one in own.missing.items()},
                ),
            ],
            10**6,
            noised.nothing,
        ),
    )
    mean = (own.cells["x"][~gap] / 100).mean()
    assert state["mean"] == pytest.approx([mean, (own.cells["y"] / 100).mean(), own.cells["z"].mean()], abs=1e-3)
    assert state["left_out"][0] == pytest.approx(7)


def test_rates_follow_from_what_is_public_and_a_job_may_name_its_own() -> None:
    columns, _own, _ = people(10, 7)
    of, table = noised.step("logistic-regression", columns, "ok", ("x", "y", "z"))
    task = of.task(table)
    noises = [chosen.relative_noise(task, persons, 30.0) for persons in (100.0, 1e3, 1e4, 1e6)]
    assert noises == sorted(noises, reverse=True)
    hows = [chosen.descent(task, persons, 30.0) for persons in (100.0, 600.0, 3e3, 1e6)]
    assert [how.is_preconditioned for how in hows] == [False, False, False, True]
    assert [how.decay for how in hows] == sorted((how.decay for how in hows), reverse=True)
    named = replace(task, options={**task.options, "rate": "2", "momentum": "0", "decay": "0"})
    how = chosen.descent(named, 100.0, 30.0)
    assert (how.rate, how.momentum, how.decay) == (2, 0, 0)


def test_what_the_noise_of_a_round_adds_is_what_a_descent_of_noise_alone_has() -> None:
    columns, _, _ = people(10, 7)
    of, table = noised.step("logistic-regression", columns, "ok", ("x", "y", "z"), rounds=9)
    rate, momentum, decay, numbers = 0.7, 0.6, 0.05, np.random.default_rng(1)
    weight, velocity, kept = np.zeros(200_000), np.zeros(200_000), []
    for round_ in range(1, 9):
        velocity = momentum * velocity + numbers.normal(size=len(weight)) + decay * weight
        weight = weight - rate * velocity
        if round_ > 4:
            kept.append(weight)
    found = carried(of.task(table), 8, rate, momentum, decay)
    assert found == pytest.approx(float(np.var(np.mean(kept, 0))), rel=0.02)


def test_the_products_of_a_row_have_the_norm_that_is_stated() -> None:
    of, table = job("logistic-regression", "ok", {})
    own = coded([[row] for row in next(extremes())[:1]])
    task = of.task(table)
    assert most_moments(task) ** 2 == pytest.approx(len(FEATURES) * (len(FEATURES) + 1) / 2 + len(FEATURES) + 1)
    assert (rows.second_moments(task, own) != 0).any()


def test_no_option_or_column_enters_whose_effect_on_a_sensitivity_is_not_stated() -> None:
    stated = {"missing", "positive", "rate", "decay", "momentum", "clip", "method"}
    # Whatever its options are, tests/silo_node/test_noised_hashed.py tries that a person's part has its bound.
    hashed = {"bits", "crossed", "keep", "rows_up_to", "value_bits"}
    # So tests/silo_node/test_noised_networks.py does for networks, by person and by silo.
    for name, one in NOISED.items():
        if name in NETWORKS:
            continue
        assert set(one.shape.options) <= stated | (hashed if name == "hashed-logistic" else set())
        assert set(one.shape.parts) <= {"offset"}
    for options in ({"interactions": "age*debt"}, {"weights": "reweighing"}):
        with pytest.raises(ValueError, match="no option"):
            job("logistic-regression", "ok", options)
