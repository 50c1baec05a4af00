"""A step of an exact family at a silo: its contribution, and the model after an opened sum: docs/protocol.md 11.

Promise: silos at the same position of a run have the same state to the last bit, since each opens the same whole
numbers and updates its state by the same arithmetic. numpy alone is loaded: no torch on this path.
"""

from collections.abc import Callable

from crypto.errors import ProtocolError
from policies.requests.exact import ExactStep
from policies.requests.families import SHAPES, Task
from policies.requests.request import Request
from silo_node.training.best import with_best
from silo_node.training.family import Contribution, Examples, Fitted, Judged, Own, State
from silo_node.training.grid import Integers, Vector
from silo_node.training.registry import FAMILIES
from silo_node.training.run import FamilyModel, Opened, RunState, state_after


def task_of(request: Request) -> Task:
    """Return the task of a request; raises ProtocolError if it is not a step of an exact family."""
    if not isinstance(request.plan, ExactStep):
        raise ProtocolError(f"a step of an exact family is computed here, not {request.plan.kind}")
    return request.plan.task(request.table)


def contribution(request: Request, examples: Examples, state: RunState | None) -> list[Integers]:
    """Return the silo's blocks in whole units: of these rows, at the state that all silos have."""
    return list(contributed(request, examples, state, Own()).blocks)


def contributed(request: Request, examples: Examples, state: RunState | None, own: Own) -> Contribution:
    """Return the silo's blocks in whole units, and what it keeps for itself, beside what it kept before."""
    task = task_of(request)
    family = FAMILIES[task.family]
    before = kept_state(state, task, family.init)
    if family.keeping is None:
        return Contribution(family.statistics(task, before, examples))
    return family.keeping.contribution(task, before, examples, own)


def moved(state: RunState | None, request: Request, position: bytes, opened: Opened, now: int) -> RunState:
    """Return the state after a step, from the blocks of its opened sum. The step must be the next one."""
    task = task_of(request)
    family, names = FAMILIES[task.family], SHAPES[task.family].blocks(task)
    sums = dict(zip(names, opened.whole_blocks(), strict=True))
    before = kept_state(state, task, family.init)
    after = with_best(request, before, family.update(task, before, sums))
    return kept_after(request, position, now, after, family.finish(task, after))


def kept_after(request: Request, position: bytes, now: int, after: State, fitted: Fitted) -> RunState:
    """Return what a silo keeps after a step of a family, whose state and figures these are."""
    model = FamilyModel(family=request.plan.opened_as, ended=after.ended, why=after.why, fitted=fitted)
    return state_after(request, position, now, (), after.numbers, model)


def scores(task: Task, state: RunState, examples: Examples, own: Own) -> Vector:
    """Return what the model says of rows, and what the silo keeps of it; raises ProtocolError without a prediction."""
    family = FAMILIES[task.family]
    judged, before = judged_of(task, family.judged), kept_state(state, task)
    if family.keeping is None:
        return judged.scores(task, before, examples)
    return family.keeping.scores(task, before, examples, own)


def outcomes(task: Task, examples: Examples) -> Vector:
    """Return what is true of rows; raises ProtocolError for a family that predicts nothing."""
    return judged_of(task, FAMILIES[task.family].judged).outcomes(task, examples)


def judged_of(task: Task, judged: Judged | None) -> Judged:
    """Return how a family's predictions are judged; raises ProtocolError where there is nothing to judge."""
    if judged is None:
        raise ProtocolError(f"{task.family} predicts nothing of a row")
    return judged


def kept_state(state: RunState | None, task: Task, init: Callable[[Task], State] = lambda task: State()) -> State:
    """Return a family's state from what the silo has kept; raises ProtocolError if that is of another family."""
    if state is None:
        return init(task)
    model = state.exact
    if model is None or model.family != task.family:
        raise ProtocolError(f"the run has no model of the family {task.family}")
    return State({one.name: one.values for one in state.numbers}, model.ended, model.why)
