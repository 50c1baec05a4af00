"""What an answer is shown by: the silos' conditions, as their catalogues stated them when the question was asked.

They are kept with the question, so that its answer can be opened when a silo is away or its policy has changed.
"""

from collections.abc import Collection
from typing import Annotated, ClassVar

from pydantic import Field

from analyst.reports.estimates import rho_of
from analyst.sql.offer import Offer
from crypto.wire import MAX_SILOS, Digest, Message, Name
from policies.budget.accountant import epsilon_of
from policies.requests.denials import Denial
from policies.requests.request import Request


class SiloConditions(Message):
    """One silo's conditions."""

    policy_hash: Digest
    min_cohort: Annotated[int, Field(ge=0)]
    entity: str


class Conditions(Message):
    """The conditions of all silos that gave a catalogue."""

    MAX_BYTES: ClassVar[int] = 3 << 20
    silos: Annotated[dict[Name, SiloConditions], Field(min_length=1, max_length=MAX_SILOS)]
    epsilon: float
    delta: float
    strictest: tuple[str, ...]  # whose conditions hold for all
    reasons: Annotated[dict[Name, Denial], Field(max_length=MAX_SILOS)]  # why silos gave no catalogue

    def of(self, silos: Collection[str]) -> tuple[SiloConditions, ...]:
        """Return the conditions of these silos; of all, if none of these gave a catalogue."""
        return tuple(one for silo, one in self.silos.items() if silo in silos) or tuple(self.silos.values())


def conditions_of(offer: Offer, request: Request) -> Conditions:
    """Return the conditions in an offer, as they hold for a request; raises SqlError if it has none of its silos."""
    asked = offer.only([silo for silo in request.silos if silo in offer.silos])
    return Conditions(
        silos={
            silo: SiloConditions(policy_hash=one.policy_hash, min_cohort=one.min_cohort, entity=one.entity)
            for silo, one in offer.silos.items()
        },
        epsilon=epsilon_of(rho_of(request), asked.delta_for(request.table, request.plan)),
        delta=asked.delta,
        strictest=asked.strictest,
        reasons=dict(offer.reasons),
    )
