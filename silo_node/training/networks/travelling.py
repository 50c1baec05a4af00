"""How counts and changes of a round travel: in whole units, or, with `value_bits`, in levels of a range.

The range of a sum follows from opened sums alone. Each silo says in which step of powers of the root of 2 the greatest
magnitude of its part lies, as a one in a row of zeros; the sum of these rows, which tells nobody whose is which, has
the greatest of all, and that is the range of the next round. So it grows as soon as a part was cut, and shrinks as
soon as all are small. The first range is the length of a step. Levels are drawn at random, right in the mean:
`silo_node.training.few_bits`. Alistarh et al., NeurIPS 2017 (QSGD).
"""

import math
from collections.abc import Mapping

import numpy as np

from policies.requests.families import Task
from policies.requests.hashed import levels, limbs
from policies.requests.networks import (
    COUNTS,
    LEAST_REACH,
    MOST_UNITS,
    REACHES,
    UPDATE_BITS,
    most,
    reach_name,
    value_bits,
)
from silo_node.training import few_bits
from silo_node.training.family import State
from silo_node.training.grid import Integers, Vector, reals

_CHUNK = 1 << 20


def reach_at(place: int) -> float:
    """Return the range of a step: exact doubles, as an IEEE root is."""
    half = LEAST_REACH + place
    return math.ldexp(math.sqrt(2.0) if half % 2 else 1.0, half // 2)


def reach_of(task: Task, state: State, name: str) -> float:
    """Return the range of a sum in a round, by what was opened before."""
    held = state.numbers.get(_held_as(name))
    return float(task.options["rate"]) if held is None else float(held[0])


def counted(task: Task, counts: Mapping[str, int]) -> dict[str, Integers]:
    """Return counts as they travel, in limbs where numbers have few bits."""
    bound = most(task)
    return {name: few_bits.in_limbs(count, bound, limbs(bound)) for name, count in counts.items()}


def sent(task: Task, state: State, parts: Mapping[str, Vector]) -> dict[str, Integers] | None:
    """Return a silo's parts of the sums as they travel; None where one is not finite, or beyond what travels."""
    found, bits = dict[str, Integers](), value_bits(task)
    for name, part in parts.items():
        greatest = float(np.abs(part).max(initial=0.0))
        if not math.ldexp(greatest, UPDATE_BITS) <= MOST_UNITS:
            return None
        if bits is None:
            found[name] = np.rint(np.ldexp(part, UPDATE_BITS)).astype(np.int64)
            continue
        found[name] = _in_levels(part, reach_of(task, state, name), levels(bits))
        where = np.zeros(REACHES, np.int64)
        where[_place(greatest)] = 1
        found[reach_name(name)] = where
    return found


def real(task: Task, state: State, name: str, units: Integers) -> Vector:
    """Return a sum, or a silo's part of it, by the arithmetic that all recipients have."""
    bits = value_bits(task)
    if bits is None:
        return reals(units, UPDATE_BITS)
    return np.asarray(units.astype(np.float64) * (reach_of(task, state, name) / levels(bits)))


def opened_counts(task: Task, sums: Mapping[str, Integers]) -> dict[str, int]:
    """Return the counts of a round."""
    bound = most(task)
    return {name: few_bits.joined(sums[name], bound) for name in COUNTS if name in sums}


def with_reaches(task: Task, state: State, sums: Mapping[str, Integers]) -> State:
    """Return the state with the ranges of the next round; one that no silo has told stays."""
    found = {}
    for name, where in ((name, sums[reach_name(name)]) for name in sums if reach_name(name) in sums):
        if where.any():
            found[_held_as(name)] = reach_at(int(np.flatnonzero(where)[-1]))
    return state.with_(**found)


def _held_as(name: str) -> str:
    return f"{name}_reach"


def _place(greatest: float) -> int:
    """Return the place of the least range that a magnitude does not exceed, or of the greatest one."""
    return next((place for place in range(REACHES) if greatest <= reach_at(place)), REACHES - 1)


def _in_levels(part: Vector, reach: float, most_levels: int) -> Integers:
    """Return numbers as levels of a range, rounded by fresh words, some at a time."""
    found = np.empty(len(part), np.int64)
    for start in range(0, len(part), _CHUNK):
        own = part[start : start + _CHUNK]
        words = few_bits.fresh_words(len(own))
        found[start : start + _CHUNK] = few_bits.rounded(own, np.full(len(own), reach), most_levels, words)
    return found
