"""Estimates with 95 % intervals, computed from an opened sum. docs/privacy-promise.md, docs/intervals.md."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, product
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from analyst.reports.intervals import ALPHA, Figures, Noisy, of_count, of_mean, of_total, surely
from analyst.reports.moment_figures import Sums, of_column, of_pair
from analyst.reports.quantiles import of_quantile
from analyst.sql.draft import Planned
from crypto.rounds.manifest import Block
from crypto.rounds.opening import OpenedSum
from policies.requests.cases import by_name
from policies.requests.moments import SPREADS
from policies.requests.persons import PERSONS
from policies.requests.query import CUT, ROWS, Aggregate, Plan, statistic_of
from policies.requests.request import Request
from policies.requests.statistic import Statistic
from policies.requests.tables import Table, TableColumn
from policies.requests.trees import TREE
from policies.units import MICRO

SURE_FROM = 100  # groups, from which only those are shown that surely have the minimum cohort, unless the analyst says
Label = str | int | float | bool | None  # of a group in an answer; None is SQL's NULL
COUNTS = ("rows", "present", "persons")  # the kinds of statistic that count rows, or persons


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
    sd = next(noise_sd(block, opened) for statistic, block in blocks_of(request, opened) if statistic.kind in COUNTS)
    return Threshold(min_cohort, sure, min_cohort + surely(groups) * sd if sure else float(min_cohort))


def interpret(
    planned: Planned,
    request: Request,
    opened: OpenedSum,
    threshold: Threshold,
) -> tuple[list[dict[str, Estimate | Label]], list[dict[str, Label]]]:
    """Return the rows of the answer and the groups withheld because their noisy count is below the threshold."""
    everything, table = sums_of(request, opened), planned.plan.seen(request.table)
    is_shown = everything[cohort_of(everything)].values >= threshold.noisy_count
    sums = selected(everything, is_shown, threshold.noisy_count)
    columns = {one.alias: estimates_of(figures_of(one, table, sums)) for one in planned.plan.aggregates}
    order, shown = planned.plan.group_by, planned.names
    names = shown | {column: column for column in order if column not in shown.values()}
    places = [(name, order.index(column)) for name, column in names.items()]
    rows: list[dict[str, Estimate | Label]] = []
    for index, group in enumerate(compress(groups_of(planned.plan, table), is_shown)):
        cells: dict[str, Estimate | Label] = {name: group[place] for name, place in places}
        for alias, figures in columns.items():
            cells[alias] = figures[index]
        rows.append({name: cells[name] for name in planned.output})
    small = compress(groups_of(planned.plan, table), ~is_shown)
    return rows, [{name: group[place] for name, place in places} for group in small]


def groups_of(plan: Plan, table: Table) -> Iterator[tuple[Label, ...]]:
    """Yield every group in the order of the slots, with whole numbers as ints, and None for NULL."""
    return product(*(_labels(plan, table, name) for name in plan.group_by))


def _labels(plan: Plan, table: Table, name: str) -> Sequence[Label]:
    case = by_name(plan.cases).get(name)
    if case is not None:
        return [case.shown(group) for group in case.groups]
    column = table.column(name)
    return [*map(int, column.domain)] if column.type == "int" else column.domain


def planned_again(request: Request, output: tuple[str, ...], names: dict[str, str], after: str = "") -> Planned:
    """Return the plan of a request's question again, with these output columns, names of dimensions, and SQL after it.

    Raises KeyError unless the request is a question with these dimensions.
    """
    if not isinstance(request.plan, Plan) or not set(names.values()) <= set(request.plan.group_by):
        raise KeyError(f"{request.plan.kind} with the dimensions {', '.join(names.values())}")
    return Planned(request.table, request.plan, output, names, after)


def planned_plainly(request: Request, after: str = "") -> Planned:
    """Return the plan of a request's question again, with the names that the request has; raises KeyError."""
    if not isinstance(request.plan, Plan):
        raise KeyError(request.plan.kind)
    output = (*request.plan.group_by, *(one.alias for one in request.plan.aggregates))
    return Planned(request.table, request.plan, output, {name: name for name in request.plan.group_by}, after)


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


def sums_of(request: Request, opened: OpenedSum) -> Mapping[Statistic, Noisy]:
    """Return the noisy sums of all groups, in rows or half steps; of a tree those of each group's nodes."""
    blocks, groups = zip(blocks_of(request, opened), opened.blocks(), strict=True), request.plan.group_count
    shapes = {TREE: (groups(request.table), -1)}
    return {
        one: Noisy(np.asarray(values, np.float64).reshape(shapes.get(one.kind, -1)), noise_sd(block, opened))
        for (one, block), values in blocks
        if one != CUT
    }


def cohort_of(sums: Mapping[Statistic, Noisy]) -> Statistic:
    """Return the statistic by which groups are shown: the first count."""
    return next(one for one in sums if one.kind in COUNTS)


def selected(
    sums: Mapping[Statistic, Noisy], is_shown: npt.NDArray[np.bool_], least: float, alpha: float = ALPHA
) -> Mapping[Statistic, Noisy]:
    """Return the sums of the groups that are shown because their first count is `least` or more."""
    cohort = cohort_of(sums)
    # Only the count that selected the groups is what the selection has changed: the noise of the others is independent.
    return {
        one: Noisy(noisy.values[is_shown], noisy.sd, least if one == cohort else -math.inf, alpha)
        for one, noisy in sums.items()
    }


def estimates_of(figures: Figures) -> list[Estimate]:
    """Return figures one by one."""
    values, lows, highs, sds = (one.tolist() for one in (figures.values, figures.lows, figures.highs, figures.sds))
    return [
        Estimate(None, low, high, None) if math.isnan(value) else Estimate(value, low, high, sd)
        for value, low, high, sd in zip(values, lows, highs, sds, strict=True)
    ]


# The sums of a statistic of one column, by kind.
_Sums = Callable[[str], Noisy]


def figures_of(aggregate: Aggregate, table: Table, sums: Mapping[Statistic, Noisy]) -> Figures:
    """Return the figures of an aggregate, from the sums of its statistics."""
    if aggregate.column is None:
        return of_count(sums[PERSONS if aggregate.function == "persons" else ROWS])
    column, *others = (table.column(name) for name in aggregate.columns)
    if aggregate.at is not None:
        trees, counts = (sums[statistic_of(kind, column)] for kind in (TREE, "present"))
        return of_quantile(trees, counts, column, float(aggregate.at), aggregate.function == "quantile_disc")
    if others:
        return of_pair(aggregate.function, (column, others[0]), _beside(sums))
    if aggregate.function in SPREADS:
        return of_column(aggregate.function, column, _beside(sums))
    return _ESTIMATES[aggregate.function](column, lambda kind: sums[statistic_of(kind, column)])


def _beside(sums: Mapping[Statistic, Noisy]) -> Sums:
    """Return the sums of a statistic by kind, column, and the column beside it."""
    return lambda kind, column, beside: sums[statistic_of(kind, column, beside)]


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
