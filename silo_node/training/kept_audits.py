"""The audits of a model that a silo keeps beside it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

from pydantic import Field

from crypto.wire import Message, Name, RoundId, Seconds
from policies.fairness.shares import Interval
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


class Audited(Protocol):
    """A model with its audits."""

    @property
    def table(self) -> str:
        """The table that it was learned from."""

    @property
    def audits(self) -> tuple[AuditedModel, ...]:
        """Its audits, one by the same groups."""


def gaps_by(model: Audited, groups: Sequence[str]) -> Mapping[str, Interval] | None:
    """Return the gaps of a model's audit by these groups, on the table that it was learned from; None without one."""
    for one in model.audits:
        if set(one.groups) == set(groups) and one.table == model.table:
            return {gap.measure: Interval(gap.value, gap.low, gap.high) for gap in one.gaps}
    return None


def with_audit(kept: Sequence[AuditedModel], found: AuditedModel) -> tuple[AuditedModel, ...]:
    """Return a model's audits with one more, in the place of the one by the same groups."""
    others = [one for one in kept if set(one.groups) != set(found.groups)]
    return (*others[-(MOST_KEPT - 1) :], found)
