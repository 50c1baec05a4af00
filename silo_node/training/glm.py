"""Generalised linear models on exact sums: the rounds that linear, logistic, multinomial and Poisson regression share.

The first round sums rows and moments, every later one the loss, its gradient and its Hessian at the weights of all
silos. A row's numbers are rounded to a grid (`silo_node.training.grid`) before they are added, so that the sums, and so
the model, are the same for every split of the rows. numpy alone is needed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from crypto.errors import ProtocolError
from policies.requests.families import Task
from silo_node.training import design, reweighed
from silo_node.training.family import Examples, Family, Fitted, Judged, State
from silo_node.training.grid import MOST_UNITS, Integers, Vector, add_products, bits_for, most, row_sums
from silo_node.training.newton import Problem, begun, stepped

PERFECT_LOSS = 2.0**-16  # of a row: what a classifier of all labels is below


@dataclass(frozen=True, slots=True, eq=False)
class Pointwise:
    """The loss of each row and its derivatives by the row's linear predictors: arrays over rows."""

    loss: Vector  # shape (rows,)
    slope: Vector  # shape (outputs, rows)
    weight: Vector  # shape (pairs, rows): second derivatives, by pairs (0, 0), (0, 1) ... (1, 1) ... of outputs

    def times(self, weights: Vector) -> "Pointwise":
        """Return the same of rows that weigh so much, of shape (rows,)."""
        return Pointwise(self.loss * weights, self.slope * weights, self.weight * weights)


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Where Newton's method begins: the intercepts, and the unit of the loss, a power of two near a row's weight."""

    state: State
    intercepts: Vector
    unit: float = 1.0


@dataclass(frozen=True, slots=True)
class Glm:
    """What one generalised linear model adds to the common rounds."""

    label_moments: Callable[[Task, Examples], Integers]
    start: Callable[[Task, State, Integers], Start]  # of the state with rows, and the label's moments; may be ended
    labels: Callable[[Task, State, Examples], Vector]  # of each row, as `pointwise` takes it
    pointwise: Callable[[Vector, Vector], Pointwise]  # of the predictors, shape (outputs, rows), and the labels
    finish: Callable[[Task, State], Fitted]
    mean: Callable[[Task, State, Vector], Vector]  # of the predictors, shape (outputs, rows): what is expected of rows
    outcomes: Callable[[Task, Examples], Vector]
    offset: Callable[[Task, Examples], Vector | None] = lambda task, examples: None
    outputs: Callable[[Task], int] = lambda task: 1
    can_run_away: bool = False  # whether a weight may grow without end
    least_loss: float = -math.inf  # of a row, below which all labels are told apart
    penalty: Callable[[Task], float] = lambda task: 0.0


def family_of(glm: Glm) -> Family:
    """Return the family of a generalised linear model."""

    def statistics(task: Task, state: State, examples: Examples) -> list[Integers]:
        if task.number == 0:
            first = design.moments(task, examples, glm.label_moments(task, examples))
            return [*first, *reweighed.cells(task, examples, glm.outcomes(task, examples))]
        return derivatives(task, state, examples, glm)

    def update(task: Task, state: State, sums: Mapping[str, Integers]) -> State:
        if state.ended is not None:
            return state
        if task.number == 0:
            return _after_moments(task, glm, sums)
        with np.errstate(all="ignore"):  # what is not finite ends the run
            return stepped(state, task, _problem(task, state, glm), sums)

    def scores(task: Task, state: State, examples: Examples) -> Vector:
        return glm.mean(task, state, predictors_of(task, state, examples, glm))

    return Family(lambda task: State(), statistics, update, glm.finish, Judged(scores, glm.outcomes))


def predictors_of(task: Task, state: State, examples: Examples, glm: Glm) -> Vector:
    """Return the linear predictors of each row by the model that stands, of shape (outputs, rows)."""
    columns, offset = design.terms(task), glm.offset(task, examples)
    weights = standing(state).reshape(glm.outputs(task), task.width)
    room, found = np.empty((task.width, design.BLOCK_ROWS)), np.empty((len(weights), examples.rows))
    for rows in design.blocks_of(examples):
        block = design.matrix(columns, state, examples, rows, room)
        found[:, rows] = _predictors(block, weights, None if offset is None else offset[rows])
    return found


def standing(state: State) -> Vector:
    """Return the weights of the model that stands: the last accepted ones, or before the first step those it begins at.

    Raises ProtocolError where there are none, as after no round.
    """
    for name in ("accepted", "weights"):
        if len(found := state.numbers.get(name, np.zeros(0))):
            return np.asarray(found)
    raise ProtocolError("no model stands yet, so it scores no row")


def _after_moments(task: Task, glm: Glm, sums: Mapping[str, Integers]) -> State:
    state = reweighed.weighed(task, design.standardised(State(), dict(sums)), sums)
    rows = int(state.one("rows"))
    if rows < 2:
        return state.at_end("too-few-rows")
    start = glm.start(task, state, sums["label"])
    weights = np.zeros((len(start.intercepts), task.width))
    weights[:, 0] = start.intercepts
    return begun(start.state, weights.ravel(), bits_for(rows, task.width), start.unit * reweighed.unit_of(state))


def weight_names(task: Task, outputs: int = 1) -> tuple[str, ...]:
    """Return the names of the weights: of each column, in each class but the first where there are several."""
    columns = ("(intercept)", *(term.name for term in design.terms(task)))
    if outputs == 1:
        return columns
    return tuple(f"{value}: {name}" for value in task.classes[1:] for name in columns)


def _problem(task: Task, state: State, glm: Glm) -> Problem:
    outputs = glm.outputs(task)
    dropped = np.tile(design.constants(task, state), outputs)
    return Problem(weight_names(task, outputs), dropped, outputs, glm.penalty(task), glm.can_run_away, glm.least_loss)


def derivatives(task: Task, state: State, examples: Examples, glm: Glm) -> list[Integers]:
    """Return the loss, its gradient and its Hessian summed over the rows, and how many rows were outside.

    A row is outside if a number of it is not finite or exceeds the grid. Then, and where the sum could wrap, all is 0.
    """
    outputs, width, columns = glm.outputs(task), task.width, design.terms(task)
    bits, unit, weights = int(state.one("bits")), state.one("unit"), state["weights"].reshape(outputs, width)
    label, offset = glm.labels(task, state, examples), glm.offset(task, examples)
    heavy = reweighed.weights_of(task, state, examples, label)
    room, product = np.empty((width, design.BLOCK_ROWS)), np.empty((width, design.BLOCK_ROWS))
    pairs, triangle = outputs * (outputs + 1) // 2, width * (width + 1) // 2
    loss, slope = np.zeros(1, np.int64), np.zeros((outputs, width), np.int64)
    curvature, outside, size = np.zeros((pairs, triangle), np.int64), 0, 0.0
    for rows in design.blocks_of(examples):
        block = design.matrix(columns, state, examples, rows, room)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            own = glm.pointwise(_predictors(block, weights, None if offset is None else offset[rows]), label[rows])
            own = own if heavy is None else own.times(heavy[rows])
            reach = np.maximum(np.abs(block).max(0), 1.0)
            derived = np.abs(np.concatenate([own.loss[None], own.slope, own.weight])).max(0) / unit
            largest = derived * reach * reach
            is_outside = ~(largest <= most(bits))
        outside += int(is_outside.sum())
        if outside:
            continue
        size += float(largest.sum())
        loss += row_sums(own.loss / unit, bits)
        for output, each in enumerate(own.slope / unit):
            slope[output] += row_sums(block * each, bits)
        for pair, each in enumerate(own.weight / unit):
            add_products(curvature[pair], block, each, bits, product)
    if not outside and size * 2.0**bits > MOST_UNITS:
        outside = examples.rows
    if outside:
        sizes = (1, slope.size, slope.size * (slope.size + 1) // 2)
        return [np.array([examples.rows]), *(np.zeros(one, np.int64) for one in sizes), np.array([outside])]
    return [np.array([examples.rows]), loss, slope.ravel(), _whole(curvature, outputs, width), np.array([0])]


def _predictors(block: Vector, weights: Vector, offset: Vector | None) -> Vector:
    """Return the linear predictors of each row, of shape (outputs, rows), column by column.

    A product of matrices would add in another order in another block; this adds in one.
    """
    found = np.zeros((len(weights), block.shape[1]))
    if offset is not None:
        found += offset
    for output, own in enumerate(weights):
        for column, weight in zip(block, own, strict=True):
            if weight:
                found[output] += column * weight
    return found


def _whole(curvature: Integers, outputs: int, width: int) -> Integers:
    """Return the upper triangle of the Hessian over all outputs, from that of each pair of outputs."""
    if outputs == 1:
        return np.asarray(curvature[0])
    found = np.zeros((outputs * width, outputs * width), np.int64)
    upper = np.triu_indices(width)
    for own, (one, other) in zip(curvature, combinations_with_replacement(range(outputs), 2), strict=True):
        part = np.zeros((width, width), np.int64)
        part[upper] = own
        part.T[upper] = own
        found[one * width : (one + 1) * width, other * width : (other + 1) * width] = part
    return found[np.triu_indices(outputs * width)]
