"""The form of a network that a silo holds, by which rows are scored wherever it goes: `policies.models.network`."""

import numpy as np

from policies.domains import LongDomain
from policies.models.network import Network
from policies.models.record import without_model
from policies.networks import initial, parts
from policies.requests.families import Task, kind_of
from policies.requests.networks import algorithm_of, algorithm_options, graph_of
from silo_node.errors import SiloError
from silo_node.training import design
from silo_node.training.family import State

_TAKE = "list the models with `consilo-silo models list`"


def network_form(task: Task, state: State) -> Network:
    """Return the form of a network; raises SiloError where it has none, with the reason."""
    if "weights" not in state.numbers or without_model(state.ended) is not None:
        message = f"no prediction form: the run ended without a model ({state.ended or 'too early'})"
        raise SiloError(message, without_model(state.ended) or _TAKE)
    if task.label is None:
        raise SiloError(f"no prediction form: {task.family} without a label predicts none", _TAKE)
    columns = tuple(task.table.column(name) for name in task.features)
    if any(isinstance(column.domain, LongDomain) for column in columns):
        message = "no prediction form: a feature has a long domain, which no form lists"
        raise SiloError(message, "a silo's owner predicts with `consilo-silo models predict`")
    graph = graph_of(task)
    if own := sorted(algorithm_of(task).stays(graph, algorithm_options(task))):
        message = f"no prediction form: every silo has {own[0]} for itself, and no form has it"
        raise SiloError(message, "a silo's owner predicts with `consilo-silo models predict`")
    kind = kind_of(task.label_column)
    middle, half = design.span(task.label_column)[:2] if kind == "number" else (0.0, 1.0)
    return Network(
        model=task.family,
        label=task.label,
        classes=task.classes if kind == "text" else (),
        columns=columns,
        missing="indicator" if task.options["missing"] == "indicator" else "drop",
        link="softmax" if kind == "text" else "logistic" if kind == "bool" else "identity",
        scale=half,
        shift=middle,
        graph=graph,
        weights=_weights(task, state),
    )


def _weights(task: Task, state: State) -> bytes:
    """Return all weights in the order of the graph: the shared ones, and those that stayed as the run began."""
    graph = graph_of(task)
    shared = parts.shared(graph, task.options)
    places, found = parts.places(shared), []
    for one in graph.weights:
        is_shared = one.name in places
        found.append(state["weights"][places[one.name]] if is_shared else initial.initial(task.run, (one,)))
    return np.concatenate([np.zeros(0), *found]).astype("<f4").tobytes()
