"""What predictions of a number add: errors in half ranges of the label, so that no unit of a column matters."""

from collections.abc import Mapping

import numpy as np

from policies.requests.metrics import MOST_ERROR, Sum
from policies.requests.tables import TableColumn
from silo_node.training.design import span
from silo_node.training.evaluation.classes import units
from silo_node.training.grid import Integers, Vector


def of_numbers(
    label: TableColumn, sums: Mapping[str, Sum], scores: Vector, outcomes: Vector, *, has_noise: bool
) -> dict[str, Integers]:
    """Return the blocks of numbers: `scores` and `outcomes` have the shape (rows,), in the label's unit.

    With noise a prediction is first moved into the label's bounds. An error of more than `MOST_ERROR` half ranges
    counts as that, and its row as outside.
    """
    middle, half, _ = span(label)
    truth, told = (outcomes - middle) / half, np.nan_to_num((scores - middle) / half, nan=np.inf)
    errors = np.clip(told, -1, 1) - truth if has_noise else told - truth
    bounded = np.clip(errors, -MOST_ERROR, MOST_ERROR)
    values = {
        "squared": bounded**2,
        "absolute": np.abs(bounded),
        "label": truth,
        "label-square": truth**2,
        "fourth": bounded**4,
        "outside": np.abs(errors) > MOST_ERROR,
    }
    found = {name: np.array([units(value, sums[name])]) for name, value in values.items() if name in sums}
    return {"rows": np.array([len(truth)]), **found}
