"""What follows from a policy alone, and from a request alone, worked out once for each: a decision takes microseconds.

Values are kept by identity, a few of each, so nothing that is kept can be taken for another policy or request.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from crypto.keys import VerifyKey
from policies.budget.accountant import charge
from policies.document.catalogue import published
from policies.document.columns import Column, Source
from policies.document.policy import ApprovalRule, Limit, Policy
from policies.periods import SLACK_DAYS
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from policies.units import DAY_S, Role, micro_floor

_KEPT_POLICIES = 8
_KEPT_REQUESTS = 64
_KEPT_DATES = 64


class SourceColumns:
    """The open columns of one source: in which roles, and how each is published."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.roles = {name: column.roles for name, column in source.columns.items() if column.roles}
        self._undated = {
            name: published(name, column, source, 0)
            for name, column in source.columns.items()
            if column.roles and column.type != "date"
        }

    def definition(self, name: str, now: int) -> TableColumn | None:
        """Return the widest definition that is accepted at `now`; None of a closed column."""
        undated = self._undated.get(name)
        if undated is not None or name not in self.roles:
            return undated
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
    while len(_DATED) > _KEPT_DATES:
        _DATED.popitem(last=False)
    return made


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What follows from a request alone: the columns it uses, its groups, what it costs one person at such a silo."""

    used: Mapping[Role, tuple[str, ...]]
    read: frozenset[str]  # all of them
    groups: int
    cost: int  # micro-rho; 0 for what has no noise, and nothing else


# A request is judged again when a reservation fails, when a round is tried anew and when its price is asked for.
_FACTS: OrderedDict[tuple[int, int], tuple[Request, RequestFacts]] = OrderedDict()


def facts_of(request: Request, max_silos: int) -> RequestFacts:
    """Return what follows from a request, for one person known to `max_silos` silos."""
    key = id(request), max_silos
    kept = _FACTS.get(key)
    if kept is not None and kept[0] is request:  # a request that is kept keeps its id
        return kept[1]
    used = request.plan.uses()
    read = frozenset(name for names in used.values() for name in names)
    made = RequestFacts(used, read, request.plan.group_count(request.table), charge(request, max_silos))
    _FACTS[key] = request, made
    while len(_FACTS) > _KEPT_REQUESTS:
        _FACTS.popitem(last=False)
    return made


@dataclass(frozen=True, slots=True)
class WindowRule:
    """One window limit of a purpose, in micro-rho, with its place in the policy."""

    index: int
    limit: Limit
    rho: int
    per_analyst: int | None


@dataclass(frozen=True, slots=True)
class NeededApproval:
    """One rule of [[approvals]], with its place in the policy and the keys of those who can fulfil it."""

    index: int
    rule: ApprovalRule
    rho_at_least: int | None
    keys: Mapping[str, VerifyKey]


class CompiledPolicy:
    """One policy, and what follows from it alone."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.ask_contact = policy, f"ask {policy.silo.contact}"
        version = policy.policy
        self._term = (version.valid_from.timestamp(), version.valid_until.timestamp()) if version is not None else None
        self.until = {name: analyst.until.timestamp() for name, analyst in policy.analysts.items()}
        self.purposes = {name: frozenset(analyst.purposes) for name, analyst in policy.analysts.items()}
        self.sources = {name: SourceColumns(source) for name, source in policy.sources.items()}
        self.windows: dict[str, list[WindowRule]] = {}
        for index, limit in enumerate(policy.budget.limits):
            per_analyst = None if limit.per_analyst_rho is None else micro_floor(limit.per_analyst_rho)
            rule = WindowRule(index, limit, micro_floor(limit.rho), per_analyst)
            self.windows.setdefault(limit.purpose, []).append(rule)
        self.request_micro, self.lifetime_micro = policy.budget.request_micro, policy.budget.lifetime_micro
        self.run_micro = None if policy.training is None else micro_floor(policy.training.max_rho_per_run)
        keys = {name: VerifyKey.parse(person.key) for name, person in policy.people.items()}
        self.approvals = [
            NeededApproval(
                index,
                rule,
                None if rule.when.rho_at_least is None else micro_floor(rule.when.rho_at_least),
                {name: keys[name] for name in rule.of if name in keys},
            )
            for index, rule in enumerate(policy.approvals)
        ]

    def is_valid(self, now: int) -> bool:
        """Tell whether the policy holds at `now`."""
        return self._term is None or self._term[0] <= now < self._term[1]


_COMPILED: OrderedDict[int, CompiledPolicy] = OrderedDict()


def compiled(policy: Policy) -> CompiledPolicy:
    """Return what follows from a policy."""
    kept = _COMPILED.get(id(policy))
    if kept is None or kept.policy is not policy:  # an id may be used again, a policy that is kept keeps its own
        kept = _COMPILED[id(policy)] = CompiledPolicy(policy)
        while len(_COMPILED) > _KEPT_POLICIES:
            _COMPILED.popitem(last=False)
    return kept
