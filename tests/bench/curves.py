"""How often the interval of a survival curve holds it, over runs of the core.

Rows are asked of four silos at epsilon 1, on 37 bins; the noise is what they add together where one may be missing and
one may collude. `tests.bench.queries` publishes the figures.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from analyst.reports.survival import counts_of, curve_of, kaplan_meier
from crypto.rounds.bounds import noise_shares
from policies.budget.accountant import micro_rho_of
from policies.requests.calibration import spreads_of
from policies.requests.query import Aggregate, Plan
from policies.requests.survival import SURVIVAL, TRAILS, grid_of
from policies.requests.tables import Table, TableColumn
from silo_node.data.survival import trails

SILOS, EPSILON, DELTA, WIDTH = 4, 1.0, 1e-6, 30
RUNS = 10_000
TIME = TableColumn(name="t", type="int", low=0, high=1100, step="1", can_be_missing=False)
EVENT = TableColumn(name="e", type="bool", low=0, high=1, step="1", can_be_missing=False)
Rows = tuple[Any, Any]  # times, and whether the event was seen


def _lived(random: np.random.Generator, rows: int, mean: float) -> Rows:
    events, censored = random.exponential(mean, rows), random.uniform(200, 2000, rows)
    return np.minimum(np.minimum(events, censored), 1101).astype(np.int64), events <= censored


SHAPES: Mapping[str, Callable[[np.random.Generator], Rows]] = {
    "empty": lambda random: _lived(random, 0, 300),
    "small": lambda random: _lived(random, 60, 300),
    "few_events": lambda random: _lived(random, 600, 20_000),
    "skewed": lambda random: _lived(random, 600, 30),
    "large": lambda random: _lived(random, 5000, 300),
}


def deviation() -> float:
    """Return the deviation of the noise in a number of a trail."""
    table = Table(name="t", max_rows=1, max_silos=1, columns=(TIME, EVENT))
    curve = Aggregate(function="survival", column="t", other="e", alias="s", width=WIDTH)
    plan = Plan(where=None, group_by=(), aggregates=(curve,))
    spreads = spreads_of(table, plan, micro_rho_of(EPSILON, DELTA))
    spread = next(one for statistic, one in spreads.items() if statistic.kind == SURVIVAL)
    return math.ldexp(math.sqrt(spread.variance * SILOS / noise_shares(SILOS, 1, 1)), -spread.scale_bits)


def coverage(shape: str, random: np.random.Generator) -> tuple[Sequence[float], Sequence[float]]:
    """Return the share of intervals that hold the curve: of all bins together, and of the bin where it is least."""
    time, event = SHAPES[shape](random)
    grid, sd = grid_of(TIME, WIDTH), deviation()
    none = np.zeros(len(time), np.int64)
    exact = trails(none, 1, time, event.astype(np.int64), TIME, grid).reshape(TRAILS, grid.bins).astype(np.float64)
    bins = np.minimum(time, 1100) // WIDTH
    is_event = event & (time <= 1100)
    events, everybody = (np.bincount(bins[one], minlength=grid.bins) for one in (is_event, np.full(len(time), True)))
    truth = kaplan_meier(events.astype(np.float64), everybody[::-1].cumsum()[::-1].astype(np.float64))
    held = np.zeros(grid.bins)
    for _ in range(RUNS):
        noisy = exact + sd * random.standard_normal(exact.shape)
        curve = curve_of(counts_of(noisy[0], noisy[1], sd))
        held += (curve.lows <= truth + 1e-9) & (truth <= curve.highs + 1e-9)
    return [100 * float(held.mean()) / RUNS], [100 * float(held.min()) / RUNS]
