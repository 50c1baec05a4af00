"""How a CSV is written is told from its first lines, with marks from fixed lists only, or there is the one error."""

import csv
import gzip
import io
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import silo_node.owner.cli
from policies.document.cells import Csv
from policies.document.found import FoundColumn, FoundTable, joined, stored_table
from policies.document.sniff import MAX_LINES, MISSING, sniff, sniff_file
from policies.errors import SniffError

GERMAN = "kunde;größe;geb;raucher\n1;1.234,5;03.04.1999;ja\n2;80,25;31.12.1980;nein\n"


def named(arguments: tuple[str, ...], cases: Mapping[str, tuple[Any, ...]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(arguments, list(cases.values()), ids=list(cases))


def column(cells: str, *, beside: str = ",x") -> FoundColumn:
    """Return what is found of a column with these cells, one a line."""
    lines = [f"{cell}{beside}" for cell in cells.split("|")]
    return sniff("\n".join(["column,other", *lines]).encode(), "f.csv").columns["column"]


@named(
    ("text", "expected"),
    {
        "plain": ("a,b\nx,1\n", Csv()),
        "semicolons": ("a;b\nx;1,5\n", Csv(delimiter=";")),
        "tabs": ("a\tb\nx, y\t1\n", Csv(delimiter="tab")),
        "bars": ("a|b\nx|1\n", Csv(delimiter="|")),
        "commas in quotes": ('a;b\n"x;y";1\n', Csv(delimiter=";")),
        "apostrophes as quotes": ("'a';'b'\n'x;y';'1'\n'z';'2'\n", Csv(delimiter=";", quote="'")),
        "an apostrophe in a word": ("a;b\n't Hooft;1\nO'Neill;2\n", Csv(delimiter=";")),
        "a quote that ends nowhere": ('a|b\n"x|1\ny|2\n', Csv(delimiter="|", quote="")),
        "one column": ("a\n1\n\n2\n", Csv()),
        "no names": ("p,1,f\nq,2,m\nr,3,f\n", Csv(header=("column_1", "column_2", "column_3"))),
        "names that are years": ("id,2019,2020\nx,1,5\n", Csv()),
        "values again in the first line": ("p,f\nq,m\nr,f\n", Csv(header=("column_1", "column_2"))),
        "line ends of another system": ("a;b\rx;1\ry;2\r", Csv(delimiter=";")),
    },
)
def test_dialects(text: str, expected: Csv) -> None:
    assert sniff(text.encode(), "f.csv").csv == expected


@named(
    ("raw", "encoding"),
    {
        "utf-8": (GERMAN.encode(), "utf-8"),
        "utf-8 with its mark": (GERMAN.encode("utf-8-sig"), "utf-8"),
        "utf-16": (GERMAN.encode("utf-16"), "utf-16"),
        "windows-1252": (GERMAN.encode("cp1252"), "windows-1252"),
    },
)
def test_encodings(raw: bytes, encoding: str) -> None:
    found = sniff(raw, "f.csv")
    assert (found.csv.encoding, found.decimal, found.thousands) == (encoding, ",", ".")
    assert list(found.columns) == ["kunde", "größe", "geb", "raucher"]


@named(
    ("cells", "type_", "remark"),
    {
        "whole": ("1|-20|+3", "int", ""),
        "whole, written as floats": ("1.0|2.0|", "int", ""),
        "decimal": ("1|2.5|.5|1e-3", "decimal", ""),
        "only 0 and 1": ("0|1|1|NA", "int", 'type = "bool"'),
        "codes": ("0150|7000", "string", "leading zeros"),
        "long codes": ("1234567890123456789|5", "string", "too long"),
        "words": ("yes|no|Yes", "bool", ""),
        "letters": ("t|f|t", "bool", ""),
        "words of another language": ("ja|nein", "bool", ""),
        "one letter": ("f|f|f", "string", ""),
        "one word": ("yes|yes", "string", ""),
        "no truth": ("f|m", "string", ""),
        "words and digits": ("yes|0", "bool", ""),
        "dates": ("2024-05-06|2024-5-7T12:30:00Z", "date", ""),
        "days first": ("13/05/2024|01/02/2024", "date", ""),
        "either order": ("03/05/2024|01/02/2024", "date", "%m/%d/%Y"),
        "both orders": ("13/05/2024|05/13/2024", "string", ""),
        "no day of the calendar": ("31/02/2024", "string", ""),
        "dates without marks": ("20240506|20240131", "date", "numbers"),
        "numbers like dates": ("20240506|20241331", "int", ""),
        "texts": ("mauve|7", "string", ""),
        "nothing": ("|NA|", "string", "no cell"),
    },
)
def test_types(cells: str, type_: str, remark: str) -> None:
    found = column(cells)
    assert found.type == type_
    assert remark in found.remark
    assert bool(remark) == bool(found.remark)


@named(
    ("cells", "forms"),
    {
        "iso": ("2024-05-06", ()),
        "day first": ("13/05/2024", ("%d/%m/%Y",)),
        "month first": ("05/13/2024", ("%m/%d/%Y",)),
        "points": ("06.05.2024", ("%d.%m.%Y",)),
        "short years": ("06.05.24", ("%d.%m.%y",)),
        "month by name": ("06-May-2024|31-Dec-1999", ("%d-%b-%Y",)),
        "with a clock": ("06.05.2024 13:45", ("%d.%m.%Y %H:%M",)),
        "half days": ("06/05/2024 1:45 PM", ("%d/%m/%Y %I:%M %p",)),
        "two kinds": ("06.05.2024|2024-05-06", ("%d.%m.%Y", "%Y-%m-%d")),
    },
)
def test_formats_of_dates(cells: str, forms: tuple[str, ...]) -> None:
    assert column(cells).dates == forms


@named(
    ("text", "marks"),
    {
        "points": ("a;b\n1.5;2\n", (".", "")),
        "decimal commas": ("a;b\n1,5;2\n", (",", "")),
        "both marks": ("a;b\n1.234,5;2\n", (",", ".")),
        "the other way round": ('a,b\n"1,234.5",2\n', (".", ",")),
        "thousands in a file of commas": ('a,b\n"1,234",2\n', (".", ",")),
        "in doubt, beside semicolons": ("a;b\n1,234;2\n", (",", "")),
        "settled by another column": ("a;b\n1.234;1,5\n", (",", ".")),
        "blanks": ("a;b\n1 234;2\n", (".", " ")),
        "apostrophes": ("a;b\n1'234.5;2\n", (".", "'")),
    },
)
def test_marks_in_numbers(text: str, marks: tuple[str, str]) -> None:
    found = sniff(text.encode(), "f.csv")
    assert (found.decimal, found.thousands) == marks
    assert all((one.decimal, one.thousands) == marks for one in found.columns.values())


def test_a_column_may_have_marks_of_its_own() -> None:
    found = sniff(b"a;b;c\n1,5;1.5;2,5\n", "f.csv")
    assert (found.decimal, found.columns["b"].decimal) == (",", ".")


def test_a_mark_that_may_be_either_is_remarked() -> None:
    assert "thousands" in sniff(b"a;b\n1,234;2\n", "f.csv").columns["a"].remark
    assert not sniff(b"a;b\n0,234;2\n", "f.csv").columns["a"].remark


def test_missing_cells_are_those_of_a_fixed_list() -> None:
    assert sniff(b"a,b\n1,x\nNA,#N/A\n?,-\n", "f.csv").missing == ("", "NA", "-", "?", "#N/A")
    assert sniff(b"a,b\n1,x\n-99,unknown\n", "f.csv").missing == ("",)
    assert sniff(b"a,b\n1,None\n2,mild\n", "f.csv").missing == ("",)  # may be a value among texts
    assert sniff(b"a,b\nNone,x\n2,mild\n", "f.csv").missing == ("", "None")


@named(
    ("raw", "message"),
    {
        "nothing": (b"", "f.csv has no rows, and not even a line with names"),
        "names alone": (b"a,b\n", "f.csv has no rows"),
        "a longer line": (b"a,b\n1,secret\n2,secret,4\n", "f.csv, line 3: 3 cells, expected 2"),
        "a shorter line": (b"a,b,c\n1,secret,3\n\n1,secret\n", "f.csv, line 4: 2 cells, expected 3"),
        "after a cell of two lines": (b'a,b\n1,"x\ny"\n2\n', "f.csv, line 4: 1 cells, expected 2"),
        "a title": (b"Secret\na,b\n1,2\n", "f.csv, line 2: 2 cells, expected 1"),
        "one name twice": (b"a,A \n1,2\n", "f.csv, line 1: the column 'A' stands twice"),
        "no text": (b"a,b\n1,\x00\n", "f.csv has NUL bytes, so it is no text, or UTF-16 without its mark"),
        "no encoding": (b"a,b\n1,\x81\n", "f.csv is no text in utf-8 or windows-1252"),
        "too wide": (b",".join(b"c%d" % n for n in range(501)) + b"\n", "f.csv has 501 columns, a source at most 500"),
    },
)
def test_errors_name_the_line_and_no_value(raw: bytes, message: str) -> None:
    with pytest.raises(SniffError) as caught:
        sniff(raw, "f.csv")
    assert caught.value.message == message
    assert caught.value.hint
    assert "ecret" not in str(caught.value.args)


def test_only_the_first_lines_are_read() -> None:
    lines = ["a,b", *["1,2"] * MAX_LINES, "x,2,3"]
    assert sniff("\n".join(lines).encode(), "f.csv").columns["a"].type == "int"
    cut = b'a,b\n1,2\n3,"a cell that is cut'
    assert list(sniff(cut, "f.csv", is_whole=False).columns) == ["a", "b"]


def test_a_compressed_file_is_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "f.csv.gz"
    file.write_bytes(gzip.compress(GERMAN.encode()))
    assert sniff_file(file) == sniff(GERMAN.encode(), "f.csv")
    file.write_bytes(GERMAN.encode())
    with pytest.raises(SniffError, match="not compressed"):
        sniff_file(file)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_sniffed_or_are_the_one_error(raw: bytes, is_whole: bool) -> None:
    with suppress(SniffError):
        assert sniff(raw, "f.csv", is_whole=is_whole).columns


@given(
    st.lists(
        st.lists(
            st.sampled_from(["", "NA", "x", "1", "2,5", "1.5", "yes", "no", "03/04/2020", 'a"b', "a;b", "ä\n"]),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["utf-8", "utf-16"]),
)
def test_any_table_is_sniffed_with_marks_of_fixed_lists(rows: list[list[str]], delimiter: str, encoding: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([["one", "two", "three"], *rows])
    found = sniff(text.getvalue().encode(encoding), "f.csv")
    assert set(found.missing) <= set(MISSING)
    assert found.csv.separator == delimiter
    if found.csv.header is True:
        assert list(found.columns) == ["one", "two", "three"]
    assert "ä" not in repr(found)


@named(
    ("types", "expected"),
    {
        "the same": (["1|2", "3|4"], "int"),
        "whole and decimal": (["1|2", "1.5"], "decimal"),
        "truth and texts": (["yes|no", "mauve"], "string"),
        "truth and one of its words": (["t|f", "f"], "bool"),
        "truth and 0 and 1": (["yes|no", "0|1"], "bool"),
        "0 and 1, and numbers": (["0|1", "7"], "int"),
        "dates and texts": (["2024-05-06", "mauve"], "string"),
        "dates of two kinds": (["2024-05-06", "06.05.2024"], "date"),
        "compact dates and numbers": (["20240506", "7"], "int"),
        "anything and nothing": (["1.5", ""], "decimal"),
        "nothing": (["", ""], "string"),
        "codes and numbers": (["0150", "7"], "string"),
    },
)
def test_columns_of_one_key_get_one_type(types: list[str], expected: str) -> None:
    assert joined([(str(silo), column(cells)) for silo, cells in enumerate(types)]).type == expected


def test_stored_columns_keep_their_types() -> None:
    found = stored_table({"a": "BIGINT", "b": "DECIMAL(9,2)", "c": "ENUM('x')", "d": "TIME", "e": "BOOLEAN"})
    assert [one.type for one in found.columns.values()] == ["int", "decimal", "string", None, "bool"]
    assert found == FoundTable(found.columns)


@named(
    ("raw", "opened"),
    {
        "another dialect": (GERMAN.encode("cp1252"), 3),
        "utf-16": (GERMAN.encode("utf-16"), 3),
        "no names": (b"p,1,2.5\nq,2,3.5\n", 2),
        "quotes": (b'id,a,b\r\n1,2,3\r\n2,"4",5\r\n', 2),
        "apostrophes": (b"'id';'a'\n'1;2';'3'\n'4';'5'\n", 1),
        "thousands": (b'id,a\n1,"1,234"\n2,"12"\n', 1),
        "blanks between thousands": (b"id;a\n1;1 234,5\n2;3\n", 1),
        "dates of two kinds": (b"id,a\n1,3 Mar 2020\n2,2020-01-02\n", 1),
        "half days": (b"id,a\n1,03/04/2020 3:05 PM\n2,13/04/2020 11:05 AM\n", 1),
        "floats and exponents": (b"id,a,b\n1,1.0,1e3\n2,,.5\n", 2),
        "marks for missing cells": (b"id,a,b\n1,?,#N/A\n2,5,yes\n3,6,no\n", 2),
        "compact dates": (b"id,a\n1,20240506\n2,20240131\n", 1),
    },
)
def test_a_silo_reads_every_cell_of_what_is_drafted(
    raw: bytes, opened: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_bytes(raw)
    table = sniff_file(Path("t.csv"))
    id_column, *others = table.columns
    known = {"int": "bounds = [-9999, 9999]", "decimal": "bounds = [-9999, 9999]", "bool": 'type = "bool"'}
    known["date"] = 'granularity = "day", lookback_days = 30'
    lines = [
        f"k{number} = {{ from = {json.dumps(name)}, {known[str(table.columns[name].type)]} }}"
        for number, name in enumerate(others)
    ]
    assert len(lines) == opened
    Path("columns.toml").write_text("\n".join(lines))
    arguments: list[Any] = ["--purpose", "p", "--basis", "contract", "--epsilon", "8", "--jurisdiction", "NO"]
    arguments += ["--controller", "x <y>", "--columns", "columns.toml", "--id", id_column]
    assert silo_node.owner.cli.main(["init", "t.csv", *arguments]) == 0, capsys.readouterr().err
    policy = Path("policy.toml").read_text()
    Path("policy.toml").write_text(re.sub(r"(?m)^(uri .*)$", r"\1\nmax_unreadable = 0", policy))
    assert silo_node.owner.cli.main(["check-policy", "policy.toml"]) == 0, capsys.readouterr().err
