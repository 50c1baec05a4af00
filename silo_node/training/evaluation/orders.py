"""What predictions of who has an event first add: pairs of one stratum that they tell, tell wrongly, do not tell."""

import numpy as np

from policies.requests.families import Task
from silo_node.training.concordance import pairs
from silo_node.training.events import happened
from silo_node.training.families.cox import strata
from silo_node.training.family import Examples
from silo_node.training.grid import Integers, Vector


def of_orders(task: Task, examples: Examples, scores: Vector) -> dict[str, Integers]:
    """Return the blocks of an order: only rows of one silo and one stratum are compared, as the model compares them."""
    is_event, told = happened(task, examples), np.zeros(3, np.int64)
    for rows in strata(task, examples):
        if is_event[rows].any():
            told += pairs(examples.cells[task.parts["time"]][rows], is_event[rows], scores[rows])
    return {"rows": np.array([examples.rows]), "pairs": told}
