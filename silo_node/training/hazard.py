"""The baseline hazard of a Cox model on a public grid of the time, by sums over all silos.

At each bin the events are divided by the relative hazards of all rows that have not ended before it: Breslow's
estimator, which is that of the pooled rows where each time is a bin. A row of mean features has the relative hazard 1.
Within a bin all events come before those who leave. A line has `min_cohort` or more rows that end, and as many or none
are left after it; what is finer is not kept. Breslow, discussion of Cox, J. R. Statist. Soc. B 34 (1972).
"""

from collections.abc import Mapping

import numpy as np

from policies.requests.families import HAZARD_BLOCKS, Task, curve_grid, curve_groups
from policies.requests.survival import number
from silo_node.training.curves import cells_of, counted_in, stretches
from silo_node.training.events import happened
from silo_node.training.family import Examples, Listing, State, line
from silo_node.training.grid import MOST_UNITS, Integers, Vector, reals

DIVIDES = "strata"  # the part whose values have hazards of their own
_LINES = ("hazard_group", "hazard_bin", "hazard_at_risk", "hazard_events", "hazard")
_HEADINGS = ("at risk", "events", "cumulative hazard", "survival")


def is_asked(task: Task) -> bool:
    """Tell whether a job asks for the baseline hazard."""
    return bool(task.options["hazard"])


def contribution(task: Task, examples: Examples, predictors: Vector, bits: int) -> list[Integers] | None:
    """Return the rows with an event, the rows that end and the relative hazards of rows, by group and bin.

    `predictors` are the logarithms of the rows' relative hazards. None where they leave the range of the grid.
    """
    length = len(curve_groups(task)) * curve_grid(task).bins
    with np.errstate(all="ignore"):  # what is not finite is outside
        units = np.rint(np.ldexp(np.exp(predictors), bits))
        if not units.sum() <= MOST_UNITS:
            return None
    cells = cells_of(task, examples, DIVIDES)
    risks = np.zeros(length, np.int64)
    np.add.at(risks, cells, units.astype(np.int64))
    return [counted_in(cells[happened(task, examples)], length), counted_in(cells, length), risks]


def nothing(task: Task) -> list[Integers]:
    """Return the blocks of a silo that adds nothing."""
    return [np.zeros(len(curve_groups(task)) * curve_grid(task).bins, np.int64) for _ in HAZARD_BLOCKS]


def kept(task: Task, state: State, sums: Mapping[str, Integers], bits: int) -> State:
    """Return the state with the lines of the hazard of each group, by the opened sums of a round."""
    shape, least = (len(curve_groups(task)), curve_grid(task).bins), int(task.options["min_cohort"])
    events, ends, risks = (sums[name].reshape(shape) for name in HAZARD_BLOCKS)
    lines: list[tuple[float, ...]] = []
    for place in range(shape[0]):
        own_ends = np.maximum(ends[place], 0).astype(np.float64)
        own_events = np.clip(events[place], 0, own_ends)  # whatever a silo has added
        at_risk, weight = (np.cumsum(one[::-1])[::-1] for one in (own_ends, reals(risks[place], bits)))
        hazard = np.cumsum(np.divide(own_events, weight, out=np.zeros(shape[1]), where=weight > 0))
        for first, last in stretches(own_ends, least):
            found = own_events[first : last + 1].sum()
            lines.append((place, last, float(at_risk[first]), float(found), float(hazard[last])))
    columns = np.array(lines, np.float64).reshape(-1, len(_LINES)).T
    return state.with_(**dict(zip(_LINES, columns, strict=True)))


def listings(task: Task, state: State) -> list[Listing]:
    """Return the cumulative hazard of each group, and who of mean features is left."""
    found, grid, column = list[Listing](), curve_grid(task), task.table.column(task.parts["time"])
    group, bins, *columns = (state[name] for name in _LINES)
    for place, value in enumerate(curve_groups(task)):
        own = group == place
        if not own.any():
            continue
        at_risk, events, hazard = (one[own] for one in columns)
        times = [str(number(grid.ends(column, int(last), int(last))[1])) for last in bins[own]]
        numbers = np.array([at_risk, events, hazard, np.exp(-hazard)]).T.tolist()
        lines = tuple(line(time, each) for time, each in zip(times, numbers, strict=True))
        name = f"baseline hazard of {task.parts[DIVIDES]} = {value}" if DIVIDES in task.parts else "baseline hazard"
        found.append(Listing(name=name[:400], headings=_HEADINGS, lines=lines))
    return found


def notes(task: Task, state: State) -> list[str]:
    """Return what the hazards are of, and how many groups have none."""
    found = ["the baseline hazard is of all silos together, of a row of mean features, by Breslow's estimator"]
    hidden = len(curve_groups(task)) - len(np.unique(state[_LINES[0]]))
    least = task.options["min_cohort"]
    if hidden:
        found.append(
            f"left out of the baseline hazards: {hidden} of {len(curve_groups(task))}, fewer than {least} rows"
        )
    return found
