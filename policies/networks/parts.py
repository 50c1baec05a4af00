"""Which named weights of a graph silos sum, and where each lies in the vector of these: in the order of the graph."""

from collections.abc import Mapping, Sequence

from policies.networks.graph import Graph, Weight


def prefixes(text: str) -> tuple[str, ...]:
    """Return the beginnings of names in a list such as "layers.0,head"."""
    return tuple(one.strip() for one in text.split(",") if one.strip())


def begins(name: str, with_: Sequence[str]) -> bool:
    """Tell whether a name is one of these, or below it: `layers.0` is `layers.0.weight`'s, and not `layers.01`'s."""
    return any(name == one or name.startswith(one + ".") for one in with_)


def shared(graph: Graph, options: Mapping[str, str]) -> tuple[Weight, ...]:
    """Return the weights that are summed: all but constants, or those that the option `shared` names.

    Raises ValueError where it names none.
    """
    named = prefixes(options.get("shared", ""))
    for one in named:
        if not any(begins(weight.name, (one,)) for weight in graph.weights):
            known = ", ".join(weight.name for weight in graph.weights[:8])
            raise ValueError(f"shared: no weight is named {one!r}; the first are {known}")
    return tuple(weight for weight in graph.trained if not named or begins(weight.name, named))


def count(weights: Sequence[Weight]) -> int:
    """Return how many numbers weights have."""
    return sum(weight.count for weight in weights)


def places(weights: Sequence[Weight]) -> Mapping[str, slice]:
    """Return where each weight lies in the vector of all of these."""
    found, start = dict[str, slice](), 0
    for weight in weights:
        found[weight.name] = slice(start, start + weight.count)
        start += weight.count
    return found
