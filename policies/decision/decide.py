"""Judge a request by a policy: return every reason for a refusal, each with its rule and a remedy.

A pure function of policy, request, ledger, the people's verdicts and the clock. It reads no rows, so no denial depends
on rows. docs/protocol.md section 8, rows A6 to A9.

    decide(policy, request, request_hash, spent, now)  # () means yes
"""

from collections.abc import Collection, Sequence

from policies.budget.ledger import Spending
from policies.decision import (
    availability,
    budget_rules,
    computing,
    disclosure,
    eligibility,
    joins,
    networks,
    protection,
    searching,
    sending,
)
from policies.decision.approval_rules import people
from policies.decision.approvals import subject_of
from policies.decision.case import NO_JURISDICTIONS, Case, Jurisdictions, Rule
from policies.decision.compiled import compiled, facts_of
from policies.decision.denial_codes import deny
from policies.decision.statements import each
from policies.decision.thresholds import thresholds
from policies.document.policy import Policy
from policies.requests.approval import StoredVerdict
from policies.requests.denials import MAX_DENIALS, Denial
from policies.requests.request import Request

RULES: tuple[Rule, ...] = (  # denials are reported in this order
    disclosure.release,
    each(disclosure.columns),
    disclosure.definitions,
    each(thresholds),
    disclosure.bounding,
    protection.secure_sum,
    protection.capacity,
    protection.roster,
    joins.open_joins,
    each(joins.used_joins),
    each(disclosure.figures),
    disclosure.training,
    networks.networks,
    searching.shape,
    computing.declared_time,
    sending.length,
    sending.state_room,
    sending.sending_time,
    availability.consent_feed,
    availability.prepared_rows,
    eligibility.jurisdiction,
    availability.pace,
    budget_rules.price,
    searching.whole,
)


def decide(
    policy: Policy,
    request: Request,
    request_hash: bytes,
    spent: Spending,
    now: int,
    feed_at: int | None = None,
    verdicts: Sequence[StoredVerdict] = (),
    jurisdictions: Jurisdictions = NO_JURISDICTIONS,
    rows_at: int | None = None,
    subject: bytes | None = None,
    approved: Collection[str] = (),
) -> tuple[Denial, ...]:
    """Return why `policy` refuses `request` at `now` (seconds since 1970, UTC); an empty tuple means yes.

    `spent` has the windows of `limits_of`, in its order, and the requests since the time of `rate_of`, all of the
    policy's entry for this analyst (`Policy.analyst_entry`). `feed_at` is when the decisions on consent were written,
    `rows_at` when the files of a prepared source were last seen unchanged, `verdicts` are the verdicts on this
    request, or on the `subject`, a request that covers this one. `approved` are the packed networks that people of this
    policy have signed, by their names. The caller must have checked the request's signature
    with the key that the policy has for its analyst.
    """
    rules = compiled(policy)
    reasons = eligibility.eligibility(rules, request, now)
    if reasons:
        return tuple(reasons)  # an analyst who may not ask learns nothing about what can be asked
    source = joins.columns_of(rules, request.table)
    if source is None:
        offered = ", ".join(policy.sources)
        unknown = next(name for name in request.table.names if name not in policy.sources)
        message = f"there is no table {unknown!r}"
        return (deny("TABLE_UNKNOWN", "sources", message, f"ask about: {offered}"),)
    facts = facts_of(request, policy.privacy_unit.max_silos)
    subject = subject or subject_of(request, request_hash)
    when = spent, now, feed_at, rows_at
    case = Case(policy, rules, request, subject, facts, source, *when, verdicts, jurisdictions, approved)
    for rule in RULES:
        if found := rule(case):
            reasons += found
    if not reasons:  # people are not asked about a request that is refused anyway
        reasons += people(case)
    return tuple(reasons[:MAX_DENIALS])
