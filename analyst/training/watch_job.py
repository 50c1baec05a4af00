"""The section [watch] of a job file: how often a model is looked at, what raises an alarm, what it may cost."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from crypto.wire import Name
from policies.document.section import Duration, seconds_of
from policies.requests.metrics import MetricName
from policies.units import Number


class WatchJob(BaseModel):
    """How a trained model is watched: by the job's [audit], whose figures the analyst has, or by drift alone."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
    every: Duration
    max_drift: Annotated[Number, Field(gt=0, le=100)] | None = None  # population stability index
    metric: MetricName | None = None
    bound: Number | None = None  # the worst value of the metric without an alarm
    metric_epsilon: Annotated[Number, Field(gt=0, le=100)] | None = None  # of the metric alone, each time
    # Of the bins, each time, without [audit]; and whose rows are looked at, where those that it was trained on are the
    # reference alone. Left out of the job's hash where they are not named.
    drift_epsilon: Annotated[Number | None, Field(gt=0, le=100, exclude_if=lambda price: price is None)] = None
    table: Annotated[Name | None, Field(exclude_if=lambda name: name is None)] = None
    epsilon: Annotated[Number, Field(gt=0, le=100)] | None = None  # of all that watching asks; private sources only

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.metric is None) != (self.bound is None):
            raise ValueError("watch.metric and watch.bound go together: a metric, and its worst value without an alarm")
        if self.metric is None and self.metric_epsilon is not None:
            raise ValueError("watch.metric_epsilon is the price of watch.metric; name that, or remove it")
        return self

    @property
    def every_s(self) -> int:
        """How many seconds lie between two looks."""
        return seconds_of(self.every)
