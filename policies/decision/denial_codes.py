"""The codes of all denials.

The text of each is in its rule, in `eligibility`, `disclosure` and the other modules of this package.
"""

from collections.abc import Iterable
from typing import Literal, get_args

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
    "BUDGET_DELTA",
    "BUDGET_LIFETIME",
    "BUDGET_WINDOW",
    "BUSY",
    "CLIP_NORM",
    "CLOCK",
    "COLUMN_CLOSED",
    "COLUMN_ROLE",
    "COMPUTATION_CLOSED",
    "CONSENT_STALE",
    "DAYS",
    "DEFINITION",
    "DISK_FULL",
    "EXPIRED",
    "HOURS",
    "JOIN_CLOSED",
    "JURISDICTION",
    "LEDGER",
    "MAX_DIMENSIONS",
    "MAX_FLOPS",
    "MAX_GROUPS",
    "MAX_MEMORY",
    "MAX_NORM",
    "MAX_ROUNDS",
    "MAX_ROWS",
    "MAX_SILOS",
    "MAX_STATE",
    "MAX_VALUES",
    "MAX_WEIGHTS",
    "MIN_COHORT",
    "NETWORK_CLOSED",
    "NETWORK_UNKNOWN",
    "NOT_BUILT",
    "POLICY_EXPIRED",
    "PURPOSE_CLOSED",
    "RECIPIENT_CLOSED",
    "RELEASE",
    "REPLACED",
    "REQUESTS_PER_DAY",
    "REQUEST_EXPIRED",
    "RETRIES",
    "RHO_PER_REQUEST",
    "RHO_PER_RUN",
    "RHO_TOO_SMALL",
    "ROSTER",
    "ROWS_STALE",
    "RUN_OVER",
    "RUN_POSITION",
    "SEND_DEADLINE",
    "SIGNATURE",
    "SOLE_DIMENSION",
    "SOURCE_AWAY",
    "TABLE_UNKNOWN",
    "TOO_SLOW",
    "TRAINING_UNIT",
]
CODES: frozenset[str] = frozenset(get_args(DenialCode))
# What a silo says that cannot take part now, whatever its policy allows; see `policies.decision.inability`.
UNABLE: frozenset[str] = frozenset({"BUSY", "CLOCK", "DISK_FULL", "EXPIRED", "LEDGER", "SOURCE_AWAY"})


def is_unable(denials: Iterable[Denial]) -> bool:
    """Tell whether a silo refuses only because it cannot take part now."""
    return all(one.code in UNABLE for one in denials)


def deny(code: DenialCode, rule: str, message: str, remedy: str) -> Denial:
    """Return a denial; its texts are cut to the maximal length on the wire."""
    return Denial(code=code, rule=rule[:300], message=message[:1000], remedy=remedy[:1000])
