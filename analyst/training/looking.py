"""Look at a trained model again: its gaps, a metric, and how far scores and features have moved. docs/training.md.

Promise: no look is begun that would cost more than what is left of `watch.epsilon`, and every look that was begun
counts as paid. What each silo bears in all is its policy's to say, as of any request.
"""

from dataclasses import replace
from pathlib import Path

from analyst.client import Federation
from analyst.errors import AnalystError, RoundError
from analyst.training.audit_job import AuditJob
from analyst.training.auditing import Audited, audit, gaps_of
from analyst.training.evaluation import evaluate, evaluation_of
from analyst.training.job import Job
from analyst.training.metrics import Metric
from analyst.training.registry import Registry, RunEntry
from analyst.training.watch_job import WatchJob
from analyst.training.watch_record import Look, alarms, bins_in, drifts, gaps_in, read_looks
from crypto.errors import CryptoError
from federation.files import check_out, replace_file
from policies.budget.accountant import micro_rho_of
from policies.fitted import Fitted
from policies.units import MICRO, WAIT_S


def run_of(federation: Federation, job: Job, name: str | None) -> RunEntry:
    """Return the run that is watched: the one of that name, or the last finished one of a job like this.

    Raises AnalystError if there is none.
    """
    registry = Registry(federation.config.path.parent)
    if name is not None:
        return registry.entry(name)
    for entry in reversed(registry.entries()):
        request = entry.first()
        step = request.plan.training
        if step is None or not entry.is_finished or entry.goes_on_as is not None or entry.position is None:
            continue
        own = (request.table.name, request.purpose, step.opened_as, step.label, step.features)
        if own == (job.table, job.purpose, job.model, job.label, job.features):
            return entry
    raise AnalystError("no finished run of this job is known here", "train it first, or name one with --run")


def sections_of(job: Job) -> tuple[WatchJob, AuditJob]:
    """Return what a job says of watching; raises AnalystError if it says nothing."""
    if job.watch is None or job.audited is None:
        raise AnalystError("the job has no [watch]", 'add [watch] with every = "7d" and max_drift = 0.25')
    return job.watch, job.audited


def looks_in(path: Path, run: str) -> list[Look]:
    """Return the looks at a run that a file has; raises AnalystError if it cannot be read."""
    try:
        return list(read_looks(path.read_text(), run)) if path.exists() else []
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise AnalystError(f"{path} cannot be read ({err})", "put it back, or move it away to begin anew") from err


def keep(path: Path, look: Look) -> None:
    """Add a look to a file; raises AnalystError if there is no room."""
    try:
        before = path.read_bytes() if path.exists() else b""
        check_out(path)
        replace_file(path, before + look.line().encode(), 0o600)
    except OSError as err:
        raise AnalystError(f"{path} cannot be written ({err.strerror})", "make room there, and look again") from err


def price_of(federation: Federation, entry: RunEntry, job: Job) -> float:
    """Return what a look costs to each person at most, in rho; 0 without noise."""
    watch, own = sections_of(job)
    delta = federation.offer_of(entry.first().silos).delta
    named = [one for one in (own.epsilon, watch.metric_epsilon) if one is not None]
    return sum(micro_rho_of(float(one), delta) for one in named) / MICRO


def check_left(federation: Federation, entry: RunEntry, job: Job, before: list[Look]) -> None:
    """Raise AnalystError unless another look fits into what watching may cost."""
    watch, _ = sections_of(job)
    if watch.epsilon is None:
        return
    limit = micro_rho_of(float(watch.epsilon), federation.offer_of(entry.first().silos).delta) / MICRO
    spent, price = sum(look.rho for look in before), price_of(federation, entry, job)
    if spent + price > limit * (1 + 1e-9):
        left = f"{len(before)} looks cost rho {spent:g} of {limit:g}, and one more would cost {price:g}"
        raise AnalystError(f"watch.epsilon is used up: {left}", "raise watch.epsilon, or train anew")


def look_at(federation: Federation, entry: RunEntry, job: Job, before: list[Look], deadline: int = WAIT_S) -> Look:
    """Look at a model once; what fails is in the look. Raises AnalystError before anything is asked."""
    watch, _ = sections_of(job)
    entry.check_model()
    check_left(federation, entry, job, before)
    if entry.position is None:
        raise AnalystError(f"the run {entry.name[:12]} has no model", "train it to its end")
    begun = Look(run=entry.name, at=federation.now(), rho=price_of(federation, entry, job))
    try:
        found = audit(federation, job, entry.first(), entry.position, deadline, watch.table)
        entry = _with_gaps(federation, entry, found)
        metric = None if watch.metric is None else _metric(federation, entry, watch, deadline)
    except (AnalystError, CryptoError) as err:
        return replace(begun, error=str(err), alarms=(f"the look failed: {err}",))
    if found.found is None:
        why = found.why_not or "the silos released nothing"
        return replace(begun, error=why, alarms=(f"the look failed: {why}",))
    reference = next((look for look in before if look.bins), None)
    return seen(begun, found.found, metric, reference, job)


def first_look(audited: Audited, job: Job, run: str, now: int) -> Look | None:
    """Return the look that the audit after training was, the reference of later ones; None if it had no figures."""
    if job.watch is None or audited.found is None:
        return None
    return seen(Look(run=run, at=now, rho=audited.rho or 0.0), audited.found, None, None, job, has_metric=False)


def seen(
    begun: Look, found: Fitted, metric: Metric | None, reference: Look | None, job: Job, *, has_metric: bool = True
) -> Look:
    """Return a look with what it found, and its alarms; without `has_metric` none was asked, so none is missed."""
    watch, own = sections_of(job)
    bins, variances = bins_in(found)
    if not own.groups and not bins:
        why = "too few persons to show a bin of scores or features"
        return replace(begun, metric=metric, error=why, alarms=(f"the look failed: {why}",))
    look = replace(begun, gaps=gaps_in(found), metric=metric, bins=bins, variances=variances)
    if reference is not None:
        look = replace(look, drift=drifts(reference, look))
    if not has_metric:
        watch = watch.model_copy(update={"metric": None})
    return replace(look, alarms=tuple(alarms(look, watch, own)))


def _with_gaps(federation: Federation, entry: RunEntry, found: Audited) -> RunEntry:
    """Return a run's entry with the gaps that an audit found, kept so for its card; as it was where it found none."""
    gaps = gaps_of(found)
    if not gaps:
        return entry
    with_gaps = entry.model_copy(update={"audit": gaps})
    Registry(federation.config.path.parent).keep(with_gaps)
    return with_gaps


def _metric(federation: Federation, entry: RunEntry, watch: WatchJob, deadline: int) -> Metric:
    epsilon = None if watch.metric_epsilon is None else float(watch.metric_epsilon)
    names = () if watch.metric is None else (watch.metric,)
    request = evaluation_of(federation, entry, metrics=names, table=watch.table, epsilon=epsilon, deadline=deadline)
    found = evaluate(federation, entry, request)
    metric = next((one for one in found.judged.metrics if one.name == watch.metric), None)
    if metric is None:
        raise RoundError(f"the evaluation has no {watch.metric}", "look again")
    return metric
