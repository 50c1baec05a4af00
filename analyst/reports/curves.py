"""The answer to SURVIVAL: the curve of every group row by row, its median, and whether the groups differ.

Every figure is computed from the released trails alone (`analyst/reports/survival.py`), so nothing here costs privacy.
The number of rows by which groups are shown has noise of its own, so a curve's intervals hold given that it is shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

from analyst.reports.derived import Cell, Derived
from analyst.reports.estimates import Label, Threshold, cohort_of, estimates_of, groups_of, sums_of
from analyst.reports.intervals import Z95, Figures, Floats, Noisy
from analyst.reports.survival import Counts, Curve, LogRank, Median, counts_of, curve_of, log_rank, median_of, reading
from analyst.sql.draft import Planned
from crypto.rounds.opening import OpenedSum
from policies.requests.query import Aggregate
from policies.requests.request import Request
from policies.requests.statistic import Statistic
from policies.requests.survival import BESIDE, TRAILS, Grid, grid_of, number
from policies.requests.tables import Table, TableColumn
from policies.units import counted

_DIGITS = 4  # of the population's ends, which have no interval of their own
_LABELS = (*BESIDE[:2], *BESIDE[4:])


@dataclass(frozen=True, slots=True)
class Answered:
    """The rows of all curves; `summary` has the median of each group and the test, as plain values."""

    derived: Derived
    summary: Mapping[str, Any]


def answered(planned: Planned, curve: Aggregate, request: Request, opened: OpenedSum, threshold: Threshold) -> Answered:
    """Return the answer to a question for survival curves."""
    table, sums = planned.plan.seen(request.table), sums_of(request, opened)
    time = table.column(str(curve.column))
    grid = grid_of(time, curve.width)
    is_shown = sums[cohort_of(sums)].values >= threshold.noisy_count
    order = planned.plan.group_by
    names = planned.names | {one: one for one in order if one not in planned.names.values()}
    groups = [
        {name: group[order.index(column)] for name, column in names.items()} for group in groups_of(planned.plan, table)
    ]
    counts = [one for one, shown in zip(_counts(curve, sums, grid), is_shown, strict=True) if shown]
    shown = list(compress(groups, is_shown))
    output = tuple(name for one in planned.output for name in ((one,) if one in names else _columns(one)))
    rows = [
        {name: {**group, **row}[name] for name in output}
        for group, one in zip(shown, counts, strict=True)
        for row in _rows(one, curve.alias, time, grid)
    ]
    told = [_told(median_of(curve_of(one)), time, grid) for one in counts]
    test = log_rank(counts)
    dimensions = {name: column for name, column in names.items() if name in output}
    derived = Derived(
        output,
        tuple(rows),
        dimensions,
        _LABELS,
        tuple(_notes(shown, told, test, time)),
        tuple(compress(groups, ~is_shown)),
    )
    medians = [{"group": dict(group), "median": one} for group, one in zip(shown, told, strict=True)]
    tested = None if test is None else {"chi2": _short(test.chi2), "freedom": test.freedom, "p": _short(test.p)}
    return Answered(derived, {"medians": medians, "log_rank": tested})


def _columns(alias: str) -> tuple[str, ...]:
    """Return the columns of a curve in the answer, beside the dimensions."""
    return (*BESIDE[:4], alias, *BESIDE[4:])


def _counts(curve: Aggregate, sums: Mapping[Statistic, Noisy], grid: Grid) -> Iterator[Counts]:
    """Yield the counts of every group, in the order of the slots."""
    noisy = sums[Statistic(curve.function, *curve.columns)]
    for events, censored in noisy.values.reshape(-1, TRAILS, grid.bins):
        yield counts_of(events, censored, noisy.sd)


def _rows(counts: Counts, alias: str, time: TableColumn, grid: Grid) -> Iterator[Mapping[str, Cell]]:
    """Yield the rows of one curve."""
    starts, ends = (np.array(one, np.int64) for one in zip(*grid.rows, strict=True))
    curve = curve_of(counts, ends.tolist())
    at_risk, events = estimates_of(_at_risk(counts, starts)), estimates_of(_events(counts, starts, ends))
    shares = estimates_of(Figures(curve.shares, curve.lows, curve.highs, curve.sds))
    for place, (first, last) in enumerate(grid.rows):
        start, end = grid.ends(time, first, last)
        cells = number(start), number(end), at_risk[place], events[place], shares[place], *_population(curve, place)
        yield dict(zip(_columns(alias), cells, strict=True))


def _population(curve: Curve, place: int) -> tuple[float | None, float | None]:
    least, most = (round(float(one[place]), _DIGITS) for one in (curve.least, curve.most))
    return (None, None) if least != least else (least, most)  # NaN is not itself


def _at_risk(counts: Counts, starts: Any) -> Figures:
    """Return how many are at risk at the start of some bins: as the curve has it, within the noise of its sum."""
    sds = np.sqrt(2) * counts.sd * reading(counts.bins).deviation_of_totals()[starts]
    return _within(counts.at_risk[starts], (counts.raw[0] + counts.raw[1])[starts], sds)


def _events(counts: Counts, starts: Any, ends: Any) -> Figures:
    """Return how many had the event from some bins to others."""
    sums, bins = reading(counts.bins).sums, counts.bins
    totals, behind = np.append(counts.events[::-1].cumsum()[::-1], 0.0), np.append(counts.raw[0], 0.0)
    sds = np.empty(len(starts))
    for place, (first, last) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        own = sums[: bins - first].copy()  # of the sum from the first bin on, by how far back
        own[last + 1 - first :] -= sums[: bins - last - 1]
        sds[place] = counts.sd * float(np.sqrt((own**2).sum()))
    return _within(totals[starts] - totals[ends + 1], behind[starts] - behind[ends + 1], sds)


def _within(shown: Floats, noisy: Floats, sds: Floats) -> Figures:
    """Return figures with the intervals of noisy ones, 0 or more, made to hold what is shown."""
    lows, highs = (np.maximum(noisy + side * Z95 * sds, 0.0) for side in (-1, 1))
    return Figures(shown, np.minimum(lows, shown), np.maximum(highs, shown), sds)


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _told(median: Median, time: TableColumn, grid: Grid) -> dict[str, int | float | None]:
    """Return a median in units of the time, each the last value of its bin; None: half are left at the last one."""
    bins = {
        "value": median.bin,
        "low": median.low,
        "high": median.high,
        "population_low": median.least,
        "population_high": median.most,
    }
    return {name: None if one is None else number(grid.ends(time, one, one)[1]) for name, one in bins.items()}


def _notes(
    groups: Sequence[Mapping[str, Label]],
    medians: Sequence[Mapping[str, int | float | None]],
    test: LogRank | None,
    time: TableColumn,
) -> Iterator[str]:
    """Yield in words what is no row of the curves."""
    for group, median in zip(groups, medians, strict=True):
        of = ", ".join(f"{name} = {'NULL' if one is None else one}" for name, one in group.items())
        where = f" of {of}" if of else ""
        if median["value"] is None:
            yield f"median {time.name}{where}: not told, as the curve is not known to fall to a half"
            continue
        ends = _ends(median["low"], median["high"])
        yield (
            f"median {time.name}{where}: {median['value']} ({ends});"
            f" of the population {_ends(median['population_low'], median['population_high'])}"
        )
    if test is not None:
        yield (
            f"log-rank test of {counted(len(groups), 'group')}, with the noise allowed for: chi2 {test.chi2:.3g},"
            f" {test.freedom} degree{'s' if test.freedom > 1 else ''} of freedom, p = {test.p:.2g}"
        )


def _ends(low: int | float | None, high: int | float | None) -> str:
    return f"{low} to {high}" if high is not None else f"{low} or more"


def half_width(curve: Aggregate, table: Table, sd: float, size: int) -> float | None:
    """Return the half width of a curve's interval where half of a group of so many rows are left, in steady decline."""
    grid = grid_of(table.column(str(curve.column)), curve.width)
    each = np.full(grid.bins, size / (2 * grid.bins))
    counts = Counts(each, each, (each, each), sd)
    middle = int(np.argmax(np.cumsum(each) * 2 >= size / 2))
    found = curve_of(counts, [middle])
    return None if np.isnan(found.shares[0]) else float(found.highs[0] - found.lows[0]) / 2


def planned_of(curve: Aggregate, output: Sequence[str]) -> tuple[str, ...]:
    """Return the output of a plan again from the columns of its answer; raises ValueError where they are others."""
    own = _columns(curve.alias)
    start = output.index(own[0])
    if tuple(output[start : start + len(own)]) != own:
        raise ValueError("the columns of a curve are not together")
    return (*output[:start], curve.alias, *output[start + len(own) :])
