"""The records that the silo's actor makes next to its rounds: log entries, requests that wait for people, erasures.

The ledger logs its own changes. This module logs the rest: denials, failures, sealed key shares, what was refused
without an entry, and what the owner chose after a profile. Promise: nothing here is computed from a row.
"""

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from crypto.errors import CryptoError
from crypto.rounds.manifest import Propose
from crypto.wire import Message, body_digest, signer_of, unverified
from federation.operations.allowance import Allowance
from policies.budget.accountant import charge
from policies.decision.approvals import subject_of
from policies.document.policy import Policy
from policies.errors import LedgerError, UnpaidError
from policies.requests.denials import Refusal
from policies.requests.request import Request
from policies.units import DAY_S, HOUR_S
from silo_node.ledger.approvals import Waiting
from silo_node.ledger.checkpoints import Guards
from silo_node.ledger.events import ChosenAfterProfile, NotLogged, Opened, RosterInForce, decided
from silo_node.ledger.retention import due_of
from silo_node.ledger.store import LedgerStore
from silo_node.traces import RoundTraces

AWAITED = "APPROVAL_AWAITED"
# Requests of one signer that were refused or given up, each of which leaves up to four entries in the log.
UNPAID_AT_ONCE, UNPAID_PER_DAY = 5000, 2000
# Requests that no analyst of the policy has signed, by aggregator, each of which leaves an entry.
UNKNOWN_AT_ONCE, UNKNOWN_PER_DAY = 100, 100
MAX_REFUSED = 20_000  # refusals that are remembered, so that one that comes again leaves no entry
OWN = "", ""  # who is counted for what the silo cannot do itself
LEDGERS = frozenset({"DISK_FULL", "LEDGER"})  # the codes of a ledger in which nothing can be logged


class Recorder:
    """Writes to one silo's log and ledger; every method is durable when it returns, and raises LedgerError if not."""

    def __init__(
        self, policy: Policy, ledger: LedgerStore, guards: Guards, clock: Callable[[], float], traces: RoundTraces
    ) -> None:
        self._policy, self._ledger, self._guards, self._clock = policy, ledger, guards, clock
        self.traces = traces
        self._erased_at = self._told_at = 0.0
        self._unpaid = Allowance[tuple[str, str]](UNPAID_AT_ONCE, UNPAID_PER_DAY, clock)
        self._unknown = Allowance[str](UNKNOWN_AT_ONCE, UNKNOWN_PER_DAY, clock)
        self._refused: dict[tuple[bytes, tuple[str, ...]], None] = {}  # by request hash, with the codes
        self._unlogged: Counter[tuple[str, str]] = Counter()  # refusals without an entry, by signers
        self._turn = threading.Lock()  # over these

    def start(self, policy_hash: bytes, roster: RosterInForce | None = None) -> int:
        """Begin under a policy, with the members of a roster; return how many reservations were released.

        A ledger that is older than an aggregator's checkpoint is refused here if the aggregator can be reached,
        otherwise before the first request (`check_newest`).
        """
        self._guards.compare_if_reachable()
        head, unit, is_signed = self._policy.policy, self._policy.privacy_unit, self._policy.mode == "production"
        released = self._ledger.start(policy_hash, head.version if head else 0, is_signed, roster, unit.max_silos)
        self.erase_daily()
        return released

    def chosen(self, shown_at: int, keys: tuple[str, ...]) -> None:
        """Log which bounds, domains or limits of rows changed after a profile of the rows was shown."""
        self._ledger.record(ChosenAfterProfile(shown_at=shown_at, keys=keys[:20], count=len(keys)))

    def check_newest(self) -> None:
        """Raise LedgerError unless the ledger is known to be the newest."""
        self._guards.compare()

    def admit(self, signers: tuple[str, str]) -> None:
        """Raise UnpaidError if too many requests of these signers were refused or given up.

        `signers` are the aggregator and the analyst, as `silo_node.rounds.proposal.signers_of` returns them. Of an
        analyst who did not sign, only the entries are limited, see `decided`.
        """
        with self._turn:
            is_too_often = bool(signers[1]) and not self._unpaid.take(signers)
            self._unlogged[signers] += is_too_often
        if is_too_often:
            raise UnpaidError("too many requests of these signers were refused or given up", "they may ask later")

    def paid(self, signers: tuple[str, str]) -> None:
        """Learn that a request of these signers was paid, so that it does not count."""
        self._unpaid.give_back(signers)

    def sweep(self) -> None:
        """Erase what is due, once a day, and log what had no entry of its own, once an hour."""
        self.erase_daily()
        self._tell_unlogged()

    def _tell_unlogged(self) -> None:
        """Log, once an hour, how many requests were refused without an entry of their own."""
        if abs(self._clock() - self._told_at) < HOUR_S or not +self._unlogged:
            return
        self._told_at = self._clock()
        with self._turn:
            counted, self._unlogged = +self._unlogged, Counter()
        for (aggregator, analyst), count in counted.items():
            try:
                self._ledger.record(NotLogged(aggregator=aggregator[:255], analyst=analyst[:255], count=count))
            except LedgerError:  # a full disk must not end rounds; it is told an hour later then
                with self._turn:
                    self._unlogged[aggregator, analyst] += count

    def _is_counted(self, signers: tuple[str, str], request_hash: bytes, codes: tuple[str, ...]) -> bool:
        """Return whether a refusal needs no entry, but is counted: the same has one, or too many have."""
        with self._turn:
            if (request_hash, codes) not in self._refused and self._may_log(signers):
                self._refused[request_hash, codes] = None
                if len(self._refused) > MAX_REFUSED:
                    del self._refused[next(iter(self._refused))]
                return False
            self._unlogged[signers] += 1
            return True

    def _may_log(self, signers: tuple[str, str]) -> bool:
        """Whether these may cause another entry; an analyst of the policy has been admitted, which limits them."""
        if signers == OWN:
            return self._unpaid.take(OWN)
        return bool(signers[1]) or self._unknown.take(signers[0])

    def decided(self, data: bytes, reply: bytes, signers: tuple[str, str]) -> None:
        """Log a refusal, and keep its request if people must approve it. The ledger itself logs acceptances.

        One that comes again is counted and not logged. Those of signers whom the policy does not name are logged up to
        a limit, and then counted.
        """
        envelope = unverified(data, Propose).request
        request_hash, analyst = body_digest(envelope, Request), signer_of(envelope, Request)
        codes = tuple(denial.code for denial in unverified(reply, Refusal).denials)
        try:
            request = unverified(envelope, Request)
        except CryptoError:  # of an unknown party, whose request is not read
            request = None
        purpose = "" if request is None else request.purpose
        if not self._is_counted(signers, request_hash, codes):
            self._ledger.record(decided(request_hash, analyst, purpose, codes))
        if request is not None and codes and set(codes) == {AWAITED}:
            price = charge(request, self._policy.privacy_unit.max_silos)
            subject = subject_of(request, request_hash)
            now = int(self._clock())
            # Analysts that share an entry of the policy share its limit of waiting requests.
            entry = self._policy.analyst_entry(request.analyst) or request.analyst
            self._ledger.await_approval(
                Waiting(subject, envelope, entry, request.purpose, price, now, request.expires_at)
            )

    def unable(self, reply: Message, err: Exception) -> None:
        """Log a refusal by which the silo says that it cannot take part.

        Not if its ledger itself is the reason, nor if `admit` is, whose errors `sweep` counts.
        """
        if isinstance(err, UnpaidError):
            return
        if isinstance(reply, Refusal) and not (codes := {one.code for one in reply.denials}) & LEDGERS:
            with suppress(LedgerError):
                if not self._is_counted(OWN, reply.request_hash, tuple(sorted(codes))):
                    self._ledger.record(decided(reply.request_hash, "", "", sorted(codes)))

    def opened(self, round_id: bytes, survivors_hash: bytes) -> None:
        """Log that key shares leave, sealed to the recipients."""
        self._ledger.record(Opened(round_id=round_id, split_hash=survivors_hash))

    def erase_daily(self) -> None:
        """Erase data due by the policy's [retention], and end what runs reserved and left, once a day."""
        now = self._clock()
        if abs(now - self._erased_at) >= DAY_S:
            self._erased_at = now
            self._ledger.expire_runs()  # each ends at a midnight, and `reserve` ends it too
            due = due_of(self._policy, int(now))
            self._ledger.erase(due)
            if due.rounds is not None:
                self.traces.erase(due.rounds)
