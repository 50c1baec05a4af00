"""Sums by the groups of a label, of one round: what naive Bayes, t, F and chi-square tests are computed from.

Rows and persons are counted in each group, of some features the moments are summed, and of the others the rows of each
value are counted. All sums are of whole numbers, so they are the same for every split of the rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from policies.requests.families import Kind, Task, kind_of, measured_and_counted, values_of
from silo_node.training import design
from silo_node.training.family import Examples, Family, Fitted, Judged, Line, Listing, State, figure
from silo_node.training.grid import Integers, Vector

_LEAST_GROUPS = 2  # that are shown, or nothing is


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """The moments of one feature in each group, in its own units: arrays of shape (groups,)."""

    rows: Vector  # that have the feature
    mean: Vector
    squares: Vector  # the sum of squared distances from the group's mean


def group_of(task: Task, examples: Examples) -> Integers:
    """Return the place of each row's group among `task.groups`; a row without one is not among the examples."""
    cells, column = examples.cells[task.label or ""], task.label_column
    if kind_of(column) == "bool":
        return np.asarray(cells > 0, np.int64)
    places = np.zeros(len(column.domain), np.int64)
    for place, value in enumerate(task.groups):
        places[column.domain.index(value)] = place
    return places[cells]


def statistics(task: Task, examples: Examples, measured: frozenset[Kind]) -> list[Integers]:
    """Return the blocks of `policies.requests.families.grouped`, in order."""
    group, groups = group_of(task, examples), len(task.groups)
    means, counted = measured_and_counted(task, measured)
    found = [_count(group, groups), _persons(examples, group, groups), np.array([examples.left_out], np.int64)]
    if means:
        order = np.argsort(group, kind="stable")
        ends = np.searchsorted(group[order], np.arange(groups + 1))
        moments = np.array([_moments(task, name, examples, order, ends) for name in means], np.int64)
        found += [moments[:, :, which].T.ravel() for which in range(4)]
    if counted:
        values, persons = zip(*(_values(task, name, examples, group) for name in counted), strict=True)
        found += [np.concatenate(values, 1).ravel(), np.concatenate(persons)]
    return found


def _count(places: Integers, length: int) -> Integers:
    return np.bincount(places, minlength=length).astype(np.int64)


def _persons(examples: Examples, places: Integers, length: int) -> Integers:
    return _count(np.unique(examples.person * length + places) % length, length)


def _moments(task: Task, name: str, examples: Examples, order: Integers, ends: Integers) -> list[list[int]]:
    """Return, of each group, the cells that are there, their sum and their sum of squares in two parts.

    `order` has the rows of one group after those of another, from and to the places in `ends`.
    """
    gap, width = examples.missing.get(name), float(design.span(task.table.column(name))[2])
    units = np.rint(np.ldexp(examples.cells[name][order] / width, design.UNIT_BITS)).astype(np.int64)
    found = []
    for first, end in pairwise(ends):
        own = units[first:end] if gap is None else units[first:end][~gap[order[first:end]]]
        found.append([len(own), int(own.sum()), *design.words(own * own)])
    return found


def _values(task: Task, name: str, examples: Examples, group: Integers) -> tuple[Integers, Integers]:
    """Return the rows of each value in each group, of shape (groups, values), and the persons of each value.

    A missing cell that is skipped is a row of no value.
    """
    column, gap = task.table.column(name), examples.missing.get(name)
    place = examples.cells[name] if column.domain else np.asarray(examples.cells[name] > 0, np.int64)
    is_there = np.ones(len(place), np.bool_) if gap is None else ~gap
    values, groups = len(values_of(column)), len(task.groups)
    table = _count((group * values + place)[is_there], groups * values).reshape(groups, values)
    persons = np.unique((examples.person * values + place)[is_there]) % values
    return table, _count(persons, values)


def gathered(task: Task, sums: Mapping[str, Integers], measured: frozenset[Kind]) -> State:
    """Return the state of a run whose only round has these sums: as a silo keeps it, in units of half the bounds."""
    means, counted = measured_and_counted(task, measured)
    state = State().with_(**{name: sums[name] for name in ("rows", "persons")}, left_out=sums["left-out"])
    if means:
        present, total = sums["present"].tolist(), sums["total"].tolist()
        square = design.joined(sums["square-high"], sums["square-low"])
        unit = 1 << design.UNIT_BITS
        # Exact whole numbers, divided once.
        state = state.with_(
            present=present,
            mean=[own / (count * unit) if count else 0.0 for own, count in zip(total, present, strict=True)],
            squares=[
                max(count * own - first * first, 0) / (count * unit * unit) if count else 0.0
                for own, first, count in zip(square, total, present, strict=True)
            ],
        )
    if counted:
        state = state.with_(values=sums["values"], value_persons=sums["value-persons"])
    return state.at_end("complete" if len(shown_groups(task, state)) >= _LEAST_GROUPS else "too-few-rows")


def cohort_of(task: Task) -> int:
    """Return of how many persons a group must be, or it is not shown."""
    return int(task.options["min_cohort"])


def shown_groups(task: Task, state: State) -> Integers:
    """Return the places of the groups that are shown."""
    return np.flatnonzero(state["persons"] >= cohort_of(task))


def moments_of(task: Task, state: State, measured: frozenset[Kind]) -> dict[str, Moments]:
    """Return the moments of each feature, in its own units."""
    means, _ = measured_and_counted(task, measured)
    found, shape = {}, (len(task.groups), len(means))
    for place, name in enumerate(means):
        middle, half, _ = design.span(task.table.column(name))
        rows, mean, squares = (state[one].reshape(shape)[:, place] for one in ("present", "mean", "squares"))
        found[name] = Moments(rows, middle + half * mean, half * half * squares)
    return found


def tables_of(task: Task, state: State, measured: frozenset[Kind]) -> dict[str, tuple[Vector, Vector]]:
    """Return the rows of each value of a feature in each group, of shape (groups, values), and the persons of each."""
    _, counted = measured_and_counted(task, measured)
    found, first = dict[str, tuple[Vector, Vector]](), 0
    if not counted:
        return found
    whole = state["values"].reshape(len(task.groups), -1)
    for name in counted:
        end = first + len(values_of(task.table.column(name)))
        found[name] = whole[:, first:end], state["value_persons"][first:end]
        first = end
    return found


def figures_of(task: Task, state: State) -> tuple[Line, ...]:
    """Return the rows of the groups that are shown: with those of others, the rows of a small group could be told."""
    rows = float(state["rows"][shown_groups(task, state)].sum())
    return figure("rows", rows), figure("rows left out", state.one("left_out"))


def notes_of(task: Task, state: State) -> list[str]:
    """Return which groups are left out, and why nothing is shown."""
    shown = set(shown_groups(task, state).tolist())
    hidden = [value for place, value in enumerate(task.groups) if place not in shown]
    notes = [f"left out: {task.label} = {value}, fewer than {cohort_of(task)} persons"[:400] for value in hidden]
    if state.ended == "too-few-rows":
        notes.append("too few rows: two groups need as many persons as min_cohort")
    return notes


def family_by_group(
    measured: frozenset[Kind], finish: Callable[[Task, State], Fitted], judged: Judged | None = None
) -> Family:
    """Return a family of one round that sums by group."""

    def update(task: Task, state: State, sums: Mapping[str, Integers]) -> State:
        return state if state.ended is not None else gathered(task, sums, measured)

    def shown(task: Task, state: State) -> Fitted:
        return finish(task, state) if state.ended == "complete" else fitted(task, state, (), ())

    return Family(
        lambda task: State(), lambda task, state, rows: statistics(task, rows, measured), update, shown, judged
    )


def fitted(task: Task, state: State, listings: Sequence[Listing], notes: Sequence[str]) -> Fitted:
    """Return what the owners see."""
    return Fitted(listings=tuple(listings), figures=figures_of(task, state), notes=(*notes_of(task, state), *notes))
