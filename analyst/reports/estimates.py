"""From an opened sum to estimates with their intervals."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from analyst.sql.draft import Planned
from crypto.rounds.opening import OpenedSum
from policies.requests.query import ROWS, Aggregate, Plan
from policies.requests.request import Request
from policies.requests.statistic import Statistic
from policies.requests.tables import TableColumn
from policies.units import MICRO

_COUNTS = ("rows", "present")  # the kinds of statistic that count rows
_Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution


@dataclass(frozen=True, slots=True)
class Estimate:
    """A released figure, its 95 % interval and its standard deviation; None where the noise drowned it."""

    value: float | None
    low: float | None
    high: float | None
    sd: float | None


def interpret(
    planned: Planned,
    request: Request,
    opened: OpenedSum,
    min_cohort: int,
) -> tuple[list[dict[str, Estimate | str | int]], list[dict[str, str | int]]]:
    """Return the rows of the answer and the groups withheld because their noisy count is below `min_cohort`."""
    sums = _sums(request, opened)
    cohort = next(statistic for statistic in sums if statistic.kind in _COUNTS)
    rows: list[dict[str, Estimate | str | int]] = []
    withheld: list[dict[str, str | int]] = []
    for index, group in enumerate(planned.plan.groups(request.table)):
        keys = {
            planned.names.get(column, column): _member(value, request.table.column(column))
            for column, value in zip(planned.plan.group_by, group, strict=True)
        }
        if sums[cohort][0][index] < min_cohort:
            withheld.append(dict(keys))
            continue
        cells: dict[str, Estimate | str | int] = dict(keys)
        for aggregate in planned.plan.aggregates:
            cells[aggregate.alias] = _estimate(
                aggregate, request.table.column(aggregate.column) if aggregate.column else None, sums, index
            )
        rows.append({name: cells[name] for name in planned.output})
    return rows, withheld


def planned_again(request: Request, output: tuple[str, ...], names: dict[str, str]) -> Planned:
    """Return the question of a request as it was planned, of these output columns and names of dimensions.

    Raises KeyError unless the request is a question with these dimensions.
    """
    if not isinstance(request.plan, Plan) or set(names) != set(request.plan.group_by):
        raise KeyError(f"{request.plan.kind} with the dimensions {', '.join(names)}")
    return Planned(request.table, request.plan, output, names)


def rho_of(request: Request) -> float:
    """Return the price of a request in zCDP rho."""
    return request.micro_rho / MICRO


def _sums(request: Request, opened: OpenedSum) -> dict[Statistic, tuple[Any, float]]:
    """Return the sum per group and its standard deviation, by statistic, in rows or half steps."""
    survivors = len(opened.split.survivors)
    sums: dict[Statistic, tuple[Any, float]] = {}
    blocks = zip(opened.manifest.terms.blocks, opened.blocks(), strict=True)
    for statistic, (block, values) in zip(request.plan.statistics(request.table), blocks, strict=True):
        variance = int(block.variance) * survivors / opened.manifest.noise_shares
        sums[statistic] = values, math.ldexp(math.sqrt(variance), -block.scale_bits)
    return sums


# The sum of a statistic of one column in one group, and its standard deviation, by kind.
_Sums = Callable[[str], tuple[float, float]]


def _estimate(
    aggregate: Aggregate, column: TableColumn | None, sums: dict[Statistic, tuple[Any, float]], index: int
) -> Estimate:
    def of(kind: str) -> tuple[float, float]:
        values, sd = sums[Statistic(kind, aggregate.column)]
        return float(values[index]), sd

    if column is None and aggregate.function == "count":
        return _interval(*of(ROWS.kind), 0.0, math.inf)
    if column is None or column.low is None or column.high is None:  # the request's own validation excludes it
        raise ValueError(f"{aggregate.function} without a bounded column")
    return _ESTIMATES[aggregate.function](column, of)


def _count(column: TableColumn, of: _Sums) -> Estimate:
    return _interval(*of("present"), 0.0, math.inf)


def _scale(column: TableColumn) -> tuple[float, float, float]:
    """Return the step of a measure, and the bounds in steps."""
    return float(column.step or 1), float(column.low or 0), float(column.high or 0)


def _sum(column: TableColumn, of: _Sums) -> Estimate:
    (count, count_sd), (total, total_sd) = of("present"), of("total")
    step, low, high = _scale(column)
    middle = (low + high) / 2
    sd = math.hypot(total_sd / 2, middle * count_sd)
    return _interval(step * (middle * count + total / 2), step * sd, -math.inf, math.inf)


def _avg(column: TableColumn, of: _Sums) -> Estimate:
    (count, count_sd), (total, total_sd) = of("present"), of("total")
    step, lowest, highest = _scale(column)
    centred, centred_sd = total / 2, total_sd / 2
    least, most = step * lowest, step * highest
    centre = step * ((lowest + highest) / 2)
    # Fieller, 1954: the interval of a quotient of two normal variables, exact where that of the first-order
    # approximation is too narrow. Unbounded where the count could be nothing: then a quotient says nothing.
    bound = count**2 - (_Z95 * count_sd) ** 2
    if count <= 0 or bound <= 0:
        return Estimate(None, least, most, None)
    product = centred * count
    root = math.sqrt(max(0.0, product**2 - bound * (centred**2 - (_Z95 * centred_sd) ** 2)))
    low, high = (centre + step * (product + sign * root) / bound for sign in (-1, 1))
    value, low_shown, high_shown = (
        min(max(figure, least), most) for figure in (centre + step * centred / count, low, high)
    )
    return Estimate(value, low_shown, high_shown, (high - low) / (2 * _Z95))


# How each figure of a column is estimated from its sums.
_ESTIMATES: Mapping[str, Callable[[TableColumn, _Sums], Estimate]] = MappingProxyType(
    {
        "count": _count,
        "sum": _sum,
        "avg": _avg,
    }
)


def _interval(value: float, sd: float, least: float, most: float) -> Estimate:
    """Return the 95 % interval, cut to what is publicly possible."""
    return Estimate(value, min(max(value - _Z95 * sd, least), most), max(min(value + _Z95 * sd, most), least), sd)


def _member(value: str, column: TableColumn) -> str | int:
    return int(value) if column.type == "int" else value
