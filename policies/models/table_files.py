"""Read the named columns of a CSV or Parquet file as texts, line by line, to score its rows.

A CSV file has one line of names, commas, and double quotes; it is UTF-8. A Parquet file holds numbers, bools, dates or
text, and arrays, which a CSV file cannot hold. All cells but arrays are texts here: `policies.models.cells` reads them.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from policies.array_steps import Unsigned, kind_of_steps
from policies.errors import ModelError
from policies.models.array_cells import ArrayCellError, Bools, read_arrays
from policies.requests.tables import TableColumn

MAX_ROWS = 10_000_000
_CELL_BYTES = 1 << 20
_BLOCK_ROWS = 2048  # of arrays that are read at a time


@dataclass(frozen=True, slots=True)
class TextRows:
    """Rows of a file: for each column its texts, None where a cell is missing, and the line of each row."""

    columns: dict[str, list[str | None]]
    lines: Sequence[int]  # of a CSV file as an editor counts them; of a Parquet file the row, from 1
    place: str  # what such a number is called: "line" or "row"
    # The arrays in steps, of shape (rows, *shape), and which of them are there, by column.
    arrays: dict[str, tuple[Unsigned, Bools]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.lines)


def read_rows(path: Path, names: Sequence[str], arrays: Sequence[TableColumn] = ()) -> TextRows:
    """Return the named columns of a file, and its arrays; raises ModelError with what is wrong and where."""
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        if arrays and not is_parquet:
            raise ModelError(f"{path} is CSV, which has no arrays such as {arrays[0].name!r}", "name a Parquet file")
        return _parquet(path, names, arrays) if is_parquet else _csv(path, names)
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


def _parquet(path: Path, names: Sequence[str], arrays: Sequence[TableColumn]) -> TextRows:
    import pyarrow as pa  # heavy: only where a Parquet file is read
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        _check_names(path, file.schema_arrow.names, [*names, *(one.name for one in arrays)])
        if file.metadata.num_rows > MAX_ROWS:
            raise ModelError(f"{path} has more than {MAX_ROWS:,} rows", "divide the file")
        table = file.read(columns=list(names))
        wide = {one.name: _arrays(path, file, one) for one in arrays}
    except pa.ArrowException as err:
        raise ModelError(f"{path} is no readable Parquet file", "write it again") from err
    columns = {name: [_text(cell) for cell in table[name].to_pylist()] for name in names}
    return TextRows(columns, range(1, file.metadata.num_rows + 1), "row", wide)


def _arrays(path: Path, file: Any, column: TableColumn) -> tuple[Unsigned, Bools]:
    """Return a column of arrays of a Parquet file, read a block of rows at a time; raises ModelError."""
    found = [np.zeros((0, *column.shape), kind_of_steps(column.range_steps))]
    there, first = [np.zeros(0, np.bool_)], 1
    for batch in file.iter_batches(_BLOCK_ROWS, columns=[column.name]):
        try:
            steps, is_there = read_arrays(batch.column(0), column)
        except ArrayCellError as err:
            where = f"{path}, row {first + err.row}, column {column.name!r}"
            hint = "mend the cell, or leave it empty where it is missing"
            raise ModelError(f"{where}: {err.text}", hint) from err
        found.append(steps)
        there.append(is_there)
        first += len(steps)
    return np.concatenate(found), np.concatenate(there)


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
