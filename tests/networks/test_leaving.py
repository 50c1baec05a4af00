"""Every listed call by numpy and by ONNX against the interpreter: what a network computes wherever it goes."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from policies.models.onnx_graph import Graph as Made
from policies.models.onnx_network import add_network
from policies.networks.by_numpy import computed as by_numpy
from policies.networks.graph import Graph
from silo_node.training.networks.interpreter import computed
from tests.networks.samples import samples

pytestmark = pytest.mark.torch
ROWS = 5
SAMPLES = samples()


def drawn(graph: Graph, numbers: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    weights = {one.name: numbers.normal(size=one.shape).astype(np.float32) for one in graph.weights}
    inputs = {
        one.name: numbers.normal(size=(ROWS, *one.shape)).astype(np.float32)
        if one.below is None
        else numbers.integers(-2, one.below + 3, (ROWS, *one.shape))
        for one in graph.inputs
    }
    return weights, inputs


def by_onnx(graph: Graph, weights: Any, inputs: Any) -> Any:
    made, kinds = Made(onnx), onnx.TensorProto
    last = add_network(made, graph, weights, {one.name: one.name for one in graph.inputs})
    made.score("Identity", last)
    given = [
        onnx.helper.make_tensor_value_info(
            one.name, kinds.FLOAT if one.below is None else kinds.INT64, ["rows", *one.shape]
        )
        for one in graph.inputs
    ]
    out = onnx.helper.make_tensor_value_info("/score", kinds.FLOAT, ["rows", *graph.result.shape])
    model = onnx.helper.make_model(
        onnx.helper.make_graph(made.nodes, "one", given, [out], made.constants),
        opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10,
    )  # fmt: skip
    onnx.checker.check_model(model, full_check=True)
    ran: Any = ReferenceEvaluator(model).run(None, inputs)
    return ran[0]


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_call_is_the_same_by_the_interpreter_by_numpy_and_by_onnx(name: str) -> None:
    torch.set_num_threads(1)
    graph = SAMPLES[name]
    weights, inputs = drawn(graph, np.random.default_rng(7))
    own = {key: torch.from_numpy(one).double() for key, one in weights.items()}
    given = {key: torch.from_numpy(one) for key, one in inputs.items()}
    given = {key: one if one.dtype == torch.int64 else one.double() for key, one in given.items()}
    expected = computed(graph, own, given).numpy()
    found = by_numpy(graph, weights, inputs)
    assert found.shape == expected.shape == (ROWS, *graph.result.shape)
    assert np.allclose(found, expected, rtol=1e-11, atol=1e-11)
    shown = by_onnx(graph, weights, inputs)
    assert shown.shape == expected.shape
    assert np.allclose(shown, expected, rtol=1e-5, atol=1e-5)


def test_no_rows_have_no_results() -> None:
    for graph in SAMPLES.values():
        weights, inputs = drawn(graph, np.random.default_rng(7))
        found = by_numpy(graph, weights, {name: one[:0] for name, one in inputs.items()})
        assert found.shape == (0, *graph.result.shape)
