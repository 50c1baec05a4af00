"""The weights that a run begins with: fresh ones, which follow from its id, or those of a packed file."""

from collections.abc import Sequence

import numpy as np

from policies.networks.graph import Weight
from policies.networks.initial import initial
from policies.requests.families import Task
from silo_node.training.grid import Vector


def first_weights(task: Task, weights: Sequence[Weight]) -> Vector:
    """Return the first numbers of weights, one weight after another; each is a float32.

    A constant has those of the packed file always.
    """
    if task.graph is None:
        return initial(task.run, weights)
    is_packed, numbers = task.options.get("weights") == "packed", task.graph.weights
    found = [
        np.asarray(numbers[one.name], np.float64).reshape(-1)
        if one.name in numbers and (is_packed or one.initial == "constant")
        else initial(task.run, (one,))
        for one in weights
    ]
    return np.concatenate([np.zeros(0), *found])
