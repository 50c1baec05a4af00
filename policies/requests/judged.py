"""Which model a request judges: a run, and the report that it was learned from last.

Promise: all silos that answer judge one model. The request has the first step of the model's run, so its columns,
options and family follow from what the analyst signed; a silo compares them, and the definitions of the columns, with
what it has learned (`definition_of`). docs/protocol.md section 11.
"""

from hashlib import sha256
from typing import Annotated

from pydantic import Field, model_validator

from crypto.wire import MAX_SILOS, Digest, Message, Name
from policies.requests.exact import ExactStep
from policies.requests.families import Task
from policies.requests.held_out import HeldOut, Side
from policies.requests.logistic import LogisticStep
from policies.requests.noised import NoisedStep
from policies.requests.tables import Table
from policies.requests.training import START, TrainingStep
from policies.units import ColumnRole

# Steps of models that are judged; each has a task.
AnyStep = Annotated[ExactStep | NoisedStep | LogisticStep, Field(discriminator="kind")]
_CONTEXT = b"consilo/1 definition of a model"


class JudgedModel(Message):
    """A model at one position of its run."""

    position: Digest  # SHA-256 of the encrypted report that it was learned from last
    step: AnyStep  # the first of the run
    # The silos that are judged by their own rows too, in slots of their own in the common sum.
    own: Annotated[tuple[Name, ...], Field(default=(), max_length=MAX_SILOS, exclude_if=lambda own: not own)] = ()

    @model_validator(mode="after")
    def _check(self) -> "JudgedModel":
        if self.step.step or self.position == START:
            raise ValueError("a judged model has the first step of its run, and the report that it was learned from")
        if list(self.own) != sorted(set(self.own)):
            raise ValueError("silos that are judged by their own rows are in order, each once")
        return self

    def __str__(self) -> str:
        own = f"; {', '.join(self.own)} alone too" if self.own else ""
        return f"the run {self.run.hex()}, a {self.step.opened_as}, after the report {self.position.hex()}{own}"

    @property
    def run(self) -> bytes:
        return self.step.run

    def task(self, table: Table) -> Task:
        """Return what the family's computation reads of the model's step."""
        return self.step.task(table)

    def uses(self) -> dict[ColumnRole, tuple[Name, ...]]:
        """Return the columns that the model is judged by, by their roles, but who is held out."""
        return {role: names for role, names in self.step.uses().items() if role != "held_out"}


def check_judges(model: JudgedModel, held_out: HeldOut | None) -> None:
    """Raise ValueError unless a model is judged by those whom its own run held out, or by all rows."""
    if held_out not in (None, model.step.held_out):
        raise ValueError("a model is judged by those whom its own run held out, or by all rows")


def judges(held_out: HeldOut | None) -> Side | None:
    """Return the side of persons whose rows judge a model; None: those of all."""
    return None if held_out is None else Side(held_out, is_held_out=True)


def definition_of(table: Table, step: TrainingStep) -> bytes:
    """Return the hash of what a model means: its first step, and the definitions of its columns, of whatever table."""
    used = (name for role, names in step.uses().items() if role != "held_out" for name in names)
    columns = b"".join(table.column(name).encode() for name in used)
    return sha256(_CONTEXT + sha256(step.first().encode()).digest() + columns).digest()
