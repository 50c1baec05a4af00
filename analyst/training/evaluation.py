"""Judge a trained model: ask its silos for the sums of its metrics, and tell what they say.

Promise: no silo is asked before the model's last report and the split that divides persons were handed to it, so that
a silo which was away judges the same model by the same persons. A request with a price is kept beside the run's entry
until it is answered, so that nobody pays twice. docs/protocol.md section 11.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.requests import keep_request
from analyst.sql.offer import Offer, suggest
from analyst.training.metrics import (
    CalibrationBin,
    Metric,
    Opened,
    calibration_of,
    of_chance,
    of_classes,
    of_number,
    of_order,
    opened_of,
)
from analyst.training.registry import Registry, RunEntry
from analyst.training.split import deliver_split
from crypto.errors import CryptoError
from crypto.rounds.report import StoredReport
from crypto.wire import digest_of
from federation.errors import FederationError
from policies.budget.accountant import epsilon_of
from policies.errors import reason_of
from policies.models.card import Figure
from policies.requests.evaluation import OWN, Evaluation
from policies.requests.families import Task
from policies.requests.held_out import marks_of
from policies.requests.judged import JudgedModel
from policies.requests.metrics import (
    MAX_HISTOGRAMS,
    METRICS,
    MOST_ERROR,
    MOST_LOSS,
    OF_PREDICTION,
    MetricName,
    prediction_of,
)
from policies.requests.request import Request
from policies.requests.statistic import Statistic
from policies.requests.tables import Table
from policies.units import MICRO, SEND_S, WAIT_S, counted

_BY_BINS: frozenset[MetricName] = frozenset({"auc", "average-precision"})  # of each class, so not of very many
_NOISY: tuple[MetricName, ...] = ("accuracy", "auc", "brier", "log-loss", "mae", "r2", "rmse")


@dataclass(frozen=True, slots=True)
class Judged:
    """How good a model is by some rows: those of all silos, or of one."""

    rows: float
    metrics: tuple[Metric, ...]
    calibration: tuple[CalibrationBin, ...]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The metrics of one model."""

    run: str
    model: str  # the family, and what it predicts
    table: str
    whose: str  # the rows that it is judged by, in words
    silos: tuple[str, ...]  # whose rows are in the sums
    judged: Judged
    own: Mapping[str, Judged]  # by silo, where its policy opens it
    rho: float | None
    epsilon: float | None
    delta: float | None
    notes: tuple[str, ...]


def evaluation_of(
    federation: Federation,
    entry: RunEntry,
    *,
    metrics: Sequence[MetricName] = (),
    table: str | None = None,
    epsilon: float | None = None,
    has_own: bool = False,
    deadline: int = WAIT_S,
    send_deadline: int = SEND_S,
) -> Request:
    """Return the request that judges a run's last model; nothing is asked of any row yet.

    `table` is another table of the same columns, all rows of which are taken; without it those who are held out are, or
    all if nobody is. With `epsilon` the sums have noise. Raises AnalystError before anything is sent.
    """
    first = entry.first()
    step = first.plan.training
    entry.check_model()
    if entry.goes_on_as is not None:
        raise AnalystError(f"the run {entry.name[:12]} {entry.state}", "name that run")
    if step is None or entry.position is None:
        raise AnalystError(f"the run {entry.name[:12]} has no model that is judged", "train it to its end")
    name = table or first.table.name
    if table is None and step.release == "private" and epsilon is None:
        raise AnalystError("the sources are private: metrics have noise, and a price", "name --epsilon, such as 0.5")
    offer = federation.offer_of(first.silos)
    if name not in offer.tables:
        raise AnalystError(f"unknown table {name!r}", suggest(name, offer.tables))
    held_out = step.held_out if table is None else None
    silos = tuple(offer.holders(name))
    own = _own(offer, silos) if has_own else ()
    try:
        model = JudgedModel(position=entry.position, step=step.first(), own=own)  # type: ignore[arg-type]
        used = dict.fromkeys((*(one for names in model.uses().values() for one in names), *marks_of(held_out)))
        asked = _asked(offer, first.table, name, tuple(used))
        task = model.task(asked)
        plan = Evaluation(
            release="exact" if epsilon is None else "private",
            model=model,
            metrics=_chosen(task, metrics, has_noise=epsilon is not None),
            held_out=held_out,
        )
        price = 0 if epsilon is None else federation.price(first.purpose, epsilon, asked, plan, silos)
        mine, waits = (federation.recipient,), (deadline, silos, send_deadline)
        return federation.write(asked, plan, first.purpose, price, mine, "masking", *waits)
    except ValueError as err:
        reason = reason_of(err)
        raise AnalystError(f"the model cannot be judged so: {reason}", "docs/training.md lists the metrics") from err


def _own(offer: Offer, silos: tuple[str, ...]) -> tuple[str, ...]:
    """Return which silos are judged by their own rows too: so many that the figures of the others do not follow."""
    own = sorted(one for one in silos if offer.silos[one].own_metrics)
    if len(own) == len(silos):
        return tuple(own)
    least = max(offer.silos[one].min_silos + offer.silos[one].max_missing for one in silos)
    return tuple(own[: max(0, len(silos) - least)])


def _chosen(task: Task, metrics: Sequence[MetricName], *, has_noise: bool) -> tuple[MetricName, ...]:
    """Return the metrics that are asked: those that are named, or all that the family has."""
    prediction = prediction_of(task)
    every = () if prediction is None else OF_PREDICTION[prediction]
    if prediction == "classes" and len(task.classes) > MAX_HISTOGRAMS:
        every = tuple(name for name in every if name not in _BY_BINS)
    usual = tuple(name for name in every if name in _NOISY) if has_noise else every
    return tuple(sorted(set(metrics or usual or METRICS)))


def _asked(offer: Offer, learned: Table, name: str, used: Sequence[str]) -> Table:
    """Return the definition of a table in which the model's columns are those that it was learned from."""
    known = {column.name: column for column in learned.columns}
    if missing := [column for column in used if column not in offer.columns(name)]:
        raise AnalystError(f"unknown column {missing[0]!r} of {name!r}", suggest(missing[0], offer.columns(name)))
    table = offer.table(name, used)
    return table.model_copy(update={"columns": tuple(known.get(one.name, one) for one in table.columns)})


def evaluate(
    federation: Federation, entry: RunEntry, request: Request, *, is_kept: bool = True, is_repeated: bool = False
) -> Evaluated:
    """Ask for an evaluation and open it; the run's entry has its figures then.

    One with a price `is_kept` until it is answered, and a later call sends that one. Of a request that `is_repeated`,
    as it may have been sent, the report is looked for first. Raises DeniedError, or RoundError if too few silos are
    left to answer, or the report was erased.
    """
    plan = request.plan
    if not isinstance(plan, Evaluation):
        raise AnalystError("the request judges no model", "write one with evaluation_of")
    registry = Registry(federation.config.path.parent)
    keep = registry.asked(entry)
    _hand_out(federation, plan)
    encrypted = None
    if request.micro_rho and is_kept:
        request, is_repeated = keep_request(keep, request, federation.now()), True
    if is_repeated:
        encrypted = federation.aggregators.fetched(digest_of(request))
    encrypted = encrypted or federation.submit(request)
    request = federation.resolved(request)
    checked = federation.check_report(StoredReport.decode(encrypted), request)
    opened = federation.open_sum(checked, request)
    federation.recount(checked)
    blocks = zip(opened.blocks(), opened.deviations(), strict=True)
    found = dict(zip(plan.statistics(request.table), blocks, strict=True))
    told = _told(federation, entry, request, plan, checked.survivors, found)
    figures = [Figure(name=one.name, value=one.value, low=one.low, high=one.high) for one in told.judged.metrics]
    registry.keep(entry.model_copy(update={"metrics": tuple(figures), "changed_at": federation.now()}))
    if is_kept:
        keep.unlink(missing_ok=True)
    return told


def _hand_out(federation: Federation, plan: Evaluation) -> None:
    """Hand the model's last report, and the split's, to silos that may have been away."""
    with suppress(CryptoError, AnalystError, FederationError):  # a silo without them refuses, and says so
        federation.deliver_report(plan.model.position)
    if plan.held_out is not None and plan.held_out.split is not None:
        deliver_split(federation, plan.held_out.split)


Block = tuple[npt.NDArray[np.float64], float]  # opened numbers, and the deviation of the noise in each


def _told(
    federation: Federation,
    entry: RunEntry,
    request: Request,
    plan: Evaluation,
    silos: Sequence[str],
    found: Mapping[Statistic, Block],
) -> Evaluated:
    step, sums = plan.model.step, plan.sums(request.table)
    task = plan.model.task(request.table)
    common = {name: found[Statistic(name)] for name in sums}
    opened = _opened(plan, request, {name: values for name, (values, _) in common.items()}, common)
    own = {}
    for place, silo in enumerate(plan.model.own):
        of_silo = {name: found[Statistic(name, OWN)] for name in sums}
        parts = {name: values.reshape(len(plan.model.own), -1)[place] for name, (values, _) in of_silo.items()}
        own[silo] = judged_of(task, plan, _opened(plan, request, parts, of_silo))
    rho = request.micro_rho / MICRO if request.micro_rho else None
    offer = federation.offer_of(request.silos)
    delta = offer.delta_for(request.table, plan)
    return Evaluated(
        run=entry.name,
        model=step.opened_as + (f" of {step.label}" if step.label else ""),
        table=request.table.name,
        whose=_whose(plan),
        silos=tuple(silos),
        judged=judged_of(task, plan, opened),
        own={silo: one for silo, one in own.items() if silo in silos},
        rho=rho,
        epsilon=None if rho is None else epsilon_of(rho, delta),
        delta=None if rho is None else offer.delta,
        notes=tuple(_notes(plan, opened)),
    )


def _opened(
    plan: Evaluation, request: Request, values: Mapping[str, npt.NDArray[np.float64]], found: Mapping[str, Block]
) -> Opened:
    noise = {name: deviation**2 for name, (_, deviation) in found.items()}
    return opened_of(plan.sums(request.table), values, noise, request.table.max_rows)


def _whose(plan: Evaluation) -> str:
    if plan.held_out is not None:
        return f"who is held out: {plan.held_out.in_words}"
    return "all rows"


def judged_of(task: Task, plan: Evaluation, opened: Opened) -> Judged:
    """Return what opened sums say of the quality of a model."""
    match prediction_of(task):
        case "chance":
            metrics = of_chance(opened, plan.metrics)
        case "classes":
            metrics = of_classes(opened, plan.metrics)
        case "number":
            column = task.label_column
            half = (column.range_steps or 1) / 2 * float(column.step or 1)
            metrics = of_number(opened, plan.metrics, half)
        case _:
            metrics = of_order(opened)
    calibration = calibration_of(opened) if "calibration" in plan.metrics else ()
    return Judged(opened.rows, metrics, calibration)


def _notes(plan: Evaluation, opened: Opened) -> Iterator[str]:
    if plan.held_out is None:
        yield "the model may have learned from these rows, which flatters it; hold rows out with [held_out]"
    if opened.has_noise:
        yield "every figure has noise, which its interval counts"
        if "loss" in opened.values:
            yield f"the loss of a row counts as at most {MOST_LOSS:g}"
        if "squared" in opened.values or "absolute" in opened.values:
            yield "a prediction beyond the label's bounds counts as their end"
    if "loss" in opened.values and not opened.has_noise and opened.rows > 0 and len(opened.values["rows"]) > 2:
        perplexity = math.exp(opened.one("loss") / opened.rows)
        yield f"perplexity {perplexity:.4g}: the model is as unsure as of so many classes alike"
    if "outside" in opened.values and (outside := opened.one("outside")):
        far = f"further off than {MOST_ERROR:g} half ranges of the label"
        yield f"of {counted(outside, 'row')} the prediction is {far}, and counts as that"


def to_dict(found: Evaluated) -> dict[str, object]:
    """Return an evaluation as plain values; docs/commands.md describes them."""
    return asdict(found)


def to_json(found: Evaluated) -> str:
    """Return an evaluation as JSON."""
    return json.dumps(to_dict(found), indent=2)


def to_csv(found: Evaluated) -> str:
    """Return the metrics as CSV: one line a metric, of all silos together and of each that opens its own."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("silo", "rows", "metric", "value", "low", "high"))
    for silo, one in (("", found.judged), *found.own.items()):
        for metric in one.metrics:
            writer.writerow((silo, f"{one.rows:g}", metric.name, metric.value, metric.low, metric.high))
    return file.getvalue()


def show_evaluation(found: Evaluated) -> Iterator[str]:
    """Yield an evaluation as lines of text."""
    yield f"run {found.run}: {found.model} in {found.table}, judged by {found.whose}"
    yield f"{counted(found.judged.rows, 'row')} of {', '.join(found.silos)}"
    yield from _metric_lines(found.judged)
    for silo, one in found.own.items():
        yield f"{silo} alone: {counted(one.rows, 'row')}"
        yield from _metric_lines(one)
    if found.judged.calibration:
        yield "of rows with a score of about, so many came true:"
        for bin_ in found.judged.calibration:
            yield f"  {bin_.score:.3f}: {bin_.share:.3f} of {bin_.rows:,.0f}"
    if found.rho is not None and found.epsilon is not None and found.delta is not None:
        yield f"cost to each person: epsilon {found.epsilon:.3g} at delta {found.delta:g} (rho {found.rho:.4g})"
    yield from found.notes


def _metric_lines(of: Judged) -> Iterator[str]:
    for one in of.metrics:
        value = "not told by these rows" if one.value is None else f"{one.value:.4f}"
        ends = "" if one.low is None or one.high is None else f" ({one.low:.4f} to {one.high:.4f})"
        yield f"  {one.name:<18} {value}{ends}"
