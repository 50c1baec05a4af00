"""Shown intervals are 95 % intervals, given every rule that let them be shown; docs/intervals.md.

Every case draws 5,000 shown intervals: the noisy count is drawn given that it passes the threshold. 94 % must hold the
truth: an interval of exactly 95 % falls below that with probability 6e-4, and the seeds are fixed.
"""

import math
import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from analyst.reports.estimates import Estimate, Threshold, interpret, threshold_of
from analyst.reports.intervals import Figures, Floats, Noisy, of_count, of_mean, of_normal, of_total, surely
from analyst.sql.draft import Planned
from crypto.rounds.manifest import Block
from crypto.wire import digest_of
from policies.requests.query import Aggregate
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from policies.requests.terms import terms_of
from tests.cases import every
from tests.harness.example_policy import AGE, plan, request, table

DRAWS = 5000
LEAST = 0.94
SD = 10.0
Z95 = NormalDist().inv_cdf(0.975)
SIZES = (0, 3, 5, 20, 24, 40, 100)
COHORTS = (10, 25)
THRESHOLDS = (*COHORTS, 25 + surely(100) * SD)  # the last with --sure, in an answer of 100 groups
BOUNDS = ((0.0, 110.0), (-50.0, 500.0), (-30.0, -10.0))
# The noise of a total, as a part of what equal prices give: half the range times the noise of the count.
NOISE_OF_TOTALS = dict(zip(BOUNDS, (1.0, 0.1, 1.0), strict=True))
MEANS = (-1.0, 0.0, 1.0)  # at the lower bound, in the middle, at the upper bound


def shown_counts(size: float, sd: float, least: float, seed: int = 1) -> Floats:
    """Return noisy counts of a group, drawn given that they are at least this."""
    uniform = 1 - np.random.default_rng([seed, round(size), round(least)]).random(DRAWS)
    passing = math.erfc((least - size) / sd / math.sqrt(2)) / 2
    return np.array([size - sd * NormalDist().inv_cdf(max(one * passing, 1e-300)) for one in uniform.tolist()])


def noise(sd: float, *seed: int) -> Floats:
    return sd * np.random.default_rng([7, *seed]).standard_normal(DRAWS)


def coverage(figures: Figures, truth: float) -> float:
    slack = 1e-9 * (1 + abs(truth))
    return float(np.mean((figures.lows <= truth + slack) & (truth - slack <= figures.highs)))


def width(figures: Figures) -> float:
    return float(np.median(figures.highs - figures.lows))


def hold_their_figures(figures: Figures) -> bool:
    return bool(np.all((figures.lows <= figures.values) & (figures.values <= figures.highs)))


@every(("least", "size"), product(THRESHOLDS, SIZES))
def test_counts_selected_by_themselves_are_covered(least: float, size: int) -> None:
    counts = shown_counts(size, SD, least)
    figures = of_count(Noisy(counts, SD, least))
    assert coverage(figures, size) >= LEAST
    assert hold_their_figures(figures)
    assert (figures.lows >= 0).all()
    if size == 5 and least == 25:  # what every interval was before
        assert coverage(of_normal(counts, SD, 0.0, math.inf), size) == 0


@every(("least", "size", "bounds", "mean"), product(THRESHOLDS, SIZES, BOUNDS, MEANS))
def test_sums_are_covered_whatever_selected_them(
    least: float, size: int, bounds: tuple[float, float], mean: float
) -> None:
    (low, high), seed = bounds, (size, round(bounds[1] + 99), round(mean + 1))
    half, truth = (high - low) / 2, size * ((low + high) / 2 + mean * (high - low) / 2)
    sd = SD * half * NOISE_OF_TOTALS[bounds]
    centred = Noisy(size * mean * half + noise(sd, *seed), sd)
    for count in (
        Noisy(shown_counts(size, SD, least), SD, least),  # by its own count
        Noisy(size + noise(SD, *seed, 1), SD),  # by another count, with noise of its own
    ):
        figures = of_total(count, centred, low, high)
        assert coverage(figures, truth) >= LEAST
        assert hold_their_figures(figures)


@every(("least", "size", "bounds", "mean"), product((-math.inf, *THRESHOLDS), (1, *SIZES[1:]), BOUNDS, MEANS))
def test_means_are_covered_whatever_selected_them(
    least: float, size: int, bounds: tuple[float, float], mean: float
) -> None:
    """A mean is selected by its own count, which must be 1.96 deviations, and before that by the cohort's."""
    half, seed = (bounds[1] - bounds[0]) / 2, (size, round(bounds[1] + 99), round(mean + 1))
    counts = shown_counts(size, SD, max(least, Z95 * SD * (1 + 1e-12)), 2)
    sd = SD * half * NOISE_OF_TOTALS[bounds]
    figures = of_mean(Noisy(counts, SD, least), Noisy(size * mean * half + noise(sd, *seed), sd), half)
    assert not np.isnan(figures.values).any()
    assert coverage(figures, mean * half) >= LEAST
    assert hold_their_figures(figures)
    assert (np.abs(figures.lows) <= half).all()
    assert (np.abs(figures.highs) <= half).all()


@every(("least", "size", "most"), [(25, 24, 1.35), (25, 100, 1.05), (10, 100, 1.05)])
def test_intervals_of_counts_are_not_much_wider(least: int, size: int, most: float) -> None:
    figures = of_count(Noisy(shown_counts(size, SD, least), SD, least))
    assert width(figures) <= most * 2 * Z95 * SD


@every(("bounds", "mean", "least"), product(BOUNDS, MEANS, COHORTS))
def test_intervals_of_sums_and_means_are_not_much_wider(bounds: tuple[float, float], mean: float, least: int) -> None:
    (low, high), half = bounds, (bounds[1] - bounds[0]) / 2
    for size, most in ((100, 1.05), (20, 2.2)):
        count = Noisy(shown_counts(size, SD, least), SD, least)
        centred = Noisy(size * mean * half + noise(SD * half, size), SD * half)
        plain = 2 * Z95 * SD * math.hypot((low + high) / 2, half)
        assert width(of_total(count, centred, low, high)) <= most * plain
        if size == 100:
            # Fieller's interval, from its own definition: the means m for which total - m * count is not unusual.
            grid = np.linspace(-half, half, 2001)[:, None]
            deviations = np.abs(centred.values[:300] - grid * count.values[:300]) / np.hypot(centred.sd, grid * SD)
            fieller = np.median(np.sum(deviations <= Z95, axis=0)) * half / 1000
            shown = of_mean(Noisy(count.values[:300], SD, least), Noisy(centred.values[:300], centred.sd), half)
            assert width(shown) <= most * float(fieller)


def test_a_group_of_a_hundred_is_shown_and_an_empty_one_surely_not() -> None:
    normal, sd = NormalDist(), SD
    shown = {groups: normal.cdf((100 - 25) / sd - surely(groups)) for groups in (1, 100, 10**4, 10**6)}
    assert all(share >= 0.99 for share in shown.values()), shown
    assert round(10**6 * normal.cdf(-25 / sd)) == 6210  # empty groups without --sure
    for groups in (1, 100, 170_000):
        assert groups * normal.cdf(-surely(groups)) <= 0.05 * (1 + 1e-9)
    assert 10**6 * math.erfc((2.5 + surely(10**6)) / math.sqrt(2)) / 2 < 1e-6  # empty groups with it


def test_the_ends_of_a_count_are_the_sizes_at_which_its_test_turns() -> None:
    """By the definition of the shortest range of a cut normal, for counts near the threshold and far from it."""
    normal = NormalDist()
    at = np.array([25.0, 25.5, 28.0, 33.0, 41.0, 58.0, 60.0, 77.0, 140.0])
    figures = of_count(Noisy(at, SD, 25.0))
    for count, low, high in zip(at, figures.lows, figures.highs, strict=True):
        accepted = []
        for size in np.arange(0.0, 200.0, 0.125):
            shown = normal.cdf((size - 25) / SD)
            # The range of values as near to the size as this count, or nearer: its share of what is shown.
            reach = abs(count - size)
            nearer = normal.cdf(reach / SD) - normal.cdf((max(25.0, size - reach) - size) / SD)
            if nearer / shown <= 0.95:
                accepted.append(size)
        assert abs(low - min(accepted)) <= 0.13, count
        assert abs(high - max(accepted)) <= 0.13, count


@every(("sd", "least"), product((0.02, 1.0, 30.0, 1e5), (2.0, 25.0, 3000.0, 1e6)))
def test_every_interval_is_finite_and_holds_its_figure(sd: float, least: float) -> None:
    above = np.concatenate([[0.0], np.geomspace(1e-9, 1e4, 200)]) * sd
    counts = least + above
    for bounds, total in product((*BOUNDS, (0.0, 1.0)), (-1e7, -5.0, 0.0, 1e7)):
        half = (bounds[1] - bounds[0]) / 2
        centred = Noisy(np.full(counts.shape, total), sd * half)
        for count in (Noisy(counts, sd, least), Noisy(counts - 2 * least, sd)):
            mean = of_mean(count, centred, half)
            shown = ~np.isnan(mean.values)
            assert np.isfinite(mean.lows).all()
            assert np.isfinite(mean.highs).all()
            assert (mean.lows[~shown] == -half).all()
            assert (mean.highs[~shown] == half).all()
            assert ((mean.lows <= mean.values) & (mean.values <= mean.highs))[shown].all()
            for figures in (of_count(count), of_total(count, centred, *bounds)):
                assert hold_their_figures(figures)
                assert np.isfinite(figures.lows).all()
                assert np.isfinite(figures.highs).all()


# The same through `interpret`: a question of many groups of one size, after a silo has dropped out.

WARDS = TableColumn(
    name="ward", type="string", domain=(*(f"w{one:03}" for one in range(998)), "unknown"), unknown="unknown"
)
SURVIVORS, SHARES = 4, 3  # of five silos, one of which may collude and one drop out: the noise is 4 / 3 of the price's


def aggregates(*names: str) -> tuple[Aggregate, ...]:
    known = {
        "n": Aggregate(function="count", column=None, alias="n"),
        "present": Aggregate(function="count", column="age", alias="present"),
        "years": Aggregate(function="sum", column="age", alias="years"),
        "mean": Aggregate(function="avg", column="age", alias="mean"),
    }
    return tuple(known[name] for name in names)


def asked(*names: str) -> tuple[Planned, Request]:
    wide = table(max_silos=1, max_rows=1, columns=(WARDS, AGE))
    planned = plan(where=None, group_by=("ward",), aggregates=aggregates(*names))
    return Planned(wide, planned, ("ward", *names), {"ward": "ward"}), request(
        table=wide, plan=planned, micro_rho=20_000
    )


def sd_of(block: Block) -> float:
    return math.ldexp(math.sqrt(int(block.variance) * SURVIVORS / SHARES), -block.scale_bits)


def opened(question: Request, truths: Mapping[str, float], seed: int) -> Any:
    """Return what an opened sum is to `interpret`: groups of one size and one total, with fresh noise."""
    terms = terms_of(question, digest_of(question))
    random = np.random.default_rng([11, seed])
    sums = [truths[block.name] + sd_of(block) * random.standard_normal(block.length) for block in terms.blocks]
    return SimpleNamespace(
        manifest=SimpleNamespace(terms=terms, noise_shares=SHARES),
        survivor_set=SimpleNamespace(survivors=[0] * SURVIVORS),
        blocks=lambda: sums,
    )


def answers(
    names: tuple[str, ...], size: int, age: int, sure: bool
) -> Iterator[tuple[Threshold, list[dict[str, Any]]]]:
    planned, question = asked(*names)
    totals = {"rows": size, "present:age": size, "total:age": size * (2 * age - 110)}
    for seed in range(10):
        sums = opened(question, totals, seed)
        threshold = threshold_of(question, sums, 25, sure)
        rows, withheld = interpret(planned, question, sums, threshold)
        assert len(rows) + len(withheld) == len(WARDS.domain)
        yield threshold, rows


@every(
    ("names", "size", "sure"),
    [
        (("n", "present", "years", "mean"), 20, False),
        (("present", "years", "mean"), 20, False),
        (("mean", "n", "years"), 20, False),
        (("years", "mean"), 50, True),
        (("n", "years"), 50, True),
    ],
)
def test_figures_of_an_answer_are_covered_each(names: tuple[str, ...], size: int, sure: bool) -> None:
    for age in (110, 62):
        truths = {"n": size, "present": size, "years": size * age, "mean": age}
        held: dict[str, list[bool]] = {name: [] for name in names}
        for threshold, rows in answers(names, size, age, sure):
            assert (threshold.noisy_count > 25) == sure
            for row in rows:
                for name in names:
                    cell = row[name]
                    assert isinstance(cell, Estimate)
                    assert cell.low is not None
                    assert cell.high is not None
                    if cell.value is not None:
                        assert cell.low <= cell.value <= cell.high
                        held[name].append(cell.low <= truths[name] <= cell.high)
        for name, found in held.items():
            assert len(found) > 400
            assert np.mean(found) >= 0.95 - 3.5 * math.sqrt(0.0475 / len(found)), (name, age, np.mean(found))


def test_a_figure_that_another_count_selected_keeps_its_plain_interval() -> None:
    for _, rows in answers(("n", "present"), 30, 62, False):
        for row in rows:
            cell = row["present"]
            assert cell.high == pytest.approx(max(cell.value + Z95 * cell.sd, 0))
            assert cell.low == pytest.approx(min(cell.value, max(cell.value - Z95 * cell.sd, 0)))
        assert any(row["n"].low < row["n"].value - 2 * Z95 * row["n"].sd or row["n"].low == 0 for row in rows)


def test_sure_is_on_by_itself_from_a_hundred_groups() -> None:
    for size, expected in ((99, False), (100, True)):
        column = WARDS.model_copy(update={"domain": WARDS.domain[-size:]})
        narrow = table(max_silos=1, max_rows=1, columns=(column, AGE))
        question = request(table=narrow, plan=plan(where=None, group_by=("ward",), aggregates=aggregates("n")))
        sums = opened(question, {"rows": 0}, 0)
        default = threshold_of(question, sums, 25)
        assert default == threshold_of(question, sums, 25, expected)
        assert default.sure == expected
        sd = sd_of(sums.manifest.terms.blocks[0])
        assert threshold_of(question, sums, 25, True).noisy_count == pytest.approx(25 + surely(size) * sd)
        assert threshold_of(question, sums, 25, False).noisy_count == 25


def measured(least: int, size: int) -> list[float]:
    """Return the row of docs/intervals.md for a size, of an age from 0 to 110, all in per cent."""
    low, high = 0.0, 110.0
    half = (high - low) / 2
    count = Noisy(shown_counts(size, SD, least), SD, least)
    own = Noisy(shown_counts(size, SD, Z95 * SD * (1 + 1e-12), 2), SD)
    both = Noisy(shown_counts(size, SD, max(least, Z95 * SD * (1 + 1e-12)), 2), SD, least)
    covered: dict[str, list[float]] = {"SUM": [], "plain": [], "own": [], "AVG": []}
    for mean in MEANS:
        centred = Noisy(size * mean * half + noise(SD * half, size), SD * half)
        covered["SUM"].append(coverage(of_total(count, centred, low, high), size * half * (1 + mean)))
        if size:
            deviations = np.abs(centred.values - mean * half * both.values) / math.hypot(centred.sd, mean * half * SD)
            covered["plain"].append(float(np.mean(deviations <= Z95)))
            covered["own"].append(coverage(of_mean(own, centred, half), mean * half))
            covered["AVG"].append(coverage(of_mean(both, centred, half), mean * half))
    centred = Noisy(noise(SD * half, size), SD * half)
    return [
        100 * NormalDist().cdf((size - least) / SD),
        100 * coverage(of_normal(count.values, SD, 0.0, math.inf), size),
        100 * coverage(of_count(count), size),
        *(100 * min(found) for found in covered.values() if found),
        100 * width(of_count(count)) / (2 * Z95 * SD),
        100 * width(of_total(count, centred, low, high)) / (2 * Z95 * math.hypot(half * SD, centred.sd)),
    ]


def test_the_table_of_the_docs_is_what_is_measured() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "intervals.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (.*) \|$", page, re.M)
    assert [(int(least), int(size)) for least, size, _ in rows] == list(product(COHORTS, SIZES))
    for least, size, cells in rows:
        stated = [float(cell) for cell in cells.split(" | ") if cell != "-"]
        assert stated == pytest.approx(measured(int(least), int(size)), abs=0.06), (least, size)
