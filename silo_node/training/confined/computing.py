"""The pure function of networks: from rows, a state and what a silo keeps to its blocks of a round.

The same in the silo's own process (simulate) and in the confined one (`silo_node.training.confined.apart`).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from crypto.errors import ProtocolError
from silo_node.training import exact
from silo_node.training.confined.work import Done, Work
from silo_node.training.judging import audited, judged
from silo_node.training.noised import step as noised


def _stepped(work: Work) -> Done:
    found = exact.contributed(work.request, work.examples, work.state, work.own)
    return Done(found.blocks, found.own)


def _noised(work: Work) -> Done:
    return Done(noised.contribution(work.request, work.examples, work.state))


def _judged(work: Work) -> Done:
    return Done(judged(work.request, work.examples, work.state, work.silo, work.own))


def _audited(work: Work) -> Done:
    return Done(audited(work.request, work.examples, work.state, work.own))


_BY_KIND: Mapping[str, Callable[[Work], Done]] = MappingProxyType(
    {"exact-step": _stepped, "noised-step": _noised, "evaluation": _judged, "audit-step": _audited}
)


def computed(work: Work) -> Done:
    """Return what comes of a work; raises ProtocolError for a request that no network answers."""
    kind = _BY_KIND.get(work.request.plan.kind)
    if kind is None:
        raise ProtocolError(f"no network answers a {work.request.plan.kind}")
    return kind(work)
