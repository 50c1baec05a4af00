"""A data file that cannot be what the policy says is refused when it is loaded, by source, file and column."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from policies.document.policy import Policy
from silo_node.data.cells import quote
from silo_node.data.locations import connect
from silo_node.errors import SourceError
from tests.cases import every
from tests.harness.example_policy import Edit, policy
from tests.harness.rows import load_sources, opened

COLUMNS = ("patient_id", "ward", "grade", "age", "cost", "smoker", "region", "stay")
CSV = policy(Edit('kind = "parquet"', 'kind = "csv"'), Edit("visits.parquet", "visits.csv"))


@cache
def cells_of_all() -> dict[str, Any]:
    """Return fitting cells of every column; pyarrow imports pandas for the first array."""
    return {
        "patient_id": pa.array(["p1", "p2"]),
        "ward": pa.array(["medicine", None]),
        "grade": pa.array([1, None], pa.int8()),
        "age": pa.array([30, 40], pa.int16()),
        "cost": pa.array([1.5, None]),
        "smoker": pa.array([True, False]),
        "region": pa.array(["north", None]),
        "stay": pa.array([3, 4], pa.uint32()),
    }


def write(home: Path, cells: dict[str, Any], name: str = "visits.parquet") -> None:
    pyarrow.parquet.write_table(pa.table(cells), home / name)


def refusal(of: Policy, home: Path) -> SourceError:
    """Return the error of loading, which must name the source and a way out."""
    with pytest.raises(SourceError) as caught:
        load_sources(of, home)
    assert caught.value.message.startswith("source 'visits': ")
    assert caught.value.hint
    return caught.value


def test_a_fitting_file_is_loaded(tmp_path: Path) -> None:
    write(tmp_path, cells_of_all())
    (source,) = load_sources(policy(), tmp_path).values()
    assert source.name == "visits"
    columns = policy().sources["visits"].columns
    assert source.columns == {key: column for key, column in columns.items() if key != "diary"}
    with opened(source) as database:
        assert database.execute(f"SELECT sum(age), count(*) FROM {source.view}").fetchall() == [(70, 2)]


def test_a_column_without_a_role_is_never_looked_at(tmp_path: Path) -> None:
    write(tmp_path, cells_of_all() | {"diary": pa.array([[1], [2]])})
    assert "diary" not in COLUMNS
    assert load_sources(policy(), tmp_path)


@pytest.mark.parametrize("of", [policy(), CSV], ids=["parquet", "csv"])
def test_a_missing_file_is_named(of: Policy, tmp_path: Path) -> None:
    error = refusal(of, tmp_path)
    assert f"the file {of.sources['visits'].uri} is missing" in error.message
    assert str(tmp_path) in error.hint


@pytest.mark.parametrize("content", [b"", b"PAR1", b"garbage" * 1000, b"PAR1" + bytes(500) + b"PAR1"])
def test_what_is_no_parquet_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "visits.parquet").write_bytes(content)
    assert "visits.parquet cannot be read as parquet (" in refusal(policy(), tmp_path).message


def test_a_parquet_file_cut_short_is_refused(tmp_path: Path) -> None:
    write(tmp_path, cells_of_all())
    file = tmp_path / "visits.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    assert "cannot be read as parquet" in refusal(policy(), tmp_path).message


@pytest.mark.parametrize("content", [b"\x00\xff\xfe" * 500, b'"' * 999])
def test_what_is_no_csv_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "visits.csv").write_bytes(content)
    assert "visits.csv" in refusal(CSV, tmp_path).message


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {name: cells[:0] for name, cells in cells_of_all().items()})
    assert "visits.parquet has no rows" in refusal(policy(), tmp_path).message


@pytest.mark.parametrize("content", ["", ",".join(COLUMNS) + "\n"], ids=["empty", "header"])
def test_a_csv_file_without_rows_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "visits.csv").write_text(content)
    assert "visits.csv has no rows" in refusal(CSV, tmp_path).message


@pytest.mark.parametrize("name", COLUMNS)
def test_a_missing_column_is_named(name: str, tmp_path: Path) -> None:
    write(tmp_path, {one: cells for one, cells in cells_of_all().items() if one != name})
    message = refusal(policy(), tmp_path).message
    assert f"visits.parquet has no column {name!r} (found: " in message
    assert all(one in message for one in COLUMNS)


@every(
    ("name", "cells", "found"),
    lambda: [
        ("ward", pa.array([["a"], ["b"]]), "VARCHAR[]"),
        ("ward", pa.array([b"a", b"b"]), "BLOB"),
        ("age", pa.array([[1], [2]]), "BIGINT[]"),
        ("age", pa.array([0, 1], pa.time32("s")), "TIME"),
        ("cost", pa.array([[1.5], [2.5]]), "DOUBLE[]"),
        ("smoker", pa.array([[True], [False]]), "BOOLEAN[]"),
        ("region", pa.array([{"a": "x"}, {"a": "y"}]), "STRUCT"),
    ],
)
def test_a_column_of_no_single_values_is_named(name: str, cells: Any, found: str, tmp_path: Path) -> None:
    write(tmp_path, cells_of_all() | {name: cells})
    message = refusal(policy(), tmp_path).message
    assert f"column {name!r} of " in message
    assert f"visits.parquet is {found}" in message
    assert message.endswith("which no cell is read from")


@every(
    ("name", "cells", "said"),
    lambda: [
        ("age", pa.array(["30", "old"]), "row 2, column 'age': 'old' is no int; 1 of 2 cells cannot be read as int"),
        ("age", pa.array([True, False]), "'true' is no int"),
        ("age", pa.array([0, 1], pa.timestamp("s")), "is no int"),
        ("cost", pa.array(["1.5", "x"]), "row 2, column 'cost': 'x' is no decimal"),
        ("smoker", pa.array([0, 2]), "row 2, column 'smoker': '2' is no bool"),
        ("grade", pa.array([1.0, 2.5]), "row 2, column 'grade': '2.5' is no int"),
    ],
)
def test_a_column_of_which_too_much_cannot_be_read_is_named(name: str, cells: Any, said: str, tmp_path: Path) -> None:
    write(tmp_path, cells_of_all() | {name: cells})
    error = refusal(policy(), tmp_path)
    assert said in error.message
    assert "(max_unreadable = 0.01)" in error.message
    assert "[sources.visits" in error.hint


@every(
    ("name", "cells", "values"),
    lambda: [
        ("grade", pa.array([1, 2], pa.int64()), [1, 2]),
        ("grade", pa.array(["1", "2"]), [1, 2]),
        ("age", pa.array([1, 2], pa.uint8()), [1, 2]),
        ("age", pa.array([1.0, 2.0]), [1, 2]),
        ("age", pa.array([None, None], pa.int32()), [None, None]),
        ("cost", pa.array([1, 2], pa.int32()), [1, 2]),
        ("cost", pa.array([1.5, 2.5], pa.float32()), [1.5, 2.5]),
        ("cost", pa.array(["1.5", "2.5"]).cast(pa.decimal128(10, 2)), [1.5, 2.5]),
        ("smoker", pa.array([0, 1]), [False, True]),
        ("smoker", pa.array(["true", "no"]), [True, False]),
        ("ward", pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        ("ward", pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        ("ward", pa.array([1, 2]), ["1", "2"]),
        ("patient_id", pa.array([1, 2]), ["1", "2"]),
    ],
)
def test_a_stored_type_is_read_as_the_policy_declares(name: str, cells: Any, values: list[Any], tmp_path: Path) -> None:
    write(tmp_path, cells_of_all() | {name: cells})
    (source,) = load_sources(policy(), tmp_path).values()
    with opened(source) as database:
        assert database.execute(f"SELECT {name} FROM {source.view}").fetchall() == [(value,) for value in values]


def test_a_csv_column_with_another_value_is_named(tmp_path: Path) -> None:
    pyarrow.csv.write_csv(pa.table(cells_of_all() | {"age": pa.array(["30", "old"])}), tmp_path / "visits.csv")
    assert refusal(CSV, tmp_path).message == (
        f"source 'visits': {tmp_path}/visits.csv, line 3, column 'age': 'old' is no int;"
        " 1 of 2 cells cannot be read as int (max_unreadable = 0.01)"
    )


def test_several_files_are_one_source(tmp_path: Path) -> None:
    several = policy(Edit('"visits.parquet"', '"parts/*.parquet"\npattern = true'))
    assert "no file matches parts/*.parquet" in refusal(several, tmp_path).message
    (tmp_path / "parts").mkdir()
    for part in ("a", "b"):
        write(tmp_path / "parts", cells_of_all(), f"{part}.parquet")
    (source,) = load_sources(several, tmp_path).values()
    with opened(source) as database:
        assert database.execute(f"SELECT count(*) FROM {source.view}").fetchall() == [(4,)]


@every(
    "changed",
    lambda: [
        cells_of_all() | {"age": pa.array([[30], [40]])},
        {name: cells for name, cells in cells_of_all().items() if name != "age"},
    ],
)
def test_several_files_that_differ_are_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    """Otherwise the first request would fail by what the second file holds."""
    write(tmp_path, cells_of_all(), "a.parquet")
    write(tmp_path, changed, "b.parquet")
    refusal(policy(Edit('"visits.parquet"', '"*.parquet"\npattern = true')), tmp_path)


@pytest.mark.parametrize("name", ["o'brien", "age=7", "a[1]b", 'say "x"', "with space", "ærø", "a*b?"])
@pytest.mark.parametrize("kind", ["parquet", "csv", "duckdb"])
def test_a_file_may_have_any_name(kind: str, name: str, tmp_path: Path) -> None:
    """A uri is a path: nothing in it is a pattern."""
    file, table = tmp_path / f"{name}.{kind}", pa.table(cells_of_all())
    if kind == "parquet":
        pyarrow.parquet.write_table(table, file)
    elif kind == "csv":
        pyarrow.csv.write_csv(table, file)
    else:
        with duckdb.connect(str(file)) as database:
            database.register("given", table)
            database.execute("CREATE TABLE t AS FROM given")
    uri = json.dumps(file.name + ("#t" if kind == "duckdb" else ""))
    of = policy(Edit('kind = "parquet"', f'kind = "{kind}"'), Edit('"visits.parquet"', uri))
    (source,) = load_sources(of, tmp_path).values()
    with opened(source) as database:
        assert database.execute(f"SELECT sum(age), count(*) FROM {source.view}").fetchall() == [(70, 2)]


@pytest.mark.parametrize("name", ["o'brien", "age=7", "a[1]b", 'say "x"', "with space", "ærø"])
def test_a_silo_s_directory_may_have_any_name(name: str, tmp_path: Path) -> None:
    """And never becomes a value of a column, as it would where a path is read as a partition."""
    home = tmp_path / name
    home.mkdir()
    write(home, cells_of_all())
    (source,) = load_sources(policy(), home).values()
    with opened(source) as database:
        assert database.execute(f"SELECT sum(age) FROM {source.view}").fetchall() == [(70,)]


@pytest.mark.parametrize("uri", ["a**b", ".", "~", "/", "..", 300 * "a"])
def test_a_uri_that_names_no_file_is_refused(uri: str, tmp_path: Path) -> None:
    refusal(policy(Edit('"visits.parquet"', f'"{uri}"')), tmp_path)
    refusal(policy(Edit('"visits.parquet"', f'"{uri}"\npattern = true')), tmp_path)


def test_an_absolute_uri_is_read_where_it_points(tmp_path: Path) -> None:
    write(tmp_path, cells_of_all())
    home = tmp_path / "home"
    home.mkdir()
    assert load_sources(policy(Edit('"visits.parquet"', f'"{tmp_path}/visits.parquet"')), home)


def test_the_database_reaches_no_extension() -> None:
    with connect() as database:
        settings = dict(
            database.execute("SELECT name, value FROM duckdb_settings() WHERE name LIKE 'auto%known%'").fetchall()
        )
    assert settings == {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}


@pytest.mark.parametrize("name", ["age", 'a"b', '"', "a.b", "select"])
def test_identifiers_are_quoted_whole(name: str) -> None:
    with connect() as database:
        answer = database.execute(f"SELECT {quote(name)} FROM (SELECT 1 AS {quote(name)})")
        assert answer.description[0][0] == name
