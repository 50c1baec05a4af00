"""The interface of a shipped network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from policies.networks.graph import Graph, Input
from policies.options import Option

Label = Literal["bool", "text", "number"]  # the kinds of a label, as `policies.requests.shapes.Kind` has them
LABELS = frozenset[Label]({"bool", "text", "number"})


@dataclass(frozen=True, slots=True)
class Shipped:
    """One network: its graph, by its options, the inputs that features give, and how many numbers it predicts by.

    Making the graph raises ValueError where the inputs are not those that it takes.
    """

    graph: Callable[[Mapping[str, str], tuple[Input, ...], int], Graph]
    options: Mapping[str, Option]
    labels: frozenset[Label] = LABELS
    is_dense: bool = True  # whether all features are one row of numbers; else each is an input of its own
