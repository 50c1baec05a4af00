"""Facts that follow from a policy alone, or from a request alone, computed once, so that a decision takes microseconds.

A few values of each are cached by identity, so a cached value is never used for another policy or request.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import get_args

from crypto.keys import VerifyKey
from policies.budget.accountant import charge
from policies.budget.sampler import sampler_delta, sampler_limit
from policies.document.catalogue import published
from policies.document.columns import Column, Source
from policies.document.policy import ApprovalRule, Compute, Limit, Policy
from policies.document.purposes import ConsentTable
from policies.domains import LongDomain
from policies.periods import SLACK_DAYS, periods
from policies.requests.capacity import of_request
from policies.requests.request import Request
from policies.requests.sending import Sent, longest_of, sent_of
from policies.requests.statements import MAX_STATEMENTS
from policies.requests.tables import TableColumn
from policies.units import DAY_S, NANO, ColumnRole, Number, micro_floor

STEP_MS = 25  # of a declared time
BLOCKS_AT_ONCE = 8  # of statements: as much work as the largest question, for which a fixed time is declared
_KEPT_POLICIES = 8
_KEPT_REQUESTS = 64
_KEPT_DATES = 64


class SourceColumns:
    """The open columns of one source: in which roles, which of them on no condition, and how each is published."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.roles = {name: column.roles for name, column in source.columns.items() if column.roles}
        self.unconditional: Mapping[ColumnRole, frozenset[str]] = {
            role: frozenset(name for name, column in source.columns.items() if role in column.open_roles)
            for role in get_args(ColumnRole)
        }
        # Inside whose values a request may set a threshold, in whatever field.
        self.narrowable = frozenset(
            name for name, column in source.columns.items() if "filter" in column.roles or column.narrow
        )
        self.alone = frozenset(name for name, column in source.columns.items() if column.sole_dimension)
        self._undated = {
            name: published(name, column, source, 0)
            for name, column in source.columns.items()
            if column.roles and column.type != "date"
        }

    @property
    def domains(self) -> Iterator[LongDomain]:
        """The long domains of the open columns, with their values."""
        return (one.domain for one in self._undated.values() if isinstance(one.domain, LongDomain))

    def definition(self, name: str, now: int) -> TableColumn | None:
        """Return the widest definition that is accepted at `now`; None for a closed column."""
        undated = self._undated.get(name)
        if undated is not None or name not in self.roles:
            return undated
        return _dated(name, self.source.columns[name], self.source, now // DAY_S)

    def is_own(self, asked: TableColumn, at: int) -> bool:
        """Tell whether a request signed at that time defines a column as the policy does."""
        own = self.definition(asked.name, at)
        if own is None or own.type != "date" or asked.type != "date":
            return own is not None and asked.__dict__ == own.__dict__
        listed, known = asked.domain, own.domain
        if not listed or listed[0] not in known or self.lacks(asked, own, at):
            return False
        first = known.index(listed[0])  # a part of the calendar, in its order: its beginning and length tell it whole
        return (*known[first : first + len(listed) - 1], *known[-1:]) == listed

    def lacks(self, asked: TableColumn, own: TableColumn, at: int) -> bool:
        """Tell whether a request signed at that time leaves out values of a column, whose values it names otherwise.

        Of a date it names all that were read on one of the days on which its analyst may have been told of them, but
        those that begin or end about the midnight after it.
        """
        if own.type != "date" or isinstance(asked.domain, LongDomain):
            return len(asked.domain) < len(own.domain)
        column, days = self.source.columns[own.name], self.source.lookback_days
        if column.granularity is None or days is None:
            return False
        named, newest_first = set(asked.domain), range(at + DAY_S, at - (SLACK_DAYS + 1) * DAY_S, -DAY_S)
        read = (set(periods(column.granularity, days, one)) for one in newest_first)
        return not any(after & before <= named for after, before in pairwise(read))


_DATED: OrderedDict[tuple[int, str, int], tuple[Source, TableColumn]] = OrderedDict()


def _dated(name: str, column: Column, source: Source, day: int) -> TableColumn:
    """Return the definition of a date column on a day, with the periods that a request in transit may still name."""
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
    """Facts that follow from a request alone: its columns, its groups, and its cost for one person at such a silo."""

    used: Mapping[ColumnRole, tuple[str, ...]]
    read: frozenset[str]  # all of them
    functions: tuple[str, ...]
    groups: int
    size: int  # of the plan, in the unit of `compute.row_nanoseconds`
    waits_s: int
    cost: int  # micro-rho; 0 only for a request without noise
    sampler_delta: int  # atto-delta; 0 for a short answer
    carried_rows: int  # of one silo, up to which the backend changes no figure
    sent: Sent
    longest: Sent  # of the rounds that the request begins
    # Of several statements, each as the request that would ask it alone, and its facts, at the price of all.
    parts: tuple[tuple[Request, "RequestFacts"], ...] = ()


# A request is judged again when a reservation fails, when a round starts anew and when its price is needed.
_FACTS: OrderedDict[tuple[int, int], tuple[Request, RequestFacts]] = OrderedDict()


def facts_of(request: Request, max_silos: int) -> RequestFacts:
    """Return what follows from a request, for one person known to `max_silos` silos."""
    key = id(request), max_silos
    kept = _FACTS.get(key)
    if kept is not None and kept[0] is request:  # a request that is kept keeps its id
        return kept[1]
    priced = (
        charge(request, max_silos),
        sampler_delta(request),
        of_request(request),
        sent_of(request),
        longest_of(request),
    )
    made = _facts(request, *priced)
    if len(request.plan.alone) > 1:
        alone = (request.model_copy(update={"plan": part}) for part in request.plan.alone)
        made = replace(made, parts=tuple((one, _facts(one, *priced)) for one in alone))
    _FACTS[key] = request, made
    while len(_FACTS) > _KEPT_REQUESTS:
        _FACTS.popitem(last=False)
    return made


def _facts(request: Request, cost: int, atto_delta: int, carried_rows: int, sent: Sent, longest: Sent) -> RequestFacts:
    used = request.plan.uses()
    return RequestFacts(
        used=used,
        read=frozenset(name for names in used.values() for name in names),
        functions=tuple(request.plan.functions),
        groups=request.plan.group_count(request.table),
        size=request.plan.size(request.table),
        waits_s=request.waits_s,
        cost=cost,
        sampler_delta=atto_delta,
        carried_rows=carried_rows,
        sent=sent,
        longest=longest,
    )


@dataclass(frozen=True, slots=True)
class WindowRule:
    """One window limit of a purpose, in micro-rho, with its place in the policy."""

    index: int
    limit: Limit
    rho: int
    per_analyst: int | None


@dataclass(frozen=True, slots=True)
class NeededApproval:
    """One rule of [[approvals]], with its place in the policy and the keys of the people who can approve."""

    index: int
    rule: ApprovalRule
    rho_at_least: int | None
    keys: Mapping[str, VerifyKey]


class DeclaredTime:
    """The declared time of a policy, in nanoseconds: fixed, by the rows of a source, and by decisions on consent."""

    def __init__(self, policy: Policy, compute: Compute, fixed_seconds: Number) -> None:
        fixed, row = math.ceil(Decimal(fixed_seconds) * NANO), compute.row_nanoseconds
        self._rows = {
            name: 0 if row is None or source.rows_up_to is None else math.ceil(Decimal(row) * source.rows_up_to)
            for name, source in policy.sources.items()
        }
        consent, each = policy.consent, compute.decision_nanoseconds
        most = consent.decisions_up_to if isinstance(consent, ConsentTable) else None
        decisions = 0 if each is None or most is None else math.ceil(Decimal(each) * most)
        self._fixed = {
            name: fixed + (decisions if purpose.consent != "none" else 0) for name, purpose in policy.purposes.items()
        }

    @property
    def grows(self) -> bool:
        """Whether larger plans have longer times."""
        return any(self._rows.values())

    @property
    def fixed_most_ms(self) -> int:
        """How long as many statements take as a request can have, by the time that does not grow with rows."""
        return _milliseconds(-(-MAX_STATEMENTS // BLOCKS_AT_ONCE) * max(self._fixed.values(), default=0))

    def milliseconds(self, tables: Iterable[str], purpose: str, size: int, blocks: int = 1) -> int:
        """Return how long a plan of this size takes at most, in whole steps of `STEP_MS`.

        Of many statements the time that does not grow with rows counts once for every `BLOCKS_AT_ONCE` blocks.
        """
        rows = sum(self._rows[table] for table in tables)
        return _milliseconds(-(-blocks // BLOCKS_AT_ONCE) * self._fixed[purpose] + size * rows)


def _milliseconds(nanoseconds: int) -> int:
    return -(-nanoseconds // (STEP_MS * 1_000_000)) * STEP_MS


class CompiledPolicy:
    """One policy, and the facts that follow from it alone."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.ask_contact = policy, f"ask {policy.silo.contact}"
        version = policy.policy
        self._term = (version.valid_from.timestamp(), version.valid_until.timestamp()) if version is not None else None
        self.until = {name: analyst.until.timestamp() for name, analyst in policy.analysts.items()}
        self.purposes = {name: frozenset(analyst.purposes) for name, analyst in policy.analysts.items()}
        self.sources = {name: SourceColumns(source) for name, source in policy.sources.items()}
        self.joined: dict[tuple[str, ...], SourceColumns] = {}  # of tables that were asked together
        domains = (one for source in self.sources.values() for one in source.domains)
        self.domains: Mapping[bytes, LongDomain] = {one.digest: one for one in domains}
        self.windows: dict[str, list[WindowRule]] = {}
        for index, limit in enumerate(policy.budget.limits):
            per_analyst = None if limit.per_analyst_rho is None else micro_floor(limit.per_analyst_rho)
            rule = WindowRule(index, limit, micro_floor(limit.rho), per_analyst)
            self.windows.setdefault(limit.purpose, []).append(rule)
        self.request_micro, self.lifetime_micro = policy.budget.request_micro, policy.budget.lifetime_micro
        self.sampler_limit = sampler_limit(policy.budget.delta, self.lifetime_micro)
        compute = policy.compute
        fixed = None if compute is None else compute.fixed_seconds
        self.declared = None if compute is None or fixed is None else DeclaredTime(policy, compute, fixed)
        self.most_seconds = None if compute is None else compute.seconds
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
        """Tell whether the policy is valid at `now`."""
        return self._term is None or self._term[0] <= now < self._term[1]


_COMPILED: OrderedDict[int, CompiledPolicy] = OrderedDict()


def compiled(policy: Policy) -> CompiledPolicy:
    """Return the facts that follow from a policy, cached."""
    kept = _COMPILED.get(id(policy))
    if kept is None or kept.policy is not policy:  # an id may be used again, a policy that is kept keeps its own
        kept = _COMPILED[id(policy)] = CompiledPolicy(policy)
        while len(_COMPILED) > _KEPT_POLICIES:
            _COMPILED.popitem(last=False)
    return kept
