"""A step of a family with noise at a silo: its contribution, and the model after an opened sum. docs/protocol.md 11.

Promise: nothing here is decided by rows but what is added up, so neither a value nor its absence stops, shortens or
fails a round. Silos at the same position of a run have the same state to the last bit.
"""

import numpy as np

from crypto.errors import ProtocolError
from policies.requests.families import Task
from policies.requests.noised import NoisedStep
from policies.requests.noised_families import NOISED_SHAPES
from policies.requests.request import Request
from silo_node.training.best import with_best
from silo_node.training.exact import judged_of, kept_after, kept_state
from silo_node.training.family import Examples
from silo_node.training.grid import Integers, Vector
from silo_node.training.noised.family import Noisy
from silo_node.training.noised.registry import NOISED_FAMILIES
from silo_node.training.run import Opened, RunState


def task_of(request: Request) -> Task:
    """Return the task of a request; raises ProtocolError if it is not a step of a family with noise."""
    if not isinstance(request.plan, NoisedStep):
        raise ProtocolError(f"a step of a family with noise is computed here, not {request.plan.kind}")
    return request.plan.task(request.table)


def contribution(request: Request, examples: Examples, state: RunState | None) -> list[Integers]:
    """Return the silo's blocks in whole units: of these rows, at the state that all silos have."""
    task = task_of(request)
    family = NOISED_FAMILIES[task.family]
    return family.statistics(task, kept_state(state, task, family.init), examples)


def scores(task: Task, state: RunState, examples: Examples) -> Vector:
    """Return what the model says of rows; raises ProtocolError for a family that predicts nothing."""
    return judged_of(task, NOISED_FAMILIES[task.family].judged).scores(task, kept_state(state, task), examples)


def outcomes(task: Task, examples: Examples) -> Vector:
    """Return what is true of rows; raises ProtocolError for a family that predicts nothing."""
    return judged_of(task, NOISED_FAMILIES[task.family].judged).outcomes(task, examples)


def moved(state: RunState | None, request: Request, position: bytes, opened: Opened, now: int) -> RunState:
    """Return the state after a step, from the blocks of its opened sum. The step must be the next one."""
    task = task_of(request)
    family, names = NOISED_FAMILIES[task.family], NOISED_SHAPES[task.family].blocks(task)
    found = zip(names, opened.blocks(), opened.deviations(), strict=True)
    sums = {name: Noisy(values, deviation) for name, values, deviation in found}
    before = kept_state(state, task, family.init)
    with np.errstate(all="ignore"):  # what is not finite ends the run
        after = with_best(request, before, family.update(task, before, sums))
    return kept_after(request, position, now, after, family.finish(task, after))
