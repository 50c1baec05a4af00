"""The calls of a network as operators of ONNX, in 32-bit floats: one entry for each call that a graph may have.

The numbers of a batch are the first axis of every value, as in `silo_node.training.networks.interpreter`, and weights
are constants of the file. Recurrent layers are one operator for each layer and direction.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from policies.models.onnx_graph import Graph as Made
from policies.networks.by_numpy import Arrays
from policies.networks.calls import (
    Attention,
    Call,
    Cat,
    Conv1d,
    Conv2d,
    Dropout,
    Elementwise,
    Embedding,
    Flatten,
    GroupNorm,
    LayerNorm,
    Linear,
    MatMul,
    Pairwise,
    Permute,
    Pool1d,
    Pool2d,
    Positions,
    Recurrent,
    Reduce,
    Reshape,
    Scale,
    Select,
    Slice,
    Sloped,
    Softmax,
)
from policies.networks.graph import Graph
from policies.networks.values import Shape

# The parts of a gate, in the order that ONNX has them, by their places in torch's.
_GATES: Mapping[str, tuple[int, ...]] = MappingProxyType({"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)})


@dataclass(frozen=True, slots=True)
class _At:
    """Where a translation stands: the file, the graph, its weights, and the names of what is computed so far."""

    made: Made
    graph: Graph
    weights: Arrays
    names: Mapping[str, str]

    def shape(self, name: str) -> Shape:
        """Return the shape of one row of a node."""
        return self.graph.known[name].shape


def add_network(made: Made, graph: Graph, weights: Arrays, inputs: Mapping[str, str]) -> str:
    """Add the nodes of a graph, whose inputs have these names in the file; return the name of its output."""
    names = dict(inputs)
    for call in graph.calls:
        names[call.name] = _ADD[type(call)](call, _At(made, graph, weights, names))
    return names[graph.output]


def _elementwise(call: Elementwise, at: _At) -> str:
    found, made = at.names[call.of], at.made
    match call.call:
        case "gelu":
            return made.node("Gelu", found)
        case "gelu_tanh":
            return made.node("Gelu", found, approximate="tanh")
        case "silu":
            return made.node("Mul", found, made.node("Sigmoid", found))
        case "relu" | "tanh" | "sigmoid" | "softplus":
            return made.node(call.call.capitalize(), found)


def _sloped(call: Sloped, at: _At) -> str:
    kind = "LeakyRelu" if call.call == "leaky_relu" else "Elu"
    return at.made.node(kind, at.names[call.of], alpha=float(call.slope))


def _scale(call: Scale, at: _At) -> str:
    found = at.made.node("Mul", at.names[call.of], at.made.floats(float(call.times)))
    found = at.made.node("Div", found, at.made.floats(float(call.over)))
    return at.made.node("Add", found, at.made.floats(float(call.plus)))


def _pairwise(call: Pairwise, at: _At) -> str:
    kind = call.call.capitalize()
    if call.other is None:
        return at.made.node(kind, at.names[call.of], at.made.floats(at.weights[call.weight or ""]))
    axes = max(len(at.shape(name)) for name in call.reads)
    return at.made.node(kind, *(_widened(name, axes, at) for name in call.reads))


def _widened(name: str, axes: int, at: _At) -> str:
    shape = at.shape(name)
    if len(shape) == axes:
        return at.names[name]
    return _shaped(at.names[name], ((1,) * (axes - len(shape)) + shape), at)


def _shaped(name: str, shape: Sequence[int], at: _At) -> str:
    return at.made.node("Reshape", name, at.made.whole([-1, *shape]))


def _reduce(call: Reduce, at: _At) -> str:
    kind = {"mean": "ReduceMean", "sum": "ReduceSum", "amax": "ReduceMax"}[call.call]
    axes = at.made.whole([axis + 1 for axis in call.axes])
    return at.made.node(kind, at.names[call.of], axes, keepdims=int(call.keep))


def _linear(call: Linear, at: _At) -> str:
    found = at.made.node("MatMul", at.names[call.of], at.made.floats(at.weights[call.weight].T))
    return found if call.bias is None else at.made.node("Add", found, at.made.floats(at.weights[call.bias]))


def _embedding(call: Embedding, at: _At) -> str:
    table = at.weights[call.weight]
    inside = at.made.node("Clip", at.names[call.of], at.made.whole(0), at.made.whole(len(table) - 1))
    return at.made.node("Gather", at.made.floats(table), inside)


def _positions(call: Positions, at: _At) -> str:
    table = at.weights[call.weight][: at.shape(call.of)[0]]
    rows = at.made.node("Shape", at.names[call.of], start=0, end=1)
    shape = at.made.node("Concat", rows, at.made.whole(list(table.shape)), axis=0)
    return at.made.node("Expand", at.made.floats(table[None]), shape)


def _matmul(call: MatMul, at: _At) -> str:
    return at.made.node("MatMul", at.names[call.of], at.names[call.other])


def _convolution(call: Conv1d | Conv2d, at: _At) -> str:
    weights = [at.made.floats(at.weights[name]) for name in call.weights]
    pads = [*call.padding, *call.padding]
    where = {"strides": list(call.stride), "pads": pads, "dilations": list(call.dilation), "group": call.groups}
    return at.made.node("Conv", at.names[call.of], *weights, **where)


def _pool(call: Pool1d | Pool2d, at: _At) -> str:
    where: dict[str, Any] = {"kernel_shape": list(call.window), "strides": list(call.stride)}
    where["pads"] = [*call.padding, *call.padding]
    if call.call.startswith("max"):
        return at.made.node("MaxPool", at.names[call.of], **where)
    return at.made.node("AveragePool", at.names[call.of], count_include_pad=1, **where)


def _normed(found: str, eps: str, axes: Sequence[int], at: _At) -> str:
    over = at.made.whole(list(axes))
    apart = at.made.node("Sub", found, at.made.node("ReduceMean", found, over, keepdims=1))
    squares = at.made.node("ReduceMean", at.made.node("Mul", apart, apart), over, keepdims=1)
    wide = at.made.node("Sqrt", at.made.node("Add", squares, at.made.floats(float(eps))))
    return at.made.node("Div", apart, wide)


def _moved(found: str, weight: str | None, bias: str | None, shape: Sequence[int], at: _At) -> str:
    for kind, name in (("Mul", weight), ("Add", bias)):
        if name is not None:
            found = at.made.node(kind, found, at.made.floats(at.weights[name].reshape(shape)))
    return found


def _layer_norm(call: LayerNorm, at: _At) -> str:
    shape = at.shape(call.of)
    axes = range(1 + len(shape) - call.axes, 1 + len(shape))
    found = _normed(at.names[call.of], call.eps, axes, at)
    return _moved(found, call.weight, call.bias, shape[len(shape) - call.axes :], at)


def _group_norm(call: GroupNorm, at: _At) -> str:
    shape = at.shape(call.of)
    grouped = _shaped(at.names[call.of], (call.groups, math.prod(shape) // call.groups), at)
    found = _shaped(_normed(grouped, call.eps, (2,), at), shape, at)
    return _moved(found, call.weight, call.bias, (shape[0], *(1,) * (len(shape) - 1)), at)


def _softmax(call: Softmax, at: _At) -> str:
    kind = "Softmax" if call.call == "softmax" else "LogSoftmax"
    return at.made.node(kind, at.names[call.of], axis=call.axis + 1)


def _dropout(call: Dropout, at: _At) -> str:
    return at.made.node("Identity", at.names[call.of])


def _reshape(call: Reshape | Flatten, at: _At) -> str:
    return _shaped(at.names[call.of], at.shape(call.name), at)


def _permute(call: Permute, at: _At) -> str:
    return at.made.node("Transpose", at.names[call.of], perm=[0, *(axis + 1 for axis in call.axes)])


def _select(call: Select, at: _At) -> str:
    return at.made.node("Gather", at.names[call.of], at.made.whole(call.at), axis=call.axis + 1)


def _slice(call: Slice, at: _At) -> str:
    places = ([call.start], [call.stop], [call.axis + 1])
    return at.made.node("Slice", at.names[call.of], *map(at.made.whole, places))


def _cat(call: Cat, at: _At) -> str:
    return at.made.node("Concat", *(at.names[name] for name in call.reads), axis=call.axis + 1)


def _attention(call: Attention, at: _At) -> str:
    made, (query, key, value) = at.made, (at.names[name] for name in call.reads)
    shape, places = at.shape(call.of), at.shape(call.key)[-2]
    scale = shape[-1] ** -0.5 if call.scale is None else float(call.scale)
    last = len(shape)
    turned = made.node("Transpose", key, perm=[*range(last - 1), last, last - 1])
    scores = made.node("MatMul", made.node("Mul", query, made.floats(scale)), turned)
    if call.is_causal:
        behind = np.triu(np.full((shape[-2], places), -np.inf), 1)
        scores = made.node("Add", scores, made.floats(behind))
    return made.node("MatMul", made.node("Softmax", scores, axis=last), value)


def _recurrent(call: Recurrent, at: _At) -> str:
    made, each, last = at.made, 4 if call.has_bias else 2, list[str]()
    found = made.node("Transpose", at.names[call.of], perm=[1, 0, 2])  # places first, then rows
    parts = [at.weights[name] for name in call.parts]
    for layer in range(call.layers):
        ways = []
        for way in range(call.directions):
            first = each * (layer * call.directions + way)
            given = _backwards(found, at) if way else found
            states, end = _layer(call, given, parts[first : first + each], at)
            ways.append(_backwards(states, at) if way else states)
            last.append(end)
        found = ways[0] if len(ways) == 1 else made.node("Concat", *ways, axis=2)
    if call.gives == "sequence":
        return made.node("Transpose", found, perm=[1, 0, 2])
    return made.node("Transpose", made.node("Concat", *last, axis=0), perm=[1, 0, 2])


def _backwards(found: str, at: _At) -> str:
    """Return a sequence from its last place to its first."""
    ends = ([-1], [-(2**62)], [0], [-1])
    return at.made.node("Slice", found, *map(at.made.whole, ends))


def _layer(call: Recurrent, found: str, parts: Sequence[np.ndarray[Any, Any]], at: _At) -> tuple[str, str]:
    """Return the states of one layer, (places, rows, size), and the last one, (1, rows, size)."""
    order, made = _GATES[call.call], at.made
    ordered = [np.concatenate([np.split(one, len(order))[gate] for gate in order])[None] for one in parts]
    weights = [made.floats(one) for one in ordered[:2]]
    if call.has_bias:
        weights.append(made.floats(np.concatenate(ordered[2:], 1)))
    if call.call == "lstm":
        states, end, _ = made.several("LSTM", 3, found, *weights, hidden_size=call.size)
    else:
        states, end = made.several("GRU", 2, found, *weights, hidden_size=call.size, linear_before_reset=1)
    return made.node("Squeeze", states, made.whole([1])), end


_ADD: Mapping[type[Call], Callable[[Any, _At], str]] = MappingProxyType(
    {
        Attention: _attention,
        Cat: _cat,
        Conv1d: _convolution,
        Conv2d: _convolution,
        Dropout: _dropout,
        Elementwise: _elementwise,
        Embedding: _embedding,
        Flatten: _reshape,
        GroupNorm: _group_norm,
        LayerNorm: _layer_norm,
        Linear: _linear,
        MatMul: _matmul,
        Pairwise: _pairwise,
        Permute: _permute,
        Pool1d: _pool,
        Pool2d: _pool,
        Positions: _positions,
        Recurrent: _recurrent,
        Reduce: _reduce,
        Reshape: _reshape,
        Scale: _scale,
        Select: _select,
        Slice: _slice,
        Sloped: _sloped,
        Softmax: _softmax,
    }
)
