"""Which requests are computed by a network: steps of training one, and judgements of a model that is one."""

from policies.networks.names import NETWORKS
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
