"""What a graph is and computes, in words, for the analyst who packed it and the owner who approves it."""

from collections.abc import Sequence

from policies.networks.bounds import by_row, forward, trained
from policies.networks.calls.call import sizes
from policies.networks.graph import Graph, Input
from policies.units import counted

_BATCH = 64


def described(graph: Graph) -> Sequence[str]:
    """Return a line for what a row gives, one for each call, and what the whole has and takes."""
    known = graph.known
    lines = [_given(one) for one in graph.inputs]
    for call in graph.calls:
        lines.append(f"{call.name}: {call.in_words(known, known[call.name])}")
    return [*lines, f"it gives {sizes(graph.result.shape)} a row, by {graph.output}", *_sizes(graph)]


def _given(one: Input) -> str:
    if one.below is None:
        return f"{one.name}: {sizes(one.shape)} of a row, reals"
    return f"{one.name}: {sizes(one.shape)} of a row, whole numbers below {one.below:,}"


def _sizes(graph: Graph) -> Sequence[str]:
    constants = graph.count - sum(one.count for one in graph.trained)
    weights = f"{graph.count - constants:,} numbers in {counted(len(graph.trained), 'weight')} are trained"
    kept = f", {constants:,} stay as they are packed" if constants else ""
    one, batch, alone = forward(graph, 1), trained(graph, _BATCH), by_row(graph, _BATCH, _BATCH)
    return (
        weights + kept,
        f"a row takes at most {one.flops:,} operations; a step of {_BATCH} rows takes {batch.flops:,} "
        f"and {_mb(batch.memory)}, or {_mb(alone.memory)} where each row's gradient is found by itself",
    )


def _mb(memory: int) -> str:
    return f"{-(-memory >> 20):,} MB"
