"""How far a median is from the truth, and how often its interval holds it, over runs of the core.

5,000 lognormal values between 0 and 10, on 1,000 steps, are asked of four silos at epsilon 1; the noise is what they
add together where one may be missing and one may collude. `tests.bench.queries` publishes the figures.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analyst.reports.intervals import Floats, Noisy
from analyst.reports.quantiles import Ranks, Scale, of_quantile
from crypto.rounds.bounds import noise_shares
from policies.budget.accountant import micro_rho_of
from policies.requests.calibration import spreads_of
from policies.requests.query import Aggregate, Plan
from policies.requests.tables import Table, TableColumn
from policies.requests.trees import TREE, Tree, tree_over
from silo_node.data.trees import counts

SILOS, EPSILON, DELTA = 4, 1.0, 1e-6
ROWS, STEPS, DRAWS, RUNS = 5000, 1000, 200, 9
COLUMN = TableColumn(name="x", type="decimal", low=0, high=STEPS, step="0.01")
FLAT = Tree(STEPS + 1, 1, STEPS + 1, (STEPS + 1,))
COVERED_RUNS = 10_000
# Values in steps, by what they are; an empty group has no median, and is left out.
SHAPES = {
    "small": lambda random: random.lognormal(0, 1, 60) * 100,
    "skewed": lambda random: random.lognormal(-3, 1, 600) * 100,
    "lognormal": lambda random: random.lognormal(0, 1, ROWS) * 100,
}


class Median(NamedTuple):
    """The mean error of a median in per cent of the range: of a tree, and of its bins alone."""

    tree: float
    flat: float


def median_errors(random: np.random.Generator) -> list[Median]:
    """Return the errors of each run, which has rows of its own."""
    return [_errors(random) for _ in range(RUNS)]


def deviation(levels: int) -> float:
    """Return the deviation of the noise in a node, or in the count beside it, of a tree of so many levels."""
    table = Table(name="t", max_rows=1, max_silos=1, columns=(COLUMN,))
    plan = Plan(where=None, group_by=(), aggregates=(Aggregate(function="quantile", column="x", at="0.5", alias="m"),))
    own = tree_over(COLUMN).levels
    spread = next(
        one
        for statistic, one in spreads_of(table, plan, micro_rho_of(EPSILON, DELTA)).items()
        if statistic.kind == TREE
    )
    whole = math.ldexp(math.sqrt(spread.variance * SILOS / noise_shares(SILOS, 1, 1)), -spread.scale_bits)
    return whole * math.sqrt((levels + 1) / (own + 1))


def _errors(random: np.random.Generator) -> Median:
    values, scale = _clipped(SHAPES["lognormal"](random)), Scale.of(COLUMN)
    found = []
    for tree in (tree_over(COLUMN), FLAT):
        ranks = Ranks.of(_noisy(values, tree, random, DRAWS), tree)
        errors = ranks.values(0.5, scale, False) - np.median(values) / 100
        found.append(float(np.mean(np.abs(errors))) * 100 / scale.lasts[-1])
    return Median(*found)


def coverage(shape: str, at: float, random: np.random.Generator) -> Sequence[float]:
    """Return the share of shown intervals that hold the quantile, in per cent."""
    values, tree = _clipped(SHAPES[shape](random)), tree_over(COLUMN)
    nodes = _noisy(values, tree, random, COVERED_RUNS)
    count = Noisy(len(values) + nodes.sd * random.standard_normal(COVERED_RUNS), nodes.sd)
    figures, truth = of_quantile(nodes, count, COLUMN, at), float(np.quantile(values, at)) / 100
    is_shown = ~np.isnan(figures.values)
    holds = (figures.lows <= truth + 1e-9) & (truth - 1e-9 <= figures.highs)
    return [100 * float(np.mean(holds[is_shown]))]


def _clipped(values: Floats) -> Floats:
    return np.floor(np.clip(values, 0, STEPS))


def _noisy(values: Floats, tree: Tree, random: np.random.Generator, draws: int) -> Noisy:
    exact, sd = counts(np.zeros(len(values), np.int64), values.astype(np.int64), 1, tree), deviation(tree.levels)
    return Noisy(exact + sd * random.standard_normal((draws, tree.nodes)), sd)
