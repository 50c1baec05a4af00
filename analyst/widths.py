"""How wide the intervals of an answer will be: by the noise that all silos together would add, and by assumed groups.

Pure: nothing is asked, and no row is read.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from analyst.reports.afterwards import read_after
from analyst.reports.curves import half_width
from analyst.reports.derived import derive
from analyst.reports.estimates import Estimate, estimates_of, figures_of, selected
from analyst.reports.rehearsal import made_up
from analyst.reports.scenarios import Sums
from analyst.sql.draft import Planned, Script
from crypto.rounds.bounds import noise_shares
from policies.requests.calibration import spreads_of
from policies.requests.catalogue import Catalogue
from policies.requests.computations import Computation
from policies.requests.query import CUT
from policies.requests.statements import statistics_of
from policies.requests.statistic import Statistic
from policies.requests.survival import SURVIVAL
from policies.requests.tables import Table

SIZES = (100, 1_000, 10_000, 100_000)  # rows of every group, for which widths are told


def deviations_of(
    table: Table, plan: Computation, micro_rho: int, silos: Collection[Catalogue]
) -> Mapping[Statistic, float]:
    """Return the deviation of the noise of each sum if all silos answer, in rows or half steps."""
    colluding = max(one.max_colluding for one in silos)
    missing = min(one.max_missing for one in silos)
    shares = noise_shares(len(silos), colluding, missing)
    return {
        one: math.ldexp(math.sqrt(spread.variance * len(silos) / shares), -spread.scale_bits)
        for one, spread in spreads_of(table, plan, micro_rho).items()
    }


def deviations_of_each(
    script: Script, micro_rho: int, silos: Collection[Catalogue]
) -> Sequence[Mapping[Statistic, float]]:
    """Return of each statement the deviation of the noise of its sums, as `deviations_of`, but of what was cut."""
    sds = deviations_of(script.table, script.plan, micro_rho, silos)
    return [
        {one: sds[named] for one, named in found.items() if one != CUT}
        for found in statistics_of(script.plan, script.table)
    ]


def widths(
    planned: Planned, deviations: Mapping[Statistic, float], sizes: Sequence[int] = SIZES
) -> dict[str, dict[int, float | None]]:
    """Return by column of the answer the half width of its interval, by the rows that every group has.

    None: the noise hides the figure.
    """
    found: dict[str, dict[int, float | None]] = {}
    plan, seen = planned.plan, planned.plan.seen(planned.table)
    groups = plan.group_count(planned.table)
    counts = groups if planned.after else 1
    shown = np.ones(counts, np.bool_)
    if (curve := plan.curve) is not None:
        sd = next(sd for one, sd in deviations.items() if one.kind == SURVIVAL)
        return {curve.alias: {size: half_width(curve, seen, sd, size) for size in sizes}}
    for size in sizes:
        rows = np.full(counts, float(size))
        sums = {one: made_up(one, seen, rows, np.zeros(counts), sd) for one, sd in deviations.items()}
        if planned.after and groups:
            after = read_after(planned.after, {one.alias: one.function for one in plan.aggregates})
            derived = derive(after, Sums(plan, seen, sums, shown), 0.0, bytes(32))
            cells = derived.rows[0] if derived.rows else {}
            named = {name: cells.get(name) for name in derived.columns if name not in derived.labels}
        else:
            plain = selected(sums, shown, -math.inf)
            named = {one.alias: estimates_of(figures_of(one, seen, plain))[0] for one in plan.aggregates}
        for name, cell in named.items():
            found.setdefault(name, {})[size] = _half(cell)
    return found


def _half(cell: object) -> float | None:
    if not isinstance(cell, Estimate) or cell.value is None or cell.low is None or cell.high is None:
        return None
    return (cell.high - cell.low) / 2
