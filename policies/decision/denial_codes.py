"""The codes of all denials.

The words of each stand in the rule that denies: `eligibility`, `disclosure` and their siblings.
"""

from typing import Literal

from policies.requests.denials import Denial

CLOCK_SKEW_S = 300  # between the clocks of two parties

DenialCode = Literal[
    "AGGREGATE",
    "ALREADY_ANSWERED",
    "ANALYST_UNKNOWN",
    "APPROVAL_AWAITED",
    "APPROVAL_REJECTED",
    "BACKEND",
    "BUDGET_ANALYST",
    "BUDGET_LIFETIME",
    "BUDGET_WINDOW",
    "CLIP_NORM",
    "COLUMN_CLOSED",
    "COLUMN_ROLE",
    "COMPUTATION_CLOSED",
    "CONSENT_STALE",
    "DAYS",
    "DEFINITION",
    "HOURS",
    "JURISDICTION",
    "MAX_DIMENSIONS",
    "MAX_GROUPS",
    "MAX_ROUNDS",
    "MAX_ROWS",
    "MAX_SILOS",
    "NOT_BUILT",
    "POLICY_EXPIRED",
    "PURPOSE_CLOSED",
    "RECIPIENT_CLOSED",
    "RELEASE",
    "REQUESTS_PER_DAY",
    "REQUEST_EXPIRED",
    "RETRIES",
    "RHO_PER_REQUEST",
    "RHO_PER_RUN",
    "RHO_TOO_SMALL",
    "ROSTER",
    "RUN_POSITION",
    "SIGNATURE",
    "SOLE_DIMENSION",
    "TABLE_UNKNOWN",
]


def deny(code: DenialCode, rule: str, message: str, remedy: str) -> Denial:
    """Return a denial; its texts are cut to what the wire carries."""
    return Denial(code=code, rule=rule[:300], message=message[:1000], remedy=remedy[:1000])
