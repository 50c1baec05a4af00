"""Cox regression on its pure functions: equal to a stratified fit of the pooled rows, whoever has which strata."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import statsmodels.duration.api as smd

from policies.requests.families import Task
from silo_node.training import concordance
from silo_node.training.family import Examples, Fitted, State
from silo_node.training.registry import FAMILIES
from tests.harness.families import divided, examples, number, numbered, part, run, summed, task, text, truth
from tests.harness.public_rows import patients

pytestmark = pytest.mark.slow

TIGHT = "0.000000000001"
FEATURES = ("age", "sex", "ecog", "loss")
PARTS = {"time": "days", "event": "died"}
STRATA = {**PARTS, "strata": "inst"}
Table = Mapping[str, npt.NDArray[Any]]


def institutions(of: Examples, rows: Table) -> list[Examples]:
    """Return the rows by institution, one silo each."""
    return [part(of, np.flatnonzero(rows["inst"] == place)) for place in sorted(set(rows["inst"]))]


def reference(rows: Table, ties: str, strata: npt.NDArray[Any] | None, features: tuple[str, ...] = FEATURES) -> Any:
    inputs = np.column_stack([rows[name] for name in features]).astype(float)
    model = smd.PHReg(rows["days"].astype(float), inputs, status=rows["died"], strata=strata, ties=ties)
    return model.fit(tol=1e-14)


def close(value: float | None, expected: float, within: float = 1e-7) -> None:
    assert value is not None
    assert abs(value - expected) <= within * max(1.0, abs(expected))


def lines(fitted: Fitted, listing: int = 0) -> Mapping[str, tuple[float | None, ...]]:
    return {line.name: line.values for line in fitted.listings[listing].lines}


def figures(fitted: Fitted) -> Mapping[str, float | None]:
    return {line.name: line.values[0] for line in fitted.figures}


def agrees(fitted: Fitted, fit: Any) -> None:
    ends = np.asarray(fit.conf_int())
    assert tuple(lines(fitted)) == tuple(lines(fitted, 1)) == FEATURES
    for place, name in enumerate(FEATURES):
        expected = (fit.params[place], fit.bse[place], fit.tvalues[place], fit.pvalues[place], *ends[place])
        for value, other in zip(lines(fitted)[name], expected, strict=True):
            close(value, float(other))
        for value, other in zip(lines(fitted, 1)[name], (fit.params[place], *ends[place]), strict=True):
            close(value, math.exp(other))
    close(figures(fitted)["log partial likelihood"], fit.llf)
    start = fit.model.loglike(np.zeros(len(FEATURES)))
    close(figures(fitted)["log partial likelihood without features"], start)
    close(figures(fitted)["likelihood-ratio chi-square"], 2 * (fit.llf - start))


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("days", [1, 60])
def test_eighteen_institutions_give_the_stratified_fit_of_the_pooled_rows(ties: str, days: int) -> None:
    columns, rows = patients(days)
    own = task("cox", columns, None, FEATURES, PARTS, ties=ties, tolerance=TIGHT)
    state, fitted, rounds = run(own, institutions(examples(own, rows), rows))
    agrees(fitted, reference(rows, ties, rows["inst"]))
    assert state.ended == "complete"
    assert rounds <= 8
    assert not fitted.notes
    assert (figures(fitted)["strata"], figures(fitted)["rows"], figures(fitted)["events"]) == (18, 212, 150)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_one_silo_without_strata_is_the_plain_fit(ties: str) -> None:
    columns, rows = patients(60)
    own = task("cox", columns, None, FEATURES, PARTS, ties=ties, tolerance=TIGHT)
    _, fitted, _ = run(own, [examples(own, rows)])
    agrees(fitted, reference(rows, ties, None))
    assert figures(fitted)["strata"] == 1


def test_efron_is_the_default_and_ties_make_a_difference() -> None:
    columns, rows = patients(60)
    found = [
        lines(run(own, [examples(own, rows)])[1])
        for own in (
            task("cox", columns, None, FEATURES, PARTS),
            task("cox", columns, None, FEATURES, PARTS, ties="efron"),
            task("cox", columns, None, FEATURES, PARTS, ties="breslow"),
        )
    ]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("days", [1, 60])
def test_the_fit_is_that_of_lifelines_too(days: int) -> None:
    import pandas as pd
    from lifelines import CoxPHFitter
    from lifelines.statistics import StatisticalResult

    columns, rows = patients(days)
    own = task("cox", columns, None, FEATURES, STRATA, tolerance=TIGHT)
    _, fitted, _ = run(own, [examples(own, rows)])
    frame = pd.DataFrame({name: rows[name] for name in (*FEATURES, "days", "died", "inst")})
    fitter = CoxPHFitter().fit(frame, "days", "died", strata=["inst"], fit_options={"precision": 1e-12})
    for name in FEATURES:
        close(lines(fitted)[name][0], fitter.params_[name], 1e-6)
        close(lines(fitted)[name][1], fitter.standard_errors_[name], 1e-6)
    test: StatisticalResult = fitter.log_likelihood_ratio_test()
    close(figures(fitted)["likelihood-ratio chi-square"], test.test_statistic, 1e-6)
    close(figures(fitted)["p of the likelihood ratio"], test.p_value, 1e-6)
    close(figures(fitted)["degrees of freedom"], 4)


def test_pairs_are_those_of_brute_force_and_of_lifelines() -> None:
    from lifelines.utils import concordance_index

    numbers = np.random.default_rng(3)
    for count in (1, 2, 7, 60):
        for _ in range(5):
            times, happened = numbers.integers(0, 12, count), numbers.random(count) < 0.6
            scores = numbers.integers(0, 6, count).astype(float)
            order = np.lexsort((~happened, times))
            times, happened, scores = times[order], happened[order], scores[order]
            expected = [0, 0, 0]
            for one, other in itertools.permutations(range(count), 2):
                is_later = times[other] > times[one] or (times[other] == times[one] and not happened[other])
                if happened[one] and is_later:
                    expected[int(scores[one] <= scores[other]) + int(scores[one] == scores[other])] += 1
            found = concordance.pairs(times, happened, scores)
            assert found.tolist() == expected
            if sum(expected):
                share = (expected[0] + expected[2] / 2) / sum(expected)
                assert concordance_index(times, -scores, happened) == pytest.approx(share)


def test_the_concordance_is_that_of_the_fit_in_each_stratum() -> None:
    from lifelines.utils import concordance_index

    columns, rows = patients()
    own = task("cox", columns, None, FEATURES, PARTS, tolerance=TIGHT)
    whole = examples(own, rows)
    _, fitted, _ = run(own, [whole])
    score = sum(float(lines(fitted)[name][0] or 0) * rows[name] for name in FEATURES)
    assert figures(fitted)["concordance"] == pytest.approx(concordance_index(rows["days"], -score, rows["died"]))


def first_rounds(own: Task, silos: list[list[Examples]], count: int = 5) -> list[State]:
    """Return the states after some rounds, and assert that each way of having the rows gives the same sums."""
    family, state, found = FAMILIES["cox"], FAMILIES["cox"].init(own), []
    for place in range(count):
        round_ = numbered(own, place)
        sums = [summed(round_, state, each) for each in silos]
        for other in sums[1:]:
            for name, block in sums[0].items():
                assert block.tolist() == other[name].tolist(), (place, name)
        state = family.update(round_, state, sums[0])
        found.append(state)
    return found


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("days", [1, 60])
def test_every_way_of_having_whole_strata_gives_the_same_sums_to_the_last_bit(ties: str, days: int) -> None:
    """Hope: of the order of the rows at a silo, or of its strata beside each other, something is left in the sums."""
    columns, rows = patients(days)
    own = task("cox", columns, None, FEATURES, STRATA, ties=ties)
    whole = examples(own, rows)
    apart, numbers = institutions(whole, rows), np.random.default_rng(5)
    mixed = part(whole, numbers.permutation(whole.rows))
    places = sorted(set(rows["inst"]))
    some = [part(whole, np.flatnonzero(np.isin(rows["inst"], places[first::3]))) for first in range(3)]
    shuffled = [part(each, numbers.permutation(each.rows)) for each in apart]
    nobody = part(whole, np.zeros(0, np.int64))
    first_rounds(own, [[whole], [mixed], apart, some, shuffled, [*some, nobody]])


def test_rows_of_two_silos_are_in_no_risk_set_together() -> None:
    columns, rows = patients()
    own = task("cox", columns, None, FEATURES, PARTS, tolerance=TIGHT)
    whole = examples(own, rows)
    silos = divided(whole, 3)
    whose = np.empty(whole.rows, np.int64)
    for silo, each in enumerate(silos):
        whose[each.person] = silo
    agrees(run(own, silos)[1], reference(rows, "efron", whose))
    both = task("cox", columns, None, FEATURES, STRATA, tolerance=TIGHT)
    cells = np.unique([f"{silo} {inst}" for silo, inst in zip(whose, rows["inst"], strict=True)], return_inverse=True)
    agrees(run(both, silos)[1], reference(rows, "efron", cells[1]))


def test_a_silo_without_events_or_rows_takes_part() -> None:
    columns, rows = patients()
    own = task("cox", columns, None, FEATURES, STRATA)
    spared = rows["inst"] == "1"
    rows["died"] = np.where(spared, 0, rows["died"])
    whole = examples(own, rows)
    silos = [part(whole, np.flatnonzero(mask)) for mask in (spared, ~spared, np.zeros(len(spared), np.bool_))]
    state, fitted, _ = run(own, silos)
    assert state.ended == "complete"
    assert lines(fitted) == lines(run(own, [whole])[1])
    close(lines(fitted)["age"][0], reference(rows, "efron", rows["inst"]).params[0])


def test_columns_that_tell_nothing_are_dropped_and_named() -> None:
    """`fixed` is the same everywhere, `region` in each stratum, `twice` says what `sex` says, nobody is of kind c."""
    columns, rows = patients()
    kind = np.where(rows["age"] > 60, "a", "b")
    rows |= {"fixed": np.full(212, 3), "region": (rows["inst"] < "15").astype(int), "twice": 9 - rows["sex"]}
    rows["kind"] = kind
    columns += [number("fixed", 0, 9), truth("region"), number("twice", 0, 9), text("kind", "a", "b", "c")]
    own = task("cox", columns, None, ("fixed", "kind", "region", *FEATURES, "twice"), STRATA, tolerance=TIGHT)
    state, fitted, _ = run(own, institutions(examples(own, rows), rows))
    assert state.ended == "complete"
    assert set(fitted.notes) == {
        "dropped: fixed is the same in all rows",
        "dropped: kind = c is the same in all rows",
        "dropped: region is the same in all rows at risk of each stratum",
        "dropped: twice follows from the columns before it",
    }
    assert set(lines(fitted)) == {"kind = b", *FEATURES}
    rows["old"] = (kind == "b").astype(int)
    fit = reference(rows, "efron", rows["inst"], ("old", *FEATURES))
    for name, expected in zip(("kind = b", *FEATURES), fit.params, strict=True):
        close(lines(fitted)[name][0], expected)


def test_where_every_feature_is_the_same_in_each_stratum_nothing_can_be_compared() -> None:
    columns, rows = patients()
    rows["region"] = (rows["inst"] < "15").astype(int)
    own = task("cox", [*columns, truth("region")], None, ("region",), STRATA)
    state, fitted, _ = run(own, [examples(own, rows)])
    assert state.ended == "too-few-rows"
    assert not fitted.listings
    assert "dropped: region is the same in all rows at risk of each stratum" in fitted.notes
    assert "too few events" in fitted.notes[-1]


@pytest.mark.parametrize("features", [("teller",), ("age", "teller", "sex")])
@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_where_a_column_tells_who_comes_first_there_is_no_maximum(features: tuple[str, ...], ties: str) -> None:
    """Whoever dies before the day 300 is told, and nobody else is; so is whoever never dies."""
    columns, rows = patients()
    for told in ((rows["days"] < 300) & (rows["died"] == 1), rows["died"] == 0):
        own = task("cox", [*columns, truth("teller")], None, features, PARTS, ties=ties)
        cells = {**rows, "teller": told.astype(int)}
        if told[rows["died"] == 0].all():
            cells["days"] = np.where(told, 1000, rows["days"])  # who never dies is at risk to the end, so is beside all
        state, fitted, rounds = run(own, divided(examples(own, cells), 2))
        assert (state.ended, state.why) == ("no-maximum", "teller")
        assert not fitted.listings
        assert fitted.notes[-1].startswith("no maximum: teller tells who has the event first")
        assert rounds <= 25


def test_a_column_that_tells_much_but_not_all_has_a_maximum() -> None:
    """Hope: a strong effect is taken for one without end."""
    import pandas as pd
    from lifelines import CoxPHFitter

    numbers = np.random.default_rng(2)
    told = np.arange(2300) < 300
    days = np.where(told, 1 + np.arange(2300), 1000)
    days[300] = 300  # one who is not told dies beside the last who are
    rows = {"days": days, "died": (days < 1000).astype(int), "teller": told.astype(int)}
    rows["age"] = numbers.integers(30, 91, 2300)
    columns = [number("days", 0, 1100), truth("died"), truth("teller"), number("age", 30, 90)]
    own = task("cox", columns, None, ("age", "teller"), PARTS, tolerance=TIGHT)
    state, fitted, _ = run(own, [examples(own, rows)])
    options = {"precision": 1e-12, "step_size": 1.0}
    fit = CoxPHFitter().fit(pd.DataFrame(rows), "days", "died", fit_options=options)  # statsmodels does not converge
    assert state.ended == "complete"
    assert fit.params_["teller"] > 9
    for name in ("age", "teller"):
        close(lines(fitted)[name][0], fit.params_[name])
        close(lines(fitted)[name][1], fit.standard_errors_[name])


def test_few_events_are_said_and_not_more_events_than_weights_are_too_few() -> None:
    columns, rows = patients()
    own = task("cox", columns, None, FEATURES, PARTS)
    events = np.flatnonzero(rows["died"])
    for count, ended in ((0, "too-few-rows"), (1, "too-few-rows"), (4, "too-few-rows"), (12, "complete")):
        few = np.zeros(212, np.int64)
        few[events[:: len(events) // count][:count] if count else []] = 1
        state, fitted, _ = run(own, [examples(own, {**rows, "died": few})])
        assert state.ended == ended
        assert bool(fitted.listings) == (ended == "complete")
        said = "few events: 12 for 4 weights" if fitted.listings else "too few events: a model needs more events"
        assert said in fitted.notes[-1]


def test_an_event_may_be_a_value_of_a_text_and_strata_a_bool() -> None:
    columns, rows = patients()
    columns = [*columns, text("how", "alive", "dead", "?"), truth("woman")]
    rows |= {"how": np.array(["alive", "dead"])[rows["died"]], "woman": rows["sex"] - 1}
    features = ("age", "ecog", "loss")
    plain = task("cox", columns, None, features, {**PARTS, "strata": "woman"})
    named = task(
        "cox", columns, None, features, {"time": "days", "event": "how", "strata": "woman"}, positive="dead"
    )  # fmt: skip
    found = run(plain, [examples(plain, rows)])[1]
    assert lines(found) == lines(run(named, [examples(named, rows)])[1])
    fit = reference(rows, "efron", rows["sex"], features)
    for place, name in enumerate(features):
        close(lines(found)[name][0], fit.params[place])
    assert figures(found)["strata"] == 2


def test_a_missing_cell_is_filled_by_the_mean_or_told_by_a_column() -> None:
    columns, rows = patients()
    gap = np.random.default_rng(9).random(212) < 0.3
    filled = np.where(gap, rows["loss"][~gap].mean(), rows["loss"])
    for missing in ("mean", "indicator"):
        own = task("cox", columns, None, FEATURES, STRATA, missing=missing, tolerance=TIGHT)
        gaps = {name: np.zeros(212, np.bool_) for name in FEATURES} | {"loss": gap}
        _, fitted, _ = run(own, institutions(examples(own, rows, gaps), rows))
        cells = {**rows, "loss": filled, "gap": gap}
        features = FEATURES if missing == "mean" else (*FEATURES, "gap")
        fit = reference(cells, "efron", rows["inst"], features)
        for place, name in enumerate(FEATURES):
            close(lines(fitted)[name][0], fit.params[place])
            close(lines(fitted)[name][1], fit.bse[place])
        if missing == "indicator":
            close(lines(fitted)["loss is missing"][0], fit.params[-1])


def test_rows_that_change_in_a_run_change_its_aim_and_are_told() -> None:
    columns, rows = patients()
    own = task("cox", columns, None, FEATURES, STRATA, tolerance=TIGHT)
    whole = examples(own, rows)
    fewer = part(whole, np.arange(180))
    family, state = FAMILIES["cox"], FAMILIES["cox"].init(own)
    for count in range(own.rounds):
        round_ = numbered(own, count)
        state = family.update(round_, state, summed(round_, state, [whole if count < 3 else fewer]))
        if state.ended:
            break
    fitted = family.finish(own, state)
    assert state.ended == "complete"
    for name, values in lines(run(own, [fewer])[1]).items():
        assert values == pytest.approx(lines(fitted)[name], rel=1e-8, abs=1e-9)
    assert figures(fitted)["events"] == rows["died"][:180].sum()
    assert "likelihood-ratio chi-square" not in figures(fitted)  # of other rows than the model
    assert "the rows changed in the run" in fitted.notes[-1]


@pytest.mark.parametrize(
    ("label", "parts", "options", "says"),
    [
        ("loss", PARTS, {}, "cox has no label; remove 'loss', and name time and event in"),
        (None, {"time": "days"}, {}, "cox needs event"),
        (None, {"event": "died"}, {}, "cox needs time"),
        (None, {**PARTS, "time": "inst"}, {}, "time 'inst' is a string, expected a number"),
        (None, {**PARTS, "event": "age"}, {}, "event 'age' is a int, expected a bool or text"),
        (None, {**PARTS, "event": "inst"}, {}, "event 'inst' is text: name its positive value"),
        (None, PARTS, {"positive": "yes"}, "event 'died' is a bool, which has no value to name"),
        (None, {**PARTS, "strata": "age"}, {}, "strata 'age' is a int, expected a bool or text"),
        (None, PARTS, {"ties": "exact"}, "ties: expected one of efron, breslow"),
    ],
)
def test_what_it_does_not_take_is_named(
    label: str | None, parts: dict[str, str], options: dict[str, str], says: str
) -> None:
    columns, _ = patients()
    with pytest.raises(ValueError, match=says):
        task("cox", columns, label, ("sex", "ecog"), parts, 30, **options)
