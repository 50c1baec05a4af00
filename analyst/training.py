"""Training jobs: a file that says what to learn, and the loop that asks the silos step by step.

The silos are the recipients of every step, so neither the aggregator nor the analyst sees an update or the model. A run
that was interrupted goes on where it was: the file `JOB.run.json` holds its first request and how far it is.

    with Federation.open("consilo.toml") as federation:
        training = train(federation, read_job(Path("job.toml")))
"""

import json
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from analyst.client import Federation
from analyst.errors import AnalystError, SqlError
from analyst.sql.catalogue import Offer, suggest
from crypto.errors import CryptoError
from crypto.randomness import token
from crypto.wire import Count, Digest, Message, Name
from policies.accountant import epsilon_of
from policies.load import frozen
from policies.model import MAX_STEPS, MICRO
from policies.request import Request, Table
from policies.training import MAX_FEATURES, START, Step

Number = Decimal | int


class Job(BaseModel):
    """What to learn from which table, at what price. docs/training.md describes every key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
    schema_: Literal["consilo-job/1"] = Field(alias="schema")
    model: Literal["logistic-regression"]
    table: Name
    purpose: Name
    label: Name
    features: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_FEATURES)]
    release: Literal["private", "exact"] = "private"
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    learning_rate: Annotated[Number, Field(gt=0, lt=10**6)]
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0
    epsilon: Annotated[Number, Field(gt=0, le=100)] | None = None
    clip: Annotated[Number, Field(gt=0, lt=10**6)] | None = None
    local_steps: Annotated[int, Field(ge=1, le=1000)] = 1
    bounds: dict[Name, tuple[Number, Number]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        is_private = self.release == "private"
        if is_private != (self.epsilon is not None) or is_private != (self.clip is not None):
            raise ValueError('release = "private" needs epsilon and clip; release = "exact" has neither')
        if is_private and self.local_steps != 1:
            raise ValueError('release = "private" takes one step a round; remove local_steps')
        if not is_private and self.momentum:
            raise ValueError('release = "exact" has no momentum; remove it')
        if strange := set(self.bounds) - set(self.features):
            raise ValueError(f"bounds of {', '.join(sorted(strange))}, not among the features")
        return self


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


def read_job(path: Path) -> Job:
    """Read a job file; raises AnalystError with its key and what is wrong."""
    try:
        document = tomllib.loads(path.read_text(), parse_float=Decimal)
        return Job.model_validate(frozen(document))
    except FileNotFoundError as err:
        raise AnalystError(f"there is no {path}", "docs/training.md shows one") from err
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the job"
        message = first["msg"].removeprefix("Value error, ")
        known = [field.alias or name for name, field in Job.model_fields.items()]
        hint = suggest(where, known) if first["type"] == "extra_forbidden" else "docs/training.md describes every key"
        raise AnalystError(f"{path}: {where}: {message}", hint) from err
    except (OSError, ValueError, ArithmeticError) as err:
        raise AnalystError(f"{path} cannot be read: {err}", "it must be a TOML file") from err


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
    state = _resumed(keep, digest) or Progress(job=digest, first=_first(federation, job).encode(), done=0, after=START)
    request = Request.decode(state.first)
    step = request.plan
    if not isinstance(step, Step):
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
    rho = None if step.is_exact else step.steps * request.micro_rho / MICRO
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


def _first(federation: Federation, job: Job) -> Request:
    """Return the first request of a new run."""
    offer = federation.offer
    if job.table not in offer.tables:
        raise AnalystError(f"unknown table {job.table!r}", suggest(job.table, offer.tables))
    micro_rho = 0
    if job.epsilon is not None:
        micro_rho = federation.price(job.purpose, float(job.epsilon)) // job.steps
        if micro_rho < 1:
            raise AnalystError(f"epsilon {job.epsilon} buys nothing in {job.steps} steps", "spend more or step less")
    elif job.purpose not in offer.purposes:
        raise AnalystError(f"unknown purpose {job.purpose!r}", suggest(job.purpose, offer.purposes))
    try:
        step = Step(
            run=token(16),
            step=0,
            steps=job.steps,
            after=START,
            release=job.release,
            label=job.label,
            features=job.features,
            learning_rate=_plain(job.learning_rate),
            momentum=_plain(job.momentum),
            clip=_plain(job.clip or 0),
            local_steps=job.local_steps,
        )
        return federation.write(_table(offer, job), step, job.purpose, micro_rho)
    except ValidationError as err:
        reason = err.errors()[0]["msg"].removeprefix("Value error, ")
        raise AnalystError(f"the job cannot be asked: {reason}", "docs/training.md describes every key") from err


def _table(offer: Offer, job: Job) -> Table:
    """Return the definition of the job's table, with the job's own bounds where it narrows them."""
    known = offer.columns(job.table)
    for name in (*job.features, job.label):
        if name not in known:
            raise AnalystError(f"unknown column {name!r} of {job.table!r}", suggest(name, known))
    try:
        table = offer.table(job.table, (*job.features, job.label))
    except SqlError as err:
        raise AnalystError(err.message, err.hint) from err
    columns = []
    for column in table.columns:
        if column.name in job.bounds:
            step = Decimal(column.step or 0)
            if not step or any(bound % step for bound in job.bounds[column.name]):
                raise AnalystError(
                    f"bounds of {column.name!r} are no multiples of its step {column.step or 'none'}",
                    "write bounds in the column's own units",
                )
            low, high = (int(bound / step) for bound in job.bounds[column.name])
            column = column.model_copy(update={"low": low, "high": high})  # the request checks their order
        columns.append(column)
    return Table(**dict(table) | {"columns": tuple(columns)})


def _plain(number: Number) -> str:
    return f"{Decimal(number).normalize():f}"


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


def show_training(training: Training, label: str, policies: Mapping[str, Path]) -> str:
    """Return a finished run as text: what it cost, who took part, who holds the model."""
    lines = [f"run {training.run}: {training.steps} steps of logistic regression of {label}"]
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
