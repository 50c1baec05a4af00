"""The rules of a key search: is the search the one that the policy opens, and does the budget cover all of it?

A search is one approval and one announced price, and many requests. Which prefixes a round asks about is its analyst's
choice: the role `key` opens the noised number of persons by any prefix, so a round can tell no more than it may. No
other column, filter or group stands beside them.
"""

from collections.abc import Sequence

from policies.decision.case import Case
from policies.decision.denial_codes import deny
from policies.decision.run_price import announced
from policies.requests.denials import Denial
from policies.units import MICRO


def shape(case: Case) -> Sequence[Denial]:
    """Are the keys that are searched those that the policy declares?"""
    search = case.request.plan.search
    column = None if search is None else case.source.source.columns.get(search.column)
    own = None if column is None else column.keys
    if search is None or own is None or search.shape == own.shape:  # `disclosure.columns` denies a column without keys
        return ()
    message = f"keys of {search.column!r} are searched as {search.shape.in_words}; the policy has {own.shape.in_words}"
    rule = f"sources.{case.request.table.name}.columns.{search.column}.keys"
    return (deny("DEFINITION", rule, message, "take what a key is from the catalogue"),)


def whole(case: Case) -> Sequence[Denial]:
    """Is the price of the whole search within every limit before its first round is charged, and kept to after it?"""
    request, spent, rules = case.request, case.spent, case.compiled
    search = request.plan.search
    if search is None:
        return ()
    most = announced(search, request, case.policy.privacy_unit.max_silos)
    reasons: list[Denial] = []
    cost = case.facts.cost
    if spent.run + cost > most:
        message = f"the search announced rho {most / MICRO:g} and has spent {spent.run / MICRO:g} of it"
        where = f"sources.{request.table.name}.columns.{search.column}.keys"
        reasons.append(deny("RHO_PER_RUN", where, message, "begin a new search, at a new price"))
    to_come = max(cost, most - spent.run)

    def covers(limit: int, used: int) -> bool:
        return used + to_come <= limit or used + cost > limit  # which `budget_rules.price` denies

    remedy = "search at a smaller epsilon"
    if case.policy.budget.per_request is not None and most > rules.request_micro[1]:
        limit = rules.request_micro[1] / MICRO
        message = f"the whole search costs rho {most / MICRO:g}, one request may cost {limit:g}"
        reasons.append(deny("RHO_PER_REQUEST", "budget.per_request.max_rho", message, remedy))
    if not covers(rules.lifetime_micro, spent.lifetime):
        message = "what is left of the lifetime budget does not cover all rounds of this search"
        reasons.append(deny("BUDGET_LIFETIME", "budget.lifetime.rho", message, remedy))
    for rule, used in zip(rules.windows.get(request.purpose, []), spent.windows, strict=False):
        path, purpose = f"budget.limits.{rule.index}", request.purpose
        if not covers(rule.rho, used.everybody):
            message = f"what is left for {purpose!r} does not cover all rounds of this search"
            reasons.append(deny("BUDGET_WINDOW", f"{path}.rho", message, remedy))
        if rule.per_analyst is not None and not covers(rule.per_analyst, used.analyst):
            message = f"what is left to you for {purpose!r} does not cover all rounds of this search"
            reasons.append(deny("BUDGET_ANALYST", f"{path}.per_analyst_rho", message, remedy))
    return reasons
