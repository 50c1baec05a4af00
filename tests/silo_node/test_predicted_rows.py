"""New rows for a model are read as a silo reads its own, clamps and gaps included, and a bad cell is named."""

import csv
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from policies.document.catalogue import published
from policies.errors import ModelError
from policies.models.cells import Coded, coded
from policies.models.onnx_form import to_onnx
from policies.models.predicting import predict_by_form
from policies.models.scores import scores
from policies.models.table_files import read_rows
from policies.networks.names import NETWORKS
from policies.requests.families import kind_of
from policies.requests.tables import TableColumn
from silo_node.data.coded import NO_STEPS, Coding, member_of, steps_of
from silo_node.data.coded import coded as coded_by_engine
from silo_node.errors import SiloError
from silo_node.training.family import State
from silo_node.training.portable import LINKS, NAIVE_BAYES, WITHOUT, exact_form
from silo_node.training.registry import FAMILIES
from tests.cases import every
from tests.harness import families
from tests.harness.rows import load_sources, opened, policy
from tests.silo_node.test_portable import COLUMNS, FEATURES, fitted

FEATURE = 'roles = ["feature"]'
DECLARED = (
    f'type = "decimal", {FEATURE}, bounds = [-1, 2], step = 0.25',
    f'type = "decimal", {FEATURE}, bounds = [-900000000, 900000000], step = 0.5',
    f'type = "int", {FEATURE}, bounds = [0, 100]',
    f'type = "int", {FEATURE}, bounds = [0, 100], step = 5',
    f'type = "bool", {FEATURE}',
    f'type = "string", {FEATURE}, domain = ["a", "b c", "é", "?"], unknown = "?"',
    f'type = "int", {FEATURE}, domain = [1, 2, 9], unknown = 9',
)
CELLS: tuple[tuple[str, ...], ...] = (
    (
        "-1",
        "-0.9",
        "0.125",
        "0.124999999",
        "0.1250000004",
        "-1.125",
        "2.2",
        "1e0",
        "-3",
        " .5",
        "",
        "99999999999",
        "+1",
    ),
    ("0.25", "0.249999999", "-899999999.75", "5e8", "1234567.75", "900000000.1", "-900000001", "7.", ""),
    ("0", "7", " 7\t", "7.0", "1e2", "101", "-5", "", "\u00a09"),
    ("0", "2", "3", "7", "8", "99", "100", "104", ""),
    ("true", "T", "yes", "0", "N", "1.0", "0.0", "FALSE", ""),
    ("a", " b c ", "é", "e\u0301", "?", "never seen", "", "A"),
    ("1", "2.0", "9", "3", ""),
)


def written(path: Path, columns: dict[str, list[str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def by_engine(path: Path, place: int) -> tuple[TableColumn, list[int | None]]:
    """Return a column's definition and its cells as a silo that trains codes them, in the order of the ids."""
    of = policy(DECLARED[place])
    source = load_sources(of, path)["t"]
    column = published("x", of.sources["t"].columns["x"], of.sources["t"], 0)
    is_text = kind_of(column) == "text"
    coding = Coding("member" if is_text or column.type == "bool" else "steps", column)
    with opened(source) as database:
        rows, persons = coded_by_engine(database, source.view, "id", [coding])
    order = np.argsort([int(persons[int(one)].as_py()) for one in rows.person])
    if is_text:
        return column, [int(one) for one in member_of(rows, column, order)]
    width = 1 if column.type == "bool" else column.range_steps
    steps = steps_of(rows, column, order).astype(np.int64)
    return column, [None if one == NO_STEPS else int(2 * np.clip(one, 0, width) - width) for one in steps]


@pytest.mark.parametrize("place", range(len(DECLARED)))
def test_cells_are_coded_as_a_silo_codes_its_own(tmp_path: Path, place: int) -> None:
    texts = list(CELLS[place])
    written(tmp_path / "t.csv", {"id": [str(row) for row in range(len(texts))], "x": texts})
    column, expected = by_engine(tmp_path, place)
    found = read(tmp_path / "t.csv", column)
    codes: list[int | None] = [None] * len(texts)
    for row, code in zip(found.places, found.cells.cells["x"], strict=True):
        codes[row] = int(code)
    assert codes == expected


def read(file: Path, *columns: TableColumn, filled: tuple[str, ...] = ()) -> Coded:
    return coded(read_rows(file, [column.name for column in columns]), columns, filled)


NUMBER, WHOLE = families.number("x", 0, 100, "0.1"), families.number("x", 0, 100)
TRUTH, DAY = families.truth("x"), TableColumn(name="x", type="date", domain=("2026-01", "?"), unknown="?")
BAD: tuple[tuple[TableColumn, str, str], ...] = (
    (NUMBER, "1,5", "expected a number"),
    (NUMBER, "nan", "expected a number"),
    (NUMBER, "1_000", "expected a number"),
    (NUMBER, "1e30", "expected a number"),
    (NUMBER, "x" * 100, "found 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', expected"),
    (WHOLE, "2.5", "expected a whole number"),
    (TRUTH, "2", "expected true or false"),
    (DAY, "2026-03-01", "expected a period such as '2026-01'"),
)


@every("case", BAD)
def test_a_cell_that_cannot_be_read_is_named_with_its_line(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[TableColumn, str, str]
) -> None:
    column, text, says = case
    file = tmp_path_factory.mktemp("bad") / "t.csv"
    written(file, {"id": ["1", "two\nlines", "3"], "x": ["", "", text]})
    with pytest.raises(ModelError, match="line 5, column 'x'") as caught:
        read(file, column)
    assert says in caught.value.message


def test_a_whole_number_of_many_digits_is_clamped_as_any_other(tmp_path: Path) -> None:
    texts = ["1e28", "-1e28", "7"]
    written(tmp_path / "t.csv", {"x": texts})
    assert read(tmp_path / "t.csv", WHOLE).cells.cells["x"].tolist() == [100, -100, -86]
    written(tmp_path / "t.csv", {"x": [f"{10**28}.5"]})
    with pytest.raises(ModelError, match="expected a whole number"):
        read(tmp_path / "t.csv", WHOLE)


def test_files_that_are_no_table_are_refused_with_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    for text, says in (
        (b"x,y\n1\n", "line 2: 1 cells, expected 2"),
        (b"y\n1\n", "has no column 'x', expected x"),
        (b"x,x\n1,1\n", "has the column 'x' twice"),
        (b"x\n\xff\n", "is not UTF-8"),
        (b'x\n"1\n', "line 2"),
        (b"", "has no column 'x'"),
        (b"PAR1 no more", "no readable Parquet"),
    ):
        file.write_bytes(text)
        with pytest.raises(ModelError, match=says):
            read(file, WHOLE)
    with pytest.raises(ModelError, match="cannot be read"):
        read(tmp_path / "none.csv", WHOLE)


def test_a_parquet_file_is_read_as_its_texts_would_be(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "a": [1.0, None, 2.5, float("nan")],
        "b": [True, False, None, True],
        "c": [Decimal("1.50"), None, Decimal("-2.00"), Decimal("0.01")],
        "d": ["a", "é", None, ""],
        "e": [1, 2, None, 4],
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    found = read_rows(tmp_path / "t.parquet", list(columns))
    assert found.columns == {
        "a": ["1", None, "2.5", None],
        "b": ["true", "false", None, "true"],
        "c": ["1.50", None, "-2.00", "0.01"],
        "d": ["a", "é", None, ""],
        "e": ["1", "2", None, "4"],
    }
    assert (list(found.lines), found.place) == ([1, 2, 3, 4], "row")


@pytest.mark.parametrize("missing", ["drop", "mean", "indicator"])
def test_a_missing_cell_is_treated_as_in_training(tmp_path: Path, missing: str) -> None:
    task, state, _ = fitted("linear-regression", missing)
    model = exact_form(task, state)
    written(
        tmp_path / "t.csv",
        {"kind": ["a", "", "b"], "debt": ["1", "", "2"], "age": ["30", "40", ""], "owner": ["1", "0", "1"]},
    )
    found = predict_by_form(tmp_path / "t.csv", model)
    lines = [line.split(",")[1] for line in found.text.splitlines()[1:]]
    assert [bool(line) for line in lines] == [True, missing != "drop", missing != "drop"]
    assert (found.rows, found.left_out) == (3, 2 if missing == "drop" else 0)
    if missing == "mean":  # of the cells that there are, in the units of the column
        mean = float(model.mean[3] * 5 + 5)
        written(tmp_path / "u.csv", {"kind": ["?"], "debt": [f"{mean:.2f}"], "age": ["40"], "owner": ["0"]})
        other = float(predict_by_form(tmp_path / "u.csv", model).text.splitlines()[1].split(",")[1])
        assert float(lines[1]) == pytest.approx(other, abs=0.1)


def test_scores_of_several_classes_have_a_column_each(tmp_path: Path) -> None:
    task, state, _ = fitted("multinomial-regression")
    model = exact_form(task, state)
    written(tmp_path / "t.csv", {"kind": ["a"], "debt": ["1"], "age": ["30"], "owner": ["1"]})
    head, line = predict_by_form(tmp_path / "t.csv", model).text.splitlines()
    assert head == "row,no,later,yes"
    assert sum(map(float, line.split(",")[1:])) == pytest.approx(1)


def test_a_run_without_a_model_has_no_form() -> None:
    task = families.task("logistic-regression", COLUMNS, "ok", FEATURES)
    with pytest.raises(SiloError, match="no prediction form: the run ended without a model"):
        exact_form(task, State())


def test_every_family_has_a_form_or_a_reason_why_not() -> None:
    with_form = LINKS.keys() | {NAIVE_BAYES} | NETWORKS
    assert FAMILIES.keys() == with_form | WITHOUT.keys()
    assert not with_form & WITHOUT.keys()


def test_a_graph_that_scores_otherwise_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    task, state, _ = fitted("logistic-regression", "mean")
    model = exact_form(task, state)
    monkeypatch.setattr("policies.models.onnx_form.scores_of", lambda model, rows: scores(model, rows) + 2e-5)
    with pytest.raises(ModelError, match=r"scores 2.0e-05 away from the model"):
        to_onnx(model)
