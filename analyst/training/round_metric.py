"""A metric of the model after its rounds, by the rows that are held out, and when it ends the run.

Each is an evaluation of its own (`analyst/training/evaluation.py`), with a price of its own on private sources: an
equal part of what the job gives to all of them. A run ends when so many in a row were no better than the best before.

    a round is learned -> its metric's request is in `JOB.run.json` -> sent -> what it says is in the file

Promise: no metric is paid twice, whenever the command is killed, and an interrupted run waits as long as another. None
is reserved with the run: where silos refuse one that has a price, the run goes on without it, and says so.
"""

from collections.abc import Mapping
from pathlib import Path

from analyst.asking import SPENT
from analyst.client import Federation
from analyst.errors import AnalystError, DeniedError, RoundError
from analyst.requests import KEPT_LIFETIME_S
from analyst.training.evaluation import evaluate, evaluation_of
from analyst.training.job import Job
from analyst.training.patience import MOST_WORDS, MetricSoFar
from analyst.training.progress import Progress, write
from analyst.training.registry import Registry, RunEntry
from crypto.wire import digest_of
from policies.models.record import without_model
from policies.requests.request import Request
from policies.units import counted

_AWAITED = "APPROVAL_AWAITED"
_ONCE = frozenset({SPENT, "REQUEST_EXPIRED"})  # denials of a request that may have been answered before


def metrics_in(job: Job, done: int = 0) -> int:
    """Return after how many rounds of a job's run, at most, its metric is asked for, with those after `done` rounds."""
    return 0 if job.metric is None else job.planned // job.metric.every - done // job.metric.every


def metric_in_words(job: Job) -> str:
    """Return what a job's metric asks for and costs beside its run; nothing where the job names none."""
    of = job.metric
    if of is None:
        return ""
    every = "each round" if of.every == 1 else f"every {of.every} rounds"
    price = "" if of.epsilon is None else f", for epsilon {of.epsilon:g} beside, in {metrics_in(job)} equal parts"
    stop = "" if of.patience is None else f"; the run ends after {of.patience} without an improvement"
    more = f" of more than {of.tolerance:g}" if of.patience is not None and of.tolerance else ""
    return f"metric: {of.name} by who is held out, after {every}{price}{stop}{more}"


def metric_request(federation: Federation, job: Job, first: Request, position: bytes) -> Request | None:
    """Return the request for one metric of a job, of the model at a position of its run; None where it names none.

    Raises AnalystError where the metric does not fit the model, or its price buys nothing.
    """
    of, times, step = job.metric, metrics_in(job), first.plan.training
    if of is None or step is None or not times:
        return None
    entry = RunEntry(run=step.run, request=first.encode(), began_at=0, changed_at=0, position=position)
    epsilon = None if of.epsilon is None else float(of.epsilon)
    request = evaluation_of(federation, entry, metrics=(of.name,), epsilon=epsilon)
    if not request.micro_rho:
        return request
    each = request.micro_rho // times
    if each < 1:
        hint = f"name a larger [metric] epsilon, or ask for it after every {counted(job.planned, 'round')}"
        raise AnalystError(f"epsilon {of.epsilon} of [metric] buys nothing {times} times", hint)
    return request.model_copy(update={"micro_rho": each})


def metric_after(
    federation: Federation, job: Job, run: bytes, state: Progress, keep: Path | None
) -> tuple[Progress, Mapping[str, float]]:
    """Return a run's progress with the metric of its last round, and what is told of it; nothing where none is due.

    A metric that too few silos answer tells nothing, and counts as paid. Raises DeniedError where silos refuse what has
    no price, or people have not approved it yet: the same command then asks the same again.
    """
    of, so_far = job.metric, state.metric or MetricSoFar()
    if of is None or state.done % of.every or so_far.done >= state.done or so_far.refused:
        return state, {}
    if without_model(state.ended) is not None:  # there is none to judge
        return state, {}
    value = None
    try:
        value, so_far = _asked(federation, job, run, state, so_far, keep)
    except DeniedError as err:
        if _AWAITED in _codes(err) or of.epsilon is None:
            raise
        so_far = so_far.model_copy(update={"refused": f"after round {state.done}: {err.message}"[:MOST_WORDS]})
    so_far = so_far.model_copy(update={"done": state.done, "asked": b""})
    if value is not None:
        so_far = so_far.after(value, of)
    is_over = state.ended is None and value is not None and so_far.is_over(of)
    state = state.model_copy(update={"metric": so_far, **({"ended": "patience"} if is_over else {})})
    write(keep, state)
    return state, {} if value is None else {of.name: value}


def _asked(
    federation: Federation, job: Job, run: bytes, state: Progress, so_far: MetricSoFar, keep: Path | None
) -> tuple[float | None, MetricSoFar]:
    """Return the metric of the last round, None where there is none, and the so_far with its cost."""
    entry = Registry(federation.config.path.parent).entry(run.hex()).model_copy(update={"position": state.after})
    kept = Request.decode(so_far.asked) if so_far.asked else None
    request = kept or metric_request(federation, job, Request.decode(state.first), state.after)
    if request is None or job.metric is None:
        return None, so_far
    if kept is None:  # people may have to approve it, and it is asked again after an interruption
        request = request.model_copy(update={"expires_at": request.created_at + KEPT_LIFETIME_S})
        write(keep, state.model_copy(update={"metric": so_far.model_copy(update={"asked": request.encode()})}))
    paid = so_far.model_copy(update={"micro_rho": so_far.micro_rho + request.micro_rho})
    is_lost = kept is not None and federation.aggregators.find(digest_of(kept)).state == "erased"
    try:
        if not is_lost:
            found = evaluate(federation, entry, request, is_kept=False, is_repeated=kept is not None).judged.metrics
            return next((one.value for one in found if one.name == job.metric.name), None), paid
    except RoundError:
        return None, paid
    except DeniedError as err:
        if kept is None or not _codes(err) & _ONCE:
            raise
    if request.micro_rho:  # it may have been charged, and there is no report of it
        return None, paid
    return _asked(federation, job, run, state, so_far.model_copy(update={"asked": b""}), keep)


def _codes(err: DeniedError) -> set[str]:
    return {one.code for denials in err.denials.values() for one in denials}
