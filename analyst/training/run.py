"""Run a training job: ask the silos for one step after the other.

Promise: the silos are the recipients of every step, so neither the aggregator nor the analyst sees an update or the
model. An interrupted run continues: the file `JOB.run.json` has its first request, its progress, and the request under
way, by whose hash its report is found. docs/protocol.md section 11.

    from analyst.training.job import read_job

    with Federation.open("consilo.toml") as federation:
        training = train(federation, read_job(Path("job.toml")))
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from time import perf_counter

from analyst.answers import denials_of
from analyst.client import Federation
from analyst.errors import AnalystError, StuckError
from analyst.requests import waiting
from analyst.training.auditing import Audited, audit, gaps_of
from analyst.training.beside import beside, check_beside
from analyst.training.failed import after_failure
from analyst.training.job import Job, first_request
from analyst.training.patience import MetricSoFar
from analyst.training.progress import Progress, forget, resumed, write
from analyst.training.registry import Registry
from analyst.training.released import taken
from analyst.training.round_metric import metric_after
from analyst.training.rounds import RoundDone
from analyst.training.sending import send_packed
from analyst.training.step import Sleep, answered, learned
from analyst.training.stopping import Stopping, end, give_up, tell_owed
from analyst.training.volume import volume_at_silo
from crypto.rounds.messages import RunEnd
from crypto.rounds.opening import CheckedReport
from federation.errors import FederationError
from policies.budget.accountant import epsilon_of
from policies.models.record import without_model
from policies.networks.names import NETWORKS
from policies.requests.exact import FamilyStep
from policies.requests.request import Request
from policies.requests.training import START, TrainingStep
from policies.units import MICRO, SEND_S, WAIT_S, counted


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
    best_round: int | None = None  # after how many rounds the metric was best
    why_no_metric: str = ""  # from which round on silos refused it, and why; the run went on without
    audited: Audited | None = None  # None where the job names no groups, or `why_no_audit` says why
    why_no_audit: str = ""


def train(
    federation: Federation,
    job: Job,
    progress: Callable[[int], None] = lambda done: None,
    keep: Path | None = None,
    deadline: int | None = None,
    tell: Callable[[RoundDone], None] = lambda done: None,
    sleep: Sleep = time.sleep,
    send_deadline: int = SEND_S,
) -> Training:
    """Run a job to its end; `progress` is called with the number of finished steps, `tell` with what a round was.

    With `keep`, a later call continues an interrupted run from that file, which is removed at the end. Each step waits
    `deadline` seconds (the job's, or 60) for the silos' computing and `send_deadline` for each to send a long vector,
    whatever the interrupted run waited, and `sleep` is called while silos may be on their way back. Raises AnalystError
    before anything is sent if the job does not fit the silos, DeniedError if silos refuse, RoundError if too few are
    left to answer.
    """
    under_way = training_of(federation, job, keep, deadline, sleep, send_deadline)
    while True:
        try:
            done = next(under_way)
        except StopIteration as finished:
            found: Training = finished.value
            return found
        tell(done)
        progress(done.number)


def training_of(
    federation: Federation,
    job: Job,
    keep: Path | None = None,
    deadline: int | None = None,
    sleep: Sleep = time.sleep,
    send_deadline: int = SEND_S,
) -> Generator[RoundDone, None, Training]:
    """Run a job as `train` does; yield each round when it is done and kept, and return the finished run."""
    digest, waits = job_digest(job), (deadline or job.deadline or WAIT_S, send_deadline)
    tell_owed(federation, keep)
    state = resumed(keep, digest)
    goes_on = state is not None
    if state is not None:  # a silo may have lost the file meanwhile
        send_packed(federation, job, Request.decode(state.first).silos)
    run = _Run(federation, job, keep, waits, state or begun(federation, job, digest))
    try:
        yield from run.take_steps(sleep)
    except StuckError:
        if not goes_on or run.rounds:
            raise
        # anew: the file is removed
        return (yield from training_of(federation, job, keep, deadline, sleep, send_deadline))
    return run.finish()


class _Run:
    """A run under way: its progress, the request of its last step, and what its rounds of this call were."""

    def __init__(
        self, federation: Federation, job: Job, keep: Path | None, waits: tuple[int, int], state: Progress
    ) -> None:
        """Note the run's entry in the registry; raises AnalystError if its file is not of a run.

        `waits` are the seconds of each step for the silos' computing, and for each to send a long vector.
        """
        self._federation, self._job, self._keep, self._waits = federation, job, keep, waits
        self._state = state
        self._request, self._step = self._first()
        write(keep, state)
        self._registry = Registry(federation.config.path.parent)
        self._registry.begin(self._request, self._step, federation.now())
        self._answered = dict.fromkeys(self._request.silos, 0)
        self.rounds = list[RoundDone]()

    def _first(self) -> tuple[Request, TrainingStep]:
        """Return the first request of the run as its progress has it, and its step."""
        request = waiting(Request.decode(self._state.first), *self._waits)
        step = request.plan.training
        if step is None:
            raise AnalystError(f"{self._keep} is not of a training run", "remove it to begin a new run")
        return request, step

    def take_steps(self, sleep: Sleep) -> Iterator[RoundDone]:
        """Ask for every step that is to come, to the run's end, and yield what each round was; raises as `train`."""
        if self._state.done:  # the last call may have been interrupted before the metric of its last round
            self._ask_metric()
        while self._state.done < self._step.steps and self._state.ended is None:
            state = self._state
            if state.done and len(state.holders) < len(self._request.run_silos):  # for silos that are back
                self._state = state = _heard(state, learned(self._federation, state))
                if state.ended is not None:
                    continue
            began = perf_counter()
            following = self._request.plan.model_copy(
                update={"step": state.done, "after": state.after, **self._best_marked()}
            )
            renewed = partial(self._federation.renew, self._request, following)
            self._request, answer = answered(self._federation, state, self._keep, renewed, sleep)
            if isinstance(answer, bytes):
                yield self._take(answer, began)
            else:
                self._state = after_failure(self._federation, state, self._request, answer.message, self._keep)
                self._request, self._step = self._first()

    def _best_marked(self) -> dict[str, bool]:
        """Return what the next step of a network says of the model before it: whether it is the best so far."""
        step, so_far, done = self._step, self._state.metric, self._state.done
        if not isinstance(step, FamilyStep) or step.family not in NETWORKS:
            return {}
        return {"is_best": done > 0 and so_far is not None and so_far.best_round(self._job.metric) == done}

    def _take(self, report: bytes, began: float) -> RoundDone:
        """Take the report of a step, and ask for the metric that is due; return what the round was."""
        checked = self._federation.check(self._request, report)
        step = self._request.plan.training or self._step
        self._registry.learned(self._request, step, checked, self._federation.now())
        for silo in checked.survivors:
            self._answered[silo] += 1
        done = self._state.done + 1
        state = self._state.model_copy(update={"done": done, "after": checked.name, "under_way": b""})
        self._state = _heard(state, learned(self._federation, state))
        write(self._keep, self._state)
        figures = self._ask_metric()
        self.rounds.append(
            RoundDone(
                number=done,
                planned=self._step.steps,
                seconds=perf_counter() - began,
                survivors=checked.survivors,
                asked=len(self._request.silos),
                silos=len(self._request.run_silos),
                figures=figures,
                without=self._without(checked),
                volume=volume_at_silo(self._federation, self._request, checked.manifest.conditions[1:]),
            )
        )
        return self.rounds[-1]

    def _without(self, checked: CheckedReport) -> dict[str, str]:
        """Return the silos that are not in a sum, each with the codes of its denials if it refused."""
        signed = checked.stored.message.refusals, checked.manifest.terms.request_hash
        refused = denials_of(*signed, self._federation.config.roster)
        codes = {silo: ", ".join(dict.fromkeys(one.code for one in denials)) for silo, denials in refused.items()}
        return {silo: codes.get(silo, "") for silo in self._request.silos if silo not in checked.survivors}

    def _ask_metric(self) -> Mapping[str, float]:
        self._state, figures = metric_after(self._federation, self._job, self._step.run, self._state, self._keep)
        return figures

    def finish(self) -> Training:
        """Give back what a private run has not used, audit its model, take it if it was released, and note the end."""
        federation, job, keep, request = self._federation, self._job, self._keep, self._first()[0]
        if not self._state.holders:  # the last call was interrupted after its last step, or nobody has learned it yet
            self._state = _heard(self._state, _told(federation, self._state, keep))
        state, step = self._state, self._step
        over = give_up if state.ended == "patience" else end
        is_early = state.ended is not None and step.release == "private"
        stopping = over(federation, request, state.after, keep) if is_early else None
        audited, why_no_audit = _audited(federation, job, state, self._waits[0])
        model = None if step.released_to is None else taken(federation, request, state.after)
        if not isinstance(model, str) and (stopping is None or stopping.is_settled):
            forget(keep)
        training = replace(
            self._training(stopping),
            has_model=None if model is None else not isinstance(model, str),
            why_no_model=model if isinstance(model, str) else "",
            audited=audited,
            why_no_audit=why_no_audit,
        )
        self._registry.finish(
            step.run,
            federation.now(),
            model,
            done=state.done,
            lost=state.lost,
            holders=training.holders,
            ended=state.ended,
            rho=training.rho,
            epsilon=training.epsilon,
            delta=training.delta,
            audit=() if audited is None else gaps_of(audited),
        )
        return training

    def _training(self, stopping: Stopping | None) -> Training:
        """Return the run with its cost, without what comes of its model."""
        state, step, is_private = self._state, self._step, self._step.release == "private"
        price, so_far = self._request.micro_rho / MICRO, state.metric or MetricSoFar()
        rho = (state.done + state.lost) * price if is_private else None
        return Training(
            run=step.run.hex(),
            steps=state.done,
            lost=state.lost,
            holders=state.holders,
            answered=self._answered,
            rho=rho,
            epsilon=None if rho is None else epsilon_of(rho, state.price_delta),
            delta=state.delta,
            assumptions=(
                "without noise: nothing is promised against those who compare models"
                if rho is None
                else f"one person is known to at most {counted(self._request.table.max_silos, 'silo')}",
            ),
            ended=state.ended,
            rounds=tuple(self.rounds),
            reserved=step.steps * price if is_private else None,
            released=None if stopping is None else (step.steps - state.done) * price,
            stopping=stopping,
            metric_rho=so_far.rho or None,
            best_round=so_far.best_round(self._job.metric),
            why_no_metric=so_far.refused,
        )


def _audited(federation: Federation, job: Job, state: Progress, deadline: int) -> tuple[Audited | None, str]:
    """Return the audit of a trained model that its job asks for, or why there is none; the model stands in any case."""
    if job.audited is None or state.ended == "abandoned" or without_model(state.ended) is not None:
        return None, ""
    try:
        return audit(federation, job, Request.decode(state.first), state.after, deadline), ""
    except (AnalystError, FederationError) as err:
        return None, f"{err.message}; {err.hint}"


def begun(federation: Federation, job: Job, digest: bytes) -> Progress:
    """Return the progress of a new run, before anything is asked of a row.

    Raises AnalystError if the job does not fit, DeniedError if silos would refuse what is asked beside its rounds.
    """
    first = first_request(federation, job, is_asked=False)
    send_packed(federation, job, first.silos)
    check_beside(federation, beside(federation, job, first))
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
    return sha256(job.model_dump_json(exclude={"packed"}).encode()).digest()
