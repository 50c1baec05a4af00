"""Eligibility: whether this analyst may ask now, for this purpose, computation and recipients.

These rules are judged first, so that an analyst without access learns nothing else about the policy. docs/protocol.md
section 8, row A6.
"""

from collections.abc import Sequence

from policies.decision.case import Case
from policies.decision.compiled import CompiledPolicy, compiled
from policies.decision.denial_codes import CLOCK_SKEW_S, deny
from policies.document.policy import Analyst, Policy
from policies.document.purposes import contains
from policies.requests.denials import Denial
from policies.requests.request import Request


def eligible_analyst(policy: Policy, name: str, now: int) -> Analyst | None:
    """Return the analyst of that name, if the policy and the analyst's own term are valid at `now`."""
    rules = compiled(policy)
    entry = policy.analyst_entry(name)
    if entry is None or now >= rules.until[entry] or not rules.is_valid(now):
        return None
    return policy.analysts[entry]


def eligibility(rules: CompiledPolicy, request: Request, now: int) -> list[Denial]:
    """Return why this analyst may not ask for this purpose now; an empty list if there is no reason."""
    policy, contact = rules.policy, rules.ask_contact
    reasons: list[Denial] = []
    if not rules.is_valid(now):
        message = "the policy is not valid today"
        return [deny("POLICY_EXPIRED", "policy.valid_until", message, f"{contact} to renew it")]
    if not request.created_at - CLOCK_SKEW_S <= now < request.expires_at:
        message = "the request is not valid now"
        reasons.append(deny("REQUEST_EXPIRED", "request.expires_at", message, "check the clock, ask again"))
    name = request.analyst
    entry = policy.analyst_entry(name)
    if entry is None or now >= rules.until[entry]:
        message = f"{name!r} is not an analyst here, or no longer"
        return [*reasons, deny("ANALYST_UNKNOWN", "analysts", message, f"{contact} to be added")]
    if request.purpose not in rules.purposes[entry]:
        offered = ", ".join(policy.analysts[entry].purposes) or "none"
        message = f"the purpose {request.purpose!r} is not open to you"
        remedy = f"purposes open to you: {offered}"
        return [*reasons, deny("PURPOSE_CLOSED", f"analysts.{entry}.purposes", message, remedy)]
    reasons += _recipients(request, entry)
    plan = request.plan
    kinds, opened = dict.fromkeys(part.opened_as for part in plan.alone), policy.purposes[request.purpose].computations
    for kind in kinds:
        if kind not in opened or (plan.training is not None and policy.training is None):
            rule = f"purposes.{request.purpose}.computations"
            reasons.append(deny("COMPUTATION_CLOSED", rule, f"{kind} is not open for this purpose", contact))
    return reasons


def _recipients(request: Request, entry: str) -> list[Denial]:
    """Return the denials if the recipients are not those allowed for such a result."""
    names = tuple(recipient.name for recipient in request.recipients)
    if request.plan.training is not None:
        if names == request.run_silos:
            return []
        message = "a model may go to nobody but the silos that train it"
        return [deny("RECIPIENT_CLOSED", "training", message, "name the silos that are asked as the recipients")]
    if names == (request.analyst,):
        return []
    message = "the answer may go to nobody but the analyst who asks"
    return [deny("RECIPIENT_CLOSED", f"analysts.{entry}", message, "name yourself as the only recipient")]


def jurisdiction(case: Case) -> Sequence[Denial]:
    """Are the other silos, the recipients and the aggregators in jurisdictions that the purpose allows?"""
    policy, request = case.policy, case.request
    regions = policy.purposes[request.purpose].recipients_in
    if regions is None:
        return ()
    known = case.jurisdictions
    parties: list[tuple[str, str | None]] = [
        (f"the silo {name!r}", known.silos.get(name)) for name in request.run_silos if name != policy.silo.id
    ]
    parties += [(f"the aggregator {name!r}", found) for name, found in known.aggregators.items()]
    if not known.aggregators:
        parties.append(("the aggregator", None))
    step = request.plan.training
    if step is None or step.released_to is not None:  # any other model goes to the silos, which are judged above
        analyst = policy.analyst(request.analyst)
        parties.append((f"the analyst {request.analyst!r}", analyst.jurisdiction if analyst else None))
    away = [
        f"{who} ({'in ' + found if found else 'nobody knows where'})"
        for who, found in parties
        if not any(contains(region, found) for region in regions)
    ]
    if not away:
        return ()
    rule = f"purposes.{request.purpose}.recipients_in"
    message = f"this purpose stays in {', '.join(regions) or 'no place'}; elsewhere: {', '.join(away)}"
    return (deny("JURISDICTION", rule, message, "ask with silos, aggregator and analyst in these places"),)
