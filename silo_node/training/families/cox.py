"""Cox's proportional hazards by maximum partial likelihood, with ties by Efron or Breslow.

A stratum is a silo, or a value of the column `strata` at a silo: the rows of two silos are never in one risk set, so
each silo's sums are of its own rows. A stratum's sums are rounded to the grid and not each row's, as a risk set is no
sum over rows; so a model is the same to its last bit for every way in which silos have whole strata. Cox, J. R.
Statist. Soc. B 34 (1972); Efron, JASA 72 (1977).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policies.requests.families import Task
from policies.units import counted
from silo_node.training import design, hazard
from silo_node.training.coefficients import LEVEL, Words, fitted, has_model, regression
from silo_node.training.concordance import pairs
from silo_node.training.distributions import chi_square_tail
from silo_node.training.events import happened
from silo_node.training.family import Bools, Examples, Family, Fitted, Judged, Line, Listing, State, figure, known
from silo_node.training.glm import standing, weight_names
from silo_node.training.grid import MOST_UNITS, Integers, Vector, bits_for
from silo_node.training.newton import Problem, begun, stepped

WORDS = Words(
    "tells who has the event first, so its weight would grow without end",
    "too few events: a model needs more events than weights, in strata where features differ",
)
_LEAST_VARIANCE = 2.0**-16  # inside the risk sets, of a column's variance, or it is dropped
_FEW_EVENTS = 10  # for each weight, below which intervals are rough: Peduzzi et al., J. Clin. Epidemiol. 48 (1995)
_MIXERS = np.uint64(0x9E3779B97F4A7C15)  # odd, so that cells of different columns do not cancel


def strata(task: Task, examples: Examples) -> list[Integers]:
    """Return the rows of each stratum that the silo has, in order of time; of one time those with an event first.

    Rows of one time and kind are in an order of what they contain, so that no order of the rows changes a sum.
    """
    if not examples.rows:
        return []
    name = task.parts.get("strata")
    own = np.zeros(examples.rows, np.int64) if name is None else examples.cells[name]
    order = np.lexsort((_contents(task, examples), ~happened(task, examples), examples.cells[task.parts["time"]], own))
    return np.split(order, np.flatnonzero(np.diff(own[order])) + 1)


def _contents(task: Task, examples: Examples) -> npt.NDArray[np.uint64]:
    """Return a number of each row that is the same for rows of the same features."""
    found, factor = np.zeros(examples.rows, np.uint64), _MIXERS
    for name in task.features:
        for cells in (examples.cells[name], examples.missing.get(name)):
            if cells is not None:
                found += cells.astype(np.int64).view(np.uint64) * factor
            factor = np.uint64(int(factor) * int(_MIXERS) % 2**64)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class RiskSets:
    """The events of one stratum and who is at risk at each: rows in the order of `strata`, of shape (rows,)."""

    is_event: Bools
    starts: Integers  # the first row of each different time
    group: Integers  # which of them each row has
    event: Integers  # and each event: shape (events,), and so below
    share: Vector  # of those who have the event at the same time, how many have gone before (Efron); else 0

    def left(self, values: Vector) -> Vector:
        """Return the sum of the values of the rows at risk at each event; of shape (events,)."""
        at_risk = np.cumsum(values[::-1])[::-1][self.starts]
        going = np.add.reduceat(np.where(self.is_event, values, 0.0), self.starts)
        return np.asarray(at_risk[self.event] - self.share * going[self.event])

    def hazard(self, inverse: Vector) -> Vector:
        """Return what each row has been exposed to until its own time, of shape (rows,), by 1 / total of each event."""
        groups = len(self.starts)
        found = np.cumsum(np.bincount(self.event, inverse, groups).astype(np.float64))[self.group]
        own = np.bincount(self.event, self.share * inverse, groups)
        return np.asarray(found - np.where(self.is_event, own[self.group], 0.0))


def risk_sets(times: Integers, is_event: Bools, is_efron: bool) -> RiskSets:
    """Return the risk sets of rows in order of time."""
    starts = np.flatnonzero(np.r_[True, times[1:] != times[:-1]])
    events = np.add.reduceat(is_event.astype(np.int64), starts)
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(times)]))
    event = np.repeat(np.arange(len(starts)), events)
    before = np.arange(len(event)) - (np.cumsum(events) - events)[event]
    share = before / events[event] if is_efron else np.zeros(len(event))
    return RiskSets(is_event, starts, group, event, share)


def _derivatives(columns: Vector, weights: Vector, risk: RiskSets) -> tuple[Vector, Vector]:
    """Return the loss, its gradient and the upper triangle of its Hessian in one vector, and the rows' predictors.

    `columns` has the shape (width, rows). The Hessian is a sum over rows less one over events: products of columns by
    what the row was exposed to, less products of the means at each event.
    """
    predictor = np.zeros(columns.shape[1])
    for column, weight in zip(columns, weights, strict=True):
        predictor += column * weight
    scaled = predictor - predictor.max()
    size = np.exp(scaled)
    whole = risk.left(size)
    inverse = 1.0 / whole
    exposed = size * risk.hazard(inverse)
    loss = np.log(whole).sum() - scaled[risk.is_event].sum()
    residual = exposed - risk.is_event
    slope = [(column * residual).sum() for column in columns]
    means = np.array([risk.left(size * column) * inverse for column in columns])
    triangle = [
        (columns[place:] * (columns[place] * exposed)).sum(1) - (means[place:] * means[place]).sum(1)
        for place in range(len(columns))
    ]
    return np.concatenate([[loss], slope, *triangle]), predictor


def _statistics(task: Task, state: State, examples: Examples) -> list[Integers]:
    own = strata(task, examples)
    is_event = happened(task, examples)
    if task.number == 0:
        return design.moments(task, examples, np.array([int(is_event.sum()), len(own)], np.int64))
    width, bits, weights = task.width - 1, int(state.one("bits")), state["weights"][1:]
    terms = design.terms(task)
    total, told, outside = np.zeros(1 + width + width * (width + 1) // 2, np.int64), np.zeros(3, np.int64), 0
    for rows in own:
        if not is_event[rows].any():
            continue  # nothing is compared in it
        part = _part(task, examples, rows)
        columns = design.matrix(terms, state, part, slice(0, part.rows), np.empty((task.width, part.rows)))[1:]
        times = part.cells[task.parts["time"]]
        with np.errstate(all="ignore"):  # what is not finite is outside
            risk = risk_sets(times, is_event[rows], task.options["ties"] == "efron")
            numbers, predictor = _derivatives(columns, weights, risk)
            units = np.rint(np.ldexp(numbers, bits))
        if not (np.abs(units) <= MOST_UNITS).all():
            outside += len(rows)
            continue
        total += units.astype(np.int64)
        told += pairs(times, is_event[rows], predictor)
    if not outside and np.abs(total).max() > MOST_UNITS:
        outside = examples.rows
    by_bin = list[Integers]()
    if hazard.is_asked(task):
        predictors = _predictors(task, state, examples, weights)
        of_rows = None if outside else hazard.contribution(task, examples, predictors, bits)
        outside = examples.rows if of_rows is None else outside
        by_bin = hazard.nothing(task) if of_rows is None else of_rows
    if outside:
        total[:], told[:] = 0, 0
    counts = [np.array([one], np.int64) for one in (examples.rows, outside, int(is_event.sum()), len(own))]
    return [counts[0], total[:1], total[1 : 1 + width], total[1 + width :], *counts[1:], told, *by_bin]


def _part(task: Task, examples: Examples, rows: Integers) -> Examples:
    """Return some rows, with the columns that the model is made of."""
    cells = {name: examples.cells[name][rows] for name in (*task.features, task.parts["time"])}
    return Examples(examples.person[rows], cells, {name: gap[rows] for name, gap in examples.missing.items()})


def _update(task: Task, state: State, sums: Mapping[str, Integers]) -> State:
    if state.ended is not None:
        return state
    if task.number == 0:
        return _begun(task, sums)
    with np.errstate(all="ignore"):  # what is not finite ends the run
        return _stepped(task, state, sums)


def _begun(task: Task, sums: Mapping[str, Integers]) -> State:
    state = design.standardised(State(), dict(sums))
    events, count = map(int, sums["label"])
    state = state.with_(events=float(events), strata=float(count))
    rows = int(state.one("rows"))
    if rows < 2 or not events:
        return state.at_end("too-few-rows")
    return begun(state, np.zeros(task.width), bits_for(rows, task.width))


def _stepped(task: Task, state: State, sums: Mapping[str, Integers]) -> State:
    """Return the state after a round. The intercept's weight is 0: the hazard over time is in its place."""
    events, taken = float(sums["events"][0]), state.one("taken")
    state = state.with_(events=events, strata=float(sums["strata"][0]))
    width, bits = task.width - 1, int(state.one("bits"))
    dropped = design.constants(task, state)
    dropped[0] = True
    if not taken and not sums["outside"][0]:
        triangle = np.ldexp(sums["hessian"].astype(np.float64), -bits)
        corners = np.cumsum(np.r_[0, np.arange(width, 1, -1)])
        flat = np.r_[False, triangle[corners] <= _LEAST_VARIANCE * events]
        state = state.with_(flat=flat & ~dropped)
        dropped |= flat
        if dropped.all():
            return state.at_end("too-few-rows")
    problem = Problem(
        weight_names(task), dropped, can_run_away=True, has_intercept=False, roundings=state.one("strata")
    )
    padded = {"gradient": np.r_[0, sums["gradient"]], "hessian": np.r_[np.zeros(task.width, int), sums["hessian"]]}
    after = stepped(state, task, problem, {**sums, **padded})
    if after.one("taken") > taken:
        after = after.with_(pairs=sums["pairs"])
        if hazard.is_asked(task):
            after = hazard.kept(task, after, sums, bits)
        # Rows of a stratum are compared with each other, so it has one comparison fewer than rows.
        if not taken and min(events, state.one("rows") - state.one("strata")) <= after["kept"].sum():
            return after.at_end("too-few-rows")
    return after


def _finish(task: Task, state: State) -> Fitted:
    if not has_model(state):
        return fitted(task, state, (), (), WORDS)
    listings = regression(task, state, weight_names(task))
    weights, events = float(state["kept"].sum()), state.one("events")
    told, wrong, tied = state["pairs"]
    figures = [figure("events", events), figure("strata", state.one("strata"))]
    figures.append(figure("log partial likelihood", -state.one("loss")))
    if "changed" not in state.numbers:
        ratio = 2 * (state.one("first_loss") - state.one("loss"))
        figures += [
            figure("log partial likelihood without features", -state.one("first_loss")),
            figure("likelihood-ratio chi-square", ratio),
            figure("degrees of freedom", weights),
            figure("p of the likelihood ratio", chi_square_tail(ratio, weights)),
        ]
    if told + wrong + tied:
        figures.append(figure("concordance", float((told + tied / 2) / (told + wrong + tied))))
    more = [] if events >= _FEW_EVENTS * weights else [_few(events, weights)]
    curves = list[Listing]()
    if hazard.is_asked(task):
        curves, more = hazard.listings(task, state), [*more, *hazard.notes(task, state)]
    return fitted(task, state, (*listings, _ratios(listings[0]), *curves), figures, WORDS, more)


def _few(events: float, weights: float) -> str:
    told = f"{events:.0f} for {counted(weights, 'weight')}"
    return f"few events: {told}; below {_FEW_EVENTS} for each weight intervals are rough"


def _ratios(listing: Listing) -> Listing:
    """Return the hazard ratios of coefficients, with their intervals."""
    lines = []
    for line in listing.lines:
        numbers = (line.values[place] for place in (0, 4, 5))
        lines.append(Line(name=line.name, values=tuple(known(_exponential(one)) for one in numbers)))
    tail = f"{(1 - LEVEL) * 50:g} %", f"{(1 + LEVEL) * 50:g} %"
    return Listing(name="hazard ratios", headings=("hazard ratio", *tail), lines=tuple(lines))


def _exponential(value: float | None) -> float:
    try:
        return math.nan if value is None else math.exp(value)
    except OverflowError:
        return math.inf


def _scores(task: Task, state: State, examples: Examples) -> Vector:
    """Return the log of each row's hazard relative to a row of mean features."""
    return _predictors(task, state, examples, standing(state)[1:])


def _predictors(task: Task, state: State, examples: Examples, weights: Vector) -> Vector:
    """Return the rows' standardised features times the weights, added in one order, of shape (rows,)."""
    columns = design.terms(task)
    room, found = np.empty((task.width, design.BLOCK_ROWS)), np.zeros(examples.rows)
    for rows in design.blocks_of(examples):
        block = design.matrix(columns, state, examples, rows, room)[1:]
        for column, weight in zip(block, weights, strict=True):  # one order, whatever the block is
            found[rows] += column * weight
    return found


def _outcomes(task: Task, examples: Examples) -> Vector:
    return happened(task, examples).astype(np.float64)


FAMILY = Family(lambda task: State(), _statistics, _update, _finish, Judged(_scores, _outcomes))
