"""The pure function of networks: from rows, a state and what a silo keeps to its blocks of a round.

The same in the silo's own process (simulate) and in the confined one (`silo_node.apart.process`).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from crypto.errors import ProtocolError
from silo_node.apart.work import Done, Vectors, Work
from silo_node.training import auditing, exact
from silo_node.training.evaluation.contributed import contributed
from silo_node.training.noised import step as noised
from silo_node.training.scoring import scored


def _stepped(work: Work) -> Vectors:
    return exact.contribution(work.request, work.examples, work.state)


def _noised(work: Work) -> Vectors:
    return noised.contribution(work.request, work.examples, work.state)


def _judged(work: Work) -> Vectors:
    if work.state is None:
        raise ProtocolError("the model that is judged is not known here")
    return contributed(work.request, work.examples, *scored(work.request, work.state, work.examples), work.silo)


def _audited(work: Work) -> Vectors:
    if work.state is None:
        raise ProtocolError("the model that is audited is not known here")
    return auditing.contribution(work.request, work.examples, *scored(work.request, work.state, work.examples))


_BY_KIND: Mapping[str, Callable[[Work], Vectors]] = MappingProxyType(
    {"exact-step": _stepped, "noised-step": _noised, "evaluation": _judged, "audit-step": _audited}
)


def computed(work: Work) -> Done:
    """Return what comes of a work; raises ProtocolError for a request that no network answers."""
    kind = _BY_KIND.get(work.request.plan.kind)
    if kind is None:
        raise ProtocolError(f"no network answers a {work.request.plan.kind}")
    return Done(kind(work))
