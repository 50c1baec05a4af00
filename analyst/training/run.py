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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from types import MappingProxyType

from analyst.client import Federation
from analyst.errors import AnalystError, StuckError
from analyst.requests import waiting
from analyst.training.auditing import Audited, audit, gaps_of, lines_of
from analyst.training.beside import beside, check_beside
from analyst.training.failed import after_failure
from analyst.training.job import Job, first_request
from analyst.training.patience import MetricSoFar
from analyst.training.progress import Progress, forget, resumed, write
from analyst.training.registry import Registry
from analyst.training.released import taken
from analyst.training.round_metric import metric_after
from analyst.training.rounds import RoundDone
from analyst.training.step import Sleep, answered, learned
from analyst.training.stopping import Stopping, end, give_up, released_lines, tell_owed
from crypto.rounds.messages import RunEnd
from federation.errors import FederationError
from policies.budget.accountant import epsilon_of
from policies.requests.request import Request
from policies.requests.training import START
from policies.units import MICRO, SEND_S, WAIT_S

# What an analyst is told at the end of a run; the silos' owners see more.
ENDS: Mapping[RunEnd, str] = MappingProxyType(
    {
        "complete": "complete: another step would change nothing that can be told",
        "no-maximum": "no maximum: a feature tells the labels apart, or who has the event first, or a label is the same"
        " in all rows, so weights would grow without end; the owners see which with `consilo-silo models`: leave it"
        " out, or merge its values",
        "diverged": "stopped: the loss grew or was not finite, and the last good model stands; narrow the bounds of"
        " features and labels, ask with another label, or with a smaller options.step where the job names one",
        "abandoned": "over: it was given up, or lay for more than 30 days, so no silo takes a further step of it",
        "patience": "ended by patience: the metric of the job grew no better, and the model of the last round stands",
        "too-few-rows": "too few rows: a model needs more rows than weights, one of times more events, and groups and"
        " curves min_cohort persons; take fewer features, or ask more silos",
    }
)

# The same of a run by descent, which has a rate, and of one with noise, which is judged from opened sums alone.
DESCENT_ENDS: Mapping[RunEnd, str] = MappingProxyType(
    {
        "diverged": "stopped: the weights grew without end, and the last good model stands; ask with a smaller {rate},"
        " with more {rounds} to arrive where it went",
        "too-few-rows": "too few persons for this price: what was counted is not above its noise, or the noise is not"
        " small beside what the features tell apart; ask more silos, take fewer features, or a larger epsilon",
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
    rounds: tuple[RoundDone, ...] = ()  # of this call
    reserved: float | None = None  # rho that its steps had reserved ahead
    released: float | None = None  # of it, what its unbegun steps gave back; None if it took all its steps
    stopping: Stopping | None = None  # which silos gave it back
    has_model: bool | None = None  # whether the analyst has the model; None where the job names the silos alone
    why_no_model: str = ""
    metric_rho: float | None = None  # what the metrics of its rounds cost to each person beside
    why_no_metric: str = ""  # from which round on silos refused it, and why; the run went on without
    audited: Audited | None = None  # None where the job names no groups, or `why_no_audit` says why
    why_no_audit: str = ""


def train(
    federation: Federation,
    job: Job,
    progress: Callable[[int], None] = lambda done: None,
    keep: Path | None = None,
    deadline: int = WAIT_S,
    tell: Callable[[RoundDone], None] = lambda done: None,
    sleep: Sleep = time.sleep,
    send_deadline: int = SEND_S,
) -> Training:
    """Run a job to its end; `progress` is called with the number of finished steps, `tell` with what a round was.

    With `keep`, a later call continues an interrupted run from that file, which is removed at the end. Each step waits
    `deadline` seconds for the silos' computing and `send_deadline` for each to send a long vector, whatever the
    interrupted run waited, and `sleep` is called while silos may be on their way back. Raises AnalystError before
    anything is sent if the job does not fit the silos, DeniedError if silos refuse, RoundError if too few are left to
    answer.
    """
    digest = job_digest(job)
    tell_owed(federation, keep)
    state = resumed(keep, digest)
    goes_on = state is not None
    state = state or begun(federation, job, digest)
    request = waiting(Request.decode(state.first), deadline, send_deadline)
    step = request.plan.training
    if step is None:
        raise AnalystError(f"{keep} is not of a training run", "remove it to begin a new run")
    write(keep, state)
    registry = Registry(federation.config.path.parent)
    registry.begin(request, step, federation.now())
    answered_in, rounds = dict.fromkeys(request.silos, 0), list[RoundDone]()
    if state.done:  # the last call may have been interrupted before the metric of its last round
        state, _ = metric_after(federation, job, step.run, state, keep)
    while state.done < step.steps and state.ended is None:
        if state.done and len(state.holders) < len(request.silos):  # for silos that are back, or for a continued run
            state = _heard(state, learned(federation, state))
            if state.ended is not None:
                continue
        began = perf_counter()
        following = step.model_copy(update={"step": state.done, "after": state.after})
        request, answer = answered(federation, state, keep, partial(federation.renew, request, following), sleep)
        if not isinstance(answer, bytes):
            try:
                state = after_failure(federation, state, request, answer.message, keep)
            except StuckError:
                if not goes_on or rounds:
                    raise
                return train(federation, job, progress, keep, deadline, tell, sleep, send_deadline)  # anew
            request = waiting(Request.decode(state.first), deadline, send_deadline)
            step = request.plan.training or step
            continue
        checked = federation.check(request, answer)
        registry.learned(request, request.plan.training or step, checked, federation.now())
        for silo in checked.survivors:
            answered_in[silo] += 1
        state = state.model_copy(update={"done": state.done + 1, "after": checked.name, "under_way": b""})
        state = _heard(state, learned(federation, state))
        write(keep, state)
        state, figures = metric_after(federation, job, step.run, state, keep)
        took = perf_counter() - began
        rounds.append(RoundDone(state.done, step.steps, took, checked.survivors, len(request.silos), figures))
        tell(rounds[-1])
        progress(state.done)
    if not state.holders:  # the last call was interrupted after its last step, or nobody has learned it yet
        state = _heard(state, _told(federation, state, keep))
    is_private = step.release == "private"
    over = give_up if state.ended == "patience" else end
    stopping = over(federation, request, state.after, keep) if state.ended is not None and is_private else None
    audited, why_no_audit = _audited(federation, job, state, deadline)
    model = None if step.released_to is None else taken(federation, request, state.after)
    if not isinstance(model, str) and (stopping is None or stopping.is_settled):
        forget(keep)
    rho = (state.done + state.lost) * request.micro_rho / MICRO if is_private else None
    so_far = state.metric or MetricSoFar()
    unbegun = (step.steps - state.done) * request.micro_rho / MICRO
    training = Training(
        run=step.run.hex(),
        steps=state.done,
        lost=state.lost,
        holders=state.holders,
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
        rounds=tuple(rounds),
        reserved=step.steps * request.micro_rho / MICRO if is_private else None,
        released=None if stopping is None else unbegun,
        stopping=stopping,
        has_model=None if model is None else not isinstance(model, str),
        why_no_model=model if isinstance(model, str) else "",
        metric_rho=so_far.rho or None,
        why_no_metric=so_far.refused,
        audited=audited,
        why_no_audit=why_no_audit,
    )
    registry.finish(
        step.run,
        federation.now(),
        model,
        done=state.done,
        lost=state.lost,
        holders=training.holders,
        ended=state.ended,
        rho=rho,
        epsilon=training.epsilon,
        delta=training.delta,
        audit=() if audited is None else gaps_of(audited),
    )
    return training


def _audited(federation: Federation, job: Job, state: Progress, deadline: int) -> tuple[Audited | None, str]:
    """Return the audit of a trained model that its job asks for, or why there is none; the model stands in any case."""
    if job.audit is None or state.ended in ("no-maximum", "too-few-rows", "abandoned"):
        return None, ""
    try:
        return audit(federation, job, Request.decode(state.first), state.after, deadline), ""
    except (AnalystError, FederationError) as err:
        return None, f"{err.message}; {err.hint}"


def begun(federation: Federation, job: Job, digest: bytes) -> Progress:
    """Return the progress of a new run, before anything is asked of a row.

    Raises AnalystError if the job does not fit, DeniedError if silos would refuse what is asked beside its rounds.
    """
    check_beside(federation, beside(federation, job, first_request(federation, job, is_asked=False)))
    request = first_request(federation, job)
    offer = federation.offer_of(request.silos)
    return Progress(
        job=digest,
        first=request.encode(),
        done=0,
        after=START,
        metric=MetricSoFar(),
        delta=offer.delta,
        price_delta=offer.delta_for(request.table, request.plan),
    )


def _told(federation: Federation, state: Progress, keep: Path | None) -> Mapping[str, RunEnd | None]:
    """Return who has the model of the last step; raises FederationError if no aggregator has its report."""
    try:
        return federation.deliver_report(state.after, Request.decode(state.first))
    except FederationError as err:
        message = f"all steps are taken, and nobody says who has the model: {err.message}"
        hint = "give the same command again; if the report is lost, the owners still see the model with"
        raise FederationError(message, f"{hint} `consilo-silo models`, and {keep} can be removed") from err


def _heard(state: Progress, told: Mapping[str, RunEnd | None]) -> Progress:
    """Return the progress with who has the model; the run is at its end if all that have it say the same reason."""
    reasons = set(told.values())
    ended = reasons.pop() if len(reasons) == 1 else None
    return state.model_copy(update={"holders": tuple(sorted(told)), "ended": ended or state.ended})


def interrupted(keep: Path | None, job: Job) -> tuple[Request, int] | None:
    """Return the first request of the job's interrupted run in `keep`, and how many rounds are done; None without one.

    Raises AnalystError where the file is of another job, or cannot be read.
    """
    state = resumed(keep, job_digest(job))
    return None if state is None else (Request.decode(state.first), state.done)


def job_digest(job: Job) -> bytes:
    """Return the SHA-256 of a job, which the file of its interrupted run names."""
    return sha256(job.model_dump_json().encode()).digest()


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
            "rounds": [one.to_dict() for one in training.rounds],
            "reserved": training.reserved,
            "released": training.released,
            "released_at": None if training.stopping is None else list(training.stopping.released),
            "has_model": training.has_model,
            "why_no_model": training.why_no_model or None,
            "audit": [] if training.audited is None else [one.model_dump() for one in gaps_of(training.audited)],
            "why_no_audit": training.why_no_audit or None,
            "metric_rho": training.metric_rho,
            "why_no_metric": training.why_no_metric,
            "assumptions": list(training.assumptions),
        },
        indent=2,
    )


def _why(ended: RunEnd, job: Job) -> str:
    """Return why a run is at its end, with what to do about it."""
    if job.is_exact_family or ended not in DESCENT_ENDS:
        return ENDS[ended]
    rate, rounds = ("options.rate", "rounds") if job.is_noised_family else ("learning_rate", "steps")
    return DESCENT_ENDS[ended].format(rate=rate, rounds=rounds)


def show_training(training: Training, job: Job, policies: Mapping[str, Path]) -> str:
    """Return a finished run as text: its cost, its silos, and the silos with the model."""
    what = job.model.replace("-", " ") + ("" if job.label is None else f" of {job.label}")
    lines = [f"run {training.run}: {training.steps} steps of {what}"]
    lines += [f"  {silo}: in {count} steps" for silo, count in training.answered.items()]
    if training.ended is not None:
        lines.append(_why(training.ended, job))
    elif job.is_exact_family:
        lines.append(
            f"not at its end after {training.steps} steps: the step is above the tolerance; ask with more rounds"
        )
    if training.has_model:
        lines.append(f"you have the model too, and see it with: consilo model show {training.run[:12]}")
    elif training.has_model is not None:
        lines.append(f"the model was not released to you: {training.why_no_model}")
    if training.why_no_metric:
        lines.append(f"its metric was not told, and the run went on without: {training.why_no_metric}")
    if training.audited is not None:
        lines += lines_of(training.audited, job.audit.limit if job.audit is not None else None)
    elif training.why_no_audit:
        lines.append(f"the model was not audited: {training.why_no_audit}; try again with: consilo watch JOB --once")
    elsewhere = "" if training.has_model else ", and nowhere else"
    lines.append(f"the model is at {', '.join(training.holders) or 'no silo'}{elsewhere}; an owner sees it with")
    lines += [
        f"  consilo-silo models --policy {policies.get(silo, Path('policy.toml'))}" for silo in training.holders[:1]
    ]
    if training.epsilon is not None and training.rho is not None:
        cost = f"epsilon {training.epsilon:.2f} at delta {training.delta:g} (rho {training.rho:g})"
        lines.append(f"cost to each person: {cost}; {training.assumptions[0]}")
        if training.metric_rho is not None:
            lines.append(f"its metrics cost rho {training.metric_rho:g} to each person beside")
        if training.lost:
            lines.append(f"of it, {training.lost} of {training.steps + training.lost} charges gave no report")
        lines += _reserved_lines(training)
    else:
        lines.append(training.assumptions[0])
    return "\n".join(lines)


def _reserved_lines(training: Training) -> Iterator[str]:
    """Yield what was reserved ahead for the run, what of it was charged, and what was given back."""
    yield f"reserved ahead, before the first step: rho {training.reserved:g}"
    if training.stopping is not None:
        yield from released_lines(training.released or 0.0, training.stopping)
