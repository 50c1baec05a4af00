"""Descent on noised sums of persons' clipped gradients: with decay, momentum, and the mean of the last half of it.

The first round counts persons, by which all else is chosen (`chosen.py`); where they are many, a second moment that is
noised once there preconditions every later step. The model is the mean of the weights of the last half of the rounds:
the noise of one round is the noise of all. Abadi et al., CCS 2016; Polyak and Juditsky, SIAM J. Control Optim. 30
(1992). A run whose weights leave the bound of `is_within` is at its end, and the last good model stands.
"""

import math
from dataclasses import replace

import numpy as np

from policies.requests.families import Task
from policies.requests.noised_families import NOISED, UNITS, filled, outputs
from silo_node.training import design
from silo_node.training.family import Examples, Fitted, Judged, State
from silo_node.training.grid import Integers, Vector
from silo_node.training.logistic_model import is_within
from silo_node.training.newton import inverse, pivots_of, product, square
from silo_node.training.noised import rows
from silo_node.training.noised.chosen import CURVATURE, Descent, descent
from silo_node.training.noised.family import NoisedFamily, Sums
from silo_node.training.noised.shown import shown
from silo_node.training.registry import FAMILIES

_LEAST_COUNT = 2.0  # of persons, in deviations of the noise in their count
_FLOOR = 2.2  # in deviations times the root of the width: what the eigenvalues of noise alone hardly exceed
_LEAST_PRESENT = 4.0  # of persons with a cell, in deviations of their count, or its mean is that of the bounds


def statistics(task: Task, state: State, examples: Examples) -> list[Integers]:
    """Return a silo's blocks of a round."""
    return rows.gradient(task, state, examples) if task.number else rows.first_round(task, examples)


def update(task: Task, state: State, sums: Sums) -> State:
    """Return the state after a round, by its opened sums alone."""
    if state.ended is not None:
        return state
    return _moved(task, state, sums) if task.number else _begun(task, sums)


def _begun(task: Task, sums: Sums) -> State:
    """Return the state after the first round: how many persons there are, and how the run descends."""
    persons, columns, count = sums["persons"], task.width - 1, task.width * outputs(task)
    left_out = sums.get("left-out")
    state = State().with_(
        persons=persons.one,
        persons_noise=persons.deviation,
        left_out=np.zeros(0) if left_out is None else [left_out.one, left_out.deviation],
        mean=np.zeros(columns),
        deviation=np.ones(columns),
        label_mean=0.0,
        label_deviation=1.0,
        weights=np.zeros(count),
        velocity=np.zeros(count),
        total=np.zeros(count),
        averaged=0.0,
        accepted=np.zeros(0),
        factor=np.zeros(0),
        noise=0.0,
    )
    if persons.one < _LEAST_COUNT * persons.deviation:
        return state.at_end("too-few-rows")
    state = state.with_(mean=_means(task, sums))
    # The first round tells how much noise every later one has, of the same price.
    of_first = NOISED[task.family].extents(replace(task, number=0))
    share = of_first["persons"].share / sum(extent.share for extent in of_first.values())
    clip = float(task.options["clip"])
    noise = persons.deviation * math.sqrt(share) * clip
    how = descent(task, persons.one, noise / clip)
    if how.is_preconditioned:
        state, how = _preconditioned(task, state, sums, how)
    return state.with_(rate=how.rate, momentum=how.momentum, decay=how.decay, noise=noise / persons.one)


def _means(task: Task, sums: Sums) -> Vector:
    """Return the mean of each column by which its missing cells are filled; 0, the middle, of any other."""
    found, names = np.zeros(task.width - 1), filled(task)
    places = {term.name: place for place, term in enumerate(design.terms(task))}
    for number, name in enumerate(names):
        present = float(sums["present"].values[number]) / UNITS
        if present > _LEAST_PRESENT * sums["present"].deviation / UNITS:
            mean = float(sums["total"].values[number]) / UNITS / present
            found[places[name]] = min(1.0, max(-1.0, mean))
    return found


def _preconditioned(task: Task, state: State, sums: Sums, how: Descent) -> tuple[State, Descent]:
    """Return the state with the inverse of about the curvature of the loss, and how the run descends.

    The diagonal has as much more as the eigenvalues of the noise hardly exceed. Where they do, there is no inverse, and
    the run descends without it.
    """
    moments, width, persons = sums["second-moments"], task.width, state.one("persons")
    unit = rows.moment_unit(task) / persons
    curvature = CURVATURE[task.family] * square(moments.values * unit, width)
    change = np.eye(width)
    change[1:, 0] = -state["mean"]  # to the columns less their means
    curvature = product(product(change, curvature), change.T)
    floor = CURVATURE[task.family] * _FLOOR * moments.deviation * unit * math.sqrt(width)
    curvature = curvature + np.diag(np.r_[floor, np.full(width - 1, floor + how.decay)])
    if (pivots_of(curvature) <= 0).any():
        return state, replace(how, is_preconditioned=False)
    return state.with_(factor=inverse(curvature).ravel()), how


def _moved(task: Task, state: State, sums: Sums) -> State:
    """Return the state after a step against the mean gradient; one at its end if the weights leave the bound."""
    count, width, clip = outputs(task), task.width, float(task.options["clip"])
    before = state["weights"]
    slope = sums["gradient"].values * (clip / UNITS) / state.one("persons")
    shrunk = before.reshape(count, width).copy()
    shrunk[:, 0] = 0.0  # the intercept has no decay
    slope = slope + state.one("decay") * shrunk.ravel()
    if len(state["factor"]):
        factor = state["factor"].reshape(width, width)
        slope = np.concatenate([(factor * own).sum(1) for own in slope.reshape(count, width)])
    velocity = state.one("momentum") * state["velocity"] + slope
    weights = before - state.one("rate") * velocity
    if not is_within(weights):
        return state.at_end("diverged")
    total, averaged = state["total"], state.one("averaged")
    if task.number > (task.rounds - 1) // 2:
        total, averaged = total + weights, averaged + 1
    mean = total / averaged if averaged else weights
    noise = sums["gradient"].deviation * clip / UNITS / state.one("persons")
    return state.with_(
        weights=weights, velocity=velocity, total=total, averaged=averaged, accepted=against_first(task, mean),
        noise=max(noise, state.one("noise")), taken=float(task.number),
    )  # fmt: skip


def against_first(task: Task, weights: Vector) -> Vector:
    """Return the weights as the exact family has them: of each class against the first."""
    if outputs(task) == 1:
        return weights
    each = weights.reshape(outputs(task), task.width)
    return np.asarray((each[1:] - each[0]).ravel())


def finish(task: Task, state: State) -> Fitted:
    """Return what the owners see."""
    return shown(task, state)


def family_of(name: str) -> NoisedFamily:
    """Return the family of this name that descends; its predictions are judged as those of the exact one."""
    judged: Judged | None = FAMILIES[name].judged
    return NoisedFamily(lambda task: State(), statistics, update, finish, judged)
