"""A packed network for the owner who is to approve it: its layers, what it takes here, and what it could reveal."""

from collections.abc import Iterator

from policies.document.networks import Networks
from policies.document.policy import Policy
from policies.networks.demand import MB, Rounds, demand_of
from policies.networks.graph import Graph
from policies.networks.packed import Packed
from policies.networks.words import described
from policies.requests.capacity import rows_of
from policies.units import counted

_EPOCHS, _BATCH = 1, 32  # of the round that is shown; a job may ask for others, and is judged by them
_BITS = 32  # of a weight


def layers(found: Packed) -> Iterator[str]:
    """Yield what a row gives, each call, and what the whole has and takes."""
    yield from described(found.graph)


def taken(policy: Policy, found: Packed) -> Iterator[str]:
    """Yield what a round of it would take here, by the rows of each source, beside what the policy allows."""
    training = policy.training
    allowed = None if training is None else training.networks
    yield "no network is trained here: the policy has no [training.networks]" if allowed is None else _limits(allowed)
    for name, source in policy.sources.items():
        rows, is_known = rows_of(source.rows_up_to), source.rows_up_to is not None
        demand = demand_of(found.graph, Rounds(rows, are_rows_known=is_known, epochs=_EPOCHS, batch=_BATCH))
        of = f"{name}: a round of up to {rows:,} rows, {counted(_EPOCHS, 'epoch')}, {_BATCH} rows a step"
        above = "" if allowed is None else ", ".join(_above(allowed, demand.weights, demand.flops, demand.memory_bytes))
        told = f"{demand.flops:,} operations and {demand.memory_mb:,} MB at most"
        yield f"{of}, takes {told}{f'; too much for {above}' if above else ''}"


def reveals(found: Packed) -> Iterator[str]:
    """Yield what whoever has the trained weights could learn from them."""
    graph, trained = found.graph, sum(one.count for one in found.graph.trained)
    yield (
        f"its {trained:,} trained numbers can hold up to {trained * _BITS // 8:,} bytes of the rows: a network may"
        " learn single rows by heart, and whoever has its weights may find them there"
    )
    for call in graph.calls:
        if call.call == "embedding":
            table = graph.known[call.weights[0]]
            yield (
                f"{call.name} has numbers of its own for each of {table.shape[0]:,} values, which only the rows of that"
                " value move: of a value that one person alone has, they tell of that person"
            )
    yield "on exact sources nothing bounds that; with noise, the budget of the run does, by person or by silo"
    yield "each round opens the sum of the silos' changes, and never one silo's; the weights go to whom the policy says"
    yield "it is data: this program computes the listed calls itself, in a process without files and network"


def _limits(allowed: Networks) -> str:
    return (
        f'the policy says allow = "{allowed.allow}", up to {allowed.max_weights:,} weights, and a round of up to'
        f" {allowed.max_flops:,} operations, {allowed.max_memory_mb:,} MB and {allowed.max_seconds} s"
    )


def _above(allowed: Networks, weights: int, flops: int, memory_bytes: int) -> Iterator[str]:
    if weights > allowed.max_weights:
        yield "max_weights"
    if flops > allowed.max_flops:
        yield "max_flops"
    if memory_bytes > allowed.max_memory_mb * MB:
        yield "max_memory_mb"


def brief(graph: Graph) -> str:
    """Return a network in one line."""
    return f"{graph.count:,} numbers in {counted(len(graph.weights), 'weight')}, {counted(len(graph.calls), 'call')}"
