"""Is the price within what one request, a run, a window and a lifetime may cost? And which windows those are."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from operator import eq, ge, gt, le, lt, ne

from policies.budget.ledger import ALL_MONTHS, Months, Rate, WindowLimit, window_start
from policies.decision.case import Case
from policies.decision.compiled import compiled
from policies.decision.denial_codes import deny
from policies.document.policy import Policy
from policies.periods import UNKNOWN, span
from policies.requests.denials import Denial
from policies.requests.query import Compare, OneOf
from policies.requests.request import Request
from policies.requests.training import TrainingStep
from policies.units import DAY_S, MICRO

_LAST_DAY = date(9999, 12, 31)
_OPERATORS: dict[str, Callable[[str, str], bool]] = {"=": eq, "<>": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


def run_limit_of(policy: Policy) -> int | None:
    """Return what one training run may spend, in micro-rho; None without a [training] section."""
    return compiled(policy).run_micro


def limits_of(policy: Policy, purpose: str, now: int, months: Months = ALL_MONTHS) -> tuple[WindowLimit, ...]:
    """Return the window limits of a purpose, in the order of the policy, for a request that reads these months."""
    return tuple(
        WindowLimit(
            since=months if rule.limit.window == "data-month" else _window_start(rule.limit.window, now // DAY_S),
            rho=rule.rho,
            per_analyst=rule.per_analyst,
        )
        for rule in compiled(policy).windows.get(purpose, ())
    )


@lru_cache(maxsize=64)
def _window_start(window: str, day: int) -> int:
    return window_start(window, day * DAY_S)


def months_of(policy: Policy, request: Request, now: int) -> Months:
    """Return the months of the data that a request may read: all that its source reads, less what its filter rules out.

    A filter rules out what every one of its conditions must hold for. Without time_column and lookback_days: all.
    """
    source = policy.sources.get(request.table.name)
    if source is None or source.time_column is None or source.lookback_days is None:
        return ALL_MONTHS
    today = datetime.fromtimestamp(now, UTC).date()
    # A date of the future is read as well: lookback_days has no other end.
    whole = Months.between(today - timedelta(days=source.lookback_days), _LAST_DAY)
    if all(one.name != source.time_column for one in request.table.columns):
        return whole
    periods = set(request.table.column(source.time_column).domain) - {UNKNOWN}
    conditions = request.plan.conditions
    filters = [one for one in conditions if isinstance(one, Compare | OneOf) and one.column == source.time_column]
    for one in filters:
        if isinstance(one, OneOf):
            periods &= set(one.values)
        else:
            periods = {period for period in periods if _OPERATORS[one.op](period, one.value)}
    spans = [found for period in periods if (found := span(period)) is not None]
    if not filters or not spans:
        return whole
    return Months.between(min(first for first, _ in spans), max(last for _, last in spans))


def rate_of(policy: Policy, now: int) -> Rate | None:
    """Return how many requests one analyst may ask today, counted since midnight (UTC); None without such a limit."""
    most = None if policy.limits is None else policy.limits.requests_per_day
    return None if most is None else Rate(since=now - now % DAY_S, most=most)


def price(case: Case) -> Sequence[Denial]:
    """Is the price within every limit? What has no noise has no price: `disclosure.release` has judged it."""
    rules, request, cost, spent = case.compiled, case.request, case.facts.cost, case.spent
    reasons: list[Denial] = []
    if not cost:
        return reasons
    least, most = rules.request_micro
    if request.micro_rho < least:
        message = f"rho {request.micro_rho / MICRO:g} is less than {least / MICRO:g}: the answer would be all noise"
        reasons.append(deny("RHO_TOO_SMALL", "budget.per_request.min_rho", message, "ask with a larger epsilon"))
    if cost > most:
        message = f"this request costs rho {cost / MICRO:g}, one request may cost {most / MICRO:g}"
        reasons.append(deny("RHO_PER_REQUEST", "budget.per_request.max_rho", message, "ask with a smaller epsilon"))
    reasons += _windows(case)
    step = request.plan.training
    if step is not None and rules.run_micro is not None:
        whole = cost_of_run(step, cost, spent.run)
        if whole > rules.run_micro:
            message = f"the run costs rho {whole / MICRO:g}, one run may cost {rules.run_micro / MICRO:g}"
            remedy = "train with a smaller epsilon, or fewer steps at the price of each"
            reasons.append(deny("RHO_PER_RUN", "training.max_rho_per_run", message, remedy))
    if spent.lifetime + cost > rules.lifetime_micro:
        message = "what is left of the lifetime budget does not cover this request"
        remedy = "ask with a smaller epsilon; a lifetime budget is never refreshed"
        reasons.append(deny("BUDGET_LIFETIME", "budget.lifetime.rho", message, remedy))
    return reasons


def _windows(case: Case) -> list[Denial]:
    """Return why the price exceeds what its purpose, or this analyst, may spend in a window."""
    purpose, cost = case.request.purpose, case.facts.cost
    rules, windows = case.compiled.windows.get(purpose, []), case.spent.windows
    reasons: list[Denial] = []
    if len(windows) != len(rules):
        return [deny("BUDGET_WINDOW", "budget.limits", "the spending of a window is unknown", "ask again")]
    for rule, used in zip(rules, windows, strict=True):
        window = rule.limit.window.removeprefix("calendar-")
        period, later = f"this {window}", f"when the next {window} begins (UTC)"
        if rule.limit.window == "data-month":
            period, later = "for these months of the data", "about other months"
        remedy = f"ask with a smaller epsilon, or {later}"
        if used.everybody + cost > rule.rho:
            message = f"what is left for {purpose!r} {period} does not cover this request"
            reasons.append(deny("BUDGET_WINDOW", f"budget.limits.{rule.index}.rho", message, remedy))
        if rule.per_analyst is not None and used.analyst + cost > rule.per_analyst:
            left = f"rho {max(0, rule.per_analyst - used.analyst) / MICRO:g} is left to you"
            message = f"{left} for {purpose!r} {period}, this request costs {cost / MICRO:g}"
            reasons.append(deny("BUDGET_ANALYST", f"budget.limits.{rule.index}.per_analyst_rho", message, remedy))
    return reasons


def cost_of_run(step: TrainingStep, cost: int, spent: int) -> int:
    """Return what a run costs in all: as announced, or what it has spent, where steps were repeated or cost more."""
    return max(spent + cost, step.steps * cost)
