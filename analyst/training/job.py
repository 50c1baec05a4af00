"""The job file of a training run: model, table, columns and price. docs/training.md."""

import json
import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from analyst.client import Federation
from analyst.errors import AnalystError, SqlError
from analyst.sql.offer import Offer, suggest
from analyst.training.affordable import affordable, limits_of
from analyst.training.audit_job import AuditJob, counted_alone
from analyst.training.beginning import begins_of
from analyst.training.drawing import check_share
from analyst.training.network_job import KeyProblemError, plain
from analyst.training.packed_file import read_packed
from analyst.training.split import split_for
from analyst.training.watch_job import WatchJob
from crypto.randomness import token
from crypto.wire import Name
from policies.budget.accountant import micro_rho_of
from policies.document.load import frozen
from policies.errors import reason_of
from policies.networks import parts
from policies.networks.names import PACKED
from policies.networks.packed import Packed, decoded
from policies.requests.computations import AnyComputation
from policies.requests.exact import ExactStep, Setting
from policies.requests.families import SHAPES
from policies.requests.held_out import PARTS, STEP, HeldOut
from policies.requests.logistic import LogisticStep
from policies.requests.metrics import MetricName
from policies.requests.networks import summed_of
from policies.requests.noised import NoisedStep
from policies.requests.noised_families import LEAST_ROUNDS as NOISED_LEAST_ROUNDS
from policies.requests.noised_families import MOMENTS, NOISED, why_exact_alone
from policies.requests.noised_families import ROUNDS as NOISED_ROUNDS
from policies.requests.request import Request
from policies.requests.tables import Table
from policies.requests.training import MAX_FEATURES, START
from policies.units import MAX_STEPS, MAX_WAIT_S, Number, counted

DESCENT = LogisticStep.model_fields["kind"].default  # the one model that is trained by descent
SILOS_ALONE = ("silos",)  # the recipients of a job that names none
ROUNDS, LEAST_ROUNDS = 25, 3  # of an exact family at most, where the job names no other number
# What a job of a family with noise names in place of a key of descent with a learning rate.
_INSTEAD = {
    "clip": "write it into [options], or leave it out",
    "momentum": "write it into [options], or leave it out",
    "steps": "name rounds, or leave it out",
}
_OF_COMMANDS = re.compile(r"--silos ([^;\s]+)")  # in a hint


class HeldOutRows(BaseModel):
    """Which rows the model does not learn from, so that it is judged by them."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
    column: Name | None = None  # a bool of the role held_out
    share: Annotated[Number, Field(gt=0, lt=1)] | None = None  # of persons, by a split

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.column is None) == (self.share is None):
            raise ValueError("held_out names a column or a share")
        if self.share is not None and Decimal(self.share) * PARTS % STEP:
            raise ValueError(f"held_out.share is {self.share}; expected a multiple of 0.05, such as 0.25")
        return self


class RoundMetric(BaseModel):
    """A metric of the model after its rounds, by the rows that are held out, and when it ends the run."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
    name: MetricName
    every: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 1  # rounds
    epsilon: Annotated[Number, Field(gt=0, le=100)] | None = None  # of all these metrics together; private runs only
    patience: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None  # metrics without an improvement that end the run
    tolerance: Annotated[Number, Field(ge=0, le=10**9)] = 0  # an improvement is more than that


class Job(BaseModel):
    """The contents of a job file; docs/training.md describes every key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
    schema_: Literal["consilo-job/1"] = Field(alias="schema")
    model: str
    table: Name
    purpose: Name
    label: Name | None = None
    features: Annotated[tuple[Name, ...], Field(max_length=MAX_FEATURES)] = ()
    release: Literal["private", "exact"] = "private"
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    rounds: Annotated[int, Field(ge=LEAST_ROUNDS, le=MAX_STEPS)] | None = None
    learning_rate: Annotated[Number, Field(gt=0, lt=10**6)] | None = None
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0
    epsilon: Annotated[Number, Field(gt=0, le=100)] | None = None
    clip: Annotated[Number, Field(gt=0, lt=10**6)] | None = None
    local_steps: Annotated[int, Field(ge=1, le=1000)] = 1
    bounds: dict[Name, tuple[Number, Number]] = Field(default_factory=dict)
    silos: tuple[Name, ...] = ()  # to train with these alone
    options: dict[str, Number | str] = Field(default_factory=dict)  # of an exact family
    columns: dict[str, Name] = Field(default_factory=dict)  # further ones of an exact family, such as its offset
    held_out: HeldOutRows | None = None
    metric: RoundMetric | None = None
    audit: Annotated[AuditJob | None, Field(exclude_if=lambda audit: audit is None)] = None
    watch: Annotated[WatchJob | None, Field(exclude_if=lambda watch: watch is None)] = None
    # Who has the model at the end; left out of the job's hash where it is the silos alone.
    recipients: Annotated[
        tuple[Literal["silos", "analyst"], ...], Field(exclude_if=lambda named: named == SILOS_ALONE)
    ] = ("silos",)
    # How long each round waits for the silos' computing, in seconds; left out where the command says it.
    deadline: Annotated[int | None, Field(ge=1, le=MAX_WAIT_S, exclude_if=lambda seconds: seconds is None)] = None
    # The packed file of a network of any graph; left out of any other, and of the job's hash, as `graph` names it.
    packed: Annotated[str | None, Field(exclude_if=lambda path: path is None)] = None

    # The run whose model a network begins with; left out where its weights are fresh or packed.
    begins: Annotated[str | None, Field(exclude_if=lambda run: run is None)] = None

    @property
    def audited(self) -> AuditJob | None:
        """How its model is audited: by [audit], or for [watch] alone by bins of scores and features."""
        if self.audit is not None or self.watch is None:
            return self.audit
        return counted_alone(self.watch.drift_epsilon)

    @property
    def is_exact_family(self) -> bool:
        """Whether the job is a program of exact rounds, and no descent, which names a learning rate."""
        return self.release == "exact" and self.learning_rate is None

    @property
    def is_noised_family(self) -> bool:
        """Whether the job is a program of rounds with noise, which names its price and nothing more."""
        return self.release == "private" and self.learning_rate is None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.model not in SHAPES:
            raise ValueError(f"no model {self.model!r}, expected one of {', '.join(SHAPES)}")
        if strange := set(self.bounds) - set(self.used):
            raise ValueError(f"bounds of {', '.join(sorted(strange))}, not among the features")
        if "silos" not in self.recipients or len(set(self.recipients)) < len(self.recipients):
            raise ValueError('recipients is ["silos"], or ["silos", "analyst"]: the silos always have the model')
        if self.metric is not None:
            self._check_metric(self.metric)
        if self.audit is not None:
            self._check_audit(self.audit)
        if self.watch is not None:
            self._check_watch(self.watch)
        if self.is_noised_family:
            return self._check_noised()
        return self._check_exact() if self.is_exact_family else self._check_descent()

    def _check_audit(self, audit: AuditJob) -> None:
        if (audit.epsilon is not None) != (self.release == "private"):
            raise ValueError(
                'release = "private" needs audit.epsilon, the price of an audit; release = "exact" has none'
            )

    def _check_watch(self, watch: WatchJob) -> None:
        if self.audit is not None and "analyst" not in self.audit.recipients:
            raise ValueError('[watch] needs [audit] with recipients = ["silos", "analyst"]: it compares its figures')
        is_private = self.release == "private"
        if (watch.drift_epsilon is not None) != (is_private and self.audit is None):
            raise ValueError(
                'watch.drift_epsilon is the price of a look with release = "private" and without [audit], whose'
                " epsilon is the price else"
            )
        if is_private != (watch.epsilon is not None):
            raise ValueError('watch.epsilon is the most that watching costs with release = "private", and needed there')
        if watch.metric is not None and is_private != (watch.metric_epsilon is not None):
            raise ValueError('watch.metric_epsilon is the price of the metric with release = "private"')

    def _check_metric(self, metric: RoundMetric) -> None:
        if self.held_out is None:
            raise ValueError("a metric needs rows from which nothing is learned: name [held_out]")
        if (self.release == "private") != (metric.epsilon is not None):
            raise ValueError('metric.epsilon is its price with release = "private"; with "exact" it has none')
        if metric.every > self.planned:
            raise ValueError(f"metric.every is {metric.every}, of a run of {counted(self.planned, 'round')}")

    def _check_noised(self) -> Self:
        if self.model not in NOISED:
            raise ValueError(f'{why_exact_alone(self.model)}; or take sources with release = "exact"')
        if self.epsilon is None:
            raise ValueError('release = "private" needs epsilon, the price of the whole run to one person')
        for name, default in (("clip", None), ("momentum", 0), ("local_steps", 1), ("steps", None)):
            if getattr(self, name) != default:
                raise ValueError(f"without learning_rate {name} has no effect; {_INSTEAD.get(name, 'remove it')}")
        return self

    def _check_exact(self) -> Self:
        for name, default in (("epsilon", None), ("clip", None), ("momentum", 0), ("local_steps", 1), ("steps", None)):
            if getattr(self, name) != default:
                remedy = "; name rounds, or a learning_rate for descent" if name == "steps" else ""
                raise ValueError(f'release = "exact" without learning_rate has no {name}; remove it{remedy}')
        return self

    def _check_descent(self) -> Self:
        is_private = self.release == "private"
        if self.model != DESCENT:
            raise ValueError(f"with a learning_rate there is {DESCENT} alone; remove it to fit a {self.model}")
        if self.rounds is not None or self.options or self.columns:
            raise ValueError("rounds, options and columns are for jobs without learning_rate; remove them")
        if self.steps is None or self.learning_rate is None or self.label is None or not self.features:
            raise ValueError("descent needs label, features, steps and learning_rate")
        if is_private != (self.epsilon is not None) or is_private != (self.clip is not None):
            raise ValueError('release = "private" needs epsilon and clip; release = "exact" has neither')
        if is_private and self.local_steps != 1:
            raise ValueError('release = "private" takes one step a round; remove local_steps')
        if not is_private and self.momentum:
            raise ValueError('release = "exact" has no momentum; remove it')
        return self

    @property
    def used(self) -> tuple[str, ...]:
        """The columns that the job reads but its label."""
        return (*self.features, *self.columns.values())

    @property
    def is_for_analyst(self) -> bool:
        """Whether the analyst is to have the model too."""
        return "analyst" in self.recipients

    @property
    def planned(self) -> int:
        """The rounds that the run has at most."""
        if self.is_noised_family:
            most = self.rounds or NOISED[self.model].shape.rounds or NOISED_ROUNDS
            return 1 if self.options.get("method") == MOMENTS else most
        return self.steps or self.rounds or SHAPES[self.model].rounds or ROUNDS


def read_job(path: Path) -> Job:
    """Read a job file; raises AnalystError with the invalid key and the problem."""
    try:
        job = parsed_job(path.read_text(), str(path))
        return job if job.packed is None else job.model_copy(update={"packed": str(path.parent / job.packed)})
    except FileNotFoundError as err:
        hint = "docs/training.md shows one, and `consilo new --job` drafts one"
        raise AnalystError(f"there is no {path}", hint) from err
    except (OSError, ValueError) as err:
        raise AnalystError(f"{path} cannot be read: {err}", "it must be a TOML file") from err


def parsed_job(text: str, path: str) -> Job:
    """Return the job in the text of a file; raises AnalystError with the invalid key and the problem."""
    try:
        document = tomllib.loads(text, parse_float=Decimal)
        return Job.model_validate(frozen(plain(document)))
    except KeyProblemError as err:
        raise AnalystError(f"{path}: {err.where}: {err.message}", err.hint) from err
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the job"
        message = first["msg"].removeprefix("Value error, ")
        known = [field.alias or name for name, field in Job.model_fields.items()]
        known += ["optimiser"]
        hint = suggest(where, known) if first["type"] == "extra_forbidden" else "docs/training.md describes every key"
        raise AnalystError(f"{path}: {where}: {message}", hint) from err
    except (ValueError, ArithmeticError) as err:
        raise AnalystError(f"{path} cannot be read: {err}", "it must be a TOML file") from err


def first_request(federation: Federation, job: Job, *, is_asked: bool = True) -> Request:
    """Return the first request of a new run.

    Where it holds out a share of persons, the silos have their split then, unless nothing `is_asked` of them yet.
    """
    federation.look_again()
    offer = federation.offer_of(job.silos)
    if job.table not in offer.tables:
        raise AnalystError(f"unknown table {job.table!r}", suggest(job.table, offer.tables))
    if job.purpose not in offer.purposes:
        raise AnalystError(f"unknown purpose {job.purpose!r}", suggest(job.purpose, offer.purposes))
    try:
        step = step_of(job, max(offer.silos[silo].min_cohort for silo in offer.holders(job.table)))
        if isinstance(step, NoisedStep):
            step = step.divided_by(len(offer.holders(job.table)))
        if (held_out := held_out_of(federation, job, is_asked=is_asked)) is not None:
            step = step.model_copy(update={"held_out": held_out})
        if job.audit is not None and (limit := job.audit.limit) is not None:
            step = step.model_copy(update={"audit": limit})
        if job.begins is not None:
            step = step.model_copy(update={"begins": begins_of(federation, job.begins)})
        if job.is_for_analyst:
            step = step.model_copy(update={"released_to": federation.recipient})
        table, micro_rho = table_of(offer, job), 0
        if job.epsilon is not None:
            micro_rho = _price(offer, job, table, offer.delta_for(table, step))
        request = federation.write(table, step, job.purpose, micro_rho, silos=job.silos)
        check_share(federation.offer_of(request.silos), request)
        return request
    except ValidationError as err:
        reason = reason_of(err)
        raise AnalystError(f"the job cannot be asked: {reason}", "docs/training.md describes every key") from err
    except AnalystError as err:
        if _OF_COMMANDS.search(err.hint) is None:
            raise
        raise AnalystError(err.message, _OF_COMMANDS.sub(_named_in_job, err.hint)) from err


def _named_in_job(option: re.Match[str]) -> str:
    """Return how a job names the silos that an option of `consilo query` names."""
    return f"silos = {json.dumps(option[1].split(','))} in the job"


def _price(offer: Offer, job: Job, table: Table, delta: float) -> int:
    """Return the price of a round, in micro-rho; raises AnalystError where an epsilon buys too few rounds."""
    epsilon = float(job.epsilon or 0)
    silos = {silo: offer.silos[silo] for silo in offer.holders(job.table)}
    limits = limits_of(silos, {}, table, job.purpose)
    if (micro_rho := micro_rho_of(epsilon, delta) // job.planned) >= limits.needed:
        return micro_rho
    could = affordable(epsilon, job.planned, delta, limits)
    hints, least = [], NOISED_LEAST_ROUNDS if job.is_noised_family else 1
    if job.options.get("method") != MOMENTS and (could.rounds or 0) >= least:
        key = "rounds" if job.is_noised_family else "steps"
        hints.append(f"it buys {could.rounds} at most: {key} = {could.rounds}")
    if could.least_epsilon is not None:
        hints.append(f"{counted(job.planned, 'round')} cost epsilon {could.least_epsilon:g} or more")
    raise AnalystError(
        f"epsilon {epsilon:g} is too little for {counted(job.planned, 'round')}", "; ".join(hints) or "take fewer"
    )


def step_of(job: Job, least_cohort: int) -> AnyComputation:
    """Return the first step of a run; groups that it shows have so many persons where the job does not say."""
    return _logistic(job) if job.learning_rate is not None else _family_step(job, least_cohort)


def held_out_of(federation: Federation, job: Job, *, is_asked: bool = True) -> HeldOut | None:
    """Return whom a job's run does not learn from; raises what `split_for` raises."""
    held = job.held_out
    if held is None:
        return None
    if held.share is None:
        return HeldOut(column=held.column)
    split = split_for(federation, job.table, job.purpose, job.release, job.silos, is_asked=is_asked)
    return HeldOut(split=split, parts=int(Decimal(held.share) * PARTS))


def _logistic(job: Job) -> LogisticStep:
    return LogisticStep(
        run=token(16),
        step=0,
        steps=job.planned,
        after=START,
        release=job.release,
        label=job.label or "",
        features=job.features,
        learning_rate=_plain(job.learning_rate or 0),
        momentum=_plain(job.momentum),
        clip=_plain(job.clip or 0),
        local_steps=job.local_steps,
    )


def _options(job: Job) -> dict[str, str]:
    return {name: value if isinstance(value, str) else f"{Decimal(value):f}" for name, value in job.options.items()}


def _family_step(job: Job, least_cohort: int) -> NoisedStep | ExactStep:
    options = _options(job)
    shape = SHAPES[job.model]
    if job.is_exact_family and "min_cohort" in shape.options and shape.has_groups(options):  # as the strictest policy
        options.setdefault("min_cohort", str(least_cohort))
    if (network := packed_of(job)) is not None:  # how many numbers are summed, which the request states alone
        defaults = {name: option.default for name, option in shape.options.items()}
        options["count"] = str(parts.count(summed_of(network.graph, defaults | options)))
    return (ExactStep if job.is_exact_family else NoisedStep)(
        graph=network,
        run=token(16),
        step=0,
        steps=job.planned,
        after=START,
        label=job.label,
        features=job.features,
        family=job.model,
        parts=_settings(job.columns),
        options=_settings(options),
    )


def packed_of(job: Job) -> Packed | None:
    """Return the packed network of a job, None where it needs none; raises AnalystError."""
    if job.packed is None or job.model != PACKED:
        return None
    return decoded(read_packed(Path(job.packed), str(job.options.get("graph", ""))))


def _settings(values: Mapping[str, str]) -> tuple[Setting, ...]:
    return tuple(Setting(name=name, value=value) for name, value in sorted(values.items()))


def table_of(offer: Offer, job: Job) -> Table:
    """Return the definition of the job's table, with the job's own, narrower bounds if it has any."""
    known = offer.columns(job.table)
    marks = () if job.held_out is None or job.held_out.column is None else (job.held_out.column,)
    used = (*job.used, *(() if job.label is None else (job.label,)), *marks)
    for name in used:
        if name not in known:
            raise AnalystError(f"unknown column {name!r} of {job.table!r}", suggest(name, known))
    try:
        table = offer.table(job.table, used)
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
            _check_narrowable(offer, job.table, column.name)
            low, high = (int(bound / step) for bound in job.bounds[column.name])
            column = column.model_copy(update={"low": low, "high": high})  # the request checks their order
        columns.append(column)
    return Table(**dict(table) | {"columns": tuple(columns)})


def _check_narrowable(offer: Offer, table: str, name: str) -> None:
    """Raise AnalystError where a silo's policy lets nobody narrow a feature: that would make a filter of it."""
    strict = [silo for silo, columns in offer.holders(table).items() if not columns[name].is_narrowable]
    if strict:
        hint = f"remove the job's bounds of {name}; or their owners add narrow = true, or the role filter"
        raise AnalystError(f"no narrower bounds of {name!r} are open to you at {', '.join(strict)}", hint)


def _plain(number: Number) -> str:
    return f"{Decimal(number).normalize():f}"
