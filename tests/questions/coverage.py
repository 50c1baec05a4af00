"""How often the shown intervals of each function hold the truth, over repeated noise, also after a drop-out.

Groups are large, small and empty, their values spread, skewed or all at an end of the bounds. The truth is the answer
without noise; what is counted is shown: a group whose noisy count is at the threshold or more, and a cell with a value.
To measure another function, add a question to CORE or DERIVED: it is grouped by `kind`, or not at all.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from analyst.reports.derived import derived_of
from analyst.reports.estimates import Estimate, Threshold, blocks_of, interpret, noise_sd, planned_plainly
from analyst.sql.draft import Planned
from policies.requests.query import Plan
from policies.requests.request import Request
from policies.requests.tables import Table
from tests.harness.example_policy import request
from tests.harness.sums import opened_as
from tests.questions.data import Federation, of_silos

SIZES = {"a1": 400, "a2": 80, "b1": 20, "b22": 5, "Zoë's": 0, None: 40}  # rows by kind
SHAPES = ("spread", "skewed", "ends")
SD, LEAST = 8.0, 10.0  # of the noise of a count, without drop-outs; the noisy count from which a group is shown
SURVIVORS, SHARES = 4, 3  # of five silos one is missing, and one may collude
TILED = 990  # groups of a core question, each of which is a run

BY_KIND = "SELECT kind, {} AS x FROM visits GROUP BY kind"
CORE = tuple(
    BY_KIND.replace("{}", f"{'' if 'COUNT(*)' in figure else 'COUNT(*) AS n, '}{figure}")
    for figure in (
        "COUNT(*)", "COUNT(age)", "SUM(age)", "SUM(cost)", "SUM(score)", "SUM(smoker)", "AVG(age)", "AVG(cost)",
        "AVG(smoker)", "COUNT(DISTINCT patient_id)", "VAR_POP(age)", "VAR_SAMP(age)", "STDDEV_POP(age)", "STDDEV(age)",
        "STDDEV(smoker)", "COVAR_POP(age, stay)", "COVAR_SAMP(age, stay)", "CORR(age, stay)", "REGR_SLOPE(age, stay)",
        "REGR_INTERCEPT(age, stay)", "REGR_R2(age, stay)", "REGR_COUNT(age, stay)", "REGR_AVGX(age, stay)",
        "REGR_AVGY(age, stay)",
    )
) + tuple(  # selected by its own count
    BY_KIND.replace("{}", figure) for figure in ("SUM(age)", "AVG(age)", "SUM(cost)", "CORR(age, stay)", "STDDEV(age)")
)  # fmt: skip
DERIVED = (
    *(
        BY_KIND.replace("{}", figure)
        for figure in (
            "COUNT(*) * 2 - 7", "SUM(age) / SUM(stay)", "SUM(age) / COUNT(*)", "ROUND(AVG(age), 1)",
            "ROUND(STDDEV(age))", "ROUND(SUM(age), -1)", "AVG(age) / AVG(stay)", "STDDEV(age) / AVG(age)",
            "SQRT(COUNT(*))", "LN(AVG(age))",
            "COALESCE(AVG(age), 0)", "GREATEST(COUNT(*), 30)", "CASE WHEN COUNT(*) > 30 THEN AVG(age) END",
            "100.0 * COUNT(*) / SUM(COUNT(*)) OVER ()", "SUM(COUNT(*)) OVER (ORDER BY kind)", "COUNT(*) * COUNT(*)",
            "COUNT(*) FILTER (WHERE smoker)", "COUNT_IF(age > 50)", "SUM(age) FILTER (WHERE smoker)",
            "AVG(age) FILTER (WHERE smoker)", "AVG(CASE WHEN smoker THEN 1 ELSE 0 END)",
            "COUNT(*) FILTER (WHERE smoker) / COUNT(*)",
            "AVG(age) FILTER (WHERE smoker) - AVG(age) FILTER (WHERE NOT smoker)",
            "SUM(cost) FILTER (WHERE age > 50)", "AVG(age) - AVG(stay)", "CORR(age, stay) * 2", "VAR_SAMP(age) / 4",
        )
    ),
    "SELECT AVG(age) FILTER (WHERE smoker) AS x, COUNT(*) FILTER (WHERE smoker) AS y FROM visits",
    "SELECT AVG(age) / AVG(stay) AS x, SUM(age) / COUNT(*) AS y FROM visits",
    "SELECT SUM(n) AS x, MAX(n) AS y FROM (SELECT kind, COUNT(*) AS n FROM visits GROUP BY kind)",
    "SELECT AVG(n) + 1 AS x FROM (SELECT patient_id, LEAST(COUNT(*), 5) AS n FROM visits GROUP BY patient_id)",
)  # fmt: skip
# Questions whose rows noise picks, and the one that has the truth of all rows.
PICKED = (
    (BY_KIND.replace("{}", "COUNT(*)") + " HAVING COUNT(*) > 30", BY_KIND.replace("{}", "COUNT(*)")),
    (BY_KIND.replace("{}", "AVG(age)") + " HAVING COUNT(*) > 30", BY_KIND.replace("{}", "AVG(age)")),
    (BY_KIND.replace("{}", "AVG(age)") + " ORDER BY x DESC LIMIT 1", BY_KIND.replace("{}", "AVG(age)")),
    (BY_KIND.replace("{}", "SUM(age)") + " ORDER BY COUNT(*) LIMIT 2", BY_KIND.replace("{}", "SUM(age)")),
)


@dataclass(slots=True)
class Covered:
    """How many intervals were shown, and how many of them hold the truth, by group; and what no interval may be."""

    shown: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    impossible: list[str] = field(default_factory=list)  # ends of intervals beyond what is possible

    def add(self, group: str, cell: Estimate, truth: float, possible: tuple[float, float]) -> None:
        """Count one interval; `possible` are the least and the largest value that the figure can have."""
        if cell.value is None or cell.low is None or cell.high is None:
            return
        slack = 1e-7 * (1 + abs(truth))
        self.shown[group] = self.shown.get(group, 0) + 1
        self.held[group] = self.held.get(group, 0) + int(cell.low - slack <= truth <= cell.high + slack)
        # A figure that noise took beyond it is an end of its own interval.
        least, most = min(possible[0], cell.value), max(possible[1], cell.value)
        if not least - 1e-9 <= cell.low <= cell.high <= most + 1e-9:
            self.impossible.append(f"{group}: {cell}")

    def merge(self, other: "Covered") -> None:
        for mine, theirs in ((self.shown, other.shown), (self.held, other.held)):
            for group, count in theirs.items():
                mine[group] = mine.get(group, 0) + count
        self.impossible += other.impossible

    def worst(self, least: int) -> tuple[str, float]:
        """Return the group of which the fewest intervals hold the truth, among those with `least` shown ones."""
        shares = {group: self.held[group] / count for group, count in self.shown.items() if count >= least}
        return min(shares.items(), key=lambda one: one[1], default=("none", math.nan))


def rows_of(shape: str) -> Iterator[Mapping[str, Any]]:
    random, person = np.random.default_rng([29, SHAPES.index(shape)]), 0
    for kind, size in SIZES.items():
        for row in range(size):
            person += int(row % 3 != 1)  # two persons of three rows
            spread = shape == "spread"
            at_end = random.random() < (0.05 if shape == "skewed" else 0.5)
            age = int(random.integers(20, 95)) if spread else 110 * at_end if shape == "ends" else 3 + 60 * at_end
            yield {
                "patient_id": f"p{person}",
                "kind": kind,
                "age": age,
                "stay": int(np.clip(age // 2 + random.integers(-9, 9), 0, 60)),
                "cost": float(np.round(np.clip(40 * age + random.normal(0, 400), -50, 5000), 2)),
                "visits": int(random.integers(0, 9)),
                "score": int(random.integers(-10, 11)),
                "smoker": bool(random.random() < (0.4 if spread else 0.05)),
                "died": bool(random.random() < 0.5),
                "weight": float(random.integers(0, 400)) / 2,
            }


@cache
def silo(home: Path, shape: str) -> Federation:
    """Return one silo whose rows have a shape."""
    return of_silos(home, [list(rows_of(shape))])


def asked_by(planned: Planned) -> Request:
    """Return the request of a question at a price by which a count of one row a person has noise of SD."""
    table = planned.table.model_copy(update={"max_rows": 1, "max_silos": 1})
    parts = len(planned.plan.statistics(table))
    return request(table=table, plan=planned.plan, micro_rho=round(1e6 * parts / (2 * SD**2)))


def exact_sums(of: Federation, planned: Planned) -> list[np.ndarray[Any, Any]]:
    """Return the sums of all rows."""
    return [one.astype(np.float64) for one in of.sums(request(table=planned.table, plan=planned.plan))]


def noisy(asked: Request, sums: Sequence[Any], random: np.random.Generator) -> Any:
    quiet = opened_as(asked, sums, SHARES, SURVIVORS)
    sds = [noise_sd(block, quiet) for _, block in blocks_of(asked, quiet)]
    drawn = [one + sd * random.standard_normal(len(one)) for one, sd in zip(sums, sds, strict=True)]
    return opened_as(asked, drawn, SHARES, SURVIVORS)


def truths(of: Federation, question: str) -> dict[str, dict[str, float]]:
    """Return the figures of an answer without noise, by group."""
    return {
        str(row.get("kind")): {name: value for name, value in row.items() if name != "kind"}
        for row in of.answer(question, -math.inf)
    }


def core_runs(of: Federation, question: str, runs: int, seed: int) -> Covered:
    """Measure a question that is nothing but aggregates by kind, over so many draws of the noise."""
    planned, known, found = of.planned(question), truths(of, question), Covered()
    sums, random = exact_sums(of, planned), np.random.default_rng([31, seed])
    groups = [str(group[0]) for group in planned.plan.groups(planned.table)]
    each = TILED // len(groups)
    tiled = _tiled(planned, each * len(groups))
    asked = asked_by(tiled)
    for _ in range(-(-runs // each)):
        opened = noisy(asked, [np.tile(one, each) for one in sums], random)
        rows, _ = interpret(planned_plainly(asked), asked, opened, Threshold(0, False, LEAST))
        for row in rows:
            group = groups[int(str(row["kind"])[1:]) % len(groups)]
            _count(found, group, row, known[group], question)
    return found


def _tiled(planned: Planned, groups: int) -> Planned:
    """Return a question whose groups are repeated, so that one answer is many."""
    domain = tuple(f"g{number}" for number in range(groups))
    columns = tuple(
        one.model_copy(update={"domain": domain, "unknown": domain[-1]}) if one.name == "kind" else one
        for one in planned.table.columns
    )
    table: Table = planned.table.model_copy(update={"columns": columns})
    return planned_plainly(request(table=table, plan=planned.plan))


def derived_runs(of: Federation, question: str, runs: int, seed: int, truth: str | None = None) -> Covered:
    """Measure a question of which something is computed after the answer; each run is one answer."""
    planned, known, found = of.planned(question), truths(of, truth or question), Covered()
    asked, sums, random = asked_by(planned), exact_sums(of, planned), np.random.default_rng([37, seed])
    assert isinstance(asked.plan, Plan)
    for run in range(runs):
        asked = asked.model_copy(update={"nonce": run.to_bytes(16, "big")})  # by which intervals are drawn
        for row in derived_of(planned, asked, noisy(asked, sums, random), Threshold(0, False, LEAST)).rows:
            group = str(row.get("kind"))
            _count(found, group, row, known[group], question)
    return found


def _count(found: Covered, group: str, row: Mapping[str, Any], known: Mapping[str, Any], question: str) -> None:
    for name, cell in row.items():
        if isinstance(cell, Estimate) and known.get(name) is not None:
            found.add(group if name == "x" else f"{group} {name}", cell, float(known[name]), possible(question, name))


def possible(question: str, name: str) -> tuple[float, float]:
    """Return the least and the largest value that a figure can have, where that follows from what it is."""
    if name == "n":
        return 0.0, math.inf
    if name != "x" or " AS x" not in question:
        return -math.inf, math.inf
    return POSSIBLE.get(question.partition(" AS x")[0].rpartition("kind, ")[2].removeprefix("COUNT(*) AS n, "), ANY)


ANY, FROM_0, OF_AGE, SHARE = (-math.inf, math.inf), (0.0, math.inf), (0.0, 110.0), (0.0, 1.0)
POSSIBLE = {
    "COUNT(*)": FROM_0, "COUNT(age)": FROM_0, "SUM(age)": FROM_0, "SUM(smoker)": FROM_0, "AVG(age)": OF_AGE,
    "AVG(cost)": (-50.0, 5000.0), "AVG(smoker)": SHARE, "COUNT(DISTINCT patient_id)": FROM_0, "STDDEV(age)": FROM_0,
    "VAR_POP(age)": (0.0, 55.0**2), "CORR(age, stay)": (-1.0, 1.0), "REGR_R2(age, stay)": SHARE,
    "REGR_AVGX(age, stay)": (0.0, 60.0), "SUM(age) / SUM(stay)": FROM_0, "SUM(age) / COUNT(*)": OF_AGE,
    "ROUND(AVG(age), 1)": (0.0, 110.1), "ROUND(STDDEV(age))": FROM_0, "ROUND(SUM(age), -1)": FROM_0,
    "STDDEV(age) / AVG(age)": FROM_0, "SQRT(COUNT(*))": FROM_0, "COALESCE(AVG(age), 0)": OF_AGE,
    "GREATEST(COUNT(*), 30)": FROM_0, "CASE WHEN COUNT(*) > 30 THEN AVG(age) END": OF_AGE,
    "100.0 * COUNT(*) / SUM(COUNT(*)) OVER ()": FROM_0, "SUM(COUNT(*)) OVER (ORDER BY kind)": FROM_0,
    "COUNT(*) * COUNT(*)": FROM_0, "COUNT(*) FILTER (WHERE smoker)": FROM_0, "COUNT_IF(age > 50)": FROM_0,
    "SUM(age) FILTER (WHERE smoker)": FROM_0, "AVG(age) FILTER (WHERE smoker)": OF_AGE,
    "AVG(CASE WHEN smoker THEN 1 ELSE 0 END)": SHARE, "COUNT(*) FILTER (WHERE smoker) / COUNT(*)": SHARE,
    "CORR(age, stay) * 2": (-2.0, 2.0), "VAR_SAMP(age) / 4": FROM_0,
}  # fmt: skip
