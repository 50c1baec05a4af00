"""What a silo adds for a variance or a regression: exact, as DuckDB has it, and bounded for every person."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from analyst.reports.estimates import Estimate, Threshold, interpret, planned_plainly
from policies.requests.moments import PAIRS, SPREADS, product_most, product_shift, square_most, square_shift
from policies.requests.query import Aggregate
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from silo_node.data.locations import connect
from silo_node.data.moments import products, squares
from silo_node.data.query import execute
from silo_node.data.sources import source_of
from tests.cases import every
from tests.harness.example_policy import COLUMNS, STORED, plan, policy, request, table
from tests.harness.rows import opened
from tests.harness.sums import opened_as

SCHEMA = pa.schema(STORED)
MEASURES = ("age", "cost", "stay", "smoker")
GROUPS = ("medicine", "surgery", "unknown")


def wide(steps: int, low: int = 0) -> TableColumn:
    return TableColumn(name="x", type="int", low=low, high=low + steps, step="1")


def halves_up(figure: int, shift: int) -> int:
    return (2 * figure + (1 << shift)) // (2 << shift)


@every(("steps", "other"), [(1, 1), (110, 60), (2**15, 2**14), (505_000, 110), (2**31 + 7, 3), (2**32, 2**32)])
def test_a_rows_figures_are_exact_whatever_the_ranges(steps: int, other: int) -> None:
    """Against Python's own whole numbers, which have no end."""
    random = np.random.default_rng([steps, other])
    x = np.concatenate([[0, steps, steps // 2], random.integers(0, steps + 1, 500)]).astype(np.int64)
    y = np.concatenate([[0, other, 0], random.integers(0, other + 1, 500)]).astype(np.int64)
    columns = wide(steps), wide(other)
    shift = square_shift(columns[0])
    assert squares(x, columns[0]).tolist() == [halves_up(one * (steps - one), shift) for one in x.tolist()]
    shift = product_shift(*columns)
    centred = 2 * x - steps, 2 * y - other
    found = products(*centred, columns).tolist()
    assert found == [halves_up(one * two, shift) for one, two in zip(*(each.tolist() for each in centred), strict=True)]
    assert max(map(abs, found)) == product_most(*columns)
    assert 0 <= squares(x, columns[0]).min() <= squares(x, columns[0]).max() <= square_most(columns[0])


def cells(random: np.random.Generator, rows: int, silo: int) -> list[dict[str, Any]]:
    """Return random rows of a silo: nulls, decimals between two cents, the same values often, persons with two rows."""

    def some(values: Sequence[Any]) -> Any:
        return None if random.random() < 0.2 else values[int(random.integers(len(values)))]

    found = []
    for row in range(rows):
        age = some(range(0, 111))
        found.append(
            {
                "patient_id": f"{silo}-{row // 2}",
                "ward": GROUPS[random.integers(3)],
                "grade": None,
                "age": age,
                "cost": None if random.random() < 0.2 else float(np.round(random.normal(20 * (age or 50), 300), 2)),
                "smoker": some([True, False]),
                "region": None,
                "stay": some([1, 1, 2, 3, 5, 8, 60]),
            }
        )
    return found


def figures() -> Iterator[Aggregate]:
    for function in SPREADS:
        for name in MEASURES:
            yield Aggregate(function=function, column=name, alias=f"{function}_{name}")  # type: ignore[arg-type]
    for function in PAIRS:
        for first, second in (("cost", "age"), ("smoker", "stay")):
            alias = f"{function}_{first}"
            yield Aggregate(function=function, column=first, other=second, alias=alias)  # type: ignore[arg-type]


def of_silo(home: Path, rows: list[dict[str, Any]], asked: Request) -> list[list[int]]:
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), home / "visits.parquet")
    source = source_of(policy(), "visits", home)
    with opened(source) as database:
        return [vector.tolist() for vector in execute(database, source, "patient_id", asked)]


def by_duckdb(rows: list[dict[str, Any]], chosen: Sequence[Aggregate], grouped: bool) -> dict[str, dict[str, Any]]:
    """Answer on all rows together, with bools as numbers and values within their bounds, as a policy has them."""
    stored = pa.Table.from_pylist(rows, schema=SCHEMA)  # noqa: F841  read by name
    kept = "smoker::INTEGER AS smoker, CASE WHEN cost < -50 THEN -50 WHEN cost > 5000 THEN 5000 ELSE cost END AS cost"
    selected = ", ".join(
        f"{one.function}({', '.join(f'{name}::DOUBLE' for name in one.columns)}) AS {one.alias}" for one in chosen
    )
    key = "ward" if grouped else "'all'"
    with connect() as database:
        text = f"SELECT {key} AS key, {selected} FROM (SELECT * REPLACE ({kept}) FROM stored) GROUP BY {key}"
        found = database.sql(text).to_arrow_table().to_pylist()
    return {row["key"]: row for row in found}


@every(("seed", "rows", "grouped"), [(1, 400, True), (2, 60, False), (3, 7, True), (4, 3000, True), (5, 2, False)])
def test_without_noise_silos_added_equal_duckdb_on_all_rows(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, grouped: bool
) -> None:
    random, home = np.random.default_rng(seed), tmp_path_factory.mktemp("silo")
    chosen = tuple(figures())
    parts = [cells(random, rows, silo) for silo in range(3)]
    everything = [row for part in parts for row in part]
    truths = by_duckdb(everything, chosen, grouped)
    compared = 0
    for start in range(0, len(chosen), 32):
        used = plan(where=None, group_by=("ward",) if grouped else (), aggregates=chosen[start : start + 32])
        asked = request(plan=used, table=table(max_rows=10_000), micro_rho=100_000)
        sums = np.sum([np.array(of_silo(home, part, asked), np.int64) for part in parts], axis=0)
        answer, _ = interpret(planned_plainly(asked), asked, opened_as(asked, sums), Threshold(0, False, 0.0))
        for row in answer:
            truth = truths[str(row.get("ward", "all"))]
            for one in used.aggregates:
                found, expected = row[one.alias], truth[one.alias]
                assert isinstance(found, Estimate)
                if found.value is None:  # too few rows for the noise that would have been, or no spread at all
                    continue
                assert found.value == pytest.approx(float(expected), rel=1e-6, abs=1e-6), (one.alias, truth)
                compared += 1
    assert compared > 20 or rows < 10


@every("seed", range(3))
def test_nobody_changes_a_sum_by_more_than_its_sensitivity(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Over all pairs of neighbours that one person's rows make, of cells at the ends, in the middle, and missing."""
    random, home = np.random.default_rng([9, seed]), tmp_path_factory.mktemp("silo")
    chosen = (*(one for one in figures() if one.function in ("var_pop", "corr", "regr_slope")),)
    sure = tuple(one.model_copy(update={"can_be_missing": one.name not in ("age", "smoker")[:seed]}) for one in COLUMNS)
    asked = request(plan=plan(where=None, group_by=("ward",), aggregates=chosen), table=table(max_rows=2, columns=sure))
    others = cells(random, 20, 0)
    alone = np.array(of_silo(home, others, asked), np.int64)
    most = np.zeros(len(alone))
    extents = list(asked.plan.statistics(asked.table).values())
    ends: dict[str, list[Any]] = {
        "age": [0, 110, 55, None, 200], "cost": [-50.0, 5000.0, 2475.0, None, 1e9], "stay": [0, 60, 30, None],
        "smoker": [True, False, None],
    }  # fmt: skip
    for _ in range(60):
        own = [
            {"patient_id": "anna", "ward": GROUPS[random.integers(3)], "grade": None, "region": None}
            | {name: values[random.integers(len(values))] for name, values in ends.items()}
            for _ in range(random.integers(1, 4))
        ]
        if random.random() < 0.4:
            own = [own[0]] * 2
        changed = np.array(of_silo(home, [*others, *own], asked), np.int64) - alone
        norms = np.sqrt((changed.astype(np.float64) ** 2).sum(1))
        for norm, extent in zip(norms, extents, strict=True):
            assert norm <= extent.sensitivity * (1 + 1e-12)
        most = np.maximum(most, norms / [extent.sensitivity for extent in extents])
    assert most.max() == 1, "the worst case is among them"


def test_a_cell_that_is_missing_all_the_same_counts_as_the_middle(tmp_path: Path) -> None:
    sure = tuple(one.model_copy(update={"can_be_missing": one.low is None}) for one in COLUMNS)
    used = plan(where=None, group_by=(), aggregates=(next(figures()), Aggregate(function="corr", column="cost",
                                                                              other="age", alias="c")))  # fmt: skip
    asked = request(plan=used, table=table(columns=sure))
    person = {"patient_id": "p", "ward": None, "grade": None, "smoker": None, "region": None, "stay": None}
    missing = of_silo(tmp_path, [person | {"age": None, "cost": None}], asked)
    assert missing == of_silo(tmp_path, [person | {"age": 55, "cost": 2475.0}], asked)
