"""No person costs more than the price of a request, over all of its statements and all silos that know them."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations_with_replacement
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from policies.budget.accountant import charge
from policies.requests.calibration import spreads_of
from policies.requests.query import Aggregate
from policies.requests.request import Request
from policies.requests.statements import Statements
from silo_node.data.answer import codings_of
from silo_node.data.coded import coded
from silo_node.data.locations import connect
from silo_node.data.lots import Lots
from silo_node.data.statements import contributed
from tests.harness.example_policy import AGE, SMOKER, WARD, plan, request, table

COUNT = (Aggregate(function="count", column=None, alias="n"),)
TOTAL = (*COUNT, Aggregate(function="sum", column="age", alias="years"))
PERSONS = (Aggregate(function="persons", column=None, alias="p"),)
NAMES = {"id": pa.string(), "ward": pa.string(), "age": pa.int64(), "smoker": pa.bool_()}


def contribution(
    database: duckdb.DuckDBPyConnection, asked: Request, rows: Sequence[tuple[str, str, int, bool]]
) -> list[np.ndarray[Any, Any]]:
    """Return what a silo with these rows contributes, each of a person."""
    cells = zip(NAMES, zip(*rows, strict=True), strict=True)
    database.register("visits", pa.table({name: pa.array(list(column), NAMES[name]) for name, column in cells}))
    read, _ = coded(database, "visits", "id", codings_of(asked))
    return list(contributed(read, asked, None, Lots(), None))


def cost(asked: Request, differences: Sequence[np.ndarray[Any, Any]]) -> Fraction:
    """Return the rho of changing the sum by so much: each statistic has noise of its own."""
    spreads = spreads_of(asked.table, asked.plan, asked.micro_rho).values()
    squared = [sum(int(one) ** 2 for one in difference) for difference in differences]
    return sum(
        (Fraction(one << 2 * bits, 2 * variance) for one, (_, bits, variance) in zip(squared, spreads, strict=True)),
        Fraction(0),
    )


SEVERAL = {
    "two groupings": (plan(where=None, aggregates=TOTAL), plan(where=None, group_by=(), aggregates=TOTAL)),
    "shared, and a filter": (plan(aggregates=TOTAL), plan(aggregates=COUNT), plan(where=None, aggregates=COUNT)),
    "persons and rows": (plan(where=None, aggregates=PERSONS), plan(where=None, group_by=(), aggregates=TOTAL)),
    "with what was cut": (plan(where=None, counts_cut=True), plan(where=None, group_by=(), aggregates=COUNT)),
}
CELLS = [(ward, age, is_smoker) for ward in WARD.domain for age in (0, 110) for is_smoker in (True, False)]


@pytest.mark.slow
@pytest.mark.parametrize("max_norm", [None, 2])
@pytest.mark.parametrize("name", list(SEVERAL))
def test_no_person_costs_more_than_the_price_over_all_statements_and_silos(name: str, max_norm: int | None) -> None:
    """All sets of one and two rows at ends of the bounds, and some of more: the dearest of them has the price.

    Who is known to two silos changes the sums of both; the noise is that of the whole sum.
    """
    rows = 2 if max_norm is None else 4
    definition = table(columns=(WARD, AGE, SMOKER), max_rows=rows, max_norm=max_norm)
    plans = SEVERAL[name]
    asked = request(plan=Statements(plans=plans, weights=tuple(range(1, len(plans) + 1))), table=definition)
    others = [("other", "medicine", 50, True), ("third", "surgery", 20, False)]
    price, dearest, tried = Fraction(asked.micro_rho, 10**6), Fraction(0), 0
    sets: list[Sequence[tuple[str, int, bool]]] = [
        own for count in (1, 2) for own in combinations_with_replacement(CELLS, count)
    ]
    sets += [(cell,) * 4 for cell in CELLS] + [CELLS[0::4], CELLS[1::4]]
    with connect() as database:
        without = contribution(database, asked, others)
        for own in sets:
            found = contribution(database, asked, [*others, *(("me", *cell) for cell in own)])
            changed = [one - other for one, other in zip(found, without, strict=True)]
            spent = cost(asked, [2 * difference for difference in changed])  # the same rows at a second silo
            assert spent <= price, own
            dearest, tried = max(dearest, spent), tried + 1
    assert tried > 100
    assert dearest >= price * Fraction(4, 5), "the price is no mere upper bound"
    assert math.isclose(charge(asked, asked.table.max_silos), asked.micro_rho, rel_tol=1e-4)
