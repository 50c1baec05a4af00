"""Who is held out: a person as a whole, alike in every spelling and at every silo, and never by another's rows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from policies.requests.held_out import PARTS, HeldOut, Side
from policies.requests.request import Request
from silo_node.data.coded import Members, Rows, Run
from silo_node.data.locations import connect
from silo_node.data.model_rows import model_rows
from silo_node.data.prepared.reader import Reader
from silo_node.data.prepared.store import Store
from silo_node.data.query import nobody
from silo_node.data.run_rows import RunRows
from silo_node.data.sides import both, held_out_of, on_side, on_side_by_id
from silo_node.data.sources import source_of
from tests.harness.example_policy import Edit, policy, request, table
from tests.harness.rows import NamedHere
from tests.rounds.computation_examples import exact

SECRET, OTHER = bytes(64), bytes([1] * 64)
BY_SPLIT = HeldOut(split=bytes(16), parts=300)


def asked(held_out: HeldOut, family: str = "logistic-regression") -> Request:
    base = exact(family, "smoker", "ward", "age")
    return base.model_copy(update={"plan": base.plan.model_copy(update={"held_out": held_out})})


def test_a_share_of_persons_is_held_out_and_grows_by_whole_persons() -> None:
    persons = [f"p{number}" for number in range(20_000)]
    found = {parts: held_out_of(SECRET, persons, parts) for parts in (1, 100, 300, 999)}
    for parts, is_held_out in found.items():
        deviation = np.sqrt(len(persons) * parts / PARTS * (1 - parts / PARTS))
        assert abs(is_held_out.sum() - len(persons) * parts / PARTS) < 5 * deviation, parts
    assert not (found[100] & ~found[300]).any()
    other = held_out_of(OTHER, persons, 300)
    assert 0.55 < (other == found[300]).mean() < 0.61  # 0.58 where the two are independent


def test_spellings_of_one_person_are_on_one_side() -> None:
    spellings = [[f"AB 0{number}", f"ab 0{number}", f"ab0{number}", f"aB{' '}0{number}"] for number in range(1, 60)]
    spellings += [[f"00{number}", str(number), f" {number} ", f"{number}.0"] for number in range(1, 60)]
    with connect() as database:
        for held_out in (True, False):
            side = Side(BY_SPLIT, held_out)
            columns = [
                on_side_by_id(database, pa.array([one[place] for one in spellings]), side, SECRET) for place in range(4)
            ]
            first, *others = (column for column in columns if column is not None)
            assert len(others) == 3
            assert 10 < first.sum() < 108
            assert all((first == other).all() for other in others)
        assert on_side_by_id(database, pa.array(["a"]), None, SECRET) is None
        assert on_side_by_id(database, pa.array(["a"]), Side(HeldOut(column="test"), True), None) is None


def test_a_person_with_one_row_that_is_held_out_is_held_out() -> None:
    # Of person 0 one row is held out, of 1 none, of 2 a cell is missing, of 3 all.
    person = np.array([0, 0, 1, 1, 2, 2, 3])
    marks = Members(np.array([1, 0, 0, 0, -1, 0, 1]), ("false", "true"))
    rows = Rows(person, 4, (Run(0, 0, 7),), {("member", "smoker"): marks})
    base = request(table=table(columns=exact("pca", None, "age").table.columns))
    step = exact("pca", None, "age").plan.model_copy(update={"held_out": HeldOut(column="smoker")})
    training = base.model_copy(update={"plan": step})
    found = on_side(rows, training, None)
    assert found is not None
    assert found.tolist() == [False, True, True, False]
    some = on_side(rows, training, np.array([True, True, False, True]))
    assert some is not None
    assert some.tolist() == [False, True, False, False]
    assert on_side(rows, base, None) is None
    assert both(None, None) is None


def test_rows_are_held_out_by_a_column_or_by_a_split_and_its_share() -> None:
    for fields in ({}, {"column": "a", "parts": 50}, {"split": bytes(16)}, {"parts": 50}):
        with pytest.raises(ValueError, match="held out by a column, or by a split and its share"):
            HeldOut(**fields)
    for parts in (0, 1, 251, PARTS):
        with pytest.raises(ValueError, match=r"than|multiple of 50"):
            HeldOut(split=bytes(16), parts=parts)


def test_prepared_rows_have_the_sides_of_rows_that_are_read(tmp_path: Path) -> None:
    rules = policy(Edit('kind = "parquet"', 'kind = "parquet"\nread = "prepared"'))
    rows = [
        {"patient_id": f"p{number % 40}", "ward": "surgery", "age": number, "smoker": number % 3 == 0}
        for number in range(80)
    ]
    fields = [("patient_id", pa.string()), ("ward", pa.string()), ("age", pa.int64()), ("smoker", pa.bool_())]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), tmp_path / "visits.parquet")
    source = source_of(rules, "visits", tmp_path).narrowed([name for name, _ in fields])
    log = NamedHere()
    store = Store(rules, tmp_path, log.kept)
    wanted = asked(BY_SPLIT)
    with connect() as database:
        log.prepare(store, database, source, 0)
        reader = Reader(rules, store, database, {"visits": source}, None)
        of_store = reader.model_examples(wanted, 0, 20, SECRET)
        everybody = reader.model_examples(exact("logistic-regression", "smoker", "ward", "age"), 0, 20)
        runs = RunRows(rules, database, {"visits": source_of(rules, "visits", tmp_path)}, None, nobody)
        found, is_in = runs.of(wanted, 0, 20, SECRET)
        read = model_rows(found, wanted, on_side(found, wanted, is_in))
        _, is_in_again = runs.of(wanted, 0, 20, SECRET)  # of one side, and kept with it
        assert is_in is not None
        assert is_in_again is not None
        assert (is_in_again == is_in).all()
    assert sorted(of_store.cells["age"]) == sorted(read.cells["age"])
    ids = [str(row["patient_id"]) for row in rows]
    assert of_store.rows == 80 - held_out_of(SECRET, ids, 300).sum()
    assert 20 < of_store.rows < everybody.rows == 80
