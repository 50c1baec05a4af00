"""Shown intervals of variances, correlations and regressions hold the truth; docs/intervals.md, section 6.

Every case draws 2,000 shown answers: the noisy count is drawn given that it passes the threshold. 94 % of the intervals
that are shown must hold the truth; the seeds are fixed.
"""

import math
import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyst.reports.estimates import Estimate, interpret, planned_plainly, threshold_of
from analyst.reports.intervals import Figures, Floats, Noisy
from analyst.reports.moments import (
    Moments,
    Side,
    of_correlation,
    of_covariance,
    of_determination,
    of_deviation,
    of_intercept,
    of_slope,
    of_variance,
)
from policies.requests.moments import PAIRS, SPREADS
from policies.requests.query import Aggregate
from policies.requests.request import Request
from tests.analyst.test_intervals import SD, WARDS, Z95, shown_counts
from tests.cases import every
from tests.harness.example_policy import AGE, COST, plan, request, table
from tests.harness.sums import opened_as

DRAWS = 2000
LEAST = 0.94
ENOUGH = 400  # shown figures, below which a share of them says little
STEEPEST = 100.0  # a slope in half ranges: that of a column of 101 values
ORIGIN = -3.0
SHOWN = ("some relation", "skewed", "both ends")  # in the table of the docs
COLUMNS = 9  # of it, beside shape and size
INTERCEPT = 7  # among the figures of `truths`
SIZES = (3, 10, 24, 60, 300, 3000)
Values = tuple[Floats, Floats]


def halves(size: int) -> Floats:
    return np.where(np.arange(size) % 2 == 0, 1.0, -1.0)


def near_noise(size: int) -> Floats:
    """Return values of which the squares add up to the noise of their sum."""
    return math.sqrt(min(1.0, SD / size)) * halves(size)


def uniform(size: int, *seed: int) -> Floats:
    return np.random.default_rng([size, *seed]).uniform(-1, 1, size)


def skewed(size: int, *seed: int) -> Floats:
    return np.clip(-0.9 + 0.1 * np.random.default_rng([size, *seed]).exponential(1, size), -1, 1)


def outlier(size: int) -> Floats:
    return np.where(np.arange(size) == 0, 1.0, -1.0)


SHAPES: dict[str, Callable[[int], Values]] = {
    "some relation": lambda size: (uniform(size), np.clip(0.6 * uniform(size) + 0.4 * uniform(size, 1), -1, 1)),
    "a line": lambda size: (uniform(size), -uniform(size)),
    "both ends": lambda size: (halves(size), 0.9 * halves(size)),
    "skewed": lambda size: (skewed(size), np.clip(skewed(size, 1) + 0.5 * (skewed(size) + 0.9), -1, 1)),
    "tight": lambda size: (0.02 * uniform(size) + 0.5, 0.03 * uniform(size, 1) - 0.3),
    "an outlier": lambda size: (outlier(size), 0.5 * halves(size)),
    "hardly a spread": lambda size: (near_noise(size), near_noise(size)),
    "hardly a spread in x": lambda size: (near_noise(size), 0.7 * np.where(np.arange(size) % 4 < 2, 1.0, -1.0)),
}


def drawn(values: Values, least: float, at_least: float) -> Moments:
    """Return the noisy sums of a group, drawn given that they are shown; each has the noise of an equal price."""
    x, y = values
    size, random = len(x), np.random.default_rng([5, len(x), round(1000 * abs(float(x.sum())))])
    count = shown_counts(size, SD, max(least, Z95 * SD, at_least) * (1 + 1e-12), 3)[:DRAWS]

    def noisy(figure: Any, sd: float) -> Noisy:
        return Noisy(float(figure) + sd * random.standard_normal(DRAWS), sd)

    def side(one: Floats) -> Side:
        return Side(noisy(one.sum(), SD), noisy((one**2).sum() - 0.5 * size, SD / 2), 0.5)

    return Moments.of(Noisy(count, SD, least), side(x), side(y), noisy((x * y).sum(), SD))


def truths(values: Values) -> Iterator[tuple[Callable[[Moments], Figures], float]]:
    """Yield each figure with its true value, where that is defined."""
    x, y = values
    size, both = len(x), float(((x - x.mean()) * (y - y.mean())).mean())
    yield lambda sums: of_variance(sums, False), float(x.var())
    yield lambda sums: of_variance(sums, True), float(x.var(ddof=1))
    yield lambda sums: of_deviation(sums, False), float(x.std())
    yield lambda sums: of_deviation(sums, True), float(x.std(ddof=1))
    yield lambda sums: of_covariance(sums, False), both
    yield lambda sums: of_covariance(sums, True), both * size / (size - 1)
    slope = both / float(x.var())
    yield lambda sums: of_slope(sums, STEEPEST), slope
    yield lambda sums: of_intercept(sums, ORIGIN, STEEPEST), float(y.mean()) - slope * (float(x.mean()) - ORIGIN)
    correlation = both / float(x.std() * y.std())
    yield of_correlation, correlation
    yield of_determination, correlation**2


def covered(figures: Figures, truth: float) -> tuple[float, int]:
    """Return the share of shown figures whose interval holds the truth, and how many there are."""
    is_shown, slack = ~np.isnan(figures.values), 1e-9 * (1 + abs(truth))
    holds = (figures.lows <= truth + slack) & (truth - slack <= figures.highs)
    assert holds[~is_shown].all(), "what is hidden has the whole possible range"
    return float(np.mean(holds[is_shown])) if is_shown.any() else 1.0, int(is_shown.sum())


@pytest.mark.slow
@every(("least", "size", "shape"), product((-math.inf, 25.0), SIZES, SHAPES))
def test_every_shown_interval_is_a_95_percent_interval(least: float, size: int, shape: str) -> None:
    """Given that the group is shown, that the count is above its noise, and that a spread was found at all."""
    values = SHAPES[shape](size)
    sums = drawn(values, least, 2.0)
    for number, (figure, truth) in enumerate(truths(values)):
        figures = figure(sums)
        share, shown = covered(figures, truth)
        assert share >= LEAST or shown < ENOUGH, (number, share, shown)
        is_held = (figures.lows <= figures.values) & (figures.values <= figures.highs)
        assert is_held[~np.isnan(figures.values)].all(), "each holds its own figure"
        assert np.isfinite(figures.lows).all()
        assert np.isfinite(figures.highs).all()


@every("shape", ["some relation", "both ends"])
def test_intervals_of_large_groups_are_not_much_wider(shape: str) -> None:
    """Than the normal one of the same deviation, which is right there; but where a line is far from its rows."""
    sums = drawn(SHAPES[shape](3000), 25.0, 2.0)
    for number, (figure, _) in enumerate(truths(SHAPES[shape](3000))):
        figures = figure(sums)
        plain = 2 * Z95 * np.median(figures.sds)
        assert np.median(figures.highs - figures.lows) <= (1.5 if number == INTERCEPT else 1.1) * plain, (number, shape)


@every("size", [3, 24])
def test_figures_are_within_what_is_possible(size: int) -> None:
    sums = drawn(SHAPES["both ends"](size), -math.inf, 2.0)
    for figure, least, most in (
        (of_variance(sums, False), 0.0, 1.0),
        (of_variance(sums, True), 0.0, 2.0),
        (of_deviation(sums, False), 0.0, 1.0),
        (of_covariance(sums, False), -1.0, 1.0),
        (of_correlation(sums), -1.0, 1.0),
        (of_determination(sums), 0.0, 1.0),
        (of_slope(sums, STEEPEST), -STEEPEST, STEEPEST),
    ):
        assert (figure.lows >= least).all()
        assert (figure.highs <= most).all()


def test_what_the_noise_hides_has_no_value_and_the_whole_range() -> None:
    few = Moments.of(
        Noisy(np.array([15.0]), SD),
        Side(Noisy(np.array([0.0]), SD), Noisy(np.array([0.0]), SD), 0.5),
        Side(Noisy(np.array([0.0]), SD), Noisy(np.array([0.0]), SD), 0.5),
        Noisy(np.array([0.0]), SD),
    )
    for found, low, high in (
        (of_variance(few, False), 0, 1), (of_covariance(few, True), -2, 2), (of_correlation(few), -1, 1),
        (of_slope(few, 7.0), -7, 7), (of_intercept(few, 0.0, 7.0), -8, 8),
    ):  # fmt: skip
        assert np.isnan(found.values).all()
        assert (found.lows.tolist(), found.highs.tolist()) == ([low], [high])
    no_spread = Moments.of(
        Noisy(np.array([3000.0]), SD),
        Side(Noisy(np.array([0.0]), SD), Noisy(np.array([-1504.0]), SD), 0.5),
        Side(Noisy(np.array([0.0]), SD), Noisy(np.array([0.0]), SD), 0.5),
        Noisy(np.array([0.0]), SD),
    )
    assert np.isnan(of_slope(no_spread, 7.0).values).all()
    assert of_variance(no_spread, False).values.tolist() == [0.0]


# The same through `interpret`, in the units of columns: a question of many groups of one size, in which a silo is gone.


def figures_of(*functions: str) -> tuple[Aggregate, ...]:
    return tuple(
        Aggregate(function=one, column="cost", other="age" if one in PAIRS else None, alias=one)  # type: ignore[arg-type]
        for one in functions
    )


def asked(*functions: str) -> Request:
    wide = table(max_silos=1, max_rows=1, columns=(WARDS, AGE, COST))
    used = plan(where=None, group_by=("ward",), aggregates=figures_of(*functions))
    return request(table=wide, plan=used, micro_rho=60_000)


def sums_of(question: Request, ages: Floats, costs: Floats, seed: int) -> Any:
    """Return an opened sum in which every group has the same rows, of ages and of costs in cents, with fresh noise."""
    x, y = 2 * ages - 110, 2 * (costs + 5000) - 505_000
    quarter, unit, size = 505_000**2 // 4, 2**8, len(ages)  # the largest square of a cost is above 2^28 units of 2^7
    squares = np.floor((505_000**2 - y**2) / 4 / unit + 0.5)
    exact = {
        "present:age:cost": size, "present:cost": size, "total:age:cost": x.sum(), "total:cost:age": y.sum(),
        "total:cost": y.sum(), "product:age:cost": (x * y).sum(),
        "square:age:cost": (2 * ((110**2 - x**2) / 4) - 3025).sum(),
    }  # fmt: skip
    exact |= dict.fromkeys(("square:cost", "square:cost:age"), (2 * squares - round(quarter / unit)).sum())
    random, shares = np.random.default_rng([13, seed]), 3
    quiet = opened_as(question, (), shares, 4)
    sums = []
    for block in quiet.manifest.terms.blocks:
        sd = math.ldexp(math.sqrt(int(block.variance) * 4 / shares), -block.scale_bits)
        sums.append(exact[block.name] + sd * random.standard_normal(block.length))
    return opened_as(question, sums, shares, 4)


@pytest.mark.slow
@every("size", [30, 120, 1500])
def test_figures_of_an_answer_are_covered_each(size: int) -> None:
    functions = (*SPREADS, *PAIRS)
    ages = np.floor(np.linspace(20, 90, size))
    costs = np.clip(np.floor(3000 * ages + 40_000 * uniform(size)), -5000, 500_000)
    both = np.cov(ages, costs / 100, bias=True)
    slope, x, y = both[0, 1] / both[0, 0], ages.mean(), costs.mean() / 100
    correct = size / (size - 1)
    truth = {
        "var_pop": both[1, 1], "var_samp": both[1, 1] * correct, "stddev_pop": math.sqrt(both[1, 1]),
        "stddev_samp": math.sqrt(both[1, 1] * correct), "covar_pop": both[0, 1], "covar_samp": both[0, 1] * correct,
        "corr": both[0, 1] / math.sqrt(both[0, 0] * both[1, 1]), "regr_slope": slope, "regr_intercept": y - slope * x,
        "regr_r2": both[0, 1] ** 2 / both[0, 0] / both[1, 1], "regr_count": size, "regr_avgx": x, "regr_avgy": y,
    }  # fmt: skip
    for chosen in (functions[:4], functions[4:]):
        question = asked(*chosen)
        held: dict[str, list[bool]] = {name: [] for name in chosen}
        for seed in range(4):
            opened = sums_of(question, ages, costs, seed)
            rows, _ = interpret(planned_plainly(question), question, opened, threshold_of(question, opened, 25, False))
            for row in rows:
                for name in chosen:
                    cell = row[name]
                    assert isinstance(cell, Estimate)
                    assert cell.low is not None
                    assert cell.high is not None
                    if cell.value is not None:
                        assert cell.low <= cell.value <= cell.high
                        held[name].append(cell.low <= truth[name] <= cell.high)
        for name, found in held.items():
            if len(found) >= ENOUGH:
                assert np.mean(found) >= LEAST, (name, size, np.mean(found), len(found))
        assert all(len(found) >= ENOUGH for found in held.values()) or size < 1000


def measured(shape: str, size: int) -> list[float]:
    """Return the row of docs/intervals.md for a group: covered in per cent, widths of intervals in half ranges."""
    values = SHAPES[shape](size)
    sums = drawn(values, 25.0, 2.0)
    found = [(figure(sums), truth) for figure, truth in truths(values)]
    chosen = [found[number] for number in (1, 3, 5, 8, 6, INTERCEPT)]
    shares = [100 * covered(figures, truth)[0] for figures, truth in chosen]
    widths = [float(np.median(found[number][0].highs - found[number][0].lows)) for number in (3, 8, 6)]
    return [*shares, *widths]


@pytest.mark.slow
def test_the_table_of_the_docs_is_what_is_measured() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "intervals.md").read_text()
    found = re.findall(r"^\| ([a-z ]+) \| (\d+) \| (.*) \|$", page, re.M)
    rows = [row for row in found if row[0] in SHOWN and len(row[2].split(" | ")) == COLUMNS]
    assert [(shape, int(size)) for shape, size, _ in rows] == list(product(SHOWN, (60, 300, 3000)))
    for shape, size, cells in rows:
        stated = [float(cell) for cell in cells.split(" | ")]
        assert stated == pytest.approx(measured(shape, int(size)), abs=0.06, rel=0.01), (shape, size)
        assert stated[6:] == pytest.approx(measured(shape, int(size))[6:], rel=0.01), (shape, size)
