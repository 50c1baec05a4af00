"""Principal components: eigenvalues and loadings of the covariance, or of the correlation, of the features.

The first round sums means and deviations, the second the products of the standardised columns. The largest loading of a
component is positive. Jolliffe, Principal Component Analysis (2002).
"""

from collections.abc import Mapping

import numpy as np

from policies.requests.families import Task
from silo_node.training import design
from silo_node.training.family import Examples, Family, Fitted, Line, Listing, State, figure, known
from silo_node.training.grid import LEAST_BITS, MOST_UNITS, Integers, Vector, add_products, bits_for, most, reals
from silo_node.training.newton import square

_COARSER_BITS = 8
_ALIKE = 2.0**-24  # of the largest number: eigenvalues and loadings that are nearer are equal


def _statistics(task: Task, state: State, examples: Examples) -> list[Integers]:
    if task.number == 0:
        return design.moments(task, examples, np.zeros(0, np.int64))[:-1]
    return _products(task, state, examples)


def _products(task: Task, state: State, examples: Examples) -> list[Integers]:
    """Return the rows, the products of all pairs of columns, the intercept among them, and the rows outside.

    A row is outside if a product of it exceeds the grid. Then, and where the sum could wrap, all is 0.
    """
    width, bits, columns = task.width, int(state.one("bits")), design.terms(task)
    block_room, room = np.empty((width, design.BLOCK_ROWS)), np.empty((width, design.BLOCK_ROWS))
    total, outside, size = np.zeros(width * (width + 1) // 2, np.int64), 0, 0.0
    for rows in design.blocks_of(examples):
        block = design.matrix(columns, state, examples, rows, block_room)
        largest = np.square(np.abs(block).max(0))
        outside += int((~(largest <= most(bits))).sum())
        size += float(largest.sum())
        if not outside:
            add_products(total, block, 1.0, bits, room)
    if not outside and size * 2.0**bits > MOST_UNITS:
        outside = examples.rows
    return [np.array([examples.rows]), np.zeros_like(total) if outside else total, np.array([outside])]


def _update(task: Task, state: State, sums: Mapping[str, Integers]) -> State:
    if state.ended is not None:
        return state
    if task.number == 0:
        state = design.standardised(State(), dict(sums))
        rows = int(state.one("rows"))
        if rows < 2 or not state["deviation"].any():
            return state.at_end("too-few-rows")
        return state.with_(bits=float(bits_for(rows, task.width)))
    bits, rows = int(state.one("bits")), int(sums["rows"][0])
    if sums["outside"][0]:
        if bits <= LEAST_BITS:
            return state.at_end("diverged")
        return state.with_(bits=float(max(LEAST_BITS, bits - _COARSER_BITS)))
    if rows != int(state.one("rows")):
        state = state.with_(rows=float(rows), changed=1.0)
    if rows < 2:
        return state.at_end("too-few-rows")
    whole = square(reals(sums["products"], bits), task.width)
    mean = whole[0, 1:] / rows  # of the columns that the first round has centred: 0, but where the rows have changed
    covariance = (whole[1:, 1:] - rows * np.outer(mean, mean)) / (rows - 1)
    return state.with_(products=covariance[np.triu_indices(task.width - 1)]).at_end("complete")


def _covariance(task: Task, state: State) -> tuple[list[str], Vector]:
    """Return the columns that are not the same in all rows, and their covariance in their units, or correlation."""
    terms, deviations = design.terms(task), state["deviation"]
    found = square(state["products"], len(terms))
    kept = np.flatnonzero((deviations > 0) & (np.diag(found) > 0))
    found = found[np.ix_(kept, kept)]
    if task.options["scale"] == "deviation":
        scale = 1 / np.sqrt(np.diag(found))
    else:
        scale = np.array([deviations[place] * terms[place].half for place in kept])
    return [terms[place].name[:400] for place in kept], found * np.outer(scale, scale)


def components(task: Task, state: State) -> tuple[list[str], Vector, Vector]:
    """Return the columns, the eigenvalues from the largest, and the loadings of shape (columns, components)."""
    names, matrix = _covariance(task, state)
    values, loadings = np.linalg.eigh(matrix)
    values, loadings = np.maximum(values[::-1], 0.0), loadings[:, ::-1]
    for place in range(len(values)):
        sizes = np.abs(loadings[:, place])
        first = int(np.argmax(sizes >= sizes.max() - _ALIKE))
        loadings[:, place] *= np.sign(loadings[first, place])
    return names, values, loadings


def _finish(task: Task, state: State) -> Fitted:
    notes = []
    if state.numbers:
        constant = design.constants(task, state)[1:]
        terms = zip(design.terms(task), constant, strict=True)
        notes += [f"dropped: {term.name} is the same in all rows"[:400] for term, is_constant in terms if is_constant]
    if "changed" in state.numbers:
        notes.append("the rows changed in the run, as consent did: the components are of those that were there at last")
    if "products" not in state.numbers:
        notes.append(_WHY.get(state.ended or "", "not at its end: ask for more rounds"))
        return Fitted(listings=(), figures=(), notes=tuple(notes))
    names, values, loadings = components(task, state)
    whole, headings = float(values.sum()), tuple(f"component {place}" for place in range(1, len(values) + 1))
    lines, so_far = [], 0.0
    for heading, value in zip(headings, values, strict=True):
        so_far += float(value)
        lines.append(Line(name=heading, values=(known(value), known(value / whole), known(so_far / whole))))
    equal = [place for place in range(len(values) - 1) if values[place] - values[place + 1] <= _ALIKE * values[0]]
    if equal:
        alike = ", ".join(f"{place + 1} and {place + 2}" for place in equal)
        notes.append(f"components with equal eigenvalues are one subspace, and no single directions: {alike}"[:400])
    shown = min(int(task.options["components"]), len(values))
    loaded = tuple(
        Line(name=name, values=tuple(map(known, own[:shown]))) for name, own in zip(names, loadings, strict=True)
    )
    return Fitted(
        listings=(
            Listing(name="eigenvalues", headings=("eigenvalue", "share", "shares so far"), lines=tuple(lines)),
            Listing(name="loadings", headings=headings[:shown], lines=loaded),
        ),
        figures=(figure("rows", state.one("rows")), figure("rows left out", state.one("left_out"))),
        notes=tuple(notes),
    )


_WHY = {
    "too-few-rows": "too few rows: components need two, and a column that is not the same in all of them",
    "diverged": "stopped: a product was too large for the grid; narrow the bounds of the features",
}

FAMILY = Family(lambda task: State(), _statistics, _update, _finish)
