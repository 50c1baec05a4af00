"""The messages of the vocabulary, by the type names that stand in the vectors, which stay where a class is renamed."""

from collections.abc import Iterator

from crypto.rounds.handover import HeldState
from crypto.rounds.receipt import Receipt
from crypto.rounds.report import StoredReport
from crypto.wire import Message
from federation.members.roster import Roster
from policies.models.released import ReleasedModel
from policies.requests.catalogue import Catalogue
from policies.requests.request import Request
from silo_node.training.own import OwnState
from silo_node.training.run import RunState

_MODULES = (
    *("crypto.rounds.", "crypto.wire", "federation.members.roster"),
    *("policies.models.", "policies.requests.", "silo_node.training."),
)
# With them all modules of the vocabulary are read.
_IMPORTED = (
    Catalogue,
    HeldState,
    OwnState,
    Receipt,
    ReleasedModel,
    Request,
    Roster,
    RunState,
    StoredReport,
)
# By class, the type names of the vectors of version 0.1.0.
_WRITTEN = {
    "ShareKeys": "Share",
    "SurvivorSet": "Split",
    "UnmaskingShares": "OpenedShares",
    "ModelUpdated": "Learned",
}


def types() -> dict[str, type[Message]]:
    """Return every message class of the vocabulary, by its type name in the vectors."""
    return {
        _WRITTEN.get(one.__name__, one.__name__): one
        for one in subclasses(Message)
        if one.__module__.startswith(_MODULES)
    }


def subclasses(kind: type[Message]) -> Iterator[type[Message]]:
    """Yield every class below one, in whatever module."""
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)
