"""The state of a silo in a training run, which it keeps between two steps: its position and its model."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from crypto.errors import ProtocolError
from crypto.rounds.messages import RunEnd
from crypto.wire import Digest, Message, Name, RoundId, Seconds
from policies.models.record import RunRecord, without_model
from policies.requests.request import Request, job_of
from policies.requests.training import START
from policies.units import MAX_STEPS, counted
from silo_node.training.family import Fitted
from silo_node.training.kept_audits import AuditedModel
from silo_node.training.raw_numbers import MAX_VECTORS, Numbers, joined, parted

Vector = npt.NDArray[np.float64]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class Term(Message):
    """The input of one weight: (value - middle) / half of a column, or 0 or 1 for a value of a domain."""

    name: Annotated[str, Field(max_length=400)]
    middle: _Finite
    half: _Finite


class Opened(Protocol):
    """An opened sum, block by block, in the units of the request's statistics."""

    def blocks(self) -> list[Vector]:
        """Return the sums as reals."""

    def deviations(self) -> list[float]:
        """Return the standard deviation of the noise in each number of each block, in the units of `blocks`."""

    def whole_blocks(self) -> list[npt.NDArray[np.int64]]:
        """Return the sums of a computation without noise as whole numbers, exactly."""


class FamilyModel(Message):
    """The state of a family, exact or with noise, after a round, or an audit, and what it means to the silo's owner."""

    family: Name
    ended: RunEnd | None = None
    why: Annotated[str, Field(max_length=1000)] = ""
    fitted: Fitted


class RunState(Message):
    """A model after some steps of a run. Its numbers stand beside the message, as raw bytes."""

    KIND: ClassVar[str] = "run-state"
    MAX_BYTES: ClassVar[int] = 16 << 20
    MAX_COMMAS: ClassVar[int] = 2**19  # 64 features with 1,000 values each have a term a value, and a line of a listing
    run: RoundId
    job: Digest  # the hash of the part that all steps of the run share
    analyst: Name
    purpose: Name
    table: Name
    label: Annotated[Name | None, Field(default=None, exclude_if=lambda name: name is None)] = None
    release: str
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    done: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    position: Digest  # SHA-256 of the encrypted report that was learned last
    learned_at: Seconds
    terms: tuple[Term, ...]
    # Of a descent with a learning rate `weights` and `velocity`, of a family what its rounds leave.
    numbers: Annotated[tuple[Numbers, ...], Field(max_length=MAX_VECTORS)]
    # Of every family, which has no terms here; left out of a descent with a learning rate.
    exact: Annotated[FamilyModel | None, Field(default=None, exclude_if=lambda model: model is None)] = None
    # Why a run of any other kind is at its end before its last step, from opened sums alone; left out while it goes on.
    ended_early: Annotated[RunEnd | None, Field(default=None, exclude_if=lambda ended: ended is None)] = None
    # Of a split, which is no model: the secret that divides persons. It is shown to nobody.
    split: Annotated[
        bytes | None, Field(default=None, repr=False, min_length=64, max_length=64, exclude_if=lambda one: one is None)
    ] = None
    # What audits found of this model, one by the same groups; left out without any.
    audits: Annotated[tuple[AuditedModel, ...], Field(exclude_if=lambda audits: not audits)] = ()
    # Of which job it is and who took part; left out of a state that was learned before silos kept it.
    record: Annotated[RunRecord | None, Field(default=None, exclude_if=lambda record: record is None)] = None

    @property
    def weights(self) -> Vector:
        """The weights of a descent with a learning rate; none of any other model."""
        return self._vector("weights")

    @property
    def velocity(self) -> Vector:
        """What a descent with momentum moves by; none of any other model."""
        return self._vector("velocity")

    def _vector(self, name: str) -> Vector:
        held = (one.values for one in self.numbers if one.name == name and self.exact is None)
        return np.asarray(next(held, np.zeros(0)), np.float64)

    @property
    def raw(self) -> bytes:
        """The bytes of all numbers."""
        return joined(self.numbers)

    @property
    def count(self) -> int:
        """How many numbers the state has."""
        return sum(one.length for one in self.numbers)

    def with_raw(self, raw: bytes) -> "RunState":
        """Return the state with its numbers; raises ProtocolError if the bytes are not theirs."""
        return self.model_copy(update={"numbers": parted(self.numbers, raw)})

    @property
    def ended(self) -> RunEnd | None:
        """Why the run is at its end before its last step; None if it goes on."""
        return self.ended_early if self.exact is None else self.exact.ended

    @property
    def is_audit(self) -> bool:
        """Whether it is what an audit found, and no model."""
        return self.exact is not None and self.exact.family == "audit"

    @property
    def is_final(self) -> bool:
        """Whether the run is at its end: no step follows."""
        return self.ended is not None or self.done == self.steps

    @property
    def is_model(self) -> bool:
        """Whether there are weights that predict: a split has none, and a run that found no maximum ends without."""
        return self.split is None and without_model(self.ended) is None

    def coefficients(self) -> dict[str, float]:
        """Return log-odds by term, in the units of the columns; the intercept is for all terms at 0.

        Of a family there are none here: `exact.fitted` has its listings.
        """
        if not self.terms:
            return {}
        weights = self.weights.tolist()
        found = {term.name: weight / term.half for term, weight in zip(self.terms, weights, strict=True)}
        shift = sum(weight * term.middle / term.half for term, weight in zip(self.terms, weights, strict=True))
        return found | {self.terms[0].name: weights[0] - shift}

    def summary(self) -> dict[str, str | int | None]:
        """Return the run's purpose and progress."""
        text = {"run": self.run.hex(), "analyst": self.analyst, "purpose": self.purpose, "table": self.table}
        return {**text, "label": self.label, "release": self.release, "steps": self.steps, "done": self.done}


def state_after(
    request: Request,
    position: bytes,
    now: int,
    terms: Sequence[Term],
    numbers: Mapping[str, npt.ArrayLike],
    exact: FamilyModel | None = None,
    ended: RunEnd | None = None,
) -> RunState:
    """Return a silo's state after a step of any model family; raises ProtocolError if the request is for no step.

    `numbers` are its vectors by name; one with a number that is not finite raises ProtocolError.
    `ended` says why a descent with a learning rate is at its end before its last step.
    """
    step = request.plan.training
    if step is None:
        raise ProtocolError("the request is not for a step of a training run")
    return RunState(
        run=step.run,
        job=job_of(request, step),
        analyst=request.analyst,
        purpose=request.purpose,
        table=request.table.name,
        label=step.label,
        release=step.release,
        steps=step.steps,
        done=step.step + 1,
        position=position,
        learned_at=now,
        terms=tuple(terms),
        numbers=tuple(Numbers.of(name, values) for name, values in sorted(numbers.items())),
        exact=exact,
        ended_early=ended,
    )


def runs_of(request: Request) -> tuple[bytes, ...]:
    """Return the runs whose states a silo needs to contribute: of a step or a judged model, and of a split."""
    step, model, side = request.plan.training, request.plan.judged, request.plan.side
    runs = [one.run for one in (step, model) if one is not None]
    return (*runs, *(() if side is None or side.split is None else (side.split,)))


def position_of(state: RunState | None) -> bytes:
    """Return the report from which a state was learned; START without a state."""
    return START if state is None else state.position


def check_position(state: RunState | None, request: Request) -> None:
    """Raise ProtocolError unless a request is the next step of its run and has the run's job."""
    step = request.plan.training
    if step is None:
        raise ProtocolError("the request is not for a step of a training run")
    if state is not None and state.job != job_of(request, step):
        raise ProtocolError("this training run began with another request")
    done = 0 if state is None else state.done
    if (step.step, step.after) != (done, position_of(state)):
        raise ProtocolError(
            f"this silo has learned {counted(done, 'step')} of the run, not the {step.step} before this one"
        )
