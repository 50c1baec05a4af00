"""Units of time and of rho, roles of columns, and limits of policies and requests, each defined once.

A day is that of POSIX time, 86,400 seconds without leap seconds, so days since 1970 follow by whole division.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

Number = int | Decimal
ColumnRole = Literal["dimension", "measure", "filter", "feature", "label", "key", "held_out", "audit"]
MINUTE_S = 60
HOUR_S = 60 * MINUTE_S
DAY_S = 24 * HOUR_S
WAIT_S = MINUTE_S  # a request waits for its silos' computing, where it does not say how long
MAX_WAIT_S = HOUR_S
SEND_S = MINUTE_S  # a request waits for a silo to send a long vector, where it does not say how long
MAX_SEND_S = HOUR_S
MAX_GATHER_S = 3 * MINUTE_S  # for all long vectors to arrive at the aggregator: no silo takes part in what lasts longer
UNDECLARED_S = 20  # of one computation, where no policy states its time
LOAD_S = MINUTE_S  # of a silo, before it accepts the first step of a training run, to load what its rounds need
MAX_BUSY_S = 4 * MINUTE_S  # how much longer a step may take because the silos compute for other rounds
MICRO = 1_000_000  # micro-rho in one zCDP rho, the unit of the ledger
NANO = 1_000_000_000  # nanoseconds in a second, the unit of declared times
MAX_RANGE_STEPS = 2**32
ROWS_UP_TO = 2**24  # rows of a source that its policy states no other number for
MAX_DOMAIN = 1000  # values in a policy or a table definition; a longer domain stands in a file, and travels by hash
MAX_LONG_DOMAIN = 1_000_000
MAX_STEPS = 1000  # of a training run
MIN_DELTA, MAX_DELTA = Decimal("1e-12"), Decimal("1e-5")


def micro_floor(rho: Number) -> int:
    """Return a limit in micro-rho, rounded down: a limit is never widened by rounding."""
    return int(Decimal(rho) * MICRO)


def counted(number: float, what: str) -> str:
    """Return how many there are of what, in words: `1 round`, `2 rounds`."""
    whole = round(number)
    return f"{whole:,} {what}{'' if whole == 1 else 's'}"


def when(seconds: int) -> str:
    """Return a time (seconds since 1970) as ISO 8601 in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
