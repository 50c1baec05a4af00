"""Read the named columns of a CSV or Parquet file as texts, line by line, to score its rows.

A CSV file has one line of names, commas, and double quotes; it is UTF-8. A Parquet file holds numbers, bools, dates or
text. Cells are texts here: `policies.models.cells` reads them.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.errors import ModelError

MAX_ROWS = 10_000_000
_CELL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class TextRows:
    """Rows of a file: for each column its texts, None where a cell is missing, and the line of each row."""

    columns: dict[str, list[str | None]]
    lines: Sequence[int]  # of a CSV file as an editor counts them; of a Parquet file the row, from 1
    place: str  # what such a number is called: "line" or "row"

    @property
    def rows(self) -> int:
        return len(self.lines)


def read_rows(path: Path, names: Sequence[str]) -> TextRows:
    """Return the named columns of a file; raises ModelError with what is wrong and where."""
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        return _parquet(path, names) if is_parquet else _csv(path, names)
    except OSError as err:
        raise ModelError(f"{path} cannot be read ({err.strerror or err})", "name a CSV or Parquet file") from err


def _check_names(path: Path, found: Sequence[str], names: Sequence[str]) -> None:
    if absent := [name for name in names if name not in found]:
        expected = f"expected {', '.join(names)}"
        hint = "the names are those of the policies; `show` of the model lists its columns"
        raise ModelError(f"{path} has no column {absent[0]!r}, {expected}", hint)
    if twice := [name for name in names if found.count(name) > 1]:
        raise ModelError(f"{path} has the column {twice[0]!r} twice", "remove one of them")


def _csv(path: Path, names: Sequence[str]) -> TextRows:
    columns: dict[str, list[str | None]] = {name: [] for name in names}
    lines: list[int] = []
    csv.field_size_limit(_CELL_BYTES)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            head = [name.strip() for name in next(reader, [])]
            _check_names(path, head, names)
            places = {name: head.index(name) for name in names}
            for line, row in _numbered(reader):
                if len(row) != len(head):
                    message = f"{path}, line {line}: {len(row)} cells, expected {len(head)}"
                    raise ModelError(message, "a cell with a comma stands in double quotes")
                if len(lines) == MAX_ROWS:
                    raise ModelError(f"{path} has more than {MAX_ROWS:,} rows", "divide the file")
                lines.append(line)
                for name, place in places.items():
                    columns[name].append(row[place])
    except UnicodeDecodeError as err:
        raise ModelError(f"{path} is not UTF-8 ({err.reason} at byte {err.start})", "save it as UTF-8") from err
    except csv.Error as err:
        raise ModelError(f"{path}, line {len(lines) + 2}: {err}", "write it with commas and double quotes") from err
    return TextRows(columns, lines, "line")


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield rows with the line that each begins at; an empty line is none."""
    first = reader.line_num + 1
    for row in reader:
        if row:
            yield first, row
        first = reader.line_num + 1


def _parquet(path: Path, names: Sequence[str]) -> TextRows:
    import pyarrow as pa  # heavy: only where a Parquet file is read
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        _check_names(path, file.schema_arrow.names, names)
        if file.metadata.num_rows > MAX_ROWS:
            raise ModelError(f"{path} has more than {MAX_ROWS:,} rows", "divide the file")
        table = file.read(columns=list(names))
    except pa.ArrowException as err:
        raise ModelError(f"{path} is no readable Parquet file", "write it again") from err
    columns = {name: [_text(cell) for cell in table[name].to_pylist()] for name in names}
    return TextRows(columns, range(1, table.num_rows + 1), "row")


def _text(cell: object) -> str | None:
    match cell:
        case None:
            return None
        case bool():
            return "true" if cell else "false"
        case float():
            return None if cell != cell else f"{cell:.0f}" if cell.is_integer() and abs(cell) < 2**53 else repr(cell)
        case bytes():
            return cell.decode("utf-8", "replace")
        case _:
            return str(cell)
