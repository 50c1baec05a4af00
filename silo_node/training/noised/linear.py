"""Least squares from noised products of columns and label, in one round: an interval for the fit of the pooled rows.

Nothing is clipped and nothing decays, so that the sums are those of the pooled rows with noise, and so is the estimate:
b = (X'X + E)^-1 (X'y + e). To first order b - (X'X)^-1 X'y is (X'X)^-1 (e - E b), whose variance the noise alone tells.
That holds while the noise is small beside the least eigenvalue of X'X, which is judged from the opened sums; elsewhere
there is no model. Sheffet, ICML 2017.
"""

import math

import numpy as np

from policies.requests.families import Task
from policies.requests.noised_families import CELL_BITS, MOMENTS
from silo_node.training import design
from silo_node.training.coefficients import LEVEL
from silo_node.training.family import Bools, Examples, Fitted, State
from silo_node.training.glm import weight_names
from silo_node.training.grid import Integers, Vector
from silo_node.training.newton import inverse, pivots_of, product, square
from silo_node.training.noised import rows
from silo_node.training.noised.descent import family_of
from silo_node.training.noised.family import NoisedFamily, Sums
from silo_node.training.noised.shown import counted, interval_listing

# What the least eigenvalue must be above, in deviations of noise times the root of the width: so much that what is
# quadratic in the noise moves an interval by little of its width.
_CLEAR = 4.0
OF_POOLED = f"the intervals cover the coefficients of the pooled rows' fit with {LEVEL:.0%}"
_TOO_NOISY = (
    "too few rows for this price: the noise is not small beside what the columns tell apart; take fewer features, more"
    " silos or a larger epsilon, or descent"
)


def _statistics(task: Task, state: State, examples: Examples) -> list[Integers]:
    return [*rows.counts(task, examples), rows.products(task, examples)]


def _update(task: Task, state: State, sums: Sums) -> State:
    """Return the fit of the opened products; one at its end without a model where the noise is too large."""
    persons, left_out, width = sums["persons"], sums.get("left-out"), task.width
    unit = 2.0**-CELL_BITS
    whole, noise = square(sums["products"].values * unit, width + 1), sums["products"].deviation * unit
    state = State().with_(
        persons=persons.one,
        persons_noise=persons.deviation,
        left_out=np.zeros(0) if left_out is None else [left_out.one, left_out.deviation],
        mean=np.zeros(width - 1),
        deviation=np.ones(width - 1),
        label_mean=0.0,
        label_deviation=1.0,
        accepted=np.zeros(0),
    )
    inner, beside = whole[:width, :width], whole[:width, width]
    least = _CLEAR * noise * math.sqrt(width)
    kept = _kept(task, inner, least)
    few = inner[np.ix_(kept, kept)]
    if (pivots_of(few - np.eye(len(few)) * least) <= 0).any():
        return state.at_end("too-few-rows")
    own = np.zeros((width, width))
    own[np.ix_(kept, kept)] = inverse(few)
    weights = (own * beside).sum(1)
    # Of e - E b: noise of the pairs of columns, each once, times the weights, and of the column with the label.
    errors = noise * noise * ((1 + (weights * weights).sum()) * np.eye(width) + np.outer(weights, weights))
    errors -= noise * noise * np.diag(weights * weights)
    spread = product(product(own, errors), own)
    return state.with_(accepted=weights, covariance=spread[np.triu_indices(width)], kept=kept)


def _kept(task: Task, inner: Vector, least: float) -> Bools:
    """Return which columns are fitted: of values and of missing cells those that are opened often enough to be told."""
    found = np.ones(task.width, np.bool_)
    for place, term in enumerate(design.terms(task), 1):
        if term.member is not None or term.is_indicator:
            found[place] = inner[place, place] > least
    return found


def _finish(task: Task, state: State) -> Fitted:
    """Return the coefficients in the label's units, with intervals for those of the pooled rows' fit."""
    if not len(state["accepted"]):
        return Fitted(listings=(), figures=tuple(counted(state)), notes=(_TOO_NOISY,))
    change, _ = design.natural(task, state)
    middle, half, _ = design.span(task.label_column)
    spread = square(state["covariance"], task.width)
    values = half * (change @ state["accepted"])
    values[0] += middle
    names, kept = weight_names(task), state["kept"] > 0
    variances = half * half * np.diag(change @ spread @ change.T)
    listing = interval_listing(
        [name for name, is_in in zip(names, kept, strict=True) if is_in], values[kept], variances[kept]
    )
    dropped = (
        f"dropped: {name} is too rare to be told from noise"
        for name, is_in in zip(names, kept, strict=True)
        if not is_in
    )
    return Fitted(
        listings=(listing,), figures=tuple(counted(state)), notes=(OF_POOLED, *(one[:400] for one in dropped))
    )


def family() -> NoisedFamily:
    """Return linear regression: by descent, or by moments where its option says so."""
    other = family_of("linear-regression")

    def by_moments(task: Task) -> bool:
        return task.options["method"] == MOMENTS

    return NoisedFamily(
        other.init,
        lambda task, state, own: (_statistics if by_moments(task) else other.statistics)(task, state, own),
        lambda task, state, sums: (_update if by_moments(task) else other.update)(task, state, sums),
        lambda task, state: (_finish if by_moments(task) else other.finish)(task, state),
        other.judged,
    )
