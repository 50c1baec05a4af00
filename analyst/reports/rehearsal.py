"""Try what is computed after the answer on figures that are made up, before anything is asked or paid."""

from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np
import sqlglot
from sqlglot import exp

from analyst.errors import SqlError
from analyst.reports.afterwards import read_after
from analyst.reports.derived import derive
from analyst.reports.estimates import COUNTS
from analyst.reports.intervals import Floats, Noisy
from analyst.reports.plainly import fields_of
from analyst.reports.scenarios import REHEARSAL, ComputingError, Sums, can_draw
from analyst.reports.trees import evenly
from analyst.sql.draft import Planned, Script, check_fields
from analyst.sql.places import placed
from analyst.sql.script import texts_of
from analyst.sql.split import RELEASED
from policies.requests.query import CUT, field_names
from policies.requests.statistic import Statistic
from policies.requests.tables import Table
from policies.requests.trees import TREE, tree_over

_MOST_TRIED = 60  # parts of a question's rest that are tried one by one where it fails
_ROWS, _SD = 1000.0, 5.0  # of a made-up group, and of its noise


def made_up(statistic: Statistic, table: Table, counts: Floats, totals: Floats, sd: float) -> Noisy:
    """Return the sums of groups with so many rows; in a tree they are spread evenly over the bounds."""
    if statistic.kind == TREE:
        return Noisy(evenly(counts, tree_over(table.column(str(statistic.column)))), sd)
    return Noisy(counts if statistic.kind in COUNTS else totals, sd)


def rehearsed_all(script: Script, sql: str) -> Script:
    """Return statements whose SQL after the answer works, each as `rehearsed` does; raises SqlError."""
    found, texts = list[Planned](), texts_of(sql)
    for place, (text, of_table) in enumerate(zip(texts, script.tables, strict=True), 1):
        try:
            found += [rehearsed(script.statements[one], text) for one in of_table]
        except SqlError as err:
            if len(texts) == 1:
                raise
            raise SqlError(f"statement {place} of {len(texts)}: {err.message}", err.hint) from err
    return replace(script, statements=tuple(found))


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
    if (plain := fields_of(after, plan, plan.seen(table))) is not None:
        check_names(plain.columns, plain.labels)
        return replace(planned, after=after.text)
    kinds = [one for one in plan.statistics(table) if one != CUT]
    counts = _ROWS + 10.0 * np.arange(groups, dtype=np.float64)
    seen = plan.seen(table)
    sums = {one: made_up(one, seen, counts, 0.1 * counts, _SD) for one in kinds}
    derived = derive(after, Sums(plan, seen, sums, np.ones(groups, np.bool_)), 0.0, bytes(32), REHEARSAL)
    check_names(derived.columns, derived.labels)
    return replace(planned, after=after.text)


def check_names(columns: Iterable[str], labels: Collection[str]) -> None:
    """Raise SqlError unless the answer can be written."""
    check_fields(field for name in columns for field in ((name,) if name in labels else field_names(name)))
