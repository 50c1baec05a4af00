"""One step of logistic regression of a bool column, between silos that all hold the same model.

The model is a vector of weights, all 0 at the start: the intercept, then for every feature in order one weight for a
number or a bool, centred and scaled to [-1, 1] by its bounds, and one for each value of a domain but the first.
A silo's contribution is computed in `silo_node/training/logistic.py`, the model moves in
`silo_node/training/logistic_model.py: moved`.
docs/protocol.md section 11.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from crypto.wire import Name
from policies.requests.families import Task
from policies.requests.statistic import Extent, Statistic, exact, noised
from policies.requests.tables import Table
from policies.requests.training import MAX_FEATURES, Positive, TrainingStep

GRADIENT_UNITS = 2**20  # in the clip norm: a person's clipped gradient is made of whole units
MAX_WEIGHTS = 64_000  # of 64 features with 1,000 values each
WEIGHT_BITS = 30  # fractional bits of a weight in a sum without noise


class LogisticStep(TrainingStep):
    """One step of logistic regression.

    With release "private" the sum has the gradients of all persons, each clipped to the L2 norm `clip`, and the number
    of persons, both with noise; the model then moves by `learning_rate` against the mean gradient, with `momentum`
    (Polyak 1964). With release "exact" each silo takes `local_steps` steps on its own rows, and the sum averages the
    models, weighted by rows (McMahan et al., AISTATS 2017).
    """

    kind: Literal["logistic-regression"] = "logistic-regression"
    label: Name
    features: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_FEATURES)]
    learning_rate: Positive
    momentum: Positive = "0"
    clip: Positive
    local_steps: Annotated[int, Field(ge=1, le=1000)] = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not Decimal(self.learning_rate) or Decimal(self.momentum) >= 1:
            raise ValueError("learning_rate must be above 0, momentum below 1")
        if self.is_exact and (Decimal(self.clip) or Decimal(self.momentum)):
            raise ValueError("an exact step has no clip and no momentum")
        if not self.is_exact and (not Decimal(self.clip) or self.local_steps != 1):
            raise ValueError("a private step needs a clip, and is one step")
        return self

    @property
    def clip_norm(self) -> Decimal:
        return Decimal(self.clip)

    @property
    def is_exact(self) -> bool:
        return self.release == "exact"

    def size(self, table: Table) -> int:
        """Return how much each row costs: as much again for every step that a silo takes on its own rows."""
        return super().size(table) * self.local_steps

    def task(self, table: Table) -> Task:
        """Return what judging the model reads of this step: it is one of logistic regression, whatever fitted it."""
        return Task(
            family="logistic-regression",
            table=table,
            number=self.step,
            rounds=self.steps,
            label=self.label,
            features=self.features,
            parts={},
            options={"missing": "drop", "positive": ""},
        )

    def width(self, table: Table) -> int:
        """Return the number of weights: one for the intercept, one for a number, all but one of a domain."""
        columns = [table.column(name) for name in self.features]
        return 1 + sum(len(column.domain) - 1 if column.domain else 1 for column in columns)

    def check(self, table: Table, backend: str) -> None:
        super().check(table, backend)
        if (kind := table.column(self.label).type) != "bool":
            message = f"label {self.label!r} is a {kind}, descent with noise takes a bool"
            raise ValueError(f'{message}; sources with release = "exact" take other labels')
        if arrays := [name for name in self.features if table.column(name).type == "array"]:
            raise ValueError(f"feature {arrays[0]!r} is an array, which descent does not take; remove it")
        if (width := self.width(table)) > MAX_WEIGHTS:
            message = f"the model would have {width:,} weights, at most {MAX_WEIGHTS:,} are possible"
            raise ValueError(f"{message}; take features with fewer values")

    def statistics(self, table: Table) -> Mapping[Statistic, Extent]:
        """Return the sum of the persons' clipped gradients and the number of persons, which needs little of the price.

        Of an exact step the sum of the silos' weights, each times its rows, and the number of rows.
        """
        if self.is_exact:
            return {Statistic("weights"): exact(self.width(table)), Statistic("rows"): exact(1)}
        gradients = noised(self.width(table), GRADIENT_UNITS, share=15)
        return {Statistic("gradients"): gradients, Statistic("persons"): noised(1, 1)}
