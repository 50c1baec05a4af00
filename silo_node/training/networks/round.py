"""A silo's part of a round of training, and the scores of its rows: where numbers of a state become tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from policies.networks import initial, parts
from policies.networks.algorithms.algorithm import OWN_LAYERS, OWN_MODEL, UPDATE
from policies.requests.families import Task, kind_of
from policies.requests.networks import (
    EXPLODED,
    MOST_LOSS,
    graph_of,
    guess_of,
    is_for_own,
    is_reconstruction,
    local_of,
    rate_of,
    shared_of,
    staying_of,
)
from silo_node.training.family import Examples
from silo_node.training.grid import Vector
from silo_node.training.networks import local
from silo_node.training.networks.first import first_weights
from silo_node.training.networks.inputs import inputs_of, targets_of, typical_of
from silo_node.training.networks.losses import losses, scores
from silo_node.training.networks.owning import Beside


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What a silo found in a round."""

    vectors: Mapping[str, Vector]  # by the names of the algorithm's sums
    loss: float  # the sum over rows, at the weights that all silos began with
    way: float = 1.0  # the rates of all steps, added
    own: Mapping[str, Vector] = field(default_factory=dict)  # what the silo keeps for itself


def change_of(task: Task, weights: Vector, examples: Examples, beside: Beside) -> Change | None:
    """Return the change of the shared weights by a training on these rows; None where it leaves its bounds.

    These are: a number that is not finite, a change beyond `most_change` in L2 norm, and a loss that exploded.
    """
    graph, how = graph_of(task), local_of(task)
    shared, staying = parts.places(shared_of(task)), parts.places(staying_of(task))
    mine = parts.places((*shared_of(task), *staying_of(task)))
    start, moved = all_weights(task, weights, beside.own), tuple(mine)
    arrays = inputs_of(task, graph, examples)
    rows = local.rows_of(arrays, targets_of(task, examples, arrays))
    of_rows = partial(losses, task)
    before = local.loss_sum(graph, start, rows, of_rows)
    if not before <= MOST_LOSS:  # nor where it is no number
        return None
    if is_for_own(task):
        orders = _orders(task, rows.count, how.own_epochs or 1)
        model = local.trained(graph, start, moved, rows, of_rows, _descent(task), *orders).weights
        return _kept_alone(before, local.vector_of(mine, model))
    correction = None if beside.correction is None else local.tensors(graph, shared, beside.correction)
    descent, orders = replace(_descent(task), pull=how.pull), _orders(task, rows.count, int(task.options["epochs"]))
    after = local.trained(graph, start, moved, rows, of_rows, descent, *orders, correction=correction)
    change = local.vector_of(shared, after.weights) - local.vector_of(shared, start)
    exploded = EXPLODED * max(before / rows.count, guess_of(task))
    norm = float(np.sqrt(np.square(change).sum()))
    if not (norm <= float(task.options["most_change"]) and after.loss <= exploded):
        return None
    own = {OWN_LAYERS: local.vector_of(staying, after.weights)} if staying else {}
    if how.personal_pull is not None:
        model, pulled = _model(task, weights, beside.own), replace(_descent(task), pull=how.personal_pull)
        model = local.trained(graph, model, moved, rows, of_rows, pulled, *orders, towards=start).weights
        own[OWN_MODEL] = local.vector_of(mine, model)
    if not all(np.isfinite(one).all() for one in own.values()):
        return None
    steps = int(task.options["epochs"]) * -(-rows.count // descent.batch)
    return Change({UPDATE: change}, before, steps * descent.rate, own)


def _kept_alone(loss: float, model: Vector) -> Change | None:
    """Return a round that moves no shared weight, and leaves the silo a model of its own."""
    return Change({}, loss, own={OWN_MODEL: model}) if np.isfinite(model).all() else None


def scores_of(task: Task, weights: Vector, opened: Vector, examples: Examples, own: Mapping[str, Vector]) -> Vector:
    """Return the scores of rows, computed in blocks and in doubles, so that their order hardly matters.

    `opened` are the losses of the rounds. A silo that has a model of its own scores by that, and with its own layers
    else.
    """
    graph, typical = graph_of(task), typical_of(task, opened)
    mine = _model(task, weights, own)
    arrays = inputs_of(task, graph, examples)
    given = next(iter(arrays.values())) if is_reconstruction(task) else np.zeros(examples.rows)
    rows = local.rows_of(arrays, given)
    outputs = local.outputs(graph, local.doubled(mine), local.doubled(rows.inputs))
    found = [scores(task, out, rows.targets[block].double(), typical) for block, out in outputs]
    shape = (0, len(task.classes)) if not is_reconstruction(task) and kind_of(task.label_column) == "text" else (0,)
    return np.concatenate([np.zeros(shape), *found])


def all_weights(task: Task, vector: Vector, own: Mapping[str, Vector]) -> local.Weights:
    """Return every weight: those of all, those that stay at the silo, and the frozen ones as the run began."""
    graph, shared, staying = graph_of(task), shared_of(task), staying_of(task)
    taken = {weight.name for weight in (*shared, *staying)}
    frozen = [weight for weight in graph.weights if weight.name not in taken]
    layers = own[OWN_LAYERS] if OWN_LAYERS in own else first_weights(task, staying)
    vectors = ((frozen, first_weights(task, frozen)), (staying, layers), (shared, vector))
    return {
        name: tensor
        for weights, numbers in vectors
        for name, tensor in local.tensors(graph, parts.places(weights), numbers).items()
    }


def _model(task: Task, weights: Vector, own: Mapping[str, Vector]) -> local.Weights:
    """Return the weights of the silo's own model; those of all, with its own layers, where it has none."""
    if OWN_MODEL not in own:
        return all_weights(task, weights, own)
    shared = len(weights)
    return all_weights(task, own[OWN_MODEL][:shared], {OWN_LAYERS: own[OWN_MODEL][shared:]})


def _descent(task: Task) -> local.Descent:
    options = task.options
    low, high = initial.words(task.run, f"dropout of round {task.number}", 2).tolist()
    return local.Descent(
        rate=rate_of(task),
        batch=int(options["batch"]),
        momentum=float(options["momentum"]),
        decay=float(options["decay"]),
        seed=low + (high << 31),  # below 2^63, as torch takes one
    )


def _orders(task: Task, rows: int, epochs: int) -> list[local.Order]:
    """Return the order of rows in each epoch: drawn from the run and the round, as all of it is public."""
    return [initial.order(task.run, f"round {task.number} epoch {epoch}", rows) for epoch in range(epochs)]
