"""What a silo adds for survival curves: the trails of the events, and of the censored rows, of every group.

Exact whole numbers that add up over silos, and over parts of the persons. `policies/requests/survival.py` has their
meaning, and how much one row changes them.
"""

import numpy as np
import numpy.typing as npt

from policies.requests.survival import TRAILS, Grid, kernel
from policies.requests.tables import TableColumn
from silo_node.data.coded import NO_STEPS, Integers

Vector = npt.NDArray[np.int64]


def trails(group: Integers, groups: int, time: Integers, event: Integers, column: TableColumn, grid: Grid) -> Vector:
    """Return the trails of all groups, of shape (groups, TRAILS, bins) as one vector, each from the last bin backwards.

    `time` has the steps above the lower bound as `Steps` has them, `event` 0 or 1; a row counts where both are present.
    A time below the bounds is that of the lower one; above them a row is censored at the upper bound, as nothing that
    happens later is seen.
    """
    is_present = (time != NO_STEPS) & (event != NO_STEPS)
    group, cells, event = group[is_present], time[is_present].astype(np.int64), event[is_present]
    bins = (np.clip(cells, 0, column.range_steps) + (column.low or 0)) // grid.width - grid.first
    is_event = (event == 1) & (cells <= column.range_steps)
    place = (group.astype(np.int64) * TRAILS + np.where(is_event, 0, 1)) * grid.bins + (grid.bins - 1 - bins)
    counts = np.bincount(place, minlength=groups * TRAILS * grid.bins).reshape(-1, grid.bins)
    weights = np.array(kernel(grid.bins), np.int64)
    found: Vector = np.zeros(counts.shape, np.int64)
    for row in np.flatnonzero(counts.any(axis=1)):
        found[row] = np.convolve(counts[row].astype(np.int64), weights)[: grid.bins]
    return found.ravel()
