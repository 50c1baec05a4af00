"""Ask again without the silos that were away or refused, in the place of the request that they left unanswered.

Promise: a silo that accepts the later request accepts the earlier one no more, and one that has charged the earlier one
refuses the later, so nobody pays for one question twice without being told. docs/protocol.md section 3.7.
"""

from collections.abc import Callable, Collection, Set

from pydantic import ValidationError

from analyst import requests
from analyst.answers import denials_of, failures_of
from analyst.testimonies import cleared
from crypto.randomness import token
from crypto.rounds.messages import Failure
from crypto.wire import digest_of, signer_of
from federation.members.roster import Roster
from policies.requests.denials import Refusal
from policies.requests.replaces import MAX_REPLACED, Replaced, Replaces
from policies.requests.request import Request

_CHARGED = "ALREADY_ANSWERED"
# Whoever says so is not left out: people are asked, or the earlier request was charged, which has no price if exact.
_STAYS = frozenset({"APPROVAL_AWAITED", "REPLACED", "RUN_OVER"})
Bears = Callable[[int, Collection[str]], bool]  # so many silos that are asked, of which these take part


def _never(asked: int, present: Collection[str]) -> bool:
    return False


def in_place_of(request: Request, failure: Failure, now: int, roster: Roster, bears: Bears = _never) -> Request | None:
    """Return a request to the silos that are left, in the place of one that failed; None if that is not possible.

    If more are away than the request may leave out, it leaves out as many where that `bears` the others' absence.
    In the place of a training step it is that of a new run, which continues the other one from its last opened model; a
    run that continues another one is not continued. A silo that is proven to have accused another rightly, or to have
    been accused falsely, is asked again. Raises CryptoError on an invalid refusal.
    """
    denials, step = denials_of(failure.refusals, failure.request_hash, roster), request.plan.training
    stays = _STAYS if step is not None and not request.micro_rho else _STAYS | {_CHARGED}
    if any(one.code in stays for reasons in denials.values() for one in reasons):
        return None
    if step is not None and step.continues is not None:
        return None
    away = {*failure.missing, *failure.left_out} - cleared(failure, roster) if failure.away else set()
    if step is not None and failure.away:  # it was asked again before, and failed again
        away |= set(failures_of(failure.failed, roster))
    before = request.replaces
    earlier = before.requests if before is not None else ()
    if failure.charged and step is None:
        bears = _never  # those who take part have charged it, and accept no other request in its place
    out = _few((away | set(denials)) & set(request.silos), set(denials), request, bears)
    rest = tuple(silo for silo in request.silos if silo not in out)
    if not out or not rest or len(earlier) == MAX_REPLACED:
        return None
    away &= out
    evidence = [one for one in failure.refusals if signer_of(one, Refusal) in out]
    replaces = {
        "requests": (*earlier, Replaced(nonce=request.nonce, request_hash=digest_of(request))),
        "left_out": tuple(sorted(out.union(before.left_out if before is not None else ()))),
        "evidence": (*(before.evidence if before is not None else ()), *evidence, *((failure.away,) if away else ())),
    }
    fewer, what = request, request.plan
    if what.training is not None:
        what = what.model_copy(update={"run": token(16), "continues": what.training.run})
        fewer = request.model_copy(update={"recipients": roster.recipients(rest)})
    fresh: dict[str, object] = dict(fewer) | requests.renewed(fewer, what, now)
    expires_at = max(now + requests.lifetime_s(request), request.expires_at)
    fields = {"silos": rest, "expires_at": expires_at}
    try:
        return Request.model_validate(fresh | fields | {"replaces": Replaces.model_validate(replaces)})
    except ValidationError:
        return None


def _few(out: set[str], refused: Set[str], request: Request, bears: Bears) -> set[str]:
    """Return which of the silos that take no part are left out: all, or as many as the request may leave out.

    Those who refuse come first. The others stay among those that are asked, as missing; nobody is left out in vain.
    """
    left_out = len(request.replaces.left_out) if request.replaces is not None else 0
    room = (request.or_without or 0) - left_out
    if len(out) <= room:
        return out
    present = [silo for silo in request.silos if silo not in out]
    if room < 1 or not bears(len(request.silos) - room, present):
        return set()
    return set(sorted(out, key=lambda silo: (silo not in refused, silo))[:room])
