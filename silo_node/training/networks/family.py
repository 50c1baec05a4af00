"""Networks as exact families: a silo trains for itself from the weights of all, and the silos sum their changes.

`update` is numpy's, number by number, so that all silos have the same weights to the last bit. torch is imported where
a silo trains or scores, and nowhere before. McMahan et al., AISTATS 2017. docs/networks.md.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from policies.networks.algorithms.algorithm import Held, Sums
from policies.requests.families import Task
from policies.requests.networks import (
    EXPLODED,
    LOSS_BITS,
    algorithm_of,
    algorithm_options,
    blocks,
    guess_of,
    is_for_own,
    shared_of,
)
from silo_node.training.family import (
    Contribution,
    Examples,
    Family,
    Fitted,
    Judged,
    Keeping,
    Line,
    Listing,
    Own,
    State,
    figure,
    line,
)
from silo_node.training.grid import Integers, Vector
from silo_node.training.networks import owning, travelling
from silo_node.training.networks.first import first_weights
from silo_node.training.networks.inputs import outcomes_of

_SERVER = "server_"  # before the names of an algorithm's own vectors in a state
_SHOWN_ROUNDS = 1000  # of a run's losses, the last ones


def _statistics(task: Task, state: State, examples: Examples) -> list[Integers]:
    return list(_contribution(task, state, examples, Own()).blocks)


def _contribution(task: Task, state: State, examples: Examples, own: Own) -> Contribution:
    if task.number == 0:
        return Contribution([np.array([count], np.int64) for count in (examples.rows, examples.left_out)])
    lengths = blocks(task)
    nothing = {name: np.zeros(length, np.int64) for name, length in lengths.items()}
    if state.ended is not None or not examples.rows:
        return Contribution(list(nothing.values()), owning.unmoved(task, state, own))
    from silo_node.training.networks.round import change_of  # torch is heavy: only where a silo really trains

    share = examples.rows / state.one("rows")
    beside = owning.beside(task, state, own, share)
    found = change_of(task, state["weights"], examples, beside)
    parts = {} if found is None else {name: one * share for name, one in owning.summed(task, found, beside).items()}
    units = None if found is None else travelling.sent(task, state, parts)
    if found is None or units is None:
        refused = nothing | travelling.counted(task, {"outside": 1})
        return Contribution(list(refused.values()), owning.unmoved(task, state, own))
    loss = round(math.ldexp(found.loss, LOSS_BITS))
    counts = {"rows": examples.rows, "loss": loss, "outside": 0, "lost": int(beside.is_lost)}
    made = travelling.counted(task, counts) | units
    moved = {name: travelling.real(task, state, name, units[name]) for name in parts}
    return Contribution([made[name] for name in lengths], owning.kept(found, beside, moved))


def _update(task: Task, state: State, sums: Mapping[str, Integers]) -> State:
    if state.ended is not None:
        return state
    return _moved(task, state, sums) if task.number else _begun(task, sums)


def _begun(task: Task, sums: Mapping[str, Integers]) -> State:
    state = State().with_(rows=sums["rows"], left_out=sums["left-out"])
    if state.one("rows") < 2:
        return state.at_end("too-few-rows")
    weights = first_weights(task, shared_of(task)) if task.begun is None else task.begun.weights
    held = algorithm_of(task).init(algorithm_options(task), weights)
    return _holding(state.with_(good=held.weights, losses=np.zeros(0)), held)


def _holding(state: State, held: Held) -> State:
    return state.with_(weights=held.weights, **{_SERVER + name: vector for name, vector in held.more.items()})


def _moved(task: Task, state: State, sums: Mapping[str, Integers]) -> State:
    """Return the state after the changes of a round; where training diverged the last good weights stand."""
    counts, of_run = travelling.opened_counts(task, sums), state.one("rows")
    rows = float(counts["rows"])
    if refused := counts["outside"]:
        return state.with_(weights=state["good"], outside=float(refused)).at_end("diverged")
    if not rows:
        return state
    loss = math.ldexp(counts["loss"], -LOSS_BITS) / rows
    losses = np.append(state["losses"], loss)
    state = state.with_(losses=losses)
    if loss > EXPLODED * max(float(losses[0]), guess_of(task)):
        return state.with_(weights=state["good"]).at_end("diverged")
    more = {name.removeprefix(_SERVER): one for name, one in state.numbers.items() if name.startswith(_SERVER)}
    if is_for_own(task):
        return state.with_(good=state["weights"])
    algorithm = algorithm_of(task)
    means = {name: travelling.real(task, state, name, sums[name]) * (of_run / rows) for name in algorithm.sums}
    held = Held(state["weights"], more)
    with np.errstate(all="ignore"):
        lost = counts.get("lost", 0)
        opened = Sums(means, rows, rows / of_run, task.number - 1, lost)
        after = algorithm.apply(algorithm_options(task), held, opened)
    if not all(np.isfinite(one).all() for one in (after.weights, *after.more.values())):
        return state.at_end("diverged")
    if lost:
        state = state.with_(**{owning.RESTARTED: task.number})
    state = travelling.with_reaches(task, state, sums)
    return _holding(state.with_(good=state["weights"]), after)


def _finish(task: Task, state: State) -> Fitted:
    return Fitted(
        listings=tuple(_listings(state)), figures=tuple(_figures(task, state)), notes=tuple(_notes(task, state))
    )


def _listings(state: State) -> Iterator[Listing]:
    losses = state.numbers.get("losses", np.zeros(0))
    if len(losses):
        first = max(0, len(losses) - _SHOWN_ROUNDS)
        lines = (line(f"round {first + place + 1}", (loss,)) for place, loss in enumerate(losses[first:].tolist()))
        yield Listing(name="loss of a row before each round", headings=("loss",), lines=tuple(lines))


def _figures(task: Task, state: State) -> Iterator[Line]:
    names = {"rows": "rows", "left_out": "rows left out", "outside": "silos that refused their part of a round"}
    yield from (figure(shown, state.one(name)) for name, shown in names.items() if name in state.numbers)
    if "weights" in state.numbers:
        yield figure("weights", float(len(state["weights"])))
    if len(state.numbers.get("losses", ())):
        yield figure("loss of a row before the last round", float(state["losses"][-1]))
        yield figure("loss of a guess", guess_of(task))


def _notes(task: Task, state: State) -> Iterator[str]:
    if state.ended == "too-few-rows":
        yield "too few rows: a model needs two"
    elif state.ended == "diverged" and "outside" in state.numbers:
        yield (
            "stopped: a silo's training left its bounds, and its part was not sent; the last good weights stand; "
            "take a smaller rate, or a larger most_change"
        )
    elif state.ended == "diverged":
        yield "stopped: the loss exploded; the last good weights stand; take a smaller rate"


def _scores(task: Task, state: State, examples: Examples) -> Vector:
    return _own_scores(task, state, examples, Own())


def _own_scores(task: Task, state: State, examples: Examples, own: Own) -> Vector:
    from silo_node.training.networks.round import scores_of

    losses = state.numbers.get("losses", np.zeros(0))  # with noise none is opened
    return scores_of(task, state["weights"], losses, examples, own.vectors)


NETWORK = Family(
    lambda task: State(),
    _statistics,
    _update,
    _finish,
    Judged(_scores, outcomes_of),
    Keeping(_contribution, _own_scores),
)
