"""The rules of [protection]: does the request's round protect contributions as the policy requires?"""

from collections.abc import Sequence

from crypto.rounds.bounds import missing_borne, silos_needed, why_infeasible
from policies.decision.case import Case
from policies.decision.denial_codes import deny
from policies.document.policy import BUILT_NOISE, BUILT_SECURITY_BITS
from policies.requests.capacity import carriers, rows_of
from policies.requests.denials import Denial


def secure_sum(case: Case) -> Sequence[Denial]:
    """Does the policy accept the backend, its security level and its noise?"""
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


def capacity(case: Case) -> Sequence[Denial]:
    """Does the backend carry every figure of so many rows as the policy states, without cutting one?"""
    request, rows = case.request, rows_of(case.source.source.rows_up_to)
    if case.facts.carried_rows >= rows:
        return ()
    message = f"{request.backend} would cut figures of {rows:,} rows: it carries those of {case.facts.carried_rows:,}"
    found = carriers(request.table, request.plan, request.micro_rho, len(request.silos), rows)
    accepted = " or ".join(name for name in found if name in case.policy.protection.accept)
    remedy = f"take the backend {accepted}" if accepted else "ask for narrower bounds, or spend less"
    return (deny("BACKEND", f"sources.{request.table.name}.rows_up_to", message, remedy),)


def roster(case: Case) -> Sequence[Denial]:
    """Are enough silos asked, given how many may collude or be missing, and those that must be in?"""
    protection, asked = case.policy.protection, len(case.request.silos)
    conditions = case.policy.disclosure.min_silos, protection.max_colluding, protection.max_missing
    reason = why_infeasible(asked, *conditions)
    if reason:
        return (deny("ROSTER", "disclosure.min_silos", reason, _remedy(asked, *conditions)),)
    absent = sorted(set(protection.must_include) - set(case.request.silos))
    if not absent:
        return ()
    message = f"this silo takes no part without {', '.join(absent)}"
    return (deny("ROSTER", "protection.must_include", message, f"ask {', '.join(absent)} too"),)


def _remedy(asked: int, min_silos: int, max_colluding: int, max_missing: int) -> str:
    """Return with how many silos, or with which max_missing, so few silos meet a policy's conditions."""
    needed = silos_needed(asked, min_silos, max_colluding, max_missing)
    borne = missing_borne(asked, min_silos, max_colluding, max_missing)
    told = [] if needed is None else [f"ask {needed} silos or more"]
    told += [] if borne is None else [f"ask its owner for max_missing = {borne}"]
    return "; or ".join(told) or "ask its owner for conditions that some number of silos can meet"
