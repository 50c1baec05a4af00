"""Principal components and k-means on their pure functions: those of the pooled rows, whatever silo has which."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from policies.requests.families import MAX_CLUSTERS, MOST_PER_ROW
from policies.requests.tables import TableColumn
from silo_node.training.families.k_means import in_units, spread
from silo_node.training.families.pca import components
from silo_node.training.family import Examples, Fitted, State
from silo_node.training.registry import FAMILIES
from tests.harness.families import divided, examples, number, numbered, part, run, summed, task, text, truth
from tests.harness.public_rows import PIXELS, digits

pytestmark = pytest.mark.slow
Matrix = npt.NDArray[np.float64]
KINDS = ("pca", "k-means")


def mixed(count: int = 300) -> tuple[list[TableColumn], dict[str, npt.NDArray[Any]]]:
    """Return rows in three heaps, of numbers with a step, a bool and a domain."""
    numbers = np.random.default_rng(3)
    heap = numbers.integers(0, 3, count)
    rows = {
        "age": np.clip(np.rint(30 + 20 * heap + 4 * numbers.normal(size=count)), 18, 99).astype(np.int64),
        "debt": np.clip(np.rint(700 - 250 * heap + 60 * numbers.normal(size=count)), 0, 1000).astype(np.int64),
        "owner": (numbers.random(count) < 0.2 + 0.3 * heap).astype(np.int64),
        "kind": np.array(["a", "b", "c"])[numbers.integers(0, 3, count)],
    }
    columns = [number("age", 18, 99), number("debt", 0, 1000, "0.01"), truth("owner"), text("kind", "a", "b", "c", "d")]
    return columns, rows


def matrix(rows: Mapping[str, npt.NDArray[Any]]) -> Matrix:
    indicators = [rows["kind"] == value for value in "bc"]
    return np.column_stack([rows["age"], rows["debt"] / 100, rows["owner"], *indicators]).astype(float)


def listing(fitted: Fitted, name: str) -> dict[str, tuple[float | None, ...]]:
    (found,) = [one for one in fitted.listings if one.name == name]
    return {line.name: line.values for line in found.lines}


def figures(fitted: Fitted) -> dict[str, float | None]:
    return {line.name: line.values[0] for line in fitted.figures}


# Principal components


def test_eigenvalues_of_digits_on_four_silos_are_those_of_the_pooled_rows() -> None:
    columns, rows, inputs = digits()
    own = task("pca", columns, None, PIXELS, components="64")
    state, fitted, rounds = run(own, divided(examples(own, rows), 4))
    expected = np.linalg.eigvalsh(np.cov(inputs.T))[::-1]
    found = [values[0] for values in listing(fitted, "eigenvalues").values()]
    varying = int((inputs.std(0) > 0).sum())
    assert (state.ended, rounds, len(found)) == ("complete", 2, varying)
    assert np.abs(np.array(found) - expected[:varying]).max() <= 1e-8
    assert np.abs(expected[varying:]).max() <= 1e-8
    assert figures(fitted) == {"rows": 1797, "rows left out": 0}
    assert sum(note.startswith("dropped: p") for note in fitted.notes) == 64 - varying


@pytest.mark.parametrize("scale", ["none", "deviation"])
def test_loadings_are_those_of_scikit_learn_with_the_largest_positive(scale: str) -> None:
    from sklearn.decomposition import PCA

    columns, rows = mixed()
    own = task("pca", columns, None, ("age", "debt", "owner", "kind"), scale=scale)
    _, fitted, _ = run(own, divided(examples(own, rows), 3))
    inputs = matrix(rows)
    if scale == "deviation":
        inputs = (inputs - inputs.mean(0)) / inputs.std(0, ddof=1)
    fit = PCA(svd_solver="full").fit(inputs)
    shares = np.array(list(listing(fitted, "eigenvalues").values()), float)
    assert shares[:, 0] == pytest.approx(fit.explained_variance_, abs=1e-8)
    assert shares[:, 1] == pytest.approx(fit.explained_variance_ratio_, abs=1e-10)
    assert shares[-1, 2] == pytest.approx(1)
    loadings = np.array(list(listing(fitted, "loadings").values()), float)
    for own_loading, other in zip(loadings.T, fit.components_, strict=True):
        assert own_loading[np.argmax(np.abs(own_loading))] > 0
        assert own_loading == pytest.approx(other * np.sign(other[np.argmax(np.abs(other))]), abs=1e-8)
    assert "dropped: kind = d is the same in all rows" in fitted.notes


def test_equal_eigenvalues_are_one_subspace_and_are_named() -> None:
    """Four corners of a square, and a third column: two eigenvalues are the same, so only their plane is known."""
    corner = np.tile(np.array([[0, 0], [0, 10], [10, 0], [10, 10]]), (6, 1))
    rows = {"x": corner[:, 0], "y": corner[:, 1], "z": np.repeat([0, 1, 0, 1, 0, 1], 4)}
    columns = [number("x", 0, 10), number("y", 0, 10), number("z", 0, 10)]
    own = task("pca", columns, None, ("x", "y", "z"))
    state, fitted, _ = run(own, divided(examples(own, rows), 2))
    _, values, loadings = components(own, state)
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    assert loadings[:, :2] @ loadings[:, :2].T == pytest.approx(np.diag([1.0, 1, 0]), abs=1e-10)
    assert any("one subspace" in note and "1 and 2" in note for note in fitted.notes)


def test_fewer_components_are_shown_than_there_are_and_all_eigenvalues() -> None:
    columns, rows = mixed()
    own = task("pca", columns, None, ("age", "debt", "owner"), components="2")
    _, fitted, _ = run(own, [examples(own, rows)])
    assert len(listing(fitted, "eigenvalues")) == 3
    assert {len(values) for values in listing(fitted, "loadings").values()} == {2}


def test_a_missing_cell_has_the_mean_of_all_rows_or_a_column_of_its_own() -> None:
    columns, rows = mixed()
    gap = np.random.default_rng(4).random(300) < 0.2
    filled = matrix(rows)[:, :3]
    filled[gap, 1] = filled[~gap, 1].mean()
    for missing in ("mean", "indicator"):
        own = task("pca", columns, None, ("age", "debt", "owner"), missing=missing)
        gaps = {name: np.zeros(300, np.bool_) for name in ("age", "owner")} | {"debt": gap}
        state, _, _ = run(own, divided(examples(own, rows, gaps), 3))
        inputs = filled if missing == "mean" else np.column_stack([filled, gap])
        expected = np.linalg.eigvalsh(np.cov(inputs.T))[::-1]
        assert components(own, state)[1] == pytest.approx(expected, abs=1e-8)


def test_rows_that_change_between_the_rounds_do_not_bend_the_components() -> None:
    columns, rows = mixed()
    own = task("pca", columns, None, ("age", "debt", "owner"))
    whole = examples(own, rows)
    fewer, state = part(whole, np.arange(120)), FAMILIES["pca"].init(own)
    state = FAMILIES["pca"].update(own, state, summed(own, state, [whole]))
    round_ = numbered(own, 1)
    state = FAMILIES["pca"].update(round_, state, summed(round_, state, [fewer]))
    expected = np.linalg.eigvalsh(np.cov(matrix(rows)[:120, :3].T))[::-1]
    assert components(own, state)[1] == pytest.approx(expected, abs=1e-8)
    assert any("the rows changed" in note for note in FAMILIES["pca"].finish(round_, state).notes)


# k-means


def lloyd(inputs: Matrix, centres: Matrix) -> tuple[Matrix, npt.NDArray[np.int64]]:
    """Return what Lloyd's algorithm ends with: a centre without rows stays, the first of equal distances has a row."""
    for _ in range(500):
        nearest = ((inputs[:, None] - centres) ** 2).sum(2).argmin(1)
        moved = centres.copy()
        for place in range(len(centres)):
            if (nearest == place).any():
                moved[place] = inputs[nearest == place].mean(0)
        if np.abs(moved - centres).max() == 0:
            return centres, nearest
        centres = moved
    raise AssertionError("no end")


def start_of(own: Any) -> Matrix:
    """Return the first centres of a run by bounds, in units of the columns."""
    (low, high) = (np.array([(one.low, one.high) for one in own.table.columns], float)).T
    steps = np.array([float(one.step) for one in own.table.columns])
    found: Matrix = (low + spread(int(own.options["clusters"]), own.width - 1) * (high - low)) * steps
    return found


def test_k_means_of_digits_from_public_bounds_is_that_of_the_pooled_rows() -> None:
    columns, rows, inputs = digits()
    own = task("k-means", columns, None, PIXELS, clusters="10", rounds=200)
    state, fitted, rounds = run(own, divided(examples(own, rows), 4))
    expected, nearest = lloyd(inputs, start_of(own))
    assert state.ended == "complete"
    assert np.abs(in_units(own, state) - expected).max() <= 1e-8
    assert state["counts"].tolist() == np.bincount(nearest, minlength=10).tolist()
    assert 4 < rounds < 100
    distance = ((inputs - expected[nearest]) ** 2).sum() / 64  # in half bounds, which are 8
    if (state["persons"] >= 10).all():
        assert figures(fitted)["sum of squared distances"] == pytest.approx(distance, rel=1e-8)


@pytest.mark.process  # joblib counts the processor's cores by one
@pytest.mark.parametrize("scale", ["bounds", "deviation"])
def test_named_centres_end_where_those_of_scikit_learn_do(scale: str) -> None:
    from sklearn.cluster import KMeans

    columns, rows = mixed()
    columns, inputs = columns[:3], matrix(rows)[:, :3]
    own = task("k-means", columns, None, ("age", "debt", "owner"), clusters="3", scale=scale,
               centres="25 8 0; 60, 5, 1; 80 1.5 1", rounds=100)  # fmt: skip
    state, fitted, _ = run(own, divided(examples(own, rows), 4))
    shift, unit = np.array([58.5, 5, 0.5]), np.array([40.5, 5, 0.5])
    if scale == "deviation":
        shift, unit = inputs.mean(0), inputs.std(0)
    start = (np.array([[25, 8, 0], [60, 5, 1], [80, 1.5, 1]]) - shift) / unit
    fit = KMeans(3, init=start, n_init=1, tol=0, max_iter=300, algorithm="lloyd").fit((inputs - shift) / unit)
    assert state.ended == "complete"
    assert in_units(own, state) == pytest.approx(fit.cluster_centers_ * unit + shift, abs=1e-8)
    centres = np.array(list(listing(fitted, "centres").values()), float)
    assert centres[:, 0].tolist() == np.bincount(fit.labels_).tolist()
    assert centres[:, 2:] == pytest.approx(fit.cluster_centers_ * unit + shift, abs=1e-8)
    assert figures(fitted)["sum of squared distances"] == pytest.approx(fit.inertia_, rel=1e-8)


def test_of_equal_distances_the_first_centre_has_the_row_and_an_empty_centre_stays() -> None:
    rows = {"x": np.array([0, 0, 5, 10, 10])}
    own = task("k-means", [number("x", 0, 10)], None, ("x",), clusters="3", centres="0;10;10", min_cohort="2")
    state, fitted, _ = run(own, [examples(own, rows)])
    assert state["counts"].tolist() == [3, 2, 0]
    assert in_units(own, state).ravel() == pytest.approx([5 / 3, 10, 10])
    assert list(listing(fitted, "centres")) == ["centre 1", "centre 2"]
    assert "left out: 1 centre of fewer than 2 persons" in fitted.notes


def test_a_centre_of_few_persons_is_not_shown_however_many_rows_they_have() -> None:
    rows = {"x": np.array([0] * 12 + [10] * 30)}
    own = task("k-means", [number("x", 0, 10)], None, ("x",), clusters="2", centres="0;10", min_cohort="4")
    whole = examples(own, rows)
    person = np.r_[np.arange(12), 12 + np.arange(30) // 10]  # three persons have all rows at 10
    _, fitted, _ = run(own, [Examples(person, whole.cells)])
    assert listing(fitted, "centres") == {"centre 1": (12, 12, 0)}
    assert figures(fitted) == {"rows": 12, "rows left out": 0}
    assert fitted.notes == ("left out: 1 centre of fewer than 4 persons",)
    _, hidden, _ = run(task("k-means", [number("x", 0, 10)], None, ("x",), clusters="1"), [part(whole, np.arange(9))])
    assert not hidden.listings


def test_starting_points_are_public_spread_and_the_same_everywhere() -> None:
    points = spread(MAX_CLUSTERS, 64)
    assert points.shape == (MAX_CLUSTERS, 64)
    assert ((points >= 0) & (points < 1)).all()
    for column in points.T:  # of a sequence of low discrepancy every half has about half of the points
        assert 30 <= (column < 0.5).sum() <= 70
    assert (spread(3, 64) == points[:3]).all()
    assert points[:2, 0].tolist() == [np.sqrt(2) - 1, 2 * np.sqrt(2) - 2]


def test_a_row_is_rounded_to_the_grid_and_not_cut_off() -> None:
    own = task("k-means", [number("x", 0, 7)], None, ("x",), clusters="1")
    row = examples(own, {"x": np.array([5])})  # 3 / 7 of half the bounds
    state = FAMILIES["k-means"].update(own, State(), summed(own, State(), [row]))
    sums = summed(numbered(own, 1), state, [row])
    bits = int(state.one("bits"))
    assert sums["total"].tolist() == [round(3 * 2**bits / 7)]
    assert (3 * 2**bits / 7) % 1 > 0.5


def test_a_run_of_few_rounds_says_that_centres_still_move() -> None:
    columns, rows = mixed()
    own = task("k-means", columns, None, ("age", "debt"), clusters="3", rounds=3)
    state, fitted, _ = run(own, [examples(own, rows)])
    assert state.ended is None
    assert "not at its end" in fitted.notes[-1]


# Both


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("scale", [0, 1])
def test_every_split_of_the_rows_gives_the_same_sums_to_the_last_bit(family: str, scale: int) -> None:
    columns, rows = mixed()
    how = {"pca": ("none", "deviation"), "k-means": ("bounds", "deviation")}[family][scale]
    own = task(family, columns, None, ("age", "debt", "owner", "kind"), scale=how)
    whole = examples(own, rows)
    order = np.random.default_rng(7).permutation(whole.rows)
    splits = [[whole], divided(whole, 3), divided(part(whole, order), 5), [part(whole, order)]]
    splits[1].append(part(whole, np.zeros(0, np.int64)))  # a silo without rows
    state = FAMILIES[family].init(own)
    for count in range(4):
        round_ = numbered(own, count)
        found = [{name: block.tolist() for name, block in summed(round_, state, silos).items()} for silos in splits]
        assert found[1:] == found[:1] * 3
        state = FAMILIES[family].update(round_, state, summed(round_, state, splits[0]))
        if state.ended is not None:
            break


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("count", [0, 1])
def test_too_few_rows_show_nothing(family: str, count: int) -> None:
    columns, rows = mixed()
    own = task(family, columns, None, ("age", "debt", "kind"))
    _, fitted, _ = run(own, [part(examples(own, rows), np.arange(count))])
    assert not fitted.listings
    assert fitted.notes


@pytest.mark.parametrize("family", KINDS)
def test_no_row_adds_more_to_a_first_round_than_its_shape_says(family: str) -> None:
    columns = [number("x", -(2**31), 2**31), truth("t"), text("kind", "a", "b", "?")]
    own = task(family, columns, None, ("x", "t", "kind"))
    for place in (0, 1):
        ends = {column.name: np.array([(column.low, column.high)[place]]) for column in columns if not column.domain}
        one = examples(own, {**ends, "kind": np.array(["a", "b"])[place : place + 1]})
        for block in FAMILIES[family].statistics(own, State(), one):
            assert np.abs(block).max() <= MOST_PER_ROW


@pytest.mark.parametrize("family", KINDS)
def test_rows_far_from_those_of_the_first_round_are_outside_and_make_the_grid_coarser_or_end_the_run(
    family: str,
) -> None:
    """Rows that consent brings into a run may be any number of deviations away."""
    columns = [number("x", 0, 2**30)]
    near = {"x": np.arange(40)}
    own = task(family, columns, None, ("x",), scale="deviation")
    state = FAMILIES[family].init(own)
    state = FAMILIES[family].update(own, state, summed(own, state, [examples(own, near)]))
    far, round_ = examples(own, {"x": np.full(40, 2**30)}), numbered(own, 1)
    bits = [state.one("bits")]
    for _ in range(4):
        sums = summed(round_, state, [far])
        if sums["outside"][0]:
            assert not any(block.any() for name, block in sums.items() if name in ("products", "total"))
        state = FAMILIES[family].update(round_, state, sums)
        bits.append(state.one("bits"))
        if state.ended:
            break
    assert bits[1] < bits[0]
    assert state.ended == "diverged"
    assert not FAMILIES[family].finish(round_, state).listings


@pytest.mark.parametrize(
    ("family", "label", "features", "more", "says"),
    [
        ("pca", "owner", ("age",), {}, "pca has no label"),
        ("pca", None, (), {}, "needs 1 or more features"),
        ("pca", None, ("age",), {"components": "0"}, "a whole number from 1"),
        ("pca", None, ("age",), {"scale": "yes"}, "none, deviation"),
        ("k-means", None, ("age",), {"clusters": "1.5"}, "a whole number from 1 to 100"),
        ("k-means", None, ("age",), {"clusters": "101"}, "a whole number from 1 to 100"),
        ("k-means", None, ("age",), {"min_cohort": "1"}, "a whole number from 2"),
        ("k-means", None, ("age",), {"clusters": "2", "centres": "20"}, "expected 2 of 1 numbers each"),
        ("k-means", None, ("age",), {"clusters": "2", "centres": "20;100"}, "100 is outside its column's bounds"),
        ("k-means", None, ("age",), {"clusters": "2", "centres": "20;nan"}, "outside its column's bounds"),
        ("k-means", None, ("age",), {"clusters": "2", "centres": "20;young"}, "expected numbers such as"),
    ],
)
def test_what_a_family_does_not_take_is_named(
    family: str, label: str | None, features: tuple[str, ...], more: dict[str, Any], says: str
) -> None:
    columns, _ = mixed()
    with pytest.raises(ValueError, match=says):
        task(family, columns, label, features, **more)
