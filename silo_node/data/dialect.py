"""CSV files by the dialect that the policy declares: the names in the header, and the SQL that reads the lines.

Nothing is told from the values. A line that does not fit is refused where the file is checked and where it holds
decisions on consent; in a request for rows it is left out, and the owner is told.
"""

import csv
import gzip
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv as pa_csv

from policies.document.cells import Csv, check_names
from silo_node.data.cells import literal, paths, quote
from silo_node.errors import SourceError

_CODECS = {"utf-8": "utf-8-sig", "utf-16": "utf-16", "latin-1": "latin-1", "windows-1252": "cp1252"}
FETCHED = ("windows-1252", "utf-16")  # encodings that the engine does not know, or knows only in part
_HEAD_BYTES = 64_000
_HEADER_CHARACTERS = 1_000_000
_DELIMITERS = (";", "\t", "|", ",")


def header_of(file: str, dialect: Csv) -> tuple[str, ...]:
    """Return the names of a file's columns, without blanks around them; raises SourceError."""
    if dialect.header is not True:
        return tuple(name.strip() for name in dialect.header)
    try:
        number, names = next(((at, line) for at, line in _lines(file, dialect, _HEADER_CHARACTERS) if line), (1, None))
    except UnicodeDecodeError as err:
        line = err.object[: err.start].count(b"\n") + 1
        message = f"{file}, line {line}: a byte that is not {dialect.encoding}"
        raise SourceError(message, hint_of(file, dialect)) from err
    except (csv.Error, UnicodeError, OSError, EOFError) as err:
        raise SourceError(f"{file}, line 1: no header can be read ({err})", hint_of(file, dialect)) from err
    if names is None:
        raise SourceError(f"{file} has no rows, and not even a line with names", "put data into it")
    if number > 1:  # the engine would read the names as a row
        raise SourceError(f"{file}, line 1: is empty, and the names are in line {number}", "remove the lines before it")
    found = tuple(name.strip() for name in names)
    try:
        check_names([name for name in found if name])
    except ValueError as err:
        raise SourceError(f"{file}, line 1: {err}", "give each column a name of its own") from err
    return found


def reader_of(files: Sequence[str], dialect: Csv, width: int, *, is_strict: bool) -> str:
    """Return the SQL that reads the lines of files as text columns c0, c1 and so on."""
    columns = ", ".join(f"c{index}: 'VARCHAR'" for index in range(width))
    options = {
        "columns": f"{{{columns}}}",
        "auto_detect": "false",
        "header": "true" if dialect.header is True else "false",
        "delim": literal(dialect.separator),
        "quote": literal(dialect.quote),
        "escape": literal(dialect.quote),
        "comment": "''",
        "nullstr": "''",
        "encoding": literal(dialect.encoding),
        "strict_mode": "true",
        "null_padding": "false",
        "hive_partitioning": "false",
        "ignore_errors": "false" if is_strict else "true",
    }
    return f"read_csv({paths(files)}, {', '.join(f'{key} = {value}' for key, value in options.items())})"


def fetched(file: str, dialect: Csv, width: int, *, is_strict: bool) -> pa.Table:
    """Return the lines of a file as text columns c0, c1 and so on: of an encoding that the engine does not know.

    Raises SourceError on a line that does not fit; unless `is_strict`, such a line is left out.
    """
    names = [f"c{index}" for index in range(width)]
    try:
        return pa_csv.read_csv(
            file,
            pa_csv.ReadOptions(
                column_names=names, skip_rows=int(dialect.header is True), encoding=_CODECS[dialect.encoding]
            ),
            pa_csv.ParseOptions(
                delimiter=dialect.separator,
                quote_char=dialect.quote or False,
                newlines_in_values=True,
                ignore_empty_lines=width > 1,
                invalid_row_handler=lambda row: "error" if is_strict else "skip",
            ),
            pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.large_string()), null_values=[""], strings_can_be_null=True
            ),
        )
    except (pa.ArrowException, UnicodeError, OSError) as err:
        where, found = f"{file}", str(err).splitlines()[0][:200]
        try:
            for number, cells in _lines(file, dialect):
                if cells and len(cells) != width:
                    where, found = f"{file}, line {number}", f"{len(cells)} cells, expected {width}"
                    break
        except (UnicodeError, csv.Error, OSError) as other:
            found = f"a byte that is not {dialect.encoding}" if isinstance(other, UnicodeError) else str(other)
        raise SourceError(f"{where}: {found}", hint_of(file, dialect)) from err


def column_of(index: int) -> str:
    """Return the SQL of a column of `reader_of`."""
    return quote(f"c{index}")


def misfit(file: str, dialect: Csv, err: duckdb.Error) -> SourceError:
    """Return what the owner is told of a file that the engine cannot read by its dialect."""
    words = str(err)
    line = re.search(r"CSV Error on Line: (\d+)", words)
    counts = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", words)
    where = f"{file}, line {line[1]}" if line else f"{file}"
    if counts:
        found = f"{counts[2]} cells, expected {counts[1]}"
    elif "unicode" in words or "encoded" in words:
        found = f"a byte that is not {dialect.encoding}"
    elif "quote" in words:
        found = "a quote that does not end, or text after it"
    elif "invalid state" in words:
        found = "line ends or quotes of two kinds"
    else:
        found = words.splitlines()[0][:200]
    return SourceError(f"{where}: {found}", hint_of(file, dialect))


def hint_of(file: str, dialect: Csv) -> str:
    """Return what to write so that a file can be read, as far as its first lines show it."""
    try:
        with Path(file).open("rb") as start:
            head = start.read(_HEAD_BYTES)
    except OSError:
        return "mend the file"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) and dialect.encoding != "utf-16":
        return 'declare its dialect: csv = { encoding = "utf-16" }'
    first = head.decode("latin-1").partition("\n")[0]
    if dialect.separator not in first:
        other = next((one for one in _DELIMITERS if one in first and one != dialect.separator), None)
        if other is not None:
            shown = "tab" if other == "\t" else other
            return f'declare its dialect: csv = {{ delimiter = "{shown}" }}'
    if dialect.encoding == "utf-8" and not file.endswith(".gz"):
        try:
            head.decode()
        except UnicodeDecodeError as err:
            if len(head) < _HEAD_BYTES or err.end < len(head) - 4:  # not a character that was cut
                return 'declare its dialect: csv = { encoding = "windows-1252" }, or "latin-1"; or write it as UTF-8'
    return "mend that line; if all lines are so, declare the file's dialect under csv"


def line_of(file: str, dialect: Csv, row: int) -> int | None:
    """Return the number of the line where a row of a file begins, counted from 1; None if it cannot be told."""
    first = 1 if dialect.header is True else 0
    try:
        with_cells = ((number, cells) for number, cells in _lines(file, dialect) if cells)
        return next(islice(with_cells, first + row - 1, None), (None, []))[0]
    except (csv.Error, UnicodeError, OSError, EOFError):
        return None


def _lines(file: str, dialect: Csv, limit: int | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line's beginning, and its cells."""
    codec = _CODECS[dialect.encoding]
    with gzip.open(file, "rb") if file.endswith(".gz") else Path(file).open("rb") as raw:
        text = io.TextIOWrapper(raw, encoding=codec, newline="")
        source: Iterable[str] = text if limit is None else io.StringIO(text.read(limit), newline="")
        if dialect.quote:
            cells = csv.reader(source, delimiter=dialect.separator, quotechar=dialect.quote)
        else:
            cells = csv.reader(source, delimiter=dialect.separator, quoting=csv.QUOTE_NONE)
        begun = 1
        for line in cells:
            yield begun, line
            begun = cells.line_num + 1
