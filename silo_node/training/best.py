"""The best model of a run beside the last one: the weights after the round that its analyst's metric liked most.

Each later step says whether the model before it is the best so far, so all silos keep the same. Of the last round no
step follows; whoever trained the model is told whether that was the best. docs/networks.md, "Jobs and runs".
"""

import numpy as np

from policies.requests.exact import FamilyStep
from policies.requests.request import Request
from silo_node.errors import SiloError
from silo_node.training.family import State
from silo_node.training.run import RunState

_WEIGHTS, _BEST, _ROUND = "weights", "best", "best_round"


def with_best(request: Request, before: State, after: State) -> State:
    """Return the state after a step, which keeps the weights before it where the step says that these are the best."""
    step = request.plan.training
    if not isinstance(step, FamilyStep) or not step.is_best or _WEIGHTS not in before.numbers:
        return after
    return after.with_(**{_BEST: before[_WEIGHTS], _ROUND: np.array([step.step])})


def best_round(state: RunState) -> int | None:
    """Return after how many rounds the model was best; None where the silo keeps no other than the last."""
    return next((int(one.values[0]) for one in state.numbers if one.name == _ROUND), None)


def at_best(state: RunState) -> RunState:
    """Return the state with the best weights in the place of the last ones; raises SiloError where it has none.

    What audits found is of the last model, so it has none of them.
    """
    best = next((one for one in state.numbers if one.name == _BEST), None)
    if best is None:
        hint = "leave --best out, or train with [metric], by which rounds are compared"
        raise SiloError(f"run {state.run.hex()[:12]} has no other model than its last", hint)
    found = [best.model_copy(update={"name": _WEIGHTS}) if one.name == _WEIGHTS else one for one in state.numbers]
    return state.model_copy(update={"numbers": tuple(found), "audits": ()})
