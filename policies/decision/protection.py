"""Does the round that a request is for protect contributions as the policy's [protection] demands?"""

from collections.abc import Sequence

from crypto.rounds.bounds import why_infeasible
from policies.decision.case import Case
from policies.decision.denial_codes import deny
from policies.document.policy import BUILT_NOISE, BUILT_SECURITY_BITS
from policies.requests.denials import Denial


def secure_sum(case: Case) -> Sequence[Denial]:
    """Are backend, security level and noise those that the policy accepts?"""
    protection, request, contact = case.policy.protection, case.request, case.compiled.ask_contact
    reasons: list[Denial] = []
    if request.backend not in protection.accept:
        accepted = ", ".join(protection.accept) or "none"
        message = f"{request.backend} is not accepted"
        reasons.append(deny("BACKEND", "protection.accept", message, f"accepted: {accepted}"))
    if protection.security_bits > BUILT_SECURITY_BITS:
        message = f"{protection.security_bits} bits of security are demanded, a round has {BUILT_SECURITY_BITS}"
        reasons.append(deny("NOT_BUILT", "protection.security_bits", message, contact))
    if protection.noise != BUILT_NOISE:
        message = f"{protection.noise} noise is demanded, a round has {BUILT_NOISE} noise"
        reasons.append(deny("NOT_BUILT", "protection.noise", message, contact))
    return reasons


def roster(case: Case) -> Sequence[Denial]:
    """Are enough silos asked for those that may collude or be missing?"""
    protection, asked = case.policy.protection, len(case.request.silos)
    reason = why_infeasible(asked, case.policy.disclosure.min_silos, protection.max_colluding, protection.max_missing)
    return (deny("ROSTER", "disclosure.min_silos", reason, "ask more silos"),) if reason else ()
