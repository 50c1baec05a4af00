"""The head of a silo's ledger is kept with the aggregator too, so that a ledger put back from a backup is found out.

Fail-closed: until the silo has seen that its ledger continues the one it signed last, it accepts no request, and no
contribution leaves whose charge the aggregator does not know of. An aggregator that lies can make a silo wait, or hide
that a ledger is older; the silo's own chain and signature hold without it. docs/ledger.md section 4.
"""

from typing import Protocol

from crypto.errors import CryptoError
from crypto.wire import verify
from policies.errors import LedgerError
from policies.ledger import LedgerHead
from silo_node.ledger_store import LedgerStore
from silo_node.log import Signer


class UnreachableError(LedgerError):
    """The aggregator did not answer, so nobody knows whether this ledger is the newest."""


class HeadKeeper(Protocol):
    """A way to the aggregator; whatever it raises means that it was not reached."""

    def put_head(self, envelope: bytes) -> bytes:
        """Hand over a signed head; return the one that is kept now."""

    def get_head(self, silo: bytes) -> bytes:
        """Return the head kept of a silo, nothing if there is none."""


class KeptHeads:
    """Compares a ledger with the head that was kept of it, and keeps the next one."""

    def __init__(self, keeper: HeadKeeper, ledger: LedgerStore, signer: Signer) -> None:
        self._keeper, self._ledger, self._signer = keeper, ledger, signer
        self._is_compared = False

    def compare(self) -> None:
        """Raise LedgerError unless this ledger continues the one whose head was kept; once is enough."""
        if self._is_compared:
            return
        try:
            kept = self._keeper.get_head(self._signer.silo.encode())
        except Exception as err:
            raise _unreachable(err) from err
        self._check(kept)
        self._is_compared = True

    def compare_if_reachable(self) -> None:
        """As `compare`, but an aggregator that does not answer yet is asked again before the first request."""
        try:
            self.compare()
        except UnreachableError:
            return

    def keep(self) -> None:
        """Have the aggregator keep the head as it is now. Raises LedgerError if it does not, or knows a later one."""
        self.compare()
        head = self._ledger.head()
        if head is None:
            return
        try:
            kept = self._keeper.put_head(head)
        except Exception as err:
            raise _unreachable(err) from err
        if kept != head:
            self._check(kept)

    def _check(self, kept: bytes) -> None:
        if not kept:
            return
        try:
            head = verify(kept, LedgerHead, {self._signer.silo: self._signer.key.public}).message
        except CryptoError as err:
            raise LedgerError(f"the head that the aggregator keeps does not hold: {err.message}", "ask it why") from err
        if (head.silo, head.federation) != (self._signer.silo, self._signer.federation):
            raise LedgerError("the aggregator keeps the head of another silo or federation for this one", "ask it why")
        self._ledger.check_against(head)


def _unreachable(err: Exception) -> UnreachableError:
    message = f"the aggregator did not say which head of the ledger it keeps ({type(err).__name__})"
    return UnreachableError(
        message, "no request is accepted before it does: an older ledger would forget what was spent"
    )
