"""Bounds of what a graph takes are not below what torch takes: operations by its counter, memory by the process."""

import ctypes
import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.func import grad, vmap
from torch.utils.flop_counter import FlopCounterMode

from policies.networks.bounds import Work, by_row, forward, trained
from policies.networks.graph import Graph
from silo_node.training.networks.interpreter import Tensors, computed
from tests.cases import every
from tests.networks.samples import graph, samples

pytestmark = pytest.mark.torch


def convolutions() -> Graph:
    """Return a graph of two convolutions of images of 32 x 32."""
    plain = {"bias": None, "groups": 1, "stride": [1, 1], "dilation": [1, 1]}
    halves = {"window": [2, 2], "stride": [2, 2], "padding": [0, 0]}
    return graph(
        {"x": [3, 32, 32]},
        {"first": [16, 3, 5, 5], "second": [32, 16, 3, 3], "head": [10, 2048]},
        {"call": "conv2d", "name": "a", "of": "x", "weight": "first", "padding": [2, 2]} | plain,
        {"call": "gelu", "name": "b", "of": "a"},
        {"call": "max_pool2d", "name": "c", "of": "b"} | halves,
        {"call": "conv2d", "name": "d", "of": "c", "weight": "second", "padding": [1, 1]} | plain,
        {"call": "avg_pool2d", "name": "e", "of": "d"} | halves,
        {"call": "flatten", "name": "f", "of": "e"},
        {"call": "linear", "name": "g", "of": "f", "weight": "head", "bias": None},
    )


def recurrent(call: str, places: int = 40, read: int = 24, size: int = 32) -> Graph:
    """Return a graph of one recurrent call of some length."""
    gates = {"lstm": 4, "gru": 3}[call] * size
    weights = {"ih": [gates, read], "hh": [gates, size], "bi": [gates], "bh": [gates]}
    how = {"gives": "sequence", "size": size, "layers": 1, "is_bidirectional": False, "has_bias": True}
    return graph({"x": [places, read]}, weights, {"call": call, "name": "y", "of": "x", "parts": list(weights)} | how)


def attention() -> Graph:
    """Return a graph of attention between 64 places, with a product before it."""
    how = {"is_causal": True, "drop": "0.1", "scale": None}
    return graph(
        {"x": [4, 64, 16]},
        {"w": [16, 16]},
        {"call": "linear", "name": "q", "of": "x", "weight": "w", "bias": None},
        {"call": "attention", "name": "y", "of": "q", "key": "q", "value": "q"} | how,
    )


GRAPHS: Mapping[str, Graph] = {
    "convolutions": convolutions(),
    "lstm": recurrent("lstm"),
    "gru": recurrent("gru"),
    "attention": attention(),
}
# By name: what is computed of which graph for how many rows.
MEASURED = {
    "a step": ("convolutions", "step", 256),
    "scores": ("convolutions", "scores", 256),
    "row by row": ("convolutions", "rows", 64),
    "an lstm": ("lstm", "step", 1000),
    "an lstm row by row": ("lstm", "rows", 500),
    "a gru row by row": ("gru", "rows", 500),
    "attention": ("attention", "step", 100),
    "attention row by row": ("attention", "rows", 100),
}


def given(of: Graph, rows: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    weights = {one.name: torch.rand(one.shape) - 0.5 for one in of.weights}
    return weights, {
        one.name: torch.randn(rows, *one.shape)
        if one.below is None
        else torch.ones(rows, *one.shape, dtype=torch.int64)
        for one in of.inputs
    }


def loss(of: Graph, weights: Tensors, inputs: Tensors) -> torch.Tensor:
    return computed(of, weights, inputs, is_training=True).square().sum()


def step(of: Graph, weights: Tensors, inputs: Tensors) -> object:
    own = {name: one.clone().requires_grad_() for name, one in weights.items()}
    return torch.autograd.grad(loss(of, own, inputs), list(own.values()), allow_unused=True)


def scores(of: Graph, weights: Tensors, inputs: Tensors) -> object:
    with torch.no_grad():
        return computed(of, weights, inputs)


def rows(of: Graph, weights: Tensors, inputs: Tensors) -> object:
    mapped = vmap(grad(partial(loss, of)), in_dims=(None, 0), randomness="different")
    return mapped(weights, {name: one.unsqueeze(1) for name, one in inputs.items()})


def bound(of: Graph, what: str, count: int) -> Work:
    return {"step": trained(of, count), "scores": forward(of, count), "rows": by_row(of, count, count)}[what]


def grown(name: str) -> int:
    """Return by how many bytes the peak of this process grows with what is computed."""
    torch.set_num_threads(1)
    which, what, count = MEASURED[name]
    compute: Any = {"step": step, "scores": scores, "rows": rows}[what]
    of = GRAPHS[which]
    weights, inputs = given(of, count)
    compute(of, weights, {key: one[:2] for key, one in inputs.items()})  # what torch loads and keeps
    ctypes.CDLL(None).malloc_trim(0)  # else the memory of before is used again, unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _peak()
    kept = compute(of, weights, inputs)
    assert kept is not None
    return _peak() - before


def _peak() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


@pytest.fixture(scope="module")
def apart() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.process
@pytest.mark.parametrize("name", MEASURED)
def test_memory_is_at_most_its_bound(name: str, apart: ProcessPoolExecutor) -> None:
    used = apart.submit(grown, name).result()
    which, what, count = MEASURED[name]
    allowed = bound(GRAPHS[which], what, count).memory
    print(f"{name}: {used >> 20} MiB of {allowed >> 20}")
    assert allowed / 50 < used <= allowed  # a bound of fifty times as much would refuse what fits


@every("name", [*samples(), "convolutions", "attention"])
def test_operations_are_at_most_their_bound(name: str) -> None:
    of = {**samples(), **GRAPHS}[name]
    weights, inputs = given(of, 4)
    if weights:
        with FlopCounterMode(display=False) as counter:
            step(of, weights, inputs)
        assert counter.get_total_flops() <= trained(of, 4).flops
        with FlopCounterMode(display=False) as counter:
            rows(of, weights, inputs)
        # The counter takes every channel of a weight's gradient as one of every group.
        groups = max(getattr(call, "groups", 1) if call.call.startswith("conv") else 1 for call in of.calls)
        assert counter.get_total_flops() <= groups * by_row(of, 4, 4).flops
    with FlopCounterMode(display=False) as counter:
        scores(of, weights, inputs)
    assert counter.get_total_flops() <= forward(of, 4).flops
