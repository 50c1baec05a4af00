"""Kaplan and Meier's curves on pure functions: equal to those of the pooled rows, whatever silo has which."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from policies.requests.families import MAX_CELLS
from policies.units import counted
from silo_node.training.curves import stretches
from silo_node.training.family import Fitted, Listing
from tests.harness.families import divided, examples, number, part, run, task, text, truth
from tests.harness.public_rows import lung

pytestmark = pytest.mark.slow

PARTS = {"time": "days", "event": "died"}
BY_ECOG = {**PARTS, "group": "ecog"}
Table = Mapping[str, npt.NDArray[Any]]


def patients() -> tuple[list[Any], dict[str, npt.NDArray[Any]]]:
    """Return the NCCTG's rows; one of them alone has the ECOG score 3, and nobody 4."""
    found = lung(("sex", "ph.ecog"))
    rows: dict[str, npt.NDArray[Any]] = {
        "days": found["time"].astype(np.int64),
        "died": found["status"].astype(np.int64),
        "woman": found["sex"].astype(np.int64) - 1,
        "ecog": found["ph.ecog"].astype(int).astype(str),
    }
    columns = [number("days", 0, 1100), truth("died"), truth("woman"), text("ecog", "0", "1", "2", "3", "4", "?")]
    return columns, rows


def figures(fitted: Fitted) -> Mapping[str, float | None]:
    return {line.name: line.values[0] for line in fitted.figures}


def listing(fitted: Fitted, name: str) -> Listing:
    (found,) = (one for one in fitted.listings if one.name == name)
    return found


def agrees(curve: Listing, times: npt.NDArray[Any], events: npt.NDArray[Any]) -> None:
    """Assert that a curve is that of lifelines, with statsmodels' Greenwood errors."""
    import statsmodels.duration.api as smd
    from lifelines import KaplanMeierFitter

    fit = KaplanMeierFitter().fit(times, events)
    shares, ends = fit.survival_function_["KM_estimate"], fit.confidence_interval_
    greenwood = smd.SurvfuncRight(times.astype(float), events)
    errors = dict(zip(greenwood.surv_times, greenwood.surv_prob_se, strict=True))
    assert [float(line.name) for line in curve.lines] == sorted(set(times))
    for line in curve.lines:
        at_risk, happened, survival, error, low, high = line.values
        time = float(line.name)
        assert at_risk == (times >= time).sum()
        assert happened == ((times == time) & (events == 1)).sum()
        assert survival == pytest.approx(shares[time], abs=1e-12)
        if survival:
            assert (low, high) == pytest.approx(tuple(ends.loc[time]), abs=1e-9)
            assert time not in errors or error == pytest.approx(errors[time], abs=1e-12)
        else:
            assert (error, low, high) == (None, None, None)


def test_a_curve_of_four_silos_is_that_of_the_pooled_rows() -> None:
    columns, rows = patients()
    own = task("kaplan-meier", columns, None, (), PARTS, min_cohort="1")
    state, fitted, rounds = run(own, divided(examples(own, rows), 4))
    assert (state.ended, rounds, fitted.notes) == ("complete", 1, ())
    agrees(listing(fitted, "survival of all rows"), rows["days"], rows["died"])
    assert "log-rank chi-square" not in figures(fitted)


@pytest.mark.parametrize("width", [1, 30])
def test_curves_by_group_and_the_log_rank_test_are_those_of_the_pooled_rows(width: int) -> None:
    from lifelines import KaplanMeierFitter
    from lifelines.statistics import multivariate_logrank_test
    from lifelines.utils import median_survival_times

    columns, rows = patients()
    own = task("kaplan-meier", columns, None, (), BY_ECOG, min_cohort="1", grid=str(width))
    _, fitted, _ = run(own, divided(examples(own, rows), 4))
    # All in a bin are taken to be at its end: events come before those who leave.
    times = np.minimum(rows["days"] // width * width + width - 1, 1100)
    for value in "0123":
        mask = rows["ecog"] == value
        agrees(listing(fitted, f"survival of ecog = {value}"), times[mask], rows["died"][mask])
    test = multivariate_logrank_test(times, rows["ecog"], rows["died"])
    assert figures(fitted)["log-rank chi-square"] == pytest.approx(test.test_statistic, rel=1e-9)
    assert figures(fitted)["degrees of freedom"] == 3
    assert figures(fitted)["p of the log-rank test"] == pytest.approx(test.p_value, rel=1e-8)
    for line in listing(fitted, "groups").lines:
        mask = rows["ecog"] == line.name[-1]
        assert line.values[:2] == (mask.sum(), rows["died"][mask].sum())
        fit = KaplanMeierFitter().fit(times[mask], rows["died"][mask])
        expected = (fit.median_survival_time_, *median_survival_times(fit.confidence_interval_).to_numpy()[0])
        if mask.sum() == 1:  # a curve that falls from 1 to 0 has no interval
            assert line.values[2:] == (expected[0], None, None)
            continue
        for found, other in zip(line.values[2:], expected, strict=True):
            assert found == (pytest.approx(other) if np.isfinite(other) else None)


def test_the_log_rank_test_of_two_groups_is_that_of_statsmodels() -> None:
    import statsmodels.duration.api as smd

    columns, rows = patients()
    own = task("kaplan-meier", columns, None, (), {**PARTS, "group": "woman"})
    _, fitted, _ = run(own, divided(examples(own, rows), 3))
    statistic, p = smd.survdiff(rows["days"].astype(float), rows["died"], rows["woman"])
    assert figures(fitted)["log-rank chi-square"] == pytest.approx(statistic, rel=1e-9)
    assert figures(fitted)["p of the log-rank test"] == pytest.approx(p, rel=1e-8)
    assert [one.name for one in fitted.listings[1:]] == ["survival of woman = false", "survival of woman = true"]


def test_every_split_of_the_rows_gives_the_same_curves_to_the_last_bit() -> None:
    columns, rows = patients()
    own = task("kaplan-meier", columns, None, (), BY_ECOG)
    whole = examples(own, rows)
    mixed = part(whole, np.random.default_rng(5).permutation(whole.rows))
    nobody = part(whole, np.zeros(0, np.int64))
    found = [run(own, silos)[1] for silos in ([whole], [mixed, nobody], divided(whole, 3), divided(mixed, 7))]
    assert all(one == found[0] for one in found)


def test_lines_and_groups_of_fewer_rows_than_min_cohort_are_left_out_and_not_kept() -> None:
    """Hope: two lines, or what the silo keeps, tell how few end between them, or are left after the last."""
    columns, rows = patients()
    for least in (1, 5, 10, 40):
        own = task("kaplan-meier", columns, None, (), BY_ECOG, min_cohort=str(least))
        state, fitted, _ = run(own, [examples(own, rows)])
        sizes = {value: int((rows["ecog"] == value).sum()) for value in "0123"}
        enough = [value for value, size in sizes.items() if size >= least]
        assert [line.name for line in listing(fitted, "groups").lines] == [f"ecog = {value}" for value in enough]
        assert figures(fitted)["rows"] == sum(sizes[value] for value in enough)
        if len(enough) < 4:
            assert fitted.notes[0] == f"left out: {counted(4 - len(enough), 'group')} of fewer than {least} rows"
        for value in enough:
            mask = rows["ecog"] == value
            at_risk = [line.values[0] or 0 for line in listing(fitted, f"survival of ecog = {value}").lines]
            times = [float(line.name) for line in listing(fitted, f"survival of ecog = {value}").lines]
            for one, other in itertools.pairwise(at_risk):
                assert one - other >= least
            rest = int((rows["days"][mask] > times[-1]).sum())
            assert rest == 0 or rest >= least
            assert at_risk[-1] - rest >= least
        assert max(len(values) for values in state.numbers.values()) <= max(
            sum(len(one.lines) for one in fitted.listings[1:]), 4
        )


def test_stretches_are_whole_by_brute_force() -> None:
    numbers = np.random.default_rng(1)
    for least in (1, 3, 10):
        for _ in range(50):
            ends = numbers.integers(0, 5, 30).astype(float)
            found = list(stretches(ends, least))
            firsts = [first for first, _ in found]
            assert firsts == [0, *(last + 1 for _, last in found[:-1])][: len(found)]
            for first, last in found:
                rest = ends[last + 1 :].sum()
                assert ends[first : last + 1].sum() >= least
                assert rest == 0 or rest >= least


def test_few_rows_and_no_rows_end_without_a_curve() -> None:
    columns, rows = patients()
    own = task("kaplan-meier", columns, None, (), PARTS)
    for count in (0, 1, 9):
        state, fitted, _ = run(own, [part(examples(own, rows), np.arange(count))])
        assert (state.ended, fitted.listings) == ("too-few-rows", ())
        assert "fewer rows than min_cohort" in fitted.notes[0]


def test_a_group_that_nobody_is_beside_is_no_group_of_the_test() -> None:
    """Events of one group alone, after all others have left, tell nothing of a difference."""
    columns, rows = patients()
    rows["days"] = np.where(rows["woman"] == 1, 10, 500)
    rows["died"] = np.where(rows["woman"] == 1, 0, rows["died"])
    own = task("kaplan-meier", columns, None, (), {**PARTS, "group": "woman"})
    _, fitted, _ = run(own, [examples(own, rows)])
    assert "log-rank chi-square" not in figures(fitted)


@pytest.mark.parametrize(
    ("parts", "options", "says"),
    [
        ({"time": "days"}, {}, "kaplan-meier needs event"),
        ({**PARTS, "group": "age"}, {}, "group 'age' is a int, expected a bool or text"),
        (PARTS, {"grid": "0.5"}, "grid: 0.5 is no multiple of 1, the step of 'days'"),
        (PARTS, {"grid": "-3"}, "grid: expected a number"),
        (PARTS, {"min_cohort": "0"}, "min_cohort: expected a whole number from 1"),
        (PARTS, {"min_cohort": "2.5"}, "min_cohort: expected a whole number from 1"),
        ({**PARTS, "group": "many"}, {}, f"at most {MAX_CELLS:,} are computed; name a grid"),
        (PARTS, {"tolerance": "0.1"}, "no option 'tolerance'"),
    ],
)
def test_what_it_does_not_take_is_named(parts: dict[str, str], options: dict[str, str], says: str) -> None:
    columns, _ = patients()
    columns = [*columns, number("age", 0, 99), text("many", *(f"v{place}" for place in range(20)))]
    with pytest.raises(ValueError, match=says):
        task("kaplan-meier", columns, None, (), parts, 30, **options)
