"""Code the cells of new rows for a model as silos code theirs: the same clamps, steps, members and missing cells.

The rules of cells are those that a policy has where it declares none: blanks around a cell do not count, an empty one
is missing, a point parts the decimals, and true is also t, yes, y, 1. A number beyond its bounds is clamped to them and
rounded to a whole step, halves up; a text outside its domain is the domain's `unknown`. A cell that cannot be read so
is an error, with its line.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal, DecimalException, localcontext

import numpy as np

from policies.document.cells import BLANKS, FALSE, TRUE
from policies.errors import ModelError
from policies.models.portable import range_of
from policies.models.scores import Bools, Integers, RowCells
from policies.models.table_files import TextRows
from policies.requests.families import kind_of
from policies.requests.tables import TableColumn

_NO_CELL = np.iinfo(np.int64).min
_GRAIN = Decimal("0.000000001")  # of a number in a silo's engine
_DIGITS = 60


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """The rows of a file that a model can score."""

    cells: RowCells
    places: Integers  # of these rows in the file, from 0
    rows: int  # of the file

    @property
    def left_out(self) -> int:
        """How many rows lack a cell that the model needs."""
        return self.rows - len(self.places)


def coded(found: TextRows, columns: Sequence[TableColumn], filled: Sequence[str]) -> Coded:
    """Return the rows as whole numbers; raises ModelError on a cell that cannot be read.

    A number or bool of `filled` may be missing. Of any other column a row with a missing cell is left out.
    """
    codes = {column.name: _codes(found, column) for column in columns if column.type != "array"}
    present = {name: own != _NO_CELL for name, own in codes.items()}
    present |= {name: is_there for name, (_, is_there) in found.arrays.items()}
    is_whole = np.ones(found.rows, np.bool_)
    for name, there in present.items():
        if name not in filled:
            is_whole &= there
    places = np.flatnonzero(is_whole)
    cells, missing = dict[str, Integers](), dict[str, Bools]()
    for name, own in codes.items():
        there = present[name][places]
        cells[name] = np.where(there, own[places], 0)
        if name in filled:
            missing[name] = ~there
    arrays = {name: steps[places] for name, (steps, _) in found.arrays.items()}
    return Coded(RowCells(cells, missing, arrays), places, found.rows)


def _codes(found: TextRows, column: TableColumn) -> Integers:
    """Return the code of each cell of a column, _NO_CELL where it is missing."""
    read, known = _reader(column), dict[str | None, int]()
    codes = np.empty(found.rows, np.int64)
    for row, text in enumerate(found.columns[column.name]):
        code = known.get(text)
        if code is None:
            try:
                code = known[text] = read(_formed(text))
            except ValueError as err:
                where = f"{found.place} {found.lines[row]}, column {column.name!r}"
                raise ModelError(f"{where}: {err}", "mend the cell, or leave it empty where it is missing") from err
        codes[row] = code
    return codes


def _formed(text: str | None) -> str:
    return "" if text is None else unicodedata.normalize("NFC", text.strip(BLANKS))


def _reader(column: TableColumn) -> Callable[[str], int]:
    """Return how a text of a column becomes its code; the reader raises ValueError with what it expected."""
    match kind_of(column):
        case "text":
            return _member(column)
        case "bool":
            return _bool
        case "number":
            return _number(column)
        case "array" | None:
            raise ModelError(f"column {column.name!r} has neither bounds nor a domain", "ask who made the model")


def _member(column: TableColumn) -> Callable[[str], int]:
    places = {value: place for place, value in enumerate(column.domain)}
    unknown = places.get(column.unknown or "", _NO_CELL) if column.unknown is not None else _NO_CELL

    def read(text: str) -> int:
        if column.type == "int" and text:
            text = str(_whole(text))
        if column.type == "date" and text and text not in places:
            raise ValueError(f"found {text[:40]!r}, expected a period such as {column.domain[0]!r}")
        return places.get(text, unknown)

    return read


def _bool(text: str) -> int:
    if not text:
        return _NO_CELL
    word = text.lower()
    word = word.removesuffix(".0") if word in ("1.0", "0.0") else word
    if word not in (*TRUE, *FALSE):
        raise ValueError(f"found {text[:40]!r}, expected true or false")
    return 1 if word in TRUE else -1


def _number(column: TableColumn) -> Callable[[str], int]:
    step, low, width = Decimal(column.step or "1"), column.low or 0, range_of(column)

    def read(text: str) -> int:
        if not text:
            return _NO_CELL
        value = Decimal(_whole(text)) if column.type == "int" else _decimal(text)
        with localcontext() as context:
            context.prec = _DIGITS
            above = (value - low * step) / step
            if not 0 <= above <= width:
                return -width if above < 0 else width
            steps = int((above + Decimal("0.5")).to_integral_value(ROUND_FLOOR))
        return 2 * min(steps, width) - width

    return read


def _decimal(text: str) -> Decimal:
    try:
        if "_" in text:
            raise ValueError
        found = Decimal(text)
        if not found.is_finite() or abs(found) >= 10**29:
            raise ValueError
    except (DecimalException, ValueError):
        raise ValueError(f"found {text[:40]!r}, expected a number such as 12.5") from None
    with localcontext() as context:
        context.prec = _DIGITS
        return found.quantize(_GRAIN, ROUND_HALF_UP)


def _whole(text: str) -> int:
    found = _decimal(text)
    if found != found.to_integral_value(ROUND_FLOOR):
        raise ValueError(f"found {text[:40]!r}, expected a whole number")
    return int(found)
