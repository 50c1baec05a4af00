"""What a silo's ledger must promise, whatever stores it; `silo_node.ledger_store` keeps it in SQLite.

Every method is durable when it returns. A charge goes reserved -> committed, and back to nothing only from reserved:
`commit` precedes the reading of rows, so nothing has left of a reservation that was never committed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from policies.errors import LedgerError


@dataclass(frozen=True, slots=True)
class Charge:
    """The whole cost of one request at one silo, named by the request's nonce."""

    nonce: bytes
    request_hash: bytes
    analyst: str
    purpose: str
    micro_rho: int
    policy_hash: bytes
    charged_at: int  # seconds since 1970, by the silo's clock
    run: bytes | None = None  # the training run that it is a step of


@dataclass(frozen=True, slots=True)
class WindowLimit:
    """What one purpose may spend since the beginning of a window, and one analyst of that; in micro-rho."""

    since: int
    rho: int
    per_analyst: int | None


@dataclass(frozen=True, slots=True)
class WindowSpending:
    """What one purpose has spent since the beginning of a window, and one analyst of that; in micro-rho."""

    everybody: int
    analyst: int


@dataclass(frozen=True, slots=True)
class Spending:
    """What the ledger holds against the limits, in micro-rho: committed plus reserved."""

    lifetime: int
    windows: tuple[WindowSpending, ...] = ()  # of one purpose and analyst, one for each beginning asked for
    run: int = 0  # of one training run


def window_start(window: str, now: int) -> int:
    """Return when the calendar window that holds `now` began, in seconds since 1970; weeks begin on Monday, UTC."""
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match window:
        case "calendar-day":
            start = day
        case "calendar-week":
            start = day - timedelta(days=day.weekday())
        case "calendar-month":
            start = day.replace(day=1)
        case "calendar-quarter":
            start = day.replace(month=day.month - (day.month - 1) % 3, day=1)
        case "calendar-year":
            start = day.replace(month=1, day=1)
        case _:
            raise LedgerError(f"unknown window {window!r}")
    return int(start.timestamp())


def exceeds(
    spent: Spending, micro_rho: int, lifetime: int, windows: Sequence[WindowLimit], run_limit: int | None = None
) -> bool:
    """Tell whether one more charge would exceed a limit; a window without its spending counts as exceeded."""
    if spent.lifetime + micro_rho > lifetime or len(spent.windows) != len(windows):
        return True
    if run_limit is not None and spent.run + micro_rho > run_limit:
        return True
    return any(
        used.everybody + micro_rho > limit.rho
        or (limit.per_analyst is not None and used.analyst + micro_rho > limit.per_analyst)
        for used, limit in zip(spent.windows, windows, strict=True)
    )


class Ledger(Protocol):
    """Storage of charges, of the splits that were signed and of how far training runs are.

    Methods raise LedgerError if they cannot be durable.
    """

    def spending(
        self,
        besides: bytes = b"",
        purpose: str = "",
        analyst: str = "",
        since: Sequence[int] = (),
        run: bytes | None = None,
    ) -> Spending:
        """Return what is committed and reserved, apart from the charge of the nonce `besides`.

        With `since`, also what `purpose` has spent from each of these times on, and `analyst` of that; with `run`, also
        what this training run of `analyst` has spent.
        """

    def is_committed(self, nonce: bytes) -> bool:
        """Tell whether a contribution for this request has left."""

    def reserve(
        self, charge: Charge, lifetime_limit: int, windows: Sequence[WindowLimit] = (), run_limit: int | None = None
    ) -> bool:
        """Reserve the charge unless it would exceed a limit (then False). The same nonce is reserved once.

        Raises AlreadyChargedError if a contribution for this nonce has left, or if another request used it.
        """

    def commit(self, nonce: bytes, round_id: bytes) -> None:
        """Bind the reservation to the round whose contribution leaves next.

        Raises AlreadyChargedError the second time.
        """

    def release(self, nonce: bytes) -> None:
        """Give a reservation back; does nothing to a committed charge."""

    def record_split(self, round_id: bytes, split_hash: bytes) -> bool:
        """Note the one split signed in a round; False if another one was noted before."""

    def load_run(self, run: bytes) -> bytes | None:
        """Return the state that was saved last of a training run; None of an unknown one."""

    def save_run(self, run: bytes, state: bytes) -> None:
        """Keep the state of a training run instead of the one before."""
