"""Which requests are computed by a network: steps of training one, and judgements of a model that is one."""

from policies.networks.names import NETWORKS, PACKED
from policies.networks.packed import Packed
from policies.requests.exact import FamilyStep
from policies.requests.request import Request

LOADED_AS = "network"  # what such a request needs loaded, beside the kinds of computations


def network_of(request: Request) -> FamilyStep | None:
    """Return the step whose network a request trains or judges; None where it does neither."""
    plan = request.plan
    step = plan.training if plan.judged is None else plan.judged.step
    return step if isinstance(step, FamilyStep) and step.family in NETWORKS else None


def loaded_as(request: Request) -> str:
    """Return what a request needs loaded: a network, or what its kind of computation needs."""
    return request.plan.kind if network_of(request) is None else LOADED_AS


def packed_name(request: Request) -> str | None:
    """Return the name of the packed network that a request trains or judges; None where it needs none."""
    step = network_of(request)
    return None if step is None or step.family != PACKED else step.settings["graph"]


def with_network(request: Request, found: Packed | None) -> Request:
    """Return a request with the packed network that it names, where there is one."""
    step, plan = network_of(request), request.plan
    if step is None or found is None or step.family != PACKED:
        return request
    known = step.model_copy(update={"graph": found})
    if plan.judged is None:
        return request.model_copy(update={"plan": known})
    judged = plan.judged.model_copy(update={"step": known})
    return request.model_copy(update={"plan": plan.model_copy(update={"model": judged})})
