"""Rows as numbers: for every person a place, for every cell a code, whole steps, or an exact number.

The engine reads, checks and clamps cells (`silo_node.data.cells`); from here on nothing is text, decimal or float. A
request's rows are coded in memory; a prepared source keeps the same arrays in files (`silo_node.data.prepared`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeVar

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from policies.domains import LongDomain
from policies.requests.tables import TableColumn
from silo_node.data.arrays import Arrays, streamed
from silo_node.data.cells import DAY, NARROW_NUMBER, NUMBER, is_narrow, literal, quote

Integers = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]
# A day is that of the whole row, since 1970; a text is the cell as it is, whatever its column's domain.
Aspect = Literal["member", "steps", "number", "day", "text", "array"]
NO_STEPS = -2  # of a missing cell; a step below the lower bound, -1, is what lies below it
BELOW = -1  # of a cell below the lower bound, by how much ever
NO_MEMBER = -1
NO_NUMBER = -(2**63)
NO_DAY = -(2**31)
_MOST = 2**63 - 1
_MOST_TEXT = 2**31 - 1  # bytes
_MANY = 1_000_000  # rows
_TRUTH = ("false", "true")


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """Cells that are one of a list of texts: a domain, truth values, periods, or the texts that were found."""

    codes: Integers  # the place of each cell in `texts`, NO_MEMBER where it is missing
    texts: Sequence[str]


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Cells in whole steps above `low`: -1 is all that lies below, `range_steps` + 1 all above; NO_STEPS is missing."""

    cells: Integers
    low: int  # in steps
    range_steps: int


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Exact numbers: the whole part, rounded down, and the rest in units of 1e-9; NO_NUMBER where one is missing."""

    whole: Integers
    nanos: Integers | None = None  # None where all are whole


Cells = Members | Steps | Numbers | Arrays
C = TypeVar("C", Members, Steps, Numbers, Arrays)


def at(cells: Cells, places: Integers) -> Cells:
    """Return the cells at some places."""
    match cells:
        case Members():
            return Members(cells.codes[places], cells.texts)
        case Steps():
            return Steps(cells.cells[places], cells.low, cells.range_steps)
        case Numbers():
            return Numbers(cells.whole[places], None if cells.nanos is None else cells.nanos[places])
        case Arrays():
            return cells.at(places)


class Run(NamedTuple):
    """Rows that follow each other in one segment: their numbers there are `first`, `first + 1`, and so on."""

    segment: int
    first: int
    rows: int


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of some persons. A row without a person is not among them."""

    person: Integers  # the place of each row's person, from 0
    persons: int
    runs: Sequence[Run]
    cells: Mapping[tuple[Aspect, str], Cells] = field(default_factory=dict)
    first_person: int = 0  # the place of person 0 among all persons of the source
    is_usable: Bools | None = None  # whether each row may be used at all; None: all may
    # Of rows that are made of a person's rows in each group: the group, whose lot is the row's; `runs` has none then.
    key: Integers | None = None

    def members(self, name: str) -> Members:
        """Return the cells of a column as members; raises KeyError or TypeError if it is not coded so."""
        return self._coded("member", name, Members)

    def texts(self, name: str) -> Members:
        """Return the cells of a column as the texts that they are; raises KeyError if it is not coded so."""
        return self._coded("text", name, Members)

    def steps(self, name: str) -> Steps:
        """Return the cells of a column in steps; raises KeyError or TypeError if it is not coded so."""
        return self._coded("steps", name, Steps)

    def numbers(self, name: str, aspect: Aspect = "number") -> Numbers:
        """Return the cells of a column as numbers, or its days; raises KeyError or TypeError if it is not coded so."""
        return self._coded(aspect, name, Numbers)

    def arrays(self, name: str) -> Arrays:
        """Return the cells of a column of arrays; raises KeyError if it is not coded so."""
        return self._coded("array", name, Arrays)

    def _coded(self, aspect: Aspect, name: str, kind: type[C]) -> C:
        found = self.cells[aspect, name]
        if not isinstance(found, kind):
            raise TypeError(f"{aspect} of {name!r} is coded as {type(found).__name__}, expected {kind.__name__}")
        return found

    def usable(self, mask: Bools) -> "Rows":
        """Return the rows of which only those of a mask may be used."""
        return replace(self, is_usable=mask)


class Coding(NamedTuple):
    """One column to code: how, and by which bounds or domain."""

    aspect: Aspect
    column: TableColumn


def coded(
    connection: duckdb.DuckDBPyConnection,
    view: str,
    unit: str,
    codings: Iterable[Coding],
    where: str = "TRUE",
    parameters: Mapping[str, Any] | None = None,
) -> tuple[Rows, pa.Array]:
    """Return the rows of a view of a source, and their persons by place. Raises duckdb.Error."""
    codings = tuple(dict.fromkeys(codings))
    selected = [f"{quote(unit)} AS person", f"coalesce(hash({quote(unit)}) >> 56, 0)::UTINYINT AS part"]
    for index, one in enumerate(codings):
        selected += [f"{sql} AS {part}{index}" for part, sql in _sql(*one).items()]
    wide = {f"array{index}": column for index, (aspect, column) in enumerate(codings) if aspect == "array"}
    if wide:  # nobody's rows are left out before they are many numbers
        where = f"({where}) AND {quote(unit)} IS NOT NULL"
    relation = connection.sql(
        f"SELECT {', '.join(selected)} FROM {view} WHERE {where}",  # noqa: S608
        params=dict(parameters or {}),
    )
    found, arrays = streamed(relation, wide) if wide else (relation.to_arrow_table(), {})
    whose = found["person"]
    person, persons = dictionary(whose) if len(whose) < _MANY else partitioned(whose, _whole(found["part"]))
    is_somebody = person != NO_MEMBER
    if not is_somebody.all():
        found, person = found.filter(arrow_of(is_somebody)), person[is_somebody]
    cells = {
        (aspect, column.name): arrays[f"array{index}"] if aspect == "array" else _cells(aspect, column, found, index)
        for index, (aspect, column) in enumerate(codings)
    }
    return Rows(person, len(persons), (Run(0, 0, len(person)),), cells), persons


def _cells(aspect: Aspect, column: TableColumn, found: pa.Table, index: int) -> Cells:
    match aspect:
        case "member":
            if column.type == "bool":
                return Members(_whole(found[f"code{index}"]), _TRUTH)
            return _members(column, found[f"text{index}"])
        case "steps":
            return Steps(_whole(found[f"steps{index}"]), column.low or 0, column.range_steps)
        case "number":
            nanos = _whole(found[f"nanos{index}"]) if f"nanos{index}" in found.column_names else None
            return Numbers(_whole(found[f"whole{index}"]), nanos)
        case "text":
            codes, texts = dictionary(found[f"text{index}"])
            return Members(codes, tuple(texts.to_pylist()))
        case "array":
            raise TypeError("arrays are read by `streamed`")
        case "day":
            return Numbers(_whole(found[f"day{index}"]))


def _members(column: TableColumn, texts: pa.ChunkedArray) -> Members:
    """Return texts as members; one outside the column's closed domain, or missing, is its `unknown`."""
    codes, found = dictionary(texts)
    listed = tuple(found.to_pylist())
    if not column.domain:
        return Members(codes, listed)
    return Members(placed(listed, column.domain, column.unknown)[codes], column.domain)


def placed(texts: Sequence[str], domain: Sequence[str], unknown: str | None) -> Integers:
    """Return the place in `domain` of each text, and at the end that of a missing cell (NO_MEMBER picks it)."""
    other = NO_MEMBER if unknown is None else domain.index(unknown)
    if texts == domain:
        return np.append(np.arange(len(domain), dtype=np.int32), np.int32(other))
    places = domain.places if isinstance(domain, LongDomain) else {text: place for place, text in enumerate(domain)}
    return np.array([*(places.get(text, other) for text in texts), other], np.int32)


def member_of(rows: Rows, column: TableColumn, kept: Integers) -> Integers:
    """Return the place in the request's domain of the cell of each kept row."""
    members = rows.members(column.name)
    return placed(members.texts, column.domain, column.unknown)[members.codes[kept]]


def steps_of(rows: Rows, column: TableColumn, kept: Integers) -> Integers:
    """Return the steps of the cell of each kept row above the request's lower bound, as `Steps` has them."""
    if column.type == "bool":
        codes = rows.members(column.name).codes[kept]
        return np.where(codes == NO_MEMBER, NO_STEPS, codes)
    steps = rows.steps(column.name)
    cells, above = steps.cells[kept], steps.low - (column.low or 0)
    if not above and steps.range_steps == column.range_steps:
        return cells
    return np.where(cells == NO_STEPS, NO_STEPS, np.clip(cells + above, BELOW, column.range_steps + 1))


def arrow_of(numbers: Integers | Bools) -> pa.Array:
    """Return whole numbers, or truth values, as an Arrow array; `pa.array` would load pandas, for a second."""
    kind = pa.from_numpy_dtype(numbers.dtype)
    packed = np.packbits(numbers, bitorder="little") if pa.types.is_boolean(kind) else np.ascontiguousarray(numbers)
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(packed)])


_NONE = arrow_of(np.array([NO_MEMBER], np.int32))[0]


def dictionary(texts: pa.ChunkedArray) -> tuple[Integers, pa.Array]:
    """Return the place of each text among the different ones, NO_MEMBER for NULL, and these."""
    if texts.nbytes > _MOST_TEXT:  # more than one array of texts can hold
        texts = texts.cast(pa.large_string())
    encoded = pc.dictionary_encode(texts.combine_chunks())
    return _whole(pc.fill_null(encoded.indices, _NONE)), encoded.dictionary


def partitioned(texts: pa.ChunkedArray, parts: Integers) -> tuple[Integers, pa.Array]:
    """Return the same as `dictionary`, of texts of which equal ones have equal parts, 0 to 255; different ones by part.

    The different texts of one part fit into the processor's cache, unlike those of many rows.
    """
    order = np.argsort(parts, kind="stable")
    if texts.nbytes > _MOST_TEXT:
        texts = texts.cast(pa.large_string())
    ordered = texts.combine_chunks().take(arrow_of(order))
    codes = np.empty(len(order), np.int32)
    found: list[pa.Array] = []
    first = known = 0
    for end in np.cumsum(np.bincount(parts)):
        own, different = dictionary(pa.chunked_array([ordered[first:end]]))
        codes[order[first:end]] = np.where(own == NO_MEMBER, NO_MEMBER, own + known)
        found.append(different)
        first, known = end, known + len(different)
    return codes, pa.concat_arrays(found)


def _whole(column: pa.ChunkedArray | pa.Array) -> Integers:
    """Return whole numbers, of which none is missing; `to_numpy` would load pandas, for a second."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(np.from_dlpack(whole))


def _sql(aspect: Aspect, column: TableColumn) -> dict[str, str]:
    """Return the SQL of the parts of an aspect of a cell, none of which is NULL but a text, or an array."""
    cell = quote(column.name)
    if aspect == "array":
        return {"array": cell}
    if aspect == "member":
        if column.type == "bool":
            return {"code": f"coalesce(CAST({cell} AS TINYINT), {NO_MEMBER})"}
        return {"text": f"CAST({cell} AS VARCHAR)"}
    if aspect == "text":
        return {"text": f"CAST({cell} AS VARCHAR)"}
    if aspect == "steps":
        kind = "INTEGER" if column.range_steps < 2**31 - 1 else "BIGINT"
        return {"steps": f"coalesce(CAST({_steps(cell, column)} AS {kind}), {NO_STEPS})"}
    if aspect == "day":
        return {"day": f"coalesce({quote(DAY)} - DATE '1970-01-01', {NO_DAY})::INTEGER"}
    if column.type == "int":
        return {"whole": f"coalesce(CASE WHEN {cell} < {-_MOST} THEN {-_MOST} ELSE {cell} END, {NO_NUMBER})"}
    number = f"CAST({cell} AS {NUMBER})"
    # Within 64 bits first: no cell may fail the reading of all others.
    held = f"CAST({_clamped(number, f'{-_MOST}::{NUMBER}', f'{_MOST}::{NUMBER}')} AS {NUMBER})"
    whole = f"CAST(floor({held}) AS BIGINT)"
    rest = f"CAST(round(CAST({held} - floor({held}) AS DOUBLE) * 1e9) AS INTEGER)"
    return {"whole": f"coalesce({whole}, {NO_NUMBER})", "nanos": f"coalesce({rest}, 0)"}


def _steps(cell: str, column: TableColumn) -> str:
    """Return the SQL of a number as whole steps above its lower bound, halves up; NULL where it is missing.

    It is clamped a step beyond either bound, so that what was clamped can be told: see `Steps`.
    """
    step = Decimal(column.step or "1")
    low, high = ((column.low or 0) - 1) * step, ((column.high or 0) + 1) * step
    if column.type == "int" and not step % 1:
        least, most, size = (f"{int(one)}::BIGINT" for one in (low, high, step))
        return f"(2 * ({_clamped(cell, least, most)} - ({least})) + {size}) // (2 * {size}) - 1"
    width = int(step * 10**9)
    if column.type == "decimal" and is_narrow(low, high):
        least, most = (f"CAST({literal(f'{one:f}')} AS {NARROW_NUMBER})" for one in (low, high))
        above = f"CAST({_clamped(f'CAST({cell} AS {NARROW_NUMBER})', least, most)} - {least} AS {NARROW_NUMBER})"
        # In units of 1e-9: whole part and decimals apart, as each is exact in 64 bits and as a float.
        decimals = f"CAST(round(CAST({above} - trunc({above}) AS DOUBLE) * 1e9) AS BIGINT)"
        units = f"(CAST(trunc({above}) AS BIGINT) * {10**9} + {decimals})"
        return f"(2 * {units} + {width}) // {2 * width} - 1"
    least, most = (f"CAST({literal(f'{one:f}')} AS {NUMBER})" for one in (low, high))
    # Exact, in units of 1e-9: a division of decimals would pass through floating point.
    above = f"CAST({_clamped(f'CAST({cell} AS {NUMBER})', least, most)} - {least} AS DECIMAL(28, 9))"
    units = f"CAST({above} * {10**9}::DECIMAL(10, 0) AS HUGEINT)"
    return f"CAST((2 * {units} + {width}) // {2 * width} - 1 AS BIGINT)"


def _clamped(cell: str, least: str, most: str) -> str:
    """Return the SQL of a cell within its bounds; NULL stays NULL, which `least` and `greatest` would skip."""
    return f"CASE WHEN {cell} < {least} THEN {least} WHEN {cell} > {most} THEN {most} ELSE {cell} END"
