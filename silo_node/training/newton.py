"""Newton's method on opened sums: the same steps at every silo, and a stop that says why.

Promise: a column is dropped, and never a matrix singular: one whose pivot, after those before it, is below 2^-16 of its
own variance. A step that raises the loss is halved. Where the likelihood has no maximum, or numbers leave the range of
the grid, the run ends and the last good model stands. Newton-Raphson by iteratively reweighted least squares: Green,
J. R. Statist. Soc. B 46 (1984).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from policies.requests.families import Task
from silo_node.training.family import Bools, State
from silo_node.training.grid import LEAST_BITS, Integers, Vector, reals

_LEAST_PIVOT = 2.0**-16  # of a column's variance, or it is dropped
_NO_CURVATURE = 2.0**-20  # of a column's curvature that is left beside the others where a weight runs away
_RUNS_AWAY = 2.0**-6  # of a weight, by a step of a weight that has no maximum
_SURE_AFTER = 4  # steps, of a weight that runs away
_MOST_HALVINGS = 30
_LOOK_AGAIN = 4  # halvings, after which a run looks whether its rows are still those of its last good step
_COARSER_BITS = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """What Newton's method needs to know of a family beside its sums."""

    names: tuple[str, ...]  # of the weights, in order
    dropped: Bools  # the weights of columns that are the same in all rows
    classes: int = 1  # of a design that is there once for each class
    penalty: float = 0.0  # half of it times the squares of all weights but the first is added to the loss
    can_run_away: bool = False  # whether a weight may grow without end
    least_loss: float = -math.inf  # of a row: below it all labels are told apart, and the weights grow without end
    has_intercept: bool = True  # beside which a weight that runs away loses its curvature; else by the first round's
    roundings: float | None = None  # numbers that are rounded and added to each sum; None: as many as rows


def begun(state: State, weights: Vector, bits: int, unit: float = 1.0) -> State:
    """Return the state before the first step; each loss is in `unit`, a power of two."""
    nothing = np.zeros(0)
    numbers = {"weights": weights, "accepted": nothing, "direction": nothing, "covariance": nothing}
    return state.with_(**numbers, loss=nothing, halvings=0.0, bits=float(bits), unit=unit, taken=0.0)


def stepped(state: State, task: Task, problem: Problem, sums: Mapping[str, Integers]) -> State:
    """Return the state after a round: a step is taken, halved, or the run is at its end."""
    bits, unit = int(state.one("bits")), state.one("unit")
    weights = state["weights"]
    loss = float(reals(sums["loss"], bits)[0]) * unit
    slope = reals(sums["gradient"], bits) * unit
    curvature = square(reals(sums["hessian"], bits) * unit, len(weights))
    if problem.penalty:
        bare = np.concatenate([[0.0], weights[1:]])
        loss, slope = loss + problem.penalty / 2 * float((bare * bare).sum()), slope + problem.penalty * bare
        curvature = curvature + problem.penalty * np.diag(np.r_[0.0, np.ones(len(weights) - 1)])
    is_outside = int(sums["outside"][0]) > 0
    if is_outside and bits > LEAST_BITS:
        return state.with_(bits=float(max(LEAST_BITS, bits - _COARSER_BITS)))
    if int(sums["rows"][0]) != int(state.one("rows")):
        # The rows are others than before, and so is the loss: go on from here, with nothing to compare to.
        state = state.with_(rows=float(sums["rows"][0]), changed=1.0, loss=np.zeros(0))
    slack = _roundings(state, problem) * unit * 2.0**-bits + 1e-12 * abs(loss)
    if len(looked := state.numbers.get("looked", np.zeros(0))) and not is_outside:
        if abs(loss - float(looked[0])) <= slack:
            return _halved(state.with_(looked=np.zeros(0), loss=looked))
        state = state.with_(looked=np.zeros(0), changed=1.0)  # as many rows as before, but not the same ones
    if is_outside or (len(state["loss"]) and loss > state.one("loss") + slack):
        return _halved(state)
    return _taken(state, task, problem, loss, (slope, curvature))


def _roundings(state: State, problem: Problem) -> float:
    return state.one("rows") if problem.roundings is None else problem.roundings


def _halved(state: State) -> State:
    halvings = state.one("halvings") + 1
    if not len(state["accepted"]) or halvings > _MOST_HALVINGS:
        return state.at_end("diverged")
    if halvings == _LOOK_AGAIN:  # once: at the weights that had less, as the rows may be others
        return state.with_(weights=state["accepted"], looked=state["loss"], loss=np.zeros(0), halvings=halvings)
    weights = state["accepted"] + state["direction"] * 2.0**-halvings
    return state.with_(weights=weights, halvings=halvings)


def _taken(state: State, task: Task, problem: Problem, loss: float, sums: tuple[Vector, Vector]) -> State:
    (slope, curvature), weights, taken = sums, state["weights"], int(state.one("taken"))
    kept = state["kept"] > 0 if taken else _kept(problem, curvature)
    if not kept.any():
        return state.at_end("diverged")  # no weight changes the loss where the run stands
    if not taken and state.one("rows") <= kept.sum():
        return state.with_(kept=kept).at_end("too-few-rows")
    inner = curvature[np.ix_(kept, kept)]
    pivots = pivots_of(inner)
    factors = np.array([name for name, is_kept in zip(problem.names, kept, strict=True) if is_kept])
    usual = np.diag(inner) if problem.has_intercept or not taken else state["first_curvature"]
    flat = pivots < _NO_CURVATURE * usual
    if loss < problem.least_loss * state.one("rows"):
        return state.with_(kept=kept).at_end("no-maximum", _widest(factors, weights[kept]))
    if (pivots <= 0).any():
        return state.with_(kept=kept).at_end("no-maximum", str(factors[int(np.argmax(pivots <= 0))]))
    own = inverse(inner)
    direction = np.zeros_like(weights)
    direction[kept] = -(own * slope[kept]).sum(1)
    runs_away = np.abs(direction[kept]) > _RUNS_AWAY * np.maximum(1.0, np.abs(weights[kept]))
    if problem.can_run_away and taken >= _SURE_AFTER and flat.any() and runs_away.any():
        return state.with_(kept=kept).at_end("no-maximum", str(factors[int(np.argmax(np.abs(direction[kept])))]))
    bits, unit = int(state.one("bits")), state.one("unit")
    # Half a unit of each row, all in one direction: rows that are alike are rounded alike.
    noise = unit * 2.0 ** -(bits + 1) * _roundings(state, problem) * math.sqrt(float((own * own).sum(1).max()))
    aim = float(task.options["tolerance"]) * max(1.0, float(np.abs(weights).max()))
    is_done = float(np.abs(direction).max()) <= max(aim, noise)
    after = state.with_(
        kept=kept,
        accepted=weights + direction if is_done else weights,
        direction=direction,
        weights=weights + direction,
        covariance=own[np.triu_indices(len(own))],
        loss=loss,
        halvings=0.0,
        taken=float(taken + 1),
    )
    if not taken:
        after = after.with_(first_loss=loss, first_slope=slope, first_curvature=np.diag(inner))
    if not all(np.isfinite(one).all() for one in after.numbers.values()):
        return state.at_end("diverged")
    return after.at_end("complete") if is_done else after


def _kept(problem: Problem, curvature: Vector) -> Bools:
    """Return which weights are kept: the last of columns that tell the same is dropped, in every class alike."""
    width = len(curvature) // problem.classes
    of_one = curvature[:width, :width].copy()
    kept = ~problem.dropped[:width]
    for place in range(width):
        pivot = of_one[place, place]
        if not kept[place] or pivot <= _LEAST_PIVOT * curvature[place, place]:
            kept[place] = False
            continue
        row = of_one[place, place:].copy()
        of_one[place:, place:] -= np.outer(row / pivot, row)
    return np.tile(kept, problem.classes)


def pivots_of(matrix: Vector) -> Vector:
    """Return what each column has for itself, beside those before it; 0 or less where it has nothing."""
    rest, found = matrix.copy(), np.zeros(len(matrix))
    for place in range(len(matrix)):
        found[place] = rest[place, place]
        if found[place] <= 0:
            break
        row = rest[place, place:].copy()
        rest[place:, place:] -= np.outer(row / found[place], row)
    return found


def inverse(matrix: Vector) -> Vector:
    """Return the inverse of a symmetric matrix with positive pivots, by elimination in order (Gauss-Jordan).

    Its diagonal is made 1 first, as columns may differ much in variance. Elementwise, so that every machine has the
    same inverse to the last bit; a library for linear algebra adds in an order of its own.
    """
    scale = 1 / np.sqrt(np.diag(matrix))
    rest, found = matrix * np.outer(scale, scale), np.eye(len(matrix))
    for place in range(len(matrix)):
        pivot, column = rest[place, place], rest[:, place].copy()
        column[place] = 0.0
        rest[place] /= pivot
        found[place] /= pivot
        rest -= np.outer(column, rest[place])
        found -= np.outer(column, found[place])
    found *= np.outer(scale, scale)
    return (found + found.T) / 2


def _widest(names: Vector, weights: Vector) -> str:
    """Return the name of the largest weight but the first, or of the first where it is alone."""
    return str(names[1 + int(np.argmax(np.abs(weights[1:])))]) if len(weights) > 1 else str(names[0])


def square(triangle: Vector, width: int) -> Vector:
    """Return the symmetric matrix of an upper triangle, row by row."""
    found = np.zeros((width, width))
    found[np.triu_indices(width)] = triangle
    return found + np.triu(found, 1).T


def product(one: Vector, other: Vector) -> Vector:
    """Return the product of two matrices, the same on every machine: a library adds in an order of its own."""
    found: Vector = (one[:, :, None] * other[None]).sum(1)
    return found


def covariance(state: State) -> Vector:
    """Return the inverse of the Hessian over all weights, of shape (width, width); 0 for those that were dropped."""
    kept = state["kept"] > 0
    found = np.zeros((len(kept), len(kept)))
    found[np.ix_(kept, kept)] = square(state["covariance"], int(kept.sum()))
    return found
