"""How long questions and steps of training take on a silo's rows, and the declared time that its owner could write.

Promise: the figures come from rows and the clock, so they are for the owner's eyes alone. What an owner copies into a
policy is rounded: `rows_up_to` to a power of two, the rates to two digits.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from itertools import chain, zip_longest
from operator import attrgetter
from typing import Literal

import duckdb
from pydantic import ValidationError

from crypto.errors import CryptoError
from crypto.noise import discrete_gaussian
from crypto.rounds.manifest import Recipient
from crypto.sealing import PUBLIC_BYTES
from policies.decision.computing import declared_ms, plan_size
from policies.document.catalogue import published
from policies.document.columns import Source as DeclaredSource
from policies.document.policy import Compute, Policy
from policies.document.purposes import ConsentTable
from policies.requests.logistic import MAX_WEIGHTS, LogisticStep
from policies.requests.predicates import Both, Compare, OneOf, Predicate
from policies.requests.query import Aggregate, Plan
from policies.requests.request import Request
from policies.requests.tables import Table, TableColumn
from policies.requests.training import MAX_FEATURES, START
from policies.units import MAX_DOMAIN, NANO
from silo_node.data.compute import Computer, load_kinds
from silo_node.data.consent import Decisions
from silo_node.data.family_steps import Step, first_rounds, round_after
from silo_node.data.figures import Vectors
from silo_node.data.prepared.reader import Reader
from silo_node.data.sources import Source
from silo_node.training.run import RunState

QUESTIONS = 20
MEASURE_S = 4.0  # after this time no further question is asked, and after as much again no further step
STEPS = 2  # of training, of each table: by one feature, and by all
FAMILIES_S = 8.0  # after this time no further model family is timed
SAFETY = 2  # the declared time is this many times what was measured
BESIDE_S = Decimal("0.05")  # of a declared time: `BLINDING_MS`, and to send the question to the worker and back
LEAST_S = Decimal(2)  # where one time is declared for all plans: what comes later on a busy machine is zeros
NOISE_VARIANCE = 10**6  # the time of noise hardly depends on it
MAX_MEASURES, MAX_DIMENSIONS = 30, 8
_COUNT = Plan(where=None, group_by=(), aggregates=(Aggregate(function="count", column=None, alias="n"),))
_OTHER = ("other-1", "other-2")  # silos of a roster that is never asked


@dataclass(frozen=True, slots=True)
class Measured:
    """One question or step that was computed, and thrown away."""

    table: str
    rows: int
    decisions: int  # on consent, that were read; 0 where none were
    size: int  # of its plan
    seconds: float
    is_step: bool = False  # of training


@dataclass(frozen=True, slots=True)
class Proposal:
    """A declared time that is at least twice each measured one."""

    fixed_seconds: Decimal
    row_nanoseconds: Decimal
    decision_nanoseconds: Decimal | None  # None where no decision was read
    rows_up_to: Mapping[str, int]
    decisions_up_to: int | None

    @property
    def lines(self) -> tuple[str, ...]:
        """What the owner can copy into the policy."""
        rates = f"[compute] fixed_seconds = {self.fixed_seconds}, row_nanoseconds = {self.row_nanoseconds}"
        sources = tuple(f"[sources.{name}] rows_up_to = {count}" for name, count in self.rows_up_to.items())
        if self.decision_nanoseconds is None:
            return (rates, *sources)
        rates = f"{rates}, decision_nanoseconds = {self.decision_nanoseconds}"
        return (rates, *sources, f"[consent] decisions_up_to = {self.decisions_up_to}")


def measure(
    policy: Policy,
    database: duckdb.DuckDBPyConnection,
    sources: Mapping[str, Source],
    decisions: Decisions | None,
    rows: Mapping[str, int],
    decided: int,
    now: int,
    clock: Callable[[], float] = time.monotonic,
    reader_of: Callable[[Policy], Reader | None] = lambda _: None,
) -> tuple[Measured, ...]:
    """Compute up to QUESTIONS questions of growing size on the silo's rows, and STEPS of training; return their times.

    `rows` has the rows of each source, `decided` is the number of decisions on consent. Where a question reads them,
    the smallest one is computed once without. No answer is kept. What fails, or exceeds the limit of a computation,
    counts with the time until then; what training needs is loaded before, as it is where a time is declared.
    `reader_of` returns what answers from prepared rows by a policy; else all rows are read.
    """
    unbound = policy.model_copy(update={"compute": None})
    purposes = {key: one.model_copy(update={"consent": "none"}) for key, one in policy.purposes.items()}
    free = unbound.model_copy(update={"purposes": purposes})
    reader = reader_of(unbound)
    if reader is not None:
        reader.refresh()  # as a silo does before it accepts a question
    states = dict[bytes, RunState]()
    # Every round may have to read the rows, so none are kept.
    asking = Computer(unbound, database, sources, decisions, states.get, reader, kept_bytes=0)
    unasking = Computer(free, database, sources, None, lambda _: None, reader_of(free), kept_bytes=0)
    discrete_gaussian(1, NOISE_VARIANCE, 1)  # the first needs longer
    began, found = clock(), list[Measured]()

    def timed(computer: Computer, request: Request, read: int) -> Vectors | None:
        started, name, vectors = clock(), request.table.name, None
        with suppress(duckdb.Error, CryptoError):  # it took as long as it took
            vectors = computer.contribution(request, now)
        took = max(clock() - started, _noise_seconds(request, clock))  # one is done beside the other
        found.append(Measured(name, rows[name], read, plan_size(request), took, request.plan.training is not None))
        return vectors

    def decided_for(request: Request) -> int:
        return decided if decisions is not None and policy.purposes[request.purpose].consent != "none" else 0

    tables = [name for name, source in policy.sources.items() if source.release == "private"]
    each = -(-QUESTIONS // max(1, len(tables)))
    asked = chain.from_iterable(zip_longest(*(questions(policy, name, each, now) for name in tables)))
    for request in asked:
        if request is None or len(found) > QUESTIONS or clock() - began > MEASURE_S:
            continue
        if not found and decided_for(request):
            timed(unasking, request, 0)
        timed(asking, request, decided_for(request))
    steps = list(chain.from_iterable(training_steps(policy, name, now) for name in policy.sources))
    if steps and load_kinds(policy):
        began = clock()
        for request in steps:
            if clock() - began <= MEASURE_S:
                timed(asking, request, decided_for(request))
    began = clock()
    for request in chain.from_iterable(family_steps(policy, name, now) for name in policy.sources):
        if clock() - began > FAMILIES_S:
            break
        vectors = timed(asking, request, decided_for(request))
        following = None if vectors is None else round_after(request, vectors, now)
        if following is not None:
            second, state = following
            states[state.run] = state
            timed(asking, second, decided_for(second))
    return tuple(found)


def _noise_seconds(request: Request, clock: Callable[[], float]) -> float:
    """Return how long the noise of a request takes, which is thrown away."""
    if request.plan.release != "private":
        return 0.0
    started = clock()
    for extent in request.plan.statistics(request.table).values():
        discrete_gaussian(extent.length, NOISE_VARIANCE, 1)
    return clock() - started


def questions(policy: Policy, name: str, count: int, now: int) -> Iterator[Request]:
    """Yield questions that the policy opens about a table, from the smallest to the largest; none if it opens none."""
    purpose, source = _purpose_of(policy, _COUNT.kind), policy.sources[name]
    if purpose is None or source.release != _COUNT.release:
        return
    for number in range(count):
        share = number / max(1, count - 1)
        try:
            yield _request(policy, source, name, purpose, share, now)
        except ValidationError:
            continue  # what no request can ask is not measured


def training_steps(policy: Policy, name: str, now: int) -> Iterator[Request]:
    """Yield first steps of a model that the policy opens about a table, the smallest and the largest, if any."""
    purpose, source = _purpose_of(policy, LogisticStep.model_fields["kind"].default), policy.sources[name]
    opened = {
        key: one
        for key, one in _opened(source, name, now).items()
        if not source.columns[key].sole_dimension and one.type != "array"
    }
    labels = (key for key, one in opened.items() if "label" in source.columns[key].roles and one.type == "bool")
    label = next(labels, None)
    if purpose is None or policy.training is None or label is None:
        return
    features, width = list[str](), 1
    for key in sorted(opened, key=lambda key: len(opened[key].domain)):
        width += max(1, len(opened[key].domain) - 1)
        if key != label and "feature" in source.columns[key].roles and width <= MAX_WEIGHTS:
            features.append(key)
    for count in dict.fromkeys((1, min(len(features), MAX_FEATURES))):
        with suppress(ValidationError):
            step = LogisticStep(
                run=bytes(16),
                step=0,
                steps=1,
                after=START,
                release=source.release,
                label=label,
                features=tuple(features[:count]),
                learning_rate="1",
                clip="1" if source.release == "private" else "0",
            )
            price = policy.budget.request_micro[1] if source.release == "private" else 0
            yield _asked(policy, name, purpose, step, [opened[key] for key in (label, *step.features)], price, now)


def family_steps(policy: Policy, name: str, now: int) -> Iterator[Request]:
    """Yield the first round of each model family that the policy opens about a table."""
    source = policy.sources[name]
    opened = {key: one for key, one in _opened(source, name, now).items() if not source.columns[key].sole_dimension}
    price = policy.budget.request_micro[1] if source.release == "private" else 0

    def ask(purpose: str, step: Step, used: Sequence[TableColumn]) -> Request:
        return _asked(policy, name, purpose, step, used, price, now)

    return first_rounds(policy, source, opened, ask)


def largest_ms(policy: Policy, now: int) -> int | None:
    """Return the declared milliseconds of the largest plan that is measured; None without one."""
    plans = (
        request
        for name in policy.sources
        for request in (
            *questions(policy, name, 2, now),
            *training_steps(policy, name, now),
            *family_steps(policy, name, now),
        )
    )
    found = [found_ms for request in plans if (found_ms := declared_ms(policy, request)) is not None]
    return max(found, default=None)


def _purpose_of(policy: Policy, kind: str) -> str | None:
    """Return a purpose that a kind of computation is open for, one that asks for consent before others."""
    purposes = [key for key, one in policy.purposes.items() if kind in one.computations]
    return max(purposes, key=lambda key: policy.purposes[key].consent != "none", default=None)


def proposed(measures: Sequence[Measured], rows: Mapping[str, int], decided: int) -> Proposal:
    """Return the declared time that is SAFETY times the greatest measured one, at every size that was measured."""
    slopes = [0.0]
    for measured in {(one.table, one.is_step) for one in measures}:
        own = sorted((one for one in measures if (one.table, one.is_step) == measured), key=lambda one: one.size)
        work = (own[-1].size - own[0].size) * own[0].rows
        if work:
            slopes.append((own[-1].seconds - own[0].seconds) / work)
    rate = _two_digits(Decimal(max(slopes)) * NANO * SAFETY)
    each = _decision_rate(measures)

    def rest(one: Measured) -> float:
        return one.seconds * SAFETY - (float(rate) * one.size * one.rows + float(each or 0) * one.decisions) / NANO

    fixed = (Decimal(max(map(rest, measures), default=0.0)) + BESIDE_S).quantize(Decimal("0.01"), ROUND_CEILING)
    up_to = {name: power_of_two(count) for name, count in rows.items()}
    return Proposal(max(BESIDE_S, fixed), rate, each, up_to, None if each is None else power_of_two(decided))


def enough_for(measures: Sequence[Measured]) -> Decimal | None:
    """Return one time, in seconds of two digits, that is SAFETY times each measured one; None without any."""
    if not measures:
        return None
    return max(LEAST_S, _two_digits(Decimal(max(one.seconds for one in measures)) * SAFETY + BESIDE_S))


def _decision_rate(measures: Sequence[Measured]) -> Decimal | None:
    """Return what a decision costs, by the smallest question with and without them; None where none were read."""
    read = [one for one in measures if one.decisions]
    if not read:
        return None
    plan = attrgetter("size", "table", "is_step")
    free_s = {plan(one): one.seconds for one in measures if not one.decisions}
    small = min(read, key=lambda one: (plan(one) not in free_s, one.size))
    more_s = small.seconds - free_s.get(plan(small), small.seconds)
    return _two_digits(Decimal(more_s) * NANO * SAFETY / small.decisions)


def is_covered(policy: Policy, compute: Compute, measured: Measured) -> bool:
    """Tell whether a policy declares at least what was measured."""
    rows = policy.sources[measured.table].rows_up_to or 0
    declared = float(compute.fixed_seconds or 0) + float(compute.row_nanoseconds or 0) / NANO * measured.size * rows
    if measured.decisions and isinstance(policy.consent, ConsentTable):
        declared += float(compute.decision_nanoseconds or 0) / NANO * (policy.consent.decisions_up_to or 0)
    return declared >= measured.seconds + float(BESIDE_S)


def power_of_two(count: int) -> int:
    """Return the least power of two that is not below a count."""
    return 1 << max(0, count - 1).bit_length()


def _two_digits(value: Decimal) -> Decimal:
    """Return a positive number with two digits, rounded up; at least 0.01."""
    if value < Decimal("0.01"):
        return Decimal("0.01")
    place = Decimal(1).scaleb(value.adjusted() - 1)
    rounded = value.quantize(place, ROUND_CEILING)
    return Decimal(f"{rounded:f}")


def _request(policy: Policy, source: DeclaredSource, name: str, purpose: str, share: float, now: int) -> Request:
    """Return a question that uses a share of what a source opens, at the highest price of the policy.

    Raises ValidationError if no request can ask it.
    """
    opened = _opened(source, name, now)
    roles = {key: source.columns[key].roles for key in opened}
    measures = [key for key in opened if "measure" in roles[key]][:MAX_MEASURES]
    filters = [key for key in opened if "filter" in roles[key]][:MAX_MEASURES]
    dimensions = _dimensions(policy, source, opened)
    chosen = [_share(columns, share) for columns in (measures, filters, dimensions)]
    allowed = policy.disclosure.aggregates
    function: Literal["count", "sum", "avg"] = "avg" if "avg" in allowed else "sum" if "sum" in allowed else "count"
    aggregates = list(_COUNT.aggregates)
    aggregates += [Aggregate(function=function, column=key, alias=f"figure of {key}") for key in chosen[0]]
    parts = tuple(_part(opened[key]) for key in chosen[1])
    where = None if not parts else parts[0] if len(parts) == 1 else Both(operands=parts)
    used = dict.fromkeys(key for keys in chosen for key in keys)
    plan = Plan(where=where, group_by=tuple(chosen[2]), aggregates=tuple(aggregates), counts_cut=True)
    return _asked(policy, name, purpose, plan, [opened[key] for key in used], policy.budget.request_micro[1], now)


def _opened(source: DeclaredSource, name: str, now: int) -> dict[str, TableColumn]:
    """Return the open columns of a source as a request names them."""
    return {
        key: published(key, column, source, now)
        for key, column in source.columns.items()
        if column.roles and column.domain != "discover"
    }


def _asked(
    policy: Policy,
    name: str,
    purpose: str,
    plan: Plan | LogisticStep | Step,
    columns: Sequence[TableColumn],
    micro_rho: int,
    now: int,
) -> Request:
    """Return a request that is never sent; raises ValidationError if none can ask this."""
    unit = policy.privacy_unit
    silos = tuple(sorted((policy.silo.id, *_OTHER)))
    return Request(
        federation="doctor",
        nonce=bytes(16),
        analyst="doctor",
        recipients=(Recipient(name="doctor", key=bytes(PUBLIC_BYTES)),),
        purpose=purpose,
        micro_rho=micro_rho,
        silos=silos,
        backend="masking",
        round_key=b"",
        sealed_secrets=(),
        table=Table(
            name=name,
            max_rows=unit.max_rows,
            max_silos=unit.max_silos,
            max_norm=unit.max_norm,
            columns=tuple(columns),
        ),
        plan=plan,
        created_at=now,
        expires_at=now + 1,
    )


def _share(columns: Sequence[str], share: float) -> Sequence[str]:
    return columns[: round(share * len(columns))]


def _dimensions(policy: Policy, source: DeclaredSource, opened: Mapping[str, TableColumn]) -> list[str]:
    """Return the columns that one question may group by together, as many as the policy allows."""
    most, groups = min(policy.disclosure.max_dimensions, MAX_DIMENSIONS), 1
    found: list[str] = []
    for key in sorted(opened, key=lambda key: len(opened[key].domain)):
        column, length = source.columns[key], len(opened[key].domain)
        is_open = "dimension" in column.roles and length and not column.sole_dimension
        if is_open and len(found) < most and groups * length <= policy.disclosure.max_groups:
            found.append(key)
            groups *= length
    return found


def _part(column: TableColumn) -> Predicate:
    """Return a condition on a column that most of its cells meet."""
    if column.domain:
        return OneOf(column=column.name, values=tuple(column.domain[:MAX_DOMAIN]))
    value = {"bool": "true", "string": "nothing"}.get(column.type, "0")
    return Compare(column=column.name, op="<>", value=value)
