"""The state of a silo in a training run, which it keeps between two steps: its position and its model."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from crypto.errors import ProtocolError
from crypto.wire import Digest, Message, Name, RoundId, Seconds
from policies.requests.request import Request, job_of
from policies.requests.training import START
from policies.units import MAX_STEPS

Vector = npt.NDArray[np.float64]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class Term(Message):
    """The input of one weight: (value - middle) / half of a column, or 0 or 1 for a value of a domain."""

    name: Annotated[str, Field(max_length=400)]
    middle: _Finite
    half: _Finite


class RunState(Message):
    """A model after some steps of a run."""

    KIND: ClassVar[str] = "run-state"
    MAX_BYTES: ClassVar[int] = 16 << 20
    MAX_COMMAS: ClassVar[int] = 2**19  # 64 features with 1,000 values each have a term and two numbers a value
    run: RoundId
    job: Digest  # the hash of the part that all steps of the run share
    analyst: Name
    purpose: Name
    table: Name
    label: Name
    release: str
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    done: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    position: Digest  # SHA-256 of the encrypted report that was learned last
    learned_at: Seconds
    terms: tuple[Term, ...]
    weights: tuple[_Finite, ...]
    velocity: tuple[_Finite, ...]

    def coefficients(self) -> dict[str, float]:
        """Return log-odds by term, in the units of the columns; the intercept is for all terms at 0."""
        found = {term.name: weight / term.half for term, weight in zip(self.terms, self.weights, strict=True)}
        shift = sum(weight * term.middle / term.half for term, weight in zip(self.terms, self.weights, strict=True))
        return found | {self.terms[0].name: self.weights[0] - shift}

    def summary(self) -> dict[str, str | int]:
        """Return the run's purpose and progress."""
        text = {"run": self.run.hex(), "analyst": self.analyst, "purpose": self.purpose, "table": self.table}
        return {**text, "label": self.label, "release": self.release, "steps": self.steps, "done": self.done}


def state_after(
    request: Request, position: bytes, now: int, terms: Sequence[Term], weights: Vector, velocity: Vector
) -> RunState:
    """Return a silo's state after a step of any model family; raises ProtocolError if a number is not finite."""
    step = request.plan.training
    if step is None:
        raise ProtocolError("the request is not for a step of a training run")
    if not (np.isfinite(weights).all() and np.isfinite(velocity).all()):
        raise ProtocolError("the model has diverged; train with a smaller learning_rate")
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
        weights=tuple(map(float, weights)),
        velocity=tuple(map(float, velocity)),
    )


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
        raise ProtocolError(f"this silo has learned {done} steps of the run, not the {step.step} before this one")
