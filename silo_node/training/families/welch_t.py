"""Welch's t test: whether the mean of each feature is the same in two groups, whose variances may differ.

Welch, Biometrika 34 (1947).
"""

import math

import numpy as np

from policies.requests.families import MEASURES, Task
from silo_node.training.coefficients import LEVEL
from silo_node.training.distributions import t_quantile, t_tails
from silo_node.training.family import Fitted, Line, Listing, State, known
from silo_node.training.grouped import Moments, family_by_group, fitted, moments_of, shown_groups

_HEADINGS = ("t", "df", "p", "difference", "2.5 %", "97.5 %")


def _finish(task: Task, state: State) -> Fitted:
    moments, (first, second) = moments_of(task, state, MEASURES), task.groups
    tests = tuple(Line(name=name, values=_tested(own)) for name, own in moments.items())
    test = Listing(name=f"mean of {first} less mean of {second}"[:400], headings=_HEADINGS, lines=tests)
    return fitted(task, state, (test, group_means(task, state, moments)), ())


def _tested(own: Moments) -> tuple[float | None, ...]:
    """Return t, its degrees of freedom, p, and the difference of the means with its interval."""
    difference = float(own.mean[0] - own.mean[1])
    if (own.rows < 2).any():
        return (None,) * len(_HEADINGS)
    parts = own.squares / (own.rows - 1) / own.rows
    error = math.sqrt(float(parts.sum()))
    if not error:  # nothing varies
        return None, None, None, known(difference), None, None
    df = float(parts.sum() ** 2 / (parts * parts / (own.rows - 1)).sum())
    reach, t = t_quantile((1 + LEVEL) / 2, df) * error, difference / error
    return tuple(map(known, (t, df, t_tails(t, df), difference, difference - reach, difference + reach)))


def group_means(task: Task, state: State, moments: dict[str, Moments]) -> Listing:
    """Return the rows, mean and deviation of every feature in each group that is shown."""
    lines = []
    for name, own in moments.items():
        for place in shown_groups(task, state):
            rows = float(own.rows[place])
            deviation = math.sqrt(float(own.squares[place]) / (rows - 1)) if rows > 1 else math.nan
            mean = float(own.mean[place]) if rows else math.nan
            heading = f"{name}, {task.label} = {task.groups[place]}"[:400]
            lines.append(Line(name=heading, values=tuple(map(known, np.array([rows, mean, deviation])))))
    return Listing(name="groups", headings=("rows", "mean", "deviation"), lines=tuple(lines))


FAMILY = family_by_group(MEASURES, _finish)
