"""The rules of [training.networks]: which networks are trained or judged here, and what a round of one may take.

Promise: weights, operations and bytes follow from the request and the policy alone (`policies.networks.demand`), so no
denial depends on rows; none is read before the limits hold.
"""

from collections.abc import Iterator, Sequence

from policies.decision.case import Case
from policies.decision.denial_codes import deny
from policies.document.networks import MOST_FLOPS, MOST_WEIGHTS, Networks
from policies.networks.bounds import dearest, largest
from policies.networks.demand import MB, Demand, Rounds, demand_of
from policies.networks.graph import Graph
from policies.networks.names import PACKED
from policies.requests.capacity import rows_of
from policies.requests.denials import Denial
from policies.requests.exact import FamilyStep
from policies.requests.network_steps import network_of
from policies.requests.networks import graph_of
from policies.requests.request import Request
from policies.units import ROWS_UP_TO

_SECTION = "training.networks"
_OF_ITS_OWN = frozenset({"ditto"})  # algorithms that train a model beside the shared one


def rounds_of(request: Request, step: FamilyStep, rows_up_to: int | None) -> Rounds:
    """Return what a request and a source say of a round of training, or of a judgement, which computes rows once."""
    options, is_judged = step.settings, request.plan.judged is not None
    return Rounds(
        rows_of(rows_up_to),
        rows_up_to is not None,
        epochs=0 if is_judged else int(options.get("epochs", "1")),
        batch=int(options.get("batch", "1")),
        models=2 if options.get("algorithm") in _OF_ITS_OWN and not is_judged else 1,
        is_private=step.release == "private",
    )


def networks(case: Case) -> Sequence[Denial]:
    """Is the network one that this silo trains, and does a round of it take no more than the policy allows?"""
    step = network_of(case.request)
    if step is None or case.policy.training is None:
        return ()
    allowed = case.policy.training.networks
    if allowed is None:
        remedy = f"train another family, or {case.compiled.ask_contact} for [{_SECTION}]"
        return (deny("NETWORK_CLOSED", _SECTION, f"no network is trained here, and {step.family} is one", remedy),)
    if step.family == PACKED and (closed := _packed(case, allowed, step)) is not None:
        return (closed,)
    task, rows_up_to = step.task(case.request.table), case.source.source.rows_up_to
    try:
        step.check(case.request.table, case.request.backend)  # of a packed network only now: its file is here
    except ValueError as err:
        message = f"the network does not fit the request: {str(err)[:600]}"
        return (deny("NETWORK_UNKNOWN", _SECTION, message, "mend the job, or pack a network that fits the columns"),)
    graph = graph_of(task)
    found = demand_of(graph, rounds_of(case.request, step, rows_up_to))
    return tuple(_above(case, allowed, graph, found, rows_up_to))


def _packed(case: Case, allowed: Networks, step: FamilyStep) -> Denial | None:
    """Return why a packed file is not trained: its hash is not approved, or the silo has no file of it."""
    name = step.settings["graph"]
    if allowed.allow == "registered" or (allowed.allow == "approved" and name not in case.approved):
        people = ", ".join(case.policy.people) or "nobody in [people] yet"
        message = f"the packed network {name} is not approved here"
        if allowed.allow == "registered":
            message = f"packed networks are not trained here, such as {name}"
        remedy = f"train a family that is shipped, or {case.compiled.ask_contact} to approve it ({people})"
        return deny("NETWORK_CLOSED", f"{_SECTION}.allow", message, remedy)
    if step.graph is None:
        message = f"this silo has no packed file whose hash is {name}"
        remedy = (
            "name the file in the job, so that it is sent before the run; or its owner adds it: consilo-silo model add"
        )
        return deny("NETWORK_UNKNOWN", _SECTION, message, remedy)
    return None


def _above(case: Case, allowed: Networks, graph: Graph, found: Demand, rows_up_to: int | None) -> Iterator[Denial]:
    """Yield each limit that a round would exceed."""
    contact = case.compiled.ask_contact
    if found.weights > allowed.max_weights:
        message = f"the network has {found.weights:,} weights, at most {allowed.max_weights:,} are trained here"
        owner = f", or {contact} for max_weights = {found.weights}" if found.weights <= MOST_WEIGHTS else ""
        yield deny("MAX_WEIGHTS", f"{_SECTION}.max_weights", message, f"take a smaller network{owner}")
    rows = f"{rows_of(rows_up_to):,} rows"
    stated = f"; or its owner states rows_up_to of {case.request.table.name}, which is unstated"
    stated = stated if rows_up_to is None or rows_up_to > ROWS_UP_TO else ""
    if found.flops > allowed.max_flops:
        message = (
            f"a round of {rows} may take {found.flops:,} operations, most of them at {dearest(graph)}, "
            f"at most {allowed.max_flops:,} are computed"
        )
        owner = f", or {contact} for max_flops = {found.flops}" if found.flops <= MOST_FLOPS else ""
        remedy = f"take fewer epochs or a smaller network{owner}{stated}"
        yield deny("MAX_FLOPS", f"{_SECTION}.max_flops", message, remedy)
    if found.memory_bytes > allowed.max_memory_mb * MB:
        message = (
            f"a round of {rows} may take {found.memory_mb:,} MB, most of what is computed at {largest(graph)}, "
            f"at most {allowed.max_memory_mb:,} are given to one"
        )
        remedy = f"take smaller batches or a smaller network, or {contact} for max_memory_mb = {found.memory_mb}"
        yield deny("MAX_MEMORY", f"{_SECTION}.max_memory_mb", message, remedy)
