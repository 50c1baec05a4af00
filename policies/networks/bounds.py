"""What a graph takes to compute and to train, at most: from the graph and a number of rows alone.

Promise: torch holds no more bytes, and makes no more operations, as far as tests measure both for every call. The way
back of a product takes two products, so that training takes three times the operations of the way there (Griewank and
Walther, Evaluating Derivatives, 2008, section 4.4), and holds a gradient beside each result.
"""

from dataclasses import dataclass

from policies.networks.graph import Graph
from policies.networks.values import FLOAT_BYTES

_INDEX_BYTES = 8
_ANYWAY_BYTES = 64 << 10  # of each call and weight: what a kernel aligns and lays out, however few the rows
_BACKWARD = 3  # operations there and back, of those there
_BY_ROW = 5  # the same where each row's gradient is found by itself: torch takes rows for groups of channels
_STEP_FLOPS = 12  # of a weight: gradient, pull, schedule, momentum
_COPIES = 5  # of the weights: they themselves, shared ones, gradient, momentum, next ones
_ROW_COPIES = 3  # of the gradient of one row: as found, in one vector, clipped


@dataclass(frozen=True, slots=True)
class Work:
    """What is computed, and what it holds at once, at most."""

    flops: int
    memory: int  # bytes


def forward(graph: Graph, rows: int) -> Work:
    """Return what the output takes for so many rows at once."""
    return Work(rows * graph.cost.flops, _weights(graph) + rows * (_read(graph) + graph.cost.held))


def trained(graph: Graph, rows: int) -> Work:
    """Return what one step by the gradient of a batch of so many rows takes."""
    flops = rows * _BACKWARD * graph.cost.flops + _STEP_FLOPS * graph.count
    return Work(flops, _weights(graph, _COPIES) + rows * (_read(graph) + 2 * graph.cost.held))


def by_row(graph: Graph, rows: int, at_once: int) -> Work:
    """Return what the gradients of so many rows take, each by itself, of which `at_once` are computed together."""
    of_row = _read(graph) + 2 * graph.cost.held + _ROW_COPIES * FLOAT_BYTES * graph.count
    flops = rows * (_BY_ROW * graph.cost.flops + _STEP_FLOPS * graph.count)
    return Work(flops, _weights(graph, _COPIES) + min(rows, at_once) * of_row)


def dearest(graph: Graph) -> str:
    """Return the call that takes most operations, by its name and what it is."""
    return _largest(graph, [cost.flops for cost in graph.costs])


def largest(graph: Graph) -> str:
    """Return the call that holds most bytes, by its name and what it is."""
    return _largest(graph, [cost.held for cost in graph.costs])


def _largest(graph: Graph, taken: list[int]) -> str:
    found = graph.calls[taken.index(max(taken))]
    return f"{found.name} ({found.call})"


def _weights(graph: Graph, copies: int = 1) -> int:
    return copies * FLOAT_BYTES * graph.count + _ANYWAY_BYTES * (len(graph.calls) + len(graph.weights))


def _read(graph: Graph) -> int:
    """Return the bytes of one row's inputs."""
    known = [graph.known[one.name] for one in graph.inputs]
    return sum((_INDEX_BYTES if one.is_whole else FLOAT_BYTES) * one.elements for one in known)
