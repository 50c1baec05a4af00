"""Networks as they leave: the form scores as the family does, in every format, and torch loads the safetensors file."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file

from policies.errors import ModelError
from policies.models.exporting import exported
from policies.models.forms import scores_of
from policies.models.layers import layers_of
from policies.models.network import Network
from policies.models.onnx_form import to_onnx
from policies.models.record import RunRecord
from policies.models.scores import RowCells
from policies.networks import initial
from policies.networks.graph import Graph, Weight
from policies.networks.packed import packed
from policies.requests.exact import ExactStep, Setting
from policies.requests.families import Task
from policies.requests.networks import graph_of
from policies.requests.tables import Table, TableColumn
from policies.requests.training import START
from silo_node.errors import SiloError
from silo_node.training.family import Examples, State
from silo_node.training.networks.form import network_form, with_packed
from silo_node.training.networks.interpreter import computed
from silo_node.training.registry import FAMILIES
from silo_node.training.run import RunState
from tests.harness import families
from tests.harness.families import number, text, truth

pytestmark = pytest.mark.torch
COLUMNS = (
    text("kind", "a", "b", "c", "?"),
    number("debt", 0, 1000, "0.01"),
    number("age", 18, 99),
    truth("owner"),
    number("paid", -4000, 9000, "0.1"),
    truth("ok"),
    text("grade", "no", "later", "yes", "?"),
)
FEATURES = ("kind", "debt", "age", "owner")
COUNT = 300


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trained(label: str, **options: Any) -> tuple[Task, State, Examples]:
    """Return a perceptron with some weights, and rows of which some lack cells where they may."""
    task = families.task("mlp", COLUMNS, label, FEATURES, None, 30, hidden="8,5", **options)
    weights = 2.5 * initial.initial(b"another run 1234", graph_of(task).weights)
    numbers = np.random.default_rng(3)
    rows = {
        "kind": numbers.choice(["a", "b", "c"], COUNT), "debt": numbers.integers(0, 1001, COUNT),
        "age": numbers.integers(18, 100, COUNT), "owner": numbers.random(COUNT) < 0.4,
        "paid": numbers.integers(-4000, 9001, COUNT), "ok": numbers.random(COUNT) < 0.5,
        "grade": numbers.choice(["no", "later", "yes"], COUNT),
    }  # fmt: skip
    gaps = {"debt": np.arange(COUNT) % 7 == 0, "owner": np.arange(COUNT) % 11 == 0}
    examples = families.examples(task, rows, gaps if options.get("missing") == "indicator" else {})
    return task, State().with_(weights=weights), examples


@pytest.mark.parametrize("missing", ["drop", "indicator"])
@pytest.mark.parametrize("label", ["ok", "grade", "paid"])
def test_the_form_of_a_network_scores_as_its_family_in_numpy_and_onnx(label: str, missing: str) -> None:
    task, state, examples = trained(label, missing=missing)
    model, judged = network_form(task, state), FAMILIES["mlp"].judged
    assert judged is not None
    expected = judged.scores(task, state, examples)
    found = scores_of(model, RowCells(examples.cells, examples.missing))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-11 * max(1.0, np.abs(expected).max())
    assert np.ptp(found[..., -1] if found.ndim > 1 else found) > 0.01, "rows differ"
    again = Network.decode(model.encode())
    assert np.array_equal(scores_of(again, RowCells(examples.cells, examples.missing)), found)

    def by_family(rows: RowCells) -> Any:
        return judged.scores(task, state, Examples(np.arange(rows.rows), dict(rows.cells), dict(rows.missing)))

    assert len(to_onnx(model, by_family)) > 1000  # it was compared with the scores, or nothing would be returned
    natural = json.loads(exported(model, "json"))
    assert (natural["schema"], natural["model"], natural["link"]) == ("consilo-network/1", "mlp", model.link)


def test_an_onnx_file_that_would_score_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    task, state, _ = trained("ok")
    model = network_form(task, state)
    with pytest.raises(ModelError, match=r"scores .* away from the model, at most 1e-05"):
        to_onnx(model, lambda rows: scores_of(model, rows) + 1e-4)


class Module(torch.nn.Module):
    """The same layers under the names that a graph has."""

    def __init__(self, names: list[str], shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        for name in names:
            at: torch.nn.Module = self
            *path, last = name.split(".")
            for part in path:
                if not hasattr(at, part):
                    setattr(at, part, torch.nn.Module())
                at = getattr(at, part)
            setattr(at, last, torch.nn.Parameter(torch.zeros(shapes[name])))


def test_a_torch_module_loads_the_weights_by_the_names_of_the_graph(tmp_path: Any) -> None:
    task, state, _ = trained("grade")
    model, file = network_form(task, state), tmp_path / "model.safetensors"
    file.write_bytes(exported(model, "safetensors", {"run": "ab12", "purpose": "lending"}))
    shapes = {one.name: one.shape for one in model.graph.weights}
    module = Module(list(shapes), shapes)
    module.load_state_dict(load_file(file))
    for name, own in module.state_dict().items():
        assert np.array_equal(own.numpy(), model.tensors()[name])
    with safe_open(file, "numpy") as opened:
        said = opened.metadata()
    assert (said["run"], said["purpose"], said["label"]) == ("ab12", "lending", "grade")
    assert Graph.decode(said["graph"].encode()) == model.graph
    assert [one["name"] for one in json.loads(said["columns"])] == list(FEATURES)
    given = {"x": torch.zeros(1, model.graph.inputs[0].shape[0])}
    assert computed(model.graph, module.state_dict(), given).shape == (1, 3)


def apart(**changes: Any) -> Network:
    """Return a network of which each column is an input of its own: a picture, three words and a text."""
    columns = (
        TableColumn(name="picture", type="array", of="decimal", shape=(2, 4), low=0, high=40, step="0.25"),
        TableColumn(name="words", type="array", of="int", shape=(3,), low=0, high=11, step="1"),
        text("kind", "a", "b", "c", "?"),
    )
    graph = {
        "inputs": [{"name": "p", "shape": [2, 4]}, {"name": "w", "shape": [3], "below": 12},
                   {"name": "k", "shape": [], "below": 4}],
        "weights": [{"name": name, "shape": shape, "initial": "uniform", "bound": "0.5"} for name, shape in (
            ("words.weight", [12, 4]), ("kind.weight", [4, 8]), ("out.weight", [3, 28]))],
        "calls": [
            {"call": "embedding", "name": "e", "of": "w", "weight": "words.weight", "padding": None},
            {"call": "embedding", "name": "f", "of": "k", "weight": "kind.weight", "padding": None},
            {"call": "flatten", "name": "g", "of": "e"}, {"call": "flatten", "name": "h", "of": "p"},
            {"call": "cat", "name": "c", "of": "g", "others": ["h", "f"], "axis": 0},
            {"call": "linear", "name": "y", "of": "c", "weight": "out.weight", "bias": None},
        ],
        "output": "y",
    }  # fmt: skip
    made = Graph.model_validate_json(json.dumps(graph))
    weights = initial.initial(b"another run 1234", made.weights).astype("<f4").tobytes()
    fields = {"model": "network", "label": "grade", "classes": ("no", "later", "yes"), "columns": columns,
              "link": "softmax", "graph": made, "weights": weights}  # fmt: skip
    return Network.model_validate(fields | changes)


def test_a_network_with_arrays_and_texts_as_inputs_of_their_own_goes_to_onnx() -> None:
    model = apart()
    assert not model.is_dense
    assert len(to_onnx(model)) > 1000
    numbers = np.random.default_rng(2)
    rows = RowCells(
        {"kind": numbers.integers(0, 4, 5)}, {},
        {"picture": numbers.integers(0, 41, (5, 2, 4)).astype(np.uint8),
         "words": numbers.integers(0, 12, (5, 3)).astype(np.uint8)},
    )  # fmt: skip
    found = scores_of(model, rows)
    weights = {name: torch.from_numpy(one.astype(np.float64)) for name, one in model.tensors().items()}
    given = {
        "p": torch.from_numpy(rows.arrays["picture"] / 20 - 1.0), "k": torch.from_numpy(rows.cells["kind"]),
        "w": torch.from_numpy(rows.arrays["words"].astype(np.int64)),
    }  # fmt: skip
    assert np.allclose(found, computed(model.graph, weights, given).softmax(1).numpy(), atol=1e-7)
    assert len({tuple(row) for row in np.round(found, 6).tolist()}) == 5


def test_a_form_that_does_not_fit_its_graph_is_none() -> None:
    with pytest.raises(ValidationError, match="bytes of weights"):
        apart(weights=bytes(8))
    with pytest.raises(ValidationError, match="the graph gives 3 numbers, expected 2"):
        apart(classes=("no", "yes"))
    with pytest.raises(ValidationError, match="3 inputs, for 1 columns"):
        apart(columns=apart().columns[:1])


def test_a_network_without_a_model_has_no_form() -> None:
    task, _, _ = trained("ok")
    with pytest.raises(SiloError, match="ended without a model"):
        network_form(task, replace(State(), ended="too-few-rows"))


ARRAYS = (
    TableColumn(name="picture", type="array", of="decimal", shape=(8, 8), low=0, high=64, step="0.25"),
    TableColumn(name="words", type="array", of="int", shape=(5,), low=0, high=19, step="1"),
    text("user", "u1", "u2", "u3", "?"),
    text("item", "i1", "i2", "?"),
    *COLUMNS,
)
SHIPPED: dict[str, tuple[str | None, tuple[str, ...], dict[str, str]]] = {
    "cnn": ("grade", ("picture",), {}),
    "recommender": ("ok", ("user", "item"), {}),
    "language-model": ("grade", ("words",), {}),
    "autoencoder": (None, ("debt", "age", "owner", "kind"), {}),
    "mlp": ("paid", ("picture", "kind"), {"hidden": "6"}),
}


@pytest.mark.parametrize("family", sorted(SHIPPED))
def test_every_shipped_network_scores_as_its_family_in_numpy_and_onnx(family: str) -> None:
    label, features, options = SHIPPED[family]
    task = families.task(family, ARRAYS, label, features, None, 30, **options)
    numbers, known = np.random.default_rng(3), {one.name: one for one in ARRAYS}
    arrays, cells = {}, {}
    for name in features:
        column = known[name]
        if column.type == "array":
            arrays[name] = numbers.integers(0, column.range_steps + 1, (40, *column.shape)).astype(np.uint8)
        elif column.domain:
            cells[name] = numbers.integers(0, len(column.domain), 40)
        else:
            width = 1 if column.type == "bool" else column.range_steps
            cells[name] = 2 * numbers.integers(0, width + 1, 40) - width
    examples = Examples(np.arange(40), cells, arrays=arrays)
    weights = 2.0 * initial.initial(b"another run 1234", graph_of(task).weights)
    state = State().with_(weights=weights, losses=np.array([0.5, 0.25]))
    model, judged = network_form(task, state), FAMILIES[family].judged
    assert judged is not None
    expected = judged.scores(task, state, examples)
    found = scores_of(model, RowCells(examples.cells, {}, examples.arrays))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-6 * max(1.0, np.abs(expected).max())
    assert np.ptp(found[..., -1] if found.ndim > 1 else found) > 1e-4, "rows differ"
    assert len(to_onnx(model)) > 1000
    assert (model.link == "reconstruction") is (family == "autoencoder")


def test_a_packed_network_leaves_with_its_file_and_says_so_without() -> None:
    graph = graph_of(families.task("mlp", COLUMNS, "ok", FEATURES, None, 30, hidden="8,5"))
    fixed = Weight(name="shift", shape=(1,), initial="constant", bound=None)
    calls = json.loads(graph.encode())["calls"]
    calls.append({"call": "add", "name": "moved", "of": graph.output, "other": None, "weight": "shift"})
    weights = [*json.loads(graph.encode())["weights"], json.loads(fixed.encode())]
    fields = json.loads(graph.encode()) | {
        "calls": calls,
        "weights": weights,
        "output": "moved",
        "packed": "A" * 43 + "=",
    }
    whole = Graph.model_validate_json(json.dumps(fields))
    network = packed(whole, {one.name: np.full(one.shape, 0.5, np.float32) for one in whole.weights})
    step = ExactStep(
        run=bytes(16), step=0, steps=4, after=START, release="exact", label="ok", features=FEATURES, family="network",
        options=(Setting(name="count", value=str(whole.count - 1)), Setting(name="graph", value=network.name)),
    )  # fmt: skip
    table = Table(name="rows", max_rows=1, max_silos=1, columns=COLUMNS)
    record = RunRecord(plan=step, table=table, spells=())
    kept = RunState(
        run=bytes(16), job=bytes(32), analyst="ana", purpose="lending", table="rows", release="exact", steps=4, done=1,
        position=bytes([1] * 32), learned_at=1, terms=(), numbers=(), record=record,
    )  # fmt: skip
    found = with_packed(kept, {network.name: network}.get)
    assert found.record is not None
    assert isinstance(found.record.plan, ExactStep)
    task = found.record.plan.task(table)
    learned = np.linspace(-1, 1, whole.count - 1)
    model = network_form(task, State().with_(weights=learned))
    assert float(model.tensors()["shift"][0]) == 0.5, "a constant is the packed one"
    assert len(to_onnx(model)) > 1000
    with pytest.raises(SiloError, match="is not here"):
        network_form(step.task(table), State().with_(weights=learned))
    assert layers_of(record, None)[-1] == f"the packed network {network.name} is not here"
    assert any("linear, 6 to 8 numbers" in line for line in layers_of(record, model))
