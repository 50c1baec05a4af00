"""Run a training job: ask the silos for one step after the other.

Promise: the silos are the recipients of every step, so neither the aggregator nor the analyst sees an update or the
model. An interrupted run continues: the file `JOB.run.json` has its first request, its progress, and the request under
way, by whose hash its report is found. docs/protocol.md section 11.

    from analyst.training.job import read_job

    with Federation.open("consilo.toml") as federation:
        training = train(federation, read_job(Path("job.toml")))
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from analyst.client import Federation
from analyst.errors import AnalystError, StuckError
from analyst.requests import waiting
from analyst.training.failed import after_failure
from analyst.training.job import Job, first_request
from analyst.training.progress import Progress, forget, resumed, write
from analyst.training.step import Sleep, answered, learned
from crypto.rounds.messages import RunEnd
from policies.budget.accountant import epsilon_of
from policies.requests.request import Request
from policies.requests.training import START, TrainingStep
from policies.units import MICRO, WAIT_S

# What an analyst is told at the end of a run without noise; the silos' owners see more.
ENDS: Mapping[RunEnd, str] = MappingProxyType(
    {
        "complete": "complete: another step would change nothing that can be told",
        "no-maximum": "no maximum: a feature tells the labels apart, or who has the event first, or a label is the same"
        " in all rows, so weights would grow without end; the owners see which with `consilo-silo models`: leave it"
        " out, or merge its values",
        "diverged": "stopped: the loss grew or was not finite, and the last good model stands; narrow the bounds of"
        " features and labels, or ask with another label",
        "too-few-rows": "too few rows: a model needs more rows than weights, one of times more events, and groups and"
        " curves min_cohort persons; take fewer features, or ask more silos",
    }
)


@dataclass(frozen=True, slots=True)
class Training:
    """A finished run: its cost, and the silos that have the model. The model itself stays at the silos."""

    run: str
    steps: int  # that were taken
    lost: int  # steps that were charged, where silos had contributed, and gave no report
    holders: tuple[str, ...]  # the silos with the model of the last step
    answered: dict[str, int]  # the number of steps to which each silo contributed, in this call
    rho: float | None  # None without noise, as nothing is promised then
    epsilon: float | None
    delta: float
    assumptions: tuple[str, ...]
    ended: RunEnd | None = None  # why it was at its end before its last step


def train(
    federation: Federation,
    job: Job,
    progress: Callable[[int], None] = lambda done: None,
    keep: Path | None = None,
    deadline: int = WAIT_S,
    sleep: Sleep = time.sleep,
) -> Training:
    """Run a job to its end; `progress` is called with the number of finished steps.

    With `keep`, a later call continues an interrupted run from that file, which is removed at the end. Each step waits
    `deadline` seconds for the silos' computing, whatever the interrupted run waited, and `sleep` is called while silos
    may be on their way back. Raises AnalystError before anything is sent if the job does not fit the silos, DeniedError
    if silos refuse, RoundError if too few are left to answer.
    """
    digest = sha256(job.model_dump_json().encode()).digest()
    state = resumed(keep, digest)
    goes_on = state is not None
    state = state or begun(federation, job, digest)
    request = waiting(Request.decode(state.first), deadline)
    step = request.plan.training
    if step is None:
        raise AnalystError(f"{keep} is not of a training run", "remove it to begin a new run")
    write(keep, state)
    answered_in = dict.fromkeys(request.silos, 0)
    while state.done < step.steps and state.ended is None:
        if state.done and len(state.holders) < len(request.silos):  # for silos that are back, or for a continued run
            state = _heard(state, step, learned(federation, state))
            if state.ended is not None:
                continue
        following = step.model_copy(update={"step": state.done, "after": state.after})
        request, answer = answered(federation, state, keep, partial(federation.renew, request, following), sleep)
        if not isinstance(answer, bytes):
            try:
                state = after_failure(federation, state, request, answer.message, keep)
            except StuckError:
                if not goes_on or any(answered_in.values()):
                    raise
                return train(federation, job, progress, keep, deadline, sleep)  # anew, as the file is removed
            request = waiting(Request.decode(state.first), deadline)
            step = request.plan.training or step
            continue
        checked = federation.check(request, answer)
        for silo in checked.survivors:
            answered_in[silo] += 1
        state = state.model_copy(update={"done": state.done + 1, "after": checked.name, "under_way": b""})
        state = _heard(state, step, learned(federation, state))
        write(keep, state)
        progress(state.done)
    if not state.holders:  # the last call was interrupted after its last step, or nobody has learned it yet
        state = _heard(state, step, federation.deliver_report(state.after))
    forget(keep)
    rho = None if step.release == "exact" else (step.steps + state.lost) * request.micro_rho / MICRO
    return Training(
        run=step.run.hex(),
        steps=state.done,
        lost=state.lost,
        holders=tuple(sorted(state.holders)),
        answered=answered_in,
        rho=rho,
        epsilon=None if rho is None else epsilon_of(rho, state.price_delta),
        delta=state.delta,
        assumptions=(
            "without noise: nothing is promised against those who compare models"
            if rho is None
            else f"one person is known to at most {request.table.max_silos} silos",
        ),
        ended=state.ended,
    )


def begun(federation: Federation, job: Job, digest: bytes) -> Progress:
    """Return the progress of a new run, before anything is sent; raises AnalystError if the job does not fit."""
    request = first_request(federation, job)
    offer = federation.offer_of(request.silos)
    return Progress(
        job=digest,
        first=request.encode(),
        done=0,
        after=START,
        delta=offer.delta,
        price_delta=offer.delta_for(request.table, request.plan),
    )


def _heard(state: Progress, step: TrainingStep, told: Mapping[str, RunEnd | None]) -> Progress:
    """Return the progress with who has the model; the run is at its end if all that have it say the same reason."""
    reasons = set(told.values())
    ended = reasons.pop() if step.may_end_early and len(reasons) == 1 else None
    return state.model_copy(update={"holders": tuple(sorted(told)), "ended": ended})


def to_json(training: Training) -> str:
    """Return a finished run as JSON."""
    return json.dumps(
        {
            "run": training.run,
            "steps": training.steps,
            "lost": training.lost,
            "holders": list(training.holders),
            "answered": training.answered,
            "rho": training.rho,
            "epsilon": training.epsilon,
            "delta": training.delta,
            "ended": training.ended,
            "assumptions": list(training.assumptions),
        },
        indent=2,
    )


def show_training(training: Training, job: Job, policies: Mapping[str, Path]) -> str:
    """Return a finished run as text: its cost, its silos, and the silos with the model."""
    what = job.model.replace("-", " ") + ("" if job.label is None else f" of {job.label}")
    lines = [f"run {training.run}: {training.steps} steps of {what}"]
    lines += [f"  {silo}: in {count} steps" for silo, count in training.answered.items()]
    if training.ended is not None:
        lines.append(ENDS[training.ended])
    elif job.is_exact_family:
        lines.append(
            f"not at its end after {training.steps} steps: the step is above the tolerance; ask with more rounds"
        )
    lines.append(f"the model is at {', '.join(training.holders) or 'no silo'}, and nowhere else; an owner sees it with")
    lines += [
        f"  consilo-silo models --policy {policies.get(silo, Path('policy.toml'))}" for silo in training.holders[:1]
    ]
    if training.epsilon is not None and training.rho is not None:
        cost = f"epsilon {training.epsilon:.2f} at delta {training.delta:g} (rho {training.rho:g})"
        lines.append(f"cost to each person: {cost}; {training.assumptions[0]}")
        if training.lost:
            lines.append(f"of it, {training.lost} of {training.steps + training.lost} charges gave no report")
    else:
        lines.append(training.assumptions[0])
    return "\n".join(lines)
