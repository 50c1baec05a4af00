"""The pure function of networks: from rows, a state and what a silo keeps to its blocks of a round.

The same in the silo's own process (simulate) and in the confined one (`silo_node.training.confined.apart`).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from crypto.errors import ProtocolError
from silo_node.training import auditing, exact
from silo_node.training.confined.work import Done, Work
from silo_node.training.evaluation.contributed import contributed
from silo_node.training.noised import step as noised
from silo_node.training.scoring import predicted, scored


def _stepped(work: Work) -> Done:
    found = exact.contributed(work.request, work.examples, work.state, work.own)
    return Done(found.blocks, found.own)


def _noised(work: Work) -> Done:
    return Done(noised.contribution(work.request, work.examples, work.state))


def _judged(work: Work) -> Done:
    if work.state is None:
        raise ProtocolError("the model that is judged is not known here")
    scores, outcomes = scored(work.request, work.state, work.examples, work.own)
    return Done(contributed(work.request, work.examples, scores, outcomes, work.silo))


def _audited(work: Work) -> Done:
    if work.state is None:
        raise ProtocolError("the model that is audited is not known here")
    if not auditing.step_of(work.request).groups:
        found = predicted(work.request, work.state, work.examples, work.own)
        return Done(auditing.drift_contribution(work.request, work.examples, found))
    scores, outcomes = scored(work.request, work.state, work.examples, work.own)
    return Done(auditing.contribution(work.request, work.examples, scores, outcomes))


_BY_KIND: Mapping[str, Callable[[Work], Done]] = MappingProxyType(
    {"exact-step": _stepped, "noised-step": _noised, "evaluation": _judged, "audit-step": _audited}
)


def computed(work: Work) -> Done:
    """Return what comes of a work; raises ProtocolError for a request that no network answers."""
    kind = _BY_KIND.get(work.request.plan.kind)
    if kind is None:
        raise ProtocolError(f"no network answers a {work.request.plan.kind}")
    return kind(work)
