"""Training jobs: a file that says what to learn, and the loop that asks the silos step by step.

The silos are the recipients of every step, so neither the aggregator nor the analyst sees an update or the model. A run
that was interrupted goes on where it was: the file `JOB.run.json` holds its first request and how far it is.

    with Federation.open("consilo.toml") as federation:
        training = train(federation, read_job(Path("job.toml")))
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.training.job import Job, first_request
from crypto.errors import CryptoError
from crypto.wire import Count, Digest, Message
from policies.budget.accountant import epsilon_of
from policies.requests.request import Request
from policies.requests.training import START
from policies.units import MICRO


class Progress(Message):
    """How far a run is: what `JOB.run.json` holds."""

    MAX_BYTES: ClassVar[int] = 1 << 20
    job: Digest  # SHA-256 of the job file
    first: bytes  # the run's first request
    done: Count
    after: Digest


@dataclass(frozen=True, slots=True)
class Training:
    """A run that has ended: what it cost, and who holds the model. The model itself is at the silos."""

    run: str
    steps: int
    holders: tuple[str, ...]  # silos that hold the model after the last step
    answered: dict[str, int]  # how many steps each silo contributed to, in this call
    rho: float | None  # None without noise: nothing is promised then
    epsilon: float | None
    delta: float
    assumptions: tuple[str, ...]


def train(
    federation: Federation,
    job: Job,
    progress: Callable[[int], None] = lambda done: None,
    keep: Path | None = None,
) -> Training:
    """Run a job to its end; `progress` is told how many steps are done.

    With `keep`, the file there lets a later call go on where this one was interrupted; it is removed at the end. Raises
    AnalystError before anything is sent if the job does not fit the silos, DeniedError if silos refuse, RoundError if
    too few are left to answer.
    """
    digest = sha256(job.model_dump_json().encode()).digest()
    state = _resumed(keep, digest) or Progress(
        job=digest, first=first_request(federation, job).encode(), done=0, after=START
    )
    request = Request.decode(state.first)
    step = request.plan.training
    if step is None:
        raise AnalystError(f"{keep} is not of a training run", "remove it to begin a new run")
    answered = dict.fromkeys(request.silos, 0)
    holders = frozenset[str]()
    for done in range(state.done, step.steps):
        if done and len(holders) < len(request.silos):
            federation.teach(state.after)  # to silos that are back, or when a run goes on
        request = federation.renew(request, step.model_copy(update={"step": done, "after": state.after}))
        encrypted = federation.submit(request)
        checked = federation.check(request, encrypted)
        for silo in checked.survivors:
            answered[silo] += 1
        holders = federation.teach(checked.name)
        state = state.model_copy(update={"done": done + 1, "after": checked.name})
        if keep is not None:
            _write(keep, state)
        progress(done + 1)
    if state.done == step.steps and not holders:
        holders = federation.teach(state.after)  # the last call was interrupted after its last step
    if keep is not None:
        keep.unlink(missing_ok=True)
    rho = None if step.release == "exact" else step.steps * request.micro_rho / MICRO
    delta = federation.offer.delta
    return Training(
        run=step.run.hex(),
        steps=step.steps,
        holders=tuple(sorted(holders)),
        answered=answered,
        rho=rho,
        epsilon=None if rho is None else epsilon_of(rho, delta),
        delta=delta,
        assumptions=(
            "without noise: nothing is promised against those who compare models"
            if rho is None
            else f"one person is known to at most {request.table.max_silos} silos",
        ),
    )


def _resumed(keep: Path | None, job: bytes) -> Progress | None:
    if keep is None or not keep.exists():
        return None
    try:
        state = Progress.decode(keep.read_bytes())
        Request.decode(state.first)
    except (OSError, CryptoError) as err:
        raise AnalystError(f"{keep} cannot be read", "remove it to begin a new run") from err
    if state.job != job:
        raise AnalystError(f"{keep} is of another job", "put the job back as it was, or remove the file to begin anew")
    return state


def _write(keep: Path, state: Progress) -> None:
    partial = keep.with_name(f"{keep.name}.partial")
    with suppress(FileNotFoundError):
        partial.unlink()
    partial.write_bytes(state.encode())
    partial.replace(keep)


def to_json(training: Training) -> str:
    """Return a finished run as JSON."""
    return json.dumps(
        {
            "run": training.run,
            "steps": training.steps,
            "holders": list(training.holders),
            "answered": training.answered,
            "rho": training.rho,
            "epsilon": training.epsilon,
            "delta": training.delta,
            "assumptions": list(training.assumptions),
        },
        indent=2,
    )


def show_training(training: Training, job: Job, policies: Mapping[str, Path]) -> str:
    """Return a finished run as text: what it cost, who took part, who holds the model."""
    lines = [f"run {training.run}: {training.steps} steps of {job.model.replace('-', ' ')} of {job.label}"]
    lines += [f"  {silo}: in {count} steps" for silo, count in training.answered.items()]
    lines.append(f"the model is at {', '.join(training.holders) or 'no silo'}, and nowhere else; an owner sees it with")
    lines += [
        f"  consilo-silo models --policy {policies.get(silo, Path('policy.toml'))}" for silo in training.holders[:1]
    ]
    if training.epsilon is not None and training.rho is not None:
        cost = f"epsilon {training.epsilon:.2f} at delta {training.delta:g} (rho {training.rho:g})"
        lines.append(f"cost to each person: {cost}; {training.assumptions[0]}")
    else:
        lines.append(training.assumptions[0])
    return "\n".join(lines)
