"""Survival curves: equal to those of the pooled rows without noise, and with noise in intervals that hold them.

Shown intervals must hold the share of the silos' rows in 94 % of runs, with fixed seeds. docs/intervals.md, section 10.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from analyst.demo.hospitals import HOSPITALS, parts, read_lung
from analyst.reports.survival import (
    Counts,
    LogRank,
    chi2_above,
    counts_of,
    curve_of,
    greenwood,
    kaplan_meier,
    log_rank,
    median_of,
)
from policies.requests.survival import TRAILS, grid_of, kernel
from policies.requests.tables import TableColumn
from silo_node.data.survival import trails
from tests.cases import every

TIME = TableColumn(name="survival", type="int", low=0, high=1100, step="1", can_be_missing=False)
QUIET = 1e-9  # a deviation that hides nothing
LEAST = 0.94
RUNS = 200
# Of the NCCTG lung cancer trial (Loprinzi et al., 1994), computed from all 228 rows by a program of its own: the share
# that lives on by day, and by thirty days (floor(time / 30)); days by which half have died; Mantel's test of the sexes.
DAYS = {90: 0.8815789473684208, 180: 0.7216706534097623, 365: 0.4092416244600636, 730: 0.11569309834453906}
MEDIANS = {"all": 310, "male": 270, "female": 426}
CHI2, P = 10.326741954885637, 0.0013111645203554858
AT_RISK = (228, 219, 213, 201, 189, 179, 160, 137, 119, 108, 92, 80, 70, 59, 55, 48, 41, 41, 33, 27, 24, 22, 18, 16, 14)
DEATHS = (9, 6, 12, 10, 10, 15, 15, 10, 5, 9, 8, 8, 7, 2, 6, 6, 0, 5, 3, 2, 2, 4, 2, 2, 3, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0)
MONTHS = {0: 0.9605263157894737, 1: 0.9342105263157895, 12: 0.39660441471495984, 20: 0.20236503397169253,
          24: 0.10118251698584625, 34: 0.052036723021292364}  # fmt: skip


@cache
def lung(sex: str = "all") -> tuple[Any, Any]:
    """Return days, and whether the patient died, of one sex or of all."""
    table = read_lung()
    is_one = np.array([sex in ("all", one) for one in table["sex"].to_pylist()])
    return np.array(table["survival"].to_pylist())[is_one], np.array(table["died"].to_pylist())[is_one]


def summed(parts: Sequence[tuple[Any, Any]], width: int) -> Any:
    """Return the trails of one group as silos with these rows add them, of shape (TRAILS, bins)."""
    grid = grid_of(TIME, width)
    found = [trails(np.zeros(len(time), np.int64), 1, time, event.astype(int), TIME, grid) for time, event in parts]
    return np.sum(found, axis=0).reshape(TRAILS, grid.bins)


def read(summed_trails: Any, sd: float = QUIET) -> Counts:
    events, censored = np.asarray(summed_trails, np.float64)
    return counts_of(events, censored, sd)


def exactly(time: Any, event: Any, width: int) -> Counts:
    return read(summed([(time, event)], width))


def test_without_noise_a_curve_by_day_is_that_of_the_pooled_trial() -> None:
    """The five hospitals' trails are added up, as a round adds them."""
    homes = [
        (np.array(one["survival"].to_pylist()), np.array(one["died"].to_pylist()))
        for one in parts(read_lung()).values()
    ]
    assert len(homes) == len(HOSPITALS)
    counts = read(summed(homes, 1))
    curve = curve_of(counts, list(DAYS))
    assert curve.shares.tolist() == pytest.approx(list(DAYS.values()), abs=1e-9)
    assert (np.abs(curve.lows - curve.shares) < 1e-6).all()
    assert counts.events.sum() == pytest.approx(165)
    for sex, day in MEDIANS.items():
        found = median_of(curve_of(exactly(*lung(sex), 1)))
        assert (found.bin, found.low, found.high) == (day, day, day), sex


def test_without_noise_a_curve_by_thirty_days_is_that_of_the_pooled_trial() -> None:
    counts = exactly(*lung(), 30)
    assert counts.events.tolist() == pytest.approx([*DEATHS, 0, 0], abs=1e-6)
    assert counts.at_risk[: len(AT_RISK)].tolist() == pytest.approx(AT_RISK, abs=1e-6)
    curve = curve_of(counts)
    assert {month: float(curve.shares[month]) for month in MONTHS} == pytest.approx(MONTHS, abs=1e-9)


def test_without_noise_the_sexes_are_compared_as_mantel_does() -> None:
    found = log_rank([exactly(*lung(sex), 1) for sex in ("male", "female")])
    assert found is not None
    assert [found.chi2, found.freedom, found.p] == pytest.approx([CHI2, 1, P], rel=1e-5)


@every(
    ("value", "freedom"),
    [(3.841458820694124, 1), (5.991464547107979, 2), (7.814727903251179, 3), (18.307038053275, 10)],
)
def test_the_tail_of_chi_square(value: float, freedom: int) -> None:
    """The 95th percentile, as every table has it."""
    assert chi2_above(value, freedom) == pytest.approx(0.05, rel=1e-9)


def test_greenwoods_variance_of_uncensored_rows_is_the_binomial_one() -> None:
    events, at_risk = np.array([10.0, 20.0, 30.0]), np.array([100.0, 90.0, 70.0])
    share = kaplan_meier(events, at_risk)
    assert share.tolist() == pytest.approx([0.9, 0.7, 0.4])
    assert (greenwood(events, at_risk) * share**2).tolist() == pytest.approx([one * (1 - one) / 100 for one in share])


def groups() -> Iterator[tuple[str, Any, Any]]:
    """Yield groups of every size and shape: days, and whether the event was seen."""
    time, event = lung()
    yield "all", time, event
    yield "male", *lung("male")
    for size in (60, 20, 5, 0):
        yield f"{size} rows", time[:size], event[:size]
    yield "twenty times", np.repeat(time, 20), np.repeat(event, 20)
    yield "nobody censored", time, np.ones_like(event)
    yield "few events", time, event & (np.arange(len(time)) % 10 == 0)
    yield "no event", time, np.zeros_like(event)
    is_first = np.arange(len(time)) % 2 == 0
    yield "half at once", np.where(is_first, 3, 900), is_first
    yield "all on two days", np.where(is_first, 500, 900), np.ones_like(event)


def deviation(bins: int, of_a_count: float) -> float:
    return of_a_count * math.sqrt(sum(one * one for one in kernel(bins)))


def noisy(exact: Any, sd: float, random: np.random.Generator) -> Counts:
    return read(exact + sd * random.standard_normal(exact.shape), sd)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "sd", "runs"), [(30, 2.5, RUNS), (30, 8.0, RUNS), (5, 2.5, RUNS // 4)])
@every(("name", "time", "event"), groups)
def test_intervals_hold_the_curve_of_the_rows(
    name: str, time: Any, event: Any, width: int, sd: float, runs: int
) -> None:
    exact, random = summed([(time, event)], width).astype(np.float64), np.random.default_rng([len(time), width])
    bins, true = exact.shape[1], exactly(time, event, width)
    truth, at_half = kaplan_meier(true.events, true.at_risk), median_of(curve_of(true)).bin
    noise, held, told, medians = deviation(bins, sd), np.zeros(bins), np.zeros(bins), 0
    of_told = np.zeros(bins)
    for _ in range(runs):
        curve = curve_of(noisy(exact, noise, random))
        is_told = ~np.isnan(curve.shares)
        holds = (curve.lows <= truth + 1e-9) & (truth <= curve.highs + 1e-9)
        held, told, of_told = held + holds, told + is_told, of_told + (holds & is_told)
        shown = curve.shares[is_told]
        assert (np.diff(shown, prepend=1.0) <= 0).all(), "a shown curve never rises"
        assert (np.diff(curve.lows) <= 0).all()
        assert (np.diff(curve.highs) <= 0).all()
        assert (curve.lows[is_told] <= shown).all()
        assert (shown <= curve.highs[is_told]).all()
        assert (curve.least[is_told] <= curve.lows[is_told]).all()
        found = median_of(curve)
        medians += _holds(found.low, at_half, found.high)
    slack = 3 * math.sqrt(LEAST * (1 - LEAST) / runs)  # of one bin; all bins together must have 94 %
    assert (held / runs).min() >= LEAST - slack
    assert held.mean() / runs >= LEAST
    if told.sum() >= runs:
        assert of_told.sum() / told.sum() >= LEAST
    if "at once" not in name:  # one bin, whose interval is that of its share
        assert medians / runs >= LEAST


def _holds(low: int | None, value: int | None, high: int | None) -> bool:
    """Tell whether a median, None where half are never gone, is in an interval whose end may be open."""
    last = math.inf
    return (last if low is None else low) <= (last if value is None else value) <= (last if high is None else high)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [150, 1500])
def test_the_population_is_held_too(rows: int) -> None:
    """Rows are drawn from a population with exponential times, of which a share lives on at each of these days."""
    random, days = np.random.default_rng(rows), [90, 180, 300, 420]
    sd, held = deviation(221, 2.5), np.zeros(len(days))
    ends = [grid_of(TIME, 5).of(day) for day in days]
    for _ in range(RUNS):
        events, censored = random.exponential(300, rows), random.uniform(200, 2000, rows)
        time = np.minimum(np.minimum(events, censored), 1200).astype(int)
        exact = summed([(np.minimum(time, 1101), events <= censored)], 5).astype(np.float64)
        curve = curve_of(noisy(exact, sd, random), ends)
        truth = np.exp([-(5 * (end + 1)) / 300 for end in ends])
        held += np.isnan(curve.shares) | ((curve.least <= truth) & (truth <= curve.most))
    assert held.mean() / RUNS >= LEAST
    assert (held / RUNS).min() >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("count", "rows"), [(2, 60), (2, 400), (4, 150)])
def test_groups_of_one_curve_differ_as_seldom_as_the_test_says(count: int, rows: int) -> None:
    random, found = np.random.default_rng([count, rows]), list[LogRank]()
    sd = deviation(37, 2.5)
    for _ in range(2 * RUNS):
        counts = []
        for _ in range(count):
            events, censored = random.exponential(300, rows), random.uniform(200, 2000, rows)
            time = np.minimum(np.minimum(events, censored), 1101).astype(int)
            counts.append(noisy(summed([(time, events <= censored)], 30).astype(np.float64), sd, random))
        tested = log_rank(counts)
        assert tested is not None
        found.append(tested)
    assert {one.freedom for one in found} == {count - 1}
    assert np.mean([one.p < 0.05 for one in found]) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(found))


def test_groups_that_differ_are_found_to() -> None:
    random, sd = np.random.default_rng(1), deviation(37, 2.5)
    found = []
    for _ in range(50):
        counts = []
        for mean in (200, 400):
            events = random.exponential(mean, 1000)
            time = np.minimum(events, 1101).astype(int)
            counts.append(noisy(summed([(time, events <= 1100)], 30).astype(np.float64), sd, random))
        tested = log_rank(counts)
        found.append(1.0 if tested is None else tested.p)
    assert max(found) < 1e-3
    assert log_rank(counts[:1]) is None
    nobody = exactly(np.zeros(0, int), np.zeros(0, bool), 30)
    assert log_rank([nobody, nobody]) is None
