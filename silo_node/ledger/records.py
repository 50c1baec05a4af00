"""What the silo's actor must write down beside its rounds, keep with the aggregators, and erase in time.

The ledger logs its own changes. What is left is: denials, requests that wait for people, consent that was read, shares
that were sealed, and the policy in force. Nothing here is computed from a row.
"""

from collections.abc import Callable

from crypto.errors import CryptoError
from crypto.rounds.manifest import Propose
from crypto.wire import body_digest, signer_of, unverified
from policies.budget.accountant import charge
from policies.decision.approvals import subject_of
from policies.document.policy import Policy
from policies.requests.denials import Refusal
from policies.requests.request import Request
from policies.units import DAY_S
from silo_node.ledger.approvals import Waiting
from silo_node.ledger.checkpoints import RollbackGuard
from silo_node.ledger.events import ConsentRead, Opened, decided
from silo_node.ledger.retention import due_of
from silo_node.ledger.store import LedgerStore

AWAITED = "APPROVAL_AWAITED"


class Recorder:
    """Writes to one silo's log and ledger; every method is durable when it returns, and raises LedgerError if not."""

    def __init__(
        self, policy: Policy, ledger: LedgerStore, guards: tuple[RollbackGuard, ...], clock: Callable[[], float]
    ) -> None:
        self._policy, self._ledger, self._guards, self._clock = policy, ledger, guards, clock
        self._erased_at = 0.0

    def start(self, policy_hash: bytes) -> int:
        """Begin under a policy; return how many reservations of rounds that are gone were released.

        A ledger that is older than the checkpoint an aggregator keeps is refused here, if that can be reached; else
        before the first request (`ready`).
        """
        for one in self._guards:
            one.compare_if_reachable()
        released = self._ledger.start(policy_hash, self._policy.policy.version if self._policy.policy else 0)
        self.erase_daily()
        return released

    def ready(self) -> None:
        """Raise LedgerError unless the ledger is known to be the newest."""
        for one in self._guards:
            one.compare()

    def kept(self) -> None:
        """Have the aggregators keep the checkpoint of the ledger before anything leaves that was charged in it."""
        for one in self._guards:
            one.keep()

    def decided(self, data: bytes, reply: bytes) -> None:
        """Write down a refusal, with what people are asked about because of it. What is granted the ledger wrote."""
        envelope = unverified(data, Propose).request
        request_hash, analyst = body_digest(envelope, Request), signer_of(envelope, Request)
        codes = tuple(denial.code for denial in unverified(reply, Refusal).denials)
        try:
            request = unverified(envelope, Request)
        except CryptoError:  # of a stranger, whose request nobody reads
            request = None
        purpose = "" if request is None else request.purpose
        self._ledger.record(decided(request_hash, analyst, purpose, codes))
        if request is not None and codes and set(codes) == {AWAITED}:
            price = charge(request, self._policy.privacy_unit.max_silos)
            subject = subject_of(request, request_hash)
            now = int(self._clock())
            # Whoever shares an entry of the policy shares how many requests may wait.
            entry = self._policy.analyst_entry(request.analyst) or request.analyst
            self._ledger.await_approval(
                Waiting(subject, envelope, entry, request.purpose, price, now, request.expires_at)
            )

    def consent_read(self, request: Request, as_of: int, feed_at: int | None) -> None:
        """Write down at which clock time decisions on consent count, and how old their feed was."""
        event = ConsentRead(nonce=request.nonce, purpose=request.purpose, as_of=as_of, feed_at=feed_at)
        self._ledger.record(event)

    def opened(self, round_id: bytes, split_hash: bytes) -> None:
        """Write down that shares leave, sealed to the recipients."""
        self._ledger.record(Opened(round_id=round_id, split_hash=split_hash))

    def erase_daily(self) -> None:
        """Erase what the policy's [retention] says is due, once a day."""
        now = self._clock()
        if abs(now - self._erased_at) >= DAY_S:
            self._erased_at = now
            self._ledger.erase(due_of(self._policy, int(now)))
