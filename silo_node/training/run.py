"""How far a silo is in a training run, with the model it holds there; pure, and the same at every silo.

Each silo opens the same sums and moves its model by the same elementwise arithmetic (IEEE 754 doubles), so silos at one
position of a run hold the same weights to the last bit. docs/protocol.md section 11.
"""

from decimal import Decimal
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from crypto.errors import ProtocolError
from crypto.wire import Digest, Message, Name, RoundId, Seconds
from policies.requests.request import Request, job_of
from policies.requests.statistic import width
from policies.requests.training import GRADIENT_UNITS, START, WEIGHT_BITS, Step
from policies.units import MAX_STEPS

Vector = npt.NDArray[np.float64]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class Term(Message):
    """What a weight belongs to: it is multiplied by (value - middle) / half of a column, or of 0 and 1 for a member."""

    name: Annotated[str, Field(max_length=400)]
    middle: _Finite
    half: _Finite


class RunState(Message):
    """A model after so many steps of a run."""

    KIND: ClassVar[str] = "run-state"
    MAX_BYTES: ClassVar[int] = 16 << 20
    MAX_COMMAS: ClassVar[int] = 2**19  # 64 features with 1,000 values each have a term and two numbers a value
    run: RoundId
    job: Digest  # what all steps of the run have in common
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
        """Return log-odds by term, in the units of the columns; the intercept is where every term is 0."""
        found = {term.name: weight / term.half for term, weight in zip(self.terms, self.weights, strict=True)}
        shift = sum(weight * term.middle / term.half for term, weight in zip(self.terms, self.weights, strict=True))
        return found | {self.terms[0].name: self.weights[0] - shift}

    def summary(self) -> dict[str, str | int]:
        """Return what the run was for and how far it is."""
        text = {"run": self.run.hex(), "analyst": self.analyst, "purpose": self.purpose, "table": self.table}
        return {**text, "label": self.label, "release": self.release, "steps": self.steps, "done": self.done}


def position_of(state: RunState | None) -> bytes:
    """Return the report that a state was learned from, and START of no state."""
    return START if state is None else state.position


def check_position(state: RunState | None, request: Request, step: Step) -> None:
    """Raise ProtocolError unless the step is the next one of the run, and the run still asks for the same."""
    if state is not None and state.job != job_of(request):
        raise ProtocolError("this training run began with another request")
    done = 0 if state is None else state.done
    if (step.step, step.after) != (done, position_of(state)):
        raise ProtocolError(f"this silo has learned {done} steps of the run, not the {step.step} before this one")


def weights_of(state: RunState | None, request: Request, step: Step) -> Vector:
    """Return the weights that a step starts from."""
    return np.zeros(width(request, step)) if state is None else np.array(state.weights)


def moved(
    state: RunState | None, request: Request, step: Step, position: bytes, blocks: list[Vector], now: int
) -> RunState:
    """Return the state after a step, from the two blocks of its opened sum, in the units of the request's statistics.

    The step must be the next one (`check_position`). Raises ProtocolError where the weights would not be finite.
    """
    before = weights_of(state, request, step)
    velocity = np.zeros_like(before) if state is None else np.array(state.velocity)
    total, count = blocks[0], float(blocks[1][0])
    if step.is_exact:
        weights = np.ldexp(total, -WEIGHT_BITS) / count if count > 0 else before
    else:
        mean = total * (float(Decimal(step.clip)) / GRADIENT_UNITS) / max(count, 1.0)
        velocity = float(Decimal(step.momentum)) * velocity + mean
        weights = before - float(Decimal(step.learning_rate)) * velocity
    if not (np.isfinite(weights).all() and np.isfinite(velocity).all()):
        raise ProtocolError("the model has diverged; train with a smaller learning_rate")
    return RunState(
        run=step.run,
        job=job_of(request),
        analyst=request.analyst,
        purpose=request.purpose,
        table=request.table.name,
        label=step.label,
        release=step.release,
        steps=step.steps,
        done=step.step + 1,
        position=position,
        learned_at=now,
        terms=tuple(_terms(request, step)),
        weights=tuple(map(float, weights)),
        velocity=tuple(map(float, velocity)),
    )


def _terms(request: Request, step: Step) -> list[Term]:
    terms = [Term(name="(intercept)", middle=0.0, half=1.0)]
    for name in step.features:
        column = request.table.column(name)
        if column.domain:
            terms += [Term(name=f"{name} = {value}", middle=0.0, half=1.0) for value in column.domain[1:]]
        else:
            low, high, grain = column.low or 0, column.high or 0, float(Decimal(column.step or "1"))
            terms.append(Term(name=name, middle=(low + high) / 2 * grain, half=(high - low) / 2 * grain))
    return terms
