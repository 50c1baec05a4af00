"""The shapes of all exact model families, by their names in a policy: what is known of a round before a row is read.

A family is a program of rounds. Its shape says which columns it takes and how many numbers a silo's part of each round
has; that follows from the request's family, columns, options and round number alone, never from data. Its computation
is in `silo_node/training/families/`. One entry of `SHAPES` adds a family to policies, jobs and requests. Sums of exact
families have no noise, so only a source that its policy declares exact answers. docs/training.md, docs/extending.md.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Literal

from policies.requests import audited, interactions
from policies.requests.hashed import SHAPE as HASHED_LOGISTIC
from policies.requests.networks import NETWORKS
from policies.requests.shapes import MAX_WIDTH as MAX_WIDTH
from policies.requests.shapes import MOST_PER_ROW as MOST_PER_ROW
from policies.requests.shapes import Kind as Kind
from policies.requests.shapes import Option as Option
from policies.requests.shapes import Part as Part
from policies.requests.shapes import Shape as Shape
from policies.requests.shapes import Task as Task
from policies.requests.shapes import (
    any_value,
    check_named,
    parsed_option,
    whole_option,
    width_option,
)
from policies.requests.shapes import choice_option as choice_option
from policies.requests.shapes import kind_of as kind_of
from policies.requests.shapes import number_option as number_option
from policies.requests.survival import Grid, grid_of
from policies.requests.tables import TableColumn

MAX_COUNT = 1_000_000  # a label of Poisson regression
MAX_OFFSET = 30  # in magnitude
MAX_CELLS = 16_384  # of survival curves: bins of all groups
MAX_CLUSTERS = 100
HAZARD_BLOCKS = ("hazard-events", "hazard-ends", "hazard-risks")  # of the baseline hazard of a Cox model
# Families with curves on a grid of the time: the option that is the width of a bin, and what divides the rows.
_CURVES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"kaplan-meier": ("grid", "group"), "cox": ("hazard", "strata")}
)
MAX_NUMBERS = 100_000  # of a round that sums by group


def moments(task: Task, label: int) -> Mapping[str, int]:
    """Return the blocks of a first round: rows, rows left out, and the moments of each column of the design.

    `label` is the number of moments of the label. A square is summed in two parts, so that no bit of it is lost.
    """
    columns = task.width - 1
    parts = dict.fromkeys(("present", "total", "square-high", "square-low"), columns)
    return {"rows": 1, "left-out": 1, **parts, "label": label}


def newton(width: int) -> Mapping[str, int]:
    """Return the blocks of a round of Newton's method: the loss, its gradient and the upper triangle of its Hessian.

    `rows` counts the rows, as consent may change in a run, and `outside` those whose part was too large to be added.
    """
    return {"rows": 1, "loss": 1, "gradient": width, "hessian": width * (width + 1) // 2, "outside": 1}


def _glm(label_moments: int) -> Callable[[Task], Mapping[str, int]]:
    return lambda task: moments(task, label_moments) if task.number == 0 else newton(task.width)


def _logistic(task: Task) -> Mapping[str, int]:
    """Return the blocks of logistic regression; `cells` are the rows by group and label, where rows are reweighed."""
    found = _glm(2)(task)
    if task.number or task.options["weights"] == "none":
        return found
    return {**found, "cells": 2 * len(audited.members_of(task.table.column(task.parts["group"])))}


def _multinomial(task: Task) -> Mapping[str, int]:
    classes = len(task.classes)
    return moments(task, classes) if task.number == 0 else newton(task.width * (classes - 1))


def _cox(task: Task) -> Mapping[str, int]:
    """Return the blocks of a Cox model, which has no intercept; `pairs` are those that tell its concordance.

    With the option `hazard` they have the events, the rows that end and the relative hazards of rows, by group and bin.
    """
    if task.number == 0:
        return moments(task, 2)
    found = {**newton(task.width - 1), "events": 1, "strata": 1, "pairs": 3}
    return found | dict.fromkeys(HAZARD_BLOCKS if task.options["hazard"] else (), _curve_cells(task))


def _cox_changed(task: Task) -> int:
    """Return how many numbers of a round of a Cox model a row changes: of those by group and bin its own alone."""
    rounds = (SHAPES["cox"].blocks(replace(task, number=number)) for number in range(2))
    return max(sum(1 if name in HAZARD_BLOCKS else length for name, length in one.items()) for one in rounds)


def curve_grid(task: Task) -> Grid:
    """Return the bins of the time of a curve; raises ValueError if its option is no width of one."""
    name = _CURVES[task.family][0]
    column, width = task.table.column(task.parts["time"]), task.options[name]
    if not width:
        return grid_of(column, None)
    steps = Decimal(width) / Decimal(column.step or 1)
    if steps % 1:
        raise ValueError(f"{name}: {width} is no multiple of {column.step}, the step of {column.name!r}")
    return grid_of(column, int(steps))


def curve_groups(task: Task) -> Sequence[str]:
    """Return the names of the groups that have curves: of one without a name, where no column divides the rows."""
    name = task.parts.get(_CURVES[task.family][1])
    return ("",) if name is None else task.table.column(name).domain or ("false", "true")


def _curve_cells(task: Task) -> int:
    return len(curve_groups(task)) * curve_grid(task).bins


def _kaplan_meier(task: Task) -> Mapping[str, int]:
    cells = _curve_cells(task)
    return {"rows": 1, "left-out": 1, "events": cells, "ends": cells}


def _check_curves(task: Task) -> None:
    _check_event(task)
    if (cells := _curve_cells(task)) > MAX_CELLS:
        message = f"curves of {cells:,} bins in all groups, at most {MAX_CELLS:,} are computed"
        raise ValueError(f"{message}; name a {_CURVES[task.family][0]}: the width of its bins in units of the time")


def _check_cox(task: Task) -> None:
    _check_event(task)
    if task.options["hazard"]:
        _check_curves(task)


def column_moments(task: Task) -> Mapping[str, int]:
    """Return the blocks of a first round of a family without a label."""
    return {name: length for name, length in moments(task, 0).items() if length}


def _pca(task: Task) -> Mapping[str, int]:
    triangle = task.width * (task.width + 1) // 2
    return column_moments(task) if task.number == 0 else {"rows": 1, "products": triangle, "outside": 1}


def _k_means(task: Task) -> Mapping[str, int]:
    if task.number == 0:
        return column_moments(task)
    clusters = int(task.options["clusters"])
    return {
        "rows": clusters,
        "persons": clusters,
        "total": clusters * (task.width - 1),
        "distance": 1,
        "outside": 1,
    }


def centres_of(task: Task) -> list[list[Decimal]]:
    """Return the centres that a job names, each a number for every column; raises ValueError where they are none."""
    try:
        return [list(map(Decimal, one.replace(",", " ").split())) for one in task.options["centres"].split(";")]
    except InvalidOperation:
        raise ValueError('centres: expected numbers such as "1 20; 3 50", a centre after each semicolon') from None


def _check_centres(task: Task) -> None:
    """Raise ValueError unless a job's centres are as many as its clusters, inside the bounds of every column."""
    if not task.options["centres"]:
        return
    found, clusters, bounds = centres_of(task), int(task.options["clusters"]), list(_bounds(task))
    if [len(one) for one in found] != [len(bounds)] * clusters:
        raise ValueError(
            f"centres: expected {clusters} of {len(bounds)} numbers each, as there are clusters and columns"
        )
    for centre in found:
        for number, (low, high) in zip(centre, bounds, strict=True):
            if not (number.is_finite() and low <= number <= high):
                raise ValueError(f"centres: {number} is outside its column's bounds, {low:f} to {high:f}")


def _bounds(task: Task) -> Iterator[tuple[Decimal, Decimal]]:
    """Yield the bounds of the columns of the design but the intercept, in their own units."""
    for name in task.features:
        column = task.table.column(name)
        grain = Decimal(column.step or 1)
        if column.domain:
            yield from [(Decimal(0), Decimal(1))] * (len(column.domain) - 1)
            continue
        yield (column.low or 0) * grain, (column.high or 0) * grain
        if task.options.get("missing") == "indicator":
            yield Decimal(0), Decimal(1)


def measured_and_counted(task: Task, measured: frozenset[Kind]) -> tuple[list[str], list[str]]:
    """Return the features whose moments are summed by group, which have these kinds, and those that are counted."""
    kinds = {name: kind_of(task.table.column(name)) for name in task.features}
    return [name for name in kinds if kinds[name] in measured], [name for name in kinds if kinds[name] not in measured]


def values_of(column: TableColumn) -> tuple[str, ...]:
    """Return the values of a column that is counted."""
    return tuple(column.domain) or ("false", "true")


def grouped(measured: frozenset[Kind]) -> Callable[[Task], Mapping[str, int]]:
    """Return the blocks of a round by group of the label: rows, persons, moments of features, and counts of values.

    All are there once a group, one after another, but for `value-persons`: the persons of a value in all groups.
    """

    def blocks(task: Task) -> Mapping[str, int]:
        groups, (means, counted) = len(task.groups), measured_and_counted(task, measured)
        values = sum(len(values_of(task.table.column(name))) for name in counted)
        parts = dict.fromkeys(("present", "total", "square-high", "square-low"), groups * len(means))
        found = {"rows": groups, "persons": groups, "left-out": 1, **parts}
        found |= {"values": groups * values, "value-persons": values}
        return {name: length for name, length in found.items() if length}

    return blocks


def audited_by(task: Task) -> list[TableColumn]:
    """Return the columns whose values, or pairs of values, are the groups of an audit."""
    return [task.table.column(task.parts[name]) for name in ("group", "second_group") if name in task.parts]


def _audit(task: Task) -> Mapping[str, int]:
    return audited.blocks(audited_by(task), "truth" in task.parts)


def _check_audit(task: Task) -> None:
    named = {"label": task.label or ""} | {name: task.parts[name] for name in ("truth",) if name in task.parts}
    if len({kind_of(task.table.column(name)) for name in named.values()}) > 1:
        raise ValueError("audit compares decisions and what was true of one kind: two bools, or two texts")
    for what, name in named.items():
        check_named(task.table.column(name), what, task.options["positive"])
    audited.check(audited_by(task))


def _by_group(
    measured: frozenset[Kind],
    check: Callable[[Task], None],
    takes: frozenset[Kind] = frozenset(),
    options: Mapping[str, Option] = MappingProxyType({}),
    predicts: Literal["class"] | None = None,
) -> Shape:
    """Return the shape of a family of one round that sums by group; a row changes those of its own group."""

    def changed(task: Task) -> int:
        means, counted = measured_and_counted(task, measured)
        return 3 + 4 * len(means) + 2 * len(counted)

    return Shape(
        grouped(measured),
        _GROUPS,
        {**_SKIPPED, **options},
        takes=takes,
        rounds=1,
        changed=changed,
        check=check,
        predicts=predicts,
    )


def _check_groups(task: Task) -> None:
    if len(task.groups) < 2:
        raise ValueError(f"label {task.label!r} needs two values beside its unknown, found {len(task.groups)}")
    if (size := sum(SHAPES[task.family].blocks(task).values())) > MAX_NUMBERS:
        raise ValueError(f"{size:,} numbers by group, at most {MAX_NUMBERS:,}; take fewer features or values")


def _check_pair(task: Task) -> None:
    _check_groups(task)
    if len(task.groups) != 2:
        raise ValueError(f"{task.family} compares two groups, label {task.label!r} has {len(task.groups)}; take anova")


def _check_positive(task: Task) -> None:
    check_named(task.label_column, "label", task.options["positive"])


def _check_logistic(task: Task) -> None:
    _check_positive(task)
    if (task.options["weights"] == "none") == ("group" in task.parts):
        raise ValueError('weights = "reweighing" and [columns] group go together: the group whose rows are reweighed')


def _check_event(task: Task) -> None:
    check_named(task.table.column(task.parts["event"]), "event", task.options["positive"])


def _check_classes(task: Task) -> None:
    if len(task.classes) < 2:
        raise ValueError(f"label {task.label!r} needs two values beside its unknown, found {len(task.classes)}")


def _check_counts(task: Task) -> None:
    column = task.label_column
    grain = Decimal(column.step or 1)
    if grain % 1 or not 0 <= (column.low or 0) * grain < (column.high or 0) * grain <= MAX_COUNT:
        raise ValueError(
            f"label {column.name!r} is no count: poisson-regression takes whole numbers from 0 to {MAX_COUNT:,}"
        )
    for name in task.parts.values():
        offset = task.table.column(name)
        if max(abs(offset.low or 0), abs(offset.high or 0)) * Decimal(offset.step or 1) > MAX_OFFSET:
            raise ValueError(
                f"offset {name!r} lies beyond {MAX_OFFSET}: it is a logarithm, such as that of an exposure"
            )


_NUMBER = frozenset[Kind]({"number"})
_COMMON = {"tolerance": number_option("0.000000001", "0.000000000001", "0.01")}
_COMMON |= {"missing": choice_option("drop", "drop", "indicator", "mean")}
_REGRESSION = _COMMON | {
    "interactions": parsed_option(interactions.pairs_of),
    "at": parsed_option(interactions.values_at),
}
_CLASSES = frozenset[Kind]({"bool", "text"})
_TIMES = {"time": Part("label", _NUMBER, is_needed=True), "event": Part("label", _CLASSES, is_needed=True)}
_LINEAR_LABELS = frozenset[Kind]({"number", "bool"})
_COHORT = {"min_cohort": whole_option("10", 2, 100_000)}
_SKIPPED = _COHORT | {"missing": choice_option("drop", "drop", "skip")}
_GROUPS = frozenset[Kind]({"bool", "text"})
# The features of which families by group sum the moments; of all others they count the values.
GAUSSIAN, MEASURES, COUNTED = _NUMBER, frozenset[Kind]({"number", "bool"}), frozenset[Kind]()

SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "linear-regression": Shape(_glm(3), _LINEAR_LABELS, _REGRESSION, predicts="number"),
        "ridge-regression": Shape(
            _glm(3),
            _LINEAR_LABELS,
            _REGRESSION | {"penalty": number_option("1", "0.000000001", "1000000000")},
            predicts="number",
        ),
        "logistic-regression": Shape(
            _logistic,
            _CLASSES,
            _REGRESSION | {"positive": Option("", any_value), "weights": choice_option("none", "none", "reweighing")},
            {"group": Part("audit", _CLASSES)},
            check=_check_logistic,
            predicts="class",
        ),
        "hashed-logistic": HASHED_LOGISTIC,
        "multinomial-regression": Shape(
            _multinomial, frozenset({"text"}), _REGRESSION, check=_check_classes, predicts="class"
        ),
        "poisson-regression": Shape(
            _glm(7),
            _NUMBER,
            _REGRESSION,
            {"offset": Part("feature", _NUMBER)},
            check=_check_counts,
            predicts="number",
        ),
        "cox": Shape(
            _cox,
            frozenset(),
            _REGRESSION
            | _COHORT
            | {
                "hazard": width_option(),
                "positive": Option("", any_value),
                "ties": choice_option("efron", "efron", "breslow"),
            },
            _TIMES | {"strata": Part("feature", _CLASSES)},
            changed=_cox_changed,
            check=_check_cox,
            predicts="order",
            has_groups=lambda options: bool(options.get("hazard")),
        ),
        "kaplan-meier": Shape(
            _kaplan_meier,
            frozenset(),
            {
                "grid": width_option(),
                "min_cohort": whole_option("10", 1, 1_000_000),
                "positive": Option("", any_value),
            },
            _TIMES | {"group": Part("feature", _CLASSES)},
            least_features=0,
            rounds=1,
            check=_check_curves,
        ),
        "pca": Shape(
            _pca,
            frozenset(),
            {
                "missing": _COMMON["missing"],
                "scale": choice_option("none", "none", "deviation"),
                "components": whole_option("10", 1, MAX_WIDTH),
            },
            rounds=4,
        ),
        "k-means": Shape(
            _k_means,
            frozenset(),
            _COMMON
            | _COHORT
            | {
                "clusters": whole_option("8", 1, MAX_CLUSTERS),
                "centres": Option("", any_value),
                "scale": choice_option("bounds", "bounds", "deviation"),
            },
            rounds=100,
            check=_check_centres,
        ),
        "naive-bayes": _by_group(
            GAUSSIAN, _check_groups, options={"smoothing": number_option("1", "0.000000001", "1000")}, predicts="class"
        ),
        "welch-t": _by_group(MEASURES, _check_pair, MEASURES),
        "anova": _by_group(MEASURES, _check_groups, MEASURES),
        "chi-square": _by_group(COUNTED, _check_groups, _GROUPS),
        "audit": Shape(
            _audit,
            _CLASSES,
            _COHORT | {"positive": Option("", any_value)},
            {
                "group": Part("audit", _CLASSES, is_needed=True),
                "second_group": Part("audit", _CLASSES),
                "truth": Part("label", _CLASSES),
            },
            least_features=0,
            rounds=1,
            changed=lambda task: 2,
            check=_check_audit,
        ),
        **NETWORKS,
    }
)


def takers(kind: Kind, shapes: Mapping[str, Shape] = SHAPES) -> str:
    """Return the families that take a kind of label, in words."""
    return " and ".join(name for name, shape in shapes.items() if kind in shape.labels) or "no family"


def check_task(task: Task, shapes: Mapping[str, Shape] = SHAPES) -> None:
    """Raise ValueError if a task's columns or options are not those that its family takes."""
    shape = shapes[task.family]
    _check_label(task, shapes)
    if len(task.features) < shape.least_features:
        raise ValueError(f"{task.family} needs {shape.least_features} or more features, found {len(task.features)}")
    for name in task.features:
        column, kind = task.table.column(name), kind_of(task.table.column(name))
        if kind == "array" and kind not in shape.takes:
            taking = [other for other, one in shapes.items() if kind in one.takes]
            instead = f"take {' or '.join(taking)}, or " if taking else ""
            raise ValueError(f"feature {name!r} is an array, which {task.family} does not take; {instead}remove it")
        if shape.takes and kind not in shape.takes:
            kinds = " or ".join(sorted(shape.takes))
            raise ValueError(
                f"feature {name!r} is {kind or 'without bounds'} ({column.type}), {task.family} takes {kinds}"
            )
    for name, other in task.parts.items():
        part = shape.parts.get(name)
        if part is None:
            raise ValueError(f"{task.family} has no {name}, expected {', '.join(shape.parts) or 'no further column'}")
        if kind_of(task.table.column(other)) not in part.kinds:
            kinds = " or ".join(sorted(part.kinds))
            raise ValueError(f"{name} {other!r} is a {task.table.column(other).type}, expected a {kinds}")
    if missing := [name for name, part in shape.parts.items() if part.is_needed and name not in task.parts]:
        raise ValueError(f"{task.family} needs {missing[0]}: the column that it is in")
    for name, value in task.options.items():
        if name not in shape.options:
            raise ValueError(f"{task.family} has no option {name!r}, expected some of {', '.join(shape.options)}")
        try:
            shape.options[name].check(value)
        except ValueError as err:
            raise ValueError(f"{name}: {err}") from None
    interactions.check(task.options, task.features, task.table.column)
    shape.check(task)
    if task.features and task.width < 2:
        raise ValueError(f"{', '.join(task.features)} of one value each tell nothing; take other features")
    widest = max(shape.blocks(task).get("gradient", 0), task.width)
    if widest > shape.most_weights:
        message = f"the model would have {widest:,} weights, {task.family} has at most {shape.most_weights:,}"
        raise ValueError(f"{message}; take fewer features, or features with fewer values")


def _check_label(task: Task, shapes: Mapping[str, Shape]) -> None:
    shape = shapes[task.family]
    if task.label is None:
        if shape.labels and shape.is_label_needed:
            raise ValueError(f"{task.family} needs a label")
        return
    if not shape.labels:
        needed = " and ".join(name for name, part in shape.parts.items() if part.is_needed)
        instead = f", and name {needed} in [columns]" if needed else ""
        raise ValueError(f"{task.family} has no label; remove {task.label!r}{instead}")
    kind = kind_of(task.label_column)
    if kind is None or kind not in shape.labels:
        has = task.label_column.type if kind is None else f"{kind} ({task.label_column.type})"
        needs = " or ".join(sorted(shape.labels))
        other = "" if kind is None else f"; {kind} labels: {takers(kind, shapes)}"
        raise ValueError(f"label {task.label!r} is {has}, {task.family} takes {needs}{other}")
