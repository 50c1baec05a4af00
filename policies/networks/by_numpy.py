"""Compute a graph with numpy, in doubles: for whoever holds a trained network and has no torch.

Each listed call by plain arrays, with the results of `silo_node.training.networks.interpreter` but for rounding; a test
compares the two on every call. Nothing is looked up by a name of the graph but arrays of it, and an index that lies
beyond an embedding's table is moved into it. Dropout drops nothing: nothing is trained here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

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

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
_erf = np.vectorize(math.erf, otypes=[np.float64])


def computed(graph: Graph, weights: Arrays, inputs: Arrays) -> Array:
    """Return the output of a graph for a batch; every input has the rows of the batch as its first axis."""
    known: dict[str, Array] = {name: np.asarray(one, np.float64) for name, one in weights.items()}
    known |= {name: one if one.dtype.kind in "iu" else one.astype(np.float64) for name, one in inputs.items()}
    with np.errstate(all="ignore"):
        for call in graph.calls:
            known[call.name] = _COMPUTE[type(call)](call, known)
    return known[graph.output]


def _elementwise(call: Elementwise, known: Arrays) -> Array:
    return _ELEMENTWISE[call.call](known[call.of])


def sigmoid(found: Array) -> Array:
    """Return 1 / (1 + exp(-x)) of each number, without an overflow."""
    small = np.exp(-np.abs(found))
    return np.asarray(np.where(found >= 0, 1.0, small) / (1.0 + small))


def _gelu_tanh(found: Array) -> Array:
    return np.asarray(0.5 * found * (1 + np.tanh(math.sqrt(2 / math.pi) * (found + 0.044715 * found**3))))


_ELEMENTWISE: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "relu": lambda found: np.maximum(found, 0.0),
        "tanh": np.tanh,
        "sigmoid": sigmoid,
        "gelu": lambda found: 0.5 * found * (1 + _erf(found / math.sqrt(2.0))) if found.size else found,
        "gelu_tanh": _gelu_tanh,
        "silu": lambda found: found * sigmoid(found),
        "softplus": lambda found: np.logaddexp(found, 0.0),
    }
)
_PAIRWISE: Mapping[str, Callable[[Array, Array], Array]] = MappingProxyType(
    {"add": np.add, "sub": np.subtract, "mul": np.multiply}
)
_REDUCE: Mapping[str, Callable[..., Array]] = MappingProxyType({"mean": np.mean, "sum": np.sum, "amax": np.max})


def _sloped(call: Sloped, known: Arrays) -> Array:
    found, slope = known[call.of], float(call.slope)
    below = slope * found if call.call == "leaky_relu" else slope * np.expm1(np.minimum(found, 0.0))
    return np.where(found > 0, found, below)


def _scale(call: Scale, known: Arrays) -> Array:
    return known[call.of] * float(call.times) / float(call.over) + float(call.plus)


def _pairwise(call: Pairwise, known: Arrays) -> Array:
    left, right = known[call.of], known[call.other or call.weight or ""]
    if call.other is not None:  # axes that one lacks stand behind the rows of a batch
        axes = max(left.ndim, right.ndim)
        left, right = _widened(left, axes), _widened(right, axes)
    return _PAIRWISE[call.call](left, right)


def _widened(found: Array, axes: int) -> Array:
    return found.reshape(found.shape[0], *(1,) * (axes - found.ndim), *found.shape[1:])


def _reduce(call: Reduce, known: Arrays) -> Array:
    axes = tuple(axis + 1 for axis in call.axes)
    return _REDUCE[call.call](known[call.of], axis=axes, keepdims=call.keep)


def _linear(call: Linear, known: Arrays) -> Array:
    found = known[call.of] @ known[call.weight].T
    return found if call.bias is None else found + known[call.bias]


def _embedding(call: Embedding, known: Arrays) -> Array:
    table = known[call.weight]
    return table[np.clip(known[call.of].astype(np.int64), 0, len(table) - 1)]


def _positions(call: Positions, known: Arrays) -> Array:
    rows, places = known[call.of].shape[:2]
    table = known[call.weight][:places]
    return np.broadcast_to(table, (rows, *table.shape))


def _matmul(call: MatMul, known: Arrays) -> Array:
    return known[call.of] @ known[call.other]


def _windows(found: Array, sizes: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Array:
    """Return the windows of the last axes: those axes are the places where a window stands, then come its own axes."""
    axes = len(sizes)
    wide = [dilation * (size - 1) + 1 for size, dilation in zip(sizes, dilations, strict=True)]
    own = tuple(range(found.ndim - axes, found.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(found, wide, own)
    steps: Any = (..., *(slice(None, None, step) for step in (*strides, *dilations)))
    return np.asarray(windows[steps])


def _padded(found: Array, padding: Sequence[int], value: float) -> Array:
    sides = [(0, 0)] * (found.ndim - len(padding)) + [(one, one) for one in padding]
    return np.pad(found, sides, constant_values=value)


def _convolution(call: Conv1d | Conv2d, known: Arrays) -> Array:
    found, weight = _padded(known[call.of], call.padding, 0.0), known[call.weight]
    rows, axes, groups = len(found), len(call.stride), call.groups
    windows = _windows(found, weight.shape[2:], call.stride, call.dilation)
    places = windows.shape[2 : 2 + axes]
    # Rows, groups, places and what a window has; then products with the weights of each group.
    split = windows.reshape(rows, groups, windows.shape[1] // groups, *windows.shape[2:])
    in_window = math.prod(weight.shape[1:])
    flat = np.moveaxis(split, 2, 2 + axes).reshape(rows, groups, math.prod(places), in_window)
    made = flat @ weight.reshape(groups, len(weight) // groups, -1).transpose(0, 2, 1)
    result = made.transpose(0, 1, 3, 2).reshape(rows, len(weight), *places)
    return result if call.bias is None else result + known[call.bias].reshape(-1, *(1,) * axes)


def _pool(call: Pool1d | Pool2d, known: Arrays) -> Array:
    is_largest, axes = call.call.startswith("max"), len(call.window)
    found = _padded(known[call.of], call.padding, -math.inf if is_largest else 0.0)
    windows = _windows(found, call.window, call.stride, (1,) * axes)
    own = tuple(range(-axes, 0))
    return np.asarray(windows.max(own) if is_largest else windows.mean(own))


def _normed(found: Array, eps: str, axes: tuple[int, ...]) -> Array:
    apart = found - found.mean(axes, keepdims=True)
    return np.asarray(apart / np.sqrt((apart * apart).mean(axes, keepdims=True) + float(eps)))


def _layer_norm(call: LayerNorm, known: Arrays) -> Array:
    found = _normed(known[call.of], call.eps, tuple(range(-call.axes, 0)))
    found = found if call.weight is None else found * known[call.weight]
    return found if call.bias is None else found + known[call.bias]


def _group_norm(call: GroupNorm, known: Arrays) -> Array:
    given = known[call.of]
    grouped = given.reshape(len(given), call.groups, math.prod(given.shape[1:]) // call.groups)
    found = _normed(grouped, call.eps, (2,)).reshape(given.shape)
    one = (-1, *(1,) * (given.ndim - 2))
    found = found if call.weight is None else found * known[call.weight].reshape(one)
    return found if call.bias is None else found + known[call.bias].reshape(one)


def softmax(found: Array, axis: int) -> Array:
    """Return the shares of an axis that numbers stand for; no exponential overflows."""
    powers = np.exp(found - found.max(axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis, keepdims=True))


def _softmax(call: Softmax, known: Arrays) -> Array:
    found, axis = known[call.of], call.axis + 1
    if call.call == "softmax":
        return softmax(found, axis)
    apart = found - found.max(axis, keepdims=True)
    return np.asarray(apart - np.log(np.exp(apart).sum(axis, keepdims=True)))


def _dropout(call: Dropout, known: Arrays) -> Array:
    return known[call.of]


def _flatten(call: Flatten, known: Arrays) -> Array:
    found = known[call.of]
    return found.reshape(len(found), math.prod(found.shape[1:]))


def _reshape(call: Reshape, known: Arrays) -> Array:
    found = known[call.of]
    return found.reshape(len(found), *call.shape)


def _permute(call: Permute, known: Arrays) -> Array:
    return known[call.of].transpose(0, *(axis + 1 for axis in call.axes))


def _select(call: Select, known: Arrays) -> Array:
    return np.asarray(known[call.of].take(call.at, call.axis + 1))


def _slice(call: Slice, known: Arrays) -> Array:
    places = (slice(None),) * (call.axis + 1)
    return known[call.of][(*places, slice(call.start, call.stop))]


def _cat(call: Cat, known: Arrays) -> Array:
    return np.concatenate([known[name] for name in call.reads], call.axis + 1)


def _attention(call: Attention, known: Arrays) -> Array:
    query, key, value = (known[name] for name in call.reads)
    scale = query.shape[-1] ** -0.5 if call.scale is None else float(call.scale)
    scores = (query * scale) @ key.swapaxes(-2, -1)
    if call.is_causal:
        scores = np.where(np.triu(np.ones(scores.shape[-2:], np.bool_), 1), -np.inf, scores)
    return np.asarray(softmax(scores, -1) @ value)


def _recurrent(call: Recurrent, known: Arrays) -> Array:
    found, each = known[call.of], 4 if call.has_bias else 2
    parts, last = [known[name] for name in call.parts], []
    for layer in range(call.layers):
        ways = []
        for way in range(call.directions):
            at = each * (layer * call.directions + way)
            states = _states(call, found, parts[at : at + each], is_backwards=way == 1)
            last.append(states[:, 0 if way == 1 else -1])
            ways.append(states)
        found = np.concatenate(ways, -1)
    return found if call.gives == "sequence" else np.stack(last, 1)


def _states(call: Recurrent, found: Array, parts: Sequence[Array], *, is_backwards: bool) -> Array:
    """Return the state of one layer and direction at each place, in the order of the places."""
    reads, recurs, *biases = parts
    given = found @ reads.T + (biases[0] if biases else 0.0)
    state = cell = np.zeros((len(found), call.size))
    states = np.empty((*found.shape[:2], call.size))
    places = range(found.shape[1])
    for place in reversed(places) if is_backwards else places:
        recurring = state @ recurs.T + (biases[1] if biases else 0.0)
        if call.call == "lstm":
            enter, forget, candidate, leave = np.split(given[:, place] + recurring, 4, -1)
            cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(candidate)
            state = sigmoid(leave) * np.tanh(cell)
        else:
            (given_r, given_z, given_n), (own_r, own_z, own_n) = (
                np.split(one, 3, -1) for one in (given[:, place], recurring)
            )
            candidate = np.tanh(given_n + sigmoid(given_r + own_r) * own_n)
            state = candidate + sigmoid(given_z + own_z) * (state - candidate)
        states[:, place] = state
    return states


_COMPUTE: Mapping[type[Call], Callable[[Any, Arrays], Array]] = MappingProxyType(
    {
        Attention: _attention,
        Cat: _cat,
        Conv1d: _convolution,
        Conv2d: _convolution,
        Dropout: _dropout,
        Elementwise: _elementwise,
        Embedding: _embedding,
        Flatten: _flatten,
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
