"""Judge a request by a policy: every reason to say no, each with its rule and a remedy.

A pure function of policy, request, ledger, the people's verdicts and the clock. Nothing here has seen a row, so no
denial depends on one. What follows from the policy alone is worked out once for each policy.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from operator import eq, ge, gt, le, lt, ne

from crypto.keys import VerifyKey
from crypto.rounds.bounds import why_infeasible
from policies.budget.accountant import charge
from policies.budget.ledger import ALL_MONTHS, Months, Rate, Spending, WindowLimit, window_start
from policies.decision.approvals import standing, subject_of
from policies.document.catalogue import published
from policies.document.columns import Column, Source
from policies.document.policy import BUILT_NOISE, BUILT_SECURITY_BITS, Analyst, ApprovalRule, Limit, Policy, contains
from policies.periods import SLACK_DAYS, UNKNOWN, span
from policies.requests.approval import Approval
from policies.requests.denials import MAX_DENIALS, Denial
from policies.requests.query import Both, Compare, OneOf, Plan
from policies.requests.request import Request
from policies.requests.statistic import group_count, uses
from policies.requests.tables import TableColumn
from policies.requests.training import Step
from policies.units import DAY_S, HOUR_S, MICRO, MINUTE_S, Number, Role, micro_floor

CLOCK_SKEW_S = 300
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_KEPT_POLICIES = 8
_KEPT_REQUESTS = 64
_LAST_DAY = date(9999, 12, 31)
_OPERATORS: dict[str, Callable[[str, str], bool]] = {"=": eq, "<>": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


def is_stale_feed(feed_at: int | None, hours: Number, now: int) -> bool:
    """Return whether decisions written at `feed_at` are too old at `now`; so are those of no known time, or to come."""
    return feed_at is None or not -CLOCK_SKEW_S <= now - feed_at <= hours * HOUR_S


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parties of the federation are, as its authority signed it; a party that is not named is nowhere."""

    silos: Mapping[str, str] = field(default_factory=dict)
    aggregators: Mapping[str, str | None] = field(default_factory=dict)


NOWHERE = Places()


def decide(
    policy: Policy,
    request: Request,
    request_hash: bytes,
    spent: Spending,
    now: int,
    feed_at: int | None = None,
    verdicts: Sequence[Approval] = (),
    places: Places = NOWHERE,
) -> tuple[Denial, ...]:
    """Return why `policy` refuses `request` at `now` (seconds since 1970, UTC); an empty tuple means yes.

    `spent` holds the windows of `limits_of`, in its order, and the requests since the time of `rate_of`; it is of the
    analyst that the policy names (`Policy.analyst_entry`). `feed_at` is when the decisions on consent were written,
    `verdicts` are what people said of requests. The request's signature is the caller's to check, against the key that
    the policy gives its analyst.
    """
    judge, plan = _judge_of(policy), request.plan
    step = None if plan.kind == "query" else plan  # checked once: `isinstance` of a model that it is not is slow
    exact = step is not None and step.is_exact
    reasons = judge.standing(request, step, now)
    if reasons:
        return tuple(reasons)  # who may not ask is not told what could be asked
    source = judge.sources.get(request.table.name)
    if source is None:
        offered = ", ".join(policy.sources)
        return (
            _deny("TABLE_UNKNOWN", "sources", f"there is no table {request.table.name!r}", f"ask about: {offered}"),
        )
    reasons += judge.release(request, step, exact, source)
    facts = _facts_of(request, policy.privacy_unit.max_silos)
    reasons += judge.columns(request, facts, source, now)
    reasons += judge.shape(request)
    if step is not None:
        reasons += judge.training(step)
    elif plan.kind == "query":
        reasons += judge.answer(plan, facts.groups)
    reasons += judge.consent(request, now, feed_at)
    reasons += judge.places(request, step, places)
    reasons += judge.pace(now, spent.requests)
    if not exact:  # without noise there is no price, `release` has judged it
        reasons += judge.price(request, step, facts.cost, spent)
    if not reasons:  # people are not asked about what would be refused anyway
        reasons += judge.people(request, step, request_hash, facts.cost, spent.run, verdicts, now)
    return tuple(reasons[:MAX_DENIALS])


def standing_analyst(policy: Policy, name: str, now: int) -> Analyst | None:
    """Return the analyst of that name, if the policy and the analyst's own term hold at `now`."""
    judge = _judge_of(policy)
    entry = policy.analyst_entry(name)
    if entry is None or now >= judge.until[entry] or not judge.is_valid(now):
        return None
    return policy.analysts[entry]


def run_limit_of(policy: Policy) -> int | None:
    """Return what one training run may spend, in micro-rho; None without a [training] section."""
    return None if policy.training is None else micro_floor(policy.training.max_rho_per_run)


def limits_of(policy: Policy, purpose: str, now: int, months: Months = ALL_MONTHS) -> tuple[WindowLimit, ...]:
    """Return the window limits of a purpose, in the order of the policy, for a request that reads these months."""
    return tuple(
        WindowLimit(
            since=months if limit.window == "data-month" else _window_start(limit.window, now // DAY_S),
            rho=rho,
            per_analyst=per_analyst,
        )
        for _, limit, rho, per_analyst in _judge_of(policy).limits.get(purpose, ())
    )


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
    plan = request.plan
    if (
        plan.kind != "query"
        or plan.where is None
        or all(one.name != source.time_column for one in request.table.columns)
    ):
        return whole
    periods = set(request.table.column(source.time_column).domain) - {UNKNOWN}
    conditions = plan.where.operands if isinstance(plan.where, Both) else (plan.where,)
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


def approval_of(
    policy: Policy, request: Request, request_hash: bytes, of_run: int = 0
) -> tuple[tuple[int, ApprovalRule, Mapping[str, VerifyKey]], ...]:
    """Return the approvals that a request needs: the place of each in the policy, its rule, and whose keys count.

    `of_run` is what the training run that it is a step of has spent without it.
    """
    cost = charge(request, request_hash, policy.privacy_unit.max_silos)
    step = request.plan if isinstance(request.plan, Step) else None
    return tuple(_judge_of(policy).needed(request, step, cost, of_run))


@lru_cache(maxsize=64)
def _window_start(window: str, day: int) -> int:
    return window_start(window, day * DAY_S)


class _Columns:
    """The open columns of one source: in which roles, and how each is published."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.roles = {name: column.roles for name, column in source.columns.items() if column.roles}
        self._still = {
            name: published(name, column, source, 0)
            for name, column in source.columns.items()
            if column.roles and column.type != "date"
        }

    def definition(self, name: str, now: int) -> TableColumn | None:
        """Return the widest definition that is accepted at `now`; None of a closed column."""
        still = self._still.get(name)
        if still is not None or name not in self.roles:
            return still
        return _dated(name, self.source.columns[name], self.source, now // DAY_S)


_DATED: OrderedDict[tuple[int, str, int], tuple[Source, TableColumn]] = OrderedDict()


def _dated(name: str, column: Column, source: Source, day: int) -> TableColumn:
    """Return the definition of a date on a day, with the periods that a request on its way may still name."""
    key = id(source), name, day
    kept = _DATED.get(key)
    if kept is not None and kept[0] is source:
        return kept[1]
    made = published(name, column, source, day * DAY_S, SLACK_DAYS)
    _DATED[key] = source, made
    while len(_DATED) > 64:
        _DATED.popitem(last=False)
    return made


@dataclass(frozen=True, slots=True)
class _Facts:
    """What follows from a request alone: the columns it uses, its groups, what it costs one person at such a silo."""

    used: Mapping[Role, tuple[str, ...]]
    read: frozenset[str]  # all of them
    groups: int
    cost: int


# A request is judged again when a reservation fails, when a round is tried anew and when its price is asked for.
_FACTS: OrderedDict[tuple[int, int], tuple[Request, _Facts]] = OrderedDict()


def _facts_of(request: Request, max_silos: int) -> _Facts:
    key = id(request), max_silos
    kept = _FACTS.get(key)
    if kept is not None and kept[0] is request:  # a request that is kept keeps its id
        return kept[1]
    used = uses(request.plan)
    read = frozenset(name for names in used.values() for name in names)
    made = _Facts(used, read, group_count(request), charge(request, b"", max_silos))
    _FACTS[key] = request, made
    while len(_FACTS) > _KEPT_REQUESTS:
        _FACTS.popitem(last=False)
    return made


_JUDGES: OrderedDict[int, "_Judge"] = OrderedDict()


def _judge_of(policy: Policy) -> "_Judge":
    judge = _JUDGES.get(id(policy))
    if judge is None or judge.policy is not policy:  # an id may be used again, a policy that is kept keeps its own
        judge = _JUDGES[id(policy)] = _Judge(policy)
        while len(_JUDGES) > _KEPT_POLICIES:
            _JUDGES.popitem(last=False)
    return judge


class _Judge:
    """One policy, and what follows from it alone. Every check returns its reasons, none if all is well."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self._contact = policy, f"ask {policy.silo.contact}"
        head = policy.policy
        self._term = (head.valid_from.timestamp(), head.valid_until.timestamp()) if head is not None else None
        self.until = {name: analyst.until.timestamp() for name, analyst in policy.analysts.items()}
        self._purposes = {name: frozenset(analyst.purposes) for name, analyst in policy.analysts.items()}
        self.sources = {name: _Columns(source) for name, source in policy.sources.items()}
        self.limits: dict[str, list[tuple[int, Limit, int, int | None]]] = {}
        for index, limit in enumerate(policy.budget.limits):
            per_analyst = None if limit.per_analyst_rho is None else micro_floor(limit.per_analyst_rho)
            self.limits.setdefault(limit.purpose, []).append((index, limit, micro_floor(limit.rho), per_analyst))
        self._request_micro, self._lifetime = policy.budget.request_micro, policy.budget.lifetime_micro
        self._run_limit = run_limit_of(policy)
        keys = {name: VerifyKey.parse(person.key) for name, person in policy.people.items()}
        self._approvals = [
            (
                index,
                rule,
                None if rule.when.rho_at_least is None else micro_floor(rule.when.rho_at_least),
                {name: keys[name] for name in rule.of if name in keys},
            )
            for index, rule in enumerate(policy.approvals)
        ]

    def is_valid(self, now: int) -> bool:
        return self._term is None or self._term[0] <= now < self._term[1]

    def standing(self, request: Request, step: Step | None, now: int) -> list[Denial]:
        """May this analyst ask for this purpose now?"""
        policy, contact = self.policy, self._contact
        reasons: list[Denial] = []
        if not self.is_valid(now):
            message = "the policy is not valid today"
            return [_deny("POLICY_EXPIRED", "policy.valid_until", message, f"{contact} to renew it")]
        if not request.created_at - CLOCK_SKEW_S <= now < request.expires_at:
            message = "the request is not valid now"
            reasons.append(_deny("REQUEST_EXPIRED", "request.expires_at", message, "check the clock, ask again"))
        name = request.analyst
        entry = policy.analyst_entry(name)
        if entry is None or now >= self.until[entry]:
            message = f"{name!r} is not an analyst here, or no longer"
            return [*reasons, _deny("ANALYST_UNKNOWN", "analysts", message, f"{contact} to be added")]
        if request.purpose not in self._purposes[entry]:
            offered = ", ".join(policy.analysts[entry].purposes) or "none"
            message = f"the purpose {request.purpose!r} is not open to you"
            remedy = f"purposes open to you: {offered}"
            return [*reasons, _deny("PURPOSE_CLOSED", f"analysts.{entry}.purposes", message, remedy)]
        if step is not None:
            if tuple(recipient.name for recipient in request.recipients) != request.silos:
                message = "a model may go to nobody but the silos that train it"
                remedy = "name the silos that are asked as the recipients"
                reasons.append(_deny("RECIPIENT_CLOSED", "training", message, remedy))
        elif len(request.recipients) != 1 or request.recipients[0].name != name:
            message = "the answer may go to nobody but the analyst who asks"
            remedy = "name yourself as the only recipient"
            reasons.append(_deny("RECIPIENT_CLOSED", f"analysts.{entry}", message, remedy))
        kind = request.plan.kind
        if kind not in policy.purposes[request.purpose].computations or (kind != "query" and policy.training is None):
            rule = f"purposes.{request.purpose}.computations"
            reasons.append(_deny("COMPUTATION_CLOSED", rule, f"{kind} is not open for this purpose", contact))
        return reasons

    def release(self, request: Request, step: Step | None, exact: bool, columns: _Columns) -> list[Denial]:
        """Is the source of the kind that the request is for, and may such a result leave?"""
        source, policy = columns.source, self.policy
        reasons: list[Denial] = []
        rule = f"sources.{request.table.name}"
        if exact != (source.release == "exact"):
            message = f"the source is {source.release}, the request is {'exact' if exact else 'private'}"
            remedy = "an exact source serves training only, never a question"
            if step is not None:
                remedy = f'train with release = "{source.release}"'
            reasons.append(_deny("RELEASE", f"{rule}.release", message, remedy))
        if exact and (policy.training is None or policy.training.dp == "required"):
            message = "training without noise is not allowed"
            reasons.append(_deny("RELEASE", "training.dp", message, 'train with release = "private"'))
        result = "query-result" if step is None else "model"
        if result not in policy.disclosure.release:
            allowed = ", ".join(policy.disclosure.release) or "nothing"
            message = f"a {result} may not leave"
            reasons.append(_deny("RELEASE", "disclosure.release", message, f"what may leave: {allowed}"))
        return reasons

    def columns(self, request: Request, facts: "_Facts", columns: _Columns, now: int) -> list[Denial]:
        """Is every column open in the role it is used in, and defined within the policy?"""
        source = columns.source
        reasons: list[Denial] = []
        prefix = f"sources.{request.table.name}.columns"
        for role, names in facts.used.items():
            for name in names:
                roles = columns.roles.get(name)
                if roles is None or role not in roles:
                    open_here = ", ".join(one for one, open_as in columns.roles.items() if role in open_as) or "none"
                    remedy = f"columns open as {role}: {open_here}"
                    if roles is None:
                        message = f"there is no column {name!r} open to any request"
                        reasons.append(_deny("COLUMN_CLOSED", prefix, message, remedy))
                    else:
                        message = f"column {name!r} may be used as {' or '.join(roles)}, not as {role}"
                        reasons.append(_deny("COLUMN_ROLE", f"{prefix}.{name}.roles", message, remedy))
                elif source.columns[name].domain == "discover":
                    message = f"the values of column {name!r} would have to be discovered, which no version can do yet"
                    reasons.append(_deny("NOT_BUILT", f"{prefix}.{name}.domain", message, "use another column"))
                elif role == "dimension" and source.columns[name].sole_dimension and len(names) > 1:
                    message = f"column {name!r} may be grouped by alone only"
                    remedy = "group by this column, or by the others"
                    reasons.append(_deny("SOLE_DIMENSION", f"{prefix}.{name}.sole_dimension", message, remedy))
        for asked in request.table.columns:
            own = columns.definition(asked.name, now)
            if own is None or asked.name not in facts.read or asked.__dict__ == own.__dict__:
                continue  # a closed one is denied above where it is used; what is not used is not read
            for rule, problem in _outside(asked, own):
                remedy = "take the table definition from the catalogue"
                message = f"column {asked.name!r}: {problem}"
                reasons.append(_deny("DEFINITION", f"{prefix}.{asked.name}.{rule}", message, remedy))
        return reasons

    def shape(self, request: Request) -> list[Denial]:
        """Is the form of the answer within what may leave, and the round within what protects it?"""
        policy = self.policy
        disclosure, protection, unit = policy.disclosure, policy.protection, policy.privacy_unit
        reasons: list[Denial] = []
        if request.table.max_rows > unit.max_rows:
            message = (
                f"{request.table.max_rows} rows of one {unit.entity} asked, at most {unit.max_rows} enter a request"
            )
            reasons.append(_deny("MAX_ROWS", "privacy_unit.max_rows", message, f"ask with max_rows = {unit.max_rows}"))
        if request.table.max_silos < unit.max_silos:
            known = f"one {unit.entity} may be known to {unit.max_silos} silos"
            message = f"{known}, the request assumes {request.table.max_silos}"
            remedy = f"ask with max_silos = {unit.max_silos}"
            reasons.append(_deny("MAX_SILOS", "privacy_unit.max_silos", message, remedy))
        if request.backend not in protection.accept:
            accepted = ", ".join(protection.accept) or "none"
            message = f"{request.backend} is not accepted"
            reasons.append(_deny("BACKEND", "protection.accept", message, f"accepted: {accepted}"))
        if protection.security_bits > BUILT_SECURITY_BITS:
            message = f"{protection.security_bits} bits of security are demanded, a round has {BUILT_SECURITY_BITS}"
            reasons.append(_deny("NOT_BUILT", "protection.security_bits", message, self._contact))
        if protection.noise != BUILT_NOISE:
            message = f"{protection.noise} noise is demanded, a round has {BUILT_NOISE} noise"
            reasons.append(_deny("NOT_BUILT", "protection.noise", message, self._contact))
        asked = len(request.silos)
        reason = why_infeasible(asked, disclosure.min_silos, protection.max_colluding, protection.max_missing)
        if reason:
            reasons.append(_deny("ROSTER", "disclosure.min_silos", reason, "ask more silos"))
        return reasons

    def answer(self, plan: Plan, groups: int) -> list[Denial]:
        """Are the figures of a question, and their number, within what may leave?"""
        disclosure = self.policy.disclosure
        reasons: list[Denial] = []
        refused = dict.fromkeys([one.function for one in plan.aggregates if one.function not in disclosure.aggregates])
        for function in refused:
            allowed = ", ".join(name.upper() for name in disclosure.aggregates) or "none"
            message = f"{function.upper()} is not allowed"
            reasons.append(_deny("AGGREGATE", "disclosure.aggregates", message, f"allowed: {allowed}"))
        if len(plan.group_by) > disclosure.max_dimensions:
            message = f"{len(plan.group_by)} dimensions, at most {disclosure.max_dimensions} are allowed"
            reasons.append(_deny("MAX_DIMENSIONS", "disclosure.max_dimensions", message, "group by fewer columns"))
        if groups > disclosure.max_groups:
            message = f"{groups} groups, at most {disclosure.max_groups} are allowed"
            reasons.append(_deny("MAX_GROUPS", "disclosure.max_groups", message, "group by fewer columns"))
        return reasons

    def training(self, step: Step) -> list[Denial]:
        """Is the run within what the silo takes part in?"""
        training = self.policy.training
        reasons: list[Denial] = []
        if training is None:
            return reasons
        if step.steps > training.max_rounds:
            message = f"a run of {step.steps} steps, at most {training.max_rounds} are allowed"
            remedy = f"ask with steps = {training.max_rounds}"
            reasons.append(_deny("MAX_ROUNDS", "training.max_rounds", message, remedy))
        if Decimal(step.clip) > training.clip_norm:
            message = f"gradients clipped at {step.clip}, at most {training.clip_norm} is allowed"
            remedy = f"ask with clip = {training.clip_norm}"
            reasons.append(_deny("CLIP_NORM", "training.clip_norm", message, remedy))
        return reasons

    def consent(self, request: Request, now: int, feed_at: int | None) -> list[Denial]:
        """Can the decisions be read, and are they fresh enough to answer by?"""
        policy, consent = self.policy, self.policy.consent
        if policy.purposes[request.purpose].consent == "none" or consent is None:
            return []
        hours = consent.stale_after_hours
        if hours is not None and is_stale_feed(feed_at, hours, now):
            message = f"the consent feed is older than {hours} hours"
            return [
                _deny("CONSENT_STALE", "consent.stale_after_hours", message, f"{self._contact} to refresh the feed")
            ]
        return []

    def places(self, request: Request, step: Step | None, places: Places) -> list[Denial]:
        """Are the other silos, the recipients and the aggregators where the purpose may go?"""
        policy = self.policy
        regions = policy.purposes[request.purpose].recipients_in
        if regions is None:
            return []
        parties: list[tuple[str, str | None]] = [
            (f"the silo {name!r}", places.silos.get(name)) for name in request.silos if name != policy.silo.id
        ]
        parties += [(f"the aggregator {name!r}", place) for name, place in places.aggregators.items()]
        if not places.aggregators:
            parties.append(("the aggregator", None))
        if step is None:  # a model goes to the silos, which are judged above
            analyst = policy.analyst(request.analyst)
            parties.append((f"the analyst {request.analyst!r}", analyst.jurisdiction if analyst else None))
        away = [
            f"{who} ({'in ' + place if place else 'nobody knows where'})"
            for who, place in parties
            if not any(contains(region, place) for region in regions)
        ]
        if not away:
            return []
        rule = f"purposes.{request.purpose}.recipients_in"
        message = f"this purpose stays in {', '.join(regions) or 'no place'}; elsewhere: {', '.join(away)}"
        return [_deny("JURISDICTION", rule, message, "ask with silos, aggregator and analyst in these places")]

    def pace(self, now: int, asked_today: int) -> list[Denial]:
        """Is it a time to answer, and has this analyst asked no more than may be asked in a day?"""
        limits = self.policy.limits
        reasons: list[Denial] = []
        if limits is None:
            return reasons
        if not limits.is_open_at(now % DAY_S // MINUTE_S):
            message = f"requests are answered from {(limits.hours_utc or '').replace('-', ' to ')} UTC"
            reasons.append(_deny("HOURS", "limits.hours_utc", message, "ask again within these hours"))
        if limits.days is not None and _DAYS[(now // DAY_S + 3) % 7] not in limits.days:
            message = f"requests are answered on {', '.join(limits.days) or 'no day'} (UTC)"
            reasons.append(_deny("DAYS", "limits.days", message, "ask again on one of these days"))
        if limits.requests_per_day is not None and asked_today >= limits.requests_per_day:
            message = f"you have asked {asked_today} requests today, {limits.requests_per_day} are answered"
            reasons.append(_deny("REQUESTS_PER_DAY", "limits.requests_per_day", message, "ask again tomorrow (UTC)"))
        return reasons

    def price(self, request: Request, step: Step | None, cost: int, spent: Spending) -> list[Denial]:
        """Is the price within what one request, a window and a lifetime may cost?"""
        least, most = self._request_micro
        reasons: list[Denial] = []
        if request.micro_rho < least:
            message = f"rho {request.micro_rho / MICRO:g} is less than {least / MICRO:g}: the answer would be all noise"
            reasons.append(_deny("RHO_TOO_SMALL", "budget.per_request.min_rho", message, "ask with a larger epsilon"))
        if cost > most:
            message = f"this request costs rho {cost / MICRO:g}, one request may cost {most / MICRO:g}"
            remedy = "ask with a smaller epsilon"
            reasons.append(_deny("RHO_PER_REQUEST", "budget.per_request.max_rho", message, remedy))
        reasons += self._windows(request.purpose, cost, spent)
        if step is not None and self._run_limit is not None:
            whole = _of_whole_run(step, cost, spent.run)
            if whole > self._run_limit:
                message = f"the run costs rho {whole / MICRO:g}, one run may cost {self._run_limit / MICRO:g}"
                remedy = "train with a smaller epsilon, or fewer steps at the price of each"
                reasons.append(_deny("RHO_PER_RUN", "training.max_rho_per_run", message, remedy))
        if spent.lifetime + cost > self._lifetime:
            message = "what is left of the lifetime budget does not cover this request"
            remedy = "ask with a smaller epsilon; a lifetime budget is never refreshed"
            reasons.append(_deny("BUDGET_LIFETIME", "budget.lifetime.rho", message, remedy))
        return reasons

    def _windows(self, purpose: str, cost: int, spent: Spending) -> list[Denial]:
        """Is the price within what its purpose, and this analyst, may spend in every window?"""
        limits = self.limits.get(purpose, [])
        reasons: list[Denial] = []
        if len(spent.windows) != len(limits):
            return [_deny("BUDGET_WINDOW", "budget.limits", "the spending of a window is unknown", "ask again")]
        for (index, limit, rho, per_analyst), used in zip(limits, spent.windows, strict=True):
            window = limit.window.removeprefix("calendar-")
            period, later = f"this {window}", f"when the next {window} begins (UTC)"
            if limit.window == "data-month":
                period, later = "for these months of the data", "about other months"
            if used.everybody + cost > rho:
                message = f"what is left for {purpose!r} {period} does not cover this request"
                remedy = f"ask with a smaller epsilon, or {later}"
                reasons.append(_deny("BUDGET_WINDOW", f"budget.limits.{index}.rho", message, remedy))
            if per_analyst is not None and used.analyst + cost > per_analyst:
                left = f"rho {max(0, per_analyst - used.analyst) / MICRO:g} is left to you"
                message = f"{left} for {purpose!r} {period}, this request costs {cost / MICRO:g}"
                remedy = f"ask with a smaller epsilon, or {later}"
                reasons.append(_deny("BUDGET_ANALYST", f"budget.limits.{index}.per_analyst_rho", message, remedy))
        return reasons

    def needed(
        self, request: Request, step: Step | None, cost: int, of_run: int
    ) -> Iterator[tuple[int, ApprovalRule, Mapping[str, VerifyKey]]]:
        """Yield the approvals that a request of this cost needs, of a run that has spent `of_run`."""
        whole = cost if step is None else _of_whole_run(step, cost, of_run)
        for index, rule, least, keys in self._approvals:
            when = rule.when
            is_meant = when.kind is None or when.kind == ("query" if step is None else "training")
            if is_meant and when.purpose in (None, request.purpose) and (least is None or whole >= least):
                yield index, rule, keys

    def people(
        self,
        request: Request,
        step: Step | None,
        request_hash: bytes,
        cost: int,
        of_run: int,
        verdicts: Sequence[Approval],
        now: int,
    ) -> list[Denial]:
        """Have those approved it who must?"""
        reasons: list[Denial] = []
        if not self._approvals:
            return reasons
        policy, subject = self.policy, subject_of(request, request_hash)
        for index, rule, keys in self.needed(request, step, cost, of_run):
            found = standing(verdicts, subject, policy.silo.id, keys, rule.need, rule.expires_hours * HOUR_S, now)
            if found.rejected:
                message = f"{', '.join(found.rejected)} rejected it"
                remedy = f"ask {policy.silo.contact} why"
                reasons.append(_deny("APPROVAL_REJECTED", f"approvals.{index}", message, remedy))
            elif not found.is_given:
                given = f", given by {', '.join(found.approved)}" if found.approved else ""
                message = f"{rule.need} of {', '.join(rule.of)} must approve it{given}"
                remedy = f"wait, then send the same request again; an approval lasts {rule.expires_hours} hours"
                reasons.append(_deny("APPROVAL_AWAITED", f"approvals.{index}", message, remedy))
        return reasons


def _of_whole_run(step: Step, cost: int, spent: int) -> int:
    """Return what a run costs in all: as announced, or what it has spent, where steps were repeated or cost more."""
    return max(spent + cost, step.steps * cost)


def _outside(asked: TableColumn, own: TableColumn) -> list[tuple[str, str]]:
    found = []
    if asked.type != own.type:
        found.append(("type", f"asked as {asked.type}, it is {own.type}"))
    if asked.low is not None and asked.high is not None:
        if asked.step != own.step:
            found.append(("step", f"asked in steps of {asked.step}, it has {own.step or 'none'}"))
        elif own.low is None or own.high is None or asked.low < own.low or asked.high > own.high:
            found.append(("bounds", "asked with wider bounds than the policy's"))
    if own.domain and not asked.domain:
        found.append(("domain", "asked without the policy's domain"))
    if asked.domain != own.domain and not set(asked.domain) <= set(own.domain):
        found.append(("domain", "asked with values that the policy's domain lacks"))
    if asked.domain and asked.unknown != own.unknown:
        found.append(("unknown", f"asked with {asked.unknown!r} for missing values, it is {own.unknown!r}"))
    return found


def _deny(code: str, rule: str, message: str, remedy: str) -> Denial:
    return Denial(code=code, rule=rule[:300], message=message[:1000], remedy=remedy[:1000])
