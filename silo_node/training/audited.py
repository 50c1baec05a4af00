"""Rows by the groups of an audit: which group a row is in, and how many rows and persons each has."""

from collections.abc import Sequence

import numpy as np

from policies.requests.audited import members_of
from policies.requests.families import Task
from policies.requests.tables import TableColumn
from silo_node.training.family import Examples
from silo_node.training.grid import Integers
from silo_node.training.reweighed import member_of


def places_of(task: Task, columns: Sequence[TableColumn], examples: Examples) -> Integers:
    """Return the place of each row's group among those of `policies.requests.audited.groups_of`, of shape (rows,)."""
    found = np.zeros(examples.rows, np.int64)
    for column in columns:
        found = found * len(members_of(column)) + member_of(task, column.name, examples)
    return found


def persons_of(examples: Examples, group: Integers, groups: int) -> Integers:
    """Return the persons of each group, of shape (groups,): one that has rows of two is in both."""
    return np.bincount(np.unique(examples.person * groups + group) % groups, minlength=groups).astype(np.int64)
