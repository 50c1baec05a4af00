"""Feature hashing: the values of a row as places in a table of weights, each with a sign.

A value of a domain, a bool, or a number's column is hashed by name and value to 64 bits with BLAKE2b under a fixed key,
once for each value of the domain: the lowest bit is the sign, the others, modulo the table, the place. The hash of a
pair is the exclusive or of both values' hashes: simple tabulation (Patrascu and Thorup, J. ACM 2012). Place 0 is the
intercept, and nothing else. The same names and values have the same places in every run, silo and version.
Weinberger et al., ICML 2009: with signs, values that share a place disturb each other by 0 in the mean.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from policies.requests.families import Task, kind_of
from policies.requests.hashed import pairs, values_in_row, weights_of
from policies.requests.tables import TableColumn
from silo_node.training.design import span
from silo_node.training.family import Examples
from silo_node.training.grid import Integers, Vector

BLOCK_ROWS = 1 << 14  # at a time
KEY = b"consilo/1 feature hashing"
OWN, CROSSED = b"own", b"crossed"  # a value alone, and as one of a pair
MISSING = "\x00missing"  # no value of a domain: that of a cell which is not there

Hashes = npt.NDArray[np.uint64]


def hash_of(use: bytes, column: str, value: str | None) -> int:
    """Return the hash of a value of a column, in 64 bits; without a value that of a column of numbers."""
    name, text = column.encode(), b"" if value is None else b"=" + value.encode()
    data = len(name).to_bytes(4, "little") + name + text
    return int.from_bytes(blake2b(data, digest_size=8, key=KEY, person=use).digest(), "little")


@lru_cache(maxsize=256)
def _hashes(use: bytes, column: str, values: Sequence[str]) -> Hashes:
    found = np.array([hash_of(use, column, value) for value in values], np.uint64)
    found.setflags(write=False)  # it is kept and used again
    return found


def placed(hashes: Hashes, weights: int) -> tuple[Integers, Vector]:
    """Return the places of hashes, from 1 to below `weights`, and their signs."""
    places = (hashes >> np.uint64(1)) % np.uint64(weights - 1)
    return places.astype(np.int64) + 1, 1.0 - 2.0 * (hashes & np.uint64(1)).astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Hashed:
    """The values of some rows, those of one row in one column; where a value is 0 its place does not matter."""

    places: Integers  # shape (values, rows)
    values: Vector  # shape (values, rows): signed, from -1 to 1


def hashed(task: Task, examples: Examples, rows: slice) -> Hashed:
    """Return the hashed values of some rows: of the intercept, of each feature, and of each pair that is crossed."""
    count, weights = len(range(*rows.indices(examples.rows))), weights_of(task)
    found = Hashed(np.zeros((values_in_row(task), count), np.int64), np.ones((values_in_row(task), count)))
    parts = [*_own(task, examples, rows), *_crossed(task, examples, rows)]
    for place, (hashes, values) in enumerate(parts, 1):
        found.places[place], signs = placed(hashes, weights)
        found.values[place] = signs if values is None else signs * values
    return found


def blocks_of(examples: Examples) -> Iterator[slice]:
    """Yield the rows in blocks."""
    for first in range(0, examples.rows, BLOCK_ROWS):
        yield slice(first, min(first + BLOCK_ROWS, examples.rows))


def values_of(column: TableColumn) -> Sequence[str]:
    """Return the values of a column that has no numbers; that of a missing bool is the last."""
    return column.domain or ("false", "true", MISSING)


Part = tuple[Hashes, Vector | None]  # of each row: the hash, or one for all, and the value, or 1


def _own(task: Task, examples: Examples, rows: slice) -> Iterator[Part]:
    for name in task.features:
        column = task.table.column(name)
        yield _part(OWN, column, examples, rows)
        if kind_of(column) == "number" and task.options["missing"] == "indicator":
            gap = examples.missing.get(name)
            is_missing = np.zeros(rows.stop - rows.start) if gap is None else gap[rows].astype(np.float64)
            yield _hashes(OWN, name, (MISSING,)), is_missing


def _crossed(task: Task, examples: Examples, rows: slice) -> Iterator[Part]:
    known = {name: _part(CROSSED, task.table.column(name), examples, rows) for pair in pairs(task) for name in pair}
    for one, other in pairs(task):
        (first, own), (second, others) = known[one], known[other]
        values = own if others is None else others if own is None else own * others
        yield first ^ second, values


def _part(use: bytes, column: TableColumn, examples: Examples, rows: slice) -> Part:
    cells, gap = examples.cells[column.name][rows], examples.missing.get(column.name)
    if kind_of(column) == "number":
        values: Vector = cells / float(span(column)[2])
        if gap is not None:
            values[gap[rows]] = 0.0
        return np.array([hash_of(use, column.name, None)], np.uint64), values
    hashes = _hashes(use, column.name, values_of(column))
    codes = cells if column.domain else np.asarray(cells > 0, np.int64)
    if gap is not None and not column.domain:
        codes = np.where(gap[rows], 2, codes)
    return hashes[codes], None
