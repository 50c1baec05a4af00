"""A network with low-rank adapters: another network, in which each wide linear layer has a thin way beside it.

Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang and Chen, "LoRA", ICLR 2022. A layer W x + b becomes W x + b + B (A x) with
A of the shape (rank, in) and B of (out, rank). B begins with 0, so the network computes what it computed before.
"""

import math
from collections.abc import Iterator

from policies.networks.calls import AnyCall, Linear, Pairwise
from policies.networks.graph import Graph, Weight

DOWN, UP = ".lora_a", ".lora_b"  # behind the name of the weight that an adapter is beside


def adapted(graph: Graph, rank: int) -> Graph:
    """Return a graph with adapters of a rank; raises ValueError where no linear layer is wider than that."""
    shapes = {weight.name: weight.shape for weight in graph.weights}
    wide = {call.weight for call in graph.calls if isinstance(call, Linear) and rank < min(shapes[call.weight])}
    if not wide:
        widest = max((min(shapes[call.weight]) for call in graph.calls if isinstance(call, Linear)), default=0)
        raise ValueError(f"rank: no linear layer has more than {rank:,} numbers on both sides; take less than {widest}")
    added = [one for weight in graph.weights if weight.name in wide for one in _adapter(weight, rank)]
    calls = tuple(one for call in graph.calls for one in _calls(call, frozenset(wide)))
    return Graph(inputs=graph.inputs, weights=(*graph.weights, *added), calls=calls, output=graph.output)


def learned(graph: Graph) -> frozenset[str]:
    """Return the weights of adapters that are trained and summed."""
    return frozenset(weight.name for weight in graph.weights if weight.name.endswith(UP))


def _adapter(weight: Weight, rank: int) -> tuple[Weight, Weight]:
    out, taken = weight.shape
    bound = f"{1 / math.sqrt(taken):.6f}"
    down = Weight(name=weight.name + DOWN, shape=(rank, taken), initial="uniform", bound=bound)
    return down, Weight(name=weight.name + UP, shape=(out, rank), initial="zeros")


def _calls(call: AnyCall, wide: frozenset[str]) -> Iterator[AnyCall]:
    if not isinstance(call, Linear) or call.weight not in wide:
        yield call
        return
    name = call.name
    yield call.model_copy(update={"name": f"{name}.frozen"})
    yield Linear(name=f"{name}.down", of=call.of, weight=call.weight + DOWN, bias=None)
    yield Linear(name=f"{name}.up", of=f"{name}.down", weight=call.weight + UP, bias=None)
    yield Pairwise(call="add", name=name, of=f"{name}.frozen", other=f"{name}.up", weight=None)
