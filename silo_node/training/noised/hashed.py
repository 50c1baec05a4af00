"""Logistic regression over hashed features with noise: descent on sums of persons' bounded gradients.

Promise: no person changes a sum by more than `PERSON_UNITS` in L2 norm, whatever their rows are. A person's part is
clipped and rounded to whole units first, and its norm is checked in integers after that: what is still too long is
shrunk until it is not. What is 0 stays 0, so that only the weights that a person's values meet have a part.

The first round sums, beside the persons, the reach of each weight, with noise. It preconditions every later step:
values that few persons have move as fast as the intercept. The model is the mean of the weights of the last half of the
rounds.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from policies.requests.families import Task
from policies.requests.hashed import values_in_row, weights_of
from policies.requests.noised_families import NOISED, PERSON_UNITS
from silo_node.training.families.hashed import FAMILY as EXACT
from silo_node.training.families.hashed import odds_of
from silo_node.training.families.logistic import labels_of, share_of
from silo_node.training.family import Examples, Fitted, State, figure
from silo_node.training.grid import Integers, Vector
from silo_node.training.hashing import hashed
from silo_node.training.logistic_model import is_within
from silo_node.training.noised import rows as counted_rows
from silo_node.training.noised.clipped import blocks, by_person
from silo_node.training.noised.family import NoisedFamily, Sums
from silo_node.training.noised.shown import counted

_LEAST_COUNT = 2.0  # of persons, in deviations of the noise in their count
_FLOOR = 3.0  # of a reach, in deviations of the noise in it: what noise alone hardly exceeds
_RIDGE = 0.5  # in deviations of the noise in the mean gradient of all rounds
# The relative noise from which a row counts; the rate, as so many steps over the bound of the curvature, and momentum.
_TABLE = ((1 / 700, 0.5, 0.5), (0.0, 1.0, 0.8))
_SHRUNK = 1 - 2.0**-20  # what a part that is too long is multiplied by, again and again


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Numbers of persons at places, sparse: each pair of a person and a place once, a person's after another's."""

    person: Integers  # shape (parts,): from 0, in order
    place: Integers
    value: Vector
    persons: int


def parts_of(person: Integers, places: Integers, values: Vector, weights: int) -> Parts:
    """Return the sums of each person's values at each place.

    `person` has the shape (rows,) and is in order, `places` and `values` have (values, rows). A value of 0 has no part.
    """
    starts = np.r_[True, person[1:] != person[:-1]] if len(person) else np.zeros(0, np.bool_)
    rank = np.cumsum(starts, dtype=np.int64) - 1
    is_there = values != 0  # what is not finite is there
    keys, which = np.unique((rank * weights + places)[is_there], return_inverse=True)
    with np.errstate(all="ignore"):
        summed = np.bincount(which, values[is_there], len(keys)).astype(np.float64)
    return Parts(keys // weights, keys % weights, summed, int(starts.sum()))


def bounded(parts: Parts, clip: float) -> Integers:
    """Return the parts in whole units of clip / PERSON_UNITS, of which each person has at most that many in L2 norm.

    A person's part is clipped, then rounded to the nearest unit, then checked. Who has a number that is not finite, or
    one too large to be squared, has 0 everywhere.
    """
    with np.errstate(all="ignore"):
        squares = np.bincount(parts.person, parts.value * parts.value, parts.persons)
        longest = np.maximum(np.sqrt(squares), clip)
        is_finite = np.isfinite(squares)
        shares = np.where(is_finite[parts.person], parts.value / longest[parts.person] * PERSON_UNITS, 0.0)
    units = np.rint(shares).astype(np.int64)
    bound, factor = PERSON_UNITS * PERSON_UNITS, np.ones(parts.persons)
    while (too_long := _squared(parts, units) > bound).any():
        factor[too_long] *= _SHRUNK
        own = too_long[parts.person]
        # Towards 0: each number of whoever is too long gets shorter by a unit or more, so this ends.
        units[own] = np.trunc(units[own] * factor[parts.person[own]]).astype(np.int64)
    return units


def _squared(parts: Parts, units: Integers) -> Integers:
    """Return the squared L2 norm of each person's units, in integers."""
    found = np.zeros(parts.persons, np.int64)
    np.add.at(found, parts.person, units * units)
    return found


def _statistics(task: Task, state: State, examples: Examples) -> list[Integers]:
    own, total = by_person(examples), np.zeros(weights_of(task), np.int64)
    weights, clip = (state["weights"], float(task.options["clip"])) if task.number else (None, _reach_norm(task))
    label = labels_of(task, own)
    for rows in blocks(own, 4 * values_in_row(task)):
        found, person = hashed(task, own, rows), own.person[rows]
        if weights is None:
            values = np.abs(found.values)
            values[0] = 0.0  # of the intercept the reach is how many persons there are
        else:
            with np.errstate(all="ignore"):
                values = found.values * (share_of(odds_of(found, weights)) - label[rows])
        _, whose, count = np.unique(person, return_inverse=True, return_counts=True)
        parts = parts_of(person, found.places, values / count[whose], weights_of(task))
        np.add.at(total, parts.place, bounded(parts, clip))
    return [total] if task.number else [*counted_rows.counts(task, own), total]


def _reach_norm(task: Task) -> float:
    """Return the longest that the values of a person without the intercept can be: each is 1 at most, in the mean."""
    return math.sqrt(values_in_row(task) - 1)


def _update(task: Task, state: State, sums: Sums) -> State:
    if state.ended is not None:
        return state
    return _moved(task, state, sums) if task.number else _begun(task, sums)


def _begun(task: Task, sums: Sums) -> State:
    persons, left_out, reach = sums["persons"], sums.get("left-out"), sums["reach"]
    nothing, unit = np.zeros(weights_of(task)), _reach_norm(task) / PERSON_UNITS
    state = State().with_(
        persons=persons.one,
        persons_noise=persons.deviation,
        left_out=np.zeros(0) if left_out is None else [left_out.one, left_out.deviation],
        weights=nothing,
        velocity=nothing,
        accepted=np.zeros(0),
        averaged=0.0,
    )
    if persons.one < _LEAST_COUNT * persons.deviation:
        return state.at_end("too-few-rows")
    floor = _FLOOR * reach.deviation * unit
    known = np.maximum(reach.values * unit, floor)
    known[0] = max(persons.one, floor)
    # The gradient has the same price alone that the first round divides among its blocks.
    of_first = NOISED[task.family].extents(replace(task, number=0))
    share = of_first["reach"].share / sum(extent.share for extent in of_first.values())
    noise = reach.deviation / PERSON_UNITS * math.sqrt(share * weights_of(task) / max(1, task.rounds - 1)) / persons.one
    _, rate, momentum = next(row for row in _TABLE if noise >= row[0])
    return state.with_(
        bound=known * (values_in_row(task) / 4.0),
        rate=float(task.options["rate"] or rate),
        momentum=float(task.options["momentum"] or momentum),
    )


def _moved(task: Task, state: State, sums: Sums) -> State:
    """Return the state after a step against the gradient; one at its end if the weights leave the bound."""
    unit, before = float(task.options["clip"]) / PERSON_UNITS, state["weights"]
    ridge = np.full(len(before), _RIDGE * sums["gradient"].deviation * unit / math.sqrt(max(1, task.rounds - 1)))
    ridge[0] = 0.0
    bound = state["bound"] + ridge
    slope = (sums["gradient"].values * unit + ridge * before) / np.where(bound > 0, bound, 1.0)
    velocity = state.one("momentum") * state["velocity"] + slope
    weights = before - state.one("rate") * velocity
    if not is_within(weights):
        return state.at_end("diverged")
    averaged, accepted = state.one("averaged"), weights
    if task.number > (task.rounds - 1) // 2:
        averaged += 1.0
        known = state["accepted"] if averaged > 1 else weights
        accepted = known + (weights - known) / averaged
    return state.with_(weights=weights, velocity=velocity, accepted=accepted, averaged=averaged)


def _finish(task: Task, state: State) -> Fitted:
    notes = {
        "diverged": "stopped: the weights grew without end; the last good model stands; take a smaller rate",
        "too-few-rows": "too few persons: their count is not above its noise; ask more silos, or with a larger epsilon",
    }
    figures = (*counted(state), figure("weights", float(weights_of(task))))
    return Fitted(listings=(), figures=figures, notes=tuple(notes[one] for one in (state.ended,) if one in notes))


FAMILY = NoisedFamily(lambda task: State(), _statistics, _update, _finish, EXACT.judged)
