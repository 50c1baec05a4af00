"""Naive Bayes of a bool or a text: in each class, numbers are normal, and the values of other features are counted.

The counts are smoothed by `smoothing`, as by Laplace; variances are those of the rows. Classes of fewer persons than
`min_cohort` are left out. Hastie, Tibshirani and Friedman, The Elements of Statistical Learning (2009), section 6.6.3.
"""

import numpy as np

from policies.requests.families import GAUSSIAN, Task, kind_of, values_of
from silo_node.training import design
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


def _scores(task: Task, state: State, examples: Examples) -> Vector:
    """Return the probability of the label, or of each class: 0 for classes that are left out.

    A missing cell tells nothing, and so does a number of a class without variance.
    """
    shown = shown_groups(task, state)
    counts = state["rows"][shown]
    likelihood = np.tile(np.log(counts / counts.sum())[:, None], examples.rows)
    for name, own in moments_of(task, state, GAUSSIAN).items():
        middle, half, width = design.span(task.table.column(name))
        values, gap = middle + half * (examples.cells[name] / float(width)), examples.missing.get(name)
        for place, group in enumerate(shown):
            variance = own.squares[group] / own.rows[group] if own.rows[group] else 0.0
            if variance <= 0:
                continue
            distance = values - own.mean[group]
            part = -0.5 * (np.log(2 * np.pi * variance) + distance * distance / variance)
            likelihood[place] += part if gap is None else np.where(gap, 0.0, part)
    for name, (table, _) in tables_of(task, state, GAUSSIAN).items():
        column, smoothed = task.table.column(name), table[shown] + float(task.options["smoothing"])
        logs = np.log(smoothed / smoothed.sum(1, keepdims=True))
        places = examples.cells[name] if column.domain else np.asarray(examples.cells[name] > 0, np.int64)
        part, gap = logs[:, places], examples.missing.get(name)
        likelihood += part if gap is None else np.where(gap, 0.0, part)
    shares = np.exp(likelihood - likelihood.max(0))
    found = np.zeros((examples.rows, len(task.groups)))
    found[:, shown] = (shares / shares.sum(0)).T
    return found[:, 1] if kind_of(task.label_column) == "bool" else found


def _outcomes(task: Task, examples: Examples) -> Vector:
    return group_of(task, examples).astype(np.float64)


FAMILY = family_by_group(GAUSSIAN, _finish, Judged(_scores, _outcomes))
