"""What an evaluation of a model would cost and tell, and who would refuse it: nothing is asked, no row is read.

Verdicts and prices are the silos' own (`silo_node/standing.py`). What noise does to each metric follows from the price,
by assumed rows: half of an interval at the noise alone. docs/training.md, "Evaluation".
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.preview import AtSilo, absent_from, at_silo, left_in_words, silos_to_dict
from analyst.training.evaluation import judged_of
from analyst.training.metrics import Floats, opened_of
from analyst.training.registry import Registry, RunEntry
from analyst.widths import SIZES, deviations_of
from policies.budget.accountant import epsilon_of
from policies.requests.evaluation import OWN, Evaluation
from policies.requests.metrics import MetricName, Sum
from policies.requests.request import Request
from policies.requests.standing import scarcest
from policies.requests.statistic import Statistic
from policies.units import MICRO

Errors = Mapping[str, Mapping[int, float | None]]  # by metric, and by rows; None: noise hides it

# What a row is assumed to add to a sum, in units of one row: a model of middling quality.
_OF_ROW = {
    "right": 0.8, "loss": 0.5, "brier": 0.17, "squared": 0.1, "absolute": 0.25, "label": 0.0, "label-square": 0.2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class JudgingPreview:
    """An evaluation before it is asked."""

    run: str
    asks: str
    metrics: tuple[MetricName, ...]
    rho: float | None  # None without noise, as nothing is promised then
    epsilon: float | None
    delta: float
    silos: Mapping[str, AtSilo]
    rho_left: Mapping[str, float | None]  # after it, in the budget where least is left; None: the silo does not say
    absent: Mapping[str, str]  # silos that would not be asked, and why
    errors: Errors  # half of an interval at the noise alone
    own_errors: Errors  # the same of one silo's own
    is_under_way: bool  # a request for this run is kept without an answer, and would be sent in place of this one

    @property
    def refusals(self) -> Mapping[str, tuple[Any, ...]]:
        return {silo: one.denials for silo, one in self.silos.items() if one.denials}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values; docs/commands.md describes them."""
        return asdict(self) | {"silos": silos_to_dict(self.silos)}


def preview_evaluation(federation: Federation, entry: RunEntry, request: Request) -> JudgingPreview:
    """Return what a request of `evaluation_of` would cost and tell; only catalogues are asked for, unsigned."""
    plan = request.plan
    if not isinstance(plan, Evaluation):
        raise AnalystError("the request judges no model", "write one with evaluation_of")
    standing, offer = federation.standing(request), federation.offer_of(request.silos)
    silos = {silo: at_silo(offer.silos[silo], standing.get(silo), request.purpose) for silo in request.silos}
    rho = request.micro_rho / MICRO if request.micro_rho else None
    found = (
        deviations_of(request.table, plan, request.micro_rho, [offer.silos[one] for one in request.silos])
        if rho
        else {}
    )
    return JudgingPreview(
        run=entry.name,
        asks=plan.in_words(request.table.shown),
        metrics=plan.metrics,
        rho=rho,
        epsilon=None if rho is None else epsilon_of(rho, offer.delta_for(request.table, plan)),
        delta=offer.delta,
        silos=silos,
        rho_left={silo: _after(one) for silo, one in silos.items()},
        absent=absent_from(federation.offer, request),
        errors=_errors(request, plan, found, None) if found else {},
        own_errors=_errors(request, plan, found, OWN) if found and plan.model.own else {},
        is_under_way=rho is not None and Registry(federation.config.path.parent).asked(entry).exists(),
    )


def _after(one: AtSilo) -> float | None:
    rest = scarcest(one.left)
    return None if rest is None else rest[0] / MICRO - one.rho


def _errors(request: Request, plan: Evaluation, deviations: Mapping[Statistic, float], of: str | None) -> Errors:
    sums = plan.sums(request.table)
    noise = {name: deviations[Statistic(name, of)] ** 2 for name in sums}
    found: dict[str, dict[int, float | None]] = {}
    for size in SIZES:
        # Of no rows a person the rows themselves leave nothing open, so an interval is that of the noise.
        opened = opened_of(sums, {name: _made_up(name, one, size) for name, one in sums.items()}, noise, 0)
        for metric in judged_of(plan.model.task(request.table), plan, opened).metrics:
            is_told = metric.low is not None and metric.high is not None
            half = ((metric.high or 0.0) - (metric.low or 0.0)) / 2 if is_told else None
            found.setdefault(metric.name, {})[size] = half
    return found


def _made_up(name: str, one: Sum, rows: int) -> Floats:
    """Return a block as so many rows might add to it, in whole units of its grid."""
    if name == "scores":  # where it is not true, more low scores, where it is, more high ones
        curves = one.length // 2 // _bins(one)
        rising = np.arange(1.0, _bins(one) + 1)
        both = np.concatenate([rising[::-1], rising]) / rising.sum() / 2
        return np.tile(both * rows, curves)
    each = _OF_ROW.get(name, 1 / one.length)  # of rows by class, and bins of calibration, the same number in each
    return np.full(one.length, np.ldexp(each * rows, one.bits))


def _bins(one: Sum) -> int:
    return one.length // 2 // one.changed


def judging_lines(found: JudgingPreview) -> Iterator[str]:
    """Yield a preview as text."""
    yield f"each silo computes: {found.asks}"
    yield "the figures go to you, and to no silo"
    yield ""
    if found.rho is None:
        yield "price: none; without noise, nothing is promised against those who compare models"
    else:
        yield f"price: epsilon {found.epsilon:.3g} at delta {found.delta:g} (rho {found.rho:.4g}) to each person"
    for silo, one in found.silos.items():
        took = f", computes up to {one.seconds:g} s" if one.seconds else ""
        after = found.rho_left[silo]
        then = "" if after is None else f", {after:.4g} after it"
        if one.rho:
            yield f"  {silo}: rho {one.rho:.4g}, epsilon {one.epsilon:.3g} there{took}; {left_in_words(one.left)}{then}"
        elif took:
            yield f"  {silo}{took}"
    yield from (f"  {silo} is not asked: {why}" for silo, why in found.absent.items())
    for silo, denials in found.refusals.items():
        for denial in denials:
            rule = f" ({denial.rule})" if denial.rule else ""
            yield f"  {silo} would refuse: {denial.code}{rule}: {denial.message}; {denial.remedy}"
    if not found.refusals:
        yield "  nobody would refuse it now"
    if found.is_under_way:
        yield "  one is kept without an answer: the same command sends that one, and pays no other"
    yield ""
    yield from _error_lines(
        "half width of each 95 % interval by the noise alone, if so many rows are judged:", found.errors
    )
    yield from _error_lines("the same of one silo's own rows:", found.own_errors)
    yield "nothing was asked of any row, nothing is paid"


def _error_lines(what: str, errors: Errors) -> Iterator[str]:
    if errors:
        yield what
        names = max(map(len, ["rows", *errors]))
        yield f"  {'rows':>{names}}" + "".join(f"{size:>12,}" for size in SIZES)
        for name, by_rows in errors.items():
            halves = (by_rows.get(size) for size in SIZES)
            yield f"  {name:>{names}}" + "".join(
                f"{'too noisy' if one is None else f'{one:.3g}':>12}" for one in halves
            )
