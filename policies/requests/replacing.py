"""The rules of a request that stands in the place of an earlier one: docs/protocol.md section 3.7.

Promise: nobody is left out but a silo that signed a refusal, or that an aggregator signed to be away. An approval of
the first request holds for a later one only if the first says that it may be asked without so many silos.
"""

from collections.abc import Mapping
from contextlib import suppress

from crypto.errors import CryptoError, ProtocolError
from crypto.keys import VerifyKey
from crypto.rounds.manifest import Recipient
from crypto.rounds.messages import Away
from crypto.wire import verify
from policies.requests.denials import Denial, Refusal
from policies.requests.replaces import Replaces
from policies.requests.request import Request, job_of

# What may differ between a request and one that stands in its place.
_DIFFERS = ("nonce", "silos", "round_key", "sealed_secrets", "created_at", "expires_at", "replaces")


def left_out(
    replaces: Replaces, federation: str, silos: Mapping[str, VerifyKey], aggregators: Mapping[str, VerifyKey]
) -> dict[str, tuple[Denial, ...]]:
    """Return the silos that are left out, each with its own denials; none of a silo that was away.

    Raises ProtocolError if one of them is left out without a proof.
    """
    hashes = {one.request_hash for one in replaces.requests}
    proven: dict[str, tuple[Denial, ...]] = {}
    for envelope in replaces.evidence:
        with suppress(CryptoError):
            refusal = verify(envelope, Refusal, silos)
            if refusal.message.federation == federation and refusal.message.request_hash in hashes:
                proven[refusal.signer] = refusal.message.denials
            continue
        with suppress(CryptoError):
            away = verify(envelope, Away, aggregators).message
            if away.federation == federation and away.request_hash in hashes:
                proven = dict.fromkeys(away.silos, ()) | proven
    unproven = sorted(set(replaces.left_out) - set(proven))
    if unproven:
        raise ProtocolError(f"nothing that is signed says why {', '.join(unproven)} is left out")
    return {silo: proven[silo] for silo in replaces.left_out}


def job_before(request: Request, recipients: tuple[Recipient, ...]) -> bytes | None:
    """Return the job of the run that a training step continues; None if it continues none.

    `recipients` are the silos of that run, with the keys that the roster gives them.
    """
    step = request.plan.training
    if step is None or step.continues is None:
        return None
    plan = step.model_copy(update={"run": step.continues, "continues": None})
    fields = {"silos": silos_before(request), "recipients": recipients, "replaces": None, "plan": plan}
    return job_of(request.model_copy(update=fields), plan)


def silos_before(request: Request) -> tuple[str, ...]:
    """Return the silos that the first request asked, in whose place this one stands, in their order."""
    return tuple(sorted({*request.silos, *(request.replaces.left_out if request.replaces is not None else ())}))


def holds_for(first: Request, later: Request) -> bool:
    """Tell whether what people were shown of a first request covers a later one that stands in its place."""
    replaces = later.replaces
    if replaces is None or replaces.requests[0].nonce != first.nonce:
        return False
    if len(replaces.left_out) > (first.or_without or 0):
        return False
    is_rest = set(first.silos) == set(later.silos) | set(replaces.left_out)
    fields = set(Request.model_fields) - set(_DIFFERS)
    return is_rest and all(getattr(first, field) == getattr(later, field) for field in fields)
