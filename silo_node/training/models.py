"""The steps of training by their kind, each with the function that updates its model by an opened sum."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from policies.requests.request import Request
from silo_node.training import auditing, exact, logistic_model, split
from silo_node.training.noised import step as noised
from silo_node.training.run import Opened, RunState

# The state before (None at the start), the request, the report's name, the opened sum, the time: the state after.
Move = Callable[[RunState | None, Request, bytes, Opened, int], RunState]

MODELS: Mapping[str, Move] = MappingProxyType(
    {
        "logistic-regression": logistic_model.moved,
        "exact-step": exact.moved,
        "noised-step": noised.moved,
        "split": split.made,
        "audit-step": auditing.learned,
    }
)
