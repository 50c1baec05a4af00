"""What a shape of a model family is made of: a task, options and further columns, and what checks them.

`policies.requests.families.SHAPES` has the shapes. All of it follows from a signed request, before a row is read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from policies.networks.packed import Packed
from policies.options import Option as Option
from policies.options import choice_option as choice_option
from policies.options import number_option as number_option
from policies.options import parsed_option as parsed_option
from policies.options import whole_option as whole_option
from policies.options import width_option as width_option
from policies.requests import interactions
from policies.requests.beginning import Begun
from policies.requests.statistic import Extent, exact
from policies.requests.tables import Table, TableColumn

MAX_WIDTH = 400  # numbers of one gradient of an exact family, whose Hessian has about half its square
MOST_PER_ROW = 2**31  # that a row adds to a number of a first round; later rounds bound their own sums
# Of a column: true or false, one of a domain, a number with bounds, many of them in one cell.
Kind = Literal["bool", "text", "number", "array"]


def kind_of(column: TableColumn) -> Kind | None:
    """Return which kind of cells a column has; None for one without bounds and domain."""
    if column.type in ("bool", "array"):
        return column.type
    if column.domain:
        return "text"
    return "number" if column.step is not None else None


def classes_of(column: TableColumn) -> tuple[str, ...]:
    """Return the values of a text without `unknown`, which stands for a missing one too."""
    return tuple(value for value in column.domain if value != column.unknown)


@dataclass(frozen=True, slots=True)
class Task:
    """One round of a family, as its request fixes it: columns, options, and the number of the round from 0."""

    family: str
    table: Table
    number: int
    rounds: int  # planned, at most
    label: str | None
    features: tuple[str, ...]
    parts: Mapping[str, str]  # further columns by what they are, such as "offset"
    options: Mapping[str, str]  # with the defaults of what the request leaves out
    run: bytes = b""  # whose round it is; public, so that all may draw the same choice from it
    graph: Packed | None = None  # of a network of any graph, where its file is here
    begun: Begun | None = None  # the weights of the model that the run begins with, where it names one

    @property
    def label_column(self) -> TableColumn:
        """The column of the label; raises KeyError without one."""
        return self.table.column(self.label or "")

    @property
    def classes(self) -> tuple[str, ...]:
        """The values of a text label: its domain without `unknown`, which stands for a missing one too."""
        return classes_of(self.label_column)

    @property
    def groups(self) -> tuple[str, ...]:
        """The values of a bool or text label, by which rows are grouped."""
        return ("false", "true") if kind_of(self.label_column) == "bool" else self.classes

    @property
    def width(self) -> int:
        """The number of columns of the design: the intercept, one for a number or bool, all but one of a domain.

        With `missing = "indicator"` one more for each feature without a domain: whether its cell is missing. With
        `interactions` one more for each product of two columns. An array has one for each of its numbers.
        """
        columns = [self.table.column(name) for name in self.features]
        plain = 2 if self.options.get("missing") == "indicator" else 1
        pairs = interactions.width_of(self.options.get("interactions", ""), self.table.column)
        arrays = sum(prod(column.shape) for column in columns if column.type == "array")
        others = [column for column in columns if column.type != "array"]
        return 1 + pairs + arrays + sum(len(column.domain) - 1 if column.domain else plain for column in others)


@dataclass(frozen=True, slots=True)
class Part:
    """A further column of a family: its role in the policy, the kinds of its cells, whether it must be named."""

    role: Literal["feature", "label", "audit"]
    kinds: frozenset[Kind]
    is_needed: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """What a family takes, and the length of each block of a round by the block's name."""

    blocks: Callable[[Task], Mapping[str, int]]
    labels: frozenset[Kind]  # the kinds of label that it takes; empty where it has none
    options: Mapping[str, Option] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)
    least_features: int = 1
    takes: frozenset[Kind] = frozenset()  # the kinds of features; empty where it takes any but arrays, see `fits`
    rounds: int | None = None  # of a run at most, where the job names no number; None as the job has it
    # How many numbers of a round a row changes; None where it is all. The declared time of a plan follows from it.
    changed: Callable[[Task], int] | None = None
    check: Callable[[Task], None] = lambda task: None  # raises ValueError where the columns contradict the family
    # Of a row; None where it predicts nothing, and "label" where the kind of the label says what.
    predicts: Literal["class", "number", "order", "label"] | None = None
    # Whether it shows groups of `min_cohort`, where it has that option; by the options of a job.
    has_groups: Callable[[Mapping[str, str]], bool] = lambda options: True
    most_weights: int = MAX_WIDTH
    is_label_needed: bool = True  # whether a label must be named, where it takes any
    # The greatest magnitude of any number of a silo in a round, where the request alone says it; None where rows do.
    most: Callable[[Task], int | None] = lambda task: None
    # Of how many values a run's state is, each of up to five numbers, by the options and the slots of a round.
    held: Callable[[Mapping[str, str], int], int] = lambda options, slots: slots

    # The lengths of what a silo keeps for itself after a round, by its name; it is in no sum.
    owns: Callable[[Task], Mapping[str, int]] = lambda task: {}

    def fits(self, kind: Kind | None) -> bool:
        """Tell whether a column of a kind can be a feature; of none there are neither bounds nor a domain."""
        return kind in self.takes if self.takes or kind == "array" else kind is not None

    def extents(self, task: Task) -> Mapping[str, Extent]:
        """Return the extent of each block of a round without noise, by its name."""
        most, per_row = self.most(task), MOST_PER_ROW if task.number == 0 else 0
        if most is None:
            return {name: exact(length, per_row) for name, length in self.blocks(task).items()}
        return {name: Extent(length, 0, 0, 0, room=most, most=most) for name, length in self.blocks(task).items()}


def any_value(text: str) -> None:
    """Take any text: the family compares it with the label's domain."""


def check_named(column: TableColumn, what: str, positive: str) -> None:
    """Raise ValueError unless a text column has its positive value named, and no other column has one."""
    classes = classes_of(column)
    if kind_of(column) == "text" and positive not in classes:
        values = ", ".join(classes[:20])
        raise ValueError(f"{what} {column.name!r} is text: name its positive value, positive = one of {values}")
    if kind_of(column) != "text" and positive:
        raise ValueError(f"{what} {column.name!r} is a {column.type}, which has no value to name; remove positive")
