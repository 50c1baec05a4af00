"""The baseline hazard of a Cox model: that of the pooled rows, and of no line with fewer rows than min_cohort."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from policies.models.scores import RowCells, scores
from policies.requests.families import Task
from silo_node.training.family import Fitted, State
from silo_node.training.portable import exact_form
from tests.harness.families import divided, examples, number, run, task, text, truth
from tests.harness.public_rows import patients
from tests.silo_node.test_cox import FEATURES, PARTS, STRATA, TIGHT, institutions

pytestmark = pytest.mark.slow

Rows = Mapping[str, npt.NDArray[Any]]
DAY: dict[str, Any] = {"hazard": "1", "min_cohort": "2", "tolerance": TIGHT}


def curve(fitted: Fitted, name: str = "baseline hazard") -> dict[float, tuple[float, ...]]:
    (found,) = [one for one in fitted.listings if one.name == name]
    return {float(line.name): tuple(float(value or 0) for value in line.values) for line in found.lines}


def relative(own: Task, state: State, rows: Rows) -> npt.NDArray[np.float64]:
    """Return the hazards of the rows relative to a row of mean features, by the model's form."""
    return np.exp(scores(exact_form(own, state), RowCells(examples(own, rows).cells)))


def by_hand(rows: Rows, risk: npt.NDArray[np.float64], width: int = 1) -> dict[float, float]:
    """Return Breslow's cumulative hazard after each bin: events by the relative hazards of who is at risk."""
    bins, found, total = rows["days"] // width, dict[float, float](), 0.0
    for place in sorted(set(bins)):
        total += rows["died"][bins == place].sum() / risk[bins >= place].sum()
        found[place] = total
    return found


@pytest.mark.parametrize("days", [1, 60])
def test_the_hazard_is_that_of_lifelines_on_the_pooled_rows(days: int) -> None:
    import pandas as pd
    from lifelines import CoxPHFitter

    columns, rows = patients(days)
    own = task("cox", columns, None, FEATURES, PARTS, **DAY)
    _, fitted, _ = run(own, [examples(own, rows)])
    frame = pd.DataFrame({name: rows[name] for name in (*FEATURES, "days", "died")})
    fitter = CoxPHFitter().fit(frame, "days", "died", fit_options={"precision": 1e-13})
    expected = fitter.baseline_cumulative_hazard_.iloc[:, 0]
    found = curve(fitted)
    assert len(found) > 8
    for time, (_, _, hazard, survival) in found.items():
        before = max(expected.index[expected.index < time + 1])  # the last time of the bin
        assert hazard == pytest.approx(expected[before], abs=1e-7)
        assert survival == pytest.approx(np.exp(-expected[before]), abs=1e-7)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("width", [1, 30])
def test_of_several_silos_it_is_that_of_all_rows_by_the_stratified_coefficients(width: int, ties: str) -> None:
    columns, rows = patients()
    options = DAY | {"hazard": str(width), "ties": ties}
    own = task("cox", columns, None, FEATURES, PARTS, **options)
    state, fitted, _ = run(own, institutions(examples(own, rows), rows))
    without = task("cox", columns, None, FEATURES, PARTS, ties=ties, tolerance=TIGHT)
    plain = run(without, institutions(examples(own, rows), rows))
    assert fitted.listings[0] == plain[1].listings[0]  # the hazard changes no coefficient
    assert fitted.figures == plain[1].figures
    expected = by_hand(rows, relative(own, state, rows), width)
    found, bins = curve(fitted), rows["days"] // width
    assert len(found) > 8
    for time, (at_risk, _, hazard, _) in found.items():
        place = int(time) // width
        assert hazard == pytest.approx(max(one for end, one in expected.items() if end <= place), rel=1e-7)
        assert at_risk >= (bins >= place).sum()
    # The survival of a row follows: it is that of a row of mean features to the power of its relative hazard.
    row = {name: values[:1] for name, values in rows.items()}
    risk = relative(own, state, row)[0]
    time, (*_, hazard, survival) = list(found.items())[3]
    assert survival**risk == pytest.approx(np.exp(-hazard * risk))


def test_values_of_a_strata_column_have_hazards_of_their_own() -> None:
    columns, rows = patients()
    rows["inst"] = np.where(np.isin(rows["inst"], ["1", "12", "13"]), rows["inst"], "?")
    columns[2] = text("inst", "1", "12", "13", "40", "?")
    own = task("cox", columns, None, FEATURES, STRATA, **DAY | {"min_cohort": "10"})
    state, fitted, _ = run(own, divided(examples(own, rows), 3))
    risk = relative(own, state, rows)
    names = [one.name for one in fitted.listings if one.name.startswith("baseline")]
    assert names == [f"baseline hazard of inst = {value}" for value in ("1", "12", "13", "?")]
    assert "left out of the baseline hazards: 1 of 5, fewer than 10 rows" in fitted.notes
    for value in ("1", "?"):
        part = rows["inst"] == value
        expected = by_hand({name: values[part] for name, values in rows.items()}, risk[part])
        for time, (_, _, hazard, _) in curve(fitted, f"baseline hazard of inst = {value}").items():
            assert hazard == pytest.approx(max(one for end, one in expected.items() if end <= time), rel=1e-7)


def test_a_line_has_min_cohort_rows_that_end_and_as_many_or_none_are_left() -> None:
    columns, rows = patients()
    for least in (2, 17, 60):
        own = task("cox", columns, None, FEATURES, PARTS, **DAY | {"min_cohort": str(least)})
        state, fitted, _ = run(own, institutions(examples(own, rows), rows))
        times, before = sorted(curve(fitted)), 0
        for time in times:
            ended, left = int((rows["days"] <= time).sum()), int((rows["days"] > time).sum())
            assert ended - before >= least
            assert left >= least or left == 0
            before = ended
        assert len(state["hazard"]) == len(times)  # nothing finer is kept
        assert not any(name in state.numbers for name in ("hazard-events", "hazard-ends", "hazard-risks"))


def test_the_sums_are_the_same_to_the_last_bit_however_rows_of_whole_strata_are_divided() -> None:
    columns, rows = patients()
    own = task("cox", columns, None, FEATURES, STRATA, **DAY | {"hazard": "10"})
    whole = examples(own, rows)
    one = run(own, [whole])[0]
    each = run(own, institutions(whole, rows))[0]
    two = run(own, institutions(whole, rows)[::-1])[0]
    for other in (each, two):
        assert np.array_equal(one["hazard"], other["hazard"])


def test_hazards_beyond_the_grid_are_outside_and_the_run_says_so() -> None:
    numbers = np.random.default_rng(8)
    tells = numbers.integers(0, 2, 200)
    rows = {"x": tells * 1000, "t": 1 + (1 - tells) * 100 + numbers.integers(0, 100, 200), "e": np.ones(200, int)}
    columns = [number("x", 0, 1000), number("t", 0, 400), truth("e")]
    own = task("cox", columns, None, ("x",), {"time": "t", "event": "e"}, **DAY)
    state, fitted, _ = run(own, [examples(own, rows)])
    assert state.ended == "no-maximum"
    assert not fitted.listings


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"hazard": "0.5"}, "hazard: 0.5 is no multiple of 1, the step of 'days'"),
        ({"hazard": "-1"}, "hazard: expected a number"),
        ({"hazard": "1", "min_cohort": "1"}, "min_cohort: expected a whole number from 2"),
    ],
)
def test_a_hazard_that_cannot_be_computed_is_refused(options: dict[str, Any], problem: str) -> None:
    columns, _ = patients()
    with pytest.raises(ValueError, match=problem):
        task("cox", columns, None, FEATURES, PARTS, **options)
