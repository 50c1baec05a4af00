"""Steps of the model families that a policy opens about a table, as `consilo-silo doctor` times them; never sent.

Of each family the first round and the one after it: the first sums moments, later ones what moves the model. The state
between them follows from the silo's own sums alone, and is thrown away.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import product

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from crypto.errors import CryptoError
from policies.document.columns import Source as DeclaredSource
from policies.document.policy import Policy
from policies.requests.exact import ExactStep, Setting
from policies.requests.families import Kind, Shape, kind_of
from policies.requests.logistic import MAX_WEIGHTS
from policies.requests.noised import NoisedStep
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from policies.requests.training import MAX_FEATURES, START
from silo_node.data.figures import Vectors
from silo_node.training.models import MODELS
from silo_node.training.run import RunState, Vector

Columns = Mapping[str, TableColumn]
Step = ExactStep | NoisedStep
Kinds = type[ExactStep] | type[NoisedStep]
Labelled = tuple[str | None, Mapping[str, str]]  # a label, and further columns by what they are
Ask = Callable[[str, Step, Sequence[TableColumn]], Request]  # by a purpose; raises ValidationError if none can
_POSITION = sha256(b"consilo/1 a round that was timed").digest()
_STEPS = 3  # planned, of a family of more than one round


class OwnSum:
    """A silo's own part in place of an opened sum."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def blocks(self) -> list[Vector]:
        return [vector.astype(np.float64) for vector in self._vectors]

    def deviations(self) -> list[float]:
        """Return that of the noise in each block: there is none."""
        return [0.0] * len(self._vectors)

    def whole_blocks(self) -> list[npt.NDArray[np.int64]]:
        return [vector.astype(np.int64, copy=False) for vector in self._vectors]


def first_rounds(policy: Policy, source: DeclaredSource, opened: Columns, ask: Ask) -> Iterator[Request]:
    """Yield the first round of each family that the policy opens about a source, on as many features as fit."""
    kind: Kinds = ExactStep if source.release == "exact" else NoisedStep
    if policy.training is None:
        return
    for family, shape in kind.shapes.items():
        purposes = [key for key, one in policy.purposes.items() if family in one.computations]
        if not purposes:
            continue
        purpose = max(purposes, key=lambda key: policy.purposes[key].consent != "none")
        asked = (_asked(ask, purpose, kind, family, one, source, opened) for one in _labelled(shape, source, opened))
        if (request := next(filter(None, asked), None)) is not None:
            yield request


def round_after(first: Request, vectors: Vectors, now: int) -> tuple[Request, RunState] | None:
    """Return the round after a first one whose sums are the silo's own, and the state before it; None if none is."""
    step = first.plan.training
    if step is None or step.steps == 1:
        return None
    try:
        state = MODELS[first.plan.kind](None, first, _POSITION, OwnSum(vectors), now)
    except (CryptoError, ValueError, ArithmeticError):
        return None  # such as too few rows for a model
    if state.ended is not None:
        return None
    following = step.model_copy(update={"step": 1, "after": _POSITION})
    return first.model_copy(update={"plan": following}), state


def _asked(
    ask: Ask, purpose: str, kind: Kinds, family: str, columns: Labelled, source: DeclaredSource, opened: Columns
) -> Request | None:
    """Return a request for the first round with this label; None if none can ask it."""
    with suppress(ValidationError, ValueError):
        return ask(purpose, *_first(kind, family, columns, source, opened))
    return None


def _labelled(shape: Shape, source: DeclaredSource, opened: Columns) -> Iterator[Labelled]:
    """Yield labels, and further columns that the family needs, all different; the first that fit are taken."""
    labels: list[str | None] = [*_of(shape.labels, "label", source, opened)] if shape.labels else [None]
    if shape.labels and not shape.is_label_needed:
        labels.append(None)
    needed = {name: part for name, part in shape.parts.items() if part.is_needed}
    choices = [_of(part.kinds, part.role, source, opened) for part in needed.values()]
    for label, *parts in product(labels, *choices):
        if len({label, *parts}) == 1 + len(parts):
            yield label, dict(zip(needed, map(str, parts), strict=True))


def _of(kinds: frozenset[Kind], role: str, source: DeclaredSource, opened: Columns) -> list[str]:
    """Return the columns of some kinds that the policy opens in a role, truth values first."""
    fitting = [key for key, one in opened.items() if role in source.columns[key].roles and kind_of(one) in kinds]
    return sorted(fitting, key=lambda key: kind_of(opened[key]) != "bool")


def _first(
    kind: Kinds, family: str, columns: Labelled, source: DeclaredSource, opened: Columns
) -> tuple[Step, list[TableColumn]]:
    (label, parts), shape, features, width = columns, kind.shapes[family], list[str](), 1
    for key in sorted(opened, key=lambda key: len(opened[key].domain)):
        is_array = opened[key].type == "array"
        more = 0 if is_array else max(1, len(opened[key].domain) - 1)
        fits = shape.fits(kind_of(opened[key])) and not (is_array and any(opened[one].shape for one in features))
        is_free = key != label and key not in parts.values() and "feature" in source.columns[key].roles
        if fits and is_free and width + more <= MAX_WEIGHTS and len(features) < MAX_FEATURES:
            features.append(key)
            width += more
    chosen = features if shape.least_features else []
    step = kind(
        run=sha256(family.encode()).digest()[:16],
        step=0,
        steps=shape.rounds or _STEPS,
        after=START,
        label=label,
        features=tuple(chosen),
        family=family,
        parts=tuple(Setting(name=name, value=column) for name, column in sorted(parts.items())),
    )
    used = dict.fromkeys(name for name in (label, *parts.values(), *chosen) if name is not None)
    return step, [opened[key] for key in used]
