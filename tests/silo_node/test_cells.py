"""Cells are read as the policy declares, never guessed: in CSV, Parquet and DuckDB, in rows as in decisions."""

import csv
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.document.policy import Policy
from policies.errors import PolicyFileError
from silo_node.data.consent import consent_filter
from silo_node.errors import SourceError
from tests.cases import every
from tests.harness.example_policy import decided_in
from tests.harness.rows import load_consent, load_sources, opened, policy, prepared_in

NOW = 1_780_000_000  # 2026-05-28T20:26:40Z
KINDS = ("csv", "parquet", "duckdb")
TIMES = (None, "2026-01-01T00:00:00Z")


def store(path: Path, kind: str, **columns: Sequence[Any]) -> None:
    """Write columns as a file of a kind; a CSV file holds their texts."""
    table = pa.table({name: one if isinstance(one, pa.Array) else list(one) for name, one in columns.items()})
    if kind == "parquet":
        pq.write_table(table, path / "t.parquet")
    elif kind == "duckdb":
        with duckdb.connect(str(path / "t.duckdb")) as database:
            database.register("given", table)
            database.execute("CREATE TABLE t AS FROM given")
    else:
        with (path / "t.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))


def read(of: Policy, path: Path, *columns: str) -> list[Any]:
    """Return the values of columns as a request reads them, in the order of the ids; of one alone, no tuples."""
    source = load_sources(of, path)["t"]
    listed = ", ".join(f'"{name}"' for name in columns or ("x",))
    with opened(source) as database:
        rows = database.execute(f"SELECT {listed} FROM {source.view} ORDER BY id").fetchall()
    return rows if columns else [row[0] for row in rows]


INT, DECIMAL = 'type = "int", roles = ["filter"]', 'type = "decimal", roles = ["filter"]'
BOOL, TEXT = 'type = "bool", roles = ["filter"]', 'type = "string", roles = ["filter"]'
DATE = 'type = "date", roles = []'
GRADE = 'type = "int", roles = ["dimension"], domain = [-1, 0, 1, 2], unknown = -1'
ANY = "max_unreadable = 1"
NUMBERS: tuple[tuple[str, str, str, list[Any]], ...] = (
    # what is declared of the column, of the source, a text, its values
    (INT, "", "7", [7]),
    (INT, "", " 7\t", [7]),
    (INT, "", "233.0", [233]),
    (INT, "", "233.5", [None]),
    (INT, "", "1e3", [1000]),
    (INT, "", "1_000", [None]),
    (INT, "", "0x10", [None]),
    (INT, "", "NA", [None]),
    (INT, "", "1,5", [None]),
    (GRADE, "", " 2", [2]),
    (GRADE, "", "2.0", [2]),
    (GRADE, "", "02", [2]),
    (DECIMAL, "", "1.25", [Decimal("1.25")]),
    (DECIMAL, "", "nan", [None]),
    (DECIMAL, "", "inf", [None]),
    (DECIMAL, "", "1e30", [None]),
    (DECIMAL, 'decimal = ","', "1,25", [Decimal("1.25")]),
    (DECIMAL, 'decimal = ","', "1.25", [None]),
    (DECIMAL, 'decimal = ","\nthousands = "."', "1.234.567,5", [Decimal("1234567.5")]),
    (DECIMAL, 'decimal = ","\nthousands = "."', "1.25", [None]),
    (DECIMAL, 'thousands = ","', "1,234.5", [Decimal("1234.5")]),
    (DECIMAL, 'thousands = ","', "12,34.5", [None]),
    (f'{DECIMAL}, decimal = ","', "", "-3,5", [Decimal("-3.5")]),
    (DECIMAL, 'thousands = " "', "1 234.5", [Decimal("1234.5")]),
)
OTHERS: tuple[tuple[str, str, str, list[Any]], ...] = (
    (BOOL, "", "yes", [True]),
    (BOOL, "", "N", [False]),
    (BOOL, "", "1", [True]),
    (BOOL, "", "0.0", [False]),
    (BOOL, "", "2", [None]),
    (BOOL, 'true = ["ja"]\nfalse = ["nein"]', "Ja", [True]),
    (BOOL, 'true = ["ja"]\nfalse = ["nein"]', "1", [None]),
    (f'{BOOL}, true = ["oui"], false = ["non"]', "", "non", [False]),
    (TEXT, "", " male ", ["male"]),
    (TEXT, "trim = false", " male ", [" male "]),
    (TEXT, "", "\u00a0male", ["male"]),
    (TEXT, "", "Mu\u0308ller", ["M\u00fcller"]),
    (TEXT, 'unicode = "as-written"', "Mu\u0308ller", ["Mu\u0308ller"]),
    (TEXT, 'case = "ignore"', "MALE", ["male"]),
    (f'{TEXT}, domain = ["Male", "?"], unknown = "?"', 'case = "ignore"', "MALE", ["Male"]),
    (TEXT, "", "NA", ["NA"]),
    (TEXT, 'missing = ["", "NA", "?"]', "?", [None]),
    (f'{TEXT}, missing = ["-9"]', "", "-9", [None]),
    (f'{INT}, missing = ["-9"]', "", "-9", [None]),
    (f'{INT}, missing = ["-9"]', "", "-8", [-8]),
    (TEXT, 'case = "ignore"\nmissing = ["n/a"]', "N/A", [None]),
    (f'{TEXT}, values = {{ "1" = "male", "2" = "female" }}', "", " 1", ["male"]),
    (f'{TEXT}, values = {{ "1" = "male", "2" = "female" }}', "", "3", ["3"]),
)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_read_as_declared(tmp_path: Path, kind: str) -> None:
    """A source for each set of rules, with a column for each case: one row, whose cells must be these values."""
    cases = (*NUMBERS, *OTHERS)
    for number, rules in enumerate(dict.fromkeys(source for _, source, _, _ in cases)):
        path = tmp_path / str(number)
        path.mkdir()
        of_rules = [case for case in cases if case[1] == rules]
        columns = [*(column for column, _, _, _ in of_rules), INT]
        names = [f"x{index}" for index in range(len(columns))]
        texts = [*(text for _, _, text, _ in of_rules), "1"]
        store(path, kind, id=["p"], **{name: [text] for name, text in zip(names, texts, strict=True)})
        (row,) = read(policy(*columns, kind=kind, source=f"{rules}\n{ANY}"), path, *names)
        for (column, _, text, values), found in zip(of_rules, row, strict=False):
            assert [found] == values, (column, rules, text)


DATES: tuple[tuple[str, str, str, list[Any]], ...] = (
    (DATE, "", "2026-11-29", ["2026-11-29"]),
    (DATE, "", "2026-11-29T23:30:00-05:00", ["2026-11-30"]),
    (DATE, "", "29/11/2026", [None]),
    (DATE, "", "infinity", [None]),
    (DATE, "", "epoch", [None]),
    (DATE, 'dates = "%d/%m/%Y"', "29/11/2026", ["2026-11-29"]),
    (DATE, 'dates = "%d/%m/%Y"', "2026-11-29", [None]),
    (DATE, 'dates = ["%d/%m/%Y", "%Y-%m-%d"]', "2026-11-29", ["2026-11-29"]),
    (f'{DATE}, dates = "%Y%m%d"', "", "20261129", ["2026-11-29"]),
)


@pytest.mark.parametrize("kind", KINDS)
def test_dates_are_read_as_declared(tmp_path: Path, kind: str) -> None:
    for number, (column, rules, text, values) in enumerate(DATES):
        path = tmp_path / str(number)
        path.mkdir()
        store(path, kind, id=["p"], x=[text])
        assert read(policy(column, kind=kind, source=f'{rules}\n{ANY}\ntime_column = "x"'), path) == values, text


STORED: tuple[tuple[str, pa.Array, list[Any]], ...] = (
    (INT, pa.array([1.0, 2.5, float("nan")]), [1, None, None]),
    (TEXT, pa.array([1.0, 2.5, None]), ["1", "2.5", None]),
    (TEXT, pa.array([1, 2, None]), ["1", "2", None]),
    (DECIMAL, pa.array([0.1, None, 2.0], pa.float32()), [Decimal("0.1"), None, 2]),
    (DECIMAL, pa.array([0.1, float("inf"), float("nan")]), [Decimal("0.1"), None, None]),
    (BOOL, pa.array([0, 1, 7]), [False, True, None]),
    (BOOL, pa.array([0.0, 1.0, None]), [False, True, None]),
    (f'{BOOL}, true = ["ja"], false = ["nein"]', pa.array([True, False, None]), [True, False, None]),
    (INT, pa.array([None] * 3, pa.string()), [None] * 3),
    (INT, pa.array([None] * 3, pa.int8()), [None] * 3),
    (GRADE, pa.array([2.0, 1.0, None]), [2, 1, None]),
    (f'{INT}, missing = ["-9"]', pa.array([-9, 3, None]), [None, 3, None]),
)


@pytest.mark.parametrize("kind", ["parquet", "duckdb"])
def test_stored_types_are_read_as_declared(tmp_path: Path, kind: str) -> None:
    names = [f"x{index}" for index in range(len(STORED))]
    cells = dict(zip(names, (cells for _, cells, _ in STORED), strict=True))
    store(tmp_path, kind, id=pa.array(["p", "q", "r"]), **cells)
    rows = read(policy(*(column for column, _, _ in STORED), kind=kind, source=ANY), tmp_path, *names)
    for (column, stored, values), *found in zip(STORED, *rows, strict=True):
        assert found == values, (column, stored.type)


STORED_DATES: tuple[tuple[str, pa.Array, list[Any]], ...] = (
    (DATE, pa.array([datetime(2026, 5, 1, 23, 30, tzinfo=UTC)] * 3), ["2026-05-01"] * 3),
    (DATE, pa.array([datetime(2026, 5, 1)] * 3, pa.timestamp("ns", "UTC")), ["2026-05-01"] * 3),
    (DATE, pa.array([datetime(2026, 5, 1)] * 3).cast(pa.date32()), ["2026-05-01"] * 3),
    (f'{DATE}, dates = "%d/%m/%Y"', pa.array([datetime(2026, 5, 1)] * 3).cast(pa.date32()), ["2026-05-01"] * 3),
    (f'{DATE}, dates = "%Y%m%d"', pa.array([20260501] * 3), ["2026-05-01"] * 3),
)


@pytest.mark.parametrize("kind", ["parquet", "duckdb"])
def test_stored_dates_are_read_as_declared(tmp_path: Path, kind: str) -> None:
    for number, (column, cells, values) in enumerate(STORED_DATES):
        path = tmp_path / str(number)
        path.mkdir()
        store(path, kind, id=pa.array(["p", "q", "r"]), x=cells)
        assert read(policy(column, kind=kind, source='time_column = "x"'), path) == values, cells.type


def test_each_file_of_a_source_is_cast_by_itself(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a", "b"], "x": [64, 65]}), tmp_path / "2026-01.parquet")
    pq.write_table(pa.table({"x": [64.25, None], "id": ["c", "d"]}), tmp_path / "2026-02.parquet")
    of = policy(DECIMAL, kind="parquet", source="pattern = true", uri="*.parquet")
    assert read(of, tmp_path) == [64, 65, Decimal("64.25"), None]
    with pytest.raises(SourceError, match="is missing") as caught:
        load_sources(policy(DECIMAL, kind="parquet", uri="*.parquet"), tmp_path)
    assert "pattern = true" in caught.value.hint


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_of_the_same_columns_are_read_at_once_and_others_by_themselves(tmp_path: Path, kind: str) -> None:
    """A union of as many parts as files would take the engine a minute to plan for a thousand."""
    for index in range(40):
        cells = {"id": pa.array([f"p{index:02}"]), "x": pa.array([index])}
        table = pa.table(cells if index % 2 else dict(reversed(cells.items())))
        path = tmp_path / f"{index:02}.{kind}"
        pq.write_table(table, path) if kind == "parquet" else pyarrow.csv.write_csv(table, path)
    of = policy(INT, kind=kind, source="pattern = true", uri=f"*.{kind}")
    assert read(of, tmp_path) == list(range(40))
    with opened(load_sources(of, tmp_path)["t"]) as database:
        ((sql,),) = database.execute("SELECT sql FROM duckdb_views() WHERE view_name = 'source t'").fetchall()
    assert sql.count("UNION ALL") == 1


DIALECTS: tuple[tuple[str, bytes, list[Any]], ...] = (
    ("", b"id, x\np,1\nq,2\n", ["1", "2"]),
    ("", b"ID,X\np,1\nq,2\n", ["1", "2"]),
    ("", b"\xef\xbb\xbfid,x\r\np,1\r\nq,2\r\n\r\n", ["1", "2"]),
    ("", b"id,x\n#p,1\n#q,2\n", ["1", "2"]),
    ("", b'id,x\np,"a ""b"", c"\nq,"d\ne"\n', ['a "b", c', "d\ne"]),
    ("", b'id,x\np,5" pipe\nq,2\n', ['5" pipe', "2"]),
    ('csv = { delimiter = ";" }', b"id;x\np;1,5\nq;2\n", ["1,5", "2"]),
    ('csv = { delimiter = "tab", quote = "" }', b'id\tx\np\t"1\nq\t2\n', ['"1', "2"]),
    ('csv = { quote = "\'" }', b"id,x\np,'1,5'\nq,2\n", ["1,5", "2"]),
    ('csv = { header = ["id", "x"] }', b"p,1\nq,2\n", ["1", "2"]),
    ('csv = { encoding = "latin-1" }', "id,x\np,M\u00fcller\nq,\u00e9\n".encode("latin-1"), ["M\u00fcller", "\u00e9"]),
    (
        'csv = { encoding = "windows-1252" }',
        "id,x\np,5 \u20ac\nq,\u201cx\u201d\n".encode("cp1252"),
        ["5 \u20ac", "\u201cx\u201d"],
    ),
    ('csv = { encoding = "utf-16" }', "id,x\np,\u20ac\nq,\u00e9\n".encode("utf-16"), ["\u20ac", "\u00e9"]),
)


def test_a_file_is_read_by_its_declared_dialect(tmp_path: Path) -> None:
    for number, (declared, data, values) in enumerate(DIALECTS):
        path = tmp_path / str(number)
        path.mkdir()
        (path / "t.csv").write_bytes(data)
        assert read(policy(TEXT, source=declared), path) == values, (declared, data)


MISFITS: tuple[tuple[str, bytes, str, str], ...] = (
    ("", b"id,x\np,1\nq,2,3\n", "line 3: 3 cells, expected 2", "mend that line"),
    ("", b"id,x\np,1\nq\n", "line 3: 1 cells, expected 2", "mend that line"),
    ("", b"id;x\np;1\n", "line 2: 1 cells, expected 2|has no column", "mend either|delimiter"),
    ("", b'id,x\np,"1\nq,2\n', "line 2: a quote", "mend"),
    ("", "id,x\np,\u00e9\n".encode("latin-1"), "line 2: a byte that is not utf-8", "windows-1252"),
    ("", "id,\u00e9\np,1\n".encode("latin-1"), "line 1: a byte that is not utf-8", "windows-1252"),
    ("", "id,x\np,1\n".encode("utf-16"), "a byte that is not utf-8", "utf-16"),
    ("", b"id,x,X\np,1,2\n", "line 1: the column 'X' stands twice", "name of its own"),
    ("", b"", "has no rows", "put data"),
    ("", b"id,x\n", "has no rows", "must hold data"),
    ("", b"\nid,x\np,1\n", "line 1: is empty", "remove the lines"),
)


def test_a_line_that_does_not_fit_is_refused_with_file_line_and_remedy(tmp_path: Path) -> None:
    for number, (declared, data, message, hint) in enumerate(MISFITS):
        path = tmp_path / str(number)
        path.mkdir()
        (path / "t.csv").write_bytes(data)
        with pytest.raises(SourceError, match=message) as caught:
            load_sources(policy(TEXT, source=declared), path)
        assert "t.csv" in caught.value.message, data
        assert any(part in caught.value.hint for part in hint.split("|")), (data, caught.value.hint)


def test_a_start_is_refused_above_max_unreadable_with_three_places_and_all_columns(tmp_path: Path) -> None:
    store(tmp_path, "csv", id=[f"p{one}" for one in range(300)], x=["NA", "n/a\nb", "?", *["1"] * 297])
    assert read(policy(INT, source="max_unreadable = 0.01"), tmp_path).count(None) == 3
    with pytest.raises(SourceError) as caught:
        load_sources(policy(INT, source="max_unreadable = 0.0099"), tmp_path)
    lines = caught.value.message.splitlines()
    assert [f"line {line}, column 'x'" in one for line, one in zip((2, 3, 5), lines, strict=True)] == [True] * 3
    assert "3 of 300 cells cannot be read as int" in lines[-1]
    assert 'missing = ["", "NA"' in caught.value.hint
    assert policy(INT).sources["t"].max_unreadable == Decimal("0.01")


REMEDIES = (
    (DATE, "29/11/2026", '"%d/%m/%Y"'),
    (DATE, "29.11.2026 10:00", '"%d.%m.%Y %H:%M"'),
    (DECIMAL, "1,5", 'decimal = ","'),
    (DECIMAL, "1.234,5", 'thousands = "."'),
    (INT, "2.5", "decimal"),
    (INT, "n.a.", 'missing = ["", "n.a."] in [sources.t.columns.x]'),
    (BOOL, "ja", "true = [...]"),
)


def test_the_remedy_says_what_to_write_where(tmp_path: Path) -> None:
    for number, (column, text, remedy) in enumerate(REMEDIES):
        path = tmp_path / str(number)
        path.mkdir()
        store(path, "csv", id=["p"], x=[text])
        with pytest.raises(SourceError) as caught:
            load_sources(policy(column, source='time_column = "x"' if column == DATE else ""), path)
        assert remedy in caught.value.hint, (text, caught.value.hint)
        assert "sources.t" in caught.value.hint


BAD = (
    (INT, 'dates = "%Q"', "%Q"),
    (INT, 'dates = "%d/%m"', "no whole date"),
    (INT, 'decimal = ","\nthousands = ","', "decimal and thousands"),
    (INT, 'true = ["1"]\nfalse = [" 1"]', "true and for false"),
    (INT, 'csv = { delimiter = "\'", quote = "\'" }', "delimiter and quote"),
    (INT, 'csv = { delimiter = "\u00a7" }', "part cells"),
    (INT, 'csv = { header = ["a", "A "] }', "stands twice"),
    (INT, 'csv = { encoding = "ebcdic" }', "encoding"),
    (f'{INT}, dates = "%d/%m/%Y"', "", "dates is for date columns"),
    (f'{TEXT}, decimal = ","', "", "decimal is for int and decimal"),
    (f'{INT}, true = ["x"]', "", "true is for bool"),
    (f'{BOOL}, true = ["no"]', "", "column 'x'"),
)


@every("column, source, message", BAD)
def test_rules_that_contradict_each_other_do_not_load(column: str, source: str, message: str) -> None:
    with pytest.raises(PolicyFileError, match=message):
        policy(column, source=source)


SPELLINGS = st.sampled_from(
    ["1", "1.0", "1.00", " 1", "1\u00a0", "01", "0001", "a1", "A1", "a 1", "\u00e9", "e\u0301", "0", "00", "-1", "#1"]
)
FORMS = ("", "id_form = []", 'id_form = ["case", "leading-zeros", "blanks"]')


@pytest.mark.slow
@settings(max_examples=25)
@given(first=SPELLINGS, second=SPELLINGS)
def test_two_spellings_are_one_person_for_everything_or_two_for_everything(
    tmp_path_factory: pytest.TempPathFactory, first: str, second: str
) -> None:
    """Groups, samples and training go by the id column of the view; consent, objections and counts by `person`."""
    path = tmp_path_factory.mktemp("spellings")
    store(path, "csv", id=[first, second], x=["1", "2"])
    (path / "d.csv").write_text(f'person,purpose,given,withdrawn\n"{first}",research,2026-01-01T00:00:00Z,\n')
    for unit in FORMS:
        of = policy(INT, unit=unit, rest=f'consent = "opt-in"\n{decided_in("d.csv")}')
        source, table = load_sources(of, path)["t"], load_consent(of, path)
        condition = consent_filter(of, "research", NOW)
        assert condition is not None
        with opened(source, table) as database:
            persons = database.execute(f"SELECT DISTINCT id FROM {source.view}").fetchall()
            sql = f"SELECT count(*) FROM {source.view} WHERE {condition.sql}"
            ((rows,),) = database.execute(sql, condition.parameters).fetchall()
        assert rows == 3 - len(persons), (unit, "one consent lets in the rows of one person, spelled either way")
        assert len(prepared_in(of, path, "research", NOW)) == 1


OBJECTIONS = (
    # id_form, ids of the rows, who objects, who is out
    ("", ["00001", "2"], ["1"], ["00001"]),
    ("", ["1", "00001", "2"], ["1"], ["1", "00001"]),
    ("", ["a7", "A7", "A 7"], ["A7"], ["a7", "A7", "A 7"]),
    ("id_form = []", ["1", "00001", "2"], ["1"], ["1"]),
    ('id_form = ["leading-zeros"]', ["00001", "2"], ["1"], ["1"]),
    ('id_form = ["case"]', ["a7", "A7", "A 7"], ["A7"], ["a7"]),
    ("", ["2.0", "2"], ["2.00"], ["2"]),
)


@every("form, ids, objecting, out", OBJECTIONS)
def test_an_objection_takes_out_whoever_it_may_mean(
    tmp_path_factory: pytest.TempPathFactory, form: str, ids: list[str], objecting: list[str], out: list[str]
) -> None:
    path = tmp_path_factory.mktemp("objections")
    store(path, "csv", id=ids, x=["1"] * len(ids))
    lines = [f"{one},research,,2026-01-01T00:00:00Z\n" for one in objecting]
    (path / "d.csv").write_text(f"person,purpose,given,withdrawn\n{''.join(lines)}")
    of = policy(INT, unit=form, rest=f'consent = "opt-out"\n{decided_in("d.csv")}')
    source, table = load_sources(of, path)["t"], load_consent(of, path)
    condition = consent_filter(of, "research", NOW)
    assert condition is not None
    with opened(source, table) as database:
        sql = f"SELECT id FROM {source.view} WHERE NOT ({condition.sql})"
        found = {row[0] for row in database.execute(sql, condition.parameters).fetchall()}
        everybody = {row[0] for row in database.execute(f"SELECT DISTINCT id FROM {source.view}").fetchall()}
    assert found == set(out)
    assert prepared_in(of, path, "research", NOW) == everybody - found


def test_a_bool_can_be_grouped_by(tmp_path: Path) -> None:
    of = policy('type = "bool", roles = ["dimension", "filter", "measure"]')
    assert of.sources["t"].columns["x"].members == ("false", "true", "unknown")
    store(tmp_path, "csv", id=["p", "q", "r"], x=["yes", "0", ""])
    assert read(of, tmp_path) == [True, False, None]
