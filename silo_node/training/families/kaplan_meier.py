"""Kaplan and Meier's curves by group on a public grid, with Greenwood's errors, and the log-rank test of the groups.

One round: how many rows of each group end in each bin of the time, with the event and in all. These are whole numbers,
the same for every split of the rows. Within a bin all events come before those who leave. A line of a curve has
`min_cohort` or more rows that end, and as many or none are left after it; what is finer is not kept. Kaplan and Meier,
JASA 53 (1958); Mantel, Cancer Chemother. Rep. 50 (1966).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policies.requests.families import Task, curve_grid, curve_groups
from policies.requests.survival import number
from policies.units import counted
from silo_node.training.curves import cells_of, counted_in, stretches
from silo_node.training.distributions import chi_square_tail, normal_quantile
from silo_node.training.events import happened
from silo_node.training.family import Examples, Family, Fitted, Line, Listing, State, figure, known, line
from silo_node.training.grid import Integers, Vector
from silo_node.training.newton import inverse

LEVEL = 0.95  # of the intervals
_HEADINGS = ("at risk", "events", "survival", "standard error", "2.5 %", "97.5 %")


def _statistics(task: Task, state: State, examples: Examples) -> list[Integers]:
    length = len(curve_groups(task)) * curve_grid(task).bins
    if task.number:
        return [np.zeros(1, np.int64), np.zeros(1, np.int64), *(np.zeros(length, np.int64),) * 2]
    cells = cells_of(task, examples, "group")
    counts = (counted_in(own, length) for own in (cells[happened(task, examples)], cells))
    sizes = (np.array([one], np.int64) for one in (examples.rows, examples.left_out))
    return [*sizes, *counts]


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """What a group has in each bin: arrays of shape (bins,), of whole numbers as doubles."""

    events: Vector
    ends: Vector  # with the event or without

    @property
    def at_risk(self) -> Vector:
        return np.asarray(np.cumsum(self.ends[::-1])[::-1])

    @property
    def survival(self) -> Vector:
        """Return the share that is left after each bin."""
        return np.asarray(np.cumprod(1 - self.events / np.maximum(self.at_risk, 1.0)))

    @property
    def variance(self) -> Vector:
        """Return Greenwood's variance of the logarithm of the share after each bin; infinite where nobody is left."""
        left = self.at_risk - self.events
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = np.where(self.events > 0, self.events / (self.at_risk * left), 0.0)
        return np.asarray(np.cumsum(parts))


def _update(task: Task, state: State, sums: Mapping[str, Integers]) -> State:
    if state.ended is not None:
        return state
    groups, bins, least = len(curve_groups(task)), curve_grid(task).bins, int(task.options["min_cohort"])
    ends = np.maximum(sums["ends"].reshape(groups, bins), 0).astype(np.float64)
    events = np.clip(sums["events"].reshape(groups, bins), 0, ends)  # whatever a silo has added
    shown = np.flatnonzero(ends.sum(1) >= least)
    lines: list[tuple[float, ...]] = []
    for place in map(int, shown):
        own = Counts(events[place], ends[place])
        risk, survival, variance = own.at_risk, own.survival, own.variance
        for first, last in stretches(own.ends, least):
            found = own.events[first : last + 1].sum(), survival[last], min(variance[last], 1e300)
            lines.append((place, last, float(risk[first]), *map(float, found)))
    columns = np.array(lines, np.float64).reshape(-1, 6).T
    names = ("group", "bin", "at_risk", "happened", "survival", "variance")
    state = state.with_(
        rows=ends[shown].sum(),
        left_out=float(sums["left-out"][0]),
        small=float(((ends.sum(1) > 0) & (ends.sum(1) < least)).sum()),
        shown=shown,
        group_rows=ends[shown].sum(1),
        group_events=events[shown].sum(1),
        log_rank=log_rank([Counts(events[place], ends[place]) for place in shown]),
        **dict(zip(names, columns, strict=True)),
    )
    return state.at_end("complete" if len(shown) else "too-few-rows")


def log_rank(groups: Sequence[Counts]) -> Vector:
    """Return the statistic and its degrees of freedom, or nothing where fewer than two groups can be compared.

    Events of each group less those expected under one curve for all, by their hypergeometric covariance.
    """
    if len(groups) < 2:
        return np.zeros(0)
    events, risk = np.array([one.events for one in groups]), np.array([one.at_risk for one in groups])
    happened_all, everybody = events.sum(0), np.maximum(risk.sum(0), 1.0)
    share = risk / everybody
    excess = (events - share * happened_all).sum(1)
    scale = happened_all * (everybody - happened_all) / np.maximum(everybody - 1, 1.0)
    spread = np.array([[(scale * one * ((place == at) - other)).sum() for at, other in enumerate(share)]
                       for place, one in enumerate(share)])  # fmt: skip
    kept = np.flatnonzero(np.diag(spread) > 0)[:-1]  # the last one follows from the others
    if not len(kept):
        return np.zeros(0)
    own = inverse(spread[np.ix_(kept, kept)])
    return np.array([float((own * np.outer(excess[kept], excess[kept])).sum()), float(len(kept))])


def _finish(task: Task, state: State) -> Fitted:
    if state.ended != "complete":
        return Fitted(listings=(), figures=(), notes=("too few rows: each group has fewer rows than min_cohort",))
    names, column, grid = curve_groups(task), task.table.column(task.parts["time"]), curve_grid(task)
    curves, overview = list[Listing](), list[Line]()
    for place, rows, events in zip(
        state["shown"].astype(int), state["group_rows"], state["group_events"], strict=True
    ):  # fmt: skip
        own = state["group"] == place
        times = [number(grid.ends(column, int(last), int(last))[1]) for last in state["bin"][own]]
        survival, variance = state["survival"][own], state["variance"][own]
        low, high = intervals(survival, variance)
        errors = np.where(survival > 0, survival * np.sqrt(variance), np.nan)
        numbers = np.array([state["at_risk"][own], state["happened"][own], survival, errors, low, high])
        lines = [
            Line(name=str(time), values=tuple(map(known, each))) for time, each in zip(times, numbers.T, strict=True)
        ]
        name = f"{task.parts['group']} = {names[place]}" if "group" in task.parts else "all rows"
        curves.append(Listing(name=f"survival of {name}"[:400], headings=_HEADINGS, lines=tuple(lines)))
        medians = (_first_half(times, one) for one in (survival, low, high))
        overview.append(line(name, (rows, events, *medians)))
    headings = ("rows", "events", "median", "2.5 %", "97.5 %")
    return Fitted(
        listings=(Listing(name="groups", headings=headings, lines=tuple(overview)), *curves),
        figures=tuple(_figures(state)),
        notes=tuple(_notes(task, state)),
    )


def _figures(state: State) -> Iterator[Line]:
    yield figure("rows", state.one("rows"))
    yield figure("rows left out", state.one("left_out"))
    if len(state["log_rank"]):
        statistic, freedom = map(float, state["log_rank"])
        yield figure("log-rank chi-square", statistic)
        yield figure("degrees of freedom", freedom)
        yield figure("p of the log-rank test", chi_square_tail(statistic, freedom))


def _notes(task: Task, state: State) -> Iterator[str]:
    least = task.options["min_cohort"]
    if state.one("small"):
        yield f"left out: {counted(state.one('small'), 'group')} of fewer than {least} rows"
    if least != "1":
        yield f"each line has {least} or more rows that end; after it {least} or more are left, or none"
        yield "a median is the end of its line: half were reached in that line, perhaps sooner"


def intervals(survival: Vector, variance: Vector) -> tuple[Vector, Vector]:
    """Return the ends of the intervals by log(-log), which stay in 0 to 1; NaN where the share is 0 or 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.log(survival)
        reach = normal_quantile((1 + LEVEL) / 2) * np.sqrt(variance) / logarithm
        low, high = np.exp(logarithm * np.exp(-reach)), np.exp(logarithm * np.exp(reach))
    is_told = (survival > 0) & (survival < 1)
    return np.where(is_told, low, np.nan), np.where(is_told, high, np.nan)


def _first_half(times: Sequence[float], shares: Vector) -> float:
    """Return the first time at which half or fewer are left; NaN where more are left."""
    found = np.flatnonzero(shares <= 0.5)
    return float(times[found[0]]) if len(found) else math.nan


FAMILY = Family(lambda task: State(), _statistics, _update, _finish)
