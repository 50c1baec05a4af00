"""The pure function of networks: from rows, a state and what a silo keeps to its blocks of a round.

The same in the silo's own process (simulate) and in the confined one (`silo_node.training.confined.apart`).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from crypto.errors import ProtocolError
from silo_node.training import exact
from silo_node.training.confined.work import Done, Vectors, Work
from silo_node.training.judging import audited, judged
from silo_node.training.noised import step as noised


def _stepped(work: Work) -> Vectors:
    return exact.contribution(work.request, work.examples, work.state)


def _noised(work: Work) -> Vectors:
    return noised.contribution(work.request, work.examples, work.state)


def _judged(work: Work) -> Vectors:
    return judged(work.request, work.examples, work.state, work.silo)


def _audited(work: Work) -> Vectors:
    return audited(work.request, work.examples, work.state)


_BY_KIND: Mapping[str, Callable[[Work], Vectors]] = MappingProxyType(
    {"exact-step": _stepped, "noised-step": _noised, "evaluation": _judged, "audit-step": _audited}
)


def computed(work: Work) -> Done:
    """Return what comes of a work; raises ProtocolError for a request that no network answers."""
    kind = _BY_KIND.get(work.request.plan.kind)
    if kind is None:
        raise ProtocolError(f"no network answers a {work.request.plan.kind}")
    return Done(kind(work))
