"""Units of time, said once: everything that counts in seconds since 1970 takes its days and hours from here.

A day is that of POSIX time, 86,400 seconds without leap seconds, so days since 1970 follow by whole division.
"""

from decimal import Decimal
from typing import Literal

Number = int | Decimal
Role = Literal["dimension", "measure", "filter", "feature", "label"]
MINUTE_S = 60
HOUR_S = 60 * MINUTE_S
DAY_S = 24 * HOUR_S
MICRO = 1_000_000  # the ledger counts in millionths of zCDP rho
MAX_RANGE_STEPS = 2**32
MAX_DOMAIN = 1000
MAX_STEPS = 1000  # of a training run
MIN_DELTA, MAX_DELTA = Decimal("1e-12"), Decimal("1e-5")


MINUTE_S = 60
HOUR_S = 60 * MINUTE_S
DAY_S = 24 * HOUR_S


def micro_floor(rho: Number) -> int:
    """Return a limit in micro-rho, rounded down: a limit is never widened by rounding."""
    return int(Decimal(rho) * MICRO)
