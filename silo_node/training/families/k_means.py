"""k-means by Lloyd's algorithm, from centres that the job names or that lie in the public bounds, never from rows.

The first round sums means and deviations, each later one the rows that are nearest to each centre. A row is rounded to
the grid before its distances are computed; of equal distances the first centre has it; a centre that no row is nearest
to stays. Lloyd, IEEE Trans. Inf. Theory 28 (1982). Without names, the centres are the first points of a Kronecker
sequence by roots of primes: Richtmyer (1951); Niederreiter, Bull. AMS 84 (1978), section 4.
"""

from collections.abc import Mapping

import numpy as np

from policies.requests.families import Task, centres_of
from policies.units import counted
from silo_node.training import design
from silo_node.training.family import Examples, Family, Fitted, Line, Listing, State, figure, known
from silo_node.training.grid import LEAST_BITS, MOST_UNITS, Integers, Vector, bits_for, most, row_sums

_COARSER_BITS = 8


def _is_standardised(task: Task) -> bool:
    return task.options["scale"] == "deviation"


def _clusters(task: Task) -> int:
    return int(task.options["clusters"])


def _primes(count: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < count:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found


def spread(points: int, columns: int) -> Vector:
    """Return points of a low-discrepancy sequence in the unit cube, of shape (points, columns).

    A product, a root and a remainder: IEEE 754 rounds each correctly, so every machine has the same points.
    """
    roots = np.sqrt(np.array(_primes(columns), np.float64))
    found: Vector = np.remainder(np.outer(np.arange(1, points + 1, dtype=np.float64), roots), 1.0)
    return found


def _coordinates(task: Task, state: State, scaled: Vector) -> Vector:
    """Return points whose last axis is over columns in [-1, 1], or 0 and 1, in the units of distances."""
    if not _is_standardised(task):
        return scaled
    deviation = state["deviation"]
    centred = scaled - state["mean"]
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)


def first_centres(task: Task, state: State) -> Vector:
    """Return the centres before the first step, of shape (clusters, columns)."""
    terms = design.terms(task)
    is_number = np.array([term.member is None and not term.is_indicator for term in terms])
    if task.options["centres"]:
        named = np.array([[float(number) for number in one] for one in centres_of(task)])
        halves = np.array([term.half for term in terms])
        scaled = (named - np.array([term.middle for term in terms])) / halves
    else:
        points = spread(_clusters(task), len(terms))
        scaled = np.where(is_number, 2 * points - 1, points)
    return _coordinates(task, state, scaled)


def _statistics(task: Task, state: State, examples: Examples) -> list[Integers]:
    if task.number == 0:
        return design.moments(task, examples, np.zeros(0, np.int64))[:-1]
    return _nearest(task, state, examples)


def _rows(task: Task, state: State, examples: Examples, rows: slice, out: Vector) -> Vector:
    """Return the coordinates of some rows, of shape (columns, rows), on the grid; a missing cell has the mean."""
    terms = design.terms(task)
    if _is_standardised(task):
        found = design.matrix(terms, state, examples, rows, out)[1:]
    else:
        found = out[1:, : len(range(*rows.indices(examples.rows)))]
        for place, term in enumerate(terms):
            found[place] = design.scaled(term, examples, rows)
            gap = None if term.is_indicator else examples.missing.get(term.column.name)
            if gap is not None:
                found[place, gap[rows]] = state["mean"][place]
    bits = int(state.one("bits"))
    np.rint(np.ldexp(found, bits, out=found), out=found)
    return np.ldexp(found, -bits, out=found)


def _nearest(task: Task, state: State, examples: Examples) -> list[Integers]:
    """Return the rows, persons and sums of columns of each centre, the sum of squared distances, and the rows outside.

    A row is outside if a number of it exceeds the grid. Then, and where a sum could wrap, all is 0.
    """
    clusters, columns, bits = _clusters(task), task.width - 1, int(state.one("bits"))
    centres = state["centres"].reshape(clusters, columns)
    room, whose = np.empty((task.width, design.BLOCK_ROWS)), np.zeros(examples.rows, np.int64)
    total, distance, outside, size = np.zeros((clusters, columns), np.int64), np.zeros(1, np.int64), 0, 0.0
    for rows in design.blocks_of(examples):
        block = _rows(task, state, examples, rows, room)
        squares = np.zeros((clusters, block.shape[1]))
        with np.errstate(over="ignore", invalid="ignore"):
            for own, centre in zip(squares, centres, strict=True):
                for column, at in zip(block, centre, strict=True):  # one order, whatever the block is
                    own += np.square(column - at)
        nearest = squares.argmin(0)  # the first of equal ones
        whose[rows] = nearest
        least = squares.min(0)
        largest = np.maximum(least, np.abs(block).max(0))
        outside += int((~(largest <= most(bits))).sum())
        size += float(largest.sum())
        if outside:
            continue
        distance += row_sums(least[None], bits)
        units = np.ldexp(block, bits).astype(np.int64)
        for cluster in np.unique(nearest):
            total[cluster] += units[:, nearest == cluster].sum(1)
    if not outside and size * 2.0**bits > MOST_UNITS:
        outside = examples.rows
    persons = np.unique(examples.person * clusters + whose) % clusters
    counts = [np.bincount(one, minlength=clusters).astype(np.int64) for one in (whose, persons)]
    if outside:
        return [np.zeros_like(one) for one in (*counts, total.ravel(), distance)] + [np.array([outside])]
    return [*counts, total.ravel(), distance, np.array([0])]


def _update(task: Task, state: State, sums: Mapping[str, Integers]) -> State:
    if state.ended is not None:
        return state
    if task.number == 0:
        state = design.standardised(State(), dict(sums))
        rows = int(state.one("rows"))
        if rows < 1:
            return state.at_end("too-few-rows")
        # A squared distance is at most 4 a column inside the bounds.
        state = state.with_(bits=float(bits_for(rows, 4 * task.width)))
        return state.with_(centres=first_centres(task, state).ravel())
    bits, clusters = int(state.one("bits")), _clusters(task)
    if sums["outside"][0]:
        if bits <= LEAST_BITS:
            return state.at_end("diverged")
        return state.with_(bits=float(max(LEAST_BITS, bits - _COARSER_BITS)))
    before, counts = state["centres"].reshape(clusters, -1), sums["rows"].astype(np.float64)
    totals = np.ldexp(sums["total"].reshape(clusters, -1).astype(np.float64), -bits)
    centres = before.copy()
    np.divide(totals, counts[:, None], out=centres, where=counts[:, None] > 0)
    if int(counts.sum()) != int(state.one("rows")):
        state = state.with_(rows=float(counts.sum()), changed=1.0)
    after = state.with_(
        centres=centres.ravel(),
        counts=counts,
        persons=sums["persons"].astype(np.float64),
        distance=float(np.ldexp(float(sums["distance"][0]), -bits)),
    )
    moved = np.zeros(clusters)
    for column in (centres - before).T:
        moved += np.square(column)
    is_done = float(np.sqrt(moved.max())) <= float(task.options["tolerance"])
    return after.at_end("complete") if is_done else after


def in_units(task: Task, state: State) -> Vector:
    """Return the centres in the units of the columns, of shape (clusters, columns)."""
    terms, centres = design.terms(task), state["centres"].reshape(_clusters(task), -1)
    if _is_standardised(task):
        centres = state["mean"] + state["deviation"] * centres
    middles, halves = ([getattr(term, name) for term in terms] for name in ("middle", "half"))
    found: Vector = np.array(middles) + np.array(halves) * centres
    return found


def _finish(task: Task, state: State) -> Fitted:
    if "counts" not in state.numbers:
        why = "stopped: a distance was too large for the grid" if state.ended == "diverged" else "no rows, or no round"
        return Fitted(listings=(), figures=(), notes=(why,))
    cohort, counts, persons = int(task.options["min_cohort"]), state["counts"], state["persons"]
    is_shown = persons >= cohort
    notes = []
    if hidden := int((~is_shown).sum()):
        notes.append(f"left out: {counted(hidden, 'centre')} of fewer than {counted(cohort, 'person')}")
    if "changed" in state.numbers:
        notes.append("the rows changed in the run, as consent did: the centres are of those that were there at last")
    if state.ended is None:
        notes.append("not at its end: a centre still moves by more than the tolerance; ask for more rounds")
    lines = [
        Line(name=f"centre {place + 1}", values=tuple(map(known, (counts[place], persons[place], *centre))))
        for place, centre in enumerate(in_units(task, state))
        if is_shown[place]
    ]
    figures = [figure("rows", float(counts[is_shown].sum())), figure("rows left out", state.one("left_out"))]
    if not hidden:  # else it would tell how far the rows of the others are
        figures.append(figure("sum of squared distances", state.one("distance")))
    headings = ("rows", "persons", *(term.name[:400] for term in design.terms(task)))
    return Fitted(
        listings=(Listing(name="centres", headings=headings, lines=tuple(lines)),) if lines else (),
        figures=tuple(figures),
        notes=tuple(notes),
    )


FAMILY = Family(lambda task: State(), _statistics, _update, _finish)
