"""What was seen of a metric after the rounds of a run, and whether the run has waited long enough: pure."""

import math
from typing import Annotated

from pydantic import Field

from analyst.training.job import RoundMetric
from crypto.wire import Count, Message
from policies.requests.metrics import RISING, MetricName
from policies.units import MICRO

MOST_WORDS = 1000


class MetricSoFar(Message):
    """What was seen of a metric so far; a part of `JOB.run.json`."""

    best: Annotated[float, Field(allow_inf_nan=False)] | None = None
    since: Count = 0  # metrics since the best one
    micro_rho: Count = 0  # what all of them cost to each person, at most
    done: Count = 0  # rounds of which it is known what their metric is, or that there is none
    asked: bytes = b""  # the request of the metric under way, once it was about to be sent
    refused: Annotated[str, Field(max_length=MOST_WORDS)] = ""  # why it is asked for no more

    def after(self, value: float, of: RoundMetric) -> "MetricSoFar":
        """Return what is known after one more metric; one that is not finite is no improvement."""
        is_better = self.best is None or _gain(of.name, self.best, value) > of.tolerance
        if math.isfinite(value) and is_better:
            return self.model_copy(update={"best": value, "since": 0})
        return self.model_copy(update={"since": self.since + 1})

    def best_round(self, of: RoundMetric | None) -> int | None:
        """Return after how many rounds the metric was best so far; None where none is known."""
        return None if of is None or self.best is None else self.done - self.since * of.every

    def is_over(self, of: RoundMetric | None) -> bool:
        """Tell whether the run has not become better for as long as the job waits."""
        return of is not None and of.patience is not None and self.since >= of.patience

    @property
    def rho(self) -> float:
        return self.micro_rho / MICRO


def _gain(name: MetricName, before: float, now: float) -> float:
    return now - before if name in RISING else before - now
