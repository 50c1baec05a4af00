"""The rollback guard: the aggregators keep a silo's checkpoints, so that an older copy of its ledger is noticed.

Promise: until the silo has seen that its ledger continues the one it signed last, it accepts no request; it signs that
it is ready only after the aggregators keep the checkpoint with the beginning of its charge. How many must answer and
keep it, the policy says. A dishonest aggregator can make a silo wait, or hide that a ledger is older; the silo's own
chain and signature do not depend on it. docs/ledger.md section 3.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from crypto.errors import SignatureError, WireError
from crypto.wire import unverified, verify
from policies.budget.ledger import Checkpoint
from policies.document.policy import Aggregators, Policy
from policies.errors import LedgerError
from silo_node.ledger.log import Signer
from silo_node.ledger.store import LedgerStore


class UnreachableError(LedgerError):
    """The aggregator gave no answer, or none that this silo signed, so this ledger may not be the newest."""


class NoCheckpointError(UnreachableError):
    """The aggregator keeps no checkpoint of a ledger that has charges, so it says nothing about it."""


class PutBackError(UnreachableError):
    """The ledger was put back from a backup, and too few aggregators have given its newest checkpoint yet."""


class OlderLineError(UnreachableError):
    """The aggregator keeps a checkpoint of before the ledger was put back; it counts once it keeps a later one."""


class CheckpointKeeper(Protocol):
    """A way to the aggregator; its methods have the names of the wire. An exception means that it was not reached."""

    def put_checkpoint(self, envelope: bytes) -> bytes:
        """Send a signed checkpoint; return the one that the aggregator keeps now."""

    def get_checkpoint(self, silo: bytes) -> bytes:
        """Return the aggregator's checkpoint of a silo; empty if there is none."""


class RollbackGuard:
    """Compares a ledger with the checkpoint that one aggregator keeps, and sends it the next one."""

    def __init__(self, aggregator: str, keeper: CheckpointKeeper, ledger: LedgerStore, signer: Signer) -> None:
        self._aggregator, self._keeper, self.ledger, self._signer = aggregator, keeper, ledger, signer
        self.is_compared = False
        self.given: Checkpoint | None = None  # to a ledger that was put back from a backup
        self.is_ahead = False  # what it has given is newer than what the ledger went on after
        self.kept = 0  # the number of entries in the newest checkpoint that the aggregator said it keeps

    def compare(self) -> None:
        """Raise LedgerError unless this ledger continues the kept checkpoint; it is compared only once."""
        if self.is_compared:
            return
        try:
            self.check_reply(self._get())
        except OlderLineError:
            self.keep(self.ledger.checkpoint() or b"")
            self.check_reply(self._get())

    @property
    def has_given(self) -> bool:
        """Whether the aggregator has given a checkpoint of a ledger that was put back, or the owner excused it."""
        return self.given is not None or self.ledger.is_excused(self._aggregator)

    def _get(self) -> bytes:
        try:
            return self._keeper.get_checkpoint(self._signer.silo.encode())
        except Exception as err:
            raise _unreachable(err) from err

    def keep(self, checkpoint: bytes) -> None:
        """Send a checkpoint. Raises LedgerError if the aggregator does not keep it, or has one that differs.

        Compare first, as an aggregator replaces a shorter checkpoint also by that of another history.
        """
        with suppress(NoCheckpointError, OlderLineError):
            if not self.is_compared:
                self.check_reply(self._get())
        try:
            kept = self._keeper.put_checkpoint(checkpoint)
        except Exception as err:
            raise _unreachable(err) from err
        self.check_reply(kept, checkpoint)

    def check_reply(self, kept: bytes, put: bytes = b"") -> None:
        """Compare the ledger with the checkpoint that the aggregator keeps, in its answer to the checkpoint `put`.

        Raises LedgerError if this ledger does not continue it, UnreachableError if this silo did not sign it. An
        aggregator that keeps none counts only if nothing was ever charged, or if an entry of the log excuses it.
        """
        checkpoint = self._read(kept) if kept else None
        if self.ledger.is_put_back:
            self.given = checkpoint
            message = "the ledger was put back from a backup, and may have forgotten what was spent since"
            raise PutBackError(message, "it waits for its newest checkpoint from enough aggregators: start them")
        if checkpoint is not None and checkpoint.line != self.ledger.line:
            self.ledger.check_against(checkpoint)
            self.given, self.is_ahead = checkpoint, not self.ledger.follows(checkpoint)
            raise OlderLineError(
                "the aggregator has no checkpoint yet that was made after the ledger was put back", "wait"
            )
        if put and kept != put and (checkpoint is None or checkpoint.count < count_of(put)):
            raise UnreachableError("the aggregator did not take the checkpoint of the ledger", "ask its operator why")
        if checkpoint is not None:
            self.ledger.check_against(checkpoint)
            self.kept = max(self.kept, checkpoint.count)
        elif not self.ledger.is_new_to(self._aggregator):
            raise NoCheckpointError(
                f"the aggregator {self._aggregator!r} keeps no checkpoint of this ledger, which has charges",
                f"if it is new or lost its disk: `consilo-silo excuse {self._aggregator}`; see docs/ledger.md",
            )
        if not put:
            self.is_compared = True

    def _read(self, kept: bytes) -> Checkpoint:
        try:
            checkpoint = verify(kept, Checkpoint, {self._signer.silo: self._signer.key.public}).message
        except (WireError, SignatureError) as err:
            message = f"the checkpoint that the aggregator keeps does not hold: {err.message}"
            raise UnreachableError(message, "ask its operator why") from err
        if (checkpoint.silo, checkpoint.federation) != (self._signer.silo, self._signer.federation):
            message = "the aggregator keeps the checkpoint of another silo or federation for this one"
            raise UnreachableError(message, "ask its operator why")
        return checkpoint


class Guards:
    """The guards of all aggregators: how many of them must have answered, and how many must keep a checkpoint."""

    def __init__(self, guards: Mapping[str, RollbackGuard], tolerated: Aggregators) -> None:
        """Raise LedgerError if the policy tolerates more than so many aggregators allow."""
        self.of, self.most_away = dict(guards), tolerated.max_unreachable if guards else 0
        self.must_answer = check_tolerated(tolerated, len(guards)) if guards else 0

    @property
    def uncompared(self) -> tuple[str, ...]:
        """The aggregators whose checkpoint has not been compared yet."""
        return tuple(name for name, one in self.of.items() if not one.is_compared)

    @property
    def missing_answers(self) -> int:
        """How many aggregators must still answer before a request is accepted."""
        return max(0, self.must_answer - (len(self.of) - len(self.uncompared)))

    def compare(self) -> None:
        """Raise LedgerError unless enough aggregators keep a checkpoint that this ledger continues."""
        if not self.missing_answers:
            return
        problem = self._compare()
        if self.recover():
            problem = self._compare()
        if self.missing_answers:
            raise problem or UnreachableError("too few aggregators have answered", "start them")

    def _compare(self) -> UnreachableError | None:
        """Ask every aggregator that has not answered; return what the first of them lacks."""
        problem: UnreachableError | None = None
        for name in self.uncompared:
            try:
                self.of[name].compare()
            except UnreachableError as err:
                problem = problem or err
        return problem

    def recover(self) -> bool:
        """Let a ledger that was put back go on, if enough aggregators have given its checkpoint; tell whether it does.

        Raises LedgerError if what was spent since the backup cannot be known.
        """
        ledger = next((one.ledger for one in self.of.values()), None)
        if ledger is None:
            return False
        if not any(one.is_ahead for one in self.of.values()) and not (
            ledger.is_put_back and sum(one.has_given for one in self.of.values()) >= self.must_answer
        ):
            return False
        ledger.recover([one.given for one in self.of.values() if one.given is not None])
        for one in self.of.values():
            one.is_ahead = False
        return True

    def compare_if_reachable(self) -> None:
        """Like `compare`, but aggregators that do not answer are asked again before the first request."""
        try:
            self.compare()
        except UnreachableError:
            return

    def lagging(self, checkpoint: bytes) -> tuple[str, ...]:
        """Return the aggregators that keep no checkpoint as long as this one."""
        count = count_of(checkpoint)
        return tuple(name for name, one in self.of.items() if one.kept < count)

    def hand_over(self, checkpoint: bytes) -> None:
        """Send a checkpoint to all aggregators that lack it; raises LedgerError unless enough keep it then."""
        self.compare()
        problem: UnreachableError | None = None
        for name in self.lagging(checkpoint):
            try:
                self.of[name].keep(checkpoint)
            except UnreachableError as err:
                problem = problem or err
        self.recover()
        if problem is not None and len(self.lagging(checkpoint)) > self.most_away:
            raise problem


def guards_of(
    keepers: Callable[[str], CheckpointKeeper] | None,
    aggregators: Iterable[str],
    ledger: LedgerStore,
    signer: Signer,
    policy: Policy,
) -> Guards:
    """Return the guards of a silo's ledger; none without a way to the aggregators."""
    names = () if keepers is None else tuple(aggregators)
    guards = {name: RollbackGuard(name, keepers(name), ledger, signer) for name in names if keepers is not None}
    return Guards(guards, policy.aggregators)


def check_tolerated(tolerated: Aggregators, aggregators: int) -> int:
    """Return how many aggregators must answer at a start; raises LedgerError if there are not so many."""
    needed = tolerated.must_answer(aggregators)
    if needed > aggregators:
        message = f"[aggregators] of the policy needs {needed} aggregators, the roster has {aggregators}"
        raise LedgerError(message, "lower max_unreachable or max_dishonest, or keep the aggregators")
    return needed


def count_of(checkpoint: bytes) -> int:
    """Return the number of entries of a checkpoint that this silo made; an empty log has none."""
    return unverified(checkpoint, Checkpoint).count if checkpoint else 0


def _unreachable(err: Exception) -> UnreachableError:
    message = f"the aggregator did not say which checkpoint of the ledger it keeps ({type(err).__name__})"
    return UnreachableError(
        message, "no request is accepted before it does: an older ledger would forget what was spent"
    )
