"""The rules of [budget]: is the price within the limits of a request, a run, the windows and the lifetime?"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from operator import eq, ge, gt, le, lt, ne

from crypto.noise import TABLE_SLOTS
from policies.budget.ledger import ALL_MONTHS, Months, Rate, WindowLimit, window_start
from policies.budget.sampler import MAX_EPSILON
from policies.decision.case import Case
from policies.decision.compiled import compiled
from policies.decision.denial_codes import deny
from policies.decision.run_price import RunPrice, announced, run_price
from policies.document.policy import Policy
from policies.domains import LongDomain
from policies.periods import UNKNOWN, span
from policies.requests.denials import Denial
from policies.requests.predicates import Compare, OneOf, Predicate
from policies.requests.request import Request
from policies.requests.runs import RunPart
from policies.units import DAY_S, MAX_STEPS, MICRO, counted

_LAST_DAY = date(9999, 12, 31)
_OPERATORS: dict[str, Callable[[str, str], bool]] = {"=": eq, "<>": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


def run_limit_of(policy: Policy, request: Request) -> int | None:
    """Return the limit of a request's run, in micro-rho; None for what is no part of one, and without a limit.

    That of a training run is the policy's. A key search may cost what it announced, which is what people approve.
    """
    part = request.plan.part
    if part is None:
        return None
    if request.plan.search is None:
        return compiled(policy).run_micro
    return announced(part, request, policy.privacy_unit.max_silos)


def delta_limit_of(policy: Policy) -> int:
    """Return what noise from tables may cost over the life of the ledger, in atto-delta."""
    return compiled(policy).sampler_limit


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
    """Return the months of data that a request may read: those of its source, without those that its filter excludes.

    Only conditions that every row must meet exclude months. Without time_column and lookback_days: all months.
    """
    source = policy.sources.get(request.table.name)
    if source is None or source.time_column is None or source.lookback_days is None or request.table.beside:
        return ALL_MONTHS  # a person's row in another table is of no month
    today = datetime.fromtimestamp(now, UTC).date()
    # Dates in the future are read too, as lookback_days limits only the past.
    whole = Months.between(today - timedelta(days=source.lookback_days), _LAST_DAY)
    if all(one.name != source.time_column for one in request.table.columns):
        return whole
    listed = request.table.column(source.time_column).domain
    if isinstance(listed, LongDomain):  # no list of periods is as long; `disclosure.definitions` denies it
        return whole
    found = [_months_in(part.conditions, source.time_column, listed, whole) for part in request.plan.alone]
    return Months(min(one.first for one in found), max(one.last for one in found))


def _months_in(conditions: Sequence[Predicate], time_column: str, listed: Sequence[str], whole: Months) -> Months:
    """Return the months of the rows that meet all these conditions."""
    periods = set(listed) - {UNKNOWN}
    filters = [one for one in conditions if isinstance(one, Compare | OneOf) and one.column == time_column]
    if any(UNKNOWN in named for one in filters if (named := _named(one)) is not None):
        return whole  # what no period holds may be of any month
    for one in filters:
        if isinstance(one, OneOf):
            periods &= set(one.values)
        else:
            periods = {period for period in periods if _OPERATORS[one.op](period, one.value)}
    spans = [found for period in periods if (found := span(period)) is not None]
    if not filters or not spans:
        return whole
    return Months.between(min(first for first, _ in spans), max(last for _, last in spans))


def _named(condition: Compare | OneOf) -> tuple[str, ...] | None:
    """Return the periods that a condition lists; None if it compares with one in their order."""
    if isinstance(condition, OneOf):
        return condition.values
    return (condition.value,) if condition.op == "=" else None


def rate_of(policy: Policy, now: int) -> Rate | None:
    """Return how many requests one analyst may ask today, counted since midnight (UTC); None without such a limit."""
    most = None if policy.limits is None else policy.limits.requests_per_day
    return None if most is None else Rate(since=now - now % DAY_S, most=most)


def price(case: Case) -> Sequence[Denial]:
    """Is the price within every limit? A request without noise has no price; `disclosure.release` judges it.

    With the first step of a training run the price of all its steps must be.
    """
    rules, request, cost, spent = case.compiled, case.request, case.facts.cost, case.spent
    reasons: list[Denial] = []
    if not cost:
        return reasons
    least, most = rules.request_micro
    if cost < least:
        message = f"this request costs rho {cost / MICRO:g}, less than {least / MICRO:g}: the answer would be all noise"
        reasons.append(deny("RHO_TOO_SMALL", "budget.per_request.min_rho", message, _larger(case, least)))
    reasons += _too_small(case, least)
    if cost > most:
        message = f"this request costs rho {cost / MICRO:g}, one request may cost {most / MICRO:g}"
        reasons.append(deny("RHO_PER_REQUEST", "budget.per_request.max_rho", message, _smaller(case, most)))
    whole_price = _price_of(case)
    what = "this run" if whole_price.is_ahead else "this request"
    reasons += _windows(case, whole_price, what)
    step = request.plan.training
    if step is not None and rules.run_micro is not None:
        whole = cost_of_run(step, cost, spent.run)
        if whole > rules.run_micro:
            message = f"the run costs rho {whole / MICRO:g}, one run may cost {rules.run_micro / MICRO:g}"
            fits = max(0, rules.run_micro - spent.run) // cost
            remedy = f"train with a smaller epsilon, or at most {counted(fits, 'step')} at this price of each"
            if not fits:
                remedy = "train with a smaller epsilon"
            reasons.append(deny("RHO_PER_RUN", "training.max_rho_per_run", message, remedy))
    if spent.lifetime + whole_price.micro_rho > rules.lifetime_micro:
        message = f"what is left of the lifetime budget does not cover {what}{_of_steps(whole_price)}"
        remedy = "ask with a smaller epsilon; a lifetime budget is never refreshed"
        reasons.append(deny("BUDGET_LIFETIME", "budget.lifetime.rho", message, remedy))
    return [*reasons, *_delta(case, whole_price)]


def _larger(case: Case, least: int) -> str:
    """Return what makes the price of a request, or of each step of a run, large enough."""
    step, cost = case.request.plan.training, case.facts.cost
    if step is None:
        return "ask with a larger epsilon"
    fits = step.steps * cost // least
    if not fits:
        return "train with a larger epsilon: this one buys no step"
    return f"train with {step.rounds_key} = {fits} or fewer at this epsilon, or with a larger epsilon"


def _smaller(case: Case, most: int) -> str:
    """Return what makes the price of a request, or of each step of a run, small enough."""
    step, cost = case.request.plan.training, case.facts.cost
    if step is None:
        return "ask with a smaller epsilon"
    fits = -(-step.steps * cost // most) if most else MAX_STEPS + 1
    if fits > MAX_STEPS:
        return "train with a smaller epsilon"
    return f"train with {step.rounds_key} = {fits} or more at this epsilon, or with a smaller epsilon"


def _price_of(case: Case) -> RunPrice:
    """Return what the request reserves, with the steps of its run that come after it."""
    part = case.request.plan.training
    if part is None:
        return RunPrice(1, case.facts.cost, case.facts.sampler_delta)
    return run_price(case.request, case.policy.privacy_unit.max_silos, case.spent.next_step)


def _of_steps(price: RunPrice) -> str:
    if not price.is_ahead:
        return ""
    return f", whose {counted(price.parts, 'step')} cost rho {price.micro_rho / MICRO:g} and are reserved together"


def _too_small(case: Case, least: int) -> Iterator[Denial]:
    """Yield the denial if the part of a statement is less than one request may cost, though all together are not."""
    cost, portions = case.facts.cost, case.request.plan.portions
    weight, whole = min(portions, key=lambda one: Fraction(*one))
    if cost < least or cost * weight >= least * whole:
        return
    place = portions.index((weight, whole)) + 1
    message = f"statement {place}: it has rho {cost * weight / whole / MICRO:g} of the price, less than"
    message += f" {least / MICRO:g}: the answer would be all noise"
    remedy = "ask with a larger epsilon, or for fewer statements at once"
    yield deny("RHO_TOO_SMALL", "budget.per_request.min_rho", message, remedy)


def _delta(case: Case, whole: RunPrice) -> Sequence[Denial]:
    """Return the denial if the noise of long answers, past ones included, uses more of delta than samplers may use."""
    cost, limit, spent = whole.atto_delta, case.compiled.sampler_limit, case.spent.atto_delta
    if spent + cost <= limit:
        return ()
    remedy = f"ask for fewer than {TABLE_SLOTS} groups or weights: the noise of a short answer needs no delta"
    if spent > limit:  # another version of the policy allowed more: no rho can be converted at the rest of delta
        message = "the noise of earlier long answers has used more of delta than this policy allows"
        remedy = case.compiled.ask_contact
    elif not limit:
        message = f"the lifetime budget is above epsilon {MAX_EPSILON}, so there are no long answers"
    else:
        message = "what is left of delta for the noise of long answers does not cover this request"
    return (deny("BUDGET_DELTA", "budget.delta", message, remedy),)


def _windows(case: Case, whole: RunPrice, what: str) -> list[Denial]:
    """Return the denials if the price exceeds a window limit of its purpose or of this analyst."""
    purpose, cost = case.request.purpose, whole.micro_rho
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
            message = f"what is left for {purpose!r} {period} does not cover {what}{_of_steps(whole)}"
            reasons.append(deny("BUDGET_WINDOW", f"budget.limits.{rule.index}.rho", message, remedy))
        if rule.per_analyst is not None and used.analyst + cost > rule.per_analyst:
            left = f"rho {max(0, rule.per_analyst - used.analyst) / MICRO:g} is left to you"
            message = f"{left} for {purpose!r} {period}, {what} costs {cost / MICRO:g}"
            reasons.append(deny("BUDGET_ANALYST", f"budget.limits.{rule.index}.per_analyst_rho", message, remedy))
    return reasons


def cost_of_run(part: RunPart, cost: int, spent: int) -> int:
    """Return the cost of a whole run: the announced one, or a higher one if parts were repeated or cost more."""
    return max(spent + cost, part.steps * cost)
