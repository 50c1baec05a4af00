"""The job file of a training run: model, table, columns and price. docs/training.md."""

import tomllib
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from analyst.client import Federation
from analyst.errors import AnalystError, SqlError
from analyst.sql.offer import Offer, suggest
from crypto.randomness import token
from crypto.wire import Name
from policies.document.load import frozen
from policies.requests.computations import AnyComputation
from policies.requests.logistic import LogisticStep
from policies.requests.request import Request
from policies.requests.tables import Table
from policies.requests.training import MAX_FEATURES, START
from policies.units import MAX_STEPS, Number


class Job(BaseModel):
    """The contents of a job file; docs/training.md describes every key."""

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
    silos: tuple[Name, ...] = ()  # to train with these alone

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


def read_job(path: Path) -> Job:
    """Read a job file; raises AnalystError with the invalid key and the problem."""
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


def first_request(federation: Federation, job: Job) -> Request:
    """Return the first request of a new run."""
    federation.look_again()
    offer = federation.offer_of(job.silos)
    if job.table not in offer.tables:
        raise AnalystError(f"unknown table {job.table!r}", suggest(job.table, offer.tables))
    if job.purpose not in offer.purposes:
        raise AnalystError(f"unknown purpose {job.purpose!r}", suggest(job.purpose, offer.purposes))
    try:
        step, table, micro_rho = _FIRST_STEPS[job.model](job), table_of(offer, job), 0
        if job.epsilon is not None:
            micro_rho = federation.price(job.purpose, float(job.epsilon), table, step, job.silos) // job.steps
            if micro_rho < 1:
                raise AnalystError(
                    f"epsilon {job.epsilon} buys nothing in {job.steps} steps", "spend more or step less"
                )
        return federation.write(table, step, job.purpose, micro_rho, silos=job.silos)
    except ValidationError as err:
        reason = err.errors()[0]["msg"].removeprefix("Value error, ")
        raise AnalystError(f"the job cannot be asked: {reason}", "docs/training.md describes every key") from err


def _logistic(job: Job) -> LogisticStep:
    return LogisticStep(
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


# The first step of a new run by the kind of its model.
_FIRST_STEPS: Mapping[str, Callable[[Job], AnyComputation]] = MappingProxyType(
    {
        "logistic-regression": _logistic,
    }
)


def table_of(offer: Offer, job: Job) -> Table:
    """Return the definition of the job's table, with the job's own, narrower bounds if it has any."""
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
