"""The rule of [[approvals]]: which requests people must approve, and whether they have.

Promise: a threshold in rho is no threshold of one request. It is held against what the analyst would have spent with it
in the longest calendar window of the purpose, and what has no noise reaches every threshold.
"""

from collections.abc import Iterator, Sequence

from policies.budget.ledger import Spending, window_start
from policies.decision.approvals import approval_status
from policies.decision.budget_rules import cost_of_run
from policies.decision.case import Case
from policies.decision.compiled import CompiledPolicy, NeededApproval, compiled, facts_of
from policies.decision.denial_codes import deny
from policies.document.policy import Policy
from policies.requests.denials import Denial
from policies.requests.request import Request
from policies.units import HOUR_S


def approvals_of(policy: Policy, request: Request, spent: Spending) -> tuple[NeededApproval, ...]:
    """Return the approvals that a request needs.

    `spent` has what its run has spent without this part, and its analyst since the time of `counted_since`.
    """
    cost = facts_of(request, policy.privacy_unit.max_silos).cost
    return tuple(_needed(compiled(policy), request, cost, spent))


def counted_since(policy: Policy, purpose: str, now: int) -> int | None:
    """Return since when an analyst's spending counts towards `rho_at_least`; None where no rule has one.

    That is the beginning of the longest calendar window of the purpose; without one, of all time.
    """
    rules = compiled(policy)
    if all(needed.rho_at_least is None for needed in rules.approvals):
        return None
    windows = (rule.limit.window for rule in rules.windows.get(purpose, ()))
    return min((window_start(window, now) for window in windows if window != "data-month"), default=0)


def _needed(rules: CompiledPolicy, request: Request, cost: int, spent: Spending) -> Iterator[NeededApproval]:
    part = request.plan.part
    whole = cost if part is None else cost_of_run(part, cost, spent.run)
    to_come = cost if part is None else whole - spent.run
    for needed in rules.approvals:
        when, least = needed.rule.when, needed.rho_at_least
        if when.kind not in (None, request.plan.approved_as) or when.purpose not in (None, request.purpose):
            continue
        before = spent.by_analyst.all_purposes if when.purpose is None else spent.by_analyst.purpose
        if least is None or not cost or max(whole, before + to_come) >= least:
            yield needed


def people(case: Case) -> Sequence[Denial]:
    """Have the required people approved it?"""
    reasons: list[Denial] = []
    if not case.compiled.approvals:
        return reasons
    policy, subject = case.policy, case.subject
    for needed in _needed(case.compiled, case.request, case.facts.cost, case.spent):
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
