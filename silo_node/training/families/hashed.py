"""Logistic regression over hashed features, by exact sums of long vectors.

The first round sums the *reach* of each weight: the magnitudes of the values that meet it, over all rows. No silo's
part of a gradient exceeds it, and with the number of values in a row it bounds the curvature: by Cauchy and Schwarz the
Hessian is below the diagonal of a quarter of the reach times that number. A step by this diagonal never raises the
loss, so nobody must choose a rate (Boehning and Lindsay, 1988); Nesterov's momentum makes it quick, and starts anew
where it points uphill (O'Donoghue and Candes, 2015). `update` uses no function that differs between machines but one
logarithm, which is rounded: additions, products, quotients and roots of doubles, number by number, so that silos agree
to the last bit.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from policies.requests.families import Task
from policies.requests.hashed import (
    LOSS_BITS,
    MOST_REACH,
    REACH_UNITS,
    blocks,
    levels,
    limbs,
    most,
    summed,
    value_bits,
    values_in_row,
    weights_of,
)
from silo_node.training import few_bits
from silo_node.training.families.logistic import labels_of, share_of
from silo_node.training.family import Examples, Family, Fitted, Judged, Line, State, figure
from silo_node.training.glm import standing
from silo_node.training.grid import Integers, Vector, reals
from silo_node.training.hashing import Hashed, blocks_of, hashed

UNIT_BITS = 24  # of the grid on which the rows' parts of a gradient are added
_START_BITS = 20  # of the intercept that a run begins with: coarser than two machines' logarithms differ by
_SUM_BITS = 36  # of a sum whose order must not matter
_WORSE = 2.0  # times the first loss: beyond that a run has diverged


def odds_of(rows: Hashed, weights: Vector) -> Vector:
    """Return the log-odds of rows, of shape (rows,)."""
    found = np.zeros(rows.places.shape[1])
    for places, values in zip(rows.places, rows.values, strict=True):
        found += weights[places] * values
    return found


def _statistics(task: Task, state: State, examples: Examples) -> list[Integers]:
    return _gradient(task, state, examples) if task.number else _reach(task, examples)


def _counted(task: Task, count: int) -> Integers:
    return few_bits.in_limbs(count, most(task), limbs(most(task)))


def _reach(task: Task, examples: Examples) -> list[Integers]:
    """Return the blocks of the first round; a reach beyond `MOST_REACH` is cut."""
    reach, positive = np.zeros(weights_of(task), np.int64), int(labels_of(task, examples).sum())
    for rows in blocks_of(examples):
        found = hashed(task, examples, rows)
        np.add.at(reach, found.places, np.ceil(np.abs(found.values) * REACH_UNITS).astype(np.int64))
    counts = [_counted(task, count) for count in (examples.rows, examples.left_out, positive)]
    return [*counts, np.minimum(reach, MOST_REACH)]


def _gradient(task: Task, state: State, examples: Examples) -> list[Integers]:
    """Return the loss and its gradient over the rows, without the penalty, at the state's weights."""
    weights, label = state["weights"], labels_of(task, examples)
    total, loss = np.zeros(len(weights), np.int64), 0
    for rows in blocks_of(examples):
        found, own = hashed(task, examples, rows), label[rows]
        odds = odds_of(found, weights)
        losses = np.maximum(odds, 0.0) - odds * own + np.log1p(np.exp(-np.abs(odds)))
        loss += int(np.rint(np.ldexp(losses, LOSS_BITS)).astype(np.int64).sum())
        slope = np.ldexp(share_of(odds) - own, UNIT_BITS)
        # Each row's part is rounded before it is added, so that no order and no split of rows changes a sum.
        np.add.at(total, found.places, np.rint(found.values * slope).astype(np.int64))
    counts = [_counted(task, examples.rows), _counted(task, loss)]
    own_places = _places(task)
    units, bits = total if own_places is None else total[own_places], value_bits(task)
    if bits is None:
        return [*counts, units]
    reach = state["reach"] if own_places is None else state["reach"][own_places]
    few_bits.round_freshly(units, UNIT_BITS, reach, levels(bits))
    return [*counts, units]


def _places(task: Task) -> Integers | None:
    """Return the places of the weights that a round moves; None: all."""
    count = summed(task)
    if count == weights_of(task):
        return None
    return few_bits.coordinates(task.run, task.number - 1, weights_of(task), count)


def _update(task: Task, state: State, sums: Mapping[str, Integers]) -> State:
    if state.ended is not None:
        return state
    counts = {
        name: few_bits.joined(sums[name], most(task)) for name in blocks(task) if name not in ("reach", "gradient")
    }
    return _moved(task, state, sums["gradient"], counts) if task.number else _begun(task, sums["reach"], counts)


def _begun(task: Task, reach: Integers, counts: Mapping[str, int]) -> State:
    rows, positive = counts["rows"], counts["positive"]
    weights = np.zeros(weights_of(task))
    state = State().with_(
        rows=rows, left_out=counts["left-out"], positive=positive, reach=reach / REACH_UNITS, momentum=1.0
    )
    if rows < 2:
        return state.at_end("too-few-rows")
    if not 0 < positive < rows:
        return state.at_end("no-maximum", f"{task.label}, which is the same in all rows,")
    start = math.log(positive / (rows - positive))
    weights[0] = round(math.ldexp(start, _START_BITS)) / 2**_START_BITS
    return state.with_(weights=weights, accepted=weights, loss=np.zeros(0), first_loss=np.zeros(0))


def _moved(task: Task, state: State, gradient: Integers, counts: Mapping[str, int]) -> State:
    """Return the state after a step against the gradient, over the bound of the curvature."""
    loss, rows = math.ldexp(counts["loss"], -LOSS_BITS), counts["rows"]
    first = state["first_loss"] if len(state["first_loss"]) else np.array([loss / max(1, rows)])
    state = state.with_(loss=loss, first_loss=first)
    if loss > _WORSE * float(first[0]) * rows:
        return state.at_end("diverged")
    places = _places(task)
    at, accepted, reach = (
        state[name] if places is None else state[name][places] for name in ("weights", "accepted", "reach")
    )
    ridge = np.full(len(at), float(task.options["ridge"]))
    ridge[0] = 0.0  # place 0 is always among those of a round, and first
    bits = value_bits(task)
    slope = reals(gradient, UNIT_BITS) if bits is None else few_bits.real(gradient, reach, levels(bits))
    slope = slope + ridge * at
    bound = reach * (values_in_row(task) / (4.0 * float(task.options["step"]))) + ridge
    moved = at - np.divide(slope, bound, out=np.zeros(len(at)), where=bound > 0)
    gain = bound * (moved - at) * (moved - at)
    is_over = places is None and ordered_sum(gain) <= float(task.options["tolerance"]) * rows
    if places is not None:
        weights = state["accepted"].copy()
        weights[places] = moved
        return state.with_(weights=weights, accepted=weights)
    # Uphill: the step goes against where the momentum went.
    momentum = 1.0 if ordered_sum((at - moved) * (moved - accepted)) > 0 else state.one("momentum")
    following = (1.0 + math.sqrt(1.0 + 4.0 * momentum * momentum)) / 2.0
    ahead = moved + ((momentum - 1.0) / following) * (moved - accepted)
    state = state.with_(weights=ahead, accepted=moved, momentum=following)
    return state.at_end("complete") if is_over else state


def ordered_sum(parts: Vector) -> float:
    """Return a sum that no order of additions changes, and so no machine: of parts that are rounded to a grid."""
    largest = float(np.abs(parts).max(initial=0.0))
    if not 0.0 < largest < math.inf:
        return largest
    exponent = _SUM_BITS - math.frexp(largest)[1]
    return math.ldexp(int(np.rint(np.ldexp(parts, exponent)).astype(np.int64).sum()), -exponent)


def _finish(task: Task, state: State) -> Fitted:
    return Fitted(listings=(), figures=tuple(_figures(task, state)), notes=tuple(_notes(task, state)))


def _figures(task: Task, state: State) -> Iterator[Line]:
    names = {"rows": "rows", "left_out": "rows left out", "positive": "rows with the positive value"}
    yield from (figure(shown, state.one(name)) for name, shown in names.items() if name in state.numbers)
    yield figure("weights", float(weights_of(task)))
    if "reach" in state.numbers:
        yield figure("weights that a row meets", float(np.count_nonzero(state["reach"])))
    if len(state.numbers.get("loss", ())):
        rows, positive = state.one("rows"), state.one("positive")
        null = positive * math.log(positive / rows) + (rows - positive) * math.log(1 - positive / rows)
        yield figure("log-likelihood before the last step", -state.one("loss"))
        yield figure("log-likelihood without features", null)


def _notes(task: Task, state: State) -> Iterator[str]:
    match state.ended:
        case "no-maximum":
            yield f"no maximum: {state.why} tells nothing"[:400]
        case "too-few-rows":
            yield "too few rows: a model needs two"
        case "diverged":
            yield "stopped: the loss grew; the last good model stands; take a smaller options.step"
        case None if summed(task) < weights_of(task):
            yield "each round moved a part of the weights; more rounds may come nearer to the maximum"
        case None:
            yield "not at its end: the step is still above the tolerance; ask for more rounds"
    if "reach" in state.numbers and (state["reach"] >= MOST_REACH / REACH_UNITS).any():
        yield "some weights are met by so many values that a silo cut their number; their steps may be too long"


def _scores(task: Task, state: State, examples: Examples) -> Vector:
    found, weights = np.zeros(examples.rows), standing(state)
    for rows in blocks_of(examples):
        found[rows] = share_of(odds_of(hashed(task, examples, rows), weights))
    return found


FAMILY = Family(lambda task: State(), _statistics, _update, _finish, Judged(_scores, labels_of))
