"""All aggregators of a federation: the one that is asked, and the others, which are dialled only to find a report."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from analyst.errors import AnalystError
from crypto.errors import CryptoError
from crypto.rounds.messages import Found
from federation.errors import FederationError
from policies.units import when

if TYPE_CHECKING:
    from analyst.link import Link

Dial = Callable[[], "AbstractContextManager[Link]"]


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What the aggregators have for a request, and the one that has most of it."""

    state: Literal["none", "running", "kept", "erased"]
    report: bytes  # its name, where it is kept
    erased_at: int
    link: "Link | None"
    silent: tuple[str, ...]  # aggregators that could not be asked


class Aggregators:
    """The links to all aggregators."""

    def __init__(self, name: str, link: "Link", others: Mapping[str, Dial] = MappingProxyType({})) -> None:
        """`link` is that of the aggregator `name`, which is asked; each of `others` is dialled when it is needed."""
        self._links, self._others, self._stack = {name: link}, dict(others), ExitStack()
        self._first = link
        self._holders: dict[bytes, Link] = {}  # of reports, by name

    def close(self) -> None:
        """Leave the aggregators that were dialled here."""
        self._stack.close()

    def find(self, request_hash: bytes) -> Whereabouts:
        """Ask every aggregator for the report that answers a request, until one has it."""
        best, silent = Whereabouts("none", b"", 0, None, ()), []
        for name in dict.fromkeys((*self._links, *self._others)):
            try:
                link = self._link(name)
                found = Found.decode(link.find(request_hash))
            except (FederationError, CryptoError):
                silent.append(name)
                continue
            if _ORDER[found.state] > _ORDER[best.state]:
                best = Whereabouts(found.state, found.report, found.erased_at, link, ())
            if found.state == "kept":
                self._holders[found.report] = link
                break
        return Whereabouts(best.state, best.report, best.erased_at, best.link, tuple(silent))

    def fetched(self, request_hash: bytes) -> bytes | None:
        """Return the encrypted report that answers a request; None if no aggregator that could be asked has it.

        Raises AnalystError if it was erased.
        """
        where = self.find(request_hash)
        if where.state == "erased":
            raise erased(where)
        return self.holder(where.report).report(where.report) if where.state == "kept" else None

    def holder(self, report: bytes) -> "Link":
        """Return the link to the aggregator that has a report: as it was found, otherwise the one that is asked."""
        return self._holders.get(report, self._first)

    @property
    def asked(self) -> "Link":
        """The link to the aggregator that is asked."""
        return self._first

    def _link(self, name: str) -> "Link":
        if name not in self._links:
            self._links[name] = self._stack.enter_context(self._others[name]())
        return self._links[name]


_ORDER = {"none": 0, "erased": 1, "running": 2, "kept": 3}


def erased(where: Whereabouts) -> AnalystError:
    """Return the error that says when an answer was erased."""
    message = f"the answer was erased at the aggregator on {when(where.erased_at)[:10]}, as it keeps none for ever"
    return AnalystError(message, "the question again is a new request at a new price")
