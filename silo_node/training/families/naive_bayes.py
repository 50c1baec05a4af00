"""Naive Bayes of a bool or a text: in each class, numbers are normal, and the values of other features are counted.

The counts are smoothed by `smoothing`, as by Laplace; variances are those of the rows. Classes of fewer persons than
`min_cohort` are left out. Hastie, Tibshirani and Friedman, The Elements of Statistical Learning (2009), section 6.6.3.
"""

import numpy as np

from policies.models.bayes import Bayes, Normal, Values, bayes_scores
from policies.models.scores import RowCells
from policies.requests.families import GAUSSIAN, Task, kind_of, values_of
from silo_node.training.family import Examples, Fitted, Judged, Line, Listing, State, known, line
from silo_node.training.grid import Vector
from silo_node.training.grouped import family_by_group, fitted, group_of, moments_of, shown_groups, tables_of


def _finish(task: Task, state: State) -> Fitted:
    shown = shown_groups(task, state)
    classes, rows = [task.groups[place] for place in shown], state["rows"][shown]
    priors = [
        line(value, (share, count, persons))
        for value, share, count, persons in zip(classes, rows / rows.sum(), rows, state["persons"][shown], strict=True)
    ]
    listings, notes = [Listing(name="classes", headings=("share", "rows", "persons"), lines=tuple(priors))], []
    headings = tuple(f"{what}: {value}"[:400] for value in classes for what in ("mean", "deviation"))
    normal = []
    for name, own in moments_of(task, state, GAUSSIAN).items():
        with np.errstate(divide="ignore", invalid="ignore"):
            deviations = np.sqrt(own.squares / own.rows)[shown]
        means = np.where(own.rows > 0, own.mean, np.nan)[shown]
        normal.append(Line(name=name, values=tuple(map(known, np.column_stack([means, deviations]).ravel()))))
        notes += [
            f"{name} is the same in all rows of {value}: leave it out"[:400]
            for value, deviation in zip(classes, deviations, strict=True)
            if deviation == 0
        ]
    if normal:
        listings.append(Listing(name="numbers", headings=headings, lines=tuple(normal)))
    counted = []
    for name, (table, _) in tables_of(task, state, GAUSSIAN).items():
        smoothed = table[shown] + float(task.options["smoothing"])
        shares = smoothed / smoothed.sum(1, keepdims=True)
        for value, own_shares in zip(values_of(task.table.column(name)), shares.T, strict=True):
            counted.append(line(f"{name} = {value}", own_shares))
    if counted:
        heads = tuple(value[:400] for value in classes)
        listings.append(Listing(name="shares of values", headings=heads, lines=tuple(counted)))
    return fitted(task, state, listings, notes)


def form_of(task: Task, state: State) -> Bayes:
    """Return what scores rows: of the classes that are left out no prior."""
    shown, missing = shown_groups(task, state), task.options["missing"]
    counts, smoothing = state["rows"][shown], float(task.options["smoothing"])
    priors = dict(zip(shown.tolist(), np.log(counts / counts.sum()).tolist(), strict=True))
    numbers, values = list[Normal](), list[Values]()
    for name, own in moments_of(task, state, GAUSSIAN).items():
        variance = np.divide(own.squares, own.rows, out=np.zeros_like(own.squares), where=own.rows > 0)
        mean, variance = own.mean[shown], np.maximum(variance[shown], 0.0)
        column = task.table.column(name)
        numbers.append(Normal(column=column, mean=tuple(mean.tolist()), variance=tuple(variance.tolist())))
    for name, (table, _) in tables_of(task, state, GAUSSIAN).items():
        smoothed = table[shown] + smoothing
        logs = np.log(smoothed / smoothed.sum(1, keepdims=True)).tolist()
        values.append(Values(column=task.table.column(name), logs=tuple(map(tuple, logs))))
    return Bayes(
        model=task.family,
        label=task.label or "",
        classes=() if kind_of(task.label_column) == "bool" else task.groups,
        missing="skip" if missing == "skip" else "drop",
        priors=tuple(priors.get(place) for place in range(len(task.groups))),
        numbers=tuple(numbers),
        values=tuple(values),
    )


def _scores(task: Task, state: State, examples: Examples) -> Vector:
    """Return the probability of the label, or of each class: 0 for classes that are left out.

    A missing cell tells nothing, and so does a number of a class without variance.
    """
    return bayes_scores(form_of(task, state), RowCells(examples.cells, examples.missing))


def _outcomes(task: Task, examples: Examples) -> Vector:
    return group_of(task, examples).astype(np.float64)


FAMILY = family_by_group(GAUSSIAN, _finish, Judged(_scores, _outcomes))
