"""Which requests people must approve, and have they?"""

from collections.abc import Iterator, Sequence

from policies.decision.approvals import approval_status, subject_of
from policies.decision.budget_rules import cost_of_run
from policies.decision.case import Case
from policies.decision.compiled import CompiledPolicy, NeededApproval, compiled, facts_of
from policies.decision.denial_codes import deny
from policies.document.policy import Policy
from policies.requests.denials import Denial
from policies.requests.request import Request
from policies.units import HOUR_S


def approvals_of(policy: Policy, request: Request, of_run: int = 0) -> tuple[NeededApproval, ...]:
    """Return the approvals that a request needs.

    `of_run` is what the training run that it is a step of has spent without it, in micro-rho.
    """
    cost = facts_of(request, policy.privacy_unit.max_silos).cost
    return tuple(_needed(compiled(policy), request, cost, of_run))


def _needed(rules: CompiledPolicy, request: Request, cost: int, of_run: int) -> Iterator[NeededApproval]:
    step = request.plan.training
    whole = cost if step is None else cost_of_run(step, cost, of_run)
    for needed in rules.approvals:
        when = needed.rule.when
        is_meant = when.kind in (None, request.plan.approved_as) and when.purpose in (None, request.purpose)
        if is_meant and (needed.rho_at_least is None or whole >= needed.rho_at_least):
            yield needed


def people(case: Case) -> Sequence[Denial]:
    """Have those approved it who must?"""
    reasons: list[Denial] = []
    if not case.compiled.approvals:
        return reasons
    policy, subject = case.policy, subject_of(case.request, case.request_hash)
    for needed in _needed(case.compiled, case.request, case.facts.cost, case.spent.run):
        rule, path = needed.rule, f"approvals.{needed.index}"
        lasts_s = rule.expires_hours * HOUR_S
        found = approval_status(case.verdicts, subject, policy.silo.id, needed.keys, rule.need, lasts_s, case.now)
        if found.rejected:
            message = f"{', '.join(found.rejected)} rejected it"
            reasons.append(deny("APPROVAL_REJECTED", path, message, f"ask {policy.silo.contact} why"))
        elif not found.is_given:
            given = f", given by {', '.join(found.approved)}" if found.approved else ""
            message = f"{rule.need} of {', '.join(rule.of)} must approve it{given}"
            remedy = f"wait, then send the same request again; an approval lasts {rule.expires_hours} hours"
            reasons.append(deny("APPROVAL_AWAITED", path, message, remedy))
    return reasons
