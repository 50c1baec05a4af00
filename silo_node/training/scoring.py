"""The predictions of a model that a silo has learned, beside what is true: one entry for each kind of step.

A model is scored by its family's `Judged` and by nothing else of it. docs/protocol.md section 11.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from crypto.errors import ProtocolError
from policies.models.record import without_model
from policies.requests.families import Task
from policies.requests.judged import JudgedModel, definition_of
from policies.requests.request import Request
from policies.units import counted
from silo_node.training import exact, logistic_model
from silo_node.training.family import Examples, Own
from silo_node.training.grid import Vector
from silo_node.training.noised import step as noised
from silo_node.training.run import RunState

# The task, the state, rows and what the silo keeps: what the model says of each row, as `Judged` of a family has it.
Score = Callable[[Task, RunState, Examples, Own], Vector]
Outcome = Callable[[Task, Examples], Vector]

SCORES: Mapping[str, tuple[Score, Outcome]] = MappingProxyType(
    {
        "exact-step": (exact.scores, exact.outcomes),
        "noised-step": (lambda task, state, examples, own: noised.scores(task, state, examples), noised.outcomes),
        "logistic-regression": (
            lambda task, state, examples, own: logistic_model.scores(task, state, examples),
            logistic_model.outcomes,
        ),
    }
)


def model_of(request: Request) -> JudgedModel:
    """Return the model that a request judges; raises ProtocolError if it judges none."""
    if request.plan.judged is None:
        raise ProtocolError(f"a {request.plan.kind} judges no model")
    return request.plan.judged


def predicted(request: Request, state: RunState, examples: Examples, own: Own | None = None) -> Vector:
    """Return the scores of rows by the model that a request judges, and what the silo keeps of it; no label is read."""
    model = model_of(request)
    return SCORES[model.step.kind][0](model.task(request.table), state, examples, Own() if own is None else own)


def scored(request: Request, state: RunState, examples: Examples, own: Own | None = None) -> tuple[Vector, Vector]:
    """Return the scores and outcomes of rows by the model that a request judges, and what the silo keeps of it."""
    task = model_of(request).task(request.table)
    return predicted(request, state, examples, own), SCORES[model_of(request).step.kind][1](task, examples)


def check_judged(request: Request, load_run: Callable[[bytes], RunState | None]) -> RunState | None:
    """Return the state of the model that a request judges, None if it judges none.

    Raises ProtocolError unless this silo has learned that model, at that position and with these columns.
    """
    model = request.plan.judged
    if model is None:
        return None
    state = load_run(model.run)
    if state is None:
        raise ProtocolError(f"this silo has learned no step of the run {model.run.hex()}")
    if state.position != model.position:
        raise ProtocolError(
            f"this silo has learned {counted(state.done, 'step')} of the run, and another one last than is judged"
        )
    known = None if state.record is None else state.record.plan.training
    if state.record is None or known is None:
        message = "the model was learned by an earlier version, which kept no record of it"
        raise ProtocolError(message, "train it anew")
    if definition_of(state.record.table, known) != definition_of(request.table, model.step):
        message = "the model was learned from other columns, definitions or options than it is judged by"
        raise ProtocolError(message, "judge it by a table whose columns are defined as those that it was learned from")
    if not state.is_model:
        remedy = without_model(state.ended) or "judge a model: this run made a split"
        raise ProtocolError("the run has ended without a model", remedy)
    if request.plan.training is not None and request.analyst != state.analyst:
        # The audit is kept beside the model.
        raise ProtocolError("the model is another analyst's, who alone has it audited", "let that analyst ask")
    return state
