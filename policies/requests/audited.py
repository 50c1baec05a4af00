"""The groups of an audit: the values of a column with the role `audit`, or the pairs of values of two."""

import math
from collections.abc import Mapping, Sequence
from itertools import product

from policies.requests.tables import TableColumn

MAX_AUDITED = 1_000  # groups of an audit


def members_of(column: TableColumn) -> tuple[str, ...]:
    """Return the groups that a bool or a text divides rows into; the text's `unknown` is one of them."""
    return ("false", "true") if column.type == "bool" else tuple(column.domain)


def groups_of(columns: Sequence[TableColumn]) -> tuple[str, ...]:
    """Return the names of the groups of one or two columns, in order."""
    return tuple(" and ".join(one) for one in product(*map(members_of, columns)))


def count_of(columns: Sequence[TableColumn]) -> int:
    """Return how many groups there are."""
    return math.prod(len(members_of(column)) for column in columns)


def blocks(columns: Sequence[TableColumn], has_truth: bool) -> Mapping[str, int]:
    """Return the blocks of an audit: rows by group, truth (where it is known) and decision; and persons by group."""
    groups = count_of(columns)
    return {"rows": groups * (4 if has_truth else 2), "persons": groups, "left-out": 1}


def check(columns: Sequence[TableColumn]) -> None:
    """Raise ValueError for more groups than an audit has."""
    if (groups := count_of(columns)) > MAX_AUDITED:
        raise ValueError(f"an audit of {groups:,} groups, at most {MAX_AUDITED:,}; take columns of fewer values")
