"""An opened report: values with their intervals, what was withheld, and what it cost.

Every figure is computed from the released (noisy) sums alone, so nothing here costs privacy.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from analyst.sql.plan import Planned
from crypto.opening import OpenedSum
from policies.model import MICRO
from policies.request import Aggregate, Denial, Request, Statistic, TableColumn, groups_of, statistics_of

_Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution


@dataclass(frozen=True, slots=True)
class Estimate:
    """A released figure, its 95 % interval and its standard deviation; None where the noise drowned it."""

    value: float | None
    low: float | None
    high: float | None
    sd: float | None


@dataclass(frozen=True, slots=True)
class SiloOutcome:
    """What one silo did: "answered", "dropped", "denied" or "missing"; `consent_as_of` in seconds since 1970."""

    status: str
    policy_hash: str | None
    denials: tuple[Denial, ...] = ()
    consent_as_of: int | None = None  # the clock time at which it read who consents, where the purpose asks that


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to one question."""

    columns: tuple[str, ...]
    dimensions: Mapping[str, str]  # which of them are groups, and the table's column of each
    rows: tuple[Mapping[str, Estimate | str | int], ...]
    withheld_groups: tuple[Mapping[str, str | int], ...]
    rho: float
    epsilon: float
    delta: float
    silos: Mapping[str, SiloOutcome]
    transcript: str  # the name of the encrypted report: the SHA-256 of all of it but its sum, which it binds
    assumptions: tuple[str, ...]
    wrong: tuple[str, ...] = ()  # silos whose sum contradicted the others' and was left out, in the backend `shares`

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values; docs/quickstart.md describes them."""
        return {
            "columns": list(self.columns),
            "dimensions": dict(self.dimensions),
            "rows": [
                {name: asdict(cell) if isinstance(cell, Estimate) else cell for name, cell in row.items()}
                for row in self.rows
            ],
            "withheld_groups": [dict(group) for group in self.withheld_groups],
            "rho": self.rho,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "silos": {
                silo: {
                    "status": outcome.status,
                    "policy_hash": outcome.policy_hash,
                    "denials": [denial.model_dump() for denial in outcome.denials],
                    "consent_as_of": None if outcome.consent_as_of is None else iso(outcome.consent_as_of),
                }
                for silo, outcome in self.silos.items()
            },
            "transcript": self.transcript,
            "assumptions": list(self.assumptions),
            "wrong": list(self.wrong),
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_records(self) -> list[dict[str, Any]]:
        """Return flat rows: an aggregate `n` becomes n, n_low, n_high and n_sd."""
        records = []
        for row in self.rows:
            record: dict[str, Any] = {}
            for name, cell in row.items():
                if isinstance(cell, Estimate):
                    record |= {
                        name: cell.value,
                        f"{name}_low": cell.low,
                        f"{name}_high": cell.high,
                        f"{name}_sd": cell.sd,
                    }
                else:
                    record[name] = cell
            records.append(record)
        return records

    def field_names(self) -> list[str]:
        """Return the column names of `to_records`, also when no row is left."""
        return [
            field
            for name in self.columns
            for field in ([name] if name in self.dimensions else [name, f"{name}_low", f"{name}_high", f"{name}_sd"])
        ]

    def to_arrow(self) -> Any:
        """Return a pyarrow.Table of `to_records`."""
        import pyarrow as pa

        records = self.to_records()
        return pa.table({name: [record[name] for record in records] for name in self.field_names()})

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame of `to_records`."""
        return self.to_arrow().to_pandas()


def iso(seconds: int) -> str:
    """Return a time (seconds since 1970) as ISO 8601 in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def between(times: Collection[int]) -> str:
    """Return the times, seconds since 1970, as one or as the first and the last of them."""
    return " to ".join(iso(time) for time in sorted({min(times), max(times)}))


def interpret(
    planned: Planned,
    request: Request,
    opened: OpenedSum,
    min_cohort: int,
) -> tuple[list[dict[str, Estimate | str | int]], list[dict[str, str | int]]]:
    """Return the rows of the answer and the groups withheld because their noisy count is below `min_cohort`."""
    sums = _sums(request, opened)
    cohort = next(statistic for statistic in statistics_of(planned.plan) if statistic.kind != "total")
    rows: list[dict[str, Estimate | str | int]] = []
    withheld: list[dict[str, str | int]] = []
    for index, group in enumerate(groups_of(request)):
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


def rho_of(request: Request) -> float:
    """Return the price of a request in zCDP rho."""
    return request.micro_rho / MICRO


def _sums(request: Request, opened: OpenedSum) -> dict[Statistic, tuple[Any, float]]:
    """Return the sum per group and its standard deviation, by statistic, in rows or half steps."""
    survivors = len(opened.split.survivors)
    sums: dict[Statistic, tuple[Any, float]] = {}
    blocks = zip(opened.manifest.terms.blocks, opened.blocks(), strict=True)
    for statistic, (block, values) in zip(statistics_of(request.plan), blocks, strict=True):
        variance = int(block.variance) * survivors / opened.manifest.noise_shares
        sums[statistic] = values, math.ldexp(math.sqrt(variance), -block.scale_bits)
    return sums


def _estimate(
    aggregate: Aggregate, column: TableColumn | None, sums: dict[Statistic, tuple[Any, float]], index: int
) -> Estimate:
    if aggregate.function == "count":
        values, sd = sums[Statistic("present", column.name) if column else Statistic("rows", None)]
        return _interval(float(values[index]), sd, 0.0, math.inf)
    if column is None or column.low is None or column.high is None:  # the request's own validation excludes it
        raise ValueError(f"{aggregate.function} without a bounded column")
    counts, count_sd = sums[Statistic("present", column.name)]
    totals, total_sd = sums[Statistic("total", column.name)]
    step = float(column.step or 1)
    count, middle = float(counts[index]), (column.low + column.high) / 2
    centred, centred_sd = float(totals[index]) / 2, total_sd / 2
    if aggregate.function == "sum":
        sd = math.hypot(centred_sd, middle * count_sd)
        return _interval(step * (middle * count + centred), step * sd, -math.inf, math.inf)
    least, most = step * column.low, step * column.high
    centre = step * middle
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


def _interval(value: float, sd: float, least: float, most: float) -> Estimate:
    """Return the 95 % interval, cut to what is publicly possible."""
    return Estimate(value, min(max(value - _Z95 * sd, least), most), max(min(value + _Z95 * sd, most), least), sd)


def _member(value: str, column: TableColumn) -> str | int:
    return int(value) if column.type == "int" else value
