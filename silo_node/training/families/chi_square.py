"""Pearson's chi-square test: whether each feature is independent of the label, without a correction for continuity.

Values that fewer persons than `min_cohort` have are left out of the table. Pearson, Phil. Mag. 50 (1900); the strength
of what is found: Cramer, Mathematical Methods of Statistics (1946).
"""

import math

from policies.requests.families import COUNTED, Task, values_of
from silo_node.training.distributions import chi_square_tail
from silo_node.training.family import Fitted, Line, Listing, State, known
from silo_node.training.grid import Vector
from silo_node.training.grouped import cohort_of, family_by_group, fitted, shown_groups, tables_of

_HEADINGS = ("chi-square", "df", "p", "Cramer's V", "least expected")
_SMALL = 5  # expected rows, below which the distribution is not that of the table


def _finish(task: Task, state: State) -> Fitted:
    shown, lines, notes = shown_groups(task, state), [], []
    for name, (table, persons) in tables_of(task, state, COUNTED).items():
        kept = persons >= cohort_of(task)
        for value, is_kept in zip(values_of(task.table.column(name)), kept, strict=True):
            if not is_kept:
                notes.append(f"left out: {name} = {value}, fewer than {cohort_of(task)} persons"[:400])
        numbers = _tested(table[shown][:, kept])
        lines.append(Line(name=name, values=numbers))
        if numbers[-1] is not None and numbers[-1] < _SMALL:
            notes.append(f"{name}: fewer than {_SMALL} rows are expected in a cell, so p is rough; merge values"[:400])
    return fitted(task, state, (Listing(name="independence", headings=_HEADINGS, lines=tuple(lines)),), notes)


def _tested(table: Vector) -> tuple[float | None, ...]:
    """Return the statistic, its degrees of freedom, p, Cramer's V and the smallest expected cell."""
    table = table[table.sum(1) > 0][:, table[table.sum(1) > 0].sum(0) > 0]
    rows, least = float(table.sum()), min(table.shape) - 1
    if least < 1:
        return (None,) * len(_HEADINGS)
    expected = table.sum(1)[:, None] * table.sum(0) / rows
    statistic = float(((table - expected) ** 2 / expected).sum())
    df = (table.shape[0] - 1) * (table.shape[1] - 1)
    strength = math.sqrt(statistic / rows / least)
    return tuple(map(known, (statistic, df, chi_square_tail(statistic, df), strength, expected.min())))


FAMILY = family_by_group(COUNTED, _finish)
