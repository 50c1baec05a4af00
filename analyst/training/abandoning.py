"""Give up a training run that was interrupted, so that its silos hold no budget for it any more."""

from dataclasses import dataclass
from pathlib import Path

from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.training.job import Job
from analyst.training.progress import resumed
from analyst.training.run import job_digest
from analyst.training.stopping import Stopping, give_up, released_lines, tell_owed
from policies.requests.request import Request
from policies.units import MICRO, counted


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A run that its analyst gave up: what it had paid by then, and what it gave back, and where."""

    run: str
    done: int
    steps: int
    rho: float | None  # what its steps had cost; None without noise
    under_way: float  # rho of a step that was under way, and may be charged; 0 without one
    unbegun: float  # rho that the others had reserved
    stopping: Stopping


def abandon(federation: Federation, job: Job, keep: Path) -> Abandoned | None:
    """Give up the run of a job that was interrupted: no silo takes a further step of it.

    None if no run of it is under way; then silos that were away are told of earlier ones. The file `keep` stays until a
    quorum of the silos says that they take no further step, and so give back what was reserved. Raises AnalystError.
    """
    tell_owed(federation, keep)
    state = resumed(keep, job_digest(job))
    if state is None:
        return None
    request = Request.decode(state.first)
    step = request.plan.training
    if step is None:
        raise AnalystError(f"{keep} is not of a training run", "remove it to begin a new run")
    if is_private := step.release == "private":
        stopping = give_up(federation, request, state.after, keep)
    else:
        stopping = Stopping(request.silos, (), request.silos)  # nothing was reserved
    if stopping.is_settled:
        keep.unlink(missing_ok=True)
    rho = (state.done + state.lost) * request.micro_rho / MICRO if is_private else None
    begun = state.done + bool(state.under_way)
    under_way, unbegun = (count * request.micro_rho / MICRO for count in (begun - state.done, step.steps - begun))
    return Abandoned(step.run.hex(), state.done, step.steps, rho, under_way, unbegun, stopping)


def show_abandoned(abandoned: Abandoned) -> str:
    """Return a run that was given up as text: what it cost, and what it gave back."""
    lines = [f"run {abandoned.run} is given up after {abandoned.done} of {counted(abandoned.steps, 'step')}"]
    if abandoned.rho is not None:
        more = f"; rho {abandoned.under_way:g} more where the step under way was charged" if abandoned.under_way else ""
        lines.append(f"charged: rho {abandoned.rho:g} to each person{more}")
        lines += released_lines(abandoned.unbegun, abandoned.stopping)
    return "\n".join(lines)
