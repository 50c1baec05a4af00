"""A metric of the model after its rounds, by the rows that are held out, and when it ends the run.

Each is an evaluation of its own (`analyst/training/evaluation.py`), with a price of its own on private sources: an
equal part of what the job gives to all of them. A run ends when so many in a row were no better than the best before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from analyst.client import Federation
from analyst.errors import AnalystError, RoundError
from analyst.training.evaluation import evaluate, evaluation_of
from analyst.training.job import Job, RoundMetric
from analyst.training.registry import Registry, RunEntry
from policies.requests.metrics import RISING, MetricName
from policies.requests.request import Request
from policies.units import MICRO


@dataclass(frozen=True, slots=True)
class MetricSoFar:
    """What is known of a run's metric after some rounds."""

    best: float | None = None
    since: int = 0  # metrics since the best one
    micro_rho: int = 0  # what all of them cost to each person

    def after(self, value: float, of: RoundMetric) -> "MetricSoFar":
        """Return what is known after one more metric."""
        if self.best is None or _gain(of.name, self.best, value) > of.tolerance:
            return replace(self, best=value, since=0)
        return replace(self, since=self.since + 1)

    def is_over(self, of: RoundMetric | None) -> bool:
        """Tell whether the run has not become better for as long as the job waits."""
        return of is not None and of.patience is not None and self.since >= of.patience

    @property
    def rho(self) -> float:
        return self.micro_rho / MICRO


def _gain(name: MetricName, before: float, now: float) -> float:
    return now - before if name in RISING else before - now


def metrics_in(job: Job) -> int:
    """Return how often, at most, a job's run asks for its metric."""
    return 0 if job.metric is None else job.planned // job.metric.every


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


def metric_after(
    federation: Federation, job: Job, run: bytes, done: int, before: MetricSoFar
) -> tuple[MetricSoFar, Mapping[str, float]]:
    """Ask for the job's metric after a round, where it is due; return what is known then, and what is told of it.

    A round of it that too few silos answer tells nothing. Raises DeniedError if silos refuse.
    """
    of = job.metric
    if of is None or done % of.every:
        return before, {}
    entry = Registry(federation.config.path.parent).entry(run.hex())
    try:
        request = metric_request(federation, job, of, entry)
        found = evaluate(federation, entry, request, is_kept=False).judged.metrics
    except RoundError:
        return before, {}
    value = next((one.value for one in found if one.name == of.name), None)
    paid = replace(before, micro_rho=before.micro_rho + request.micro_rho)
    return (paid, {}) if value is None else (paid.after(value, of), {of.name: value})


def metric_request(federation: Federation, job: Job, of: RoundMetric, entry: RunEntry) -> Request:
    """Return the request for a job's metric, once, at its part of what all of them cost; raises AnalystError."""
    epsilon = None if of.epsilon is None else float(of.epsilon)
    request = evaluation_of(federation, entry, metrics=(of.name,), epsilon=epsilon)
    if not request.micro_rho:
        return request
    each = request.micro_rho // max(1, metrics_in(job))
    if each < 1:
        hint = f"name a larger [metric] epsilon, or ask for it after every {job.planned} rounds"
        raise AnalystError(f"epsilon {of.epsilon} of [metric] buys nothing {metrics_in(job)} times", hint)
    return request.model_copy(update={"micro_rho": each})
