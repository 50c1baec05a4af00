"""One request and one policy: everything that a rule of the decision may read, and no rows."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from policies.budget.ledger import Spending
from policies.decision.compiled import CompiledPolicy, RequestFacts, SourceColumns
from policies.document.policy import Policy
from policies.requests.approval import StoredVerdict
from policies.requests.denials import Denial
from policies.requests.request import Request


@dataclass(frozen=True, slots=True)
class Jurisdictions:
    """The jurisdictions of the federation's parties, as its authority signed them; a party without one has no entry."""

    silos: Mapping[str, str] = field(default_factory=dict)
    aggregators: Mapping[str, str | None] = field(default_factory=dict)


NO_JURISDICTIONS = Jurisdictions()


class Case(NamedTuple):
    """A request, the policy that judges it, and the other facts that the silo knows."""

    policy: Policy
    compiled: CompiledPolicy
    request: Request
    subject: bytes  # of the verdicts that count: `approvals.subject_of`, or that of a request in whose place it stands
    facts: RequestFacts
    source: SourceColumns
    spent: Spending  # of the windows of `limits_of`, in its order
    now: int
    feed_at: int | None  # when the decisions on consent were written
    rows_at: int | None  # when the files of a prepared source were last seen unchanged
    verdicts: Sequence[StoredVerdict]
    jurisdictions: Jurisdictions
    approved: Collection[str] = ()  # the packed networks that people of this policy have signed, by their names

    def about(self, request: Request, facts: RequestFacts) -> "Case":
        """Return the same case of another request, such as that of one statement."""
        return Case(
            self.policy,
            self.compiled,
            request,
            self.subject,
            facts,
            self.source,
            self.spent,
            self.now,
            self.feed_at,
            self.rows_at,
            self.verdicts,
            self.jurisdictions,
            self.approved,
        )


Rule = Callable[[Case], Sequence[Denial]]  # every reason for a refusal; none if the rule is met
