"""How far one person changes what a silo contributes, over neighbouring data sets, beside what the price assumes.

Hypothesis makes the data sets; silos compute on them as on any rows. Neighbours differ in all rows of one person, who
may have many rows in one group, or one in each of many groups, and may be known to two silos. To try another
computation, add questions to KINDS, or requests of another kind of plan to `requests_of`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from itertools import pairwise, product
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.budget.accountant import charge
from policies.requests.calibration import spreads_of
from policies.requests.request import Request
from policies.units import MICRO
from silo_node.data import answer
from silo_node.data.coded import Rows
from silo_node.data.lots import SECRET_BYTES, Lots
from tests.harness.example_policy import request
from tests.questions.data import Federation, federation, rows_in

Row = Mapping[str, Any]
DataSet = Sequence[Sequence[Row]]  # the rows of each person
BOUNDS: tuple[Mapping[str, Any], ...] = (
    {"max_rows": 1}, {"max_rows": 3}, {"max_rows": 7}, {"max_rows": 40, "max_norm": 3}, {"max_rows": 4, "max_norm": 2},
)  # fmt: skip
INNER = "(SELECT patient_id, {} FROM visits GROUP BY patient_id)"
KINDS: Mapping[str, Sequence[str]] = {
    "rows": (
        "SELECT COUNT(*) FROM visits",
        "SELECT kind, COUNT(*) FROM visits GROUP BY kind",
        "SELECT ward, kind, grade, COUNT(*) FROM visits WHERE age > 40 OR smoker GROUP BY ward, kind, grade",
        "SELECT seen, COUNT(*), COUNT(age), COUNT(visits) FROM visits GROUP BY seen",
    ),
    "totals": (
        "SELECT SUM(age), AVG(cost), SUM(smoker), AVG(visits) FROM visits",
        "SELECT kind, grade, SUM(age), AVG(cost), AVG(score), SUM(died) FROM visits GROUP BY kind, grade",
        "SELECT ward, SUM(weight) FROM visits WHERE NOT smoker GROUP BY ward",
    ),
    "moments": (
        "SELECT VAR_POP(age), STDDEV(cost), VAR_SAMP(smoker), STDDEV_POP(visits) FROM visits",
        "SELECT kind, VAR_SAMP(weight), STDDEV(score) FROM visits GROUP BY kind",
    ),
    "pairs": (
        "SELECT CORR(age, cost), COVAR_POP(smoker, stay) FROM visits",
        "SELECT ward, REGR_SLOPE(cost, age), REGR_R2(visits, score), REGR_COUNT(age, stay) FROM visits GROUP BY ward",
    ),
    "persons": (
        "SELECT COUNT(DISTINCT patient_id) FROM visits",
        "SELECT kind, COUNT(DISTINCT patient_id) FROM visits WHERE age > 20 GROUP BY kind",
        "SELECT ward, kind, grade, COUNT(DISTINCT patient_id) FROM visits GROUP BY ward, kind, grade",
    ),
    "rows of persons": (
        f"SELECT n, COUNT(*) FROM {INNER.format('LEAST(COUNT(*), 5) AS n')} GROUP BY n",
        f"SELECT AVG(s) FROM {INNER.format('GREATEST(LEAST(SUM(cost), 300), -20) AS s')}",
        f"SELECT k, AVG(low), SUM(n) FROM {INNER.format('MIN(kind) AS k, MIN(age) AS low, LEAST(COUNT(*), 9) AS n')}"
        " GROUP BY k",
        f"SELECT COUNT(*) FROM {INNER.format('MAX(age) AS high')} WHERE high > 60",
        "SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING COUNT(*) > 2)",
    ),
    "groups by conditions": (
        "SELECT CASE WHEN age < 30 THEN 'a' WHEN smoker THEN 'b' END AS d, COUNT(*), SUM(age) FROM visits GROUP BY d",
        "SELECT age // 10 AS d, AVG(cost) FROM visits GROUP BY d",
        "SELECT SUBSTR(kind, 1, 1) AS d, year(seen) AS y, COUNT(*) FROM visits GROUP BY d, y",
    ),
    "figures with conditions": (
        "SELECT COUNT(*) FILTER (WHERE smoker), AVG(age) FILTER (WHERE kind = 'a1'), COUNT_IF(age > 50) FROM visits",
        "SELECT ward, SUM(CASE WHEN age > 50 THEN 1 ELSE 0 END), SUM(cost) FILTER (WHERE died) FROM visits"
        " GROUP BY ward",
    ),
    "several in one request": (
        "SELECT kind, COUNT(*), COUNT(DISTINCT patient_id), AVG(age), STDDEV(age), CORR(age, cost) FROM visits"
        " GROUP BY kind",
        "SELECT kind, grade, COUNT(DISTINCT patient_id), SUM(visits), COUNT(*) FROM visits WHERE smoker"
        " GROUP BY kind, grade",
    ),
}  # fmt: skip

VISIT: st.SearchStrategy[Row] = st.fixed_dictionaries(
    {
        "ward": st.sampled_from(["medicine", "surgery", "cellar", None]),
        "grade": st.sampled_from([0, 1, 2, 7, None]),
        "kind": st.sampled_from(["a1", "a2", "b1", "b22", None]),
        "seen": st.sampled_from([date(2026, 6, 2), date(2026, 9, 30), date(2026, 11, 11), date(2001, 1, 1), None]),
        "age": st.sampled_from([None, 0, 110, 55, 500, -9]) | st.integers(0, 110),
        "cost": st.sampled_from([None, -50.0, 5000.0, 2475.0, 1e9, 0.005]),
        "weight": st.sampled_from([None, 0.0, 200.0, 100.0, 99.75]),
        "visits": st.sampled_from([0, 40, 20, None, 99]),
        "score": st.sampled_from([None, -10, 10, 0]),
        "smoker": st.sampled_from([True, False, None]),
        "died": st.booleans(),
        "stay": st.sampled_from([None, 0, 60, 30]),
    }
)
ENDS: Sequence[Row] = [
    {"age": age, "cost": cost, "weight": weight, "visits": visits, "score": score, "smoker": is_true, "died": is_true,
     "stay": stay}
    for age, cost, weight, visits, score, is_true, stay in (
        (110, 5000.0, 200.0, 40, 10, True, 60), (0, -50.0, 0.0, 0, -10, False, 0),
        (110, -50.0, 0.0, 40, -10, False, 60),
    )
]  # fmt: skip
PLACES: Sequence[Row] = [
    {"ward": ward, "kind": kind, "grade": grade, "seen": seen}
    for (ward, kind, grade), seen in zip(
        product(("medicine", "surgery", None), ("a1", "a2", "b1", "b22"), (0, 1, 2)),
        [date(2026, month, 5) for month in range(5, 11)] * 6,
        strict=True,
    )
]
# One person in each of so many groups, in one group so often, or with any rows.
SPREAD = st.builds(
    lambda ends, count: [{**place, **ends} for place in PLACES[:count]],
    st.sampled_from(ENDS),
    st.sampled_from([9, 16, 36]),
)
CROWDED = st.builds(
    lambda ends, place, count: [{**place, **ends}] * count,
    st.sampled_from(ENDS), st.sampled_from(PLACES), st.sampled_from([2, 7, 45]),
)  # fmt: skip
PERSON = st.lists(VISIT, min_size=1, max_size=8) | SPREAD | CROWDED
PEOPLE: st.SearchStrategy[DataSet] = st.lists(PERSON, min_size=2, max_size=6)


@dataclass(slots=True)
class Found:
    """How many pairs of neighbours were tried, and the greatest share of each sensitivity that one of them reached."""

    pairs: int = 0
    reached: dict[str, float] = field(default_factory=dict)
    of_price: float = 0.0  # the greatest share of the price that one person's change would use


@cache
def requests_of(of: Federation, kind: str) -> tuple[Request, ...]:
    """Return the requests of a kind: each of its questions by each of the bounds, every other one with what was cut."""
    found = []
    for place, (question, bounds) in enumerate(product(KINDS[kind], BOUNDS)):
        planned = of.planned(question)
        table = planned.table.model_copy(update=dict(bounds))
        plan = planned.plan.model_copy(update={"counts_cut": place % 2 == 1})
        found.append(request(table=table, plan=plan, micro_rho=100_000))
    return tuple(found)


def try_out(of: Federation, home: Path, kind: str, silos: tuple[DataSet, DataSet], secret: bytes, found: Found) -> None:
    """Take every person of the first silo's rows away, alone and together with the same person at the second.

    Raises AssertionError where a change is greater than what the price is computed from.
    """
    both = [_read(home, people) for people in silos]
    for place, asked in enumerate(requests_of(of, kind)):
        extents, spreads = asked.plan.statistics(asked.table), spreads_of(asked.table, asked.plan, asked.micro_rho)
        price = charge(asked, asked.table.max_silos) / MICRO
        most_groups = (None, 1, 3, None)[place % 4]
        changes = [_changes(rows, persons, asked, secret, most_groups) for rows, persons in both]
        for person in range(len(silos[0])):
            alone = changes[0][person]
            for (statistic, extent), own in zip(extents.items(), alone, strict=True):
                squared = sum(int(one) ** 2 for one in own)
                assert squared <= extent.squared, (statistic, squared, extent, asked.plan.in_words("visits"))
                name = statistic.kind
                found.reached[name] = max(found.reached.get(name, 0.0), sqrt(squared / extent.squared))
            together = alone
            if person < len(silos[1]):
                together = [one + other for one, other in zip(alone, changes[1][person], strict=True)]
            used = sum(
                sum(int(one) ** 2 for one in own) * 4.0**bits / (2 * variance)
                for (_, bits, variance), own in zip(spreads.values(), together, strict=True)
            )
            assert used <= price * (1 + 1e-9), (used, price, asked.plan.in_words("visits"))
            found.of_price = max(found.of_price, used / price)
            found.pairs += 1
        for one, other in pairwise(changes[0]):  # one person's rows in the place of another's
            for extent, mine, theirs in zip(extents.values(), one, other, strict=True):
                assert sum(int(shift) ** 2 for shift in mine - theirs) <= 4 * extent.squared
            found.pairs += 1


def _read(home: Path, people: DataSet) -> tuple[Rows, list[int]]:
    """Return rows as a silo codes them, and the place of each person."""
    rows, persons = rows_in(home, [{"patient_id": str(one), **row} for one, own in enumerate(people) for row in own])
    return rows, [persons.index(str(one)) for one in range(len(people))]


def _changes(
    rows: Rows, places: Sequence[int], asked: Request, secret: bytes, most_groups: int | None
) -> list[list[npt.NDArray[np.int64]]]:
    """Return by how much each person changes each statistic."""
    everybody = np.ones(rows.persons, np.bool_)
    whole = answer.question(rows, asked, everybody, Lots(secret), most_groups)
    found = []
    for place in places:
        others = everybody.copy()
        others[place] = False
        rest = answer.question(rows, asked, others, Lots(secret), most_groups)
        found.append([one - other for one, other in zip(whole, rest, strict=True)])
    return found


def search(home: Path, kind: str, examples: int, seed: int = 0) -> Found:
    """Try a kind on so many data sets that hypothesis makes."""
    of, found = federation(home), Found()

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(PEOPLE, PEOPLE, st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES))
    def tried(first: DataSet, second: DataSet, secret: bytes) -> None:
        try_out(of, home, kind, (first, second), secret, found)

    tried()
    return found
