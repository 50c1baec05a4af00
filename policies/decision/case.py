"""One request before one policy: all that a rule of the decision may look at. No row is among it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from policies.budget.ledger import Spending
from policies.decision.compiled import CompiledPolicy, RequestFacts, SourceColumns
from policies.document.policy import Policy
from policies.requests.approval import Approval
from policies.requests.denials import Denial
from policies.requests.request import Request


@dataclass(frozen=True, slots=True)
class Jurisdictions:
    """The jurisdictions of the federation's parties, as its authority signed them; a party without one has no entry."""

    silos: Mapping[str, str] = field(default_factory=dict)
    aggregators: Mapping[str, str | None] = field(default_factory=dict)


NO_JURISDICTIONS = Jurisdictions()


@dataclass(frozen=True, slots=True)
class Case:
    """A request, the policy that judges it, and what the silo knows beside them."""

    compiled: CompiledPolicy
    request: Request
    request_hash: bytes
    facts: RequestFacts
    source: SourceColumns
    spent: Spending  # of the windows of `limits_of`, in its order
    now: int
    feed_at: int | None  # when the decisions on consent were written
    verdicts: Sequence[Approval]
    jurisdictions: Jurisdictions

    @property
    def policy(self) -> Policy:
        return self.compiled.policy


Rule = Callable[[Case], Sequence[Denial]]  # every reason to say no; none if all is well
