"""Decisions on consent as numbers, and the judgement by them: who is in for a purpose at one moment.

Pure. The same judgement as the SQL of `silo_node.data.consent`, which a test holds both to. A time that is not known
fails closed: a decision that may have ended has ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from silo_node.data.coded import Bools, Integers
from silo_node.data.prepared.codes import Codes

Times = npt.NDArray[np.float64]  # seconds since 1970; NaN where there is none, or none that can be read
NEVER = float("-inf")


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """A table of decisions on consent."""

    codes: Codes  # of the persons that it names, different and in order
    alike: Codes  # of their ids in the loosest form
    person: Integers  # of each decision, by place; in order
    purpose: Integers  # of each decision, by place in `purposes`
    purposes: Sequence[str]
    given_at: Times
    withdrawn_at: Times
    expires_at: Times
    is_withdrawn: Bools  # whether there is a cell, even if it is no time
    ends: Bools
    names_nobody: bool  # whether there is a decision whose id can name nobody, so may be anybody's


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """For each person that a table of decisions names: whether the last word was a consent, or an objection."""

    agreed: Bools
    objected: Bools


def judged(decided: Decided, values: Sequence[str], now: int) -> Judged:
    """Judge the decisions on a purpose, under any of its names, at `now` (seconds since 1970)."""
    wanted = set(values)
    is_meant = np.array([text in wanted for text in decided.purposes], np.bool_)[decided.purpose]
    person, persons = decided.person[is_meant], len(decided.codes)
    known = np.where(np.isnan(decided.withdrawn_at), float(now), decided.withdrawn_at)
    withdrawal = np.where(decided.is_withdrawn, known, np.inf)[is_meant]
    given, expires = decided.given_at[is_meant], decided.expires_at[is_meant]
    ends = decided.ends[is_meant]
    is_valid = (given <= now) & (~ends | (expires > now)) & (withdrawal > now)
    last_given = _latest(person, persons, np.where(is_valid, given, NEVER))
    last_withdrawn = _latest(person, persons, np.where(withdrawal <= now, withdrawal, NEVER))
    return Judged(last_given > last_withdrawn, last_withdrawn > last_given)


def _latest(person: Integers, persons: int, times: Times) -> Times:
    """Return the latest time of each person; NEVER without one. `person` is in order."""
    found = np.full(persons, NEVER)
    if len(person):
        starts = np.flatnonzero(np.r_[True, person[1:] != person[:-1]])
        found[person[starts]] = np.maximum.reduceat(times, starts)
    return found


def who_is_in(
    judged: Judged,
    decided: Decided,
    place: Integers,
    alike_place: Integers | None,
    alike_of: Integers | None,
    alikes: int,
    persons: int,
    *,
    must_agree: bool,
) -> Bools:
    """Return which persons of a source are in.

    `place` has the place of each decided person among the source's persons, -1 where it has no row. Without an
    `id_form`, `alike_of` has the place of each person's loosest form among `alikes`, and `alike_place` that of each
    decided person's: an objection takes out everybody of the same form.
    """
    if decided.names_nobody:
        return np.zeros(persons, np.bool_)
    is_in = np.full(persons, not must_agree, np.bool_)
    if must_agree:
        is_in[place[judged.agreed & (place >= 0)]] = True
    if alike_of is None or alike_place is None:
        is_in[place[judged.objected & (place >= 0)]] = False
        return is_in
    out = np.zeros(alikes, np.bool_)
    out[alike_place[judged.objected]] = True
    return is_in & ~out[alike_of]
