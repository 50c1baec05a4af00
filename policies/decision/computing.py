"""How long a plan takes at a silo at most, by its policy's [compute] and by the signed request alone.

The declared time of a plan, where the policy has `compute.fixed_seconds`:

    fixed_seconds + row_nanoseconds * plan size * rows_up_to + decision_nanoseconds * decisions_up_to

rounded up to 25 ms. The last part counts where the purpose asks for consent. Of several statements all but the second
part counts once for every eight blocks. Promise: no row, no count of rows and no clock is read, so neither a refusal
nor the time at which a contribution leaves depends on data.
"""

import math
from collections.abc import Sequence

from policies.decision.case import Case
from policies.decision.compiled import compiled, facts_of
from policies.decision.denial_codes import deny
from policies.document.policy import Policy
from policies.requests.denials import Denial
from policies.requests.request import Request
from policies.units import MAX_WAIT_S, UNDECLARED_S

BLINDING_MS = 25  # of a stated time: for the noise, the masks and the signature, after the computing
_SMALLER = "with fewer columns, figures, groups and conditions"


def plan_size(request: Request) -> int:
    """Return the size of a request's plan: how much each row costs, in the unit of `compute.row_nanoseconds`."""
    return request.plan.size(request.table)


def declared_ms(policy: Policy, request: Request) -> int | None:
    """Return the declared time of a request's plan in milliseconds; None where the policy declares none."""
    declared = compiled(policy).declared
    if declared is None:
        return None
    size = facts_of(request, policy.privacy_unit.max_silos).size
    return declared.milliseconds(request.table.names, request.purpose, size, len(request.plan.blocks))


def stated_ms(policy: Policy, request: Request) -> int | None:
    """Return how many milliseconds the computing may take, as an acceptance states; None where no policy says it.

    Without a declared time it may take `compute.seconds`, and no longer than the request waits.
    """
    declared, most = declared_ms(policy, request), compiled(policy).most_seconds
    if declared is None and most is not None:
        return 1000 * min(most, request.waits_s)
    return declared


def limit_seconds(policy: Policy, request: Request) -> float:
    """Return how long the computing of an accepted request may take: of a stated time, all but `BLINDING_MS`."""
    stated = stated_ms(policy, request)
    return UNDECLARED_S if stated is None else max(stated - BLINDING_MS, stated / 2) / 1000


def longest_seconds(policy: Policy) -> int:
    """Return how long the computing of any request may take."""
    rules = compiled(policy)
    if rules.most_seconds is not None:
        return rules.most_seconds
    if rules.declared is None:
        return UNDECLARED_S
    return MAX_WAIT_S if rules.declared.grows else min(MAX_WAIT_S, math.ceil(rules.declared.fixed_most_ms / 1000))


def declared_time(case: Case) -> Sequence[Denial]:
    """Does the plan take no longer than the policy allows, and than the request waits, by its declared time?"""
    rules = case.compiled
    if rules.declared is None:
        return ()
    request, facts, most = case.request, case.facts, rules.most_seconds
    blocks = len(request.plan.blocks)
    seconds = rules.declared.milliseconds(request.table.names, request.purpose, facts.size, blocks) / 1000
    limit = MAX_WAIT_S if most is None else most
    if seconds <= limit and seconds <= facts.waits_s:
        return ()
    if seconds > limit:
        rule = "compute" if most is None else "compute.seconds"
        message = f"this plan may take {seconds:g} s here, and at most {limit} s are computed"
        return (deny("TOO_SLOW", rule, message, f"ask {_SMALLER}"),)
    message = f"this plan may take {seconds:g} s here, and the request waits {facts.waits_s} s"
    return (deny("TOO_SLOW", "compute", message, f"ask with --deadline {math.ceil(seconds)}, or {_SMALLER}"),)
