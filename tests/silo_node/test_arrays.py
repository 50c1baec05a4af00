"""Columns of arrays: what a silo reads of a file's lists, in which steps, and what it says of one that is no array."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.array_steps import steps_in
from policies.document.catalogue import defined
from policies.document.policy import Policy
from policies.document.stored_lists import lists_in
from policies.errors import ModelError
from policies.models.predicting import predict
from policies.models.table_files import read_rows
from policies.requests.tables import TableColumn
from silo_node.data.arrays import Arrays, joined
from silo_node.data.coded import Coding, Rows, Run, coded
from silo_node.data.locations import connect
from silo_node.data.measure import family_steps, training_steps
from silo_node.data.prepared import segment
from silo_node.data.row_profile import profile
from silo_node.errors import SourceError
from silo_node.training.family import Examples
from silo_node.training.noised.clipped import by_person
from silo_node.training.own import digest_of
from tests.harness.example_policy import NOW, Edit
from tests.harness.example_policy import policy as example
from tests.harness.rows import load_sources, opened, policy

IMAGE = 'type = "array", shape = [2, 3], of = "int", bounds = [0, 9], roles = ["feature"]'
SIGNAL = 'type = "array", shape = [4], of = "decimal", bounds = [-1.5, 2], step = 0.25, roles = ["feature"]'
LEARNS = [
    Edit('computations = ["query"]', 'computations = ["cnn", "linear-regression"]'),
    Edit('kind = "parquet"', 'release = "exact"\nkind = "parquet"'),
    Edit('class = "sensitive", roles = ["measure", "filter"] }', 'class = "sensitive", roles = ["label"] }'),
    Edit("[analysts.ana]", '[training]\nmax_rounds = 10\ndp = "optional"\nclip_norm = 5\nmax_rho_per_run = 1\n'
         "[training.networks]\n[analysts.ana]"),
    Edit("smoker =", f'scan = {{ class = "internal", {IMAGE.replace("[2, 3]", "[8, 8]")} }}\nsmoker ='),
]  # fmt: skip
WHOLE = [[1, 2, 3], [4, 5, 6]]


def image(**changes: Any) -> TableColumn:
    made = {"name": "x", "type": "array", "low": 0, "high": 9, "step": "1", "shape": (2, 3), "of": "int"} | changes
    return TableColumn.model_validate(made)


def written(home: Path, cells: list[Any], kind: pa.DataType, column: str = IMAGE) -> Policy:
    """Write a Parquet file with a column of arrays, one row a person; return the policy of its silo."""
    table = pa.table({"id": [f"p{row}" for row in range(len(cells))], "x": pa.array(cells, kind)})
    pyarrow.parquet.write_table(table, home / "t.parquet", row_group_size=7)
    return policy(column, kind="parquet", source="max_unreadable = 1")


def read(home: Path, rules: Policy) -> Arrays:
    """Return the cells of the column as a request reads them."""
    source = load_sources(rules, home)["t"]
    with opened(source) as database:
        rows, _ = coded(database, source.view, "id", [Coding("array", defined("x", source.columns["x"]))])
    return rows.arrays("x")


LISTS = [pa.list_(pa.list_(pa.int32())), pa.list_(pa.list_(pa.uint8(), 3), 2), pa.large_list(pa.list_(pa.float64()))]


@pytest.mark.parametrize("kind", LISTS, ids=str)
def test_lists_within_lists_are_an_array_and_one_flat_list_is_the_same(tmp_path: Path, kind: pa.DataType) -> None:
    nested = read(tmp_path, written(tmp_path, [WHOLE, None, [[0, 0, 0], [9, 9, 9]]], kind))
    assert nested.steps.dtype == np.uint8
    assert nested.steps.tolist() == [WHOLE, [[0] * 3] * 2, [[0] * 3, [9] * 3]]
    assert nested.is_there.tolist() == [True, False, True]
    flat = read(tmp_path, written(tmp_path, [[1, 2, 3, 4, 5, 6]], pa.list_(pa.int64())))
    assert flat.steps.tolist() == [WHOLE]


def test_a_cell_of_another_shape_or_with_a_number_that_is_none_is_missing_as_a_whole(tmp_path: Path) -> None:
    nested = pa.list_(pa.list_(pa.float64()))
    broken = [
        [[1, 2, 3]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[1, 2], [3, 4]], [[1, 2, 3, 4], [5, 6]], [], [[], []],
        [[1, 2, 3], None], [None, None], [[1, 2, 3], [4, 5, None]], [[1, 2, 3], [4, 5, math.nan]],
        [[1, 2, 3], [4, 5, math.inf]], [[1, 2, 3], [4, 5, -math.inf]], [[1, 2, 3], [4, 5, 5.5]],
    ]  # fmt: skip
    rules = written(tmp_path, [*broken, WHOLE, None], nested)
    found = read(tmp_path, rules)
    assert found.is_there.tolist() == [False] * len(broken) + [True, False]
    assert found.steps[-2].tolist() == WHOLE
    assert not found.steps[found.is_there == 0].any()
    with connect() as database:
        one = profile(database, rules, tmp_path).sources["t"].columns["x"]
    assert (one.rows, one.missing, one.unreadable) == (len(broken) + 2, 1, len(broken))


def test_numbers_outside_the_bounds_are_clamped_and_the_owner_is_told(tmp_path: Path) -> None:
    rules = written(tmp_path, [[[-5, 0, 3], [4, 9, 10]], [[2**62] * 3, [-(2**62)] * 3]], pa.list_(pa.list_(pa.int64())))
    assert read(tmp_path, rules).steps.tolist() == [[[0, 0, 3], [4, 9, 9]], [[9] * 3, [0] * 3]]
    with connect() as database:
        one = profile(database, rules, tmp_path).sources["t"].columns["x"]
    assert (one.below, one.above, one.unreadable) == (2, 2, 0)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(-1e12, 1e12, width=64) | st.floats(-3, 3, width=32), min_size=1, max_size=20),
    st.integers(-2000, 2000),
    st.integers(1, 70_000),
    st.sampled_from(["1", "0.25", "0.001", "0.000000001", "3"]),
)
def test_steps_are_those_of_the_exact_number_in_units_of_1e_9(
    numbers: list[float], low: int, width: int, step: str
) -> None:
    column = image(shape=(len(numbers),), of="decimal", low=low, high=low + width, step=step)
    found, size = steps_in(np.array(numbers), column), Fraction(step)
    assert found.dtype == np.dtype(np.min_scalar_type(width))
    for number, steps in zip(numbers, found.tolist(), strict=True):
        near = Fraction(number) if abs(number) > 1e9 else Fraction(round(number * 1e9), 10**9)
        exact = math.floor((near - low * size) / size + Fraction(1, 2))
        assert steps == min(max(exact, 0), width)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]))
def test_whole_numbers_of_every_type_are_the_same_steps(data: st.DataObject, kind: str) -> None:
    ends = np.iinfo(kind)
    numbers = data.draw(st.lists(st.integers(int(ends.min), int(ends.max)), min_size=1, max_size=20))
    low, width, step = data.draw(st.integers(-300, 300)), data.draw(st.integers(1, 2**20)), data.draw(st.integers(1, 5))
    column = image(shape=(len(numbers),), low=low, high=low + width, step=str(step))
    found = steps_in(np.array(numbers, kind), column)
    assert found.tolist() == [
        min(max(math.floor(Fraction(one - low * step, step) + Fraction(1, 2)), 0), width) for one in numbers
    ]


@settings(max_examples=60, deadline=None)
@given(st.floats(-3, 3), st.sampled_from(["0.25", "0.5", "0.1", "0.01"]))
def test_a_number_in_an_array_takes_the_step_that_it_takes_alone(number: float, step: str) -> None:
    """Two routes to one number: the engine's SQL for a column of numbers, and numpy for an array."""
    alone = TableColumn(name="x", type="decimal", low=-10, high=10, step=step)
    with connect() as database:
        database.execute(
            "CREATE TABLE t AS SELECT 'p' AS id, CAST(CAST($1 AS DOUBLE) AS DECIMAL(18, 9)) AS x", [number]
        )
        rows, _ = coded(database, "t", "id", [Coding("steps", alone)])
    steps = int(rows.steps("x").cells[0])
    column = image(shape=(1,), of="decimal", low=-10, high=10, step=step)
    assert steps_in(np.array([number]), column).tolist() == [min(max(steps, 0), 20)]


@pytest.mark.parametrize(
    ("kind", "cells", "said"),
    [
        (pa.string(), ["[1, 2]"], "is VARCHAR, expected lists of numbers"),
        (pa.int64(), [5], "is BIGINT, expected lists of numbers"),
        (pa.list_(pa.string()), [["a"]], "has lists of VARCHAR, expected lists of numbers"),
        (pa.list_(pa.bool_()), [[True]], "has lists of BOOLEAN, expected lists of numbers"),
        (pa.list_(pa.list_(pa.list_(pa.int8()))), [[[[1]]]], "lists of 3 levels, but shape = [2, 3] has 2"),
        (pa.struct([("a", pa.int8())]), [{"a": 1}], "expected lists of numbers"),
    ],
    ids=str,
)
def test_a_column_of_another_type_is_refused_at_the_start(
    tmp_path: Path, kind: pa.DataType, cells: list[Any], said: str
) -> None:
    with pytest.raises(SourceError) as refused:
        load_sources(written(tmp_path, cells, kind), tmp_path)
    assert said in str(refused.value)
    assert refused.value.hint


def test_lists_that_are_no_arrays_are_named_with_row_and_remedy(tmp_path: Path) -> None:
    rules = written(tmp_path, [WHOLE, [[1, 2], [3, 4]], WHOLE], pa.list_(pa.list_(pa.int8())))
    strict = rules.model_copy(update={"sources": {"t": rules.sources["t"].model_copy(update={"max_unreadable": 0})}})
    with pytest.raises(SourceError) as refused:
        load_sources(strict, tmp_path)
    assert "row 2, column 'x': '[[1, 2], [3, 4]]' is no array of shape [2, 3]" in str(refused.value)
    assert "store 2 lists of 3 whole numbers in each cell" in str(refused.value.hint)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no rows"):
        load_sources(written(tmp_path, [], pa.list_(pa.list_(pa.int8()))), tmp_path)


def test_fixed_lengths_in_a_database_are_held_against_the_shape(tmp_path: Path) -> None:
    import duckdb

    with duckdb.connect(str(tmp_path / "t.duckdb")) as database:
        database.execute("CREATE TABLE t (id VARCHAR, x FLOAT[4])")
        database.execute("INSERT INTO t VALUES ('a', [-1.5, 0.1, 0.13, 9]), ('b', NULL)")
    found = read(tmp_path, policy(SIGNAL, kind="duckdb"))
    assert found.steps.tolist() == [[0, 6, 7, 14], [0] * 4]
    assert found.is_there.tolist() == [True, False]
    with pytest.raises(SourceError, match=r"has arrays of \[4\], expected \[6\]"):
        load_sources(policy(SIGNAL.replace("shape = [4]", "shape = [6]"), kind="duckdb"), tmp_path)


def test_rows_of_nobody_are_left_out_and_the_order_is_that_of_the_other_columns(tmp_path: Path) -> None:
    ids = [None if row % 5 == 0 else f"p{row}" for row in range(5000)]
    cells = [[[row % 10] * 3, [row // 10 % 10] * 3] for row in range(5000)]
    table = pa.table({"id": ids, "x": pa.array(cells, pa.list_(pa.list_(pa.int8())))})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=1000)
    source = load_sources(policy(IMAGE, kind="parquet"), tmp_path)["t"]
    with opened(source) as database:
        rows, persons = coded(database, source.view, "id", [Coding("array", image())])
    kept = [row for row in range(5000) if row % 5]
    assert [persons[place].as_py() for place in rows.person.tolist()] == [f"p{row}" for row in kept]
    assert rows.arrays("x").steps.tolist() == [cells[row] for row in kept]


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from(["int8", "uint16", "int64", "float32", "float64"]), st.sampled_from(["1", "0.25"]))
def test_a_file_that_a_model_scores_has_the_steps_that_a_silo_reads(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str, step: str
) -> None:
    """Two routes to one array: the engine's SQL at a silo, and Arrow for a file of new rows."""
    home = tmp_path_factory.mktemp("arrays")
    number = st.integers(0, 100) if kind[0] in "iu" or step == "1" else st.floats(-20, 20, width=32)
    row = st.none() | st.lists(st.lists(number, min_size=3, max_size=3), min_size=2, max_size=2)
    cells = data.draw(st.lists(row, min_size=1, max_size=9))
    item = pa.type_for_alias(kind)
    stored = data.draw(st.sampled_from([pa.list_(pa.list_(item, 3), 2), pa.large_list(pa.list_(item))]))
    of = '"int"' if step == "1" else '"decimal"'
    rules = written(home, cells, stored, IMAGE.replace('"int"', of) + f", step = {step}")
    at_silo = read(home, rules)
    column = defined("x", rules.sources["t"].columns["x"])
    steps, is_there = read_rows(home / "t.parquet", ["id"], [column]).arrays["x"]
    assert steps.dtype == at_silo.steps.dtype
    assert (steps.tolist(), is_there.tolist()) == (at_silo.steps.tolist(), at_silo.is_there.tolist())


NESTED = pa.list_(pa.list_(pa.int8()))


@pytest.mark.parametrize(
    ("cells", "kind", "said"),
    [
        ([None, WHOLE, [[1, 2, 3]]], NESTED, "row 3, column 'x': found a list of 1, expected 2"),
        ([WHOLE, [[1, 2, 3], [4, 5]]], NESTED, "row 2, column 'x': found a list of 2, expected 3"),
        ([WHOLE, [[1, 2, 3], None]], NESTED, "row 2, column 'x': found no list, expected 3"),
        ([WHOLE, [[1, 2, 3], [4, None, 6]]], NESTED, "row 2, column 'x': a number is missing"),
        ([[[1, 2, 3], [4, math.nan, 6]]], pa.list_(pa.list_(pa.float32())), "row 1, column 'x': found nan in it"),
        ([[[1, 2, 3], [4, 5, 5.5]]], pa.list_(pa.list_(pa.float32())), "found 5.5 in it, expected a whole number"),
        ([[1, 2]], pa.list_(pa.int8()), "row 1, column 'x': found a list of 2, expected 6"),
        ([["a"]], pa.list_(pa.string()), "found lists of string, expected lists of numbers"),
        ([3], pa.int8(), "found int8, expected lists of numbers"),
    ],
)
def test_a_cell_of_a_file_that_is_no_array_is_named_by_its_row(
    tmp_path: Path, cells: list[Any], kind: pa.DataType, said: str
) -> None:
    written(tmp_path, cells, kind)
    with pytest.raises(ModelError) as refused:
        read_rows(tmp_path / "t.parquet", ["id"], [image()])
    assert said in str(refused.value)
    assert refused.value.hint


def test_rows_without_an_array_have_no_score_and_a_csv_file_has_no_arrays(tmp_path: Path) -> None:
    written(tmp_path, [WHOLE, None, WHOLE], NESTED)
    found = predict(tmp_path / "t.parquet", [image()], [], (), lambda rows: rows.arrays["x"].sum((1, 2)).astype(float))
    assert found.text.splitlines() == ["row,score", "1,21.0", "2,", "3,21.0"]
    assert (found.rows, found.left_out) == (3, 1)
    (tmp_path / "t.csv").write_text("id,x\np0,[]\n")
    with pytest.raises(ModelError, match="is CSV, which has no arrays such as 'x'"):
        read_rows(tmp_path / "t.csv", ["id"], [image()])
    written(tmp_path, [], NESTED)
    assert read_rows(tmp_path / "t.parquet", [], [image()]).arrays["x"][0].shape == (0, 2, 3)


def test_rows_are_kept_in_a_run_with_their_arrays_and_nothing_of_who_is_out_stays(tmp_path: Path) -> None:
    found = read(tmp_path, written(tmp_path, [WHOLE, None, WHOLE], NESTED))
    kept = found.without(np.array([True, False, False]))
    assert kept.is_there.tolist() == [False, False, True]
    assert kept.steps.tolist() == [[[0] * 3] * 2, [[0] * 3] * 2, WHOLE]
    assert found.without(np.zeros(3, np.bool_)) is found
    both = joined([found.at(slice(0, 1)), kept.at(np.array([2, 1]))])
    assert both.steps.tolist() == [WHOLE, WHOLE, [[0] * 3] * 2]
    assert both.is_there.tolist() == [True, True, False]


def test_a_segment_on_disk_has_the_arrays_in_the_order_of_its_persons(tmp_path: Path) -> None:
    arrays = Arrays(np.arange(12, dtype=np.uint16).reshape(6, 2), np.array([True] * 5 + [False]), -3, 700)
    rows = Rows(np.array([2, 0, 1, 2, 0, 1]), 3, (Run(0, 0, 6),), {("array", "x"): arrays})
    codes = np.array([[0, 5], [0, 9], [0, 1]], np.uint64)
    segment.write(tmp_path / "s", rows, codes, codes, np.array([False, True, False]), ())
    found = segment.read(tmp_path / "s", {})
    cells = found.cells["array", "x"]
    assert isinstance(cells, Arrays)
    assert cells.steps.tolist() == [[0, 1], [6, 7], [2, 3], [8, 9]], "those of 2, then of 0; 1 is forgotten"
    assert (cells.low, cells.range_steps, cells.steps.dtype) == (-3, 700, np.dtype(np.uint16))
    cut = segment.joined([segment.cut(cells, 0, 1), segment.cut(cells, 3, 4)])
    assert isinstance(cut, Arrays)
    assert cut.steps.tolist() == [[0, 1], [8, 9]]


def test_rows_in_the_order_of_persons_keep_their_arrays() -> None:
    steps = np.array([[1], [2], [3]], np.uint8)
    rows = by_person(Examples(np.array([1, 0, 1]), {"n": np.array([10, 20, 30])}, arrays={"x": steps}))
    assert (rows.person.tolist(), rows.cells["n"].tolist()) == ([0, 1, 1], [20, 10, 30])
    assert rows.arrays["x"].tolist() == [[2], [1], [3]]


def test_what_a_silo_keeps_is_of_its_arrays_too() -> None:
    rows = [Examples(np.arange(1), {}, arrays={"x": np.array([[one]], np.uint8)}) for one in (1, 1, 2)]
    assert digest_of(rows[0]) == digest_of(rows[1])
    assert digest_of(rows[0]) != digest_of(rows[2])


def test_doctor_times_a_network_on_arrays_and_nothing_that_takes_none(tmp_path: Path) -> None:
    own = example(*LEARNS)
    steps = {one.plan.family: one.plan.features for one in family_steps(own, "visits", NOW)}  # type: ignore[union-attr]
    assert steps["cnn"] == ("scan",)
    assert "linear-regression" not in steps, "it has no other feature"
    assert not list(training_steps(own, "visits", NOW))


def test_files_that_store_other_types_are_one_table(tmp_path: Path) -> None:
    column = 'type = "array", shape = [2], of = "int", bounds = [0, 400000000], roles = ["feature"]'
    stored = [pa.uint8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.decimal128(20, 2), pa.int32(), None]
    for place, kind in enumerate(stored):
        cell = [place, 16_777_217 if kind in (pa.int64(), pa.uint64(), pa.int32()) else 7]
        cells = pa.array([cell], pa.list_(kind)) if kind is not None else pa.array([None], pa.list_(pa.null()))
        pyarrow.parquet.write_table(pa.table({"id": [f"p{place}"], "x": cells}), tmp_path / f"t{place}.parquet")
    rules = policy(column, kind="parquet", uri="t*.parquet", source="pattern = true\nmax_unreadable = 1")
    found = read(tmp_path, rules)
    told = {tuple(cell) for cell, there in zip(found.steps.tolist(), found.is_there.tolist(), strict=True) if there}
    large = {1, 2, 6}
    assert told == {(place, 16_777_217 if place in large else 7) for place in range(7)}
    assert found.is_there.sum() == 7
    assert found.steps.dtype == np.uint32


def test_types_of_lists_are_taken_apart() -> None:
    assert lists_in("FLOAT[3][4]") == ("FLOAT", (4, 3))
    assert lists_in("DECIMAL(9,2)[][]") == ("DECIMAL(9,2)", (None, None))
    assert lists_in("INTEGER") is None
