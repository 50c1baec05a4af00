"""By brute force: no person changes a figure over groups by conditions by more than the price was computed for."""

from random import Random
from typing import Any

import numpy as np
import pytest

from policies.requests.cases import Cases
from policies.requests.predicates import Both, Compare, CompareColumns, Either, IsNull, Not, OneOf, Predicate
from policies.requests.query import Aggregate, Plan
from silo_node.data.answer import question
from silo_node.data.coded import NO_MEMBER, NO_NUMBER, NO_STEPS, Members, Numbers, Rows, Run, Steps
from silo_node.data.lots import Lots
from tests.harness.example_policy import WARD, request, table

NEIGHBOURS = 10_000
LEAVES: tuple[Predicate, ...] = (
    *(Compare(column="age", op="<", value=value) for value in ("0", "20", "55", "90")),
    Compare(column="age", op="=", value="30"),
    Compare(column="ward", op="=", value="surgery"),
    Compare(column="ward", op="<>", value="unknown"),
    OneOf(column="ward", values=("medicine", "unknown")),
    IsNull(column="age"),
    IsNull(column="ward"),
    CompareColumns(column="age", op="<", other="cost"),
    CompareColumns(column="cost", op="<>", other="age"),
)
FIGURES = (
    Aggregate(function="count", column=None, alias="n"),
    Aggregate(function="avg", column="age", alias="age"),
)


def condition(random: Random, depth: int = 0) -> Predicate:
    kind = random.randrange(6) if depth < 3 else 0
    if kind < 3:
        return random.choice(LEAVES)
    if kind == 3:
        return Not(operand=condition(random, depth + 1))
    operands = tuple(condition(random, depth + 1) for _ in range(random.randint(2, 3)))
    return Both(operands=operands) if kind == 4 else Either(operands=operands)


def grouping(random: Random, name: str) -> Cases:
    whens = tuple(condition(random) for _ in range(random.randint(1, 5)))
    labels = tuple(random.choice(["a", "b", "c", None]) for _ in whens)
    return Cases(name=name, whens=whens, labels=labels, otherwise=random.choice(["a", "d", None]))


def rows_of(random: Random) -> Rows:
    """Return rows of three persons, of whom one has most; in one in four sets each row is in a group of its own."""
    count = random.randint(1, 24)
    person = np.array(random.choices(range(3), (6, 1, 1), k=count), np.int32)
    ages = [random.choice([None, -5, 0, 19, 20, 30, 54, 89, 90, 110, 119]) for _ in range(count)]
    if not random.randrange(4):
        ages = [None if place % 7 == 6 else place * 9 for place in range(count)]
    costs = [random.choice([None, -3, 0, 30, 70, 400]) for _ in range(count)]
    wards = [random.choice([NO_MEMBER, 0, 1, 2]) for _ in range(count)]
    cells: dict[Any, Any] = {
        ("member", "ward"): Members(np.array(wards, np.int32), WARD.domain),
        ("number", "age"): Numbers(np.array([NO_NUMBER if age is None else age for age in ages], np.int64)),
        ("number", "cost"): Numbers(np.array([NO_NUMBER if cost is None else cost for cost in costs], np.int64)),
        ("steps", "age"): Steps(
            np.array([NO_STEPS if age is None else min(max(age, -1), 111) for age in ages], np.int64), 0, 110
        ),
    }
    return Rows(person, 3, (Run(0, 0, count),), cells)


@pytest.mark.slow
def test_no_person_changes_a_figure_by_more_than_its_sensitivity() -> None:
    random, widest = Random(18), 0.0  # noqa: S311
    for _ in range(NEIGHBOURS):
        cases = (grouping(random, "one"), grouping(random, "two"))[: random.randint(1, 2)]
        extra = random.choice([(), ("ward",)])
        where = condition(random) if random.randrange(2) else None
        by = (*(one.name for one in cases), *extra)
        asked = request(
            table=table(max_rows=random.randint(1, 12)),
            plan=Plan(where=where, group_by=by, aggregates=FIGURES, cases=cases, counts_cut=True),
        )
        rows, lots, most = rows_of(random), Lots(random.randbytes(64)), random.choice([None, 1, 3])
        gone = random.randrange(3)
        whole = question(rows, asked, None, lots, most)
        without = question(rows, asked, np.arange(3) != gone, lots, most)
        for (statistic, extent), one, other in zip(
            asked.plan.statistics(asked.table).items(), whole, without, strict=True
        ):
            assert len(one) == extent.length == len(other)
            change = float(np.sum((one - other) ** 2))
            assert change <= extent.sensitivity**2, (statistic, asked.plan)
            widest = max(widest, change / extent.sensitivity**2)
    assert widest == 1, "the sensitivity is reached, so it is not too large either"
