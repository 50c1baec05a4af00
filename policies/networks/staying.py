"""Which weights of a graph never leave a silo: those under names that a job has, and those of normalisations."""

from collections.abc import Mapping

from policies.networks.graph import Graph
from policies.networks.parts import begins, prefixes
from policies.options import Option

PERSONAL: Mapping[str, Option] = {"personal": Option("", lambda text: None)}


def named(graph: Graph, names: str) -> frozenset[str]:
    """Return the weights under a comma-separated list of beginnings of names, such as `head` of `head.weight`.

    Raises ValueError where one begins no weight's name.
    """
    found = set[str]()
    for start in prefixes(names):
        own = {one.name for one in graph.weights if begins(one.name, (start,))}
        if not own:
            known = ", ".join(one.name for one in graph.weights[:6])
            raise ValueError(f"no weight's name begins with {start[:60]!r}; the weights are {known[:300]}")
        found |= own
    return frozenset(found)


def of_norms(graph: Graph) -> frozenset[str]:
    """Return the weights that normalisations read."""
    return frozenset(name for call in graph.calls if call.call.endswith("_norm") for name in call.weights)
