"""Judge a request by a policy: every reason to say no, each with its rule and a remedy.

A pure function of policy, request, ledger, the people's verdicts and the clock. Nothing here has seen a row, so no
denial depends on one.

    decide(policy, request, request_hash, spent, now)  # () means yes
"""

from collections.abc import Sequence

from policies.budget.ledger import Spending
from policies.decision import availability, budget_rules, disclosure, eligibility, protection
from policies.decision.approval_rules import people
from policies.decision.case import NO_JURISDICTIONS, Case, Jurisdictions, Rule
from policies.decision.compiled import compiled, facts_of
from policies.decision.denial_codes import deny
from policies.document.policy import Policy
from policies.requests.approval import Approval
from policies.requests.denials import MAX_DENIALS, Denial
from policies.requests.request import Request

RULES: tuple[Rule, ...] = (  # in the order in which their reasons are told
    disclosure.release,
    disclosure.columns,
    disclosure.definitions,
    disclosure.bounding,
    protection.secure_sum,
    protection.roster,
    disclosure.figures,
    disclosure.training,
    availability.consent_feed,
    eligibility.jurisdiction,
    availability.pace,
    budget_rules.price,
)


def decide(
    policy: Policy,
    request: Request,
    request_hash: bytes,
    spent: Spending,
    now: int,
    feed_at: int | None = None,
    verdicts: Sequence[Approval] = (),
    jurisdictions: Jurisdictions = NO_JURISDICTIONS,
) -> tuple[Denial, ...]:
    """Return why `policy` refuses `request` at `now` (seconds since 1970, UTC); an empty tuple means yes.

    `spent` holds the windows of `limits_of`, in its order, and the requests since the time of `rate_of`; it is of the
    analyst that the policy names (`Policy.analyst_entry`). `feed_at` is when the decisions on consent were written,
    `verdicts` are what people said of requests. The request's signature is the caller's to check, against the key that
    the policy gives its analyst.
    """
    rules = compiled(policy)
    reasons = eligibility.eligibility(rules, request, now)
    if reasons:
        return tuple(reasons)  # who may not ask is not told what could be asked
    source = rules.sources.get(request.table.name)
    if source is None:
        offered = ", ".join(policy.sources)
        message = f"there is no table {request.table.name!r}"
        return (deny("TABLE_UNKNOWN", "sources", message, f"ask about: {offered}"),)
    facts = facts_of(request, policy.privacy_unit.max_silos)
    case = Case(rules, request, request_hash, facts, source, spent, now, feed_at, verdicts, jurisdictions)
    for rule in RULES:
        reasons += rule(case)
    if not reasons:  # people are not asked about what would be refused anyway
        reasons += people(case)
    return tuple(reasons[:MAX_DENIALS])
