"""Rows of one table with the columns of the same persons' rows in others: an inner join on the person, by place.

Pure. A person has one row in each of the other tables; where there are more, though the policy says that there are not,
the first one counts. So no row is made twice, and rows of who has none in one of the tables are left out.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from silo_node.data.coded import Aspect, Cells, Integers, Rows, Run, at

_NOBODY = -1


def joined(rows: Rows, persons: pa.Array, beside: Mapping[str, tuple[Rows, pa.Array]]) -> Rows:
    """Return the rows of persons who have one in each other table, with their cells there by TABLE.COLUMN.

    Each table has its rows and its persons by place, as `coded` returns them. Persons keep their places.
    """
    row_of = {name: _first_row(others)[_places(persons, theirs)] for name, (others, theirs) in beside.items()}
    is_everywhere = np.ones(rows.persons, np.bool_)
    for found in row_of.values():
        is_everywhere &= found != _NOBODY
    kept = np.flatnonzero(is_everywhere[rows.person])
    person = rows.person[kept]
    cells: dict[tuple[Aspect, str], Cells] = {key: at(one, kept) for key, one in rows.cells.items()}
    for name, (others, _) in beside.items():
        theirs = row_of[name][person]
        cells.update(((aspect, f"{name}.{key}"), at(one, theirs)) for (aspect, key), one in others.cells.items())
    return Rows(person, rows.persons, (Run(0, 0, len(kept)),), cells)


def _first_row(rows: Rows) -> Integers:
    """Return the place of the first row of each person, and at the end that there is none."""
    found = np.full(rows.persons + 1, _NOBODY, np.int64)
    found[rows.person[::-1]] = np.arange(len(rows.person))[::-1]  # the last to be written stays
    return found


def _places(persons: pa.Array, others: pa.Array) -> Integers:
    """Return the place of each person among others; -1, which is the last place, where there is none."""
    found = pc.fill_null(pc.index_in(persons, value_set=others), -1)
    return np.asarray(found.to_numpy(zero_copy_only=False))
