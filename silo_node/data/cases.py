"""The groups that conditions make of coded rows: of each row the first one that is true of it, else the last."""

import numpy as np

from policies.requests.cases import Cases
from policies.requests.tables import Table
from silo_node.data.coded import Integers, Rows
from silo_node.data.predicates import holds_each


def places(rows: Rows, table: Table, cases: Cases) -> Integers:
    """Return the place of each row's group among those of a case; each row is in one."""
    groups = {label: place for place, label in enumerate(cases.groups)}
    found = np.full(len(rows.person), groups[cases.otherwise], np.int64)
    is_open = np.ones(len(rows.person), np.bool_)
    for label, (true, _) in zip(cases.labels, holds_each(rows, table, cases.whens), strict=True):
        found[true & is_open] = groups[label]
        is_open &= ~true
    return found
