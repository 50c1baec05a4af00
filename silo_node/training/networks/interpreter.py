"""Compute a graph with torch: each listed call by functions of torch, and nothing else.

A function of the weights and the inputs, so that torch.func derives gradients of it, and vmap those of each person.
Promise: nothing is looked up by a name of the graph but tensors of it, and an index that lies beyond an embedding's
table is moved into it. The results are those of the module that was packed, to the last bit where both keep the rows
of a batch in the same order.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional

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
from silo_node.training.networks.sequences import attended, is_transformed, ran

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Mode:
    """How a graph is computed."""

    is_training: bool  # whether a dropout drops numbers
    generator: torch.Generator | None  # which numbers are dropped; None takes torch's own, as vmap needs


Compute = Callable[[Any, Tensors, Mode], torch.Tensor]  # a call, and the tensors so far by their names


def _elementwise(call: Elementwise, known: Tensors, mode: Mode) -> torch.Tensor:
    return _ELEMENTWISE[call.call](known[call.of])


def _sloped(call: Sloped, known: Tensors, mode: Mode) -> torch.Tensor:
    compute = functional.leaky_relu if call.call == "leaky_relu" else functional.elu
    return compute(known[call.of], float(call.slope))


def _scale(call: Scale, known: Tensors, mode: Mode) -> torch.Tensor:
    found = known[call.of]
    if call.times != "1":
        found = found * float(call.times)
    if call.over != "1":
        found = found / float(call.over)
    return found if call.plus == "0" else found + float(call.plus)


def _pairwise(call: Pairwise, known: Tensors, mode: Mode) -> torch.Tensor:
    left, right = known[call.of], known[call.other or call.weight or ""]
    if call.other is not None:  # axes that one lacks stand behind the rows of a batch
        axes = max(left.dim(), right.dim())
        left, right = _widened(left, axes), _widened(right, axes)
    return _PAIRWISE[call.call](left, right)


def _widened(tensor: torch.Tensor, axes: int) -> torch.Tensor:
    missing = axes - tensor.dim()
    return tensor.reshape(tensor.shape[0], *(1,) * missing, *tensor.shape[1:]) if missing else tensor


def _reduce(call: Reduce, known: Tensors, mode: Mode) -> torch.Tensor:
    return _REDUCE[call.call](known[call.of], [axis + 1 for axis in call.axes], call.keep)


def _linear(call: Linear, known: Tensors, mode: Mode) -> torch.Tensor:
    return functional.linear(known[call.of], known[call.weight], _weight(call.bias, known))


def _embedding(call: Embedding, known: Tensors, mode: Mode) -> torch.Tensor:
    table = known[call.weight]
    return functional.embedding(known[call.of].long().clamp(0, table.shape[0] - 1), table, call.padding)


def _positions(call: Positions, known: Tensors, mode: Mode) -> torch.Tensor:
    rows, places = known[call.of].shape[:2]
    return known[call.weight][:places].expand(rows, -1, -1)


def _matmul(call: MatMul, known: Tensors, mode: Mode) -> torch.Tensor:
    return torch.matmul(known[call.of], known[call.other])


def _conv1d(call: Conv1d, known: Tensors, mode: Mode) -> torch.Tensor:
    found, weight, bias = known[call.of], known[call.weight], _weight(call.bias, known)
    return functional.conv1d(found, weight, bias, call.stride, call.padding, call.dilation, call.groups)


def _conv2d(call: Conv2d, known: Tensors, mode: Mode) -> torch.Tensor:
    found, weight, bias = known[call.of], known[call.weight], _weight(call.bias, known)
    return functional.conv2d(found, weight, bias, call.stride, call.padding, call.dilation, call.groups)


def _pool(call: Pool1d | Pool2d, known: Tensors, mode: Mode) -> torch.Tensor:
    return _POOL[call.call](known[call.of], call.window, call.stride, call.padding)


def _layer_norm(call: LayerNorm, known: Tensors, mode: Mode) -> torch.Tensor:
    found, weight, bias = known[call.of], _weight(call.weight, known), _weight(call.bias, known)
    return functional.layer_norm(found, found.shape[found.dim() - call.axes :], weight, bias, float(call.eps))


def _group_norm(call: GroupNorm, known: Tensors, mode: Mode) -> torch.Tensor:
    weight, bias = _weight(call.weight, known), _weight(call.bias, known)
    return functional.group_norm(known[call.of], call.groups, weight, bias, float(call.eps))


def _softmax(call: Softmax, known: Tensors, mode: Mode) -> torch.Tensor:
    return (torch.softmax if call.call == "softmax" else torch.log_softmax)(known[call.of], call.axis + 1)


def _dropout(call: Dropout, known: Tensors, mode: Mode) -> torch.Tensor:
    return dropped(known[call.of], float(call.share), mode)


def dropped(found: torch.Tensor, share: float, mode: Mode) -> torch.Tensor:
    """Return numbers of which a share is 0 in training, as torch's dropout computes it from a generator."""
    if mode.generator is None or not mode.is_training or share == 0:
        return functional.dropout(found, share, mode.is_training)
    kept = torch.empty_like(found).bernoulli_(1 - share, generator=mode.generator)
    return found * kept.div_(1 - share)


def _flatten(call: Flatten, known: Tensors, mode: Mode) -> torch.Tensor:
    found = known[call.of]
    return found.flatten(1) if found.dim() > 1 else found.unsqueeze(1)


def _reshape(call: Reshape, known: Tensors, mode: Mode) -> torch.Tensor:
    found = known[call.of]
    return found.reshape(found.shape[0], *call.shape)


def _permute(call: Permute, known: Tensors, mode: Mode) -> torch.Tensor:
    return known[call.of].permute(0, *(axis + 1 for axis in call.axes))


def _select(call: Select, known: Tensors, mode: Mode) -> torch.Tensor:
    return known[call.of].select(call.axis + 1, call.at)


def _slice(call: Slice, known: Tensors, mode: Mode) -> torch.Tensor:
    return known[call.of].narrow(call.axis + 1, call.start, call.stop - call.start)


def _cat(call: Cat, known: Tensors, mode: Mode) -> torch.Tensor:
    return torch.cat([known[name] for name in call.reads], call.axis + 1)


def _recurrent(call: Recurrent, known: Tensors, mode: Mode) -> torch.Tensor:
    return ran(call, known[call.of], [known[name] for name in call.parts])


def _attention(call: Attention, known: Tensors, mode: Mode) -> torch.Tensor:
    query, key, value = (known[name] for name in call.reads)
    drop = float(call.drop) if mode.is_training else 0.0
    if not is_transformed(query, key, value) and (drop == 0 or mode.generator is None):
        scale = None if call.scale is None else float(call.scale)
        return functional.scaled_dot_product_attention(
            query, key, value, dropout_p=drop, is_causal=call.is_causal, scale=scale
        )
    return attended(call, query, key, value, lambda shares: dropped(shares, drop, mode))


def _weight(name: str | None, known: Tensors) -> torch.Tensor | None:
    return None if name is None else known[name]


_ELEMENTWISE: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = MappingProxyType(
    {
        "relu": torch.relu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "gelu": functional.gelu,
        "gelu_tanh": lambda found: functional.gelu(found, approximate="tanh"),
        "silu": functional.silu,
        "softplus": functional.softplus,
    }
)
_PAIRWISE: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = MappingProxyType(
    {"add": torch.add, "sub": torch.sub, "mul": torch.mul}
)
_REDUCE: Mapping[str, Callable[[torch.Tensor, list[int], bool], torch.Tensor]] = MappingProxyType(
    {"mean": torch.mean, "sum": torch.sum, "amax": torch.amax}
)
_POOL: Mapping[str, Callable[..., torch.Tensor]] = MappingProxyType(
    {
        "max_pool1d": functional.max_pool1d,
        "avg_pool1d": functional.avg_pool1d,
        "max_pool2d": functional.max_pool2d,
        "avg_pool2d": functional.avg_pool2d,
    }
)
_COMPUTE: Mapping[type[Call], Compute] = MappingProxyType(
    {
        Attention: _attention,
        Cat: _cat,
        Conv1d: _conv1d,
        Conv2d: _conv2d,
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


def computed(
    graph: Graph,
    weights: Tensors,
    inputs: Tensors,
    *,
    is_training: bool = False,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Return the output of a graph for a batch; every input has the rows of the batch as its first axis.

    `is_training` says whether a dropout drops numbers, `generator` which; torch's own without one, as torch.func.vmap
    needs, with `randomness="different"`.
    """
    mode = Mode(is_training, generator)
    known = {**weights, **inputs}
    for call in graph.calls:
        known[call.name] = _COMPUTE[type(call)](call, known, mode)
    return known[graph.output]
