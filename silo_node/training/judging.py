"""What rows add to the metrics of a model, and to an audit of it: scored in blocks, so that memory is bounded.

A model of many classes has a score for each of them; no more of these exist at once than `MOST_SCORES`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crypto.errors import ProtocolError
from policies.requests.drifting import score_bins
from policies.requests.families import Task
from policies.requests.metrics import prediction_of
from policies.requests.request import Request
from silo_node.training import auditing
from silo_node.training.evaluation.contributed import contributed
from silo_node.training.family import Examples, Own
from silo_node.training.grid import Integers
from silo_node.training.run import RunState
from silo_node.training.scoring import model_of, predicted, scored

MOST_SCORES = 2**22  # 32 MiB


def judged(
    request: Request, examples: Examples, state: RunState | None, silo: str, own: Own | None = None
) -> list[Integers]:
    """Return the sums of the metrics of a model, by these rows and what the silo keeps of it.

    Raises ProtocolError without the model.
    """
    known, task = _known(state), model_of(request).task(request.table)
    if prediction_of(task) == "order":  # which compares rows with each other
        return contributed(request, examples, *scored(request, known, examples, own), silo)
    found = list[Integers]()
    for block in _blocks(task, examples):
        part = contributed(request, block, *scored(request, known, block, own), silo)
        found = [one + other for one, other in zip(found, part, strict=True)] if found else part
    return found


def audited(request: Request, examples: Examples, state: RunState | None, own: Own | None = None) -> list[Integers]:
    """Return the counts of an audit, by these rows and the model that it is of; raises ProtocolError without it."""
    known = _known(state)
    if auditing.step_of(request).groups:
        return auditing.contribution(request, examples, *scored(request, known, examples, own))
    task = model_of(request).task(request.table)
    bins = score_bins(task)
    places = [bins.places(predicted(request, known, block, own)) for block in _blocks(task, examples)]
    return auditing.drift_contribution(request, examples, np.concatenate(places))


def _known(state: RunState | None) -> RunState:
    if state is None:
        raise ProtocolError("the model that is judged is not known here")
    return state


def _blocks(task: Task, examples: Examples) -> Iterator[Examples]:
    """Yield the rows in blocks, at least one; views, not copies."""
    classes = len(task.groups) if prediction_of(task) == "classes" else 1
    size = max(1, MOST_SCORES // max(1, classes))
    if examples.rows <= size:
        yield examples
        return
    for first in range(0, examples.rows, size):
        rows = slice(first, first + size)
        yield replace(
            examples,
            person=examples.person[rows],
            cells=_some(examples.cells, rows),
            missing=_some(examples.missing, rows),
            arrays=_some(examples.arrays, rows),
        )


def _some(arrays: Mapping[str, npt.NDArray[Any]], rows: slice) -> dict[str, npt.NDArray[Any]]:
    return {name: one[rows] for name, one in arrays.items()}
