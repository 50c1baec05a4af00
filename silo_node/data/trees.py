"""Counts of a tree's nodes, from the bins of rows: exact whole numbers, which add up over parts of the rows.

Pure. `policies/requests/trees.py` says which nodes there are, and in which order they stand.
"""

import numpy as np
import numpy.typing as npt

from policies.requests.trees import Tree
from silo_node.data.coded import Integers

Whole = npt.NDArray[np.int64]


def counts(group: Integers, value: Integers, groups: int, tree: Tree) -> Whole:
    """Return the rows of every node of each group's tree; a row has a value from 0 on, in steps."""
    places = group.astype(np.int64) * tree.bins + value.astype(np.int64) // tree.width
    level = np.bincount(places, minlength=groups * tree.bins).astype(np.int64).reshape(groups, tree.bins)
    levels = [level]
    for _ in tree.sizes[1:]:
        level = np.add.reduceat(level, np.arange(0, level.shape[1], tree.children), axis=1)
        levels.insert(0, level)
    return np.concatenate(levels, axis=1).ravel()
