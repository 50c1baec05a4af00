"""Networks as families, by their own functions: what each learns, and where a silo's part of a round stops."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from policies.networks.packed import packed
from policies.requests.families import SHAPES, Task, check_task
from policies.requests.networks import UPDATE_BITS, graph_of, rate_of
from policies.requests.tables import Table, TableColumn
from silo_node.training.family import Examples, State
from silo_node.training.networks.family import NETWORK
from tests.harness import families

pytestmark = pytest.mark.torch

DIGITS = tuple(str(digit) for digit in range(10))
PIXELS = TableColumn(name="pixels", type="array", of="int", shape=(8, 8), low=0, high=16, step="1")
DIGIT = families.text("digit", *DIGITS, "?")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def of_arrays(task: Task, rows: Mapping[str, Any], arrays: Mapping[str, Any]) -> Examples:
    """Return rows of which some columns are arrays."""
    columns = tuple(one for one in task.table.columns if one.type != "array")
    table = Table(name="rows", max_rows=1, max_silos=1, columns=columns)
    found = families.examples(replace(task, table=table), rows)
    return replace(found, arrays=dict(arrays))


def some(of: Examples, places: Any) -> Examples:
    found = families.part(of, places)
    return replace(found, arrays={name: one[places] for name, one in of.arrays.items()})


def digits(task: Task) -> tuple[list[Examples], Examples]:
    """Return the images of scikit-learn at five silos, and those that are left for the test."""
    found = load_digits()
    of = of_arrays(task, {"digit": [DIGITS[one] for one in found.target]}, {"pixels": found.images.astype(np.uint8)})
    order = np.random.default_rng(0).permutation(of.rows)
    return [some(of, own) for own in np.array_split(order[360:], 5)], some(of, order[:360])


def right(task: Task, state: State, rows: Examples) -> float:
    assert NETWORK.judged is not None
    scores = NETWORK.judged.scores(task, state, rows)
    assert scores.shape == (rows.rows, len(task.classes))
    return float((scores.argmax(1) == NETWORK.judged.outcomes(task, rows)).mean())


def test_a_convolutional_network_reads_digits() -> None:
    task = families.task(
        "cnn", (PIXELS, DIGIT), "digit", ("pixels",), rounds=16, epochs="2", rate="0.1", schedule="cosine"
    )
    silos, test = digits(task)
    state, fitted, rounds = families.run(task, silos)
    assert (state.ended, rounds) == (None, 16)
    assert right(task, state, test) > 0.96
    assert [one.name for one in fitted.figures][:3] == ["rows", "rows left out", "weights"]
    assert len(fitted.listings[0].lines) == 15
    pooled = families.run(task, [joined(silos)])[0]
    assert abs(right(task, pooled, test) - right(task, state, test)) < 0.02


def joined(silos: list[Examples]) -> Examples:
    cells = {name: np.concatenate([one.cells[name] for one in silos]) for name in silos[0].cells}
    arrays = {name: np.concatenate([one.arrays[name] for one in silos]) for name in silos[0].arrays}
    return Examples(np.arange(sum(one.rows for one in silos)), cells, arrays=arrays)


def test_a_language_model_learns_which_word_follows() -> None:
    words = ("a", "b", "c", "d", "?")
    last = TableColumn(name="last", type="array", of="int", shape=(3,), low=0, high=3, step="1")
    task = families.task(
        "language-model",
        (last, families.text("next", *words)),
        "next",
        ("last",),
        rounds=15,
        size="16",
        embedding="8",
        rate="0.3",
        momentum="0.9",
        epochs="5",
    )
    numbers = np.random.default_rng(1)
    seen = numbers.integers(0, 4, (600, 3))
    follows = [words[(row[-1] + row[0]) % 4] for row in seen]  # needs the first word too
    of = of_arrays(task, {"next": follows}, {"last": seen.astype(np.uint8)})
    silos = [some(of, own) for own in np.array_split(np.arange(500), 3)]
    state, _, _ = families.run(task, silos)
    assert right(task, state, some(of, np.arange(500, 600))) > 0.9


def test_a_recommender_learns_products_of_hidden_traits() -> None:
    groups, items = [(*(f"{kind}{place}" for place in range(12)), "?") for kind in "gi"]
    task = families.task(
        "recommender",
        (
            families.text("group", *groups),
            families.text("item", *items),
            families.number("age", 0, 9),
            families.truth("likes"),
        ),
        "likes",
        ("group", "item", "age"),
        rounds=25,
        rate="0.5",
        embedding="4",
        batch="16",
    )
    numbers = np.random.default_rng(2)
    traits = numbers.normal(size=(12, 2)), numbers.normal(size=(12, 2))
    who, what = numbers.integers(0, 12, 1500), numbers.integers(0, 12, 1500)
    likes = (traits[0][who] * traits[1][what]).sum(1) > 0
    of = families.examples(
        task,
        {
            "group": np.array(groups)[who],
            "item": np.array(items)[what],
            "age": numbers.integers(0, 10, 1500),
            "likes": likes,
        },
    )
    silos = [families.part(of, own) for own in np.array_split(np.arange(1200), 3)]
    state, _, _ = families.run(task, silos)
    test = families.part(of, np.arange(1200, 1500))
    assert NETWORK.judged is not None
    scores = NETWORK.judged.scores(task, state, test)
    assert ((scores > 0.5) == likes[1200:]).mean() > 0.85


def test_an_autoencoder_tells_rows_that_are_unlike_the_others_with_a_label_and_without() -> None:
    columns = [families.number(f"x{place}", -100, 100) for place in range(6)]
    names = tuple(one.name for one in columns)
    numbers = np.random.default_rng(3)
    hidden = numbers.normal(size=(600, 2))
    usual = hidden @ numbers.normal(size=(2, 6)) * 20
    odd = numbers.normal(size=(60, 6)) * 60
    rows = np.clip(np.rint(np.concatenate([usual, odd])), -100, 100).astype(int)
    is_odd = np.arange(660) >= 600
    task = families.task(
        "autoencoder", (*columns, families.truth("odd")), "odd", names, rounds=20, hidden="16", latent="2", rate="0.5"
    )
    of = families.examples(task, {name: rows[:, place] for place, name in enumerate(names)} | {"odd": is_odd})
    state, _, _ = families.run(task, families.divided(of, 3))
    assert NETWORK.judged is not None
    scores = NETWORK.judged.scores(task, state, of)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert np.median(scores[is_odd]) > np.quantile(scores[~is_odd], 0.9)
    assert (NETWORK.judged.outcomes(task, of) == is_odd).all()
    alone = families.task("autoencoder", columns, None, names, rounds=20, hidden="16", latent="2", rate="0.5")
    without, _, _ = families.run(alone, families.divided(of, 3))
    assert without["weights"].tobytes() == state["weights"].tobytes()  # a label trains nothing


def plain(**options: str) -> tuple[Task, Examples]:
    columns, settings = (families.number("x", -50, 50), families.truth("y")), {"hidden": "4", **options}
    task = families.task("mlp", columns, "y", ("x",), None, 30, **settings)
    numbers = np.random.default_rng(4)
    x = numbers.integers(-50, 51, 200)
    return task, families.examples(task, {"x": x, "y": x > 3})


def started(task: Task, silos: list[Examples]) -> State:
    return NETWORK.update(task, State(), families.summed(task, State(), silos))


@pytest.mark.parametrize(
    "options",
    [
        {"rate": "1000", "momentum": "0.9", "epochs": "20", "hidden": "64,64", "loss": "auto"},
        {"most_change": "0.000001"},
    ],
)
def test_a_training_that_leaves_its_bounds_stays_at_its_silo_and_ends_the_run(options: dict[str, str]) -> None:
    task, rows = plain(**options)
    silos = families.divided(rows, 3)
    state = started(task, silos)
    later = families.numbered(task, 1)
    parts = [NETWORK.statistics(later, state, own) for own in silos]
    names = list(SHAPES["mlp"].blocks(later))
    outside = names.index("outside")
    refused = [own for own in parts if own[outside][0]]
    assert refused
    for own in refused:
        assert all(not block.any() for place, block in enumerate(own) if place != outside)
    sums = {name: sum(own[place] for own in parts) for place, name in enumerate(names)}
    after = NETWORK.update(later, state, sums)  # type: ignore[arg-type]
    assert after.ended == "diverged"
    assert after["weights"].tobytes() == state["weights"].tobytes()
    assert "most_change" in NETWORK.finish(later, after).notes[0]
    assert NETWORK.update(later, after, sums) is after  # type: ignore[arg-type]


def test_a_loss_that_no_sum_holds_stays_at_its_silo() -> None:
    task, rows = plain()
    state, later = started(task, [rows]), families.numbered(task, 1)
    for scale in (1e12, 1e30, 1e38):
        found = families.summed(later, state.with_(weights=state["weights"] * scale), [rows])
        assert [name for name, block in found.items() if block.any()] == ["outside"], scale


def test_an_opened_loss_that_explodes_ends_the_run_at_the_last_good_weights() -> None:
    task, rows = plain()
    state = started(task, [rows])
    first, second = families.numbered(task, 1), families.numbered(task, 2)
    sums = families.summed(first, state, [rows])
    after = NETWORK.update(first, state, sums)
    bad = NETWORK.update(second, after, families.summed(second, after, [rows]) | {"loss": sums["loss"] * 1000})
    assert bad.ended == "diverged"
    assert bad["weights"].tobytes() == state["weights"].tobytes()


def test_a_change_is_the_mean_over_the_rows_that_took_part() -> None:
    """Silos of different sizes weigh by their rows; who is absent, or has no rows, moves nothing."""
    task, rows = plain(rate="0.2")
    silos = families.divided(rows, 3)
    none = families.part(rows, np.arange(0))
    state, later = started(task, silos), families.numbered(task, 1)
    changes = []
    for own in silos:
        one = families.summed(later, state, [own])
        changes.append(np.ldexp(one["update"].astype(float), -UPDATE_BITS) * state.one("rows") / own.rows)
    for taking in (silos, silos[:2], [*silos, none]):
        after = NETWORK.update(later, state, families.summed(later, state, taking))
        counts = [own.rows for own in taking if own.rows]
        expected = sum(count * change for count, change in zip(counts, changes, strict=False)) / sum(counts)
        assert np.abs(after["weights"] - state["weights"] - expected).max() < 1e-8
    nobody = NETWORK.update(later, state, families.summed(later, state, [none]))
    assert nobody["weights"].tobytes() == state["weights"].tobytes()
    assert started(task, [none]).ended == "too-few-rows"


def test_a_round_is_the_same_each_time_and_another_in_another_run() -> None:
    task, rows = plain(dropout="0.25")
    state, later = started(task, [rows]), families.numbered(task, 1)
    once, again = (NETWORK.statistics(later, state, rows) for _ in range(2))
    assert [one.tobytes() for one in once] == [one.tobytes() for one in again]
    other = replace(later, run=bytes([1] * 16))
    assert NETWORK.statistics(other, state, rows)[-1].tobytes() != once[-1].tobytes()
    assert started(replace(task, run=bytes([1] * 16)), [rows])["weights"].tobytes() != state["weights"].tobytes()


def test_the_rate_follows_its_schedule() -> None:
    rounds = {}
    for schedule in ("constant", "cosine", "step"):
        task, _ = plain(schedule=schedule, rate="0.5")
        task = replace(task, rounds=9)
        rounds[schedule] = [rate_of(families.numbered(task, number)) for number in range(1, 9)]
    assert rounds["constant"] == [0.5] * 8
    assert rounds["cosine"][0] == 0.5
    assert rounds["cosine"] == sorted(rounds["cosine"], reverse=True)
    assert rounds["cosine"][-1] > 0
    assert rounds["step"] == pytest.approx([0.5] * 4 + [0.05] * 2 + [0.005] * 2)


def test_a_packed_graph_is_trained_from_its_weights_by_its_hash() -> None:
    small, rows = plain(hidden="3", rate="0.3")
    graph = graph_of(small)
    weights = {one.name: np.full(one.shape, 0.25, np.float32) for one in graph.weights}
    network = packed(graph, weights)
    options = {"graph": network.name, "count": str(graph.count), "weights": "packed", "rate": "0.3"}
    columns = tuple(small.table.columns)
    task = replace(families.task("network", columns, "y", ("x",), None, 30, **options), graph=network)
    check_task(task)
    state = started(task, [rows])
    assert (state["weights"] == 0.25).all()
    run, _, _ = families.run(task, families.divided(rows, 2))
    assert run["losses"][-1] < run["losses"][0]
    head = replace(task, options={**task.options, "shared": "layers.1", "count": "4"})
    check_task(head)
    moved, _, _ = families.run(head, families.divided(rows, 2))
    assert len(moved["weights"]) == 4
    assert moved["losses"][-1] < moved["losses"][0]
    assert NETWORK.judged is not None
    assert NETWORK.judged.scores(head, moved, rows).shape == (rows.rows,)
    for change, message in (
        ({"count": "5"}, "count is 5, and the weights that are summed have 10"),
        ({"graph": "sha256:" + "0" * 64}, "the packed file is sha256"),
        ({"graph": "net"}, "expected sha256: and 64"),
        ({"shared": "body"}, "no weight is named 'body'"),
    ):
        with pytest.raises(ValueError, match=message):
            check_task(replace(task, options={**task.options, **change}))
    text = families.text("z", "a", "b", "c", "?")
    other = families.task("network", (columns[0], text), "z", ("x",), None, 30, **options)
    with pytest.raises(ValueError, match=r"gives 1 numbers a row, label 'z' takes 3"):
        check_task(replace(other, graph=network))


def test_what_does_not_fit_a_network_is_refused_by_name() -> None:
    x, y, kind = families.number("x", 0, 9), families.truth("y"), families.text("kind", "a", "b", "?")
    reals = TableColumn(name="reals", type="array", of="decimal", shape=(4,), low=0, high=10, step="0.1")
    for family, columns, label, features, options, message in (
        ("cnn", (x, y), "y", ("x",), {}, "feature 'x' is number"),
        ("cnn", (reals, y), "y", ("reals",), {}, r"an array of \[height, width\]"),
        ("language-model", (reals, kind), "kind", ("reals",), {}, "reals is looked up in a table"),
        ("language-model", (PIXELS, kind), "kind", ("pixels",), {}, "of the last words"),
        ("recommender", (x, y), "y", ("x",), {}, "of which one is a text"),
        ("mlp", (x, y), "y", ("x",), {"loss": "absolute"}, "loss: y has cross-entropy"),
        ("mlp", (x, y), "y", ("x",), {"mu": "1"}, "mu: fedavg has no such option"),
        ("mlp", (x, y), "y", ("x",), {"hidden": "0"}, "a size is from 1"),
        ("mlp", (x, y), "y", ("x",), {"hidden": "60000,60000"}, "at most 16,777,216 are trained"),
        ("mlp", (x, y), "y", ("x",), {"shared": "head"}, "no weight is named 'head'"),
        ("mlp", (x, y), None, ("x",), {}, "mlp needs a label"),
        ("recommender", (kind, y), "y", ("kind",), {"missing": "indicator"}, "missing: recommender takes"),
        ("autoencoder", (x, kind), "kind", ("x",), {}, "takes bool"),
    ):
        with pytest.raises(ValueError, match=message):
            families.task(family, columns, label, features, None, 30, **options)
