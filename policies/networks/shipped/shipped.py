"""The interface of a shipped network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from policies.networks.graph import Graph, Input
from policies.options import Option

Label = Literal["bool", "text", "number"]  # the kinds of a label, as `policies.requests.shapes.Kind` has them
Feature = Literal["bool", "text", "number", "array"]
LABELS = frozenset[Label]({"bool", "text", "number"})
FEATURES = frozenset[Feature]({"bool", "text", "number", "array"})


@dataclass(frozen=True, slots=True)
class Shipped:
    """One network: its graph, by its options, the inputs that features give, and how many numbers it gives.

    Making the graph raises ValueError where the inputs are not those that it takes.
    """

    graph: Callable[[Mapping[str, str], tuple[Input, ...], int], Graph]
    options: Mapping[str, Option]
    labels: frozenset[Label] = LABELS
    features: frozenset[Feature] = FEATURES
    is_dense: bool = False  # whether all features are one row of numbers; else each is an input of its own
    has_wholes: bool = False  # whether an array is of whole numbers, which an embedding looks up
    has_reconstruction: bool = False  # whether it gives its own inputs again; a label is what it is judged by alone
