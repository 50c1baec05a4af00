"""What a figure lies between for certain, and what only rises or falls with one figure: by values that are tried."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import sqlglot

from analyst.reports.possible import ANY, Figure, bounds_of, range_of
from analyst.reports.rising import read
from policies.requests.query import Aggregate
from tests.cases import every
from tests.harness.example_policy import AGE, COST

COUNT = Figure(Aggregate(function="count", column=None, alias="n"), (0.0, math.inf))
OF_AGE = Figure(Aggregate(function="count", column="age", alias="k"), (0.0, math.inf))
SUM = Figure(Aggregate(function="sum", column="age", alias="s"), (0.0, math.inf))
AVG = Figure(Aggregate(function="avg", column="age", alias="a"), (0.0, 110.0))
COSTS = Figure(Aggregate(function="avg", column="cost", alias="c"), (-50.0, 5000.0))
FIGURES = {one.aggregate.alias: one for one in (COUNT, OF_AGE, SUM, AVG, COSTS)}
RANGES = {
    "n": (0.0, math.inf),
    "2 * a - 10": (-10.0, 210.0),
    "-c": (-5000.0, 50.0),
    "a * c": (-5500.0, 550_000.0),
    "ROUND(a)": (0.0, 111.0),
    "ROUND(c, -1)": (-60.0, 5010.0),
    "ABS(c)": (0.0, 5000.0),
    "SQRT(n)": (0.0, math.inf),
    "COALESCE(c, -99)": (-99.0, 5000.0),
    "GREATEST(a, 30)": (0.0, 110.0),
    "CASE WHEN n > 3 THEN a ELSE c END": (-50.0, 5000.0),
    "CASE WHEN n > 3 THEN a END": (0.0, 110.0),
    "SUM(n) FILTER (WHERE d = 1) / SUM(n)": (0.0, 1.0),
    "SUM(n) / SUM(n) FILTER (WHERE d = 1)": (0.0, math.inf),
    "n / SUM(n) OVER ()": (0.0, 1.0),
    "SUM(s) FILTER (WHERE d = 1) / SUM(k) FILTER (WHERE d = 1)": (0.0, 110.0),
    "SUM(s) FILTER (WHERE d = 1) / SUM(k) FILTER (WHERE d = 2)": (0.0, math.inf),
    "s / n": (0.0, 110.0),
    "s / a": (0.0, math.inf),
    "a / c": ANY,
    "n - LAG(n) OVER (ORDER BY d)": ANY,
    "LAG(a, 1, -5) OVER (ORDER BY d)": (-5.0, 110.0),
    "RANK() OVER (ORDER BY a)": (0.0, math.inf),
    "SIN(a)": ANY,
}


@every(("text", "ends"), list(RANGES.items()))
def test_what_a_figure_lies_between_follows_from_its_expression(text: str, ends: tuple[float, float]) -> None:
    columns = {"age": AGE, "cost": COST}
    found = range_of(sqlglot.parse_one(text, dialect="duckdb"), FIGURES, lambda name: bounds_of(columns[name]))
    assert found == pytest.approx(ends)


RISING: Mapping[str, Callable[[float], float]] = {
    "ROUND(a, 1)": lambda x: math.floor(x * 10 + 0.5) / 10,
    "3 - 2 * a": lambda x: 3 - 2 * x,
    "a / -4 + 1": lambda x: x / -4 + 1,
    "CAST(SQRT(a) AS INTEGER)": lambda x: float(round(math.sqrt(x))),
    "LN(a)": math.log,
    "-CEIL(a)": lambda x: -math.ceil(x),
}


@every("text", list(RISING))
def test_what_rises_or_falls_with_a_figure_maps_the_ends_of_its_interval(text: str) -> None:
    found = read(sqlglot.parse_one(text, dialect="duckdb"), {"a"})
    assert found is not None
    assert found.figure == "a"
    values = [RISING[text](one) for one in np.linspace(3.3, 41.7, 200).tolist()]
    assert found.ends(3.3, 41.7) == pytest.approx((min(values), max(values)))
    assert found.function(8.0) == pytest.approx(RISING[text](8.0))


@every("text", ["a + b", "a * a", "a % 7", "1 / a", "SUM(a)", "ABS(a)", "a / 0", "0 * a", "SIN(a)", "x", "'x'", "2"])
def test_what_does_not_only_rise_or_fall_with_one_figure_is_none(text: str) -> None:
    assert read(sqlglot.parse_one(text, dialect="duckdb"), {"a", "b"}) is None
