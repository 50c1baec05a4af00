"""The columns of a model: an intercept, numbers by their bounds, one 0 or 1 for each value of a domain but the first.

After these come the products of two of them, where a job names `interactions`.

Every column but the intercept is standardised by its mean and deviation over all rows of all silos, which the first
round sums exactly. A column that is the same in all rows is 0 everywhere, and is dropped by whoever solves for weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import product

import numpy as np

from policies.requests.families import Task, kind_of
from policies.requests.interactions import pairs_of
from policies.requests.tables import TableColumn
from silo_node.training.family import Bools, Examples, State
from silo_node.training.grid import Integers, Vector

BLOCK_ROWS = 4096  # at a time: a block of columns stays in the processor's cache
WORD_BITS = 30  # of the lower part of a sum in two parts
UNIT_BITS = 30  # of a column before it is standardised


@dataclass(frozen=True, slots=True)
class Term:
    """One column of the design but the intercept: (value - middle) / half of a column, or 0 or 1."""

    name: str
    column: TableColumn
    member: int | None = None  # the value of the domain that is 1
    is_indicator: bool = False  # 1 where the cell is missing
    middle: float = 0.0
    half: float = 1.0
    factors: tuple["Term", ...] = ()  # of a product, whose column is that of the first

    def gap(self, examples: Examples) -> Bools | None:
        """Return where there is no cell, of shape (rows,); None if all are there."""
        if not self.factors:
            return None if self.is_indicator else examples.missing.get(self.column.name)
        gaps = [gap for factor in self.factors if (gap := factor.gap(examples)) is not None]
        return np.logical_or.reduce(gaps) if gaps else None


def span(column: TableColumn) -> tuple[float, float, int]:
    """Return the middle and half the width of a column's bounds in its own units, and its range in steps."""
    if kind_of(column) == "bool":
        return 0.5, 0.5, 1
    low, high, grain = column.low or 0, column.high or 0, float(Decimal(column.step or "1"))
    return (low + high) / 2 * grain, (high - low) / 2 * grain, column.range_steps


def terms(task: Task) -> list[Term]:
    """Return the columns of the design after the intercept, in order: `task.width - 1` of them."""
    plain = list(_terms(task))
    pairs = pairs_of(task.options.get("interactions", ""))
    return plain + [_product(*both) for pair in pairs for both in product(*(of_column(plain, name) for name in pair))]


def of_column(columns: list[Term], name: str) -> list[Term]:
    """Return the columns of the design that are one feature's own, without whether its cell is missing."""
    return [one for one in columns if one.column.name == name and not one.is_indicator and not one.factors]


def _product(one: Term, other: Term) -> Term:
    return Term(f"{one.name} * {other.name}", one.column, half=one.half * other.half, factors=(one, other))


def _terms(task: Task) -> Iterator[Term]:
    has_indicators = task.options.get("missing") == "indicator"
    for name in task.features:
        column = task.table.column(name)
        if column.domain:
            for member, value in enumerate(column.domain[1:], 1):
                yield Term(f"{name} = {value}", column, member)
            continue
        middle, half, _ = span(column)
        yield Term(name, column, middle=middle, half=half)
        if has_indicators:
            yield Term(f"{name} is missing", column, is_indicator=True)


def scaled(term: Term, examples: Examples, rows: slice) -> Vector:
    """Return the values of a column in [-1, 1], of shape (rows,); 0 where the cell is missing."""
    if term.factors:
        one, other = (scaled(factor, examples, rows) for factor in term.factors)
        return np.asarray(one * other)
    name = term.column.name
    gap = examples.missing.get(name)
    if term.is_indicator:
        return np.zeros(_count(examples, rows)) if gap is None else gap[rows].astype(np.float64)
    cells = examples.cells[name][rows]
    if term.member is not None:
        return np.asarray(cells == term.member, np.float64)
    values: Vector = cells / float(span(term.column)[2])
    if gap is not None:
        values[gap[rows]] = 0.0
    return values


def _count(examples: Examples, rows: slice) -> int:
    return len(range(*rows.indices(examples.rows)))


def blocks_of(examples: Examples) -> Iterator[slice]:
    """Yield the rows in blocks."""
    for first in range(0, examples.rows, BLOCK_ROWS):
        yield slice(first, min(first + BLOCK_ROWS, examples.rows))


def words(units: Integers) -> list[int]:
    """Return the exact sum of whole numbers in two parts: of what is above the lowest 30 bits, and of these."""
    return [int((units >> WORD_BITS).sum()), int((units & ((1 << WORD_BITS) - 1)).sum())]


def joined(high: Integers, low: Integers) -> list[int]:
    """Return the sums that `words` has in two parts."""
    return [(int(one) << WORD_BITS) + int(other) for one, other in zip(high, low, strict=True)]


def moments(task: Task, examples: Examples, label: Integers) -> list[Integers]:
    """Return the blocks of a first round, as `policies.requests.families.moments` lists them."""
    found: list[tuple[int, ...]] = []
    for term in terms(task):
        gap = term.gap(examples)
        total, high, low, present = 0, 0, 0, examples.rows if gap is None else int((~gap).sum())
        for rows in blocks_of(examples):
            units = np.rint(np.ldexp(scaled(term, examples, rows), UNIT_BITS)).astype(np.int64)
            more = words(units * units)
            total, high, low = total + int(units.sum()), high + more[0], low + more[1]
        found.append((present, total, high, low))
    columns = np.array(found, np.int64).reshape(-1, 4).T
    return [np.array([examples.rows]), np.array([examples.left_out]), *columns, label]


def standardised(state: State, sums: dict[str, Integers]) -> State:
    """Return the state with rows, means and deviations of all silos; a constant column has the deviation 0."""
    squares = joined(sums["square-high"], sums["square-low"])
    means, deviations = [], []
    for present, total, square in zip(map(int, sums["present"]), map(int, sums["total"]), squares, strict=True):
        # Exact: whole numbers of any size. A mean of no cells is 0, and so is the deviation.
        spread = present * square - total * total
        means.append(total / present / 2**UNIT_BITS if present else 0.0)
        deviations.append(spread**0.5 / present / 2**UNIT_BITS if present else 0.0)
    return state.with_(
        rows=float(sums["rows"][0]),
        left_out=float(sums["left-out"][0]),
        mean=means,
        deviation=deviations,
        present=sums["present"].astype(np.float64),
    )


def matrix(columns: list[Term], state: State, examples: Examples, rows: slice, out: Vector) -> Vector:
    """Return the standardised design of some rows in `out`, of shape (width, rows): the intercept, then the columns.

    A missing cell has the mean. Each number is made by the same arithmetic whatever the block is.
    """
    design = out[:, : _count(examples, rows)]
    design[0] = 1.0
    for place, term in enumerate(columns):
        mean, deviation = state["mean"][place], state["deviation"][place]
        if deviation == 0:
            design[place + 1] = 0.0
            continue
        np.subtract(scaled(term, examples, rows), mean, out=design[place + 1])
        design[place + 1] /= deviation
        if (gap := term.gap(examples)) is not None:
            design[place + 1, gap[rows]] = 0.0
    return design


def natural(task: Task, state: State) -> tuple[Vector, Vector]:
    """Return the matrix that makes coefficients in the columns' units of standardised weights, and the deviations.

    The matrix has the shape (width, width); the intercept is for all columns at 0. Of a dropped column all is 0. The
    weight of a product of (a - m) / h and (b - n) / k is one of a * b, and of what belongs to a, b and the intercept.
    """
    width, columns = task.width, terms(task)
    found, places = np.zeros((width, width)), {term.name: place for place, term in enumerate(columns, 1)}
    found[0, 0] = 1.0
    for place, term in enumerate(columns, 1):
        mean, deviation = state["mean"][place - 1], state["deviation"][place - 1]
        if not deviation:
            continue
        found[place, place] = 1 / (deviation * term.half)
        if not term.factors:
            found[0, place] = -(mean + term.middle / term.half) / deviation
            continue
        one, other = term.factors
        found[places[one.name], place] = -other.middle / (deviation * term.half)
        found[places[other.name], place] = -one.middle / (deviation * term.half)
        found[0, place] = (one.middle * other.middle / term.half - mean) / deviation
    return found, state["deviation"]


def constants(task: Task, state: State) -> Bools:
    """Return which columns are the same in all rows, of shape (width,); the intercept is none."""
    return np.concatenate([[False], state["deviation"] == 0])
