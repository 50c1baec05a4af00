"""What a training run would take and cost, and who would refuse it: no row is read, no request sent, nothing paid.

Prices and verdicts are the silos' own (`silo_node/standing.py`), as of a question's preview; what crosses follows from
the computation of each round, by its statistics alone. docs/training.md.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.preview import absent_from, at_silo, silos_to_dict
from analyst.remedies import Bearing
from analyst.requests import waiting
from analyst.sql.offer import Offer
from analyst.training.affordable import Affordable, affordable, limits_of
from analyst.training.beside import LATER, Beside, beside
from analyst.training.job import Job, first_request
from analyst.training.round_metric import metric_in_words
from analyst.training.rounds import bytes_in_words
from analyst.training.run import interrupted
from analyst.training.volume import volume_at_silo
from crypto.rounds.bounds import noise_shares
from policies.budget.accountant import epsilon_of
from policies.budget.sampler import rho_delta
from policies.decision.run_price import run_price
from policies.errors import reason_of
from policies.requests.catalogue import Catalogue
from policies.requests.computations import slot_count
from policies.requests.denials import Denial
from policies.requests.request import Request, asked_in
from policies.requests.standing import Left, Standing, scarcest
from policies.requests.training import START, TrainingStep
from policies.units import MICRO, SEND_S, WAIT_S, counted

S = TypeVar("S", bound=TrainingStep)
_BUDGETS = "BUDGET"  # how the codes of a refusal begin that is for what is left


@dataclass(frozen=True, slots=True)
class Rounds:
    """Rounds of one size, by their numbers from 1: the values of a silo's vector, and its bytes up and down in each."""

    first: int
    last: int
    values: int
    up_bytes: int
    down_bytes: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class RunAtSilo:
    """What one silo would say: prices for one person there, and what is left to the analyst, now and after the run."""

    rho: float  # of a round
    epsilon: float
    rho_of_run: float
    epsilon_of_run: float
    seconds: float  # that a round may compute
    denials: tuple[Denial, ...]
    left: tuple[Left, ...]
    rho_beside: float  # of metrics and the audit, which are asked beside
    rho_left: float | None  # in the budget where least is left
    rho_after: float | None  # below 0 where it does not cover the run
    covered: int | None  # rounds that it covers; None: all
    sends_s: int = 0  # a long vector, in a round; 0 for a short one


@dataclass(frozen=True, slots=True)
class RunPreview:
    """A run before it begins, or before it goes on after `done` rounds."""

    asks: str
    recipients: tuple[str, ...]  # of the model
    done: int
    rounds: int  # that are left, at most
    sizes: tuple[Rounds, ...]
    up_bytes: int  # of a silo, in all these rounds
    down_bytes: int
    rho: float | None  # of a round; None without noise, as nothing is promised then
    epsilon: float | None
    rho_of_run: float | None
    epsilon_of_run: float | None
    delta: float
    silos: Mapping[str, RunAtSilo]
    absent: Mapping[str, str]  # silos that would not be asked, and why
    instead: Affordable | None  # None without noise, and of a run that has begun
    metric: str = ""  # that is asked for after rounds, beside, in words
    audit: str = ""  # of the model, at the end
    noise: str = ""  # what it costs in accuracy that each silo adds the whole noise, in words
    no_room: str = ""  # why a round would not fit at the aggregator

    @property
    def refusals(self) -> Mapping[str, tuple[Denial, ...]]:
        return {silo: one.denials for silo, one in self.silos.items() if one.denials}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values; docs/commands.md describes them."""
        found = asdict(self) | {"silos": silos_to_dict(self.silos)}
        for name in ("no_room", "noise"):
            if not found[name]:
                del found[name]
        return found


def preview_run(
    federation: Federation, job: Job, keep: Path | None = None, deadline: int | None = None, send_deadline: int = SEND_S
) -> RunPreview:
    """Return what a job's run would take, or what is left of the one in `keep`; raises as `train` does before it asks.

    Only catalogues are asked for, with an unsigned request, which nobody can answer.
    """
    begun = interrupted(keep, job)
    request, done = (first_request(federation, job, is_asked=False), 0) if begun is None else begun
    step = request.plan.training
    if step is None:
        raise AnalystError(f"{keep} is not of a training run", "remove it to begin a new run")
    if done:
        request = federation.renew(request, _at(step, done))
    request = waiting(request, deadline or job.deadline or WAIT_S, send_deadline)
    said, asked = federation.said_of(request), federation.offer_of(request.silos)
    standing, costs = _beside(federation, beside(federation, job, request, done), said.standings)
    sizes = tuple(_sizes(federation, asked, request, done))
    rounds, delta = step.steps - done, asked.delta_for(request.table, step)
    is_priced = step.release == "private"
    rho = request.micro_rho / MICRO
    return RunPreview(
        asks=request.plan.in_words(request.table.shown),
        recipients=tuple(one.name for one in request.recipients),
        done=done,
        rounds=rounds,
        sizes=sizes,
        up_bytes=sum(one.count * one.up_bytes for one in sizes),
        down_bytes=sum(one.count * one.down_bytes for one in sizes),
        rho=rho if is_priced else None,
        epsilon=epsilon_of(rho, delta) if is_priced else None,
        rho_of_run=rounds * rho if is_priced else None,
        epsilon_of_run=epsilon_of(rounds * rho, delta) if is_priced else None,
        delta=asked.delta,
        silos={
            silo: _at_silo(request, asked.silos[silo], standing.get(silo), costs.get(silo, 0), is_reserved=bool(done))
            for silo in request.silos
        },
        absent=absent_from(federation.offer, request),
        instead=_instead(asked, standing, request, rounds, delta) if is_priced and not done else None,
        metric=metric_in_words(job),
        audit="" if job.audited is None else job.audited.in_words,
        noise=_own_noise_in_words(asked, request),
        no_room=said.no_room,
    )


def _beside(
    federation: Federation, parts: Iterable[Beside], standing: Mapping[str, Standing]
) -> tuple[Mapping[str, Standing], Mapping[str, int]]:
    """Return what silos say of a run and of what is asked beside it, and by silo what that costs, in micro-rho."""
    told, costs = dict(standing), dict.fromkeys(standing, 0)
    for part in parts:
        for silo, found in federation.standing(part.request).items():
            if silo not in told:
                continue
            costs[silo] += part.times * found.micro_rho
            reasons = (one.model_copy(update={"message": f"{part.name}: {one.message}"}) for one in found.denials)
            denials = (*told[silo].denials, *reasons)
            told[silo] = told[silo].model_copy(update={"denials": tuple(dict.fromkeys(denials))})
    return told, costs


def _at(step: S, number: int) -> S:
    """Return a later step of a run, as its request would have it after a report that is not there yet."""
    return step.model_copy(update={"step": number, "after": LATER if number else START})


def _sizes(federation: Federation, offer: Offer, request: Request, done: int) -> Iterator[Rounds]:
    """Yield the rounds by their sizes; raises AnalystError where a later one could not be asked."""
    step = request.plan.training
    if step is None:
        return
    asks_less = step.share < 1  # in each round but the first
    lengths = [
        ((slot_count(_at(step, number), request.table), asks_less and number > 0), number)
        for number in range(done, step.steps)
    ]
    conditions = Bearing.of(offer.silos.values()).conditions
    for (values, _), group in groupby(lengths, key=lambda one: one[0]):
        numbers = [number for _, number in group]
        try:
            later = Request.model_validate(dict(request) | asked_in(request, _at(step, numbers[0])))
        except ValidationError as err:
            reason = reason_of(err)
            raise AnalystError(
                f"round {numbers[0] + 1} cannot be asked: {reason}", "change the job; docs/training.md says what fits"
            ) from err
        found = volume_at_silo(federation, later, conditions)
        yield Rounds(numbers[0] + 1, numbers[-1] + 1, values, found.up, found.down)


def _at_silo(
    request: Request, catalogue: Catalogue, found: Standing | None, beside_micro: int, *, is_reserved: bool
) -> RunAtSilo:
    """Return what a silo says; what is left there is without a run that has begun, which `is_reserved` whole."""
    said = at_silo(catalogue, found, request.purpose)
    whole = run_price(request, catalogue.max_silos).micro_rho / MICRO if said.rho else 0.0
    to_come = 0.0 if is_reserved else whole
    rest = scarcest(said.left)
    left = None if rest is None else rest[0] / MICRO
    covers_all = left is None or to_come <= left
    return RunAtSilo(
        rho=said.rho,
        epsilon=said.epsilon,
        rho_of_run=whole,
        epsilon_of_run=epsilon_of(whole, rho_delta(float(catalogue.delta))) if whole else 0.0,
        seconds=said.seconds,
        denials=said.denials,
        left=said.left,
        rho_left=left,
        rho_beside=beside_micro / MICRO,
        rho_after=None if left is None else left - to_come - beside_micro / MICRO,
        covered=None if covers_all or left is None else int(left / said.rho),
        sends_s=said.sends_s,
    )


def _own_noise_in_words(offer: Offer, request: Request) -> str:
    """Return how much more noise there is where each silo adds the whole of it; empty where the silos share it."""
    if not request.plan.has_own_noise:
        return ""
    of = Bearing.of([offer.silos[silo] for silo in request.silos]).conditions
    shares = max(1, noise_shares(len(request.silos), *of[1:]))
    return (
        f"each silo adds the whole noise of its own: that of a sum deviates {math.sqrt(shares):.2g} times as much as"
        f" where silos share it, as if a run with shared noise had {shares:,} times less of the price; the model is"
        f' less accurate by that, and options.noise = "shared" is the other way'
    )


def _instead(offer: Offer, standing: Mapping[str, Standing], request: Request, rounds: int, delta: float) -> Affordable:
    asked = {silo: offer.silos[silo] for silo in request.silos}
    limits = limits_of(asked, standing, request.table, request.purpose)
    return affordable(epsilon_of(rounds * request.micro_rho / MICRO, delta), rounds, delta, limits)


def run_lines(found: RunPreview) -> Iterator[str]:
    """Yield the preview of a run as text."""
    yield f"each silo computes: {found.asks}"
    others = [name for name in found.recipients if name not in found.silos]
    yield f"the model goes to the silos{' and ' + ', '.join(others) if others else ' alone'}"
    after = f" after {found.done} that are done" if found.done else ""
    yield f"rounds: at most {found.rounds}{after}, and the run may end before"
    for one in found.sizes:
        which = f"round {one.first}" if one.count == 1 else f"rounds {one.first} to {one.last}, each"
        up, down = bytes_in_words(one.up_bytes), bytes_in_words(one.down_bytes)
        yield f"  {which}: {one.values:,} values; a silo sends {up}, receives {down}"
    up, down = bytes_in_words(found.up_bytes), bytes_in_words(found.down_bytes)
    yield f"  all together: a silo sends {up}, receives {down}"
    yield ""
    yield from _price_lines(found)
    yield from (one for one in (found.noise, found.metric, found.audit) if one)
    for silo, why in found.absent.items():
        yield f"  {silo} is not asked: {why}"
    yield from _refusal_lines(found)
    yield ""
    yield "nothing was asked of any row, nothing is paid"


def _price_lines(found: RunPreview) -> Iterator[str]:
    if found.rho is None or found.rho_of_run is None:
        yield "price: none; without noise, nothing is promised against those who compare models"
        times = [(silo, _times(one)) for silo, one in found.silos.items()]
        yield from (f"  {silo}: a round{took[1:]}" for silo, took in times if took)
        return
    yield (
        f"price: epsilon {found.epsilon_of_run:.3g} at delta {found.delta:g} (rho {found.rho_of_run:.4g}) to each"
        f" person; a round: epsilon {found.epsilon:.3g}, rho {found.rho:.4g}"
    )
    for silo, one in found.silos.items():
        if one.rho:
            took = f"{_times(one)} a round" if _times(one) else ""
            more = f", and rho {one.rho_beside:.4g} beside" if one.rho_beside else ""
            yield (
                f"  {silo}: rho {one.rho:.4g} a round, {one.rho_of_run:.4g} in all, epsilon {one.epsilon_of_run:.3g}"
                f" there{more}{took}; {_left_after(one)}"
            )


def _times(one: RunAtSilo) -> str:
    """Return how long a silo computes and sends in a round, each behind a comma; empty where it states neither."""
    computes = f", computes up to {one.seconds:g} s" if one.seconds else ""
    return computes + (f", sends up to {one.sends_s} s" if one.sends_s else "")


def _left_after(one: RunAtSilo) -> str:
    rest = scarcest(one.left)
    if rest is None or one.rho_after is None:
        return "it does not say what is left"
    whose = f"{rest[1].window} for {rest[1].purpose}" if rest[1].purpose else rest[1].window
    if one.covered is not None:
        return f"rho {one.rho_left:.4g} is left ({whose}), which covers {counted(one.covered, 'round')}"
    return f"rho {one.rho_left:.4g} is left ({whose}), {one.rho_after:.4g} after it"


def _refusal_lines(found: RunPreview) -> Iterator[str]:
    refusals = found.refusals
    for silo, denials in refusals.items():
        for denial in denials:
            rule = f" ({denial.rule})" if denial.rule else ""
            yield f"  {silo} would refuse: {denial.code}{rule}: {denial.message}; {denial.remedy}"
    short = [silo for silo, one in found.silos.items() if one.covered is not None and not _says_so(one.denials)]
    scarce = list(_scarce_lines(found))
    yield from scarce
    for silo in short:
        yield f"  {silo} would refuse round {(found.silos[silo].covered or 0) + found.done + 1}: its budget ends before"
    if found.no_room:
        yield f"  the aggregator would refuse: {found.no_room}"
    elif not refusals and not short and not scarce:
        yield "  nobody would refuse it now"
    if found.instead is not None and found.instead.in_words:
        yield f"  {found.instead.in_words}"


def _scarce_lines(found: RunPreview) -> Iterator[str]:
    """Yield which silos have enough left for the rounds, but not for what is asked beside them too."""
    for silo, one in found.silos.items():
        if one.covered is None and one.rho_beside and one.rho_after is not None and one.rho_after < 0:
            left = max(0.0, one.rho_after + one.rho_beside)
            yield (
                f"  {silo} would refuse a part of what is asked beside: after the rounds, which are reserved, rho"
                f" {left:.4g} is left, and that takes {one.rho_beside:.4g}; the run goes on without a metric"
            )


def _says_so(denials: Sequence[Denial]) -> bool:
    return any(one.code.startswith(_BUDGETS) for one in denials)
