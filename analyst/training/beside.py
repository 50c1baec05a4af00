"""What is asked beside the rounds of a run: the split of persons before it, its metrics, and its audit at the end.

Each is a request of its own, with a price of its own on private sources, which silos judge as they judge the run's.
Promise: nothing here is sent; a preview shows it to the silos unsigned.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from analyst.client import Federation
from analyst.training.auditing import audit_of
from analyst.training.job import Job
from analyst.training.round_metric import metric_request, metrics_in
from analyst.training.split import unmade_split
from policies.requests.request import Request
from policies.requests.training import START

LATER = bytes([1]) * len(START)  # stands for the report of a round that is not there yet


@dataclass(frozen=True, slots=True)
class Beside:
    """A request beside a run: what it is, and how often it is asked at most."""

    name: str
    request: Request
    times: int = 1


def beside(federation: Federation, job: Job, run: Request, done: int = 0) -> Iterator[Beside]:
    """Yield what a job's run asks beside its rounds after `done`; raises AnalystError where the job does not fit."""
    if job.held_out is not None and job.held_out.share is not None:
        split = unmade_split(federation, job.table, job.purpose, job.release, job.silos)
        if split is not None:
            yield Beside("the split of persons", split)
    if job.metric is not None and (times := metrics_in(job, done)):
        request = metric_request(federation, job, run, LATER)
        if request is not None:
            yield Beside(f"its {job.metric.name}", request, times)
    if job.audit is not None:
        yield Beside("its audit", audit_of(federation, job, run, LATER))
