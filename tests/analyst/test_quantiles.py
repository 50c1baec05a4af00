"""Intervals of quantiles hold the quantile of the rows, also of few rows, of skewed ones and of empty groups."""

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from analyst.reports.intervals import Floats, Noisy
from analyst.reports.quantiles import of_quantile
from analyst.reports.redrawn import Redrawn
from policies.requests.query import Aggregate, statistic_of
from policies.requests.tables import Table, TableColumn
from policies.requests.trees import MAX_BINS, TREE, tree_over
from silo_node.data.trees import counts
from tests.cases import every

DRAWS, LEAST, SD = 1000, 0.94, 10.0
ENOUGH = 100  # shown figures, below which a share of them says little
STEPS = 1000
SIZES = (1, 5, 20, 60, 300, 3000)
ATS = (0.01, 0.25, 0.5, 0.9, 0.99)


def seeded(size: int) -> np.random.Generator:
    return np.random.default_rng(size)


SHAPES: dict[str, Callable[[int], Floats]] = {
    "lognormal": lambda size: seeded(size).lognormal(3, 1, size),
    "even": lambda size: seeded(size).uniform(0, STEPS, size),
    "one value": lambda size: np.full(size, 500.0),
    "both ends": lambda size: np.where(np.arange(size) % 2 == 0, 0.0, STEPS),
    "two outliers": lambda size: np.where(np.arange(size) < 2, 900.0, 10.0),
}


def column(steps: int = STEPS, step: str = "1", low: int = 0) -> TableColumn:
    return TableColumn(name="x", type="decimal", low=low, high=low + steps, step=step)


def noisy(values: Floats, of: TableColumn, sd: float, draws: int, seed: int = 1) -> tuple[Noisy, Noisy]:
    """Return the trees and the counts of rows with these values in steps, with noise that is drawn again and again."""
    tree, random = tree_over(of), np.random.default_rng([seed, len(values)])
    exact = counts(np.zeros(len(values), np.int64), values.astype(np.int64), 1, tree)
    nodes = exact + sd * random.standard_normal((draws, tree.nodes))
    return Noisy(nodes, sd), Noisy(len(values) + sd * random.standard_normal(draws), sd)


@every(("shape", "size"), product(SHAPES, SIZES))
def test_intervals_hold_the_quantile_of_the_rows(shape: str, size: int) -> None:
    values = np.floor(np.clip(SHAPES[shape](size), 0, STEPS))
    nodes, count = noisy(values, column(), SD, DRAWS)
    for at in ATS:
        found = of_quantile(nodes, count, column(), at)
        is_shown, truth = ~np.isnan(found.values), float(np.quantile(values, at))
        holds = (found.lows <= truth) & (truth <= found.highs)
        assert holds[~is_shown].all(), "what is hidden has the whole range"
        assert holds[is_shown].sum() >= LEAST * is_shown.sum() or is_shown.sum() < ENOUGH, (at, holds[is_shown].mean())
        assert ((found.lows <= found.values) & (found.values <= found.highs))[is_shown].all(), "each holds its figure"


def test_an_empty_group_is_hidden_or_has_any_value() -> None:
    nodes, count = noisy(np.zeros(0), column(), SD, DRAWS)
    found = of_quantile(nodes, count, column(), 0.5)
    assert np.mean(np.isnan(found.values)) > 0.95
    assert (found.lows[np.isnan(found.values)] == 0).all()
    assert (found.highs[np.isnan(found.values)] == STEPS).all()
    assert np.mean((found.lows == 0) & (found.highs == STEPS)) > 0.9


def test_quantiles_of_a_tree_are_monotone() -> None:
    for size in (0, 60, 3000):
        nodes, _ = noisy(np.floor(np.clip(SHAPES["lognormal"](size), 0, STEPS)), column(), SD, 200)
        sure = Noisy(np.full(200, 1e6), SD)
        values = [of_quantile(nodes, sure, column(), at).values for at in np.linspace(0.001, 0.999, 60)]
        assert (np.diff(values, axis=0) >= 0).all()


@every(("steps", "at"), product((1, 9, 110, 1000, MAX_BINS, 3 * MAX_BINS + 5, 10**6), (0.01, 0.3, 0.5, 0.99)))
def test_without_noise_a_quantile_is_that_of_the_rows_but_for_a_bin(steps: int, at: float) -> None:
    for size in (1, 2, 3, 10, 101):
        values = np.random.default_rng([steps, size]).integers(0, steps + 1, size).astype(float)
        for of, unit, low in ((column(steps), 1.0, 0), (column(steps, "0.01", -50), 0.01, -50)):
            nodes, count = noisy(values, of, 0.0, 1)
            found, truth = of_quantile(nodes, count, of, at), unit * (low + np.quantile(values, at))
            bin_ = unit * (tree_over(of).width - 1) + 1e-9
            assert found.values[0] == pytest.approx(truth, abs=bin_)
            assert found.lows[0] - 1e-9 <= truth <= found.highs[0] + 1e-9


def test_a_median_of_many_rows_is_near() -> None:
    """5,000 lognormal values on 1,000 steps at epsilon 1: the noise of four silos that trust nobody."""
    values = np.floor(np.clip(np.random.default_rng(3).lognormal(np.log(200), 1, 5000), 0, STEPS))
    nodes, count = noisy(values, column(), 11.7, 400)
    errors = of_quantile(nodes, count, column(), 0.5).values - np.median(values)
    assert np.mean(np.abs(errors)) < 0.002 * STEPS


@every(("shape", "size"), product(("lognormal", "even", "one value", "both ends"), (60, 300, 3000)))
def test_what_is_computed_with_quantiles_is_covered_by_their_draws(shape: str, size: int) -> None:
    """A quantile, and the distance of two: each of 300 groups has the same rows, and noise of its own."""
    groups, draws = 300, 400
    values = np.floor(np.clip(SHAPES[shape](size), 0, STEPS))
    trees, counted = noisy(values, column(), SD, groups)
    tree, rows = statistic_of(TREE, column()), statistic_of("present", column())
    asked = [Aggregate(function="quantile", column="x", at=at, alias=at) for at in ("0.25", "0.75", "0.5")]
    table = Table(name="t", max_rows=1, max_silos=1, columns=(column(),))
    redrawn = Redrawn(asked, table, {tree: trees, rows: counted})
    steps = np.random.default_rng([size, 9]).standard_normal((draws, redrawn.rows, groups))
    steps[0] = 0  # the figures as they are
    found = redrawn.values(steps, {rows: Noisy(np.full(draws * groups, 1e6), SD)})
    first, third, median = (found[one.alias].reshape(draws, groups) for one in asked)
    for at, drawn in ((0.25, first), (0.5, median)):
        assert drawn[0].tolist() == of_quantile(trees, Noisy(np.full(groups, 1e6), SD), column(), at).values.tolist()
    for figure, drawn in (
        (np.quantile(values, 0.5), median),
        (np.quantile(values, 0.75) - np.quantile(values, 0.25), third - first),
    ):
        low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
        low, high = np.minimum(low, drawn[0]), np.maximum(high, drawn[0])
        assert np.mean((low <= figure) & (figure <= high)) >= LEAST, (figure, low.mean(), high.mean())


def measured(shape: str, size: int, at: float) -> list[float]:
    """Return the row of docs/intervals.md: shown and covered, in per cent, then mean error and median width."""
    values = np.floor(np.clip(SHAPES[shape](size), 0, STEPS))
    nodes, count = noisy(values, column(), SD, 2 * DRAWS, 4)
    found, truth = of_quantile(nodes, count, column(), at), float(np.quantile(values, at))
    is_shown = ~np.isnan(found.values)
    holds = ((found.lows <= truth) & (truth <= found.highs))[is_shown]
    errors, widths = np.abs(found.values - truth)[is_shown], (found.highs - found.lows)[is_shown]
    shares = 100 * float(np.mean(is_shown)), 100 * float(np.mean(holds))
    return [*shares, float(np.mean(errors)) * 100 / STEPS, float(np.median(widths)) * 100 / STEPS]


def test_the_table_of_the_docs_is_what_is_measured() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "intervals.md").read_text()
    found = re.findall(r"^\| (lognormal|even|both ends|two outliers) \| (\d+) \| (0\.\d+) \| (.*) \|$", page, re.M)
    assert len(found) == 14
    for shape, size, at, cells in found:
        stated = [float(cell) for cell in cells.split(" | ")]
        assert stated == pytest.approx(measured(shape, int(size), float(at)), abs=0.06, rel=0.01), (shape, size, at)
