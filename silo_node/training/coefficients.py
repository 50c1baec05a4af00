"""What a fitted regression says: coefficients in the units of the columns, with errors, p-values and intervals."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from policies.requests.families import Task
from silo_node.training import design
from silo_node.training.distributions import normal_quantile, normal_tails, t_quantile, t_tails
from silo_node.training.effects import effects_of
from silo_node.training.family import Bools, Fitted, Line, Listing, State, figure, line
from silo_node.training.grid import Vector
from silo_node.training.newton import covariance

LEVEL = 0.95  # of the intervals


@dataclass(frozen=True, slots=True)
class Words:
    """What a family's owners are told where no model stands."""

    no_maximum: str  # after the name of a column
    too_few: str


OF_LABELS = Words(
    "tells the labels apart, so its weight would grow without end", "too few rows: a model needs more rows than weights"
)


def fitted(
    task: Task, state: State, listings: Sequence[Listing], figures: Sequence[Line], words: Words = OF_LABELS,
    more: Sequence[str] = (),
) -> Fitted:  # fmt: skip
    """Return what owners see: nothing but the notes where no model stands. `more` are further notes of a model."""
    stands = len(state.numbers.get("accepted", ())) > 0 and state.ended not in ("no-maximum", "too-few-rows")
    rows = [figure("rows", state.one("rows")), figure("rows left out", state.one("left_out"))] if state.numbers else []
    return Fitted(
        listings=tuple(listings) if stands else (),
        figures=(*rows, *figures) if stands else tuple(rows),
        notes=(*_notes(task, state, words), *more),
    )


def has_model(state: State) -> bool:
    """Tell whether a model stands, of which coefficients can be shown."""
    return len(state.numbers.get("accepted", ())) > 0 and state.ended not in ("no-maximum", "too-few-rows")


def regression(
    task: Task, state: State, names: Sequence[str], scale: float = 1.0, shift: float = 0.0, variance: float = 1.0,
    df: float | None = None, spread: Vector | None = None, outputs: int = 1,
) -> tuple[Listing, ...]:  # fmt: skip
    """Return the coefficients, and beside them the effects at given values where features are multiplied.

    They are `scale` times the weights in the columns' units, with `shift` added to the intercept. `variance` is that of
    a row's residual, `df` its degrees of freedom (None: the normal distribution). `spread` stands for the inverse of
    the Hessian. Of several `outputs`, all coefficients of one come before those of the next.
    """
    change = np.asarray(np.kron(np.eye(outputs), design.natural(task, state)[0]), np.float64)
    weights, kept = state["accepted"], state["kept"] > 0
    values = scale * (change @ weights) + np.r_[shift, np.zeros(len(weights) - 1)]
    spread = scale * scale * variance * (change @ (covariance(state) if spread is None else spread) @ change.T)
    found = listed(names, _shown(change, kept), values, spread, df)
    if not (effects := list(effects_of(task, state))):
        return (found,)
    parts = np.kron(np.eye(outputs), np.array([one.parts for one in effects]))
    firsts = ("",) if outputs == 1 else tuple(f"{value}: " for value in task.classes[1:])
    told = tuple(first + one.name for first in firsts for one in effects)
    is_known = (parts[:, kept] != 0).any(1)
    return found, listed(told, is_known, parts @ values, parts @ spread @ parts.T, df, "effects at values", "effect")


def _shown(change: Vector, kept: Bools) -> Bools:
    """Return which coefficients are shown: those that are kept, and what a kept product says of its factors."""
    found = (change[:, kept] != 0).any(1)
    found[0] = kept[0]
    return np.asarray(found | kept, np.bool_)


def listed(
    names: Sequence[str], kept: Bools, values: Vector, spread: Vector, df: float | None = None,
    name: str = "coefficients", heading: str = "coefficient",
) -> Listing:  # fmt: skip
    """Return coefficients with their covariance as a listing; those that were dropped are left out."""
    letter = "z" if df is None else "t"
    quantile = normal_quantile((1 + LEVEL) / 2) if df is None else t_quantile((1 + LEVEL) / 2, df)
    tails: Callable[[float], float] = normal_tails if df is None else lambda t: t_tails(t, df)
    lines = []
    for one, is_kept, value, square in zip(names, kept, values, np.diag(spread), strict=True):
        if not is_kept:
            continue
        error = math.sqrt(max(float(square), 0.0))
        ratio = float(value) / error if error else math.inf
        ends = value - quantile * error, value + quantile * error
        numbers = (value, error, ratio, tails(ratio) if math.isfinite(ratio) else 0.0, *ends)
        lines.append(line(one, numbers))
    headings = (heading, "standard error", letter, "p", "2.5 %", "97.5 %")
    return Listing(name=name, headings=headings, lines=tuple(lines))


def _notes(task: Task, state: State, words: Words) -> list[str]:
    notes: list[str] = []
    if state.numbers:
        constant = design.constants(task, state)
        kept, flat = state.numbers.get("kept"), state.numbers.get("flat")
        for place, term in enumerate(design.terms(task), 1):
            if constant[place]:
                notes.append(f"dropped: {term.name} is the same in all rows"[:400])
            elif flat is not None and flat[place]:
                notes.append(f"dropped: {term.name} is the same in all rows at risk of each stratum"[:400])
            elif kept is not None and not kept[place]:
                notes.append(f"dropped: {term.name} follows from the columns before it"[:400])
    if "changed" in state.numbers:
        notes.append("the rows changed in the run, as consent did: figures without features are of its first round")
    match state.ended:
        case "no-maximum":
            notes.append(f"no maximum: {state.why} {words.no_maximum}"[:400])
        case "too-few-rows":
            notes.append(words.too_few)
        case "diverged":
            notes.append("stopped: the loss grew or was not finite; the last good model stands")
        case None:
            notes.append("not at its end: the step is still above the tolerance; ask for more rounds")
        case "complete":
            pass
    return notes
