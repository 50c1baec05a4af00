"""The tables of docs/choosing.md are what the library computes: widths by price and bounds, and what a budget holds."""

import math
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from analyst.reports.intervals import Z95, Noisy, of_mean
from crypto.rounds.bounds import noise_shares
from policies.budget.accountant import epsilon_of, micro_rho_of
from policies.requests.calibration import spreads_of
from policies.requests.query import Aggregate, Plan
from policies.requests.tables import Table, TableColumn
from policies.units import MICRO

PAGE = Path(__file__).resolve().parents[2] / "docs" / "choosing.md"
DELTA, SILOS = 1e-6, 4
COUNT = Aggregate(function="count", column=None, alias="n")
MEAN = Aggregate(function="avg", column="x", alias="m")
STEPS = 1000  # between the bounds of the measure


def rows_of(title: str) -> list[list[float]]:
    """Return the numbers of the table under a heading of the page, without its first line."""
    part = PAGE.read_text().split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| ([-0-9.,%| ]+) \|$", part, re.M)
    return [[float(cell.replace(",", "").rstrip("%")) for cell in row.split(" | ")] for row in rows]


def deviations(epsilon: float, max_rows: int, *aggregates: Aggregate, max_silos: int = 1) -> dict[str, float]:
    """Return the deviation of each statistic's noise in the answer of four silos, by kind, in rows or half steps."""
    column = TableColumn(name="x", type="int", low=0, high=STEPS, step="1")
    table = Table(name="t", max_rows=max_rows, max_silos=max_silos, columns=(column,))
    question = Plan(where=None, group_by=(), aggregates=aggregates)
    found = spreads_of(table, question, micro_rho_of(epsilon, DELTA))
    more = SILOS / noise_shares(SILOS, 1, 1)
    return {one.kind: math.sqrt(spread.variance * more) / 2**spread.scale_bits for one, spread in found.items()}


def test_widths_of_a_count() -> None:
    found = rows_of("Epsilon: how much noise")
    assert [row[0] for row in found] == [0.1, 0.25, 0.5, 1, 2, 4, 8]
    for epsilon, *widths in found:
        computed = [Z95 * deviations(epsilon, rows, COUNT)["rows"] for rows in (1, 5, 10, 20)]
        assert widths == pytest.approx(computed, abs=0.5, rel=0.005), epsilon


def test_widths_of_an_average() -> None:
    found = rows_of("Bounds: as narrow as the values")
    assert [row[0] for row in found] == [100, 300, 1000, 3000, 10_000]
    for size, *widths in found:
        for stated, (epsilon, rows) in zip(widths, product((0.5, 1, 2), (1, 10)), strict=True):
            sd = deviations(epsilon, rows, MEAN)
            count = Noisy(np.array([size]), sd["present"])
            mean = of_mean(count, Noisy(np.zeros(1), sd["total"]), STEPS)  # centred and doubled: a half is all steps
            half = float(mean.highs[0] - mean.lows[0]) / 2 / (2 * STEPS) * 100
            computed = half if math.isfinite(half) else 100.0
            assert stated == pytest.approx(computed, abs=0.06), (size, epsilon, rows)


def test_what_a_lifetime_holds() -> None:
    found = rows_of("How many questions a budget holds")
    assert [row[0] for row in found] == [1, 3, 8, 16]
    for lifetime, rho, *counts in found:
        whole = micro_rho_of(lifetime, DELTA)
        assert rho == pytest.approx(whole / MICRO, rel=0.01)
        assert counts == [whole // micro_rho_of(epsilon, DELTA) for epsilon in (0.1, 0.25, 0.5, 1)], lifetime


def test_what_the_page_says_of_proportions() -> None:
    one = deviations(1, 10, COUNT)["rows"]
    assert deviations(1, 20, COUNT)["rows"] == pytest.approx(2 * one, rel=1e-3)
    assert deviations(1, 10, COUNT, max_silos=2)["rows"] == pytest.approx(2 * one, rel=1e-3)
    assert deviations(1, 10, COUNT, MEAN)["rows"] == pytest.approx(math.sqrt(3) * one, rel=1e-3)
    twice = epsilon_of(2 * micro_rho_of(1, DELTA) / MICRO, DELTA)
    assert 1.4 < twice < 1.5
