"""Compute a graph with torch: each listed call by one function of torch, and nothing else.

A function of the weights and the inputs, so that torch.func derives gradients of it, and vmap those of each person.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional

from policies.networks.calls import Call, Elementwise, Flatten, Linear
from policies.networks.graph import Graph

Tensors = Mapping[str, torch.Tensor]
Compute = Callable[[Any, Tensors], torch.Tensor]  # a call, and the tensors so far by their names


def _elementwise(call: Elementwise, known: Tensors) -> torch.Tensor:
    return _ELEMENTWISE[call.call](known[call.of])


def _linear(call: Linear, known: Tensors) -> torch.Tensor:
    return functional.linear(known[call.of], known[call.weight], None if call.bias is None else known[call.bias])


def _flatten(call: Flatten, known: Tensors) -> torch.Tensor:
    return known[call.of].flatten(1)


_ELEMENTWISE: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = MappingProxyType(
    {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": functional.gelu}
)
_COMPUTE: Mapping[type[Call], Compute] = MappingProxyType(
    {Elementwise: _elementwise, Linear: _linear, Flatten: _flatten}
)


def computed(graph: Graph, weights: Tensors, inputs: Tensors, *, is_training: bool = False) -> torch.Tensor:
    """Return the output of a graph for a batch; every input has the rows of the batch as its first axis.

    `is_training` says whether a dropout drops numbers.
    """
    known = {**weights, **inputs}
    for call in graph.calls:
        known[call.name] = _COMPUTE[type(call)](call, known)
    return known[graph.output]
