"""Try what is computed after the answer on figures that are made up, before anything is asked or paid."""

from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np

from analyst.errors import SqlError
from analyst.reports.afterwards import read_after
from analyst.reports.derived import derive
from analyst.reports.estimates import COUNTS
from analyst.reports.intervals import Floats, Noisy
from analyst.reports.plainly import fields_of
from analyst.reports.scenarios import REHEARSAL, Sums, can_draw
from analyst.reports.trees import evenly
from analyst.sql.draft import Planned, Script, check_fields
from policies.requests.query import CUT, field_names
from policies.requests.statistic import Statistic
from policies.requests.tables import Table
from policies.requests.trees import TREE, tree_over

_ROWS, _SD = 1000.0, 5.0  # of a made-up group, and of its noise


def made_up(statistic: Statistic, table: Table, counts: Floats, totals: Floats, sd: float) -> Noisy:
    """Return the sums of groups with so many rows; in a tree they are spread evenly over the bounds."""
    if statistic.kind == TREE:
        return Noisy(evenly(counts, tree_over(table.column(str(statistic.column)))), sd)
    return Noisy(counts if statistic.kind in COUNTS else totals, sd)


def rehearsed_all(script: Script) -> Script:
    """Return statements whose SQL after the answer works, each as `rehearsed` does; raises SqlError."""
    found = []
    for place, planned in enumerate(script.statements, 1):
        try:
            found.append(rehearsed(planned))
        except SqlError as err:
            if len(script.statements) == 1:
                raise
            raise SqlError(f"statement {place} of {len(script.statements)}: {err.message}", err.hint) from err
    return replace(script, statements=tuple(found))


def rehearsed(planned: Planned) -> Planned:
    """Return a question whose SQL after the answer works, with that SQL as it was read; raises SqlError."""
    if not planned.after:
        return planned
    plan, table = planned.plan, planned.table
    groups = plan.group_count(table)
    if not can_draw(groups):
        raise SqlError(
            f"{groups:,} groups are too many to compute with after the answer",
            "ask for the figures alone, or group by fewer columns",
        )
    after = read_after(planned.after, {one.alias: one.function for one in plan.aggregates})
    if (plain := fields_of(after, plan, plan.seen(table))) is not None:
        _check_names(plain.columns, plain.labels)
        return replace(planned, after=after.text)
    kinds = [one for one in plan.statistics(table) if one != CUT]
    counts = _ROWS + 10.0 * np.arange(groups, dtype=np.float64)
    seen = plan.seen(table)
    sums = {one: made_up(one, seen, counts, 0.1 * counts, _SD) for one in kinds}
    derived = derive(after, Sums(plan, seen, sums, np.ones(groups, np.bool_)), 0.0, bytes(32), REHEARSAL)
    _check_names(derived.columns, derived.labels)
    return replace(planned, after=after.text)


def _check_names(columns: Iterable[str], labels: Collection[str]) -> None:
    """Raise SqlError unless the answer can be written."""
    check_fields(field for name in columns for field in ((name,) if name in labels else field_names(name)))
