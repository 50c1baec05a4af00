"""Run a training job: ask the silos for one step after the other.

Promise: the silos are the recipients of every step, so neither the aggregator nor the analyst sees an update or the
model. An interrupted run continues: the file `JOB.run.json` has its first request, its progress, and the request under
way, by whose hash its report is found. docs/protocol.md section 11.

    from analyst.training.job import read_job

    with Federation.open("consilo.toml") as federation:
        training = train(federation, read_job(Path("job.toml")))
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from types import MappingProxyType

from analyst.answers import denials_of, error_of
from analyst.asking import SPENT
from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.requests import waiting
from analyst.training.auditing import Audited, audit, lines_of
from analyst.training.job import Job, first_request
from analyst.training.progress import Progress, resumed, write
from analyst.training.registry import Registry
from analyst.training.released import taken
from analyst.training.rounds import RoundDone
from analyst.training.stopping import Stopping, end, released_lines, tell_owed
from crypto.rounds.messages import Failure, RunEnd
from crypto.wire import Signed, digest_of
from federation.errors import FederationError
from policies.budget.accountant import epsilon_of
from policies.requests.request import Request
from policies.requests.training import START
from policies.units import MICRO, WAIT_S

# What an analyst is told at the end of a run; the silos' owners see more.
ENDS: Mapping[RunEnd, str] = MappingProxyType(
    {
        "complete": "complete: another step would change nothing that can be told",
        "no-maximum": "no maximum: a feature tells the labels apart, or who has the event first, or a label is the same"
        " in all rows, so weights would grow without end; the owners see which with `consilo-silo models`: leave it"
        " out, or merge its values",
        "diverged": "stopped: the loss grew or was not finite, and the last good model stands; narrow the bounds of"
        " features and labels, or ask with another label",
        "abandoned": "given up: no silo takes a further step of it",
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
    audited: Audited | None = None  # None where the job names no groups, or `why_no_audit` says why
    why_no_audit: str = ""


def train(
    federation: Federation,
    job: Job,
    progress: Callable[[int], None] = lambda done: None,
    keep: Path | None = None,
    deadline: int = WAIT_S,
    tell: Callable[[RoundDone], None] = lambda done: None,
) -> Training:
    """Run a job to its end; `progress` is called with the number of finished steps, `tell` with what a round was.

    With `keep`, a later call continues an interrupted run from that file, which is removed at the end. Each step waits
    `deadline` seconds for the silos' computing, whatever the interrupted run waited. Raises
    AnalystError before anything is sent if the job does not fit the silos, DeniedError if silos refuse, RoundError if
    too few are left to answer.
    """
    digest = job_digest(job)
    tell_owed(federation, keep)
    state = resumed(keep, digest) or Progress(
        job=digest, first=first_request(federation, job).encode(), done=0, after=START
    )
    request = waiting(Request.decode(state.first), deadline)
    step = request.plan.training
    if step is None:
        raise AnalystError(f"{keep} is not of a training run", "remove it to begin a new run")
    registry = Registry(federation.config.path.parent)
    registry.begin(request, step, federation.now())
    answered = dict.fromkeys(request.silos, 0)
    holders, ended, rounds = frozenset[str](), None, list[RoundDone]()
    while state.done < step.steps and ended is None:
        if state.done and len(holders) < len(request.silos):
            told = federation.deliver_report(state.after)  # for silos that are back, or for a continued run
            if (ended := _end(told)) is not None:
                holders = frozenset(told)
                continue
        began = perf_counter()
        following = step.model_copy(update={"step": state.done, "after": state.after})
        request, answer = _answered(federation, state, keep, partial(federation.renew, request, following))
        if not isinstance(answer, bytes):
            state = _after_failure(federation, state, request, answer.message, keep)
            request = Request.decode(state.first)
            step = request.plan.training or step
            continue
        checked = federation.check(request, answer)
        registry.learned(request, request.plan.training or step, checked, federation.now())
        for silo in checked.survivors:
            answered[silo] += 1
        told = federation.deliver_report(checked.name)
        holders, ended = frozenset(told), _end(told)
        state = state.model_copy(update={"done": state.done + 1, "after": checked.name, "under_way": b""})
        write(keep, state)
        took = perf_counter() - began
        rounds.append(RoundDone(state.done, step.steps, took, checked.survivors, len(request.silos)))
        tell(rounds[-1])
        progress(state.done)
    if state.done == step.steps and not holders:
        holders = frozenset(federation.deliver_report(state.after))  # the last call was interrupted after its last step
    is_private = step.release == "private"
    stopping = end(federation, request, state.after, keep) if ended is not None and is_private else None
    audited, why_no_audit = _audited(federation, job, Request.decode(state.first), state.after, ended, deadline)
    model = None if step.released_to is None else taken(federation, request, state.after)
    if keep is not None and not isinstance(model, str) and (stopping is None or stopping.is_settled):
        keep.unlink(missing_ok=True)
    rho = (state.done + state.lost) * request.micro_rho / MICRO if is_private else None
    unbegun = (step.steps - state.done) * request.micro_rho / MICRO
    offer = federation.offer_of(request.silos)
    training = Training(
        run=step.run.hex(),
        steps=state.done,
        lost=state.lost,
        holders=tuple(sorted(holders)),
        answered=answered,
        rho=rho,
        epsilon=None if rho is None else epsilon_of(rho, offer.delta_for(request.table, step)),
        delta=offer.delta,
        assumptions=(
            "without noise: nothing is promised against those who compare models"
            if rho is None
            else f"one person is known to at most {request.table.max_silos} silos",
        ),
        ended=ended,
        rounds=tuple(rounds),
        reserved=step.steps * request.micro_rho / MICRO if is_private else None,
        released=None if stopping is None else unbegun,
        stopping=stopping,
        has_model=None if model is None else not isinstance(model, str),
        why_no_model=model if isinstance(model, str) else "",
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
        ended=ended,
        rho=rho,
        epsilon=training.epsilon,
        delta=training.delta,
    )
    return training


def _audited(
    federation: Federation, job: Job, first: Request, position: bytes, ended: RunEnd | None, deadline: int
) -> tuple[Audited | None, str]:
    """Return the audit of a trained model that its job asks for, or why there is none; the model stands in any case."""
    if job.audit is None or ended in ("no-maximum", "too-few-rows", "abandoned"):
        return None, ""
    try:
        return audit(federation, job, first, position, deadline), ""
    except (AnalystError, FederationError) as err:
        return None, f"{err.message}; {err.hint}"


def _end(told: Mapping[str, RunEnd | None]) -> RunEnd | None:
    """Return why a run is at its end, if all silos that have learned its last step say the same."""
    reasons = set(told.values())
    return reasons.pop() if len(reasons) == 1 else None


def _answered(
    federation: Federation, state: Progress, keep: Path | None, renew: Callable[[], Request]
) -> tuple[Request, bytes | Signed[Failure]]:
    """Return the request of a run's next step, and its encrypted report or why there is none.

    A request that was under way when the run was interrupted is looked for at the aggregators, and sent again while it
    is valid: its step is not paid twice. Raises as `train`.
    """
    if state.under_way:
        request = Request.decode(state.under_way)
        encrypted = federation.aggregators.fetched(digest_of(request))
        if encrypted is not None:
            return request, encrypted
    if not state.under_way or request.expires_at <= federation.now():
        request = renew()
        write(keep, state.model_copy(update={"under_way": request.encode()}))
    return request, federation.exchange(request)


def _after_failure(
    federation: Federation, state: Progress, request: Request, failure: Failure, keep: Path | None
) -> Progress:
    """Return the progress of the run that goes on with fewer silos; raises DeniedError or RoundError if none can.

    What silos were charged for the step that failed is noted in either case.
    """
    lost = state.model_copy(update={"under_way": b"", "lost": state.lost + _was_charged(failure, federation)})
    instead = federation.in_place_of(request, failure)
    if instead is not None:
        lost = lost.model_copy(update={"first": instead.encode(), "under_way": instead.encode()})
    write(keep, lost)
    if instead is None:
        raise error_of(failure, request, federation.config.roster)
    return lost


def _was_charged(failure: Failure, federation: Federation) -> bool:
    """Tell whether silos were told to contribute, or say that they have charged this request."""
    denials = denials_of(failure.refusals, failure.request_hash, federation.config.roster)
    return failure.charged or any(one.code == SPENT for reasons in denials.values() for one in reasons)


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
    if training.audited is not None:
        lines += lines_of(training.audited)
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
