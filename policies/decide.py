"""Judge a request by a policy: every reason to say no, each with its rule and a remedy.

A pure function of policy, request, spending and clock. Nothing here has seen a row, so no denial depends on one.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

from crypto.manifest import obstacle
from policies.accountant import charge
from policies.ledger import Spending, WindowLimit, window_start
from policies.model import MICRO, Analyst, Column, ConsentColumn, Policy, Source, micro_floor
from policies.request import (
    MAX_DENIALS,
    Catalogue,
    Denial,
    OpenColumn,
    OpenTable,
    Plan,
    Request,
    TableColumn,
    group_count,
    is_exact,
    uses,
)
from policies.training import Step

CLOCK_SKEW_S = 300


def decide(
    policy: Policy, request: Request, request_hash: bytes, spent: Spending, now: int, feed_at: int | None = None
) -> tuple[Denial, ...]:
    """Return why `policy` refuses `request` at `now` (seconds since 1970, UTC); an empty tuple means yes.

    `spent` holds the windows of `limits_of`, in its order; `feed_at` is when the feed of a consent column was written.
    The request's signature is the caller's to check, against the key that the policy gives its analyst.
    """
    reasons = [*_standing(policy, request, now)]
    if reasons:
        return tuple(reasons)  # who may not ask is not told what could be asked
    source = policy.sources.get(request.table.name)
    if source is None:
        offered = ", ".join(policy.sources)
        return (
            _deny("TABLE_UNKNOWN", "sources", f"there is no table {request.table.name!r}", f"ask about: {offered}"),
        )
    reasons += _release(policy, request, source)
    reasons += _columns(request, source)
    reasons += _shape(policy, request)
    reasons += _training(policy, request)
    reasons += _consent(policy, request, now, feed_at)
    reasons += _price(policy, request, request_hash, spent, now)
    return tuple(reasons[:MAX_DENIALS])


def standing_analyst(policy: Policy, name: str, now: int) -> Analyst | None:
    """Return the analyst of that name, if the policy and the analyst's own term hold at `now`."""
    clock = datetime.fromtimestamp(now, UTC)
    analyst = policy.analysts.get(name)
    if analyst is None or clock >= analyst.until or not _is_valid(policy, clock):
        return None
    return analyst


def _is_valid(policy: Policy, clock: datetime) -> bool:
    return policy.policy is None or policy.policy.valid_from <= clock < policy.policy.valid_until


def open_tables(policy: Policy) -> tuple[OpenTable, ...]:
    """Return what the policy opens; a column without a role is not mentioned."""
    return tuple(
        OpenTable(
            name=name,
            columns=tuple(
                OpenColumn(column=_published(key, column), roles=column.roles, unit=column.unit)
                for key, column in source.columns.items()
                if column.roles
            ),
        )
        for name, source in policy.sources.items()
    )


def catalogue_of(policy: Policy, analyst: Analyst, federation: str, policy_hash: bytes, nonce: bytes) -> Catalogue:
    """Return what the policy opens to one of its analysts."""
    least, most = policy.budget.request_micro
    disclosure, protection, unit = policy.disclosure, policy.protection, policy.privacy_unit
    return Catalogue(
        federation=federation,
        nonce=nonce,
        controller=policy.silo.controller,
        sector=policy.silo.sector,
        policy_hash=policy_hash,
        policy_version=policy.policy.version if policy.policy else 0,
        entity=unit.entity,
        max_rows=unit.max_rows,
        max_silos=unit.max_silos,
        tables=open_tables(policy),
        purposes=analyst.purposes,
        aggregates=disclosure.aggregates,
        backends=protection.accept,
        delta=str(policy.budget.delta),
        min_micro_rho=least,
        max_micro_rho=most,
        max_dimensions=disclosure.max_dimensions,
        max_groups=disclosure.max_groups,
        min_cohort=disclosure.min_cohort,
        min_silos=disclosure.min_silos,
        max_colluding=protection.max_colluding,
        max_missing=protection.max_missing,
    )


def _published(name: str, column: Column) -> TableColumn:
    has_range = column.type == "bool" or column.bounds is not None
    low, high = column.range_steps
    return TableColumn(
        name=name,
        type=column.type,
        low=low if has_range else None,
        high=high if has_range else None,
        step=f"{Decimal(column.grid).normalize():f}" if has_range else None,
        domain=tuple(str(value) for value in column.domain or ()),
        unknown=None if column.unknown is None else str(column.unknown),
    )


def _deny(code: str, rule: str, message: str, remedy: str) -> Denial:
    return Denial(code=code, rule=rule[:300], message=message[:1000], remedy=remedy[:1000])


def _standing(policy: Policy, request: Request, now: int) -> Iterator[Denial]:
    """May this analyst ask for this purpose now?"""
    clock = datetime.fromtimestamp(now, UTC)
    contact = f"ask {policy.silo.contact}"
    if not _is_valid(policy, clock):
        yield _deny("POLICY_EXPIRED", "policy.valid_until", "the policy is not valid today", f"{contact} to renew it")
        return
    if not request.created_at - CLOCK_SKEW_S <= now < request.expires_at:
        yield _deny(
            "REQUEST_EXPIRED", "request.expires_at", "the request is not valid now", "check the clock, ask again"
        )
    analyst = standing_analyst(policy, request.analyst, now)
    if analyst is None:
        yield _deny(
            "ANALYST_UNKNOWN",
            "analysts",
            f"{request.analyst!r} is not an analyst here, or no longer",
            f"{contact} to be added",
        )
        return
    if request.purpose not in analyst.purposes:
        offered = ", ".join(analyst.purposes) or "none"
        rule = f"analysts.{request.analyst}.purposes"
        message = f"the purpose {request.purpose!r} is not open to you"
        yield _deny("PURPOSE_CLOSED", rule, message, f"purposes open to you: {offered}")
        return
    recipients = tuple(recipient.name for recipient in request.recipients)
    if isinstance(request.plan, Step):
        if recipients != request.silos:
            message = "a model may go to nobody but the silos that train it"
            yield _deny("RECIPIENT_CLOSED", "training", message, "name the silos that are asked as the recipients")
    elif recipients != (request.analyst,):
        message = "the answer may go to nobody but the analyst who asks"
        yield _deny("RECIPIENT_CLOSED", f"analysts.{request.analyst}", message, "name yourself as the only recipient")
    kind = request.plan.kind
    if kind not in policy.purposes[request.purpose].computations or (kind != "query" and policy.training is None):
        rule = f"purposes.{request.purpose}.computations"
        yield _deny("COMPUTATION_CLOSED", rule, f"{kind} is not open for this purpose", contact)


def _release(policy: Policy, request: Request, source: Source) -> Iterator[Denial]:
    """Is the source of the kind that the request is for, and may anything leave it without noise?"""
    rule = f"sources.{request.table.name}.release"
    if is_exact(request) != (source.release == "exact"):
        message = f"the source is {source.release}, the request is {'exact' if is_exact(request) else 'private'}"
        if isinstance(request.plan, Step):
            yield _deny("RELEASE", rule, message, f'train with release = "{source.release}"')
        else:
            yield _deny("RELEASE", rule, message, "an exact source serves training only, never a question")
    if is_exact(request) and (policy.training is None or policy.training.dp == "required"):
        yield _deny("RELEASE", "training.dp", "training without noise is not allowed", 'train with release = "private"')


def _training(policy: Policy, request: Request) -> Iterator[Denial]:
    """Is the run within what the silo takes part in?"""
    step, training = request.plan, policy.training
    if not isinstance(step, Step) or training is None:
        return
    if step.steps > training.max_rounds:
        message = f"a run of {step.steps} steps, at most {training.max_rounds} are allowed"
        yield _deny("MAX_ROUNDS", "training.max_rounds", message, f"ask with steps = {training.max_rounds}")
    if Decimal(step.clip) > training.clip_norm:
        message = f"gradients clipped at {step.clip}, at most {training.clip_norm} is allowed"
        yield _deny("CLIP_NORM", "training.clip_norm", message, f"ask with clip = {training.clip_norm}")


def _columns(request: Request, source: Source) -> Iterator[Denial]:
    """Is every column open in the role it is used in, and defined within the policy?"""
    prefix = f"sources.{request.table.name}.columns"
    for role, names in uses(request.plan).items():
        open_here = ", ".join(name for name, column in source.columns.items() if role in column.roles) or "none"
        remedy = f"columns open as {role}: {open_here}"
        for name in names:
            column = source.columns.get(name)
            if column is None or not column.roles:
                yield _deny("COLUMN_CLOSED", prefix, f"there is no column {name!r} open to any request", remedy)
            elif role not in column.roles:
                allowed = " or ".join(column.roles)
                message = f"column {name!r} may be used as {allowed}, not as {role}"
                yield _deny("COLUMN_ROLE", f"{prefix}.{name}.roles", message, remedy)
    for asked in request.table.columns:
        column = source.columns.get(asked.name)
        if column is None or not column.roles:
            continue  # denied above where it is used; elsewhere it is not read
        for rule, problem in _outside(asked, _published(asked.name, column)):
            remedy = "take the table definition from the catalogue"
            yield _deny("DEFINITION", f"{prefix}.{asked.name}.{rule}", f"column {asked.name!r}: {problem}", remedy)


def _outside(asked: TableColumn, own: TableColumn) -> Iterator[tuple[str, str]]:
    if asked.type != own.type:
        yield "type", f"asked as {asked.type}, it is {own.type}"
    if asked.low is not None and asked.high is not None:
        if asked.step != own.step:
            yield "step", f"asked in steps of {asked.step}, it has {own.step or 'none'}"
        elif own.low is None or own.high is None or asked.low < own.low or asked.high > own.high:
            yield "bounds", "asked with wider bounds than the policy's"
    if own.domain and not asked.domain:
        yield "domain", "asked without the policy's domain"
    if not set(asked.domain) <= set(own.domain):
        yield "domain", "asked with values that the policy's domain lacks"
    if asked.domain and asked.unknown != own.unknown:
        yield "unknown", f"asked with {asked.unknown!r} for missing values, it is {own.unknown!r}"


def _shape(policy: Policy, request: Request) -> Iterator[Denial]:
    """Is the form of the answer within what may leave, and the round within what protects it?"""
    disclosure, protection, unit = policy.disclosure, policy.protection, policy.privacy_unit
    if isinstance(request.plan, Plan):
        yield from _answer(policy, request, request.plan)
    if request.table.max_rows > unit.max_rows:
        message = f"{request.table.max_rows} rows of one {unit.entity} asked, at most {unit.max_rows} enter a request"
        yield _deny("MAX_ROWS", "privacy_unit.max_rows", message, f"ask with max_rows = {unit.max_rows}")
    if request.table.max_silos < unit.max_silos:
        message = (
            f"one {unit.entity} may be known to {unit.max_silos} silos, the request assumes {request.table.max_silos}"
        )
        yield _deny("MAX_SILOS", "privacy_unit.max_silos", message, f"ask with max_silos = {unit.max_silos}")
    if request.backend not in protection.accept:
        accepted = ", ".join(protection.accept) or "none"
        yield _deny("BACKEND", "protection.accept", f"{request.backend} is not accepted", f"accepted: {accepted}")
    if reason := obstacle(len(request.silos), disclosure.min_silos, protection.max_colluding, protection.max_missing):
        yield _deny("ROSTER", "disclosure.min_silos", reason, "ask more silos")


def run_limit_of(policy: Policy) -> int | None:
    """Return what one training run may spend, in micro-rho; None without a [training] section."""
    return None if policy.training is None else micro_floor(policy.training.max_rho_per_run)


def _answer(policy: Policy, request: Request, plan: Plan) -> Iterator[Denial]:
    """Are the figures of a question, and their number, within what may leave?"""
    disclosure = policy.disclosure
    allowed = ", ".join(name.upper() for name in disclosure.aggregates) or "none"
    for function in dict.fromkeys(aggregate.function for aggregate in plan.aggregates):
        if function not in disclosure.aggregates:
            message = f"{function.upper()} is not allowed"
            yield _deny("AGGREGATE", "disclosure.aggregates", message, f"allowed: {allowed}")
    if len(plan.group_by) > disclosure.max_dimensions:
        message = f"{len(plan.group_by)} dimensions, at most {disclosure.max_dimensions} are allowed"
        yield _deny("MAX_DIMENSIONS", "disclosure.max_dimensions", message, "group by fewer columns")
    if group_count(request) > disclosure.max_groups:
        message = f"{group_count(request)} groups, at most {disclosure.max_groups} are allowed"
        yield _deny("MAX_GROUPS", "disclosure.max_groups", message, "group by fewer columns")


def limits_of(policy: Policy, purpose: str, now: int) -> tuple[WindowLimit, ...]:
    """Return the window limits of a purpose, in the order of the policy."""
    return tuple(
        WindowLimit(
            since=window_start(limit.window, now),
            rho=micro_floor(limit.rho),
            per_analyst=None if limit.per_analyst_rho is None else micro_floor(limit.per_analyst_rho),
        )
        for limit in policy.budget.limits
        if limit.purpose == purpose
    )


def _consent(policy: Policy, request: Request, now: int, feed_at: int | None) -> Iterator[Denial]:
    """Is the feed of consent decisions fresh enough to answer by?"""
    purpose = policy.purposes.get(request.purpose)
    if purpose is None or purpose.consent == "none" or not isinstance(policy.consent, ConsentColumn):
        return
    if feed_at is None or now - feed_at > float(policy.consent.stale_after_hours) * 3600:
        message = f"the consent feed is older than {policy.consent.stale_after_hours} hours"
        remedy = f"ask {policy.silo.contact} to refresh the feed"
        yield _deny("CONSENT_STALE", "consent.stale_after_hours", message, remedy)


def _windows(policy: Policy, request: Request, cost: int, spent: Spending, now: int) -> Iterator[Denial]:
    """Is the price within what its purpose, and this analyst, may spend in every window?"""
    limits = [(index, limit) for index, limit in enumerate(policy.budget.limits) if limit.purpose == request.purpose]
    allowed = limits_of(policy, request.purpose, now)
    if len(spent.windows) != len(allowed):
        yield _deny("BUDGET_WINDOW", "budget.limits", "the spending of a window is unknown", "ask again")
        return
    for (index, limit), allowance, used in zip(limits, allowed, spent.windows, strict=True):
        period = limit.window.removeprefix("calendar-")
        if used.everybody + cost > allowance.rho:
            message = f"what is left for {limit.purpose!r} this {period} does not cover this request"
            remedy = f"ask with a smaller epsilon, or when the next {period} begins (UTC)"
            yield _deny("BUDGET_WINDOW", f"budget.limits.{index}.rho", message, remedy)
        if allowance.per_analyst is not None and used.analyst + cost > allowance.per_analyst:
            left = max(0, allowance.per_analyst - used.analyst) / MICRO
            message = (
                f"rho {left:g} is left to you for {limit.purpose!r} this {period}, this request costs {cost / MICRO:g}"
            )
            remedy = f"ask with a smaller epsilon, or when the next {period} begins (UTC)"
            yield _deny("BUDGET_ANALYST", f"budget.limits.{index}.per_analyst_rho", message, remedy)


def _price(policy: Policy, request: Request, request_hash: bytes, spent: Spending, now: int) -> Iterator[Denial]:
    """Is the price within what one request, a window and a lifetime may cost?"""
    cost = charge(request, request_hash, policy.privacy_unit.max_silos)
    least, most = policy.budget.request_micro
    if is_exact(request):
        return  # no noise, no price: `_release` has judged it
    if request.micro_rho < least:
        message = f"rho {request.micro_rho / MICRO:g} is less than {least / MICRO:g}: the answer would be all noise"
        yield _deny("RHO_TOO_SMALL", "budget.per_request.min_rho", message, "ask with a larger epsilon")
    if cost > most:
        message = f"this request costs rho {cost / MICRO:g}, one request may cost {most / MICRO:g}"
        yield _deny("RHO_PER_REQUEST", "budget.per_request.max_rho", message, "ask with a smaller epsilon")
    yield from _windows(policy, request, cost, spent, now)
    if isinstance(request.plan, Step) and (limit := run_limit_of(policy)) is not None:
        whole = max(spent.run + cost, request.plan.steps * cost)
        if whole > limit:
            message = f"the run costs rho {whole / MICRO:g}, one run may cost {limit / MICRO:g}"
            remedy = "train with a smaller epsilon, or fewer steps at the price of each"
            yield _deny("RHO_PER_RUN", "training.max_rho_per_run", message, remedy)
    if spent.lifetime + cost > policy.budget.lifetime_micro:
        message = "what is left of the lifetime budget does not cover this request"
        remedy = "ask with a smaller epsilon; a lifetime budget is never refreshed"
        yield _deny("BUDGET_LIFETIME", "budget.lifetime.rho", message, remedy)
