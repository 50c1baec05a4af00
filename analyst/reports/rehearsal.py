"""Try what is computed after the answer on figures that are made up, before anything is asked or paid."""

from dataclasses import replace

import numpy as np
import sqlglot
from sqlglot import exp

from analyst.errors import SqlError
from analyst.reports.afterwards import read_after
from analyst.reports.derived import derive
from analyst.reports.estimates import COUNTS
from analyst.reports.intervals import Noisy
from analyst.reports.scenarios import ComputingError, Sums, can_draw
from analyst.sql.draft import Planned, check_fields
from analyst.sql.places import placed
from analyst.sql.split import RELEASED
from policies.requests.query import CUT, field_names

_MOST_TRIED = 60  # parts of a question's rest that are tried one by one where it fails
_ROWS, _SD = 1000.0, 5.0  # of a made-up group, and of its noise


def rehearsed(planned: Planned, sql: str) -> Planned:
    """Return a question whose SQL after the answer works, with that SQL as it was read.

    Raises SqlError, which says where in the question, `sql`, it is.
    """
    if not planned.after:
        return planned
    try:
        return _tried(planned)
    except ComputingError as err:
        raise placed(SqlError(err.message, err.hint), sql, _culprit(planned)) from err
    except SqlError as err:
        raise placed(err, sql) from err


def _culprit(planned: Planned) -> exp.Expr | None:
    """Return the innermost part of the SQL after the answer that cannot be computed by itself; None if all can."""
    query = sqlglot.parse_one(planned.after, dialect="duckdb")
    parts = query.find_all(exp.Func, exp.Binary, exp.Unary, exp.Cast, exp.Window, bfs=False)
    known = {*planned.plan.group_by, *(one.alias for one in planned.plan.aggregates)}
    for part in sorted(parts, key=lambda one: -one.depth)[:_MOST_TRIED]:
        is_inner = part.find(exp.Select) is not None or isinstance(part.parent, exp.Window | exp.Filter)
        if is_inner or any(one.name not in known for one in part.find_all(exp.Column)):
            continue
        alone = exp.select(exp.alias_(part.copy(), "x")).from_(RELEASED).sql(dialect="duckdb")
        try:
            _tried(replace(planned, after=alone))
        except ComputingError:
            return part
        except SqlError:
            continue
    return None


def _tried(planned: Planned) -> Planned:
    plan, table = planned.plan, planned.table
    groups = plan.group_count(table)
    if not can_draw(groups):
        raise SqlError(
            f"{groups:,} groups are too many to compute with after the answer",
            "ask for the figures alone, or group by fewer columns",
        )
    after = read_after(planned.after, {one.alias: one.function for one in plan.aggregates})
    kinds = [one for one in plan.statistics(table) if one != CUT]
    counts = _ROWS + 10.0 * np.arange(groups, dtype=np.float64)
    sums = {one: Noisy(counts if one.kind in COUNTS else 0.1 * counts, _SD) for one in kinds}
    derived = derive(after, Sums(plan, plan.seen(table), sums, np.ones(groups, np.bool_)), 0.0, bytes(32))
    check_fields(
        field for name in derived.columns for field in ((name,) if name in derived.labels else field_names(name))
    )
    return replace(planned, after=after.text)
