"""Figures computed after the answer, from released figures alone, each with its 95 % interval. docs/intervals.md.

An interval is exact where a figure is a linear function of released sums, and Fieller's where it is a quotient of two
such; of a rank it follows from the intervals of what is ranked; of anything else it is that of draws from the released
distribution. Promise: a figure that is shown because of what its group's noisy figures are (HAVING, LIMIT, the minimum
cohort) has an interval that holds given that: truncated where the rule is one cut at a count, else at once for all rows
that could have been shown (Bonferroni). A value that depends on withheld figures alone is missing.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import compress
from typing import Any

import numpy as np

from analyst.reports.afterwards import Afterwards, Column, read_after
from analyst.reports.estimates import (
    Estimate,
    Label,
    Threshold,
    cohort_of,
    estimates_of,
    figures_of,
    groups_of,
    selected,
    sums_of,
)
from analyst.reports.intervals import ALPHA, Z95, Floats, fieller, z_of
from analyst.reports.possible import ANY, Range, bounds_of, range_of, ranges_of
from analyst.reports.rising import Rising, read
from analyst.reports.scenarios import ANSWER, Computed, Outcomes, Runs, Sums, compute
from analyst.sql.draft import Planned
from crypto.rounds.opening import OpenedSum
from crypto.wire import digest_of
from policies.requests.request import Request

Cell = Estimate | str | int | float | bool | None
_FAR = 5.0  # deviations above the threshold from which a count was never in danger of being withheld
_LINEAR = 1e-6  # relative: how far a linear figure is from what its parts say, by rounding
_SEED = b"consilo/1 draws after an answer"
_HIDDEN = Estimate(None, None, None, None)


@dataclass(frozen=True, slots=True)
class Derived:
    """The rows of an answer; `labels` are the columns without intervals, `dimensions` those that are groups."""

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Cell], ...]
    dimensions: Mapping[str, str]
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    withheld: tuple[Mapping[str, Label], ...]  # groups that are no rows; none where a row is no group of the core


def derived_of(planned: Planned, request: Request, opened: OpenedSum, threshold: Threshold) -> Derived:
    """Compute what a question does with the figures of an opened sum; the same answer gives the same intervals."""
    after = read_after(planned.after, {one.alias: one.function for one in planned.plan.aggregates})
    found = sums_of(request, opened)
    is_shown = found[cohort_of(found)].values >= threshold.noisy_count
    sums = Sums(planned.plan, planned.plan.seen(request.table), found, is_shown)
    values = b"".join(one.values.tobytes() for one in found.values())
    return derive(after, sums, threshold.noisy_count, sha256(_SEED + digest_of(request) + values).digest())


def derive(after: Afterwards, sums: Sums, least: float, seed: bytes, runs: Runs = ANSWER) -> Derived:
    """Compute what a question does with the figures of its groups; raises SqlError.

    `least` is the noisy count from which a group is shown; `seed` of 32 bytes makes the draws.
    """
    computed = compute(sums, after.result(), after.candidates(), after.is_whole, seed, runs)
    if not after.columns:
        after = replace(after, columns=tuple(map(Column, computed.columns)))
    made = _Made(after, sums, least, computed)
    cells = {column.name: made.cells(column) for column in after.columns}
    labels = tuple(name for name, column in cells.items() if not any(isinstance(one, Estimate) for one in column))
    rows = []
    for row, place in zip(computed.rows, computed.places, strict=True):
        found = {
            name: None if made.is_withheld(name, place) else _cell(cells[name][place], row[name], name in labels)
            for name in cells
        }
        noisy = [found[name] for name in cells if made.has_noise(name, place)]
        if after.is_whole or not noisy or any(one is not None for one in noisy):
            rows.append(found)
    by_column = {column.name: column for column in after.columns}
    dimensions = {name: key for name in labels if (key := _dimension(after, by_column[name], sums)) is not None}
    notes = [*_notes(labels, made, computed)]
    if not after.is_whole and (small := int((~sums.is_shown).sum())):
        notes.append(
            f"{small:,} of the {sums.groups:,} groups that figures are added up from have a noisy count below"
            f" {least:,.0f}: sums count them, averages and counts of groups do not"
        )
    return Derived(
        tuple(cells), tuple(rows), dimensions, labels, tuple(notes), tuple(_withheld(after, sums, dimensions))
    )


def _withheld(after: Afterwards, sums: Sums, dimensions: Mapping[str, str]) -> Iterator[Mapping[str, Label]]:
    """Yield the withheld groups, by the names that the answer has for their columns."""
    names = {column: name for name, column in dimensions.items()}
    columns = [names.get(column, column) for column in sums.plan.group_by]
    for group in compress(groups_of(sums.plan, sums.table), ~sums.is_shown) if after.is_whole else ():
        yield dict(zip(columns, group, strict=True))


def _dimension(after: Afterwards, column: Column, sums: Sums) -> str | None:
    """Return the column of the table that a column of the answer is, if it is a group of it."""
    if not after.is_whole:
        return None
    node = next(one for one in after.query.expressions if (one.alias_or_name or "") == column.name).unalias()
    name = node.name if node.key == "column" else ""
    return name if name in sums.plan.group_by else None


def _cell(made: Estimate | None, shown: Any, is_label: bool) -> Cell:
    """Return a cell: an estimate as it was made, or what the answer's SQL says."""
    if made is not None:
        return made
    value = shown if isinstance(shown, str | int | float | bool | None) else str(shown)
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    if is_label or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return Estimate(float(value), float(value), float(value), 0.0)


def _notes(labels: Sequence[str], made: "_Made", computed: Computed) -> Iterator[str]:
    """Yield how sure labels are that depend on noisy figures."""
    for name in labels:
        shares = [made.agreement(name, place) for place in computed.places if made.has_noise(name, place)]
        if shares:
            yield (
                f"{name} depends on noisy figures: in the row that is least sure, it is the same in"
                f" {100 * min(shares):.0f} % of draws of the noise"
            )


class _Made:
    """The cells of each column, for every candidate row."""

    def __init__(self, after: Afterwards, sums: Sums, least: float, computed: Computed) -> None:
        self._after, self._sums, self._computed = after, sums, computed
        self._least = max(least, after.cut[1]) if after.cut is not None else least
        self._rows = len(next(iter(computed.columns.values())).point)
        self._candidates = max(1, int(sums.is_shown.sum()) if after.is_whole else self._rows)
        self._noisy = {name: ~one.is_stable for name, one in computed.columns.items()}
        self._withheld = {name: one.is_of_withheld for name, one in computed.columns.items()}
        parts = iter(range(10_000))
        self._parts = {column.name: [f"_part{next(parts)}" for _ in range(_count(column))] for column in after.columns}

    def has_noise(self, name: str, place: int) -> bool:
        return bool(self._noisy[name][place])

    def is_withheld(self, name: str, place: int) -> bool:
        """Tell whether all noise in a value is that of withheld groups."""
        return bool(self._withheld[name][place])

    def agreement(self, name: str, place: int) -> float:
        """Return the share of draws in which a value is the same."""
        one = self._computed.columns[name]
        return float(np.mean([drawn == one.point[place] for drawn in one.drawn[:, place]]))

    def cells(self, column: Column) -> list[Estimate | None]:
        """Return a column's estimates; None for what is no noisy figure."""
        outcomes = self._computed.columns[column.name]
        if not outcomes.is_number:
            return [None] * self._rows
        alphas = self._alphas()
        if column.figure is not None:
            found: Sequence[Estimate] = self._figures(column.figure)
        elif self._after.is_whole and (rising := read(column.node, {one.alias for one in self._sums.plan.aggregates})):
            found = self._rising(rising, outcomes)
        elif column.quotient is not None and (of := self._quotients(column, alphas)) is not None:
            found = of
        elif column.rank is not None and self._after.is_whole:
            found = self._ranks(column)
        else:
            found = self._others(outcomes, alphas)
        found = [_within(one, self._possible(column)) for one in found]
        return [one if is_noisy else None for one, is_noisy in zip(found, self._noisy[column.name], strict=True)]

    def _possible(self, column: Column) -> Range:
        """Return what a column lies between for certain."""
        if column.node is None or column.figure is not None:
            return ANY
        table = self._sums.table
        return range_of(column.node, ranges_of(self._sums.plan, table), lambda name: bounds_of(table.column(name)))

    def _alphas(self) -> Floats:
        """Return with which probability the interval of each row may miss, so that it holds given what is shown."""
        if self._after.selects or self._after.cut is not None:
            return np.full(self._rows, ALPHA / self._candidates)
        if not self._after.is_whole:
            return np.full(self._rows, ALPHA)
        count = self._sums.of[cohort_of(self._sums.of)]
        is_far = count.values >= self._least + _FAR * count.sd
        return np.where(is_far, ALPHA, ALPHA / self._sums.groups)

    def _figures(self, alias: str) -> list[Estimate]:
        """Return figures as the silos' sums give them, for every group."""
        alpha = ALPHA / self._candidates if self._after.selects else ALPHA
        return self._plainly(alias, self._least, alpha)

    def _rising(self, rising: Rising, outcomes: Outcomes) -> list[Estimate]:
        """Return what rises or falls with one figure, by that figure's intervals."""
        found = list[Estimate]()
        for one, value in zip(self._figures(rising.figure), outcomes.point.tolist(), strict=True):
            if one.value is None or one.low is None or one.high is None or one.sd is None:
                found.append(_HIDDEN)
                continue
            low, high = rising.ends(one.low, one.high)
            first, last = rising.ends(one.value - one.sd, one.value + one.sd)
            is_known = all(map(math.isfinite, (value, low, high)))
            sd = (last - first) / 2 if math.isfinite(last - first) else (high - low) / (2 * Z95)
            found.append(_estimate(value, low, high, sd) if is_known else _HIDDEN)
        return found

    def _plainly(self, alias: str, least: float, alpha: float) -> list[Estimate]:
        aggregate = next(one for one in self._sums.plan.aggregates if one.alias == alias)
        everybody = np.ones(self._sums.groups, np.bool_)
        sums = selected(self._sums.of, everybody, least, alpha)
        return estimates_of(figures_of(aggregate, self._sums.table, sums))

    def _quotients(self, column: Column, alphas: Floats) -> list[Estimate] | None:
        """Return quotients of linear figures by Fieller's method; None where one of them is not linear."""
        above, below = (self._linear(self._computed.columns[name]) for name in self._parts[column.name])
        if above is None or below is None or column.quotient is None:
            return None
        (_, _, scale, offset), found = column.quotient, list[Estimate]()
        points = self._computed.columns[column.name].point
        tops, bottoms = (self._computed.columns[name].point for name in self._parts[column.name])
        z = np.array([z_of(alpha) for alpha in alphas.tolist()])
        variances = (above**2).sum(axis=0), (below**2).sum(axis=0)
        ends = fieller(tops, bottoms, variances, (above * below).sum(axis=0), z)
        possible = self._possible(column)
        has_bounds = all(map(math.isfinite, possible))
        given = zip(points.tolist(), bottoms.tolist(), *(one.tolist() for one in (*ends, z)), strict=True)
        for point, bottom, first, last, width in given:
            low, high = sorted((offset + scale * first, offset + scale * last))
            if has_bounds and bottom > 0 and math.isfinite(point):
                # A mean is shown also where its divisor may be 0: to hide it would select those that are not.
                low, high = (low, high) if math.isfinite(first) else possible
                point = min(max(point, possible[0]), possible[1])
            elif not (math.isfinite(first) and math.isfinite(point)):
                found.append(_HIDDEN)
                continue
            found.append(_estimate(point, low, high, (high - low) / (2 * width)))
        return found

    def _linear(self, outcomes: Outcomes) -> Floats | None:
        """Return by how much one deviation of each sum moves each row; None where that does not tell all of it."""
        noise = self._computed.noise
        if not noise.shape[1]:
            return None
        with np.errstate(invalid="ignore", over="ignore"):
            moves = outcomes.moved - outcomes.point
            drawn = outcomes.drawn - outcomes.point
            off = np.abs(drawn - noise @ moves).max(axis=0, initial=0.0)
            size = np.abs(drawn).max(axis=0, initial=0.0)
            return moves if bool(np.all(off <= _LINEAR * size + 1e-12)) else None

    def _ranks(self, column: Column) -> list[Estimate]:
        """Return ranks with intervals by those of what is ranked, at once for all rows that are ranked together."""
        if column.rank is None:
            raise ValueError(column.name)
        function, key, is_largest_first, _ = column.rank
        name, *partitions = self._parts[column.name]
        outcomes = self._computed.columns[name]
        if not outcomes.is_number:
            return [_HIDDEN] * self._rows
        alpha = ALPHA / max(self._rows, 1)
        is_figure = key.key == "column" and any(one.alias == key.name for one in self._sums.plan.aggregates)
        if is_figure:
            keys = self._plainly(key.name, -math.inf, alpha)
        else:
            keys = self._others(outcomes, np.full(self._rows, alpha))
        unknown = (-math.inf, math.inf)
        ends = np.array(
            [unknown if one.low is None or one.high is None else (one.low, one.high) for one in keys]
        ).reshape(-1, 2)
        lows, highs = (-ends[:, 1], -ends[:, 0]) if is_largest_first else (ends[:, 0], ends[:, 1])
        of = np.array(
            [str([self._computed.columns[one].point[row] for one in partitions]) for row in range(self._rows)]
        )
        found, points = list[Estimate](), self._computed.columns[column.name].point
        for row in range(self._rows):
            same = of == of[row]
            before, behind = int((same & (highs < lows[row])).sum()), int((same & (lows > highs[row])).sum())
            first = 1 + (min(before, 1) if function == "dense_rank" else before)
            last, value = int(same.sum()) - behind, float(points[row])
            found.append(_estimate(value, float(first), float(last), (last - first) / (2 * Z95)))
        return found

    def _others(self, outcomes: Outcomes, alphas: Floats) -> list[Estimate]:
        """Return figures by how their sums move them, if that is linear, or else by draws."""
        moves, found = self._linear(outcomes), list[Estimate]()
        sds = None if moves is None else np.sqrt((moves**2).sum(axis=0))
        for place, alpha in enumerate(alphas.tolist()):
            value = float(outcomes.point[place])
            if not math.isfinite(value):
                found.append(_HIDDEN)
            elif sds is not None:
                slack = z_of(alpha) * float(sds[place])
                found.append(_estimate(value, value - slack, value + slack, float(sds[place])))
            else:
                found.append(_by_draws(value, outcomes.drawn[:, place], z_of(alpha) / Z95))
        return found


def _within(one: Estimate, possible: Range) -> Estimate:
    """Return a figure with an interval of possible values; one that noise took beyond them is its own end."""
    if one.value is None or one.low is None or one.high is None:
        return one
    low, high = (min(max(end, possible[0]), possible[1]) for end in (one.low, one.high))
    return replace(one, low=min(low, one.value), high=max(high, one.value))


def _count(column: Column) -> int:
    """Return how many parts a column has among the candidates' columns."""
    return (2 if column.quotient is not None else 0) + (1 + len(column.rank[3]) if column.rank is not None else 0)


def _by_draws(value: float, drawn: Floats, stretch: float) -> Estimate:
    """Return the interval that has 95 % of the draws, stretched to what is asked; hidden where draws have no value."""
    found = drawn[np.isfinite(drawn)]
    if len(found) < (1 - ALPHA / 2) * len(drawn):
        return _HIDDEN
    low, high = (float(one) for one in np.quantile(found, (ALPHA / 2, 1 - ALPHA / 2)))
    low, high = min(low, value), max(high, value)
    return _estimate(value, value - stretch * (value - low), value + stretch * (high - value), (high - low) / (2 * Z95))


def _estimate(value: float, low: float, high: float, sd: float) -> Estimate:
    return Estimate(value, min(low, value), max(high, value), sd)
