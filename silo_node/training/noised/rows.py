"""What families with noise compute of a silo's own rows: counts, means, second moments and gradients of persons.

Pure: numbers in, whole numbers out; each block as `policies.requests.noised_families` states it, person by person
bounded. A person's part of a count is 1, and of any other block what `clipped_sum` leaves of it.
"""

from collections.abc import Callable

import numpy as np

from policies.requests.families import Task
from policies.requests.noised_families import (
    CELL_BITS,
    UNITS,
    can_lack_cells,
    filled,
    has_moments,
    most_moments,
    outputs,
    triangle,
)
from silo_node.training import design
from silo_node.training.families.poisson import offset_of
from silo_node.training.family import Examples, State
from silo_node.training.grid import Integers, Vector
from silo_node.training.noised.clipped import blocks, by_person, clipped_sum, persons_in
from silo_node.training.noised.losses import SLOPES
from silo_node.training.registry import FAMILIES

OF_MOMENTS = 0.6  # of the largest norm of a row's products: what those of a person are clipped to


def outcomes(task: Task, examples: Examples) -> Vector:
    """Return the label of each row: 0 or 1, the place of its class, or the number; of shape (rows,)."""
    judged = FAMILIES[task.family].judged
    if judged is None:
        raise TypeError(f"{task.family} has no label")
    return judged.outcomes(task, examples)


def counts(task: Task, examples: Examples) -> list[Integers]:
    """Return how many persons have a row that is whole, and how many one that is left out, if there can be any."""
    found = [np.array([persons_in(examples)], np.int64)]
    return [*found, np.array([examples.persons_left_out], np.int64)] if can_lack_cells(task) else found


def first_round(task: Task, examples: Examples) -> list[Integers]:
    """Return the blocks of the first round of a descent."""
    own = by_person(examples)
    found = counts(task, own)
    if names := filled(task):
        found += _means(names, task, own)
    if has_moments(task):
        found.append(second_moments(task, own))
    return found


def _means(names: tuple[str, ...], task: Task, own: Examples) -> list[Integers]:
    """Return for each feature the sum over persons of the share of their rows that have a cell, and of its mean."""
    present, total = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    columns = {term.name: term for term in design.terms(task)}
    for rows in blocks(own, 2 * len(names)):
        person = own.person[rows]
        gaps = np.stack([own.missing[name][rows] for name in names], 1)
        cells = np.stack([design.scaled(columns[name], own, rows) for name in names], 1)
        _, places, count = np.unique(person, return_inverse=True, return_counts=True)
        weight = 1.0 / count[places][:, None]
        # Each number is at most 1 in magnitude, so that nothing is clipped at the root of their count.
        for into, values in ((present, ~gaps * weight), (total, np.where(gaps, 0.0, cells) * weight)):
            starts = np.flatnonzero(np.r_[True, person[1:] != person[:-1]])
            of_persons = np.clip(np.add.reduceat(values, starts, axis=0), -1.0, 1.0)
            into += np.trunc(of_persons * UNITS).astype(np.int64).sum(0)
    return [present, total]


def second_moments(task: Task, own: Examples) -> Integers:
    """Return the sum over persons of the products of their rows' columns, each pair once, clipped."""
    width, columns = task.width, design.terms(task)
    upper, clip = np.triu_indices(width), OF_MOMENTS * most_moments(task)
    total = np.zeros(triangle(width), np.int64)
    for rows in blocks(own, triangle(width)):
        block = _plain(columns, own, rows)
        total += clipped_sum((block[upper[0]] * block[upper[1]]).T, own.person[rows], clip)
    return total


def products(task: Task, examples: Examples) -> Integers:
    """Return the sum over rows of the products of their columns and label, each pair once, rounded and not clipped."""
    width, columns = task.width + 1, design.terms(task)
    middle, half, _ = design.span(task.label_column)
    label = (outcomes(task, examples) - middle) / half
    upper, total = np.triu_indices(width), np.zeros(triangle(width), np.int64)
    for rows in blocks(examples, triangle(width)):
        block = np.vstack([_plain(columns, examples, rows), label[None, rows]])
        block = np.clip(block, -1.0, 1.0)
        total += np.rint(np.ldexp(block[upper[0]] * block[upper[1]], CELL_BITS)).astype(np.int64).sum(1)
    return total


def _plain(columns: list[design.Term], own: Examples, rows: slice) -> Vector:
    """Return the columns of some rows within [-1, 1], of shape (width, rows); a missing cell is the middle."""
    return np.stack([np.ones(rows.stop - rows.start), *(design.scaled(term, own, rows) for term in columns)])


def gradient(task: Task, state: State, examples: Examples) -> list[Integers]:
    """Return the sum over persons of their clipped gradients, in units of clip / UNITS, at the state's weights."""
    own, width = by_person(examples), task.width
    weights, columns = state["weights"].reshape(outputs(task), width), design.terms(task)
    label, offset, clip = outcomes(task, own), offset_of(task, own), float(task.options["clip"])
    slope: Callable[[Task, Vector, Vector], Vector] = SLOPES[task.family]
    total = np.zeros(weights.size, np.int64)
    for rows in blocks(own, weights.size):
        block = design.matrix(columns, state, own, rows, np.empty((width, rows.stop - rows.start)))
        with np.errstate(all="ignore"):
            predictors = weights @ block + (0.0 if offset is None else offset[rows])
            parts = slope(task, predictors, label[rows])[:, None, :] * block[None]
        total += clipped_sum(parts.reshape(weights.size, -1).T, own.person[rows], clip)
    return [total]


def moment_unit(task: Task) -> float:
    """Return what one unit of the second moments is."""
    return OF_MOMENTS * most_moments(task) / UNITS
