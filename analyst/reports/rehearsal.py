"""Try what is computed after the answer on figures that are made up, before anything is asked or paid."""

from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np

from analyst.errors import SqlError
from analyst.reports.afterwards import read_after
from analyst.reports.derived import derive
from analyst.reports.estimates import COUNTS
from analyst.reports.intervals import Noisy
from analyst.reports.plainly import fields_of
from analyst.reports.scenarios import REHEARSAL, Sums, can_draw
from analyst.sql.draft import Planned, check_fields
from policies.requests.query import CUT, field_names

_ROWS, _SD = 1000.0, 5.0  # of a made-up group, and of its noise


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
        check_names(plain.columns, plain.labels)
        return replace(planned, after=after.text)
    kinds = [one for one in plan.statistics(table) if one != CUT]
    counts = _ROWS + 10.0 * np.arange(groups, dtype=np.float64)
    sums = {one: Noisy(counts if one.kind in COUNTS else 0.1 * counts, _SD) for one in kinds}
    derived = derive(after, Sums(plan, plan.seen(table), sums, np.ones(groups, np.bool_)), 0.0, bytes(32), REHEARSAL)
    check_names(derived.columns, derived.labels)
    return replace(planned, after=after.text)


def check_names(columns: Iterable[str], labels: Collection[str]) -> None:
    """Raise SqlError unless the answer can be written."""
    check_fields(field for name in columns for field in ((name,) if name in labels else field_names(name)))
