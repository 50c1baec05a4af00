"""A silo's part of a round of training, and the scores of its rows: where numbers of a state become tensors."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from policies.networks import initial, parts
from policies.networks.algorithms.algorithm import UPDATE
from policies.networks.graph import Graph
from policies.requests.families import Task, kind_of
from policies.requests.networks import (
    EXPLODED,
    algorithm_of,
    algorithm_options,
    graph_of,
    guess_of,
    is_reconstruction,
    rate_of,
)
from silo_node.training.family import Examples
from silo_node.training.grid import Vector
from silo_node.training.networks import local
from silo_node.training.networks.first import first_weights
from silo_node.training.networks.inputs import inputs_of, targets_of, typical_of
from silo_node.training.networks.losses import losses, scores


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What a silo found in a round."""

    vectors: Mapping[str, Vector]  # by the names of the algorithm's sums
    loss: float  # the sum over rows, at the weights that all silos began with


def change_of(task: Task, weights: Vector, examples: Examples) -> Change | None:
    """Return the change of the shared weights by a training on these rows; None where it leaves its bounds.

    These are: a number that is not finite, a change beyond `most_change` in L2 norm, and a loss that exploded.
    """
    graph = graph_of(task)
    moved = parts.places(parts.shared(graph, task.options))
    start = all_weights(task, graph, moved, weights)
    arrays = inputs_of(task, graph, examples)
    rows = local.rows_of(arrays, targets_of(task, examples, arrays))
    of_rows = partial(losses, task)
    before = local.loss_sum(graph, start, rows, of_rows)
    if not math.isfinite(before):
        return None
    after = local.trained(graph, start, tuple(moved), rows, of_rows, _descent(task), *_orders(task, rows.count))
    change = local.vector_of(moved, after.weights) - local.vector_of(moved, start)
    exploded = EXPLODED * max(before / rows.count, guess_of(task))
    norm = float(np.sqrt(np.square(change).sum()))
    if not (norm <= float(task.options["most_change"]) and after.loss <= exploded):
        return None
    return Change({UPDATE: change}, before)


def scores_of(task: Task, weights: Vector, opened: Vector, examples: Examples) -> Vector:
    """Return the scores of rows, computed in blocks and in doubles, so that their order hardly matters.

    `opened` are the losses of the rounds.
    """
    graph, typical = graph_of(task), typical_of(task, opened)
    own = all_weights(task, graph, parts.places(parts.shared(graph, task.options)), weights)
    arrays = inputs_of(task, graph, examples)
    given = next(iter(arrays.values())) if is_reconstruction(task) else np.zeros(examples.rows)
    rows = local.rows_of(arrays, given)
    outputs = local.outputs(graph, local.doubled(own), local.doubled(rows.inputs))
    found = [scores(task, out, rows.targets[block].double(), typical) for block, out in outputs]
    shape = (0, len(task.classes)) if not is_reconstruction(task) and kind_of(task.label_column) == "text" else (0,)
    return np.concatenate([np.zeros(shape), *found])


def all_weights(task: Task, graph: Graph, shared: Mapping[str, slice], vector: Vector) -> local.Weights:
    """Return every weight: those that are shared, and the frozen ones as the run began with them."""
    frozen = [weight for weight in graph.weights if weight.name not in shared]
    places = parts.places(frozen)
    return local.tensors(graph, places, first_weights(task, frozen)) | local.tensors(graph, shared, vector)


def _descent(task: Task) -> local.Descent:
    options = task.options
    low, high = initial.words(task.run, f"dropout of round {task.number}", 2).tolist()
    return local.Descent(
        rate=rate_of(task),
        batch=int(options["batch"]),
        momentum=float(options["momentum"]),
        decay=float(options["decay"]),
        pull=algorithm_of(task).local(algorithm_options(task)).pull,
        seed=low + (high << 31),  # below 2^63, as torch takes one
    )


def _orders(task: Task, rows: int) -> list[local.Order]:
    """Return the order of rows in each epoch: drawn from the run and the round, as all of it is public."""
    epochs = range(int(task.options["epochs"]))
    return [initial.order(task.run, f"round {task.number} epoch {epoch}", rows) for epoch in epochs]
