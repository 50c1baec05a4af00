"""Networks with noise: descent on sums of persons' bounded gradients, or the mean of silos' bounded changes.

By person a round is one step with momentum along the mean gradient in units of the clip, so that the rate is the length
of a step if all persons agree (De et al., arXiv 2204.13650, section 3.1); the model is the mean of the weights of the
last half of the rounds. The clip is that of the job, or follows a quantile of the gradients' norms by noised counts
(Andrew et al., NeurIPS 2021), and never exceeds that of the job. By silo a round is what the exact family does between
two sums, and the server's step is that of the job's algorithm. All that is decided here follows from opened sums, so
that no value of a row stops, shortens or fails a round; and by additions, products, quotients and roots of doubles
alone, so that all recipients have the same weights to the last bit.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from policies.networks import parts
from policies.networks.algorithms.algorithm import UPDATE, Held
from policies.networks.algorithms.algorithm import Sums as Means
from policies.requests.families import Task
from policies.requests.networks import algorithm_of, algorithm_options, graph_of, shared_of
from policies.requests.noised_networks import SILO, extents, protected, unit_of, units_of
from policies.requests.noised_parts import can_lack_cells
from silo_node.training.family import Examples, Fitted, Line, State, figure
from silo_node.training.grid import Integers, Vector
from silo_node.training.logistic_model import is_within
from silo_node.training.networks.family import NETWORK
from silo_node.training.networks.first import first_weights
from silo_node.training.noised.clipped import persons_in
from silo_node.training.noised.family import NoisedFamily, Sums
from silo_node.training.noised.shown import counted

_LEAST_COUNT = 2.0  # of persons, in deviations of the noise in their count
MOMENTUM = 0.8
# A step, where the job names none: so long over the relative noise of the run, and no shorter or longer than these.
_RATE, _SHORTEST, _LONGEST = 0.06, 0.25, 4.0
_FOLLOWS = 0.5  # how far the clip moves in a round, if all gradients are on one side of it
_LEAST_CLIP = 2.0**-20  # of that of the job
_SERVER = "server_"  # before the names of an algorithm's own vectors in a state


def _init(task: Task) -> State:
    """Return the state before the first round: by silo the weights, as nothing else must be known."""
    if unit_of(task.options) != SILO:
        return State()
    held = algorithm_of(task).init(algorithm_options(task), _first_weights(task))
    return _holding(State(), held).with_(clip=float(task.options["clip"]))


def _first_weights(task: Task) -> Vector:
    """Return the weights that a run begins with; fresh ones of the last layer are 0, so that nothing is unlearned."""
    if task.begun is not None:
        return task.begun.weights.copy()
    graph, shared = graph_of(task), shared_of(task)
    weights, last = first_weights(task, shared), next(one for one in graph.calls if one.name == graph.output)
    if task.options.get("weights") == "packed":
        return weights
    for name, place in parts.places(shared).items():
        if name in last.weights:
            weights[place] = 0.0
    return weights


def _statistics(task: Task, state: State, examples: Examples) -> list[Integers]:
    with np.errstate(all="ignore"):  # what is not finite counts as 0
        return _contributed(task, state, examples)


def _contributed(task: Task, state: State, examples: Examples) -> list[Integers]:
    if unit_of(task.options) == SILO:
        from silo_node.training.noised.network_rows import change  # torch is heavy: only where a silo really trains

        return [change(task, state["weights"], state.one("clip"), examples)]
    if task.number == 0:
        found = [np.array([persons_in(examples)], np.int64)]
        return [*found, np.array([examples.persons_left_out], np.int64)] if can_lack_cells(task) else found
    from silo_node.training.noised.network_rows import gradients

    summed = gradients(task, state["at"], state.one("clip"), examples)
    within = np.array([2 * summed.within - summed.persons], np.int64)
    return [summed.units, within] if task.options["quantile"] else [summed.units]


def _update(task: Task, state: State, sums: Sums) -> State:
    if state.ended is not None:
        return state
    if unit_of(task.options) == SILO:
        return _by_silo(task, state, sums)
    return _by_person(task, state, sums) if task.number else _begun(task, sums)


def _begun(task: Task, sums: Sums) -> State:
    """Return the state after the count of persons, which says how long steps are."""
    persons, left_out = sums["persons"], sums.get("left-out")
    state = State().with_(
        persons=persons.one,
        persons_noise=persons.deviation,
        left_out=np.zeros(0) if left_out is None else [left_out.one, left_out.deviation],
    )
    if persons.one < _LEAST_COUNT * persons.deviation:
        return state.at_end("too-few-rows")
    weights = _first_weights(task)
    noise = _step_noise(task, persons.deviation) / persons.one
    relative = noise * math.sqrt(len(weights) / max(1, task.rounds - 1))
    rate = min(_LONGEST, max(_SHORTEST, _RATE / relative))
    return state.with_(
        weights=weights,
        at=weights,
        velocity=np.zeros(len(weights)),
        averaged=0.0,
        clip=float(task.options["clip"]),
        rate=float(task.options["rate"] or rate),
        momentum=float(task.options["momentum"] or MOMENTUM),
        noise=relative,
    )


def _step_noise(task: Task, of_count: float) -> float:
    """Return the deviation of the noise in a sum of gradients, in clips, by that in the count of persons."""
    first, later = (extents(replace(task, number=number)) for number in range(2))
    bought = first["persons"].share / sum(one.share for one in first.values())
    return of_count * math.sqrt(bought * sum(one.share for one in later.values()) / later["gradient"].share)


def _by_person(task: Task, state: State, sums: Sums) -> State:
    """Return the state after a step against the mean gradient; one at its end if the weights leave the bound."""
    persons, before = state.one("persons"), state["at"]
    slope = sums["gradient"].values / units_of(len(before)) / persons
    velocity = state.one("momentum") * state["velocity"] + slope
    at = before - state.one("rate") * velocity
    if not is_within(at):
        return state.at_end("diverged")
    averaged, weights = state.one("averaged"), at
    if task.number > (task.rounds - 1) // 2:
        averaged += 1.0
        known = state["weights"] if averaged > 1 else at
        weights = known + (at - known) / averaged
    state = state.with_(weights=weights, at=at, velocity=velocity, averaged=averaged)
    return state.with_(clip=_next_clip(task, state, sums)) if task.options["quantile"] else state


def _next_clip(task: Task, state: State, sums: Sums) -> float:
    """Return the clip of the next round: less where more persons than the quantile are within it."""
    most, share = float(task.options["clip"]), (sums["within"].one / state.one("persons") + 1.0) / 2.0
    share = min(1.0, max(0.0, share))
    moved = state.one("clip") * (1.0 - _FOLLOWS * (share - float(task.options["quantile"])))
    return min(most, max(most * _LEAST_CLIP, moved))


def _by_silo(task: Task, state: State, sums: Sums) -> State:
    """Return the state after the algorithm's step along the mean change, of which each silo's counts the same."""
    clip, before = state.one("clip"), state["weights"]
    mean = sums[UPDATE].values * (clip / units_of(len(before))) / float(task.options["silos"])
    more = {name.removeprefix(_SERVER): one for name, one in state.numbers.items() if name.startswith(_SERVER)}
    means = Means({UPDATE: mean}, float(task.options["silos"]), 1.0, task.number)
    held = algorithm_of(task).apply(algorithm_options(task), Held(before, more), means)
    if not all(map(is_within, (held.weights, *held.more.values()))):
        return state.at_end("diverged")
    noise = sums[UPDATE].deviation * (clip / units_of(len(before))) / float(task.options["silos"])
    return _holding(state, held).with_(noise=noise)


def _holding(state: State, held: Held) -> State:
    return state.with_(weights=held.weights, **{_SERVER + name: vector for name, vector in held.more.items()})


def _finish(task: Task, state: State) -> Fitted:
    figures = (*_counts(task, state), figure("weights", float(graph_of(task).count)), *_figures(task, state))
    return Fitted(listings=(), figures=figures, notes=tuple(_notes(task, state)))


def _counts(task: Task, state: State) -> list[Line]:
    return [] if unit_of(task.options) == SILO else counted(state)


def _figures(task: Task, state: State) -> Iterator[Line]:
    if "clip" not in state.numbers:
        return
    yield figure("clip of the last round", state.one("clip"))
    if "rate" in state.numbers:
        yield figure("longest step of a round", state.one("rate"))
        yield figure("relative noise of the run", state.one("noise"))
    elif "noise" in state.numbers:
        yield figure("noise in the mean change of a weight, deviation", state.one("noise"))


def _notes(task: Task, state: State) -> Iterator[str]:
    if state.ended == "diverged":
        yield "stopped: the weights grew without end; the last good model stands; take a smaller rate"
    elif state.ended == "too-few-rows":
        yield "too few persons: their count is not above its noise; ask more silos, or with a larger epsilon"
    yield from protected(task.options)


FAMILY = NoisedFamily(_init, _statistics, _update, _finish, NETWORK.judged)
