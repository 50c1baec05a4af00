"""The guard against a ledger that was put back from a backup: its checkpoints are kept with the aggregators too.

Fail-closed: until the silo has seen that its ledger continues the one it signed last, it accepts no request, and no
contribution leaves whose charge the aggregators do not know of. An aggregator that lies can make a silo wait, or hide
that a ledger is older; the silo's own chain and signature hold without it. docs/ledger.md section 3.
"""

from typing import Protocol

from crypto.errors import SignatureError, WireError
from crypto.wire import unverified, verify
from policies.budget.ledger import Checkpoint
from policies.errors import LedgerError
from silo_node.ledger.log import Signer
from silo_node.ledger.store import LedgerStore


class UnreachableError(LedgerError):
    """The aggregator did not answer, or not with what this silo signed: nobody knows whether this ledger is newest."""


class CheckpointKeeper(Protocol):
    """A way to the aggregator, whose calls have their names on the wire; what it raises means it was not reached."""

    def put_head(self, envelope: bytes) -> bytes:
        """Hand over a signed checkpoint; return the one that is kept now."""

    def get_head(self, silo: bytes) -> bytes:
        """Return the checkpoint kept of a silo, nothing if there is none."""


class RollbackGuard:
    """Compares a ledger with the checkpoint that one aggregator kept of it, and has it keep the next one."""

    def __init__(self, keeper: CheckpointKeeper, ledger: LedgerStore, signer: Signer) -> None:
        self._keeper, self._ledger, self._signer = keeper, ledger, signer
        self.is_compared = False

    def compare(self) -> None:
        """Raise LedgerError unless this ledger continues the one whose checkpoint was kept; once is enough."""
        if self.is_compared:
            return
        try:
            kept = self._keeper.get_head(self._signer.silo.encode())
        except Exception as err:
            raise _unreachable(err) from err
        self.check_reply(kept)

    def compare_if_reachable(self) -> None:
        """As `compare`, but an aggregator that does not answer yet is asked again before the first request."""
        try:
            self.compare()
        except UnreachableError:
            return

    def keep(self) -> None:
        """Have the aggregator keep the checkpoint of now. Raises LedgerError if it does not, or knows a later one."""
        self.compare()
        checkpoint = self._ledger.checkpoint()
        if checkpoint is None:
            return
        try:
            kept = self._keeper.put_head(checkpoint)
        except Exception as err:
            raise _unreachable(err) from err
        self.check_reply(kept, checkpoint)

    def check_reply(self, kept: bytes, put: bytes = b"") -> None:
        """Hold the ledger against what the aggregator says that it keeps, in answer to the checkpoint that was `put`.

        Raises LedgerError if that is not how this ledger went on, UnreachableError if it says nothing of this silo.
        """
        if put and kept != put:
            least = unverified(put, Checkpoint).count
            if not kept or self._read(kept).count < least:
                raise UnreachableError("the aggregator did not take the head of the ledger", "ask its operator why")
        if kept:
            self._ledger.check_against(self._read(kept))
        self.is_compared = True

    def _read(self, kept: bytes) -> Checkpoint:
        try:
            checkpoint = verify(kept, Checkpoint, {self._signer.silo: self._signer.key.public}).message
        except (WireError, SignatureError) as err:
            message = f"the head that the aggregator keeps does not hold: {err.message}"
            raise UnreachableError(message, "ask its operator why") from err
        if (checkpoint.silo, checkpoint.federation) != (self._signer.silo, self._signer.federation):
            message = "the aggregator keeps the head of another silo or federation for this one"
            raise UnreachableError(message, "ask its operator why")
        return checkpoint


def _unreachable(err: Exception) -> UnreachableError:
    message = f"the aggregator did not say which head of the ledger it keeps ({type(err).__name__})"
    return UnreachableError(
        message, "no request is accepted before it does: an older ledger would forget what was spent"
    )
