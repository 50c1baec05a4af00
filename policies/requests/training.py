"""One step of a training run, as it stands in the analyst's signed request: one secure sum, one charge.

A run is a chain: each step names the encrypted report of the step before, so whoever follows it holds one and the same
model at the same step. The model is a vector of weights, all 0 at the start: the intercept, then for every feature in
order one weight for a number or a bool, centred and scaled to [-1, 1] by its bounds, and one for each value of a domain
but the first. docs/protocol.md section 11.
"""

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from crypto.wire import Digest, Message, Name, RoundId
from policies.units import MAX_STEPS

MAX_FEATURES = 64
GRADIENT_UNITS = 2**20  # in the clip norm: a person's clipped gradient is made of whole units
WEIGHT_BITS = 30  # fractional bits of a weight in a sum without noise
START = bytes(32)  # what the first step names as the report before it

Positive = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,9})?$")]


class Step(Message):
    """One step of logistic regression of a bool column, between silos that all hold the same model.

    With release "private" the sum holds the gradients of all persons, each clipped to the L2 norm `clip`, and with
    noise how many persons they are; the model then moves by `learning_rate` against their mean, with `momentum`
    (Polyak 1964). With release "exact" each silo takes `local_steps` steps of its own and the sum averages the models
    by rows (McMahan et al., AISTATS 2017).
    """

    kind: Literal["logistic-regression"] = "logistic-regression"
    run: RoundId
    step: Annotated[int, Field(ge=0, lt=MAX_STEPS)]
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    after: Digest  # SHA-256 of the encrypted report of the step before
    release: Literal["private", "exact"]
    label: Name
    features: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_FEATURES)]
    learning_rate: Positive
    momentum: Positive = "0"
    clip: Positive
    local_steps: Annotated[int, Field(ge=1, le=1000)] = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.step >= self.steps or (self.step == 0) != (self.after == START):
            raise ValueError("step must be below steps, and follow a report unless it is the first")
        if len({*self.features, self.label}) != len(self.features) + 1:
            raise ValueError("a column is used twice")
        if not Decimal(self.learning_rate) or Decimal(self.momentum) >= 1:
            raise ValueError("learning_rate must be above 0, momentum below 1")
        if self.is_exact and (Decimal(self.clip) or Decimal(self.momentum)):
            raise ValueError("an exact step has no clip and no momentum")
        if not self.is_exact and (not Decimal(self.clip) or self.local_steps != 1):
            raise ValueError("a private step needs a clip, and is one step")
        return self

    @property
    def is_exact(self) -> bool:
        return self.release == "exact"
