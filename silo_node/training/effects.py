"""The effect of one feature at given values of another, from a regression with their product.

An effect is what one unit of a number, or a value of a domain instead of its first, adds to the linear predictor (of
logistic regression the log-odds, of Cox the log hazard) while all other columns stay. It is told at each value of a
domain or a bool; at the values that the job's option `at` names of a number, else at its mean over all rows and a
deviation to both sides. Other columns that are multiplied with the feature are at their means. Aiken and West (1991).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from policies.requests.families import Task
from policies.requests.interactions import pairs_of, values_at
from silo_node.training import design
from silo_node.training.design import Term
from silo_node.training.family import State
from silo_node.training.grid import Vector


@dataclass(frozen=True, slots=True, eq=False)
class Effect:
    """One effect: its name, and how much of each coefficient in the columns' units it is, of shape (width,)."""

    name: str
    parts: Vector


@dataclass(frozen=True, slots=True)
class _At:
    """One value of a feature: in words, and what its columns of the design have there."""

    words: str
    values: dict[str, float]


def effects_of(task: Task, state: State) -> Iterator[Effect]:
    """Yield the effects of the first feature of each pair at values of the second."""
    columns = design.terms(task)
    for first, second in pairs_of(task.options.get("interactions", "")):
        for at in _values(task, state, columns, second):
            for term in design.of_column(columns, first):
                parts = np.zeros(task.width)
                for place, one in enumerate(columns, 1):
                    if one == term:
                        parts[place] = 1.0
                    elif term in one.factors:
                        (other,) = (factor for factor in one.factors if factor != term)
                        own = at.values.get(other.name)
                        parts[place] = _mean(state, columns, other) if own is None else own
                yield Effect(f"{term.name} at {at.words}", parts)


def _mean(state: State, columns: list[Term], term: Term) -> float:
    """Return the mean of a column of the design in its own units, over all rows of all silos."""
    return float(term.middle + term.half * state["mean"][columns.index(term)])


def _values(task: Task, state: State, columns: list[Term], name: str) -> Iterator[_At]:
    column, own = task.table.column(name), design.of_column(columns, name)
    if column.domain:
        for member, value in enumerate(column.domain):
            yield _At(f"{name} = {value}", {one.name: float(one.member == member) for one in own})
        return
    (term,) = own
    if column.type == "bool":
        for place, word in enumerate(("false", "true")):
            yield _At(f"{name} = {word}", {term.name: float(place)})
        return
    given = values_at(task.options.get("at", "")).get(name)
    if given is not None:
        for number in given:
            yield _At(f"{name} = {number:f}", {term.name: float(number)})
        return
    mean, deviation = _mean(state, columns, term), term.half * float(state["deviation"][columns.index(term)])
    for level in (mean - deviation, mean, mean + deviation):
        yield _At(f"{name} = {level:.6g}", {term.name: level})
