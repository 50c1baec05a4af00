"""What a silo's ledger must promise, whatever stores it; `silo_node/ledger/` keeps it in SQLite.

Every method is durable when it returns. A charge goes reserved -> committed, and back to nothing only from reserved:
`commit` precedes the reading of rows, so nothing has left of a reservation that was never committed. Prices are added
as they are (Feldman and Zrnic, NeurIPS 2021: a filter that adds Renyi divergences and stops at a limit holds however
the questions are chosen). Most are lines, rho at every order; a price that is none is kept as its curve over `ORDERS`.

Nothing charges a curve or a delta yet, and both stay: the price of sampled training, which comes later, is a curve, and
the bound of the sampler of tables will be charged to `atto_delta`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import ClassVar, Literal, Protocol

from crypto.wire import Count, Digest, Message, Name, Seconds
from policies.budget.accountant import ORDERS, cover
from policies.errors import LedgerError
from policies.requests.approval import Approval

MAX_PROPOSALS = 32  # of one request: each is a round that it may have been in
MAX_CURVE = 2**50
ATTO = 10**18  # deltas are counted in 1e-18
_LAST_MONTH = 12 * 10_000


@dataclass(frozen=True, slots=True)
class Months:
    """The calendar months of the data that a request reads, both ends included; counted from the year 0."""

    first: int = 0
    last: int = _LAST_MONTH

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= _LAST_MONTH:
            raise LedgerError(f"months from {self.first} to {self.last}")

    @classmethod
    def between(cls, first: date, last: date) -> "Months":
        """Return the months from that of one day to that of another."""
        return cls(12 * first.year + first.month - 1, 12 * last.year + last.month - 1)


ALL_MONTHS = Months()  # of a request that does not say


@dataclass(frozen=True, slots=True)
class RunStep:
    """A step of a training run: the run's id, what all its steps have in common (`request.job_of`), and which it is."""

    run: bytes
    job: bytes
    number: int


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
    run: RunStep | None = None  # of the training run that it is a step of
    months: Months = ALL_MONTHS
    atto_delta: int = 0
    curve: tuple[int, ...] = ()  # in `accountant.CURVE_UNITS` at each order; empty: the line of micro_rho

    def __post_init__(self) -> None:
        if self.micro_rho < 0 or self.atto_delta < 0:
            raise LedgerError("a charge below 0")
        if self.curve and (len(self.curve) != len(ORDERS) or not all(0 <= value <= MAX_CURVE for value in self.curve)):
            raise LedgerError(f"a curve needs {len(ORDERS)} values from 0 to {MAX_CURVE}")
        if self.curve and self.micro_rho < cover(self.curve):
            raise LedgerError("the rho of a charge must cover its curve")


Since = int | Months  # a clock time, or the months of the data whose pace a window limits


@dataclass(frozen=True, slots=True)
class WindowLimit:
    """What one purpose may spend in a window, and one analyst of that; in micro-rho.

    The window began at a clock time, or it is each of the months of data that the request reads.
    """

    since: Since
    rho: int
    per_analyst: int | None


@dataclass(frozen=True, slots=True)
class Rate:
    """How many requests of one analyst the silo may say yes to since a clock time.

    All steps of a training run are one, but a step that is asked again is one more.
    """

    since: int
    most: int


@dataclass(frozen=True, slots=True)
class WindowSpending:
    """What one purpose has spent in a window, and one analyst of that; in micro-rho, of months the most of any."""

    everybody: int
    analyst: int


@dataclass(frozen=True, slots=True)
class Spending:
    """What the ledger holds against the limits, in micro-rho: committed plus reserved."""

    lifetime: int  # the line that covers the sum of all curves
    windows: tuple[WindowSpending, ...] = ()  # of one purpose and analyst, one for each window asked for
    run: int = 0  # of one training run
    atto_delta: int = 0
    requests: int = 0  # of the analyst, that the silo said yes to since the time asked for, apart from this one
    curve: tuple[int, ...] = ()  # the sum of the curves that are no lines; empty if there is none


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
    spent: Spending,
    charge: Charge,
    lifetime: int,
    windows: Sequence[WindowLimit],
    run_limit: int | None = None,
    delta_limit: int = 0,
    rate: Rate | None = None,
) -> bool:
    """Tell whether one more charge would exceed a limit; a window without its spending counts as exceeded.

    The lifetime holds at every order: what all charges cost together stays below the line of the limit.
    """
    if lifetime_with(spent, charge) > lifetime or len(spent.windows) != len(windows):
        return True
    if charge.atto_delta and spent.atto_delta + charge.atto_delta > delta_limit:
        return True
    if run_limit is not None and spent.run + charge.micro_rho > run_limit:
        return True
    if rate is not None and spent.requests >= rate.most:
        return True
    return any(
        used.everybody + charge.micro_rho > limit.rho
        or (limit.per_analyst is not None and used.analyst + charge.micro_rho > limit.per_analyst)
        for used, limit in zip(spent.windows, windows, strict=True)
    )


def lifetime_with(spent: Spending, charge: Charge) -> int:
    """Return the micro-rho of the line that covers what was spent and one more charge."""
    if not charge.curve:
        return spent.lifetime + charge.micro_rho
    before = spent.curve or (0,) * len(ORDERS)
    lines = spent.lifetime - cover(before)
    return lines + cover(tuple(one + other for one, other in zip(before, charge.curve, strict=True)))


class Checkpoint(Message):
    """What a silo signs of its ledger and log after each change: the count only grows, so an older copy shows.

    It holds no more than how many entries the log has and their chained hash; the aggregator keeps the last one.
    On the wire and on disk it is called the ledger's head.
    """

    KIND: ClassVar[str] = "ledger-head"
    MAX_BYTES: ClassVar[int] = 1024
    version: Literal["ledger-head/1"] = "ledger-head/1"
    federation: Name
    silo: Name
    count: Count
    chain: Digest
    at: Seconds


class Ledger(Protocol):
    """Storage of charges, of the splits that were signed and of how far training runs are.

    Methods raise LedgerError if they cannot be durable.
    """

    def spending(
        self,
        excluding_nonce: bytes = b"",
        purpose: str = "",
        analyst: str = "",
        since: Sequence[Since] = (),
        run: RunStep | None = None,
        requests_since: int | None = None,
    ) -> Spending:
        """Return what is committed and reserved, apart from the charge of the nonce `excluding_nonce`.

        With `since`, also what `purpose` has spent in each of these windows, and `analyst` of that; with `run`, also
        what this training run of `analyst` has spent; with `requests_since`, how many requests were granted apart
        from this one, whose training run is not counted twice.
        """

    def job_of(self, run: bytes) -> bytes | None:
        """Return what the first request under a run id asked for, to which it is bound; None of an unknown one."""

    def is_committed(self, nonce: bytes) -> bool:
        """Tell whether a contribution for this request has left."""

    def verdicts(self, subject: bytes) -> tuple[Approval, ...]:
        """Return what people said to a request or training run, as they signed it."""

    def is_exhausted(self, nonce: bytes) -> bool:
        """Tell whether this request was accepted so often that no further round of it is taken part in."""

    def reserve(
        self,
        charge: Charge,
        lifetime_limit: int,
        windows: Sequence[WindowLimit] = (),
        run_limit: int | None = None,
        delta_limit: int = 0,
        rate: Rate | None = None,
    ) -> bool:
        """Reserve the charge unless it would exceed a limit (then False). The same nonce is reserved once.

        Raises AlreadyChargedError if a contribution for this nonce has left, if another request used it, if it was
        accepted MAX_PROPOSALS times, or if its run id is bound to another job.
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
