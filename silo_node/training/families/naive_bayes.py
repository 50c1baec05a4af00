"""Naive Bayes of a bool or a text: in each class, numbers are normal, and the values of other features are counted.

The counts are smoothed by `smoothing`, as by Laplace; variances are those of the rows. Classes of fewer persons than
`min_cohort` are left out. Hastie, Tibshirani and Friedman, The Elements of Statistical Learning (2009), section 6.6.3.
"""

import numpy as np

from policies.requests.families import GAUSSIAN, Task, values_of
from silo_node.training.family import Fitted, Line, Listing, State, known
from silo_node.training.grouped import family_by_group, fitted, moments_of, shown_groups, tables_of


def _finish(task: Task, state: State) -> Fitted:
    shown = shown_groups(task, state)
    classes, rows = [task.groups[place] for place in shown], state["rows"][shown]
    priors = [
        Line(name=value[:400], values=(known(share), known(count), known(persons)))
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
            counted.append(Line(name=f"{name} = {value}"[:400], values=tuple(map(known, own_shares))))
    if counted:
        heads = tuple(value[:400] for value in classes)
        listings.append(Listing(name="shares of values", headings=heads, lines=tuple(counted)))
    return fitted(task, state, listings, notes)


FAMILY = family_by_group(GAUSSIAN, _finish)
