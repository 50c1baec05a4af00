"""The audits of a model that a silo keeps beside it."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Protocol

from pydantic import Field

from crypto.wire import MAX_SILOS, Message, Name, RoundId, Seconds
from policies.fairness.shares import Interval
from policies.models.record import RunRecord
from silo_node.training.family import Fitted

MOST_KEPT = 8  # of a model, by different groups
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class GroupGap(Message):
    """A gap between groups, by one measure, with the ends of its interval."""

    measure: Annotated[str, Field(max_length=40)]
    value: _Finite
    low: _Finite
    high: _Finite


class AuditedModel(Message):
    """What an audit found of the model that it is beside."""

    run: RoundId  # of the audit
    groups: tuple[Name, ...]
    table: Name
    is_held_out: bool  # whether it took the rows of who is held out alone
    learned_at: Seconds
    gaps: tuple[GroupGap, ...]
    fitted: Fitted
    # The purpose, by which rows may be used, the least score that was decided for, the fewest persons of a group that
    # stands alone, and the silos that were asked; left out of an audit that was learned before silos kept them, which
    # meets no limit.
    purpose: Annotated[str, Field(max_length=200, exclude_if=lambda text: not text)] = ""
    threshold: Annotated[str, Field(max_length=20, exclude_if=lambda text: not text)] = ""
    min_cohort: Annotated[int, Field(exclude_if=lambda least: not least)] = 0
    silos: Annotated[tuple[Name, ...], Field(max_length=MAX_SILOS, exclude_if=lambda silos: not silos)] = ()


class Audited(Protocol):
    """A model with its audits."""

    @property
    def table(self) -> str:
        """The table that it was learned from."""

    @property
    def purpose(self) -> str:
        """The purpose for which it was learned."""

    @property
    def record(self) -> RunRecord | None:
        """Who took part in its rounds."""

    @property
    def audits(self) -> tuple[AuditedModel, ...]:
        """Its audits, one by the same groups."""


def gaps_by(
    model: Audited, groups: Sequence[str], threshold: Decimal, largest_cohort: int
) -> Mapping[str, Interval] | None:
    """Return the gaps of a model's audit that counts for a limit; None without one.

    It is by these groups, on the table that the model was learned from, for its purpose, at this threshold, and of all
    silos that its last round asked. Whoever audits chooses these, and could choose those who consented to something
    else, a threshold that nobody reaches, a few silos, or a `min_cohort` in which the groups that differ become one: it
    is at most `largest_cohort`.
    """
    spells = () if model.record is None else model.record.spells
    silos = set(spells[-1].silos) if spells else set[str]()
    for one in model.audits:
        is_its_rows = (one.table, one.purpose) == (model.table, model.purpose) and silos <= set(one.silos)
        is_at = bool(one.threshold) and Decimal(one.threshold) == threshold and one.min_cohort <= largest_cohort
        if set(one.groups) == set(groups) and is_its_rows and is_at:
            return {gap.measure: Interval(gap.value, gap.low, gap.high) for gap in one.gaps}
    return None


def with_audit(kept: Sequence[AuditedModel], found: AuditedModel) -> tuple[AuditedModel, ...]:
    """Return a model's audits with one more, in the place of the one by the same groups."""
    others = [one for one in kept if set(one.groups) != set(found.groups)]
    return (*others[-(MOST_KEPT - 1) :], found)
