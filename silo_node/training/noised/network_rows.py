"""What a silo's rows give a network with noise: its persons' gradients, or its whole change. Here numbers are tensors.

Promise: no person changes the first, and no silo's rows the second, by more than `policies.requests.noised_networks`
states, whatever rows and weights are. What a dropout drops is drawn for each person, from a seed that nobody knows:
with a public one, who leaves would move what is dropped of everybody after.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from crypto.randomness import token
from policies.networks import parts
from policies.networks.algorithms.algorithm import UPDATE
from policies.requests.families import Task
from policies.requests.networks import graph_of, shared_of
from policies.requests.noised_networks import local_options, units_of
from silo_node.training.family import Examples
from silo_node.training.grid import Integers, Vector
from silo_node.training.networks.inputs import inputs_of, targets_of
from silo_node.training.networks.interpreter import computed
from silo_node.training.networks.local import rows_of
from silo_node.training.networks.losses import losses
from silo_node.training.networks.owning import Beside
from silo_node.training.networks.round import all_weights, change_of
from silo_node.training.noised.person_gradients import Bound, People, Summed, Tensors, summed
from silo_node.training.noised.whole import bounded

_HELD_BYTES = 8  # of a number that the way back holds, as doubles, of which the graph states half


def gradients(task: Task, weights: Vector, clip: float, examples: Examples) -> Summed:
    """Return the sum over persons of the gradients of their mean losses, each clipped; all 0 of no rows."""
    graph = graph_of(task)
    moved = parts.places(shared_of(task))
    own = all_weights(task, weights, {})
    frozen = {name: one.to(torch.float64) for name, one in own.items() if name not in moved}
    arrays = inputs_of(task, graph, examples)
    rows = rows_of(arrays, targets_of(task, examples, arrays))

    def loss(shared: Tensors, inputs: Tensors, targets: torch.Tensor) -> torch.Tensor:
        return losses(task, computed(graph, {**frozen, **shared}, inputs, is_training=True), targets).mean()

    people = People(examples.person, rows.inputs, rows.targets)
    shared = {name: own[name] for name in moved}
    with _seeded():
        bound = Bound(clip, units_of(len(weights)))
        return summed(loss, shared, people, bound, 1 + graph.cost.held // (_HELD_BYTES // 2))


def change(task: Task, weights: Vector, clip: float, examples: Examples) -> Integers:
    """Return the change of the weights by this silo's whole training, clipped; 0 where it leaves its bounds."""
    nothing = np.zeros(len(weights), np.int64)
    if not examples.rows:
        return nothing
    found = change_of(replace(task, options=local_options(task)), weights, examples, Beside())
    if found is None:
        return nothing
    return np.asarray(bounded(found.vectors[UPDATE][None], clip, units_of(len(weights)))[0])


@contextmanager
def _seeded() -> Iterator[None]:
    """Let torch draw from a fresh seed inside, and from where it was after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(token(8), "big") >> 1)
        yield
