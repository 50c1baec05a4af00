"""What a question would cost and tell, before it is asked: no row is read, no budget used, nothing is kept.

Prices and verdicts are the silos' own (`silo_node/standing.py`), signed with their catalogues; widths follow from the
request, by the noise that all silos together would add.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analyst.asking import Command
from analyst.reports.afterwards import read_after
from analyst.reports.derived import derive
from analyst.reports.estimates import COUNTS, SURE_FROM, Estimate, cohort_of, estimates_of, figures_of, selected
from analyst.reports.intervals import Noisy, surely
from analyst.reports.scenarios import Sums
from analyst.sql.draft import Planned
from analyst.sql.offer import Offer
from crypto.rounds.bounds import noise_shares
from policies.budget.accountant import epsilon_of
from policies.budget.sampler import rho_delta
from policies.requests.calibration import spreads_of
from policies.requests.catalogue import Catalogue
from policies.requests.computations import slot_count
from policies.requests.denials import Denial
from policies.requests.query import CUT
from policies.requests.request import Request
from policies.requests.standing import Left, Standing
from policies.requests.statistic import Extent, Statistic
from policies.units import MICRO

if TYPE_CHECKING:
    from analyst.client import Federation

SIZES = (100, 1_000, 10_000, 100_000)  # rows of every group, for which widths are told
_Z95_ONE_SIDE = 1.645
_SLOT_BYTES = 8


@dataclass(frozen=True, slots=True)
class AtSilo:
    """What one silo would say: its price for one person, the seconds that it may compute, and why it would refuse."""

    rho: float
    epsilon: float
    seconds: float
    denials: tuple[Denial, ...]
    left: tuple[Left, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One statistic that crosses from the silos, with noise: how much one person changes it, and its price."""

    name: str
    numbers: int
    sensitivity: int
    share: float  # of the price
    groups: int = 1  # of one person, each of which may change so much


@dataclass(frozen=True, slots=True)
class Preview:
    """A question before it is asked. `widths` are half widths of 95 % intervals by rows of a group; None: too noisy."""

    asks: str  # what silos compute, in words
    after: str  # the SQL of what is computed from their figures
    parts: tuple[Part, ...]
    groups: int
    rho: float
    epsilon: float
    delta: float
    silos: Mapping[str, AtSilo]
    absent: Mapping[str, str]  # silos that would not be asked, and why
    widths: Mapping[str, Mapping[int, float | None]]
    withheld_below: float  # a group with fewer rows is withheld more often than not
    shown_from: float  # a group with as many rows is shown in 95 % of answers
    upload_bytes: int  # of each silo, without what surrounds its vector

    @property
    def refusals(self) -> Mapping[str, tuple[Denial, ...]]:
        return {silo: one.denials for silo, one in self.silos.items() if one.denials}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values; docs/commands.md describes them."""
        found = asdict(self)
        found["silos"] = {
            silo: {
                **asdict(one),
                "denials": [denial.model_dump() for denial in one.denials],
                "left": [budget.model_dump() for budget in one.left],
            }
            for silo, one in self.silos.items()
        }
        return found


def preview(federation: "Federation", command: Command) -> Preview:
    """Return what a question would cost and tell; raises as a question does before anything is sent."""
    planned, request = federation.planned(command)
    request = federation.resolved(request)
    standing = federation.standing(request)
    asked = federation.offer_of(command.silos)
    conditions = {silo: asked.silos[silo] for silo in request.silos}
    deviations = _deviations(request, conditions)
    count_sd = deviations[cohort_of({one: Noisy(np.zeros(1), 1.0) for one in deviations})]
    groups = planned.plan.group_count(request.table)
    cohort = max(one.min_cohort for one in conditions.values())
    is_sure = groups >= SURE_FROM if command.sure is None else command.sure
    least = cohort + surely(groups) * count_sd if is_sure else float(cohort)
    delta = asked.delta_for(request.table, planned.plan)
    return Preview(
        asks=planned.plan.in_words(request.table.shown),
        after=planned.after,
        parts=tuple(parts_of(planned)),
        groups=groups,
        rho=request.micro_rho / MICRO,
        epsilon=epsilon_of(request.micro_rho / MICRO, delta),
        delta=asked.delta,
        silos={silo: _at_silo(one, standing.get(silo), command.purpose) for silo, one in conditions.items()},
        absent=_absent(federation.offer, request),
        widths=_widths(planned, request, deviations),
        withheld_below=least,
        shown_from=least + _Z95_ONE_SIDE * count_sd,
        upload_bytes=_SLOT_BYTES * slot_count(planned.plan, request.table),
    )


def parts_of(planned: Planned) -> Iterator[Part]:
    """Yield the statistics of a question."""
    statistics = planned.plan.statistics(planned.table)
    shares = sum(extent.share for extent in statistics.values()) or 1
    for statistic, extent in statistics.items():
        yield _part(statistic, extent, shares)


def _part(statistic: Statistic, extent: Extent, shares: int) -> Part:
    return Part(statistic.name, extent.length, extent.sensitivity, extent.share / shares, extent.groups)


def _deviations(request: Request, silos: Mapping[str, Catalogue]) -> dict[Statistic, float]:
    """Return the deviation of the noise of each sum if all silos answer, in rows or half steps."""
    colluding = max(one.max_colluding for one in silos.values())
    missing = min(one.max_missing for one in silos.values())
    shares = noise_shares(len(request.silos), colluding, missing)
    found = spreads_of(request.table, request.plan, request.micro_rho)
    return {
        one: math.ldexp(math.sqrt(spread.variance * len(request.silos) / shares), -spread.scale_bits)
        for one, spread in found.items()
        if one != CUT
    }


def _at_silo(catalogue: Catalogue, found: Standing | None, purpose: str) -> AtSilo:
    """Return what a silo says, with the budgets of a purpose; of one that says nothing, that it does not answer."""
    if found is None:
        denial = Denial(code="AWAY", rule="", message="it does not answer", remedy="ask again when it is back")
        return AtSilo(0.0, 0.0, 0.0, (denial,), ())
    rho = found.micro_rho / MICRO
    epsilon = epsilon_of(rho, rho_delta(float(catalogue.delta))) if rho else 0.0
    left = tuple(one for one in found.left if one.purpose in (None, purpose))
    return AtSilo(rho, epsilon, found.compute_ms / 1000, found.denials, left)


def _absent(offer: Offer, request: Request) -> dict[str, str]:
    """Return the silos that would not be asked, and why."""
    found = dict.fromkeys(offer.missing, "it does not answer")
    found |= {silo: f"{one.code}: {one.message}" for silo, one in offer.reasons.items()}
    others = [silo for silo in offer.silos if silo not in request.silos]
    return found | dict.fromkeys(others, "it has no such table, or was not chosen")


def _widths(
    planned: Planned, request: Request, deviations: Mapping[Statistic, float]
) -> dict[str, dict[int, float | None]]:
    """Return by column of the answer the half width of its interval, by the rows that every group has."""
    found: dict[str, dict[int, float | None]] = {}
    groups, seen = planned.plan.group_count(request.table), planned.plan.seen(request.table)
    counts = planned.plan.group_count(request.table) if planned.after else 1
    shown = np.ones(counts, np.bool_)
    for size in SIZES:
        sums = {
            one: Noisy(np.full(counts, float(size) if one.kind in COUNTS else 0.0), sd)
            for one, sd in deviations.items()
        }
        if planned.after and groups:
            after = read_after(planned.after, {one.alias: one.function for one in planned.plan.aggregates})
            derived = derive(after, Sums(planned.plan, seen, sums, shown), 0.0, bytes(32))
            cells = derived.rows[0] if derived.rows else {}
            named = {name: cells.get(name) for name in derived.columns if name not in derived.labels}
        else:
            plain = selected(sums, shown, -math.inf)
            named = {one.alias: estimates_of(figures_of(one, seen, plain))[0] for one in planned.plan.aggregates}
        for name, cell in named.items():
            found.setdefault(name, {})[size] = _half(cell)
    return found


def _half(cell: object) -> float | None:
    if not isinstance(cell, Estimate) or cell.value is None or cell.low is None or cell.high is None:
        return None
    return (cell.high - cell.low) / 2


def preview_lines(found: Preview) -> Iterator[str]:
    """Yield a preview as text."""
    yield from plan_lines(found.asks, found.after, found.parts)
    yield ""
    yield (
        f"price: epsilon {found.epsilon:.3g} at delta {found.delta:g} (rho {found.rho:.4g}) to each person,"
        f" for {found.groups:,} group{'s' if found.groups != 1 else ''}"
    )
    for silo, one in found.silos.items():
        if one.rho:
            took = f", computes up to {one.seconds:g} s" if one.seconds else ""
            yield f"  {silo}: rho {one.rho:.4g}, epsilon {one.epsilon:.3g} there{took}; {_left_for(one.left)}"
    for silo, why in found.absent.items():
        yield f"  {silo} is not asked: {why}"
    refusals = found.refusals
    for silo, denials in refusals.items():
        for denial in denials:
            rule = f" ({denial.rule})" if denial.rule else ""
            yield f"  {silo} would refuse: {denial.code}{rule}: {denial.message}; {denial.remedy}"
    if not refusals:
        yield "  nobody would refuse it now"
    yield ""
    yield "half width of each 95 % interval, if every group has so many rows:"
    yield from _width_lines(found.widths)
    yield (
        f"a group with fewer than about {found.withheld_below:,.0f} rows is likely withheld;"
        f" one of {found.shown_from:,.0f} rows is shown in 95 % of answers"
    )
    yield f"each silo sends {found.upload_bytes:,} bytes of figures; nothing was asked, nothing is paid"


def plan_lines(asks: str, after: str, parts: Sequence[Part]) -> Iterator[str]:
    """Yield what silos compute, what crosses, and what is computed after."""
    yield f"each silo computes: {asks}"
    yield "what crosses, encrypted or shared, with noise in the sum:"
    for part in parts:
        numbers = f"{part.numbers:,} number{'s' if part.numbers != 1 else ''}"
        each = f" in each of up to {part.groups:,} groups" if part.groups > 1 else ""
        most = f"one person changes it by up to {part.sensitivity:,}{each}"
        yield f"  {part.name}: {numbers}, {most}, {part.share:.0%} of the price"
    yield f"computed after the answer, at no price: {after or 'nothing'}"


def _width_lines(widths: Mapping[str, Mapping[int, float | None]]) -> Iterator[str]:
    names = max((len(name) for name in widths), default=0)
    yield f"  {'rows':>{names}}" + "".join(f"{size:>14,}" for size in SIZES)
    for name, by_size in widths.items():
        yield f"  {name:>{names}}" + "".join(f"{_width(by_size.get(size)):>14}" for size in SIZES)


def _width(half: float | None) -> str:
    return "too noisy" if half is None else f"{half:,.0f}" if half >= 10 else f"{half:.3g}"


def _left_for(left: Sequence[Left]) -> str:
    """Return what is left to the analyst, the scarcest budget first."""
    if not left:
        return "it does not say what is left"
    scarcest = min(left, key=lambda one: one.everybody if one.analyst is None else min(one.everybody, one.analyst))
    rest = scarcest.everybody if scarcest.analyst is None else min(scarcest.everybody, scarcest.analyst)
    whose = f" for {scarcest.purpose}" if scarcest.purpose else ""
    return f"rho {rest / MICRO:.4g} is left ({scarcest.window}{whose})"


def budget_lines(found: Mapping[str, Standing]) -> Iterator[str]:
    """Yield what is left to the analyst at each silo."""
    for silo, standing in found.items():
        yield f"{silo}:"
        for one in standing.left:
            what = f"{one.window}, {one.purpose}" if one.purpose else f"{one.window}, all purposes"
            mine = "" if one.analyst is None else f"; to you rho {one.analyst / MICRO:.4g}"
            yield f"  {what}: rho {one.everybody / MICRO:.4g} of {one.limit / MICRO:.4g} is left{mine}"
