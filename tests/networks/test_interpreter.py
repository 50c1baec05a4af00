"""Each listed call: its shape and its cost are those of torch, and of persons one by one as of all together."""

from math import prod

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.func import grad, vmap
from torch.utils.flop_counter import FlopCounterMode

from policies.networks.bounds import trained
from policies.networks.calls import LISTED, Recurrent
from policies.networks.graph import CALLS, Graph
from silo_node.training.networks.interpreter import Tensors, computed
from tests.cases import every
from tests.networks.samples import WHOLE, one, samples

pytestmark = pytest.mark.torch
ROWS = 6
ALIGNED = 16 << 10  # bytes that torch's LSTM lays out for each weight, however few the rows


def drawn(graph: Graph, rows: int = ROWS) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return weights and inputs of a graph; whole numbers lie beyond the table too."""
    torch.manual_seed(1)
    weights = {each.name: torch.rand(each.shape) - 0.5 for each in graph.weights}
    inputs = {
        each.name: torch.randint(-3, 20, (rows, *each.shape)) if each.name == WHOLE else torch.randn(rows, *each.shape)
        for each in graph.inputs
    }
    return weights, inputs


def test_every_listed_call_is_sampled() -> None:
    found = {(type(call), call.call) for graph in samples().values() for call in graph.calls}
    assert {kind for kind, _ in found} == set(LISTED)
    assert {name for _, name in found} == CALLS


@every("name", samples())
def test_shapes_are_what_is_said_of_them(name: str) -> None:
    graph = samples()[name]
    weights, inputs = drawn(graph)
    known = graph.known
    for call in graph.calls:
        part = graph.model_copy(update={"calls": graph.calls, "output": call.name})
        assert computed(part, weights, inputs).shape == (ROWS, *known[call.name].shape)
        assert call.in_words(known, known[call.name])
    assert Graph.decode(graph.encode()) == graph


@every("name", samples())
def test_costs_are_at_least_what_torch_takes(name: str) -> None:
    graph = samples()[name]
    weights, inputs = drawn(graph)
    for tensor in (*weights.values(), *(each for each in inputs.values() if each.is_floating_point())):
        tensor.requires_grad_()
    theirs = {each.data_ptr() for each in (*weights.values(), *inputs.values())}
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in theirs:
            held[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(pack, lambda tensor: tensor):
        computed(graph, weights, inputs, is_training=True)
    assert counter.get_total_flops() <= ROWS * graph.cost.flops
    anyway = sum(ALIGNED * max(1, len(call.weights)) if isinstance(call, Recurrent) else 64 for call in graph.calls)
    assert sum(held.values()) <= ROWS * graph.cost.held + anyway
    assert trained(graph, ROWS).memory >= sum(held.values()) + 4 * graph.count


@every("name", samples())
def test_persons_one_by_one_have_the_gradients_of_a_batch_of_their_own(name: str) -> None:
    graph = samples()[name]
    weights, inputs = drawn(graph)
    first = torch.randn(1, generator=torch.Generator().manual_seed(2))

    def loss(weights: Tensors, inputs: Tensors) -> torch.Tensor:
        out = computed(graph, weights, inputs, is_training=False)
        return (out * torch.linspace(0.5, 1.5, prod(out.shape[1:])).reshape(out.shape[1:])).square().sum() * first[0]

    each = {key: value.unsqueeze(1) for key, value in inputs.items()}
    found = vmap(grad(loss), in_dims=(None, 0))(weights, each)
    own = {key: value.clone().requires_grad_() for key, value in weights.items()}  # torch's own kernels compute these
    for row in range(ROWS if own else 0):
        person = {key: value[row] for key, value in each.items()}
        alone = torch.autograd.grad(loss(own, person), list(own.values()))
        for key, value in zip(own, alone, strict=True):
            torch.testing.assert_close(found[key][row], value, rtol=1e-4, atol=1e-5)


def test_no_row_sees_another() -> None:
    for name, graph in samples().items():
        weights, inputs = drawn(graph)
        before = computed(graph, weights, inputs)
        changed = {key: torch.cat([value[:1], value[1:].flip(0)]) for key, value in inputs.items()}
        torch.testing.assert_close(computed(graph, weights, changed)[0], before[0], msg=name)
        torch.testing.assert_close(computed(graph, weights, changed)[1:], before[1:].flip(0), msg=name)


def test_an_index_beyond_the_table_is_moved_into_it() -> None:
    graph = samples()["embedding"]
    weights, _ = drawn(graph)
    found = computed(graph, weights, {WHOLE: torch.tensor([[-(2**40), -1, 0, 6, 7, 2**40]])})
    assert torch.equal(found[0], weights["w"][torch.tensor([0, 0, 0, 6, 6, 6])])


def test_dropout_drops_in_training_alone_and_by_its_generator() -> None:
    graph, rows = one("dropout", [1000], share="0.25"), {"x": torch.ones(20, 1000)}
    assert torch.equal(computed(graph, {}, rows), rows["x"])
    torch.manual_seed(5)
    plain = torch.nn.functional.dropout(rows["x"], 0.25, True)
    by_own = computed(graph, {}, rows, is_training=True, generator=torch.Generator().manual_seed(5))
    assert torch.equal(plain, by_own)
    assert abs((by_own == 0).float().mean() - 0.25) < 0.02
    mapped = vmap(lambda x: computed(graph, {}, {"x": x}, is_training=True), randomness="different")
    found = mapped(rows["x"].unsqueeze(1)).squeeze(1)
    assert not torch.equal(found[0], found[1])


@every("name", samples())
def test_no_rows_and_doubles_are_computed_as_well(name: str) -> None:
    graph = samples()[name]
    weights, inputs = drawn(graph)
    for kind in (torch.float32, torch.float64):
        own = {key: value.to(kind).requires_grad_() for key, value in weights.items()}
        for rows in (0, 1):
            some = {key: (one.to(kind) if one.is_floating_point() else one)[:rows] for key, one in inputs.items()}
            found = computed(graph, own, some, is_training=True)
            assert found.shape == (rows, *graph.result.shape)
            assert found.dtype == kind
            if own:
                torch.autograd.grad(found.sum(), list(own.values()), allow_unused=True)
