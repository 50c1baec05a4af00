"""Commands about a run that was before: go on with that run and no other, or train its job anew without who withdrew.

Promise: `check_resumes` and `anew_in_words` ask nothing of a row, and raise one line with a remedy where the command
cannot do what it says.
"""

from pathlib import Path

from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.training.job import Job, first_request
from analyst.training.progress import Progress, resumed
from analyst.training.registry import Registry, RunEntry
from analyst.training.run import job_digest
from policies.requests.request import Request
from policies.requests.training import TrainingStep

# What tells no two models apart: who they are for, and from whom they are.
_BESIDE = ("run", "continues", "held_out", "audit", "released_to")


def check_resumes(federation: Federation, job: Job, keep: Path, name: str) -> None:
    """Raise AnalystError unless the job's interrupted run in `keep` is the named one, or goes on in its place."""
    state = resumed(keep, job_digest(job))
    registry = Registry(federation.config.path.parent)
    entry = registry.entry(name)
    if entry.is_finished:
        hint = (
            f"see it with `consilo model show {entry.name[:12]}`; `--from {entry.name[:12]}` begins a network with it"
        )
        raise AnalystError(f"the run {entry.name[:12]} is over: {entry.state}", hint)
    if state is None:
        hint = f"put {keep.name} back beside the job that began it; without it nobody knows which step is under way"
        raise AnalystError(f"{keep} is not there, or of another job, so nothing is known of {entry.name[:12]}", hint)
    if (own := _run_of(state)) not in _names(registry, entry):
        hint = f"--resume {own.hex()[:12]}, or the command without --resume, goes on with that"
        raise AnalystError(f"{keep} is of the run {own.hex()[:12]}, not of {entry.name[:12]}", hint)


def anew_in_words(federation: Federation, job: Job, keep: Path, name: str) -> str:
    """Return that a job is trained anew without who has withdrawn from a run of it, and what that run had cost.

    Raises AnalystError where the run is another job's or under way, or where the job begins with weights of a model.
    """
    registry = Registry(federation.config.path.parent)
    entry = registry.entry(name)
    if job.begins is not None:
        hint = "remove begins: who has withdrawn may be in that model"
        raise AnalystError(f"the job begins with the weights of run {job.begins[:12]}", hint)
    state = resumed(keep, job_digest(job))
    if state is not None and not state.is_bare and _run_of(state) in _names(registry, entry):
        hint = "go on with it: whoever withdraws is in no further round; or give it up with --abandon first"
        raise AnalystError(f"the run {entry.name[:12]} is under way", hint)
    before, now = entry.first().plan.training, first_request(federation, job, is_asked=False).plan.training
    if before is None or now is None or _what(before) != _what(now):
        hint = "give the job file that began it; `consilo model show` says what it trained"
        raise AnalystError(f"the run {entry.name[:12]} is of another job", hint)
    if (price := entry.price) is None:
        cost = "without noise, nothing was promised of it to anybody"
    else:
        cost = f"the epsilon {price.epsilon:.3g} (rho {price.rho:.4g}) that it had cost each person stays spent"
    return (
        f"trains anew what run {entry.name[:12]} did, from first weights that no row has touched: who has withdrawn is"
        f" in no round; {cost}"
    )


def _run_of(state: Progress) -> bytes:
    step = Request.decode(state.first).plan.training
    return b"" if step is None else step.run


def _names(registry: Registry, entry: RunEntry) -> set[bytes]:
    """Return the run of an entry, and those that go on in its place with fewer silos."""
    found, later = {entry.run}, entry.goes_on_as
    known = {one.run: one for one in registry.entries()}
    while later is not None and later not in found:
        found.add(later)
        later = known[later].goes_on_as if later in known else None
    return found


def _what(step: TrainingStep) -> dict[str, object]:
    """Return what of a step makes its model: its family, columns and options."""
    return {name: value for name, value in dict(step).items() if name not in _BESIDE}
