"""What is asked beside the rounds of a run: the split of persons before it, its metrics, and its audit at the end.

Each is a request of its own, with a price of its own on private sources, which silos judge as they judge the run's.
Promise: nothing here is sent; the silos are shown it unsigned, by a preview and before a run begins, and say what they
would answer. So a run that cannot be judged as its job says is refused before anything is learned or paid.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from analyst.client import Federation
from analyst.errors import DeniedError
from analyst.training.auditing import audit_of
from analyst.training.job import Job
from analyst.training.round_metric import metric_request, metrics_in
from analyst.training.split import unmade_split
from policies.decision.denial_codes import UNABLE
from policies.requests.denials import Denial
from policies.requests.request import Request
from policies.requests.training import START

LATER = bytes([1]) * len(START)  # stands for the report of a round that is not there yet
_PASSES = UNABLE | {"APPROVAL_AWAITED"}  # what a silo says now, and not by its policy


@dataclass(frozen=True, slots=True)
class Beside:
    """A request beside a run: what it is, and how often it is asked at most."""

    name: str
    section: str  # of the job, that asks for it
    request: Request
    times: int = 1


def beside(federation: Federation, job: Job, run: Request, done: int = 0) -> Iterator[Beside]:
    """Yield what a job's run asks beside its rounds after `done`; raises AnalystError where the job does not fit."""
    if job.held_out is not None and job.held_out.share is not None:
        split = unmade_split(federation, job.table, job.purpose, job.release, job.silos)
        if split is not None:
            yield Beside("the split of persons", "[held_out]", split)
    if job.metric is not None and (times := metrics_in(job, done)):
        request = metric_request(federation, job, run, LATER)
        if request is not None:
            yield Beside(f"its {job.metric.name}", "[metric]", request, times)
    if job.audited is not None:
        name, section = ("its audit", "[audit]") if job.audit is not None else ("its count of drift", "[watch]")
        yield Beside(name, section, audit_of(federation, job, run, LATER))


def check_beside(federation: Federation, parts: Iterable[Beside]) -> None:
    """Raise DeniedError where silos would refuse, by their policies or for a budget, what is asked beside a run."""
    for part in parts:
        denials = dict[str, tuple[Denial, ...]]()
        for silo, standing in federation.standing(part.request).items():
            found = tuple(one for one in standing.denials if one.code not in _PASSES)
            if found and silo in part.request.silos:
                denials[silo] = found
        if denials:
            raise _refused(part, denials)


def _refused(part: Beside, denials: dict[str, tuple[Denial, ...]]) -> DeniedError:
    silo, (first, *_) = next(iter(denials.items()))
    others = "" if len(denials) == 1 else f"; so would {', '.join(list(denials)[1:])}"
    message = f"{part.name} would be refused by {silo}: {first.code} ({first.rule}): {first.message}{others}"
    hint = f"{first.remedy}; or leave {part.section} out of the job; nothing was asked, and nothing is paid"
    return DeniedError(message, hint, denials)
