"""The weights that a run of a network begins with, where its request names a model that this silo holds.

docs/networks.md, "Jobs and runs".
"""

from collections.abc import Callable

import numpy as np

from crypto.errors import ProtocolError
from policies.models.record import without_model
from policies.requests.beginning import Begins, Begun
from policies.requests.exact import FamilyStep
from policies.requests.networks import shared_of
from policies.requests.request import Request
from silo_node.training.grid import Vector
from silo_node.training.run import RunState


def with_begun(request: Request, load_run: Callable[[bytes], RunState | None]) -> Request:
    """Return a first step with the weights that its run begins with; the same request where it names no model.

    Raises ProtocolError if this silo does not hold that model, or it is one of another network or other columns.
    """
    step = request.plan.training
    if not isinstance(step, FamilyStep) or step.begins is None or step.step:
        return request
    begun = Begun(_weights(load_run(step.begins.run), step.begins, request, step))
    return request.model_copy(update={"plan": step.model_copy(update={"begun": begun})})


def _weights(state: RunState | None, begins: Begins, request: Request, step: FamilyStep) -> Vector:
    name, remedy = begins.run.hex(), "begin with a run of the same network, label and features, or remove begins"
    if state is None:
        raise ProtocolError(f"this silo has no model of run {name}", "begin with a run whose model it holds")
    if state.position != begins.position:
        raise ProtocolError(
            f"this silo's model of run {name} is of another round", "wait until it has learned the last"
        )
    if not state.is_model:
        raise ProtocolError(f"run {name} has ended without a model", without_model(state.ended) or remedy)
    known = None if state.record is None else state.record.plan
    if state.record is None or not isinstance(known, FamilyStep):
        raise ProtocolError(f"run {name} is not of a network", remedy)
    before, after = known.model_copy(update={"graph": step.graph}).task(state.record.table), step.task(request.table)
    if before.family != after.family or (before.features, before.label) != (after.features, after.label):
        raise ProtocolError(f"run {name} is of another network, label or features than the job", remedy)
    shapes = [[(weight.name, weight.shape) for weight in shared_of(task)] for task in (before, after)]
    if shapes[0] != shapes[1]:
        raise ProtocolError(f"the network of run {name} has other weights than that of the job", remedy)
    return np.array(next(one.values for one in state.numbers if one.name == "weights"), np.float64)
