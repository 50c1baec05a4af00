"""The form of a network that a silo holds, by which rows are scored wherever it goes: `policies.models.network`."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from policies.domains import LongDomain
from policies.models.network import Network
from policies.models.record import without_model
from policies.networks import parts
from policies.networks.graph import Graph
from policies.networks.names import PACKED
from policies.networks.packed import Packed
from policies.requests.exact import FamilyStep
from policies.requests.families import Kind, Task, kind_of
from policies.requests.networks import algorithm_of, algorithm_options, graph_of, is_reconstruction, shared_of
from silo_node.errors import SiloError
from silo_node.training import design
from silo_node.training.family import State
from silo_node.training.networks.first import first_weights
from silo_node.training.networks.inputs import typical_of
from silo_node.training.run import RunState

_LINKS: Mapping[Kind | None, Literal["identity", "logistic", "softmax", "reconstruction"]] = MappingProxyType(
    {"text": "softmax", "bool": "logistic", "number": "identity", None: "reconstruction"}
)
_TAKE = "list the models with `consilo-silo models list`"


def network_form(task: Task, state: State) -> Network:
    """Return the form of a network; raises SiloError where it has none, with the reason."""
    if "weights" not in state.numbers or without_model(state.ended) is not None:
        message = f"no prediction form: the run ended without a model ({state.ended or 'too early'})"
        raise SiloError(message, without_model(state.ended) or _TAKE)
    columns = tuple(task.table.column(name) for name in task.features)
    if any(isinstance(column.domain, LongDomain) for column in columns):
        message = "no prediction form: a feature has a long domain, which no form lists"
        raise SiloError(message, "a silo's owner predicts with `consilo-silo models predict`")
    graph = check_network(task)
    if own := sorted(algorithm_of(task).stays(graph, algorithm_options(task))):
        message = f"no prediction form: every silo has {own[0]} for itself, and no form has it"
        raise SiloError(message, "a silo's owner predicts with `consilo-silo models predict`")
    kind = None if is_reconstruction(task) else kind_of(task.label_column)
    shift, scale = design.span(task.label_column)[:2] if kind == "number" else (0.0, 1.0)
    if kind is None:
        scale = typical_of(task, state.numbers.get("losses", np.zeros(0)))
    return Network(
        model=task.family,
        label=task.label,
        classes=task.classes if kind == "text" else (),
        columns=columns,
        missing="indicator" if task.options["missing"] == "indicator" else "drop",
        link=_LINKS[kind],
        scale=scale,
        shift=shift,
        graph=graph,
        weights=_weights(task, state),
    )


def check_network(task: Task) -> Graph:
    """Return the graph of a network; raises SiloError where its packed file is not here."""
    try:
        return graph_of(task)
    except ValueError as err:
        raise SiloError(f"no prediction form: {err}", "add the file with `consilo-silo model add`") from err


def _weights(task: Task, state: State) -> bytes:
    """Return all weights in the order of the graph: the shared ones, and those that stayed as the run began."""
    graph = graph_of(task)
    shared = shared_of(task)
    places, found = parts.places(shared), []
    for one in graph.weights:
        is_shared = one.name in places
        found.append(state["weights"][places[one.name]] if is_shared else first_weights(task, (one,)))
    return np.concatenate([np.zeros(0), *found]).astype("<f4").tobytes()


def with_packed(state: RunState, find: Callable[[str], Packed | None]) -> RunState:
    """Return a state whose record has the packed network that its job names, where `find` finds it."""
    plan, record = None if state.record is None else state.record.plan, state.record
    if record is None or not isinstance(plan, FamilyStep) or plan.family != PACKED:
        return state
    known = plan.model_copy(update={"graph": plan.graph or find(plan.settings["graph"])})
    return state.model_copy(update={"record": record.model_copy(update={"plan": known})})
