"""What the shapes of all families with noise are made of: counts of persons, and options that may be left out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from policies.requests.shapes import Option, Shape, Task, number_option
from policies.requests.statistic import Extent, noised

OF_PERSONS, OF_LEFT_OUT = 5, 1  # shares of the price of a first round


@dataclass(frozen=True, slots=True)
class NoisedShape:
    """What a family takes, and the extent of each block of a round, by its name."""

    shape: Shape
    extents: Callable[[Task], Mapping[str, Extent]]


def can_lack_cells(task: Task) -> bool:
    """Tell whether a row may lack a cell of the task, so that rows may be left out."""
    labels = () if task.label is None else (task.label_column,)
    if any(label.domain and label.unknown is not None for label in labels):
        return True
    used = (*task.features, *task.parts.values(), *(label.name for label in labels))
    return any(task.table.column(name).can_be_missing for name in used)


def counts_of(task: Task) -> dict[str, Extent]:
    """Return the extents of the count of persons, and of those with a row that is left out, if there can be any."""
    found = {"persons": noised(1, 1, OF_PERSONS)}
    if can_lack_cells(task):
        found["left-out"] = noised(1, 1, OF_LEFT_OUT)
    return found


def stated(low: str, high: str) -> Option:
    """Return an option that is a number, or left out: then it follows from what is public of the run."""
    number = number_option("", low, high)
    return Option("", lambda text: number.check(text) if text else None)


def lengths(extents: Callable[[Task], Mapping[str, Extent]]) -> Callable[[Task], Mapping[str, int]]:
    """Return the lengths of the blocks of a round, by what returns their extents."""
    return lambda task: {name: extent.length for name, extent in extents(task).items()}
