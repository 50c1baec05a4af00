"""Columns of arrays in a policy, a request, a draft and a question: what they need, and where they are refused."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from analyst.errors import SqlError
from analyst.sql.plan import plan as planned
from crypto.rounds.manifest import Recipient
from crypto.sealing import PUBLIC_BYTES
from policies.arrays import MAX_CELL, MAX_NUMBER
from policies.budget.ledger import Spending
from policies.decision.decide import decide
from policies.decision.shown import in_words
from policies.document.agreement import ColumnsFile, agreed, drafted_columns, read_columns
from policies.document.catalogue import definition_of, open_tables
from policies.document.describe import worded_policy
from policies.document.diff import compare
from policies.document.drafted_roles import Opening
from policies.document.found import FoundTable, stored_table
from policies.document.policy import Policy
from policies.document.stored_lists import with_lengths
from policies.errors import ColumnsFileError, PolicyFileError
from policies.requests.families import SHAPES, Kind, check_task, kind_of
from policies.requests.request import Request
from policies.requests.tables import TableColumn, check_role
from silo_node.owner.cli import main
from tests.harness.example_policy import NOW, SMOKER, Edit, offer, policy, table
from tests.harness.rows import policy as of_columns
from tests.rounds.computation_examples import exact

SCAN = TableColumn(name="scan", type="array", low=0, high=255, step="1", shape=(8, 8), of="int")
DECLARED = (
    'scan = { type = "array", class = "internal", shape = [8, 8], of = "int", bounds = [0, 255], roles = ["feature"] }'
)
HAS_SCAN = Edit("smoker = {", f"{DECLARED}\nsmoker = {{")
LEARNS = (
    Edit('computations = ["query"]', 'computations = ["query", "linear-regression"]'),
    Edit('kind = "parquet"', 'release = "exact"\nkind = "parquet"'),
    Edit('class = "sensitive", roles = ["measure", "filter"] }', 'class = "sensitive", roles = ["label"] }'),
    Edit("min_cohort     = 25", 'release = ["query-result", "model"]\nmin_cohort = 25'),
    Edit(
        "[analysts.ana]",
        '[training]\nmax_rounds = 10\ndp = "optional"\nclip_norm = 5\nmax_rho_per_run = 0.1\n[analysts.ana]',
    ),
)
ARRAY = 'type = "array", shape = [2, 3], of = "int", bounds = [0, 9], roles = ["feature"]'


def changed(old: str, new: str, kind: str = "parquet") -> Policy:
    assert old in ARRAY
    return of_columns(ARRAY.replace(old, new), kind=kind)


def test_a_policy_opens_an_array_and_the_definition_of_its_table_has_its_shape() -> None:
    own = policy(HAS_SCAN)
    (opened,) = (one for one in open_tables(own)[0].columns if one.column.name == "scan")
    assert (opened.column, opened.roles) == (SCAN, ("feature",))
    other = policy(Edit(HAS_SCAN.old, HAS_SCAN.new.replace("[8, 8]", "[64]")))
    assert definition_of(own, "visits") != definition_of(other, "visits")
    said = " ".join(sentence for _, sentences in worded_policy(own) for sentence in sentences)
    assert "scan (array of int, shape [8, 8], internal, 0 to 255) may be used as feature" in said


def test_the_encoding_of_other_columns_is_as_it_was() -> None:
    assert "shape" not in SMOKER.model_dump_json()
    assert '"of"' not in SMOKER.model_dump_json()
    assert TableColumn.model_validate_json(SCAN.model_dump_json()) == SCAN


@pytest.mark.parametrize("role", ["measure", "dimension", "filter", "label", "audit", "key", "held_out"])
def test_an_array_has_no_other_role_than_feature(role: str) -> None:
    with pytest.raises(PolicyFileError, match=f"an array is a feature of a network, .* remove the role {role}"):
        changed('["feature"]', f'["feature", "{role}"]')
    with pytest.raises(ValueError, match="is an array, which is a feature"):
        check_role(table(columns=(SCAN,)), role, "scan")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("shape = [2, 3], ", "", "an open array needs shape, of and bounds, such as shape = [8, 8]"),
        ('of = "int", ', "", "an open array needs shape, of and bounds"),
        ("bounds = [0, 9], ", "", "an open array needs shape, of and bounds"),
        ("[2, 3]", "[]", "shape"),
        ("[2, 3]", "[0, 3]", "shape"),
        ("[2, 3]", "[1, 1, 1, 1, 1]", "shape"),
        ("[2, 3]", "[1024, 1025]", f"1,049,600 elements, at most {MAX_CELL:,}"),
        ('"int"', '"text"', "of"),
        ('of = "int"', 'of = "decimal"', "a decimal array needs step"),
        ("bounds = [0, 9]", "bounds = [0, 1.5], step = 0.5", "has a whole step, not 0.5"),
        ("bounds = [0, 9]", f"bounds = [0, {MAX_NUMBER + 1}]", "numbers of an array lie between"),
        ("bounds = [0, 9]", "bounds = [9, 0]", "low must be below high"),
        ("bounds = [0, 9]", "bounds = [0, 9], domain = [1, 2], unknown = 1", "a array column has no domain"),
        ("bounds = [0, 9]", "bounds = [0, 9], narrow = true", "no narrow"),
        ("bounds = [0, 9]", "bounds = [0, 9], can_be_missing = false", "no can_be_missing"),
        ("bounds = [0, 9]", 'bounds = [0, 9], missing = ["-"]', "no texts for missing cells"),
        ("bounds = [0, 9]", 'bounds = [0, 9], missing = "zero"', "missing"),
        ("bounds = [0, 9]", "bounds = [0, 9], scale = 2", "has no scale"),
        ("bounds = [0, 9]", 'bounds = [0, 9], decimal = ","', "decimal is for int and decimal columns"),
        ('type = "array"', 'type = "int"', "shape and of are for an array, not for int; remove them"),
    ],
)
def test_what_is_no_array_is_refused_with_what_to_write(old: str, new: str, said: str) -> None:
    with pytest.raises(PolicyFileError, match=re.escape(said)):
        changed(old, new)


@pytest.mark.parametrize("kind", ["csv", "postgres"], ids=["lines", "table"])
def test_locations_without_arrays_are_refused_by_key(kind: str) -> None:
    with pytest.raises(PolicyFileError, match=f"'x': an array is read from Parquet or DuckDB, not from {kind}; write"):
        of_columns(ARRAY, kind=kind, uri="" if kind == "csv" else "env:DB#t")


def test_an_array_says_whose_row_it_is_nowhere() -> None:
    with pytest.raises(PolicyFileError, match="an array is no id_column"):
        policy(Edit('patient_id = { type = "string"', 'patient_id = { type = "array"'))


def test_a_closed_array_needs_nothing_said() -> None:
    assert of_columns('type = "array", roles = []', kind="parquet").sources["t"].columns["x"].shape is None


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": ()}, {"of": None}, {"step": None, "low": None, "high": None}, {"domain": ("a",), "unknown": "a"},
        {"can_be_missing": False}, {"shape": (2**19, 4)}, {"step": "0.5"}, {"high": MAX_NUMBER + 1}, {"type": "int"},
    ],
)  # fmt: skip
def test_a_definition_that_no_policy_publishes_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TableColumn.model_validate(SCAN.model_dump() | changes)


def of_scan(column: TableColumn = SCAN) -> Request:
    """Return a step that names an array; no family of sums takes one, which is not looked at here."""
    asked = exact("linear-regression", "smoker", "age")
    plan = asked.plan.model_copy(update={"features": ("scan",)})
    silos = tuple(Recipient(name=silo, key=bytes(PUBLIC_BYTES)) for silo in asked.silos)
    of = table(columns=(column, SMOKER))
    return asked.model_copy(update={"table": of, "plan": plan, "recipients": silos})


@pytest.mark.parametrize(
    ("changes", "rule"), [({"shape": (64,)}, "shape"), ({"shape": (4, 8)}, "shape"), ({"of": "decimal"}, "of")]
)
def test_a_request_takes_the_shape_that_the_policy_has(changes: dict[str, Any], rule: str) -> None:
    judging = policy(HAS_SCAN, *LEARNS)
    for column, is_denied in ((SCAN, False), (SCAN.model_copy(update=changes), True)):
        found = decide(judging, of_scan(column), bytes(32), Spending(0), NOW)
        denied = [one.rule for one in found if one.code == "DEFINITION"]
        assert denied == ([f"sources.visits.columns.scan.{rule}"] if is_denied else [])


def test_no_request_narrows_an_array() -> None:
    narrow = SCAN.model_copy(update={"high": 100})
    found = decide(policy(HAS_SCAN, *LEARNS), of_scan(narrow), bytes(32), Spending(0), NOW)
    assert any("scan" in one.message and "not be narrowed" in one.message for one in found)


def test_people_are_shown_the_shape() -> None:
    said = dict(in_words(policy(HAS_SCAN), of_scan(), 0))
    assert said["column scan"].startswith("array of int, shape [8, 8], 0 to 255 by 1")


def test_a_family_that_takes_no_arrays_says_which_do() -> None:
    assert kind_of(SCAN) == "array"
    task = of_scan().plan.task(table(columns=(SCAN, SMOKER)))  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="feature 'scan' is an array, which linear-regression does not take"):
        check_task(task)
    kinds: list[Kind | None] = ["array", "number", None]
    assert [SHAPES["linear-regression"].fits(kind) for kind in kinds] == [False, True, False]


def test_the_cost_of_a_row_counts_the_numbers_of_an_array() -> None:
    one, other = (of_scan(SCAN.model_copy(update={"shape": shape})) for shape in ((8, 8), (10, 10)))
    assert other.plan.size(other.table) - one.plan.size(one.table) >= 36


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(scan) FROM visits", "SELECT AVG(scan) FROM visits", "SELECT COUNT(*) FROM visits WHERE scan = 3",
        "SELECT COUNT(*) FROM visits WHERE scan IS NULL", "SELECT scan, COUNT(*) FROM visits GROUP BY scan",
    ],
)  # fmt: skip
def test_a_question_about_an_array_is_refused_with_a_hint(sql: str) -> None:
    with pytest.raises(SqlError, match=r"column 'scan' .*holds arrays of shape \[8, 8\]") as refused:
        planned(sql, offer(policy(HAS_SCAN)))
    assert "a training job takes them" in refused.value.hint


def test_silos_with_other_shapes_offer_no_column_and_both_are_named() -> None:
    other = policy(Edit(HAS_SCAN.old, HAS_SCAN.new.replace("[8, 8]", "[16, 16]")))
    with pytest.raises(SqlError) as refused:
        offer(policy(HAS_SCAN), other).table("visits", ["scan"])
    said = f"{refused.value} {refused.value.hint}"
    for part in ("silo-0", "silo-1", "shape [8, 8]", "shape [16, 16]"):
        assert part in said


def test_another_shape_is_a_change_that_loosens() -> None:
    other = policy(Edit(HAS_SCAN.old, HAS_SCAN.new.replace("[8, 8]", "[16, 16]")))
    (change,) = compare(policy(HAS_SCAN), other)
    assert str(change) == "loosens   sources.visits.columns.scan.shape: [8, 8] -> [16, 16]"
    closer = policy(Edit(HAS_SCAN.old, HAS_SCAN.new.replace("[0, 255]", "[0, 100]")))
    assert [one.effect for one in compare(policy(HAS_SCAN), closer)] == ["loosens"]


def found(home: Path, name: str, kind: pa.DataType, cells: list[Any]) -> FoundTable:
    """Return what a draft finds of a Parquet file with a column of lists."""
    import duckdb

    file = home / f"{name}.parquet"
    pyarrow.parquet.write_table(pa.table({"id": ["a"] * len(cells), "scan": pa.array(cells, kind)}), file)
    with duckdb.connect() as database:
        rows = database.execute(f"DESCRIBE FROM read_parquet('{file}')").fetchall()
    return stored_table(with_lengths({str(row[0]): str(row[1]) for row in rows}, file))


FIXED = pa.list_(pa.list_(pa.uint8(), 2), 2)


def test_a_draft_has_the_shape_that_a_file_fixes_and_asks_for_the_bounds(tmp_path: Path) -> None:
    fixed = found(tmp_path, "a", FIXED, [[[1, 2], [3, 4]]])
    scan = fixed.columns["scan"]
    assert (scan.type, scan.shape, scan.of) == ("array", (2, 2), "int")
    both = agreed({"a": fixed}, {"a": "id"}, None, Opening(is_training=True))
    assert 'scan = { type = "array", shape = [2, 2], of = "int", bounds = "FILL IN" }' in drafted_columns(both)
    loose = found(tmp_path, "b", pa.list_(pa.float32()), [[1.0, 2.0]])
    assert loose.columns["scan"].shape is None
    drafted = drafted_columns(agreed({"b": loose}, {"b": "id"}, None, Opening()))
    said = 'shape = "FILL IN", of = "decimal", bounds = "FILL IN", step = 0.01 }  # lists of numbers, 1 level deep'
    assert said in drafted


def test_a_tensor_of_a_fixed_shape_has_it(tmp_path: Path) -> None:
    tensor = pa.fixed_shape_tensor(pa.int16(), (2, 3))
    cells = pa.FixedSizeListArray.from_arrays(pa.array(range(6), pa.int16()), 6)
    stored = pa.ExtensionArray.from_storage(tensor, cells)
    pyarrow.parquet.write_table(pa.table({"scan": stored}), tmp_path / "t.parquet")
    assert with_lengths({"scan": "SMALLINT[]"}, tmp_path / "t.parquet") == {"scan": "SMALLINT[3][2]"}


def columns_file(home: Path, line: str) -> ColumnsFile:
    (home / "columns.toml").write_text(line)
    return read_columns(home / "columns.toml")


def test_a_file_of_columns_says_one_shape_and_a_silo_that_stores_another_is_named(tmp_path: Path) -> None:
    own = found(tmp_path, "a", FIXED, [[[1, 2], [3, 4]]])
    other = found(tmp_path, "b", pa.list_(pa.int8(), 9), [[1] * 9])
    ids: dict[str, str | None] = {"north": "id", "south": "id"}
    file = columns_file(tmp_path, "scan = { bounds = [0, 9] }")
    alone = agreed({"north": own}, {"north": "id"}, file, Opening(is_training=True))
    (_, scan) = alone.columns["north"]
    assert scan.declared == {"class": "confidential", "roles": ("feature",), "bounds": (0, 9)}
    stated = columns_file(tmp_path, "scan = { bounds = [0, 9], shape = [2, 2] }")
    with pytest.raises(ColumnsFileError, match=r"scan.shape: \[2, 2\] here, but at south column 'scan' has .*\[9\]"):
        agreed({"north": own, "south": other}, ids, stated, Opening(is_training=True))
    notes = agreed({"north": own, "south": other}, ids, None, Opening()).notes
    assert any("[2, 2] at north; [9] at south" in note for note in notes)


ANSWERS = ["--purpose", "p", "--basis", "contract", "--epsilon", "8", "--jurisdiction", "NO", "--id", "id"]
ANSWERS.append("--controller")


def drafted(home: Path, *more: str) -> str:
    """Return the policy that `consilo-silo init` drafts for a file of images and signals."""
    scans = pa.array([[[1, 2], [3, 4]]], FIXED)
    signals = pa.array([[0.5, 1.0, 1.5]], pa.list_(pa.float32()))
    pyarrow.parquet.write_table(pa.table({"id": ["a"], "scan": scans, "signal": signals}), home / "t.parquet")
    out = str(home / "policy.toml")
    assert main(["init", str(home / "t.parquet"), *ANSWERS, "x <y>", "--out", out, *more]) == 0
    return (home / "policy.toml").read_text()


def test_init_drafts_an_array_open_to_networks_whose_bounds_are_to_fill_in(tmp_path: Path) -> None:
    text = drafted(tmp_path, "--computations", "cnn")
    scan, signal = (text[text.index(f"columns.{name}]") :].partition("\n\n")[0] for name in ("scan", "signal"))
    assert 'shape = [2, 2]\nof = "int"\nroles = ["feature"]' in scan
    assert "step" not in scan
    for line in ('shape = "FILL IN"', 'bounds = "FILL IN"', "step = 0.01"):
        assert line in signal
    filled = text.replace(scan, scan.replace('"FILL IN"', "[0, 9]"))
    filled = filled.replace(signal, signal.replace('shape = "FILL IN"', "shape = [3]").replace('"FILL IN"', "[-1, 1]"))
    (tmp_path / "policy.toml").write_text(filled)
    assert main(["check-policy", str(tmp_path / "policy.toml")]) == 0


def test_init_drafts_an_array_closed_where_no_model_is_open(tmp_path: Path) -> None:
    text = drafted(tmp_path)
    scan = text[text.index("columns.scan]") :].partition("\n\n")[0]
    assert "\nroles = []  " in scan
    assert '# roles = ["feature"]\n# bounds = "FILL IN"' in scan
    assert "FILL IN" not in "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    assert main(["check-policy", str(tmp_path / "policy.toml")]) == 0
