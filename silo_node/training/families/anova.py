"""One-way analysis of variance: whether the mean of each feature is the same in all groups of the label.

Groups of fewer persons than `min_cohort` are left out of the test. Fisher, Statistical Methods (1925).
"""

from policies.requests.families import MEASURES, Task
from silo_node.training.distributions import f_tail
from silo_node.training.families.welch_t import group_means
from silo_node.training.family import Fitted, Line, Listing, State, known
from silo_node.training.grid import Integers
from silo_node.training.grouped import Moments, family_by_group, fitted, moments_of, shown_groups

_HEADINGS = ("F", "df between", "df within", "p", "eta squared")


def _finish(task: Task, state: State) -> Fitted:
    moments, shown = moments_of(task, state, MEASURES), shown_groups(task, state)
    tests = tuple(Line(name=name, values=_tested(own, shown)) for name, own in moments.items())
    listings = (Listing(name="F", headings=_HEADINGS, lines=tests), group_means(task, state, moments))
    return fitted(task, state, listings, ())


def _tested(own: Moments, shown: Integers) -> tuple[float | None, ...]:
    """Return F, its degrees of freedom, p, and the share of the sum of squares that is between groups."""
    rows, means = own.rows[shown], own.mean[shown]
    means, within, rows = means[rows > 0], float(own.squares[shown].sum()), rows[rows > 0]
    above, below = len(rows) - 1, float(rows.sum()) - len(rows)
    if above < 1 or below < 1:
        return (None,) * len(_HEADINGS)
    centre = float((rows * means).sum() / rows.sum())
    between = float((rows * (means - centre) ** 2).sum())
    if not within:  # nothing varies inside a group
        return None, float(above), below, None, None
    ratio = (between / above) / (within / below)
    return tuple(map(known, (ratio, above, below, f_tail(ratio, above, below), between / (between + within))))


FAMILY = family_by_group(MEASURES, _finish)
