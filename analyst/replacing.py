"""Ask again without the silos that were away or refused, in the place of the request that they left unanswered.

Promise: a silo that accepts the later request accepts the earlier one no more, and one that has charged the earlier one
refuses the later, so nobody pays for one question twice without being told. docs/protocol.md section 3.7.
"""

from pydantic import ValidationError

from analyst import requests
from analyst.answers import denials_of
from analyst.testimonies import cleared
from crypto.randomness import token
from crypto.rounds.messages import Failure
from crypto.wire import digest_of, signer_of
from federation.members.roster import Roster
from policies.requests.denials import Refusal
from policies.requests.replaces import MAX_REPLACED, Replaced, Replaces
from policies.requests.request import Request

# Whoever says so is not left out: people are asked, the earlier request was charged, or a step is missed.
_STAYS = frozenset({"ALREADY_ANSWERED", "APPROVAL_AWAITED", "REPLACED", "RUN_POSITION"})


def in_place_of(request: Request, failure: Failure, now: int, roster: Roster) -> Request | None:
    """Return a request to the silos that are left, in the place of one that failed; None if that is not possible.

    In the place of a training step it is that of a new run, which continues the other one from its last opened model; a
    run that continues another one is not continued. A silo that is proven to have accused another rightly, or to have
    been accused falsely, is asked again. Raises CryptoError on an invalid refusal.
    """
    denials = denials_of(failure.refusals, failure.request_hash, roster)
    if any(one.code in _STAYS for reasons in denials.values() for one in reasons):
        return None
    away = {*failure.missing, *failure.left_out} - cleared(failure, roster) if failure.away else set()
    out = (away | set(denials)) & set(request.silos)
    rest, before = tuple(silo for silo in request.silos if silo not in out), request.replaces
    earlier = before.requests if before is not None else ()
    if not out or not rest or len(earlier) == MAX_REPLACED:
        return None
    evidence = [one for one in failure.refusals if signer_of(one, Refusal) in out]
    replaces = {
        "requests": (*earlier, Replaced(nonce=request.nonce, request_hash=digest_of(request))),
        "left_out": tuple(sorted(out.union(before.left_out if before is not None else ()))),
        "evidence": (*(before.evidence if before is not None else ()), *evidence, *((failure.away,) if away else ())),
    }
    fewer, what = request, request.plan
    if what.training is not None:
        if what.training.continues is not None:
            return None
        what = what.model_copy(update={"run": token(16), "continues": what.training.run})
        fewer = request.model_copy(update={"recipients": roster.recipients(rest)})
    fresh: dict[str, object] = dict(fewer) | requests.renewed(fewer, what, now)
    expires_at = max(now + requests.lifetime_s(request), request.expires_at)
    fields = {"silos": rest, "expires_at": expires_at}
    try:
        return Request.model_validate(fresh | fields | {"replaces": Replaces.model_validate(replaces)})
    except ValidationError:
        return None
