"""The requests that wait for approval: their status, and a person's verdict, signed and stored.

Promise: a request is shown from its signed envelope, never from the other columns of the ledger.
"""

from dataclasses import dataclass
from typing import Literal

from crypto.keys import SigningKey, VerifyKey
from crypto.wire import body_digest, unverified
from policies.decision.approval_rules import approvals_of, counted_since
from policies.decision.approvals import ApprovalStatus, approval_status, subject_of
from policies.decision.compiled import compiled
from policies.decision.shown import Line, in_words, signed_text, whole_price
from policies.document.policy import Policy
from policies.errors import LedgerError
from policies.requests.approval import StoredVerdict
from policies.requests.request import Request, resolved
from policies.units import HOUR_S
from silo_node.errors import SiloError
from silo_node.ledger.store import LedgerStore
from silo_node.rounds.proposal import run_of

SHOWN = 32  # hexadecimal digits of a request's name: 128 bits, so that nobody makes two requests of one name
Decision = Literal["approve", "reject"]
Status = Literal["waiting", "approved", "rejected", "expired"]


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request that needs approval, what a verdict on it binds, and its status."""

    subject: bytes
    request: Request
    micro_rho: int  # of all that a verdict covers: of a training step, its whole run
    lines: tuple[Line, ...]  # all of it in words
    signed: str  # and the text whose SHA-256 is the subject
    asked_at: int
    approvals: tuple[ApprovalStatus, ...]
    people: tuple[str, ...]
    status: Status

    @property
    def name(self) -> str:
        return self.subject.hex()[:SHOWN]

    def worded(self) -> str:
        """Return the status in words: who decided what, and who may decide."""
        said = [f"{one}: no" for approval in self.approvals for one in approval.rejected]
        said += [f"{one}: yes" for approval in self.approvals for one in approval.approved]
        needed = ", ".join(f"{len(one.approved)} of {one.need}" for one in self.approvals) or "none needed"
        return f"{self.status}, {needed}" + (f" ({', '.join(dict.fromkeys(said))})" if said else "")


def requests_of(policy: Policy, store: LedgerStore, now: int) -> list[PendingRequest]:
    """Return the requests that need approval, oldest first, with their status by the policy in force."""
    found = []
    for waiting in store.waiting():
        received, request_hash = unverified(waiting.envelope, Request), body_digest(waiting.envelope, Request)
        request = resolved(received, compiled(policy).domains)
        if subject_of(request, request_hash) != waiting.subject:
            raise LedgerError("a request that waits was altered", "restore the ledger, and find out who changed it")
        analyst = policy.analyst_entry(request.analyst) or request.analyst
        counted = counted_since(policy, request.purpose, now)
        spent = store.spending(request.nonce, request.purpose, analyst, (), run_of(policy, request), None, counted)
        needed = approvals_of(policy, request, spent)
        verdicts = store.verdicts(waiting.subject)
        statuses = tuple(
            approval_status(
                verdicts, waiting.subject, policy.silo.id, one.keys, one.rule.need, one.rule.expires_hours * HOUR_S, now
            )
            for one in needed
        )
        found.append(
            PendingRequest(
                subject=waiting.subject,
                request=request,
                micro_rho=whole_price(policy, request, spent.run),
                lines=in_words(policy, request, spent.run),
                signed=signed_text(request),
                asked_at=waiting.asked_at,
                approvals=statuses,
                people=tuple(dict.fromkeys(name for one in needed for name in one.rule.of)),
                status=_status_of(statuses, now >= request.expires_at, request.plan.part is not None),
            )
        )
    return found


def _status_of(approvals: tuple[ApprovalStatus, ...], is_over: bool, is_run: bool) -> Status:
    if any(one.rejected for one in approvals):
        return "rejected"
    if all(one.is_given for one in approvals) and (is_run or not is_over):
        return "approved"  # the first request of a run may have expired; its later steps are other requests
    return "expired" if is_over else "waiting"


def check_person(policy: Policy, who: str, key: SigningKey) -> None:
    """Raise SiloError unless the policy knows a person of that name, with that key."""
    if who not in policy.people:
        known = ", ".join(policy.people) or "nobody"
        raise SiloError(f"{who!r} is not in the policy's [people]", f"known: {known}")
    if VerifyKey.parse(policy.people[who].key) != key.public:
        raise SiloError(f"the key is not the one that the policy gives {who!r}", "use the key file of that person")


def decide_on(
    policy: Policy, store: LedgerStore, who: str, key: SigningKey, name: str, decision: Decision, now: int
) -> PendingRequest:
    """Sign and store a person's verdict on a request; return its new status. Raises SiloError or LedgerError."""
    check_person(policy, who, key)
    one = _named(requests_of(policy, store, now), name.lower())
    if one.status == "expired" and decision == "approve":  # a rejection is accepted at any time
        raise SiloError("the request has expired", "the analyst has to send a new one")
    if who not in one.people:
        raise SiloError(f"{who!r} is not among those who decide on it", f"ask: {', '.join(one.people) or 'nobody'}")
    store.add_verdict(StoredVerdict.signed(who, key, policy.silo.id, one.subject, decision, now))
    return next(after for after in requests_of(policy, store, now) if after.subject == one.subject)


def _named(found: list[PendingRequest], name: str) -> PendingRequest:
    """Return the only request whose name begins with `name`."""
    hint = "take its whole name from `consilo-silo requests`"
    if len(name) < SHOWN:
        raise SiloError(f"a request is named by at least {SHOWN} digits, found {name!r}", hint)
    matching = [one for one in found if one.subject.hex().startswith(name)]
    if len(matching) != 1:
        raise SiloError(f"{len(matching) or 'no'} requests here are named {name[:80]!r}", hint)
    return matching[0]
