"""What a silo answers where a step fails: a Refusal in words, a broken rule of the protocol, or only that it failed.

Promise: before a row of the request is read, the kind of the cause travels, signed: the clock, the disk, the ledger, a
source. Afterwards every failure is one constant message; but of a network on an exact source one for each limit of the
policy that it exceeded (`silo_node.errors.NetworkError`). The cause itself is for the owner's log. docs/protocol.md
sections 3.4 and 7.3.
"""

from crypto.errors import AccusedError, ClockError, CryptoError, ExpiredError
from crypto.rounds.manifest import Propose
from crypto.rounds.messages import Accusation, Failed
from crypto.wire import Message, body_digest, verify
from policies.decision import inability
from policies.errors import (
    AlreadyChargedError,
    LedgerError,
    LedgerFullError,
    PolicyError,
    UnpaidError,
    WaitingFullError,
)
from policies.requests.denials import Denial, Refusal
from policies.requests.request import Request
from silo_node.errors import NotLoadedError, SourceError
from silo_node.rounds.states import Silo

FAILED = "the step failed at the silo"  # whatever failed: the owner's log says what
NOT_ALLOWED = "the silo's ledger or policy did not allow this step"


def answer_to(silo: Silo, round_id: bytes, asked: bytes | None, err: Exception) -> Message:
    """Return what the silo signs after an error; `asked` is the hash of a request of which no row has been read."""
    if isinstance(err, AccusedError):
        return Accusation.decode(err.accusation)
    denial = None if asked is None else inability_of(silo, err)
    if asked is not None and denial is not None:
        return Refusal(federation=silo.federation, request_hash=asked, policy_hash=silo.policy_hash, denials=(denial,))
    reason = FAILED
    if isinstance(err, CryptoError):
        reason = err.message
    elif isinstance(err, PolicyError):
        reason = NOT_ALLOWED
    return failed(silo, round_id, reason)


def failed(silo: Silo, round_id: bytes, reason: str) -> Failed:
    """Return what the silo signs of a step that it cannot take."""
    return Failed(federation=silo.federation, round_id=round_id, reason=reason[:500])


def inability_of(silo: Silo, err: Exception) -> Denial | None:
    """Return an error as a reason to refuse; None if it is not one of the silo's machine."""
    match err:
        case ClockError():
            return inability.wrong_clock(silo.policy)
        case ExpiredError():
            return inability.late_step(silo.policy)
        case LedgerFullError():
            return inability.full_disk(silo.policy)
        case UnpaidError():
            return inability.too_many_unpaid(silo.policy)
        case WaitingFullError():
            return inability.too_many_waiting(silo.policy)
        case LedgerError() if not isinstance(err, AlreadyChargedError):
            return inability.broken_ledger(silo.policy)
        case NotLoadedError():
            return inability.not_loaded(silo.policy)
        case SourceError():
            return inability.away_source(silo.policy)
        case _:
            return None


def asked_by(silo: Silo, data: bytes) -> bytes | None:
    """Return the hash of the request in a Propose; None unless an aggregator of the roster signed it."""
    try:
        return body_digest(verify(data, Propose, silo.aggregators).message.request, Request)
    except CryptoError:
        return None
