"""Estimates with 95 % intervals, computed from an opened sum. docs/privacy-promise.md, docs/intervals.md."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress, product
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from analyst.reports.intervals import Figures, Noisy, of_count, of_mean, of_total, surely
from analyst.sql.draft import Planned
from crypto.rounds.manifest import Block
from crypto.rounds.opening import OpenedSum
from policies.requests.persons import PERSONS
from policies.requests.query import CUT, ROWS, Aggregate, Plan, statistic_of
from policies.requests.request import Request
from policies.requests.statistic import Statistic
from policies.requests.tables import Table, TableColumn
from policies.units import MICRO

SURE_FROM = 100  # groups, from which only those are shown that surely have the minimum cohort, unless the analyst says
_COUNTS = ("rows", "present", "persons")  # the kinds of statistic that count rows, or persons


@dataclass(frozen=True, slots=True)
class Estimate:
    """A released figure, its 95 % interval and its standard deviation; None if the noise hides the figure."""

    value: float | None
    low: float | None
    high: float | None
    sd: float | None


@dataclass(frozen=True, slots=True)
class Threshold:
    """The least noisy count with which a group is shown, in rows.

    It is the largest minimum cohort of the silos; if `sure`, with so many deviations of the noise more that with
    probability 0.95 every group shown has the minimum.
    """

    min_cohort: int
    sure: bool
    noisy_count: float


def threshold_of(request: Request, opened: OpenedSum, min_cohort: int, sure: bool | None = None) -> Threshold:
    """Return the threshold of an answer; without a choice it is sure from SURE_FROM groups."""
    groups = request.plan.group_count(request.table)
    sure = groups >= SURE_FROM if sure is None else sure
    sd = next(noise_sd(block, opened) for statistic, block in blocks_of(request, opened) if statistic.kind in _COUNTS)
    return Threshold(min_cohort, sure, min_cohort + surely(groups) * sd if sure else float(min_cohort))


def interpret(
    planned: Planned,
    request: Request,
    opened: OpenedSum,
    threshold: Threshold,
) -> tuple[list[dict[str, Estimate | str | int]], list[dict[str, str | int]]]:
    """Return the rows of the answer and the groups withheld because their noisy count is below the threshold."""
    is_shown, sums = _shown(request, opened, threshold.noisy_count)
    table = planned.plan.seen(request.table)
    columns = {one.alias: _estimates(_figures(one, table, sums)) for one in planned.plan.aggregates}
    order, selected = planned.plan.group_by, planned.names
    names = selected | {column: column for column in order if column not in selected.values()}
    places = [(name, order.index(column)) for name, column in names.items()]
    rows: list[dict[str, Estimate | str | int]] = []
    for index, group in enumerate(compress(_groups(planned.plan, table), is_shown)):
        cells: dict[str, Estimate | str | int] = {name: group[place] for name, place in places}
        for alias, figures in columns.items():
            cells[alias] = figures[index]
        rows.append({name: cells[name] for name in planned.output})
    small = compress(_groups(planned.plan, table), ~is_shown)
    return rows, [{name: group[place] for name, place in places} for group in small]


def _groups(plan: Plan, table: Table) -> Iterator[tuple[str | int, ...]]:
    """Yield every group in the order of the slots, with the values of an int column as ints."""
    columns = (table.column(name) for name in plan.group_by)
    return product(*([*map(int, one.domain)] if one.type == "int" else one.domain for one in columns))


def planned_again(request: Request, output: tuple[str, ...], names: dict[str, str]) -> Planned:
    """Return the plan of a request's question again, with these output columns and names of dimensions.

    Raises KeyError unless the request is a question with these dimensions.
    """
    if not isinstance(request.plan, Plan) or set(names.values()) != set(request.plan.group_by):
        raise KeyError(f"{request.plan.kind} with the dimensions {', '.join(names.values())}")
    return Planned(request.table, request.plan, output, names)


def planned_plainly(request: Request) -> Planned:
    """Return the plan of a request's question again, with the names that the request has; raises KeyError."""
    if not isinstance(request.plan, Plan):
        raise KeyError(request.plan.kind)
    output = (*request.plan.group_by, *(one.alias for one in request.plan.aggregates))
    return Planned(request.table, request.plan, output, {name: name for name in request.plan.group_by})


def rho_of(request: Request) -> float:
    """Return the price of a request in zCDP rho."""
    return request.micro_rho / MICRO


def blocks_of(request: Request, opened: OpenedSum) -> Iterator[tuple[Statistic, Block]]:
    """Yield the statistics of a question, each with its block of the sum."""
    return zip(request.plan.statistics(request.table), opened.manifest.terms.blocks, strict=True)


def noise_sd(block: Block, opened: OpenedSum) -> float:
    """Return the standard deviation of the noise of all survivors, in rows or half steps."""
    variance = int(block.variance) * len(opened.survivor_set.survivors) / opened.manifest.noise_shares
    return math.ldexp(math.sqrt(variance), -block.scale_bits)


def _shown(
    request: Request, opened: OpenedSum, least: float
) -> tuple[npt.NDArray[np.bool_], Mapping[Statistic, Noisy]]:
    """Return which groups are shown, by the first count, and the sums of those groups in rows or half steps."""
    blocks = zip(blocks_of(request, opened), opened.blocks(), strict=True)
    sums = {
        one: Noisy(np.asarray(values, np.float64), noise_sd(block, opened))
        for (one, block), values in blocks
        if one != CUT
    }
    cohort = next(one for one in sums if one.kind in _COUNTS)
    is_shown = sums[cohort].values >= least
    # Only the count that selected the groups is what the selection has changed: the noise of the others is independent.
    return is_shown, {
        one: Noisy(noisy.values[is_shown], noisy.sd, least if one == cohort else -math.inf)
        for one, noisy in sums.items()
    }


def _estimates(figures: Figures) -> list[Estimate]:
    values, lows, highs, sds = (one.tolist() for one in (figures.values, figures.lows, figures.highs, figures.sds))
    return [
        Estimate(None, low, high, None) if math.isnan(value) else Estimate(value, low, high, sd)
        for value, low, high, sd in zip(values, lows, highs, sds, strict=True)
    ]


# The sums of a statistic of one column, by kind.
_Sums = Callable[[str], Noisy]


def _figures(aggregate: Aggregate, table: Table, sums: Mapping[Statistic, Noisy]) -> Figures:
    if aggregate.column is None and aggregate.function in ("count", "persons"):
        return of_count(sums[ROWS if aggregate.function == "count" else PERSONS])
    column = None if aggregate.column is None else table.column(aggregate.column)
    if column is None or column.low is None or column.high is None:  # the request's own validation excludes it
        raise ValueError(f"{aggregate.function} without a bounded column")
    return _ESTIMATES[aggregate.function](column, lambda kind: sums[statistic_of(kind, column)])


def _count(column: TableColumn, of: _Sums) -> Figures:
    return of_count(of("present"))


def _scale(column: TableColumn) -> tuple[float, float, float]:
    """Return the step of a measure, and the bounds in steps."""
    return float(column.step or 1), float(column.low or 0), float(column.high or 0)


def _centred(of: _Sums) -> Noisy:
    """Return the totals of distances from the middle of the bounds, in steps."""
    return Noisy(of("total").values / 2, of("total").sd / 2)


def _sum(column: TableColumn, of: _Sums) -> Figures:
    step, low, high = _scale(column)
    return of_total(of("present"), _centred(of), low, high).scaled(step)


def _avg(column: TableColumn, of: _Sums) -> Figures:
    step, low, high = _scale(column)
    return of_mean(of("present"), _centred(of), (high - low) / 2).scaled(step, step * (low + high) / 2)


# How each figure of a column is estimated from its sums.
_ESTIMATES: Mapping[str, Callable[[TableColumn, _Sums], Figures]] = MappingProxyType(
    {
        "count": _count,
        "sum": _sum,
        "avg": _avg,
    }
)
