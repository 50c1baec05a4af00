"""What a question would cost and tell, before it is asked: no row is read, no budget used, nothing is kept.

Prices and verdicts are the silos' own (`silo_node/standing.py`), signed with their catalogues; widths follow from the
request, by the noise that all silos together would add.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from analyst.asking import Command
from analyst.reports.estimates import SURE_FROM, cohort_of
from analyst.reports.intervals import Noisy, surely
from analyst.sql.draft import Planned, Script
from analyst.sql.offer import Offer
from analyst.sql.row_bounds import told
from analyst.widths import SIZES, deviations_of_each, widths
from policies.budget.accountant import epsilon_of
from policies.budget.sampler import rho_delta
from policies.requests.catalogue import Catalogue
from policies.requests.denials import Denial
from policies.requests.query import Aggregate
from policies.requests.request import Request
from policies.requests.sending import sent_of
from policies.requests.standing import Left, Standing, scarcest
from policies.requests.statements import statistics_of
from policies.requests.statistic import Extent, Statistic
from policies.requests.survival import ROW, SURVIVAL, grid_of
from policies.requests.tables import TableColumn
from policies.requests.trees import TREE, tree_over
from policies.units import MICRO, counted, when

if TYPE_CHECKING:
    from analyst.client import Federation

_Z95_ONE_SIDE = 1.645
_SLOT_BYTES = 8


@dataclass(frozen=True, slots=True)
class AtSilo:
    """What one silo would say: its price for one person, the seconds that it may compute and send, why it refuses."""

    rho: float
    epsilon: float
    seconds: float
    denials: tuple[Denial, ...]
    left: tuple[Left, ...]
    sends_s: int = 0  # a long vector; 0 for a short one


class Said(Protocol):
    """What one silo would say, whatever is asked; a dataclass with more fields of plain values."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def denials(self) -> tuple[Denial, ...]: ...

    @property
    def left(self) -> tuple[Left, ...]: ...


def silos_to_dict(silos: Mapping[str, Said]) -> dict[str, dict[str, Any]]:
    """Return what each silo would say as plain values."""
    return {
        silo: {
            **asdict(one),
            "denials": [denial.model_dump() for denial in one.denials],
            "left": [budget.model_dump() for budget in one.left],
        }
        for silo, one in silos.items()
    }


@dataclass(frozen=True, slots=True)
class Part:
    """One statistic that crosses from the silos, with noise: how much one person changes it, and its price."""

    name: str
    numbers: int
    sensitivity: int
    share: float  # of the price
    levels: int | None = None  # of a tree, in each of which one person changes it so much
    # Of the finest bins of a tree, or those of survival curves, in the column's own units: what both are exact to.
    bin_width: float | None = None


@dataclass(frozen=True, slots=True)
class Foreseen:
    """One statement before it is asked.

    `widths` are half widths of 95 % intervals by the rows of a group; None: the noise hides the figure.
    """

    asks: str  # what silos compute, in words
    after: str  # the SQL of what is computed from their figures
    groups: int
    widths: Mapping[str, Mapping[int, float | None]]
    withheld_below: float  # a group with fewer rows is withheld more often than not
    shown_from: float  # a group with as many rows is shown in 95 % of answers


@dataclass(frozen=True, slots=True)
class Preview:
    """A request before it is asked: what is said of its one statement, or of several, in `statements`, of each."""

    asks: str  # what silos compute, in words
    after: str  # the SQL of what is computed from their figures; of several statements nothing
    parts: tuple[Part, ...]
    groups: int
    rho: float
    epsilon: float
    delta: float
    silos: Mapping[str, AtSilo]
    absent: Mapping[str, str]  # silos that would not be asked, and why
    widths: Mapping[str, Mapping[int, float | None]]
    withheld_below: float  # as of one statement; of several the greatest
    shown_from: float
    upload_bytes: int  # of each silo, without what surrounds its vector
    statements: tuple[Foreseen, ...] = ()  # of several
    no_room: str = ""  # why a round would not fit at the aggregator

    @property
    def refusals(self) -> Mapping[str, tuple[Denial, ...]]:
        return {silo: one.denials for silo, one in self.silos.items() if one.denials}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values; docs/commands.md describes them."""
        found = asdict(self)
        if not self.statements:
            del found["statements"]
        if not self.no_room:
            del found["no_room"]
        found["silos"] = silos_to_dict(self.silos)
        return found


def preview(federation: "Federation", command: Command) -> Preview:
    """Return what a question would cost and tell; raises as a question does before anything is sent."""
    script, request = federation.planned(command)
    request = federation.resolved(request)
    script = replace(script, statements=tuple(replace(one, table=request.table) for one in script.statements))
    said, sent = federation.said_of(request), sent_of(request)
    standing = said.standings
    asked = federation.offer_of(command.silos)
    conditions = {silo: asked.silos[silo] for silo in request.silos}
    cohort = max(one.min_cohort for one in conditions.values())
    deviations = deviations_of_each(replace(script, table=request.table), request.micro_rho, conditions.values())
    each = [
        _foreseen(planned, of, cohort, command.sure) for planned, of in zip(script.statements, deviations, strict=True)
    ]
    delta = asked.delta_for(request.table, script.plan)
    first, is_one = each[0], len(each) == 1
    return Preview(
        asks=asks_of(script.statements[0]) if is_one else script.plan.in_words(request.table.shown),
        after=first.after if is_one else "",
        parts=tuple(parts_of(script)),
        groups=script.plan.group_count(request.table),
        rho=request.micro_rho / MICRO,
        epsilon=epsilon_of(request.micro_rho / MICRO, delta),
        delta=asked.delta,
        silos={silo: at_silo(one, standing.get(silo), command.purpose) for silo, one in conditions.items()},
        absent=absent_from(federation.offer, request),
        widths=first.widths if is_one else {},
        withheld_below=max(one.withheld_below for one in each),
        shown_from=max(one.shown_from for one in each),
        upload_bytes=sent.input_bytes or _SLOT_BYTES * sent.values,
        statements=() if is_one else tuple(each),
        no_room=said.no_room,
    )


def asks_of(planned: Planned) -> str:
    """Return what silos compute, in words, with bounds that the question does not state.

    They are those, and the step, of each measure that is an expression, and those of `max_rows` rows of a person.
    """
    plan, seen, text = planned.plan, planned.plan.seen(planned.table), planned.plan.in_words(planned.table.shown)
    for one in plan.derived:
        column, step = seen.column(one.name), Decimal(seen.column(one.name).step or 1)
        low, high = (f"{((end or 0) * step).normalize():f}" for end in (column.low, column.high))
        text += f"; {one.name} is from {low} to {high}, of each row to the nearest {column.step}"
    return "; ".join([text, *told(plan, planned.table)])


def _foreseen(planned: Planned, deviations: Mapping[Statistic, float], cohort: int, sure: bool | None) -> Foreseen:
    count_sd = deviations[cohort_of({one: Noisy(np.zeros(1), 1.0) for one in deviations})]
    groups = planned.plan.group_count(planned.table)
    is_sure = groups >= SURE_FROM if sure is None else sure
    least = cohort + surely(groups) * count_sd if is_sure else float(cohort)
    return Foreseen(
        asks=asks_of(planned),
        after=planned.after,
        groups=groups,
        widths=widths(planned, deviations),
        withheld_below=least,
        shown_from=least + _Z95_ONE_SIDE * count_sd,
    )


def parts_of(script: Script) -> Iterator[Part]:
    """Yield the statistics of a request."""
    statistics = script.plan.statistics(script.table)
    shares = sum(extent.share for extent in statistics.values()) or 1
    binned = {
        named: (planned.plan.seen(planned.table).column(str(one.column)), planned.plan.curve)
        for planned, found in zip(script.statements, statistics_of(script.plan, script.table), strict=True)
        for one, named in found.items()
        if one.kind in (TREE, SURVIVAL)
    }
    for statistic, extent in statistics.items():
        yield _part(statistic, extent, shares, *binned.get(statistic, (None, None)))


def _part(
    statistic: Statistic, extent: Extent, shares: int, column: TableColumn | None, curve: Aggregate | None
) -> Part:
    """Return a statistic as it is told; of a tree and a curve also the `column` whose values are in bins."""
    tree = None if column is None or curve is not None else tree_over(column)
    squared = extent.squared // (1 if tree is None else tree.levels)
    norm = math.isqrt(max(squared, 1) - 1) + bool(squared)
    part = Part(statistic.name, extent.length, norm, extent.share / shares)
    if column is None:
        return part
    step = float(column.step or 1)
    if tree is not None:
        return replace(part, levels=tree.levels, bin_width=tree.width * step)
    return replace(part, bin_width=grid_of(column, curve.width if curve else None).width * step)


def at_silo(catalogue: Catalogue, found: Standing | None, purpose: str) -> AtSilo:
    """Return what a silo says, with the budgets of a purpose; of one that says nothing, that it does not answer."""
    if found is None:
        denial = Denial(code="AWAY", rule="", message="it does not answer", remedy="ask again when it is back")
        return AtSilo(0.0, 0.0, 0.0, (denial,), ())
    rho = found.micro_rho / MICRO
    epsilon = epsilon_of(rho, rho_delta(float(catalogue.delta))) if rho else 0.0
    left = tuple(one for one in found.left if one.purpose in (None, purpose))
    return AtSilo(rho, epsilon, found.compute_ms / 1000, found.denials, left, found.send_ms // 1000)


def absent_from(offer: Offer, request: Request) -> dict[str, str]:
    """Return the silos that would not be asked, and why."""
    found = dict.fromkeys(offer.missing, "it does not answer")
    found |= {silo: f"{one.code}: {one.message}" for silo, one in offer.reasons.items()}
    others = [silo for silo in offer.silos if silo not in request.silos]
    return found | dict.fromkeys(others, "it has no such table, or was not chosen")


def preview_lines(found: Preview) -> Iterator[str]:
    """Yield a preview as text."""
    statements = [(one.asks, one.after) for one in found.statements] or [(found.asks, found.after)]
    yield from plan_lines(statements, found.parts)
    yield ""
    yield (
        f"price: epsilon {found.epsilon:.3g} at delta {found.delta:g} (rho {found.rho:.4g}) to each person,"
        f" for {counted(found.groups, 'group')}"
    )
    for silo, one in found.silos.items():
        if one.rho:
            took = f", computes up to {one.seconds:g} s" if one.seconds else ""
            took += f", sends up to {one.sends_s} s" if one.sends_s else ""
            yield f"  {silo}: rho {one.rho:.4g}, epsilon {one.epsilon:.3g} there{took}; {left_in_words(one.left)}"
    for silo, why in found.absent.items():
        yield f"  {silo} is not asked: {why}"
    refusals = found.refusals
    for silo, denials in refusals.items():
        for denial in denials:
            rule = f" ({denial.rule})" if denial.rule else ""
            yield f"  {silo} would refuse: {denial.code}{rule}: {denial.message}; {denial.remedy}"
    if found.no_room:
        yield f"  the aggregator would refuse: {found.no_room}"
    elif not refusals:
        yield "  nobody would refuse it now"
    yield ""
    if not found.statements:
        yield from _width_lines("", found.widths, found.withheld_below, found.shown_from)
    for place, of in enumerate(found.statements, 1):
        yield from _width_lines(f"statement {place}: ", of.widths, of.withheld_below, of.shown_from)
    yield f"each silo sends {found.upload_bytes:,} bytes of figures; nothing was asked, nothing is paid"


def plan_lines(statements: Sequence[tuple[str, str]], parts: Sequence[Part]) -> Iterator[str]:
    """Yield what silos compute, what crosses, and what is computed after; of each statement what it asks, and after."""
    said = [f"statement {place}: " if len(statements) > 1 else "" for place in range(1, len(statements) + 1)]
    for which, (asks, _) in zip(said, statements, strict=True):
        yield f"{which}each silo computes: {asks}"
    yield "what crosses, encrypted or shared, with noise in the sum:"
    for part in parts:
        numbers = f"{counted(part.numbers, 'number')}"
        most = f"one person changes it by up to {part.sensitivity:,}"
        if part.levels is not None:
            most += f" in each of {counted(part.levels, 'level')}"
        yield f"  {part.name}: {numbers}, {most}, {part.share:.0%} of the price"
        if part.bin_width is not None and part.levels is not None:
            yield f"    in bins {part.bin_width:g} wide, and runs of them: no quantile is more exact than a bin"
        elif part.bin_width is not None:
            yield f"    sums over bins {part.bin_width:g} wide and all later ones, in {ROW:,}ths of a row"
    for which, (_, after) in zip(said, statements, strict=True):
        yield f"{which}computed after the answer, at no price: {after or 'nothing'}"


def _width_lines(
    which: str, by_figure: Mapping[str, Mapping[int, float | None]], withheld_below: float, shown_from: float
) -> Iterator[str]:
    yield f"{which}half width of each 95 % interval, if every group has so many rows:"
    names = max((len(name) for name in by_figure), default=0)
    yield f"  {'rows':>{names}}" + "".join(f"{size:>14,}" for size in SIZES)
    for name, by_size in by_figure.items():
        yield f"  {name:>{names}}" + "".join(f"{_width(by_size.get(size)):>14}" for size in SIZES)
    yield (
        f"a group with fewer than about {withheld_below:,.0f} rows is likely withheld;"
        f" one of {shown_from:,.0f} rows is shown in 95 % of answers"
    )


def _width(half: float | None) -> str:
    return "too noisy" if half is None else f"{half:,.0f}" if half >= 10 else f"{half:.3g}"


def left_in_words(left: Sequence[Left]) -> str:
    """Return what is left to the analyst, the scarcest budget first."""
    found = scarcest(left)
    if found is None:
        return "it does not say what is left"
    rest, budget = found
    whose = f" for {budget.purpose}" if budget.purpose else ""
    return f"rho {rest / MICRO:.4g} is left ({budget.window}{whose})"


def budget_entries(standing: Standing) -> Iterator[dict[str, Any]]:
    """Yield what is left of each budget at a silo, and what each training run of the analyst has reserved there."""
    yield from (one.model_dump() for one in standing.left)
    yield from (one.model_dump() | {"run": one.run.hex()} for one in standing.runs)


def budget_lines(found: Mapping[str, Standing]) -> Iterator[str]:
    """Yield what is left to the analyst at each silo."""
    for silo, standing in found.items():
        yield f"{silo}:"
        for one in standing.left:
            what = f"{one.window}, {one.purpose}" if one.purpose else f"{one.window}, all purposes"
            mine = "" if one.analyst is None else f"; to you rho {one.analyst / MICRO:.4g}"
            yield f"  {what}: rho {one.everybody / MICRO:.4g} of {one.limit / MICRO:.4g} is left{mine}"
        for run in standing.runs:
            steps = f"{run.parts} of {counted(run.steps, 'step')} to come of run {run.run.hex()[:16]}, {run.purpose}"
            yield f"  reserved: rho {run.micro_rho / MICRO:.4g} for {steps}, until {when(run.until)[:10]}"
